"""Small autoencoders with random weights: what tests/parity/test_autoencoder.py compares with diffusers.

tests/encoders/test_autoencoder.py repeats it from recordings. Weights are functions of names and shapes. No torch."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from parity_cases import uniform

from rfjax.compiling import quick_options
from rfjax.encoders.autoencoder import Autoencoder, open_autoencoder
from rfjax.encoders.autoencoder.description import describe
from rfjax.encoders.autoencoder.names import DIFFUSERS, HALVES, OLD_ATTENTION, Names, layout
from rfjax.tensors.layout import manifest
from rfjax.tensors.safetensors import write_safetensors

TOLERANCE = 1e-5  # relative to the largest value
RECORDED = Path(__file__).parent / "parity" / "recorded_autoencoder"
BATCH = 2
DOWN, UP = "DownEncoderBlock2D", "UpDecoderBlock2D"


def settings(widths: tuple[int, ...] = (32, 64, 64), **changes: Any) -> dict[str, Any]:
    """The config.json of a small AutoencoderKL."""
    return {
        "_class_name": "AutoencoderKL",
        "block_out_channels": list(widths),
        "down_block_types": [DOWN] * len(widths),
        "up_block_types": [UP] * len(widths),
        "layers_per_block": 1,
        "latent_channels": 8,
        "scaling_factor": 1.5305,
        "shift_factor": 0.0609,
        **changes,
    }


TOY = settings((8, 16), latent_channels=4, norm_num_groups=4)  # makes one latent pixel of 2 x 2


@dataclasses.dataclass(frozen=True)
class Case:
    """A small autoencoder and the side of the pictures that it is shown."""

    name: str
    settings: Mapping[str, Any]
    side: int = 16

    def __str__(self) -> str:
        return self.name

    @property
    def images(self) -> np.ndarray:
        """Pictures from -1 to 1, (B, H, W, C)."""
        shape = (BATCH, self.side, self.side, self.settings.get("in_channels", 3))
        return (uniform("image", shape, 0) / math.sqrt(3)).astype(np.float32)

    @property
    def latents(self) -> np.ndarray:
        """Latents, (B, h, w, Z)."""
        side = self.side // 2 ** (len(self.settings["block_out_channels"]) - 1)
        return uniform("latent", (BATCH, side, side, self.settings["latent_channels"]), 0).astype(np.float32)


OLD = dataclasses.replace(DIFFUSERS, attention=OLD_ATTENTION)
NONE = {"use_quant_conv": False, "use_post_quant_conv": False}
CASES = [
    Case("quant", settings()),
    Case("plain", settings(**NONE)),
    Case("odd", settings(**NONE), 20),  # 5 pixels on the lowest level
    Case("deep", settings((16, 32), layers_per_block=2, latent_channels=4, norm_num_groups=8, shift_factor=None)),
    Case("no-attention", settings((16,), norm_num_groups=4, mid_block_add_attention=False, in_channels=1,
                                  out_channels=1), 8),
]  # fmt: skip


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A weight that is nowhere as it was initialised, at which the network is well conditioned."""
    raw = uniform(name, shape, 0)
    if len(shape) > 1:
        raw = raw / math.sqrt(math.prod(shape[1:]))
    elif "norm" in name and name.endswith("weight"):
        raw = 1 + 0.3 * raw
    else:
        raw = 0.3 * raw
    return raw.astype(np.float32)


def shapes_of(config: Mapping[str, Any], names: Names = DIFFUSERS) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of an autoencoder."""
    arch = describe(config, "config.json").arch
    return {name: shape for half in HALVES for name, shape in manifest(layout(arch, half, names)).items()}


def write_vae(folder: Path, config: Mapping[str, Any] = TOY, names: Names = DIFFUSERS) -> Path:
    """Writes an autoencoder's folder, by default a tiny one, with random weights; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tensors = {name: weight(name, shape) for name, shape in shapes_of(config, names).items()}
    write_safetensors(folder, tensors.items(), tensors)
    return folder


def placed(opened: Autoencoder, **halves: Any) -> Any:
    """An autoencoder's weights as arrays."""
    return jax.tree.map(lambda leaf: jax.device_put(leaf.read()), opened.weights(**halves))


def jitted(call: Any) -> Any:
    """A program that compiles fast."""
    return jax.jit(call, compiler_options=quick_options())


def ours(case: Case, folder: Path) -> dict[str, np.ndarray]:
    """What we make of a case: mean, log variance (clamped) and decoded pictures."""
    opened = open_autoencoder(folder)
    weights = placed(opened)
    mean, logvar = np.split(np.asarray(jitted(opened.moments)(weights, case.images)), 2, axis=-1)
    pixels = np.asarray(jitted(opened.pixels)(weights, case.latents))
    return {"mean": mean, "logvar": np.clip(logvar, -30, 20), "pixels": pixels}


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest value."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    assert np.isfinite(found).all()
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def recorded(name: str) -> dict[str, np.ndarray]:
    """The outputs of a case, as diffusers had them."""
    with np.load(RECORDED / f"{name}.npz") as found:
        return dict(found)
