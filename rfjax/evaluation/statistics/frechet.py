"""The Fréchet distance of two sets of features, each taken as a Gaussian: the number behind FID, for any features.

Protocols differ only in the features: FID of ADM, torch-fidelity and pytorch-fid (Inception's pool), sFID (7 channels
of its Mixed_6d), CLIP-FID, FD-DINOv2. All take unbiased covariances. They differ in the root of a matrix: ADM,
clean-fid and EDM2 call SciPy's sqrtm, torch-fidelity takes eigenvalues of the product; here it is singular values of
the factors' product, which need no offset where a covariance is singular.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from rfjax.errors import UserError
from rfjax.evaluation.statistics import Estimate, check_features, check_widths
from rfjax.evaluation.statistics import moments as sums

BLOCK = 2**22  # values of features at once, where their influence is computed: 16 MB


@dataclass(frozen=True)
class Gaussian:
    """The mean and covariance of `count` feature vectors, in the features' units and their squares.

    Attributes:
        count: 0 where a file of statistics does not say.
    """

    mean: Float64[np.ndarray, " F"]
    covariance: Float64[np.ndarray, "F F"]
    count: int


def fit_gaussian(features: Float[np.ndarray, "n F"] | sums.Moments) -> Gaussian:
    """The unbiased mean and covariance (divisor n - 1) of n feature vectors, or of their moments, in float64.

    Raises UserError for fewer than two vectors, or for values that are not finite.
    """
    if not isinstance(features, sums.Moments):
        check_features(features, 2, "A Fréchet distance")
        features = sums.of(features)
    if features.count < 2:
        raise UserError(f"A Fréchet distance needs at least 2 images of each kind, not {features.count}.")
    return Gaussian(features.mean, features.covariance, features.count)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """|mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)): the squared distance, in the features' units squared.

    Dowson & Landau 1982; Heusel et al. 2017 (FID). Covariances may be of any rank. With factors C = L L^T, the trace
    of (C_a C_b)^(1/2) is the sum of the singular values of L_a^T L_b. The expectation is above 0 even for two samples
    of one distribution: compare only sets of equal counts.

    Raises UserError where a and b have different numbers of features.
    """
    check_widths(len(a.mean), len(b.mean))
    return distance(a, b, factor_of(b.covariance))


def frechet(
    features: Float[np.ndarray, "n F"], reference: Gaussian, reference_features: Float[np.ndarray, "m F"] | None = None
) -> Estimate:
    """The distance of n pictures to a reference, with its standard error; 10,000 x 2,048 take seconds on two cores.

    The error is the infinitesimal jackknife: the root of the mean square of the distance's influence function
    (`influence`), over sqrt(n - 1). It leaves out that the distance itself is too large by order 1 / n (see
    `extrapolation`), and what another reference would change, unless `reference_features` are given; that is in
    `extras["reference_stderr"]`. Close to the floor of true pictures, where the influence is mostly noise, it is too
    large: docs/results/metrics.

    Args:
        features: of the generated pictures.
        reference: of the true ones.
        reference_features: what `reference` was fitted to.

    Raises:
        UserError: for fewer than two pictures, NaN, and other features than the reference's.
    """
    found = fit_gaussian(features)
    check_widths(len(found.mean), len(reference.mean))
    factor = factor_of(reference.covariance)
    value = distance(found, reference, factor)
    stderr = _stderr(influence(features, found, reference, factor))
    extras = {"count": float(len(features)), "reference_count": float(reference.count)}
    if reference_features is not None:
        own = fit_gaussian(reference_features)
        extras["reference_stderr"] = _stderr(influence(reference_features, own, found))
    return Estimate(value, stderr, extras, scarce(found.count, len(found.mean), reference.count))


def influence(
    features: Float[np.ndarray, "n F"],
    found: Gaussian,
    reference: Gaussian,
    factor: Float64[np.ndarray, "F F"] | None = None,
) -> Float64[np.ndarray, " n"]:
    """How far each picture, with more weight in its set, moves the set's distance to a reference: its influence.

    2 (mu_a - mu_b)^T (x - mu_a) + (x - mu_a)^T (I - T) (x - mu_a), less its mean, where T maps the set's Gaussian to
    the reference's: T = L (L^T C_a L)^(-1/2) L^T with C_b = L L^T. It is the derivative of the distance by the weights,
    since the derivative of tr (C_a C_b)^(1/2) by C_a is T / 2 (Bhatia, Jain & Lim 2019). Directions in which the set
    has no variance count as those that the reference has none in. In float32, which is enough for an error.

    Args:
        features: what `found` was fitted to.
        factor: L, where it is known already.
    """
    factor = factor_of(reference.covariance) if factor is None else factor
    values, vectors = np.linalg.eigh(factor.T @ found.covariance @ factor)
    kept = values > _cut(values)
    turned = factor @ vectors[:, kept]
    bend = (np.eye(len(factor)) - (turned / np.sqrt(values[kept])) @ turned.T).astype(np.float32)
    slope = (2 * (found.mean - reference.mean)).astype(np.float32)
    result, rows = np.empty(len(features)), max(1, BLOCK // len(slope))
    for start in range(0, len(features), rows):
        centred = (features[start : start + rows] - found.mean).astype(np.float32)
        result[start : start + rows] = np.einsum("nf,nf->n", centred @ bend + slope, centred)
    return result - result.mean()


def scarce(count: int, width: int, reference_count: int = 0) -> tuple[str, ...]:
    """A sentence if there are too few pictures for their covariance, else nothing.

    Args:
        count: of generated pictures.
        width: number of features.
        reference_count: 0 if it is unknown.
    """
    few = {"pictures": count} | ({"reference pictures": reference_count} if reference_count else {})
    return tuple(
        f"{number:,} {name} for {width:,} features: their covariance has no full rank, and the distance is mostly the "
        f"error of small samples; compare it only with distances at {number:,} {name}, or take more than {width:,}."
        for name, number in few.items()
        if number <= width
    )


RESAMPLES = 100


def frechet_error(features: Float[np.ndarray, "n F"], reference: Gaussian) -> float:
    """The standard error by a bootstrap, for some dozen features; `frechet` has one for thousands.

    The mean of the bootstrap is above the distance (each resample is a sample of a sample), so its quantiles would be
    too. For true images, whose distance is all sampling error, it is too large (1.7 times for 80 of `shapes`), further
    off it is right. The same resamples for every set of a size; one cost, a hundred small eigenvalue problems.
    """
    rng, n = np.random.default_rng(0), len(features)
    x = features.astype(np.float64) - reference.mean
    factor = factor_of(reference.covariance)
    means, inner, traces = [], [], []
    for _ in range(RESAMPLES):
        rows = x[rng.integers(0, n, n)]
        mean = rows.mean(axis=0)
        centred = rows - mean
        along = centred @ factor
        means.append(mean @ mean)
        inner.append(along.T @ along / (n - 1))  # of the singular values' squares in `frechet_distance`
        traces.append((centred**2).sum() / (n - 1))
    overlaps = np.sqrt(np.maximum(np.linalg.eigvalsh(np.stack(inner)), 0)).sum(axis=1)
    return float(np.std(np.array(means) + traces - 2 * overlaps, ddof=1))


def distance(a: Gaussian, b: Gaussian, factor: Float64[np.ndarray, "F F"]) -> float:
    """`frechet_distance`, where the factor of b's covariance is known already."""
    difference = a.mean - b.mean
    overlap = np.linalg.svd(factor_of(a.covariance).T @ factor, compute_uv=False).sum()
    distance = difference @ difference + np.trace(a.covariance) + np.trace(b.covariance) - 2 * overlap
    return max(0.0, float(distance))


def _stderr(influences: Float64[np.ndarray, " n"]) -> float:
    return float(np.sqrt((influences**2).mean() / (len(influences) - 1)))


def factor_of(covariance: Float64[np.ndarray, "F F"]) -> Float64[np.ndarray, "F F"]:
    """L with L L^T = covariance; eigenvalues that are rounding errors become 0, or their roots would not be small."""
    values, vectors = np.linalg.eigh(covariance)
    values[values < _cut(values)] = 0
    return vectors * np.sqrt(np.maximum(values, 0))


def _cut(values: Float64[np.ndarray, " F"]) -> float:
    """Below it an eigenvalue, of ascending ones, is a rounding error."""
    return len(values) * np.finfo(np.float64).eps * values[-1]
