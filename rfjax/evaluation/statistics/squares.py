"""Squared Euclidean distances of many vectors in blocks of rows, so that n x n values are never in memory.

Two protocols: "exact", in float32 around the mean, and "adm", which rounds to float16 where ADM's evaluator does.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float, Float32, Float64

from rfjax.errors import UserError, nearest

Protocol = Literal["exact", "adm"]
BLOCK = 2**22  # distances at a time: 16 MB
ADM_BATCH = 10_000  # rows and columns of a block of ADM's, which is in float16 or in float32 as a whole
LARGEST_HALF = float(np.finfo(np.float16).max)


class Vectors(NamedTuple):
    """Features, made ready for distances.

    Attributes:
        rows: in float32.
        squares: their squared norms.
        halves: (rows, squares) rounded to float16, for "adm"; None for "exact".
    """

    rows: Float32[np.ndarray, "n F"]
    squares: Float32[np.ndarray, " n"]
    halves: tuple[Float32[np.ndarray, "n F"], Float32[np.ndarray, " n"]] | None


def prepare(features: Float[np.ndarray, "n F"], centre: Float64[np.ndarray, " F"], protocol: Protocol) -> Vectors:
    """Features ready for `blocks`.

    Args:
        centre: what "exact" takes away first, the same for all sets that are compared: distances stay, and float32
            holds them better.

    Raises:
        UserError: for an unknown protocol.
    """
    if protocol == "exact":
        rows = (features - centre).astype(np.float32)
        return Vectors(rows, np.einsum("nf,nf->n", rows, rows), None)
    if protocol != "adm":
        raise UserError(f"Distances have no protocol '{protocol}'{nearest(protocol, get_args(Protocol))}.")
    rows = features.astype(np.float32)
    with np.errstate(over="ignore"):
        halves = half(rows)
        squares = half(half(halves * halves).sum(axis=1))
    return Vectors(rows, np.einsum("nf,nf->n", rows, rows), (halves, squares))


def blocks(a: Vectors, b: Vectors) -> Iterator[tuple[int, Float32[np.ndarray, "r m"]]]:
    """Yields (first row, squared distances of some rows of a to all of b), never below 0; the array is used again.

    With "adm" a block of 10,000 x 10,000 is in float16, or in float32 if float16 overflows anywhere in it; products
    add up in float32 before they are rounded, as on a GPU. ADM's own sums may round otherwise in the last place, which
    depends on its device.
    """
    rows = max(1, BLOCK // max(len(b.rows), 1))
    kinds: dict[tuple[int, int], bool] = {}
    batch = ADM_BATCH if a.halves is not None else len(b.rows)
    buffer = np.empty((rows, len(b.rows)), np.float32)
    for outer in range(0, len(a.rows), ADM_BATCH):
        for start in range(outer, min(outer + ADM_BATCH, len(a.rows)), rows):
            here = slice(start, min(start + rows, outer + ADM_BATCH, len(a.rows)))
            found = buffer[: here.stop - start]
            for first in range(0, len(b.rows), batch):
                there = slice(first, first + batch)
                if a.halves is not None and (outer, first) not in kinds:
                    kinds[outer, first] = _fits(a, b, slice(outer, outer + ADM_BATCH), there)
                if a.halves is not None and kinds[outer, first]:
                    _halves(a, b, here, there, found[:, there])
                else:
                    _singles(a, b, here, there, found[:, there])
            yield start, found


def half(x: Float32[np.ndarray, "*n"]) -> Float32[np.ndarray, "*n"]:
    """Rounded to float16, kept in float32."""
    return x.astype(np.float16).astype(np.float32)


def _singles(a: Vectors, b: Vectors, here: slice, there: slice, out: Float32[np.ndarray, "r c"]) -> None:
    np.matmul(a.rows[here], b.rows[there].T, out=out)
    out *= -2
    out += a.squares[here, None]
    out += b.squares[there]
    np.maximum(out, 0, out=out)


def _halves(a: Vectors, b: Vectors, here: slice, there: slice, out: Float32[np.ndarray, "r c"]) -> None:
    """|u|^2 - 2 u.v + |v|^2 from left to right, each step rounded."""
    (rows, squares), (columns, others) = a.halves, b.halves
    np.matmul(rows[here], columns[there].T, out=out)
    with np.errstate(over="ignore", invalid="ignore"):
        out[:] = half(out)
        out *= 2
        np.subtract(squares[here, None], out, out=out)
        out[:] = half(out)
        out += others[there]
        out[:] = half(out)
        np.maximum(out, 0, out=out)


def _fits(a: Vectors, b: Vectors, here: slice, there: slice) -> bool:
    """Whether no distance of a block overflows in float16."""
    largest = float(a.halves[1][here].max()) + float(b.halves[1][there].max())
    if 2 * largest < LARGEST_HALF:  # 2 u.v is at most |u|^2 + |v|^2
        return True
    rows = max(1, BLOCK // ADM_BATCH)
    buffer = np.empty((rows, len(b.rows[there])), np.float32)
    for start in range(here.start, min(here.stop, len(a.rows)), rows):
        part = slice(start, min(start + rows, here.stop, len(a.rows)))
        found = buffer[: part.stop - start]
        _halves(a, b, part, there, found)
        if not np.isfinite(found).all():
            return False
    return True
