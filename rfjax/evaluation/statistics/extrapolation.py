"""The Fréchet distance of infinitely many pictures, extrapolated from sets of several sizes: FD_inf."""

import numpy as np
from jaxtyping import Float, Float64

from rfjax.evaluation.statistics import Estimate, check_features
from rfjax.evaluation.statistics import frechet as distances

POINTS = 15  # Chong & Forsyth 2020
LARGEST_FIRST = 5000  # dgm-eval: the smallest size is this, or a tenth of the pictures
SEED = 0


def frechet_infinity(
    features: Float[np.ndarray, "n F"], reference: distances.Gaussian, seed: int = SEED, points: int = POINTS
) -> Estimate:
    """The intercept of the distances of 15 subsets over 1 / size (Chong & Forsyth 2020; as dgm-eval computes it).

    Sizes are evenly spaced from min(5000, n / 10) to n, each subset is drawn without replacement and independently of
    the others, the line is an ordinary least-squares fit; dgm-eval's generator has no seed, ours has. A distance's
    excess is 1 / n only for n well above the number of features, and the reference is taken as exact.

    The standard error: the intercept is a sum of distances with weights that are known, and to first order each is a
    mean of `influence` over its subset; so each picture's part in the intercept is known, and the error is the root of
    the sum of their squares. It holds both the pictures' own luck and that of the subsets, and is larger than the
    error of one distance: 2 to 3 times at 15 sizes. It leaves out the second order, which matters at the floor.

    Returns:
        The intercept; extras have "slope", the excess times n, and "at_count", the distance of all pictures.

    Raises:
        UserError: for fewer than 20 pictures, NaN, and other features than the reference's.
    """
    check_features(features, 20, "An extrapolation of a Fréchet distance")
    n, factor = len(features), distances.factor_of(reference.covariance)
    sizes = np.linspace(min(LARGEST_FIRST, max(n // 10, 2)), n, points).astype(int)
    rng = np.random.default_rng(seed)
    subsets = [rng.choice(n, size, replace=False) for size in sizes]
    values, parts = np.zeros(points), np.zeros(n)
    intercept, slope = _weights(1 / sizes)
    for place, rows in enumerate(subsets):
        fit = distances.fit_gaussian(features[rows])
        values[place] = distances.distance(fit, reference, factor)
        parts[rows] += intercept[place] / len(rows)
    moved = distances.influence(features, fit, reference, factor)  # the last subset is the whole set
    extras = {"slope": float(slope @ values), "at_count": float(values[-1]), "count": float(n)}
    notes = distances.scarce(int(sizes[0]), features.shape[1])
    return Estimate(float(intercept @ values), float(np.linalg.norm(parts * moved)), extras, notes)


def _weights(x: Float64[np.ndarray, " k"]) -> tuple[Float64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
    """Of the values in a least-squares line over x: their weights in the intercept, and in the slope."""
    slope = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    return 1 / len(x) - x.mean() * slope, slope
