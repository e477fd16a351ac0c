"""Small published encoders with random weights: what tests/parity/test_vision.py compares with transformers, and
tests/encoders/test_vision.py repeats from its recordings. Weights are pure functions of names and shapes. No torch."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from parity_cases import uniform

from rfjax.encoders.vision import VisionEncoder, features, open_encoder
from rfjax.tensors.pt import write_pt
from rfjax.tensors.safetensors import write_safetensors

TOLERANCE = 1e-4  # relative to the largest feature
RECORDED = Path(__file__).parent / "parity" / "recorded_vision"
BATCH = 2
MOCO = "module.base_encoder."


@dataclasses.dataclass(frozen=True)
class Case:
    """A small encoder and the pictures that it is shown.

    Attributes:
        model: the class in transformers. part: its attribute that encodes pictures. settings: of its config.
        image: (H, W) of the pictures. side: tokens along the shorter side. rule: for positions.
    """

    name: str
    model: str
    settings: Mapping[str, Any]
    part: str = ""
    image: tuple[int, int] = (40, 60)
    side: int = 4
    rule: str = "bicubic"
    heads: int = 0

    def __str__(self) -> str:
        return self.name

    @property
    def images(self) -> np.ndarray:
        """uint8 pictures (B, H, W, 3) with something in them at every scale."""
        h, w = self.image
        noise = uniform("image", (BATCH, h, w, 3), 0) / math.sqrt(3)
        waves = np.sin(np.arange(h)[:, None, None] / 5) * np.cos(np.arange(w)[None, :, None] / 7 + np.arange(3))
        return (127.5 + 60 * waves + 60 * noise).astype(np.uint8)


SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 7,
    "layer_norm_eps": 0.1,
}  # an epsilon that shows
PLAIN = SIZES | {"intermediate_size": 48}
RATIO = SIZES | {"mlp_ratio": 2}
TEXT = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 9}
V3 = PLAIN | {"image_size": 32, "patch_size": 8, "num_register_tokens": 4}
TOWERS = {"text_config": TEXT, "vision_config": PLAIN}
CASES = [
    Case("dinov2", "Dinov2Model", RATIO),
    Case("dinov2-repa", "Dinov2Model", RATIO, image=(60, 60), side=6, rule="antialias"),
    Case("dinov2-hub", "Dinov2Model", RATIO, image=(60, 60), side=6, rule="offset"),
    Case("dinov2-swiglu", "Dinov2Model", RATIO | {"use_swiglu_ffn": True}),
    Case("dinov2-registers", "Dinov2WithRegistersModel", RATIO | {"num_register_tokens": 4}, rule="antialias"),
    Case("dinov3", "DINOv3ViTModel", V3),
    Case("dinov3-gated", "DINOv3ViTModel", V3 | {"use_gated_mlp": True, "hidden_act": "silu",
         "num_register_tokens": 0}),
    Case("mae", "ViTMAEForPreTraining", PLAIN | {"decoder_hidden_size": 8, "decoder_num_hidden_layers": 1,
         "decoder_num_attention_heads": 1, "decoder_intermediate_size": 8, "mask_ratio": 0.0}, "vit"),
    Case("ijepa", "IJepaModel", PLAIN),
    Case("dino", "ViTModel", PLAIN, image=(28, 28)),
    Case("clip", "CLIPModel", TOWERS, "vision_model"),
    Case("clip-vision", "CLIPVisionModel", PLAIN | {"hidden_act": "gelu"}),
    Case("siglip", "SiglipModel", TOWERS, "vision_model"),
    Case("siglip-vision", "SiglipVisionModel", PLAIN, image=(28, 28)),
    Case("mocov3", "ViTModel", PLAIN | {"layer_norm_eps": 1e-6}, image=(60, 60), side=6, rule="antialias", heads=4),
]  # fmt: skip


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A weight that is nowhere as it was initialised, at which the network is well conditioned."""
    raw = uniform(name, shape, 0)
    if name.endswith("lambda1"):
        raw = 0.7 + 0.3 * raw
    elif len(shape) > 1 and not any(word in name for word in ("token", "pos")):
        raw = raw / math.sqrt(math.prod(shape[1:]))
    elif "norm" in name and name.endswith("weight"):
        raw = 1 + 0.3 * raw
    else:
        raw = 0.3 * raw
    return raw.astype(np.float32)


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """All of an encoder's tensors."""
    return {name: weight(name, tuple(shape)) for name, shape in shapes.items()}


def write(folder: Path, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> Path:
    """Writes an encoder's files, and returns what is to be opened: a folder, or a file if there is no config."""
    if not config:
        write_pt(folder / "moco.pth", tensors.items(), tensors)
        return folder / "moco.pth"
    write_safetensors(folder / "model.safetensors", tensors.items(), tensors)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def opened(case: Case, path: Path, **changes: Any) -> VisionEncoder:
    """The case's encoder."""
    settings = {"side": case.side, "rule": case.rule, "heads": case.heads} | changes
    return open_encoder(path, (*case.image, 3), **settings)


def ours(case: Case, path: Path) -> np.ndarray:
    """What we make of the case's pictures."""
    return features(opened(case, path), case.images)


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest feature."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    assert np.isfinite(found).all()
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def recorded(name: str) -> tuple[dict[str, tuple[int, ...]], dict[str, Any], np.ndarray]:
    """(shapes, config, features) of a case, as transformers had them."""
    with np.load(RECORDED / f"{name}.npz") as found:
        return *(json.loads(str(found[key])) for key in ("shapes", "config")), found["features"]
