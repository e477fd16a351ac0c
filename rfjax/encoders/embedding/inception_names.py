"""The convolutions of FID's Inception-v3, as torch's and TensorFlow's files name them, and their weights from either.

The network is that of Szegedy et al. (2015) as TensorFlow released it on 2015-12-05: 94 convolutions, each with a batch
normalisation and ReLU behind it, and a classifier of 1008 classes. torchvision's has other weights and 1000 classes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rfjax.encoders.embedding.graph_def import read_constants
from rfjax.encoders.embedding.reading import COUNTS, check_values, read_leaves
from rfjax.errors import UserError
from rfjax.tensors.layout import Layout, Piece, conv, linear, same
from rfjax.tensors.opening import open_tensors

FEATURES, CLASSES = 2048, 1008
TORCHVISION_CLASSES = 1000
ADVICE = (
    "take weights-inception-2015-12-05-6726825d.pth of torch-fidelity (pytorch-fid's pt_inception-2015-12-05 is the "
    "same), or TensorFlow's classify_image_graph_def.pb"
)
ONE, THREE, FIVE = (1, 1), (3, 3), (5, 5)
ROW_3, COLUMN_3, ROW_7, COLUMN_7 = (1, 3), (3, 1), (1, 7), (7, 1)  # (height, width)
# Of a convolution: our leaf -> torch's name after its unit's, and TensorFlow's after its scope.
PARTS = {
    "scale": ("bn.weight", "batchnorm/gamma"),
    "bias": ("bn.bias", "batchnorm/beta"),
    "mean": ("bn.running_mean", "batchnorm/moving_mean"),
    "variance": ("bn.running_var", "batchnorm/moving_variance"),
}
KERNEL = ("conv.weight", "conv2d_params")
HEAD = {"fc/kernel": "softmax/weights", "fc/bias": "softmax/biases"}


class Unit(NamedTuple):
    """A convolution with its batch normalisation.

    Attributes:
        name: in torch's files, such as Mixed_5b.branch1x1. scope: in TensorFlow's, such as mixed/conv.
        size: height and width of the kernel.
        inputs, outputs: channels.
    """

    name: str
    scope: str
    size: tuple[int, int]
    inputs: int
    outputs: int

    @property
    def block(self) -> str:
        """The block that it belongs to; of the stem, itself."""
        return self.name.partition(".")[0]

    @property
    def branch(self) -> str:
        """Its name within the block."""
        return self.name.partition(".")[2]


class Block(NamedTuple):
    """A block's name in torch's files, its scope in TensorFlow's, and the channels that it reads."""

    name: str
    scope: str
    inputs: int

    def chain(self, *steps: tuple[str, str, tuple[int, int], int], inputs: int = 0) -> Iterator[Unit]:
        """Convolutions that follow each other: (name, scope, size, outputs); the first reads the block's input."""
        before = inputs or self.inputs
        for name, scope, size, outputs in steps:
            yield Unit(f"{self.name}.{name}", f"{self.scope}/{scope}", size, before, outputs)
            before = outputs


def _tower(name: str, scope: str, *steps: tuple[tuple[int, int], int]) -> list[tuple[str, str, tuple[int, int], int]]:
    """The steps of a branch: NAME_1, NAME_2 ... in torch, SCOPE/conv, SCOPE/conv_1 ... in TensorFlow."""
    suffixes = ["", *(f"_{i}" for i in range(1, len(steps)))]
    return [(f"{name}_{i + 1}", f"{scope}/conv{suffixes[i]}", size, width) for i, (size, width) in enumerate(steps)]


def _a(block: Block, pool: int) -> Iterator[Unit]:
    yield from block.chain(("branch1x1", "conv", ONE, 64))
    yield from block.chain(*_tower("branch5x5", "tower", (ONE, 48), (FIVE, 64)))
    yield from block.chain(*_tower("branch3x3dbl", "tower_1", (ONE, 64), (THREE, 96), (THREE, 96)))
    yield from block.chain(("branch_pool", "tower_2/conv", ONE, pool))


def _b(block: Block) -> Iterator[Unit]:
    yield from block.chain(("branch3x3", "conv", THREE, 384))
    yield from block.chain(*_tower("branch3x3dbl", "tower", (ONE, 64), (THREE, 96), (THREE, 96)))


def _c(block: Block, c: int) -> Iterator[Unit]:
    yield from block.chain(("branch1x1", "conv", ONE, 192))
    yield from block.chain(*_tower("branch7x7", "tower", (ONE, c), (ROW_7, c), (COLUMN_7, 192)))
    long = ((ONE, c), (COLUMN_7, c), (ROW_7, c), (COLUMN_7, c), (ROW_7, 192))
    yield from block.chain(*_tower("branch7x7dbl", "tower_1", *long))
    yield from block.chain(("branch_pool", "tower_2/conv", ONE, 192))


def _d(block: Block) -> Iterator[Unit]:
    yield from block.chain(*_tower("branch3x3", "tower", (ONE, 192), (THREE, 320)))
    yield from block.chain(*_tower("branch7x7x3", "tower_1", (ONE, 192), (ROW_7, 192), (COLUMN_7, 192), (THREE, 192)))


def _e(block: Block) -> Iterator[Unit]:
    yield from block.chain(("branch1x1", "conv", ONE, 320))
    yield from block.chain(*_tower("branch3x3", "tower", (ONE, 384)))
    yield from block.chain(("branch3x3_2a", "tower/mixed/conv", ROW_3, 384), inputs=384)
    yield from block.chain(("branch3x3_2b", "tower/mixed/conv_1", COLUMN_3, 384), inputs=384)
    yield from block.chain(*_tower("branch3x3dbl", "tower_1", (ONE, 448), (THREE, 384)))
    yield from block.chain(("branch3x3dbl_3a", "tower_1/mixed/conv", ROW_3, 384), inputs=384)
    yield from block.chain(("branch3x3dbl_3b", "tower_1/mixed/conv_1", COLUMN_3, 384), inputs=384)
    yield from block.chain(("branch_pool", "tower_2/conv", ONE, 192))


STEM = (
    Unit("Conv2d_1a_3x3", "conv", THREE, 3, 32),
    Unit("Conv2d_2a_3x3", "conv_1", THREE, 32, 32),
    Unit("Conv2d_2b_3x3", "conv_2", THREE, 32, 64),
    Unit("Conv2d_3b_1x1", "conv_3", ONE, 64, 80),
    Unit("Conv2d_4a_3x3", "conv_4", THREE, 80, 192),
)
UNITS = (
    *STEM,
    *_a(Block("Mixed_5b", "mixed", 192), 32),
    *_a(Block("Mixed_5c", "mixed_1", 256), 64),
    *_a(Block("Mixed_5d", "mixed_2", 288), 64),
    *_b(Block("Mixed_6a", "mixed_3", 288)),
    *_c(Block("Mixed_6b", "mixed_4", 768), 128),
    *_c(Block("Mixed_6c", "mixed_5", 768), 160),
    *_c(Block("Mixed_6d", "mixed_6", 768), 160),
    *_c(Block("Mixed_6e", "mixed_7", 768), 192),
    *_d(Block("Mixed_7a", "mixed_8", 768)),
    *_e(Block("Mixed_7b", "mixed_9", 1280)),
    *_e(Block("Mixed_7c", "mixed_10", 2048)),
)


def _layout() -> tuple[Layout, dict[str, str]]:
    """Path of a leaf -> its tensor in torch's files; and its constant in TensorFlow's, which has the leaf's shape."""
    pieces: dict[str, Piece] = {}
    constants = dict(HEAD)
    for unit in UNITS:
        pieces[f"{unit.name}/kernel"] = conv(f"{unit.name}.{KERNEL[0]}", unit.size, unit.inputs, unit.outputs)
        constants[f"{unit.name}/kernel"] = f"{unit.scope}/{KERNEL[1]}"
        for leaf, (torch_name, constant) in PARTS.items():
            pieces[f"{unit.name}/{leaf}"] = same(f"{unit.name}.{torch_name}", (unit.outputs,))
            constants[f"{unit.name}/{leaf}"] = f"{unit.scope}/{constant}"
    pieces["fc/kernel"] = linear("fc.weight", FEATURES, CLASSES)
    pieces["fc/bias"] = same("fc.bias", (CLASSES,))
    return {path: (piece,) for path, piece in pieces.items()}, constants


LAYOUT, CONSTANTS = _layout()


def read_inception(path: Path) -> dict[str, np.ndarray]:
    """The 472 leaves, float32, by path such as Mixed_5b.branch1x1/kernel (HWIO).

    Args:
        path: torch-fidelity's or pytorch-fid's .pth, TensorFlow's .pb, or .safetensors with the names of the .pth.

    Raises:
        UserError: if it is damaged, or holds another network.
    """
    if path.suffix == ".pb":
        shapes = {CONSTANTS[leaf]: piece.view for leaf, (piece,) in LAYOUT.items()}
        try:
            found = read_constants(path, shapes)
            leaves = {leaf: found[name] for leaf, name in CONSTANTS.items()}
            check_values(leaves, CONSTANTS, path)
        except UserError as error:
            raise UserError(f"{error}: {ADVICE}") from error
        return leaves
    _refuse_torchvision(path)
    return read_leaves(path, LAYOUT, ADVICE, (COUNTS,))


def _refuse_torchvision(path: Path) -> None:
    """torchvision's network has the same names, and would give plausible numbers that are not FID."""
    try:
        with open_tensors(path) as tensors:
            names = tensors.names
            ours = "fc.weight" in names and tensors.shape("fc.weight")[:1] != (TORCHVISION_CLASSES,)
            theirs = any(name.startswith("AuxLogits.") for name in names) or ("fc.weight" in names and not ours)
    except UserError:
        return  # the reader says it better
    if theirs:
        raise UserError(
            f"{path} holds torchvision's Inception-v3, whose weights and {TORCHVISION_CLASSES} classes are not those "
            f"that FID is computed with: {ADVICE}"
        )
