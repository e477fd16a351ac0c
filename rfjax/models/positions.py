"""Fixed position embeddings of image tokens, for images of any aspect ratio."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from rfjax.errors import UserError

MAX_PERIOD = 10_000.0  # of every sinusoid


@dataclass(frozen=True)
class Positions:
    """Where the tokens of an image lie on one axis, in units of tokens (SD3 section 5.3.2).

    The axis has `largest` places p = 0, 1, ..., at (p - (largest - size) / 2) base / size, of which an image takes its
    length from the middle. So a square image of `size` tokens always spans 0 ... (size - 1) base / size, and longer
    sides extend that span on both sides. The plain embedding of DiT is size = base = largest.

    Attributes:
        size: tokens along a side of the square training image, s = S / 16 in the paper (S pixels); 0: the image's own.
        largest: tokens along the longest side that is served, h_max; 0: the image's own.
        base: the size at which neighbours lie 1 apart, 256 / 16 in the paper; 0: `size`.
        stored: side of the square table that comes with a checkpoint, in place of the formula; 0: none.
    """

    size: int = 0
    largest: int = 0
    base: int = 0
    stored: int = 0

    def axis(self, length: int) -> Float[np.ndarray, " n"]:
        """Positions of `length` tokens.

        Raises:
            UserError: if that is more than the largest length.
        """
        size, largest = self.size or length, self.largest or length
        place = np.arange(length) + crop(length, largest)
        return (place - (largest - size) / 2) * (self.base or size) / size


def crop(length: int, largest: int) -> int:
    """Where the middle `length` of `largest` places begin.

    Raises:
        UserError: if there are not so many.
    """
    if length > largest:
        raise UserError(f"an image of {length} patches a side is too large: there are positions for {largest} at most")
    return (largest - length) // 2


def sincos(grid: tuple[int, ...], width: int, positions: Positions = Positions()) -> Float32[np.ndarray, "N D"]:
    """Embeds a grid of patches, (rows, columns) of an image or (frames, rows, columns) of a video, in row-major order.

    A video's embedding is the sum of its frame's, over the whole width, and its place's in the frame, as in Latte
    (Ma et al. 2024).
    """
    *frames, rows, columns = grid
    place = sincos_2d(rows, columns, width, positions)
    if not frames:
        return place
    time = _waves(np.arange(float(math.prod(frames))), width)
    return (time[:, None] + place[None]).reshape(-1, width).astype(np.float32)


def _waves(places: Float[np.ndarray, "*n"], width: int) -> Float[np.ndarray, "n width"]:
    """[sin | cos] of place x omega_i with omega_i = 10000^(-i / (width/2))."""
    omega = MAX_PERIOD ** -(np.arange(width // 2) / (width / 2))
    angle = places.reshape(-1, 1) * omega
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)


def sincos_2d(rows: int, columns: int, width: int, positions: Positions = Positions()) -> Float32[np.ndarray, "N D"]:
    """Two-dimensional sine-cosine embedding of a (rows, columns) grid of patches, in row-major order, shape (N, D).

    Half of the width encodes the column and half the row (the column first, as SD3's reference code), each as
    [sin | cos] of position x omega_i with omega_i = 10000^(-i / (D/4)).

    Raises:
        ValueError: if the width is not a multiple of 4. UserError: if the grid is larger than `positions` allows.
    """
    if width % 4:
        raise ValueError(f"a sine-cosine embedding of two axes needs a width divisible by 4, not {width}")
    row, column = np.meshgrid(positions.axis(rows), positions.axis(columns), indexing="ij")
    return np.concatenate([_waves(axis, width // 2) for axis in (column, row)], axis=1).astype(np.float32)
