"""Bicubic resampling as matrices, one for each axis: of pictures, and of tables of positions."""

import numpy as np
from jaxtyping import Float

RULES = ("bicubic", "antialias", "offset")
SHARP, SMOOTH = -0.75, -0.5  # Keys' parameter A: of torch's bicubic; with antialias, as in PIL and jax.image
OFFSET = 0.1  # DINOv2's interpolate_offset


def resize_matrix(target: int, source: int, rule: str) -> Float[np.ndarray, "target source"]:
    """The matrix that resamples an axis. Its rows sum to 1, so it does not matter whether pixels are normalised first.

    Args:
        target: length after it.
        source: length before it.
        rule: `bicubic` is torch's interpolate, `antialias` the same with antialias=True, `offset` the rule of DINOv2's
            own code without registers: `bicubic`, with a length of target + 0.1 for the scale.
    """
    scale = source / (target + OFFSET if rule == "offset" else target)
    centre = ((np.arange(target) + 0.5) * scale - 0.5)[:, None]
    if rule == "antialias":
        weights = _keys((np.arange(source) - centre) / max(scale, 1), SMOOTH)
        return weights / weights.sum(1, keepdims=True)
    places = np.arange(-2, source + 2)  # those outside of the axis are its ends
    return _keys(places - centre, SHARP) @ (places.clip(0, source - 1)[:, None] == np.arange(source))


def _keys(x: Float[np.ndarray, "m n"], a: float) -> Float[np.ndarray, "m n"]:
    """Keys' cubic kernel (1981), 0 from |x| = 2 on."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def resample_table(
    table: Float[np.ndarray, "rows columns D"], grid: tuple[int, int], rule: str
) -> Float[np.ndarray, "N D"]:
    """A table of positions for another grid, row by row."""
    rows, columns = (resize_matrix(m, n, rule) for m, n in zip(grid, table.shape, strict=False))
    return np.einsum("ir,jc,rcd->ijd", rows, columns, table, optimize=True).reshape(grid[0] * grid[1], -1)
