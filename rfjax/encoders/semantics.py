"""`shapes`: exact features of the data set `shapes`, in place of a pretrained encoder where there are no weights.

A token holds, for the area of one patch: the share of the background, of each of the four shapes and of each of the
eight colours, and the share of pixels at an outline that faces left, right, up and down. They are what a good encoder
would know: which shape a patch belongs to can't be told from the patch alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rfjax import config as configs
from rfjax.encoders import make_codec
from rfjax.errors import UserError

SHAPES, COLOURS = 4, 8
OUTLINES = ((0, -1), (0, 1), (-1, 0), (1, 0))  # left, right, up, down: the side at which the object ends


@dataclass(frozen=True)
class Semantics:
    """Exact features of `shapes`.

    Attributes:
        grid: rows and columns of the tokens.
    """

    grid: tuple[int, int]

    name: ClassVar[str] = "features of shapes"
    reads: ClassVar[tuple[str, ...]] = ("semantics",)
    width: ClassVar[int] = 1 + SHAPES + COLOURS + len(OUTLINES)
    flops: ClassVar[int] = 0  # the data set brings them

    def weights(self) -> tuple[()]:
        """None."""
        return ()

    abstract_weights = weights

    def prepare(self, arrays: Mapping[str, np.ndarray], captions: Sequence[str]) -> dict[str, np.ndarray]:
        """Passes on what lies at each pixel."""
        return {"semantics": arrays["semantics"]}

    def encode(self, weights: tuple[()], batch: Mapping[str, Array], keys: Array) -> Float[Array, "B N Z"]:
        """The shares of each patch's pixels."""
        shape, colour = batch["semantics"][..., 0], batch["semantics"][..., 1]
        framed = jnp.pad(shape, ((0, 0), (1, 1), (1, 1)))
        rows, columns = shape.shape[1:]
        beside = [framed[:, 1 + i : 1 + i + rows, 1 + j : 1 + j + columns] for i, j in OUTLINES]
        outlines = jnp.stack([(shape > 0) & (other == 0) for other in beside], axis=-1)
        colours = jax.nn.one_hot(colour, 1 + COLOURS)[..., 1:]
        pixels = jnp.concatenate([jax.nn.one_hot(shape, 1 + SHAPES), colours, outlines], axis=-1)
        height, width = self.grid
        patches = pixels.reshape(len(pixels), height, rows // height, width, columns // width, -1).mean((2, 4))
        return patches.reshape(len(pixels), height * width, -1)


def make(config: configs.Config, argument: str) -> Semantics:
    """Features on the network's own grid, or on one of `argument` tokens a side.

    Raises:
        UserError: for another data set, or a grid that does not divide the picture.
    """
    data = config.data
    if data.name != "shapes":
        raise UserError(f"the encoder 'shapes' knows the data set 'shapes' only, and config.data.name = '{data.name}'")
    side = int(argument) if argument.isdigit() else make_codec(config).shape[0] // config.model.patch
    if (argument and not argument.isdigit()) or not side or data.image_size % side:
        raise UserError(
            f"the encoder 'shapes@{argument}' needs a number of tokens a side that divides config.data.image_size = "
            f"{data.image_size}, such as shapes@8"
        )
    return Semantics((side, side))
