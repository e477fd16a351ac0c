"""Fixed position embeddings of image tokens."""

import numpy as np
from jaxtyping import Float32

MAX_PERIOD = 10_000.0


def sincos_2d(rows: int, columns: int, width: int) -> Float32[np.ndarray, "N D"]:
    """Two-dimensional sine-cosine embedding of a (rows, columns) grid of patches, in row-major order, shape (N, D).

    Half of the width encodes the column and half the row (the column first, as SD3's reference code), each as
    [sin | cos] of position x omega_i with omega_i = 10000^(-i / (D/4)).

    Raises:
        ValueError: if the width is not a multiple of 4.
    """
    if width % 4:
        raise ValueError(f"a sine-cosine embedding of two axes needs a width divisible by 4, not {width}")
    omega = MAX_PERIOD ** -(np.arange(width // 4) / (width / 4))
    row, column = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    halves = []
    for axis in (column, row):
        angle = axis.reshape(-1, 1) * omega
        halves += [np.sin(angle), np.cos(angle)]
    return np.concatenate(halves, axis=1).astype(np.float32)
