"""CLIP and DINOv2 as embedders beside transformers: vectors of the same pixels, whole preprocessing, PickScore.

RECORD=1 writes down what tests/encoders/embedding/test_clip.py repeats."""

import dataclasses
import importlib
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here asks for a file from elsewhere

import clip_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from clip_cases import LENGTH, PLAIN, QUICK, TEXTS, TOLERANCE, difference
from PIL import Image
from tiny import tiny
from torch.nn import functional

from rfjax import config as configs
from rfjax.encoders.embedding import clip_pixels, make_embedder
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
    record_property("parity", [name, away, 0.0, ""])


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
    assert gap <= (TOLERANCE if away.max() < 0.01 else 2e-3)


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
    expected = float(model.logit_scale.exp()) * cosines
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
    away = difference(jax.jit(embedder.embed)(embedder.weights(), images)["cls"], expected)
    note(record_property, f"DINOv2's class token, {rule}", away)
    assert away <= 2e-3
    if rule == "offset":
        if RECORD:
            clip_cases.record("dino", cls=expected)
        assert difference(expected, clip_cases.recorded("dino")["cls"]) <= TOLERANCE
