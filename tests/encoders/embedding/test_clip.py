"""CLIP and DINOv2 as embedders: what transformers made of small ones (recorded by `make parity RECORD=1`), open_clip's
files, pictures beside Pillow, and what is said of files that hold something else."""

import dataclasses
import math
import shutil

import clip_cases
import jax
import jax.numpy as jnp
import numpy as np
import pipelines
import pytest
from clip_cases import LENGTH, PLAIN, PROJECTED, QUICK, TEXTS, TOLERANCE, WIDTH, changed, difference, recorded
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import tiny

from rfjax import config as configs
from rfjax.compiling import quick_options
from rfjax.encoders.embedding import Embedder, TextEmbedder, clip_files, make_embedder
from rfjax.encoders.embedding.clip import network_name, open_embedder
from rfjax.encoders.embedding.clip_pixels import FITS, pixels
from rfjax.encoders.vision.families import CLIP, IMAGENET, describe
from rfjax.errors import UserError
from rfjax.tensors.fingerprint import fingerprint_of
from rfjax.tensors.pt import write_pt
from rfjax.tensors.safetensors import write_safetensors

END = pipelines.clip_vocabulary()[pipelines.END]


def jitted(function):
    return jax.jit(function, compiler_options=quick_options())


def config(**files):
    return dataclasses.replace(configs.parse(tiny()), evaluate=configs.Evaluate(**files))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of the CLIP with quick GELU."""
    return clip_cases.write(tmp_path_factory.mktemp("clip"), clip_cases.tensors(QUICK.config), QUICK.config)


@pytest.fixture(scope="module")
def opened(folder):
    """(embedder, its weights, its programs for pictures and for texts)."""
    embedder = make_embedder("clip", config(clip=str(folder)))
    return embedder, embedder.weights(), jitted(embedder.embed), jitted(embedder.embed_text)


def test_vectors_are_those_of_transformers(opened):
    embedder, weights, embed, embed_text = opened
    expected = recorded(QUICK.name)
    found = embed(weights, clip_cases.images())
    for name in ("projected", "pooled"):
        assert found[name].dtype == np.float32
        assert difference(found[name], expected[name]) <= TOLERANCE
    assert difference(embed_text(weights, embedder.tokens(TEXTS)), expected["text"]) <= TOLERANCE


def test_the_other_gelu_is_that_of_transformers_too(tmp_path, opened):
    path = clip_cases.write(tmp_path, clip_cases.tensors(PLAIN.config), PLAIN.config)
    embedder = make_embedder("pickscore", config(pickscore=str(path)))
    assert embedder.scale == pytest.approx(math.exp(3.0))
    expected = recorded(PLAIN.name)
    found = jitted(embedder.embed_text)(embedder.weights(), embedder.tokens(TEXTS))
    assert difference(found, expected["text"]) <= TOLERANCE
    assert difference(expected["text"], recorded(QUICK.name)["text"]) > 100 * TOLERANCE
    assert difference(expected["projected"], recorded(QUICK.name)["projected"]) > 100 * TOLERANCE


def test_names_say_network_and_preprocessing(opened, folder):
    embedder = opened[0]
    assert isinstance(embedder, TextEmbedder) and hash(embedder) == hash(embedder)
    assert (embedder.name, embedder.scale) == ("clip-32x3p7@pil28", 1.0)
    assert embedder.outputs == {"projected": PROJECTED, "pooled": WIDTH}
    square = make_embedder("clip336", config(clip336=str(folder)))
    assert square.name == "clip-32x3p7@square28"
    about = embedder.about()
    assert about["file"] == str(folder / "model.safetensors") and len(about["sha256"]) == 16
    assert "quick_gelu" in about["network"] and "shorter side to 28" in about["resize"]
    assert "0.481455" in about["scaling"]


@pytest.mark.parametrize(
    ("kind", "vision", "name"),
    [
        ("clip", {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 14}, "l14"),
        ("clip", {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 14,
                  "image_size": 336}, "l14-336"),
        ("clip", {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16, "patch_size": 14}, "h14"),
        ("clip", {}, "b32"),
        ("dinov2", {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 518}, "l14"),
        ("dinov2", {"hidden_size": 96, "image_size": 28}, "96x12p14"),
    ],
)  # fmt: skip
def test_published_networks_have_their_names(kind, vision, name):
    given = {"vision_config": vision} if kind == "clip" else vision
    assert network_name(describe({"model_type": kind} | given, "config.json")) == name


# open_clip


@pytest.mark.parametrize("start", ["", "module."])
def test_open_clips_files_hold_the_same_network(start, tmp_path):
    state = clip_cases.tensors(PLAIN.config)
    theirs = {start + name: value for name, value in clip_cases.open_clip(state).items()}
    theirs |= {start + "attn_mask": np.zeros((LENGTH, LENGTH), np.float32)}
    rater = make_embedder("hps", config(hps=str(clip_cases.write_open_clip(tmp_path / "own", theirs))))
    other = open_embedder(clip_cases.write(tmp_path / "hf", state, PLAIN.config), fit="pad", called="hps-v2.1", scale=1)
    same = ("name", "vision", "text", "fit", "colours", "scale", "outputs")
    assert [getattr(rater, name) for name in same] == [getattr(other, name) for name in same]
    assert rater.name == "hps-v2.1-32x3p7@pad28"
    jax.tree.map(np.testing.assert_array_equal, rater.weights(), other.weights())


def test_half_precision_is_read_as_float32(tmp_path):
    state = {k: v.astype(np.float16) for k, v in clip_cases.open_clip(clip_cases.tensors(PLAIN.config)).items()}
    weights = make_embedder("hps", config(hps=str(clip_cases.write_open_clip(tmp_path, state)))).weights()
    assert {leaf.dtype for leaf in jax.tree.leaves(weights)} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(weights["projection"], state["visual.proj"])


def test_shards_are_read_and_have_a_fingerprint(folder, tmp_path, opened):
    state = clip_cases.tensors(QUICK.config)
    clip_cases.write(tmp_path, {"a": np.zeros(1)}, QUICK.config)
    (tmp_path / "model.safetensors").unlink()
    write_safetensors(tmp_path, state.items(), state, max_shard_bytes=20_000)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    embedder = make_embedder("clip", config(clip=str(tmp_path)))
    jax.tree.map(np.testing.assert_array_equal, embedder.weights(), opened[1])
    assert embedder.about()["sha256"] == f"fingerprint {fingerprint_of(folder)}"


def test_open_clips_copy_beside_the_weights_is_not_taken(folder, tmp_path, opened):
    path = shutil.copytree(folder, tmp_path / "laion")
    other = clip_cases.open_clip(clip_cases.tensors(PLAIN.config))
    write_safetensors(path / "open_clip_model.safetensors", other.items(), other)
    embedder = make_embedder("clip", config(clip=str(path)))
    jax.tree.map(np.testing.assert_array_equal, embedder.weights(), opened[1])


# Texts


def test_long_captions_keep_the_end(opened):
    found = opened[0].tokens([*TEXTS, "red " * 10_000])["ids"]
    assert found.shape == (len(TEXTS) + 1, LENGTH)
    assert found[2, -1] == found[-1, -1] == END and END not in found[-1, :-1]
    words = pipelines.clip_vocabulary()
    assert found[-1, :-1].tolist() == [words[pipelines.START], *[words["red</w>"]] * (LENGTH - 2)]


def test_a_texts_vector_does_not_depend_on_its_filling(opened):
    embedder, weights, _, embed_text = opened
    ids = embedder.tokens(["cat", "a red cat"])["ids"]
    other = ids.copy()
    for row, start in zip(other, (ids == END).argmax(1), strict=True):
        row[start + 1 :] = 7
    np.testing.assert_allclose(*(embed_text(weights, {"ids": one}) for one in (ids, other)), rtol=0, atol=1e-5)


def test_pictures_need_no_tokenizer(folder, tmp_path):
    path = shutil.copytree(folder, tmp_path / "bare")
    (path / "vocab.json").unlink()
    embedder = make_embedder("clip336", config(clip336=str(path)))
    with pytest.raises(UserError, match=r"bare has no tokenizer\.json or vocab\.json and merges\.txt"):
        embedder.tokens(["cat"])


def test_a_tokenizer_may_have_a_folder(folder, tmp_path, opened):
    path = shutil.copytree(folder, tmp_path / "tidy")
    (path / "tokenizer").mkdir()
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json"):
        (path / name).rename(path / "tokenizer" / name)
    found = make_embedder("clip", config(clip=str(path))).tokens(TEXTS)["ids"]
    np.testing.assert_array_equal(found, opened[0].tokens(TEXTS)["ids"])


# Pictures


def by_pillow(image, fit, size):
    """A picture as bytes, or as floats where the protocol has them."""
    height, width, _ = image.shape
    short = min(height, width)
    if fit == "square":
        top, left = (height - short) // 2, (width - short) // 2
        image, target = image[top : top + short, left : left + short], (size, size)
    elif fit == "squash":
        target = (size, size)
    else:
        target = (int(size * width / short), int(size * height / short))
    found = np.asarray(Image.fromarray(image).resize(target, Image.Resampling.BICUBIC))
    top, left = ((side - size) // 2 for side in found.shape[:2])
    return found[top : top + size, left : left + size]


def levels(images, fit, size):
    """Our picture before it is normalised, from 0 to 255."""
    mean, std = (np.array(colour) for colour in CLIP)
    return (np.asarray(pixels(jnp.asarray(images), fit, size, CLIP), np.float64) * std + mean) * 255


@pytest.mark.parametrize(
    ("fit", "shape"),
    [("pil", (40, 61)), ("pil", (96, 64)), ("pil", (28, 28)), ("pil", (17, 20)), ("pil", (28, 45)),
     ("square", (40, 61)), ("square", (96, 64)), ("squash", (40, 61)), ("squash", (17, 20))],
)  # fmt: skip
def test_pictures_are_pillows(fit, shape):
    """Bit for bit but where a sum is within a float's error of a half: one value in thousands, by one level."""
    noise = np.random.default_rng(0).integers(0, 256, (2, *shape, 3)).astype(np.uint8)
    found, expected = levels(noise, fit, 28), np.stack([by_pillow(image, fit, 28) for image in noise]).astype(float)
    away = np.abs(found - expected)
    assert (away > 0.01).mean() < 2e-3
    assert away.max() < 1.01


def test_padding_is_black_and_floats_are_not_rounded():
    white = np.full((1, 20, 40, 3), 255, np.uint8)
    found = levels(white, "pad", 28)
    np.testing.assert_allclose(found[:, 7:21], 255, atol=1e-3)
    np.testing.assert_allclose(found[:, [*range(7), *range(21, 28)]], 0, atol=1e-3)
    noise = np.random.default_rng(0).integers(0, 2, (1, 30, 30, 3)).astype(np.uint8) * 255
    sharp = levels(noise, "pad", 28)
    assert sharp.min() < -5 and sharp.max() > 260 and np.abs(sharp - np.round(sharp)).max() > 0.4


@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from(sorted(FITS)))
@settings(max_examples=100)
def test_a_grey_picture_stays_grey(length, other, fit):
    matrix = FITS[fit].axis(length, other, 28)
    assert matrix.shape == (28, length)
    sums = matrix.sum(1)
    filled = np.abs(sums - 1) < 1e-9
    assert (filled | (sums == 0)).all()
    assert filled.sum() == (max(1, round(length * (28 / max(length, other)))) if fit == "pad" else 28)


# DINOv2


def test_class_tokens_are_those_of_transformers(tmp_path):
    embedder = make_embedder("dinov2", config(dinov2=str(clip_cases.write_dino(tmp_path))))
    assert isinstance(embedder, Embedder) and not isinstance(embedder, TextEmbedder)
    assert (embedder.name, embedder.outputs) == ("dinov2-32x3p56@squash224", {"cls": 32})
    assert embedder.colours == IMAGENET
    about = embedder.about()
    assert "rule `offset`" in about["network"] and "224 x 224" in about["resize"]
    found = jitted(embedder.embed)(embedder.weights(), clip_cases.images())["cls"]
    assert difference(found, recorded("dino")["cls"]) <= TOLERANCE


def test_another_dino_is_refused(tmp_path):
    path = clip_cases.write_dino(tmp_path)
    given = config(dinov2=str(path))
    embedder = make_embedder("dinov2", given)
    changed(path / "config.json", num_attention_heads=2)
    with pytest.raises(UserError, match="has changed: it holds another DINOv2 than before"):
        embedder.weights()
    changed(path / "config.json", model_type="dinov2_with_registers", num_register_tokens=0)
    with pytest.raises(UserError, match=r"dinov2_with_registers, and FD-DINOv2 needs DINOv2 without registers"):
        make_embedder("dinov2", given)


# Mistakes


def drop(word):
    def damage(path, state):
        state = {name: value for name, value in state.items() if word not in name}
        write_safetensors(path / "model.safetensors", state.items(), state)

    return damage


def put(name, value):
    def damage(path, state):
        state = {**state, name: value}
        write_safetensors(path / "model.safetensors", state.items(), state)

    return damage


def settings_are(**values):
    return lambda path, _: changed(path / "config.json", **values)


def extra_merge(path, _):
    pipelines.write_clip_tokenizer(path, merges=(*pipelines.MERGES, "a t"))


MISTAKES = {
    "no-tokenizer": (lambda path, _: (path / "merges.txt").unlink(), r"has no tokenizer\.json or vocab\.json and"),
    "other-tokenizer": (extra_merge, r"has 527 tokens, and its network knows 526"),
    "no-config": (lambda path, _: (path / "config.json").unlink(), r"has no config\.json: give Hugging Face's folder"),
    "no-weights": (lambda path, _: (path / "model.safetensors").unlink(), r"holds no \.safetensors file"),
    "text-only": (settings_are(model_type="clip_text_model"), r"is one tower alone, and a CLIP of pictures and texts"),
    "another-kind": (settings_are(model_type="siglip"), r"'siglip', which is no CLIP: a CLIP of pictures and texts"),
    "text-weights": (drop("vision_model"), r"lacks vision_model\.embeddings\.patch_embedding\.weight"),
    "no-texts": (drop("text_model"), r"lacks embeddings\.token_embedding\.weight"),
    "no-projection": (drop("visual_projection"), r"lacks visual_projection\.weight, so it is no whole CLIP"),
    "no-norm": (drop("post_layernorm"), r"lacks 2 of its .* tensors, such as post_layernorm\.weight"),
    "projection": (settings_are(projection_dim=24), r"has a visual_projection\.weight of the shape \(20, 32\), and its "
                   r"description says \(24, 32\)"),
    "width": (settings_are(vision_config=clip_cases.VISION | {"hidden_size": 64}), r"has the shape \(64, 3, 7, 7\)"),
    "depth": (settings_are(text_config=clip_cases.TEXT | {"num_hidden_layers": 3}), r"does not fit its layout.*layers"),
    "heads": (settings_are(text_config=clip_cases.TEXT | {"num_attention_heads": 5}), r"does not divide the width 24"),
    "act": (settings_are(vision_config=clip_cases.VISION | {"hidden_act": "gelo"}), r"hidden_act 'gelo'"),
    "surplus": (put("vision_model.adapter", np.ones(3, np.float32)), r"holds 1 tensors more than that"),
    "scale": (put("logit_scale", np.array(400, np.float32)), r"has logit_scale = 400\.0: it must be a number"),
    "no-scale": (drop("logit_scale"), r"has no number logit_scale"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_sentence(name, tmp_path):
    damage, message = MISTAKES[name]
    state = clip_cases.tensors(QUICK.config)
    path = clip_cases.write(tmp_path / "clip", state, QUICK.config)
    damage(path, state)
    with pytest.raises(UserError, match=message) as error:
        make_embedder("pickscore", config(pickscore=str(path))).weights()
    assert "\n" not in str(error.value)


def test_open_clips_mistakes_are_one_sentence(tmp_path):
    state = clip_cases.open_clip(clip_cases.tensors(PLAIN.config))
    path = clip_cases.write_open_clip(tmp_path, state)
    given = config(hps=str(path))

    def says(message, held):
        write_pt(path, held.items(), held)
        with pytest.raises(UserError, match=message) as error:
            make_embedder("hps", given).weights()
        assert "\n" not in str(error.value)

    says(r"holds no whole CLIP of open_clip: .*token_embedding\.weight is missing",
         {name: value for name, value in state.items() if name != "token_embedding.weight"})  # fmt: skip
    says(r"has no config\.json", {name: value for name, value in state.items() if name != clip_files.FIRST})
    says(r"whose .*q_proj\.weight has the shape \(32, 32\); in .* it has \(31, 32\)",
         state | {"visual.transformer.resblocks.1.attn.in_proj_weight": np.ones((95, 32), np.float32)})  # fmt: skip
    says(r"holds 1 tensors more than that, such as score\.weight", state | {"score.weight": np.ones(4, np.float32)})
    (tmp_path / "open_clip_config.json").unlink()
    says(r"a tower of width 32, and open_clip's files store no number of attention heads", state)


@pytest.mark.parametrize("name", ["clip", "clip336", "pickscore", "hps", "dinov2"])
def test_files_that_are_not_named_or_not_there(name, tmp_path):
    with pytest.raises(UserError, match=rf"config\.evaluate\.{name} is empty: name the f"):
        make_embedder(name, config())
    with pytest.raises(UserError, match=rf"config\.evaluate\.{name} = '.*none' does not exist: name the f"):
        make_embedder(name, config(**{name: str(tmp_path / "none")}))
