"""From pictures of any one size to the input of CLIP or DINOv2, on the devices, as Pillow or torch would resize them.

What happens to an axis (resampling, crop, padding) is one matrix. Pillow resizes bytes along a row first and then along
a column, and rounds after each; so do two products with rounding behind each. Only sums within a float's error of a
half come out otherwise. (Pillow 13 takes the other order where that is cheaper: for pictures that are squashed and much
taller than wide. Published figures are older.)
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from rfjax.encoders.vision.families import Colour
from rfjax.encoders.vision.resampling import resize_matrix

TOP = 255  # of a byte
RULE = "antialias"  # bicubic as Pillow's, and as torch's with antialias
Matrix = Float[np.ndarray, "size length"]


def _cropped(length: int, other: int, size: int) -> Matrix:
    """The shorter side becomes `size`, then the middle is cut out, half a pixel to the start if it is odd."""
    target = size * length // min(length, other)
    start = (target - size) // 2
    return resize_matrix(target, length, RULE)[start : start + size]


def _square(length: int, other: int, size: int) -> Matrix:
    """The middle square becomes `size`."""
    side = min(length, other)
    start = (length - side) // 2
    found = np.zeros((size, length))
    found[:, start : start + side] = resize_matrix(size, side, RULE)
    return found


def _padded(length: int, other: int, size: int) -> Matrix:
    """The longer side becomes `size`; black fills up the other one, with half a pixel more at the end if it is odd."""
    target = max(1, round(length * (size / max(length, other))))
    start = (size - target) // 2
    found = np.zeros((size, length))
    found[start : start + target] = resize_matrix(target, length, RULE)
    return found


def _squashed(length: int, other: int, size: int) -> Matrix:
    """Each side becomes `size`."""
    return resize_matrix(size, length, RULE)


class Fit(NamedTuple):
    """A way to make a picture square.

    Attributes:
        axis: its length, the other's and the size -> the matrix of an axis.
        levels: whether the values are bytes behind each product.
        said: in words; {} is the size.
    """

    axis: Callable[[int, int, int], Matrix]
    levels: bool
    said: str


FITS = {
    "pil": Fit(_cropped, True, "Pillow's bicubic on bytes, shorter side to {}, then the middle square"),
    "square": Fit(_square, True, "the middle square by Pillow's bicubic on bytes to {} x {}"),
    "squash": Fit(_squashed, True, "Pillow's bicubic on bytes to {} x {} from any shape, nothing cut off"),
    "pad": Fit(_padded, False, "torch's antialiased bicubic on floats, longer side to {}, black around it"),
}


def said(fit: str, size: int) -> str:
    """What a record says of the resizing."""
    return FITS[fit].said.replace("{}", str(size))


def said_colours(colours: tuple[Colour, Colour]) -> str:
    """What a record says of the scaling."""
    mean, std = (", ".join(f"{value:g}" for value in colour) for colour in colours)
    return f"0 to 1, less ({mean}), over ({std})"


def pixels(
    images: UInt8[Array, "B H W 3"], fit: str, size: int, colours: tuple[Colour, Colour]
) -> Float[Array, "B size size 3"]:
    """What the network sees, normalised.

    Args:
        images: of any one size.
        fit: a name of FITS.
        size: of the network's input in pixels.
        colours: mean and standard deviation that pixels from 0 to 1 are normalised by.
    """
    how, (_, height, width, _) = FITS[fit], images.shape
    x = images.astype(jnp.float32)
    columns, rows = (how.axis(*sides, size) for sides in ((width, height), (height, width)))
    for matrix, product in ((columns, "nw,bhwc->bhnc"), (rows, "mh,bhnc->bmnc")):
        if matrix.shape[0] == matrix.shape[1] and np.array_equal(matrix, np.eye(len(matrix))):
            continue
        x = jnp.einsum(product, matrix.astype(np.float32), x, precision="highest")
        x = jnp.clip(jnp.floor(x + 0.5), 0, TOP) if how.levels else x
    mean, std = (np.array(colour, np.float32) for colour in colours)
    return (x / TOP - mean) / std
