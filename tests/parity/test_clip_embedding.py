"""CLIP and DINOv2 as embedders beside transformers: vectors of the same pixels, whole preprocessing, PickScore.

RECORD=1 writes down what tests/encoders/embedding/test_clip.py repeats."""

import dataclasses
import importlib
import importlib.util
import json
import os
import sys
import types
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here asks for a file from elsewhere

import clip_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from clip_cases import LENGTH, LEVELS, PLAIN, QUICK, TEXTS, TOLERANCE, difference
from PIL import Image
from tiny import tiny
from torch.nn import functional

from rfjax import config as configs
from rfjax.encoders.embedding import clip_files, clip_pixels, make_embedder
from rfjax.encoders.vision.families import CLIP, IMAGENET

RECORD = os.environ.get("RECORD", "") not in ("", "0")
SIZE = 28
SHAPES = [(40, 60), (61, 40), (28, 28), (20, 33), (300, 200), (256, 256)]
CLIP_PIL = importlib.import_module("transformers.models.clip.image_processing_pil_clip").CLIPImageProcessorPil


def config(**files):
    return dataclasses.replace(configs.parse(tiny()), evaluate=configs.Evaluate(**files))


def noise(shape, count=2):
    return np.random.default_rng(1).integers(0, 256, (count, *shape, 3)).astype(np.uint8)


@pytest.fixture(scope="module", params=[QUICK, PLAIN], ids=str)
def both(request, tmp_path_factory):
    """(case, our embedder and its weights, transformers' model, processor and tokenizer)."""
    case = request.param
    folder = clip_cases.write(tmp_path_factory.mktemp(case.name), clip_cases.tensors(case.config), case.config)
    embedder = make_embedder("pickscore", config(pickscore=str(folder)))
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    processor = CLIP_PIL(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    return case, embedder, embedder.weights(), model, processor, tokenizer


def prepared(processor, images):
    return processor([Image.fromarray(image) for image in images], return_tensors="pt")["pixel_values"]


def of_pictures(model, pixels):
    """transformers' vectors before and behind the projection."""
    with torch.no_grad():
        pooled = model.vision_model(pixels).pooler_output
        return pooled.numpy(), model.get_image_features(pixels).pooler_output.numpy()


def of_texts(model, tokenizer, texts):
    given = tokenizer(list(texts), padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
    with torch.no_grad():
        return model.get_text_features(**given).pooler_output.numpy()


def note(record_property, name, away):
    print(f"{name}: {away:.1e}")
    record_property("parity", [name, float(away), 0.0, ""])  # xdist sends plain numbers only


def test_vectors_of_the_same_pixels(both, record_property):
    case, embedder, weights, model, *_ = both
    images = clip_cases.images(SIZE, SIZE)
    x = clip_pixels.pixels(jnp.asarray(images), "pil", SIZE, CLIP)
    pooled, projected = of_pictures(model, torch.tensor(np.asarray(x)).permute(0, 3, 1, 2))
    found = jax.jit(embedder.embed)(weights, images)
    away = max(difference(found["pooled"], pooled), difference(found["projected"], projected))
    note(record_property, f"CLIP {case}, same pixels", away)
    assert away <= TOLERANCE


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_whole_preprocessing(shape, both, record_property):
    """From bytes to vectors. Rounding between the axes is repeated, so a few levels in a million differ by one."""
    case, embedder, weights, model, processor, _ = both
    images = noise(shape)
    expected = prepared(processor, images)
    x = clip_pixels.pixels(jnp.asarray(images), "pil", SIZE, CLIP)
    away = np.abs(np.asarray(x) - expected.permute(0, 2, 3, 1).numpy()) * np.array(CLIP[1]) * 255
    assert (away > 0.01).mean() < 2e-3
    assert away.max() < 1.01
    pooled, projected = of_pictures(model, expected)
    found = jax.jit(embedder.embed)(weights, images)
    gap = max(difference(found["pooled"], pooled), difference(found["projected"], projected))
    note(record_property, f"CLIP {case}, whole preprocessing", gap)
    assert gap <= (TOLERANCE if away.max() < 0.01 else LEVELS)


def test_texts(both, record_property):
    case, embedder, weights, model, _, tokenizer = both
    expected = of_texts(model, tokenizer, TEXTS)
    away = difference(jax.jit(embedder.embed_text)(weights, embedder.tokens(TEXTS)), expected)
    note(record_property, f"CLIP {case}, texts", away)
    assert away <= TOLERANCE


def test_recordings(both):
    case, _, _, model, processor, tokenizer = both
    pooled, projected = of_pictures(model, prepared(processor, clip_cases.images()))
    made = {"pooled": pooled, "projected": projected, "text": of_texts(model, tokenizer, TEXTS)}
    if RECORD:
        clip_cases.record(case.name, **made)
    for name, old in clip_cases.recorded(case.name).items():
        assert difference(made[name], old) <= TOLERANCE


def test_pickscores_formula(both, record_property):
    """As its model card has it: unit vectors, their product, times exp(logit_scale); the softmax is a preference."""
    case, embedder, weights, model, processor, tokenizer = both
    images, texts = np.concatenate([noise((40, 60)), clip_cases.images()]), ["a photo of a cat"] * 4
    _, pictures = of_pictures(model, prepared(processor, images))
    unit = lambda x: x / np.linalg.norm(np.asarray(x, np.float64), axis=-1, keepdims=True)  # noqa: E731
    cosines = (unit(pictures) * unit(of_texts(model, tokenizer, texts))).sum(-1)
    expected = float(model.logit_scale.detach().exp()) * cosines
    found = jax.jit(embedder.embed)(weights, images)["projected"]
    words = jax.jit(embedder.embed_text)(weights, embedder.tokens(texts))
    scores = embedder.scale * (unit(found) * unit(words)).sum(-1)
    away = np.abs(scores - expected).max() / embedder.scale
    note(record_property, f"PickScore {case}", away)
    assert away < 2e-5
    preference, wanted = (np.exp(x - x.max()) / np.exp(x - x.max()).sum() for x in (scores, expected))
    np.testing.assert_allclose(preference, wanted, atol=1e-3)


@pytest.mark.parametrize("shape", [(40, 60), (61, 40), (20, 20), (224, 300)], ids=str)
def test_hps_resizes_floats_as_torch_does(shape):
    """Longer side, antialiased, black around it: as torchvision >= 0.17 resizes a tensor."""
    images = noise(shape)
    scale = SIZE / max(shape)
    height, width = (round(side * scale) for side in shape)
    x = torch.tensor(images).permute(0, 3, 1, 2).float() / 255
    x = functional.interpolate(x, size=(height, width), mode="bicubic", antialias=True)
    down, right = SIZE - height, SIZE - width
    x = functional.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
    mean, std = (np.array(colour) for colour in CLIP)
    expected = (x.permute(0, 2, 3, 1).numpy() - mean) / std
    found = clip_pixels.pixels(jnp.asarray(images), "pad", SIZE, CLIP)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


@pytest.fixture
def own(monkeypatch):
    """open_clip's module of networks. Its package imports torchvision, of which networks need one name."""
    found = importlib.util.find_spec("open_clip")
    if found is None:
        pytest.skip("the package open-clip-torch is not installed: pip install --no-deps open-clip-torch")
    package = types.ModuleType("open_clip")
    package.__path__ = list(found.submodule_search_locations)
    torchvision = {name: types.ModuleType(name) for name in ("torchvision", "torchvision.ops", "torchvision.ops.misc")}
    torchvision["torchvision.ops.misc"].FrozenBatchNorm2d = torch.nn.Module
    for name, module in {"open_clip": package, **torchvision}.items():
        monkeypatch.setitem(sys.modules, name, module)
    yield importlib.import_module("open_clip.model")
    for name in [name for name in sys.modules if name.startswith("open_clip.")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-L-14", "ViT-H-14"])
def test_heads_of_published_networks(name, own):
    known = json.loads((Path(own.__file__).parent / "model_configs" / f"{name}.json").read_text(encoding="utf-8"))
    vision, text = known["vision_cfg"], known["text_cfg"]
    assert clip_files.VISION_HEADS[vision["width"]] == vision["width"] // vision.get("head_width", 64)
    assert clip_files.TEXT_HEADS[text["width"]] == text["heads"]


@pytest.mark.parametrize("quick", [False, True])
def test_open_clips_own_network(quick, own, tmp_path, record_property):
    """A file that open_clip's network saved, as HPS's is: fused in_proj and no number of heads."""
    torch.manual_seed(0)
    vision = own.CLIPVisionCfg(layers=3, width=32, head_width=8, patch_size=7, image_size=28)
    text = own.CLIPTextCfg(context_length=LENGTH, vocab_size=clip_cases.TEXT["vocab_size"], width=24, heads=2, layers=2)
    model = own.CLIP(clip_cases.PROJECTED, vision, text, quick_gelu=quick).eval()
    for parameter in model.parameters():  # none stays as it was initialised
        parameter.data += 0.1 * torch.randn_like(parameter)
    path = clip_cases.write_open_clip(tmp_path, {"a": np.zeros(1, np.float32)})
    torch.save({"state_dict": model.state_dict()}, path)
    said = {"model_cfg": clip_cases.OWN_CONFIG["model_cfg"] | {"quick_gelu": quick}}
    clip_cases.pipelines.write_json(tmp_path / "open_clip_config.json", said)
    rater = make_embedder("hps", config(hps=str(path)))
    images, weights, tokens = clip_cases.images(SIZE, SIZE), rater.weights(), rater.tokens(TEXTS)
    pixels = torch.tensor(np.asarray(clip_pixels.pixels(jnp.asarray(images), "pad", SIZE, CLIP))).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = model.encode_image(pixels).numpy(), model.encode_text(torch.tensor(tokens["ids"]).long()).numpy()
    found = jax.jit(rater.embed)(weights, images)["projected"], jax.jit(rater.embed_text)(weights, tokens)
    for name, ours, theirs in zip(("pictures", "texts"), found, expected, strict=True):
        away = difference(ours, theirs)
        note(record_property, f"open_clip, {name}{', quick' * quick}", away)
        assert away <= TOLERANCE


@pytest.mark.parametrize("rule", ["offset", "bicubic"])
def test_dinos_class_token(rule, tmp_path, record_property):
    """By the hub's rule of positions, whose table is resampled by torch beforehand, and by transformers' own."""
    folder = clip_cases.write_dino(tmp_path)
    embedder = dataclasses.replace(make_embedder("dinov2", config(dinov2=str(folder))), rule=rule)
    model = transformers.Dinov2Model.from_pretrained(folder).eval()
    images = clip_cases.images()
    resized = [np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC)) for image in images]
    mean, std = (np.array(colour) for colour in IMAGENET)
    pixels = torch.tensor((np.stack(resized) / 255 - mean) / std).float().permute(0, 3, 1, 2)
    if rule == "offset":
        table = model.embeddings.position_embeddings.data
        square = table[:, 1:].mT.reshape(1, -1, 5, 5)
        square = functional.interpolate(square, scale_factor=(4.1 / 5, 4.1 / 5), mode="bicubic")
        model.embeddings.position_embeddings.data = torch.cat([table[:, :1], square.flatten(2).mT], dim=1)
    with torch.no_grad():
        expected = model(pixels).last_hidden_state[:, 0].numpy()
    found = jax.jit(embedder.embed)(embedder.weights(), images)["cls"]
    away = difference(found, expected)
    note(record_property, f"DINOv2's class token, {rule}, whole preprocessing", away)
    assert away <= LEVELS
    same = torch.tensor(np.asarray(clip_pixels.pixels(jnp.asarray(images), "squash", 224, IMAGENET)))
    with torch.no_grad():
        away = difference(found, model(same.permute(0, 3, 1, 2)).last_hidden_state[:, 0].numpy())
    note(record_property, f"DINOv2's class token, {rule}, same pixels", away)
    assert away <= TOLERANCE
    if rule == "offset":
        if RECORD:
            clip_cases.record("dino", cls=expected)
        assert difference(expected, clip_cases.recorded("dino")["cls"]) <= TOLERANCE
