import numpy as np
import pytest
from rfjax.data.text import Labels, Stored, WordVectors

from rfjax.errors import UserError


def test_words_are_nearly_orthogonal_and_fixed():
    encoder = WordVectors(8, 512, 64)
    context, pooled = encoder(["red", "blue", "red"])
    np.testing.assert_array_equal(context[0], context[2])
    place = encoder([""]).context  # all zero: the position's code is only added to words
    red, blue = (context[i, 0] - first_code(512) for i in range(2))
    assert (place == 0).all()
    assert abs(red @ blue) / 512 < 4 / 512**0.5
    assert (context.shape, pooled.shape) == ((3, 8, 512), (3, 64))
    # The first eight signs of SHAKE-128("red"): pins the encoding across machines and versions.
    np.testing.assert_array_equal(np.sign(WordVectors(1, 8, 8)(["red"]).pooled[0]), SIGNS)


def first_code(width):
    """The code of the first position: sin 0 and cos 0."""
    return np.concatenate([np.zeros(width // 2), np.ones(width // 2)]).astype(np.float32)


SIGNS = [1, -1, 1, 1, -1, -1, 1, 1]


def test_order_matters_to_tokens_and_to_the_pooled_vector():
    context, pooled = WordVectors(8, 64, 64)(["a circle above a square", "a square above a circle"])
    assert np.abs(context[0] - context[1]).max() > 1
    assert np.abs(pooled[0] - pooled[1]).max() > 0.1


def test_what_lies_beyond_a_caption_is_zero_and_long_captions_are_cut():
    encoder = WordVectors(3, 16, 16)
    context, pooled = encoder(["one two", "one two three four", ""])
    assert (context[0, 2] == 0).all()
    assert (context[2] == 0).all()
    assert (pooled[2] == 0).all()
    np.testing.assert_array_equal(context[1], encoder(["one two three"]).context[0])


def test_case_and_punctuation_do_not_matter():
    a, b = WordVectors(4, 16, 16)(["A red, Circle.", "a red circle"]).context
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("layout", "count"), [("one", 1), ("sd3", 3)])
def test_parts_cover_every_value_of_stored_encodings_once(layout, count):
    encoder = Stored(154, 4096, 2048, layout)
    tokens, vector = np.zeros((154, 4096), int), np.zeros(2048, int)
    for rows, channels, part in encoder.parts:
        tokens[rows, channels] += 1
        vector[part] += 1
    assert len(encoder.parts) == count
    assert (vector == 1).all()
    # CLIP's 2048 channels are padded with zeros to 4096, which belong to no encoder.
    assert (tokens[:, :2048] == 1).all()
    assert tokens.max() == 1


def test_each_vocabulary_has_tokens_channels_and_vectors_of_its_own():
    one, two = WordVectors(8, 16, 12), WordVectors(16, 16, 24, vocabularies=2)
    (context, pooled), (both, vectors) = one(["a red circle"]), two(["a red circle"])
    np.testing.assert_array_equal(both[:, :8], context)  # the first is the one that stands alone
    np.testing.assert_array_equal(vectors[:, :12], pooled)
    assert np.abs(both[:, 8:] - context).max() > 1
    assert np.abs(vectors[:, 12:] - pooled).max() > 0.1
    assert two.kinds == (8, 8)
    assert two.parts == (
        (slice(0, 8), slice(None), slice(0, 12)),
        (slice(8, 16), slice(None), slice(12, 24)),
    )


def test_a_label_is_one_hot_and_nothing_is_none():
    encoder = Labels(4)
    context, pooled = encoder(["2", "", "0"])
    assert context.shape == (3, 0, 1)
    np.testing.assert_array_equal(pooled, [[0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
    for wrong in ("4", "-1", "a cat", "1.0", "9" * 5000):
        with pytest.raises(UserError, match=f"'{wrong}' is not the number of a class, 0 to 3"):
            encoder([wrong])
