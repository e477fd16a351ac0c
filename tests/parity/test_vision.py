"""Vision encoders beside transformers: preprocessing, positions on other grids, and the features.

RECORD=1 writes down what tests/encoders/test_vision.py repeats."""

import json
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here asks for a file from elsewhere

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
import vision_cases
from torch.nn import functional
from vision_cases import BATCH, CASES, MOCO, RECORDED, TOLERANCE, ours, weight, weights, write

from rfjax.encoders.vision.families import BIASES, FAMILIES, TOWERS
from rfjax.encoders.vision.resampling import RULES, resize_matrix
from rfjax.tensors.opening import open_tensors

IMAGENET = transformers.image_utils.IMAGENET_DEFAULT_MEAN, transformers.image_utils.IMAGENET_DEFAULT_STD
CLIP = transformers.image_utils.OPENAI_CLIP_MEAN, transformers.image_utils.OPENAI_CLIP_STD
HALF = transformers.image_utils.IMAGENET_STANDARD_MEAN, transformers.image_utils.IMAGENET_STANDARD_STD
TIMM = {  # ViTModel's names in files -> timm's, within a block
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
}


def interpolated(x, size, rule):
    """torch's bicubic interpolation of (B, C, H, W)."""
    if rule == "offset":
        factors = [(m + 0.1) / n for m, n in zip(size, x.shape[2:], strict=True)]
        return functional.interpolate(x, scale_factor=factors, mode="bicubic")
    return functional.interpolate(x, size=size, mode="bicubic", antialias=rule == "antialias")


def preprocessed(case, size):
    """The case's pictures as REPA's code prepares them: CLIP's are resized first, the others normalised first."""
    x = torch.tensor(case.images).permute(0, 3, 1, 2) / 255.0
    mean, std = (torch.tensor(c).view(3, 1, 1) for c in colours(case))
    resize = lambda x: interpolated(x, size, "bicubic") if tuple(x.shape[2:]) != size else x  # noqa: E731
    return (resize(x) - mean) / std if case.name.startswith("clip") else resize((x - mean) / std)


def colours(case):
    return CLIP if case.name.startswith("clip") else HALF if case.name.startswith("siglip") else IMAGENET


def made(case, folder, **changes):
    """The folder with the case's small model in it, with random weights; (names and shapes, config)."""
    model = getattr(transformers, case.model)
    extra = {"add_pooling_layer": False} if case.model == "ViTModel" else {}
    model(model.config_class(**case.settings, **changes), **extra).save_pretrained(folder)
    with open_tensors(folder) as tensors:
        shapes = {name: tensors.shape(name) for name in tensors.names}
    config = json.loads((folder / "config.json").read_text())
    write(folder, weights(shapes), config)
    return shapes, config


def theirs(case, folder, pixels):
    """transformers' features of all tokens; the prefix is cut off."""
    extra = {"add_pooling_layer": False} if case.model == "ViTModel" else {}
    model = getattr(transformers, case.model).from_pretrained(folder, **extra).eval()
    model = getattr(model, case.part) if case.part else model
    given = {}
    if not case.model.startswith(("Dinov2", "DINOv3")):
        given["interpolate_pos_encoding"] = True
    patch = case.settings.get("vision_config", case.settings)["patch_size"]
    tokens = pixels.shape[2] * pixels.shape[3] // patch**2
    if case.name == "mae":
        given["noise"] = torch.arange(tokens).float().expand(BATCH, tokens)
    with torch.no_grad():
        out = model(pixels, output_hidden_states=True, **given)
    last = out.hidden_states[-1] if case.name == "mae" else out.last_hidden_state
    return last[:, last.shape[1] - tokens :].numpy()


def to_grid(case, shapes, folder, rule, grid):
    """Writes the folder's table of positions anew, resampled by torch, and a config of that size."""
    name = next(name for name in shapes if "position_embeddings" in name)
    with open_tensors(folder) as tensors:
        state = {each: tensors.read(each) for each in tensors.names}
    table = torch.tensor(state[name][0, 1:]).T.reshape(1, -1, 4, 4)
    table = interpolated(table, grid, rule).flatten(2).mT.numpy()
    state[name] = np.concatenate([state[name][:, :1], table], axis=1)
    vision_cases.write_safetensors(folder / "model.safetensors", state.items(), state)
    config = json.loads((folder / "config.json").read_text()) | {"image_size": grid[0] * case.settings["patch_size"]}
    (folder / "config.json").write_text(json.dumps(config))


def moco(shapes):
    """Names and shapes of MoCo v3's file, for those of ViTModel."""
    blocks = max(int(name.split(".")[2]) for name in shapes if name.startswith("encoder.layer.")) + 1
    width, side = shapes["embeddings.cls_token"][-1], shapes["embeddings.position_embeddings"][1]
    found = {"cls_token": (1, 1, width), "pos_embed": (1, side, width)}
    found |= {
        f"patch_embed.proj.{x}": shapes[f"embeddings.patch_embeddings.projection.{x}"] for x in ("weight", "bias")
    }
    found |= {f"norm.{x}": (width,) for x in ("weight", "bias")}
    for i in range(blocks):
        found |= {f"blocks.{i}.attn.qkv.weight": (3 * width, width), f"blocks.{i}.attn.qkv.bias": (3 * width,)}
        for old, new in TIMM.items():
            found |= {f"blocks.{i}.{new}.{x}": shapes[f"encoder.layer.{i}.{old}.{x}"] for x in ("weight", "bias")}
    return {MOCO + name: shape for name, shape in found.items()} | {MOCO + "head.0.weight": (5, width)}


def from_moco(shapes, folder):
    """Gives ViTModel's folder the weights of MoCo v3's file."""
    state = {}
    for name in shapes:
        new = name.replace("embeddings.patch_embeddings.projection", "patch_embed.proj")
        new = new.replace("embeddings.cls_token", "cls_token").replace("embeddings.position_embeddings", "pos_embed")
        new = new.replace("encoder.layer", "blocks").replace("layernorm.", "norm.") if "layernorm_" not in name else new
        new = new.replace("encoder.layer", "blocks")
        part = next((i for i, word in enumerate(("query", "key", "value")) if f".{word}." in name), None)
        for old, timm in TIMM.items():
            new = new.replace(f".{old}.", f".{timm}.") if "attention.attention" not in name else new
        if part is None:
            state[name] = weight(MOCO + new, shapes[name])
        else:
            fused = f"blocks.{name.split('.')[2]}.attn.qkv.{name.split('.')[-1]}"
            width = shapes[name][0]
            state[name] = weight(MOCO + fused, (3 * width, *shapes[name][1:]))[part * width : (part + 1) * width]
    vision_cases.write_safetensors(folder / "model.safetensors", state.items(), state)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_features(case, tmp_path, record_property):
    shapes, config = made(case, tmp_path)
    path, kept = tmp_path, shapes
    if case.name == "mocov3":
        from_moco(shapes, tmp_path)
        shapes, config = moco(shapes), {}
        path = write(tmp_path, weights(shapes), config)
    encoder = vision_cases.opened(case, path)
    found = ours(case, path)
    if case.rule != "bicubic" and case.model != "Dinov2WithRegistersModel":
        to_grid(case, kept, tmp_path, case.rule, encoder.grid)
    pixels = preprocessed(case, encoder.size)
    np.testing.assert_allclose(encoder.pixels(jnp.asarray(case.images)), pixels.permute(0, 2, 3, 1), rtol=0, atol=2e-5)
    expected = theirs(case, tmp_path, pixels)
    away = vision_cases.difference(found, expected)
    print(f"{case.name}: {away:.1e}")
    record_property("parity", [f"vision {case.name}", away, 0.0, ""])
    assert away <= TOLERANCE
    if os.environ.get("RECORD", "") not in ("", "0"):
        RECORDED.mkdir(exist_ok=True)
        texts = {"shapes": json.dumps(shapes), "config": json.dumps(config)}
        np.savez_compressed(RECORDED / f"{case.name}.npz", features=expected, **texts)
    known, _, old = vision_cases.recorded(case.name)
    assert {name: tuple(shape) for name, shape in known.items()} == shapes
    assert vision_cases.difference(expected, old) <= TOLERANCE


@pytest.mark.parametrize("case", [case for case in CASES if case.model in ("Dinov2Model", "CLIPModel")], ids=str)
def test_folders_as_transformers_writes_them(case, tmp_path):
    """Sharded, with an index."""
    made(case, tmp_path)
    expected = ours(case, tmp_path)
    model = getattr(transformers, case.model).from_pretrained(tmp_path)
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    np.testing.assert_array_equal(ours(case, tmp_path / "shards"), expected)


@pytest.mark.parametrize("kind", sorted(set(FAMILIES) - {"mocov3"}))
def test_defaults_are_those_of_transformers(kind):
    config = transformers.CONFIG_MAPPING[kind]()
    config = config.vision_config if kind in TOWERS else config
    known = {key: getattr(config, key) for key in FAMILIES[kind].defaults}
    assert known == FAMILIES[kind].defaults
    flags = {key: getattr(config, key) for keys in BIASES.values() for key in keys if hasattr(config, key)}
    assert {key for key, value in flags.items() if not value} == ({"key_bias"} if kind == "dinov3_vit" else set())


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("target", "source"), [(16, 37), (32, 37), (16, 14), (24, 14), (224, 256), (5, 5), (1, 4)])
def test_resampling(target, source, rule):
    columns = torch.eye(source)[None, None]  # (1, 1, n, n): each column of it is a unit vector
    scaled = (target + 0.1) / source
    if rule == "offset":
        expected = functional.interpolate(columns, scale_factor=(scaled, 1.0), mode="bicubic")
    else:
        expected = interpolated(columns, (target, source), rule)
    # torch's places are float32, so they are off by half a unit in the last place of `source`, a few times.
    np.testing.assert_allclose(resize_matrix(target, source, rule), expected[0, 0], rtol=0, atol=source * 2**-22)
