import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax.conditioning import Conditioning
from rfjax.encoders import Encoder, TextEncoder
from rfjax.encoders.text import Labels, Stored, WordVectors
from rfjax.errors import UserError


def read(encoder, texts):
    """The tokens and the pooled vectors of some texts."""
    cond = encode(encoder, encoder.prompts(texts))
    return np.asarray(cond.context), np.asarray(cond.pooled)


def encode(encoder, arrays):
    placed = {name: jnp.asarray(array) for name, array in arrays.items()}
    return encoder.encode(encoder.weights(), placed, jax.random.split(jax.random.key(0), 3))


def test_words_are_nearly_orthogonal_and_fixed():
    encoder = WordVectors(8, 512, 64)
    context, pooled = read(encoder, ["red", "blue", "red"])
    np.testing.assert_array_equal(context[0], context[2])
    place = read(encoder, [""])[0]  # all zero: the position's code is only added to words
    red, blue = (context[i, 0] - first_code(512) for i in range(2))
    assert (place == 0).all()
    assert abs(red @ blue) / 512 < 4 / 512**0.5
    assert (context.shape, pooled.shape) == ((3, 8, 512), (3, 64))
    # The first eight signs of SHAKE-128("red"): pins the encoding across machines and versions.
    np.testing.assert_array_equal(np.sign(read(WordVectors(1, 8, 8), ["red"])[1][0]), SIGNS)


def first_code(width):
    """The code of the first position: sin 0 and cos 0."""
    return np.concatenate([np.zeros(width // 2), np.ones(width // 2)]).astype(np.float32)


SIGNS = [1, -1, 1, 1, -1, -1, 1, 1]


def test_order_matters_to_tokens_and_to_the_pooled_vector():
    context, pooled = read(WordVectors(8, 64, 64), ["a circle above a square", "a square above a circle"])
    assert np.abs(context[0] - context[1]).max() > 1
    assert np.abs(pooled[0] - pooled[1]).max() > 0.1


def test_what_lies_beyond_a_caption_is_zero_and_long_captions_are_cut():
    encoder = WordVectors(3, 16, 16)
    context, pooled = read(encoder, ["one two", "one two three four", ""])
    assert (context[0, 2] == 0).all()
    assert (context[2] == 0).all()
    assert (pooled[2] == 0).all()
    np.testing.assert_array_equal(context[1], read(encoder, ["one two three"])[0][0])


def test_case_and_punctuation_do_not_matter():
    a, b = read(WordVectors(4, 16, 16), ["A red, Circle.", "a red circle"])[0]
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("layout", "count"), [("one", 1), ("sd3", 3)])
def test_groups_cover_every_value_of_stored_encodings_once(layout, count):
    encoder = Stored(154, 4096, 2048, layout)
    tokens, vector = np.zeros((154, 4096), int), np.zeros(2048, int)
    for rows, channels, pooled in encoder.groups:
        tokens[slice(*rows), slice(*channels)] += 1
        vector[slice(*pooled)] += 1
    assert len(encoder.groups) == encoder.output.groups == count
    assert (vector == 1).all()
    # CLIP's 2048 channels are padded with zeros to 4096, which belong to no encoder.
    assert (tokens[:, :2048] == 1).all()
    assert tokens.max() == 1


def test_each_vocabulary_has_tokens_channels_and_vectors_of_its_own():
    one, two = WordVectors(8, 16, 12), WordVectors(16, 16, 24, vocabularies=2)
    (context, pooled), (both, vectors) = read(one, ["a red circle"]), read(two, ["a red circle"])
    np.testing.assert_array_equal(both[:, :8], context)  # the first is the one that stands alone
    np.testing.assert_array_equal(vectors[:, :12], pooled)
    assert np.abs(both[:, 8:] - context).max() > 1
    assert np.abs(vectors[:, 12:] - pooled).max() > 0.1
    assert two.kinds == (8, 8)
    assert two.groups == (((0, 8), (0, None), (0, 12)), ((8, 16), (0, None), (12, 24)))


def test_a_label_is_one_hot_and_nothing_is_none():
    encoder = Labels(4)
    context, pooled = read(encoder, ["2", "", "0"])
    assert context.shape == (3, 0, 1)
    np.testing.assert_array_equal(pooled, [[0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
    for wrong in ("4", "-1", "a cat", "1.0", "9" * 5000):
        with pytest.raises(UserError, match=f"'{wrong}' is not the number of a class, 0 to 3"):
            encoder.prompts([wrong])


ENCODERS = (WordVectors(4, 8, 6), WordVectors(6, 8, 7, 3), Labels(5), Stored(80, 16, 2048), Stored(4, 8, 6, "one"))


def stored(encoder, count, dtype=np.float32):
    """Encodings as a data set stores them."""
    rng, shapes = np.random.default_rng(0), encoder.output
    arrays = {name: rng.normal(size=(count, *getattr(shapes, name).shape)) for name in ("context", "pooled")}
    return {name: array.astype(dtype) for name, array in arrays.items()}


@pytest.mark.parametrize("encoder", ENCODERS, ids=repr)
def test_an_encoder_makes_what_it_declares(encoder):
    assert isinstance(encoder, Encoder) and isinstance(encoder, TextEncoder)
    arrays = stored(encoder, 3) | {"label": np.arange(3)}
    cond = encode(encoder, encoder.prepare(arrays, ["one", "two", "three"]))
    assert isinstance(cond, Conditioning)
    assert cond.parts == encoder.output.parts
    for name in ("context", "pooled"):
        made, said = getattr(cond, name), getattr(encoder.output, name)
        assert (made.shape, made.dtype) == ((3, *said.shape), said.dtype)
    assert sum(encoder.kinds) == encoder.output.context.shape[0]


@pytest.mark.parametrize("encoder", [ENCODERS[0], ENCODERS[3]], ids=repr)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_stored_encodings_come_before_captions_and_in_float32(encoder, dtype):
    arrays = stored(encoder, 2, dtype)
    prepared = encoder.prepare(arrays | {"image": np.zeros((2, 1))}, ["a caption"] * 2)
    assert set(prepared) == {"context", "pooled"}
    assert {array.dtype for array in prepared.values()} == {np.dtype(np.float16 if dtype == np.float16 else np.float32)}
    cond = encode(encoder, prepared)
    for name, array in arrays.items():
        made = getattr(cond, name)
        assert made.dtype == np.float32
        np.testing.assert_array_equal(made, array.astype(np.float32))


@pytest.mark.parametrize("missing", ["context", "pooled"])
def test_half_of_an_encoding_is_none(missing):
    words, encoder = ENCODERS[0], ENCODERS[4]
    arrays = {name: array for name, array in stored(words, 1).items() if name != missing}
    np.testing.assert_array_equal(words.prepare(arrays, ["a cat"])["context"], words.prompts(["a cat"])["context"])
    with pytest.raises(UserError, match=r"this data set stores no encodings: choose another config.text.encoder"):
        encoder.prepare(arrays, ["a cat"])


def test_labels_of_the_data_and_of_prompts_are_alike():
    encoder = Labels(12)
    numbers = np.array([0, 11, 7], np.int64)
    of_data = encoder.prepare({"label": numbers}, ["a", "b", "c"])
    of_texts = encoder.prompts([str(number) for number in numbers])
    assert set(of_data) == set(of_texts) == {"label"}
    np.testing.assert_array_equal(of_data["label"], of_texts["label"])
    np.testing.assert_array_equal(encode(encoder, of_data).pooled, np.eye(12)[numbers])


def test_labels_that_are_not_there_or_too_large_are_refused():
    with pytest.raises(UserError, match=r"has no class labels: choose another config.text.encoder than 'labels'"):
        Labels(3).prepare({"image": np.zeros((1, 2))}, ["a"])
    with pytest.raises(UserError, match="'3' is not the number of a class, 0 to 2"):
        Labels(3).prepare({"label": np.array([3])}, ["a"])


def test_stored_encodings_have_no_new_texts():
    with pytest.raises(UserError, match="a new text has none"):
        ENCODERS[4].prompts(["a cat"])


@pytest.mark.parametrize("encoder", ENCODERS, ids=repr)
def test_dropping_every_group_is_null_and_keeping_all_changes_nothing(encoder):
    cond = encode(encoder, encoder.prepare(stored(encoder, 2) | {"label": np.arange(2)}, ["a b c", "d"]))
    none, all_ = (cond.drop(jnp.full((2, cond.groups), keep)) for keep in (False, True))
    reached = [np.zeros(leaf.shape, bool) for leaf in (cond.context, cond.pooled)]
    for tokens, channels, pooled in cond.parts:
        reached[0][:, slice(*tokens), slice(*channels)] = True
        reached[1][:, slice(*pooled)] = True
    for name, there in zip(("context", "pooled"), reached, strict=True):
        np.testing.assert_array_equal(getattr(all_, name), getattr(cond, name))
        np.testing.assert_array_equal(np.asarray(getattr(none, name))[there], 0)
        assert not np.asarray(getattr(cond.null(), name)).any()


def test_an_example_keeps_its_own_groups():
    encoder = WordVectors(6, 8, 6, 3)
    cond = encode(encoder, encoder.prompts(["a b", "a b"]))
    kept = cond.drop(jnp.array([[True, False, True], [False, True, False]]))
    mask = np.array([[1, 1, 0, 0, 1, 1], [0, 0, 1, 1, 0, 0]])  # of the tokens, and of the pooled channels
    np.testing.assert_array_equal(kept.context, cond.context * mask[..., None])
    np.testing.assert_array_equal(kept.pooled, cond.pooled * mask)
