"""Count, mean and scatter of features that come in batches: what a Fréchet distance needs of them, in float64.

Each block is centred at its own mean before its product, and blocks are merged by the formula of Chan, Golub & LeVeque
1979. Sums of raw squares would lose the digits that the mean's square takes.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from rfjax.evaluation.statistics import check_features, check_widths

BLOCK = 2**24  # values that are centred at once: 128 MB


@dataclass(frozen=True)
class Moments:
    """Of `count` feature vectors.

    Attributes:
        mean: in the features' units; zeros if there are none.
        scatter: the sum of (x - mean)(x - mean)^T.
    """

    count: int
    mean: Float64[np.ndarray, " F"]
    scatter: Float64[np.ndarray, "F F"]

    @property
    def covariance(self) -> Float64[np.ndarray, "F F"]:
        """The unbiased one: divisor count - 1."""
        return self.scatter / (self.count - 1)


def empty(width: int) -> Moments:
    """The moments of no vector at all."""
    return Moments(0, np.zeros(width), np.zeros((width, width)))


def add(moments: Moments, features: Float[np.ndarray, "n F"]) -> Moments:
    """The moments with n more vectors; none may be a row that only fills up a batch.

    Raises:
        UserError: for values that are not finite, or another number of features.
    """
    check_features(features, 0, "A mean")
    check_widths(len(moments.mean), features.shape[1])
    rows = max(1, BLOCK // max(features.shape[1], 1))
    for start in range(0, len(features), rows):
        block = features[start : start + rows].astype(np.float64)
        mean = block.mean(axis=0)
        block -= mean
        moments = merge(moments, Moments(len(block), mean, block.T @ block))
    return moments


def of(features: Float[np.ndarray, "n F"]) -> Moments:
    """The moments of n vectors."""
    return add(empty(features.shape[1]), features)


def merge(a: Moments, b: Moments) -> Moments:
    """The moments of both sets together (Chan et al. 1979, Eq. 2.1).

    Raises:
        UserError: if they are of different numbers of features.
    """
    check_widths(len(a.mean), len(b.mean))
    if not a.count or not b.count:
        return a if a.count else b
    count, difference = a.count + b.count, b.mean - a.mean
    between = np.outer(difference, difference) * (a.count * b.count / count)
    return Moments(count, a.mean + difference * (b.count / count), a.scatter + b.scatter + between)
