"""KID and CMMD: squared maximum mean discrepancies (Gretton et al. 2012) of two sets of features."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64

from rfjax.errors import UserError
from rfjax.evaluation.statistics import Estimate, check_pair, jackknife

BLOCK = 2**22  # kernel values at a time: 16 MB
SUBSETS, SUBSET, SEED = 100, 1000, 2020  # of torch-fidelity's KID
CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0  # Jayasumana et al. 2024


class Sums(NamedTuple):
    """Of a kernel over two sets.

    Attributes:
        own: of each sample with all others, without itself, (n,).
        reference: of each reference with all others, without itself, (m,).
        across: of each sample with all references, (n,).
        back: of each reference with all samples, (m,).
    """

    own: Float64[np.ndarray, " n"]
    reference: Float64[np.ndarray, " m"]
    across: Float64[np.ndarray, " n"]
    back: Float64[np.ndarray, " m"]


def kid(reference: Float[np.ndarray, "m E"], samples: Float[np.ndarray, "n F"]) -> Estimate:
    """The kernel Inception distance of all pictures: the unbiased estimate with k(x, y) = (x.y / F + 1)^3.

    Bińkowski et al. 2018. Unbiased: two samples of one distribution have 0 on average, and may be below it, whatever
    their counts. `kid_subsets` is the number that most tables have, which is an estimate of the same. Products in
    float32, sums in float64.

    The standard error is the exact jackknife over samples, one left out at a time; to first order it is right, and
    near 0 it is too large by some.

    Raises:
        UserError: for fewer than 3 pictures of a set, NaN, or different widths.
    """
    check_pair(reference, samples, 3, "KID")
    found, (m, n) = _sums(reference, samples, _cubic), (len(reference), len(samples))
    own, other, cross = found.own.sum(), found.reference.sum(), found.across.sum()
    value = own / (n * (n - 1)) + other / (m * (m - 1)) - 2 * cross / (n * m)
    without = (own - 2 * found.own) / ((n - 1) * (n - 2)) - 2 * (cross - found.across) / ((n - 1) * m)
    without_reference = (other - 2 * found.reference) / ((m - 1) * (m - 2)) - 2 * (cross - found.back) / (n * (m - 1))
    extras = {"reference_stderr": jackknife(without_reference), "count": float(n), "reference_count": float(m)}
    return Estimate(float(value), jackknife(without), extras)


def kid_subsets(
    reference: Float[np.ndarray, "m E"],
    samples: Float[np.ndarray, "n F"],
    subsets: int = SUBSETS,
    size: int = SUBSET,
    seed: int = SEED,
) -> Estimate:
    """KID as torch-fidelity and dgm-eval print it: the mean over 100 pairs of subsets of 1000.

    Subsets are drawn without replacement by RandomState(2020), the samples' first, as torch-fidelity does with the
    samples as its first input. `extras["std"]` is the deviation over subsets that stands behind their "±": it is of
    subsets of 1000, not of the mean, and these overlap, so `stderr` is NaN; `kid` has one.

    Raises:
        UserError: for fewer pictures than a subset has, NaN, or different widths.
    """
    check_pair(reference, samples, size, f"KID over subsets of {size}")
    rng = np.random.RandomState(seed)
    values = np.empty(subsets)
    for i in range(subsets):
        x = samples[rng.choice(len(samples), size, replace=False)].astype(np.float32)
        y = reference[rng.choice(len(reference), size, replace=False)].astype(np.float32)
        within = sum(
            float(k.sum(dtype=np.float64) - np.trace(k, dtype=np.float64)) for k in map(_cubic, (x, y), (x, y))
        )
        values[i] = within / (size * (size - 1)) - 2 * _cubic(x, y).mean(dtype=np.float64)
    extras = {"std": float(values.std()), "subsets": float(subsets), "size": float(size)}
    return Estimate(float(values.mean()), extras=extras)


def cmmd(reference: Float[np.ndarray, "m E"], samples: Float[np.ndarray, "n F"]) -> Estimate:
    """CMMD: 1000 times the biased estimate with k(x, y) = exp(-|x - y|^2 / (2 10^2)) of unit vectors of CLIP.

    Jayasumana et al. 2024 and their public code, which keeps k(x, x), drops the last partial batch, and reads CLIP
    L/14 at 336 pixels. The excess of small samples is about 1000 (1 - |mean|^2) / 100 (1 / n + 1 / m). All kernel
    values are near 1, so the sums are of k - 1, whose digits float32 has.

    The standard error is the exact jackknife over samples.

    Args:
        reference: vectors of true pictures, any norm but 0: they are scaled to 1.
        samples: vectors of generated pictures.

    Raises:
        UserError: for fewer than 3 pictures of a set, NaN, vectors of zeros, or different widths.
    """
    check_pair(reference, samples, 3, "CMMD")
    found, (m, n) = _sums(_unit(reference), _unit(samples), _narrow), (len(reference), len(samples))
    own, other, cross = found.own.sum(), found.reference.sum(), found.across.sum()  # k(x, x) - 1 = 0
    value = own / n**2 + other / m**2 - 2 * cross / (n * m)
    without = (own - 2 * found.own) / (n - 1) ** 2 - 2 * (cross - found.across) / ((n - 1) * m)
    without_reference = (other - 2 * found.reference) / (m - 1) ** 2 - 2 * (cross - found.back) / (n * (m - 1))
    extras = {"reference_stderr": CMMD_SCALE * jackknife(without_reference)}
    extras |= {"count": float(n), "reference_count": float(m)}
    return Estimate(CMMD_SCALE * float(value), CMMD_SCALE * jackknife(without), extras)


Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _cubic(x: Float32[np.ndarray, "n F"], y: Float32[np.ndarray, "m F"]) -> Float32[np.ndarray, "n m"]:
    products = x @ y.T
    products *= np.float32(1 / x.shape[1])
    products += 1
    return products * products * products


def _narrow(x: Float32[np.ndarray, "n F"], y: Float32[np.ndarray, "m F"]) -> Float32[np.ndarray, "n m"]:
    """k - 1 of unit vectors: |x - y|^2 = 2 - 2 x.y."""
    products = x @ y.T
    products -= 1
    products *= np.float32(1 / CMMD_SIGMA**2)
    return np.expm1(products, out=products)


def _unit(features: Float[np.ndarray, "n F"]) -> Float32[np.ndarray, "n F"]:
    norms = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    if not norms.all():
        raise UserError(f"{int((norms == 0).sum())} of {len(norms)} images have a vector of zeros.")
    return (features / norms).astype(np.float32)


def _sums(reference: Float[np.ndarray, "m F"], samples: Float[np.ndarray, "n F"], kernel: Kernel) -> Sums:
    x, y = samples.astype(np.float32), reference.astype(np.float32)
    across, back = np.empty(len(x)), np.zeros(len(y))
    rows = max(1, BLOCK // len(y))
    for start in range(0, len(x), rows):
        found = kernel(x[start : start + rows], y)
        across[start : start + rows] = found.sum(axis=1, dtype=np.float64)
        back += found.sum(axis=0, dtype=np.float64)
    return Sums(_within(x, kernel), _within(y, kernel), across, back)


def _within(x: Float32[np.ndarray, "n F"], kernel: Kernel) -> Float64[np.ndarray, " n"]:
    """Of each vector with all others: each pair once, for both."""
    sums, rows = np.zeros(len(x)), max(1, BLOCK // len(x))
    for start in range(0, len(x), rows):
        found = kernel(x[start : start + rows], x[start:])
        height = len(found)
        np.fill_diagonal(found, 0)  # with itself
        sums[start : start + height] += found.sum(axis=1, dtype=np.float64)
        sums[start + height :] += found[:, height:].sum(axis=0, dtype=np.float64)
    return sums
