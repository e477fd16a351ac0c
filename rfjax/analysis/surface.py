"""The loss over model size and data, L(N, D) = E + A N^-alpha + B D^-beta (Hoffmann et al. 2022, approach 3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from rfjax.analysis.fit import LEVEL, Fit, Prediction
from rfjax.analysis.fitting import fit_points


class Allocation(NamedTuple):
    """The compute-optimal model and data, N* = G (C/k)^a and D* = (C/k)^b / G, each with its interval."""

    n: float
    n_interval: tuple[float, float]
    d: float
    d_interval: tuple[float, float]
    loss: Prediction
    a: float
    a_interval: tuple[float, float]
    b: float
    b_interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class SurfaceFit(Fit):
    """A fitted L(N, D); the fields are those of `Fit`. E is extrapolated in both: no point of the fit is near it."""

    def predict(
        self, n: ArrayLike, d: ArrayLike, level: float = LEVEL, *, y_stderr: ArrayLike | None = None
    ) -> Prediction:
        """The law at n (parameters) and d (examples), and the interval of a NEW MEASURED loss; see `LawFit.predict`."""
        return self._predict([n, d], level, y_stderr)

    def optimal_allocation(
        self, compute: float, flops_per_parameter_example: float, level: float = LEVEL
    ) -> Allocation:
        """The n and d with the lowest loss among those that cost `compute` = k n d FLOPs.

        N* = G (C/k)^a, a = beta/(alpha+beta), G = (alpha A / (beta B))^(1/(alpha+beta)); intervals by the delta method,
        of N* and D* in their logarithms.

        Args:
            compute: FLOPs.
            flops_per_parameter_example: k, FLOPs of training per parameter and example (6 x tokens for a dense
                transformer, less for MM-DiT).
            level: of the intervals.

        Raises:
            ValueError: where A or B is 0.
        """
        _, a_centred, b_centred, alpha, beta = self.theta
        if min(a_centred, b_centred) <= 0:
            raise ValueError(
                "there is no optimal allocation: the fitted loss does not fall with both n and d (A or B is 0)."
            )
        log_cn, log_cd = np.log(self.centre)
        log_product = np.log(compute / flops_per_parameter_example)
        total = alpha + beta
        log_a, log_b = np.log(a_centred) + alpha * log_cn, np.log(b_centred) + beta * log_cd
        log_n = (np.log(alpha / beta) + log_a - log_b + beta * log_product) / total
        log_d = log_product - log_n
        # gradients of log N* and a by (E, A_centred, B_centred, alpha, beta); log D* and b mirror them
        by_linear = [0, 1 / a_centred, -1 / b_centred]
        by_n = np.array([*by_linear, 1 / alpha + log_cn - log_n, log_d - log_cd - 1 / beta]) / total
        by_a = np.array([0, 0, 0, -beta, alpha]) / total**2
        quantile = float(stats.t.ppf((1 + level) / 2, self.degrees_of_freedom))
        half_n, half_a = (quantile * float(np.sqrt(g @ np.array(self.covariance) @ g)) for g in (by_n, by_a))
        n, d, a, b = float(np.exp(log_n)), float(np.exp(log_d)), beta / total, alpha / total
        spread = float(np.exp(half_n))
        return Allocation(
            n=n,
            n_interval=(n / spread, n * spread),
            d=d,
            d_interval=(d / spread, d * spread),
            loss=self.predict(n, d, level),
            a=a,
            a_interval=(a - half_a, a + half_a),
            b=b,
            b_interval=(b - half_a, b + half_a),
        )


def fit_surface(
    n: ArrayLike,
    d: ArrayLike,
    loss: ArrayLike,
    *,
    objective: str = "log_huber",
    groups: Sequence[object] | None = None,
    **options: Any,
) -> SurfaceFit:
    """Fits L = E + A n^-alpha + B d^-beta with exponents from 0.01 to 3 and E, A, B >= 0.

    Checkpoints of one run share their errors, and intervals that take them for independent are too narrow. With groups
    the covariance is a leave-one-group-out jackknife, the scatter is that of points outside the fit, and t has (number
    of groups - 1) degrees of freedom. Fewer than about ten runs still give rough intervals.

    Args:
        n: parameters, shape (points,).
        d: examples or tokens, shape (points,).
        loss: shape (points,).
        objective: as in `fit_law`.
        groups: a label for each point, one per independent run.
        options: y_stderr and labels, as in `fit_law`, and hold_out: how many of the largest n are kept out, with all
            their points, since a checkpoint of a run that is in the fit says little about a larger run.

    Raises:
        ValueError: as `fit_law`.
        TooFewPoints: as `fit_law`; n and d each need three different values.
    """
    return fit_points(SurfaceFit, "surface", {"n": n, "d": d}, loss, objective=objective, groups=groups, **options)
