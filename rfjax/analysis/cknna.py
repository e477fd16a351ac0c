"""CKNNA: how far two representations of the same examples agree on their nearest neighbours (Huh et al. 2024).

Each representation's kernel holds the inner products of its rows; only the k nearest neighbours of a row count. Two
kinds differ in what is made of them:

"reference", as the paper's public code computes it. HSIC(K, L) is the unbiased estimate of Song et al. 2012 (Eq. 5) of
kernels that are zero but where j is among the k neighbours of i in both representations; CKNNA is HSIC(K, L) over
sqrt(HSIC(K, K) HSIC(L, L)) + 1e-6, where the two below have one representation's own neighbours alone. Its quirks:
the first term of the estimate is the sum of K_ij L_ji, and neighbours are not mutual, so that it counts only pairs
that are neighbours both ways; its last term is the sum over j of the column sums of K times the row sums of L, so that
the order of the two matters a little; 1e-6 keeps the value of a representation with itself below 1 (at n = 200 by some
1e-4); the estimates are no inner product, so that few examples may give more than 1; where HSIC(K, K) or HSIC(L, L) is
negative, CKNNA is NaN.

"formula", as the paper writes it. Align(K, L) is the mean product, over (n - 1)^2, of inner products less their row's
mean, where j is among the k neighbours of i in both; CKNNA is Align(K, L) over sqrt(Align(K, K) Align(L, L)). A
representation has exactly 1 with itself. Its quirks: rows are centred and columns are not; where all inner products of
neighbours equal their row's mean there is nothing to compare, and CKNNA is NaN.

In both kinds, neighbours are those of the largest inner product, not of the least distance, so the two mean the same
only of rows of norm 1. As in the reference, that is the caller's: `cknna(normalised(a), normalised(b))`. Equal inner
products at the last of the k places are cut arbitrarily.
"""

import math
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float, Shaped
from scipy.sparse import csr_array

from rfjax.errors import UserError

Kind = Literal["reference", "formula"]
KINDS: tuple[str, ...] = get_args(Kind)
NEIGHBOURS = 10  # k of the paper
LEAST_NEIGHBOURS = 2  # that the reference takes
BLOCK = 2**23  # inner products at a time: 64 MB
EPSILON = 1e-6  # of the reference


class Neighbours(NamedTuple):
    """The kernel of a representation at each row's nearest neighbours.

    Attributes:
        kernel: (n, n), with k entries a row: inner products with the neighbours.
        means: of each row's inner products with all rows, itself among them, (n,).
    """

    kernel: csr_array
    means: Float[np.ndarray, " n"]


def normalised(features: Shaped[np.ndarray, "n D"]) -> Float[np.ndarray, "n D"]:
    """Rows over their Euclidean norm, in float64; a row of zeros stays one."""
    rows = np.asarray(features, np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)


def cknna(
    a: Shaped[np.ndarray, "n D"], b: Shaped[np.ndarray, "n E"], k: int = NEIGHBOURS, kind: Kind = "reference"
) -> float:
    """The centred kernel nearest-neighbour alignment of two representations of the same n examples.

    Args:
        a: the features of each example, as they are compared: see `normalised`.
        b: of the same examples, in the same order; of any width.
        k: neighbours of a row.
        kind: "reference", the variant of the public code, or "formula", the paper's; see the head of this file.

    Returns:
        About 0 for representations that have nothing to do with each other, 1 for the same. NaN where there is nothing
        to compare.

    Raises:
        UserError: if k is below 2, there are fewer than k + 1 examples (or than 4), the numbers of examples differ, or
            features are not finite.
    """
    if len(a) != len(b):
        raise UserError(f"CKNNA compares two representations of the same examples, and got {len(a):,} and {len(b):,}")
    return compare(neighbours(a, k), neighbours(b, k), kind)


def neighbours(features: Shaped[np.ndarray, "n D"], k: int = NEIGHBOURS) -> Neighbours:
    """Finds each row's k nearest neighbours, in float64 and in blocks of rows: n x n values are never in memory.

    Args:
        features: as of `cknna`, which this is half of: many comparisons may share it.
        k: neighbours of a row.

    Raises:
        UserError: as of `cknna`.
    """
    check_examples(len(features), k)
    rows = np.ascontiguousarray(features, np.float64)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        bad = f"of shape {rows.shape}" if rows.ndim != 2 else "with NaN or infinite values"
        raise UserError(f"CKNNA needs finite features, one row an example, and got some {bad}")
    n = len(rows)
    found, values = np.empty((n, k), np.int64), np.empty((n, k))
    step = max(BLOCK // n, 1)
    for start in range(0, n, step):
        here = np.arange(start, min(start + step, n))
        products = rows[here] @ rows.T
        products[here - start, here] = -np.inf
        found[here] = np.sort(np.argpartition(products, n - k, axis=1)[:, n - k :])
        values[here] = np.take_along_axis(products, found[here], axis=1)
    kernel = csr_array((values.ravel(), found.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))
    return Neighbours(kernel, rows @ rows.mean(axis=0))


def check_examples(examples: int, k: int) -> None:
    """Raises UserError unless so many examples can be compared by k neighbours of each."""
    if k < LEAST_NEIGHBOURS:
        raise UserError(f"CKNNA needs at least {LEAST_NEIGHBOURS} neighbours, and k is {k}")
    if examples < max(k + 1, 4):
        raise UserError(
            f"CKNNA with k = {k} needs at least {max(k + 1, 4)} examples, and got {examples}: take more examples, or a "
            "smaller k"
        )


def compare(a: Neighbours, b: Neighbours, kind: Kind = "reference") -> float:
    """CKNNA of two representations whose neighbours are known.

    Raises:
        UserError: for an unknown kind.
    """
    if kind not in KINDS:
        raise UserError(f"CKNNA has no kind '{kind}': take {' or '.join(KINDS)}")
    if kind == "formula":
        a, b = (one._replace(kernel=_with(one.kernel, _centred(one))) for one in (a, b))
        both, own, other = ((x.kernel * y.kernel).sum() for x, y in ((a, b), (a, a), (b, b)))
        epsilon = 0.0
    else:
        shared_a, shared_b = (x.kernel * _with(y.kernel, np.ones(y.kernel.nnz)) for x, y in ((a, b), (b, a)))
        both, own, other = hsic(shared_a, shared_b), hsic(a.kernel, a.kernel), hsic(b.kernel, b.kernel)
        epsilon = EPSILON
    below = math.sqrt(own * other) + epsilon if min(own, other) >= 0 else math.nan
    return float(both / below) if below else math.nan


def _centred(found: Neighbours) -> Float[np.ndarray, " nk"]:
    """The entries of a kernel less their row's mean."""
    return found.kernel.data - np.repeat(found.means, np.diff(found.kernel.indptr))


def _with(kernel: csr_array, data: Float[np.ndarray, " nk"]) -> csr_array:
    """Other values at the same places."""
    return csr_array((data, kernel.indices, kernel.indptr), shape=kernel.shape)


def hsic(a: csr_array, b: csr_array) -> float:
    """The unbiased estimate of HSIC of two kernels whose diagonals are zero (Song et al. 2012, Eq. 5)."""
    n = a.shape[0]
    products = float((a * b.T.tocsr()).sum())
    sums = float(a.sum() * b.sum()) / ((n - 1) * (n - 2))
    across = float(a.sum(axis=0) @ b.sum(axis=1)) * 2 / (n - 2)
    return (products + sums - across) / (n * (n - 3))
