"""Scaling laws in one variable, and the choice between the two common ones; and the loss over size and data.

L(N, D) = E + A N^-alpha + B D^-beta is that of Hoffmann et al. 2022, approach 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from rfjax.analysis.fit import LEVEL, Fit, Prediction, plain
from rfjax.analysis.fitting import TooFewPoints, fit_points
from rfjax.errors import nearest

LAWS = ("power", "power_offset", "broken_power")
UNSAFE = "no size of model alone takes the loss to 0"
CLEAR = 2.0  # an AICc difference below this does not decide (Burnham and Anderson 2002, section 2.6)


@dataclass(frozen=True, kw_only=True)
class LawFit(Fit):
    """A fitted law in one variable; the fields are those of `Fit`."""

    def predict(self, x: ArrayLike, level: float = LEVEL, *, y_stderr: ArrayLike | None = None) -> Prediction:
        """The law at `x` and the interval that holds a NEW MEASURED loss there with probability `level`.

        Args:
            x: sizes, in the units of the fit, any shape.
            level: of the interval.
            y_stderr: standard error of the new measurement, in units of the loss, where the fit was given them; by
                default that of a typical point of the fit.
        """
        return self._predict([x], level, y_stderr)

    @property
    def text(self) -> str:
        """The law in one line, with the intervals of its parameters."""
        p = self.parameters
        offset = f"{p['E']:.4f} + " if "E" in p else ""
        bend = f", exponent {p['alpha_2']:.3f} beyond about {p['x_break']:.3g}" if "x_break" in p else ""
        spans = ", ".join(f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in self.intervals.items())
        formula = f"L = {offset}{p['A']:.4g} x^-{p['alpha']:.3f}{bend}"
        return f"{formula}   (95 %: {spans}; {self.status.value}; {self.degrees_of_freedom} degrees of freedom)"


def fit_law(
    x: ArrayLike,
    y: ArrayLike,
    *,
    law: str = "power_offset",
    y_stderr: ArrayLike | None = None,
    objective: str = "log_squares",
    hold_out: int = 0,
    least_scatter: bool = False,
    stderr_freedom: int | None = None,
    labels: Sequence[str] | None = None,
) -> LawFit:
    """Fits "power", L = A x^-alpha, "power_offset", L = E + A x^-alpha, or "broken_power" (rfjax/analysis/broken.py).

    Exponents lie between 0.01 and 3, and E, A >= 0.

    y_stderr says how points compare: the weights are 1 / stderr^2, and the scatter about the law is still estimated
    from the residuals, with n - p degrees of freedom, as Var(y_i) = scatter^2 (stderr_i / typical)^2. So a stderr that
    all points share (examples common to all models) cannot widen an interval, and misfit beyond it cannot be missed.
    With least_scatter it is the noise that a point is known to have, such as the spread over seeds, since a few
    residuals may be small by luck; such intervals cover more than 95 %. With its degrees of freedom, stderr_freedom,
    the residuals and the seeds are pooled where they agree: then 95 % are 95 %, and a short ladder's are far narrower.

    Args:
        x: sizes (parameters, FLOPs or examples; positive), shape (n,).
        y: losses, shape (n,); one that is not finite and positive (a diverged run) is left out and listed.
        law: "power", "power_offset" or "broken_power".
        y_stderr: standard errors of y, in its units, shape (n,).
        objective: "squares" of the loss, "log_squares" of its logarithm, or "log_huber" (Hoffmann et al. 2022, delta =
            1e-3).
        hold_out: how many of the largest usable rungs (different x; all points of a rung) are kept out and judged.
        least_scatter: the scatter is at least y_stderr, or pooled with it.
        stderr_freedom: the degrees of freedom of the common scale of y_stderr; None where they are not known.
        labels: names of the points, for messages.

    Raises:
        ValueError: for sizes or standard errors that are not positive and finite.
        TooFewPoints: for n <= p.
    """
    if law not in LAWS:
        raise ValueError(f"there is no law '{law}'{nearest(law, LAWS)}.")
    options = {"objective": objective, "hold_out": hold_out, "labels": labels}
    seeds = {"y_stderr": y_stderr, "least_scatter": least_scatter, "stderr_freedom": stderr_freedom}
    return fit_points(LawFit, law, {"x": x}, y, **seeds, **options)


@dataclass(frozen=True)
class Comparison:
    """The fits of both laws to the same points, the name of the preferred one, and why in one sentence."""

    fits: dict[str, LawFit]
    preferred: str
    reason: str

    def record(self) -> dict[str, Any]:
        """The comparison as plain JSON."""
        return plain(self)


def compare_laws(x: ArrayLike, y: ArrayLike, *, hold_out: int = 1, **options: Any) -> Comparison:
    """Fits both laws and prefers one: by AICc where it differs by 2 or more, else by the error on the held-out rung.

    The laws are "power" and "power_offset"; arguments as in `fit_law`. Where the points suffice for the power law
    alone, it stands alone, with the reason.
    """
    fits = {"power": fit_law(x, y, law="power", hold_out=hold_out, **options)}
    try:
        fits["power_offset"] = fit_law(x, y, law="power_offset", hold_out=hold_out, **options)
    except TooFewPoints as error:
        reason = f"The power law is all that the points allow, and unsafe where {UNSAFE}: {error}"
        return Comparison(fits, "power", reason)

    judged = {name: max(map(abs, fit.held_out.error)) for name, fit in fits.items() if fit.held_out}
    errors = ", ".join(f"{100 * error:.2f} % for {name}" for name, error in judged.items())
    held_out = f"the largest held-out error is {errors}" if judged else "no rung was held out"
    scores = {name: fit.aicc for name, fit in fits.items() if fit.aicc is not None}
    if len(scores) < len(fits):
        verdict = f"AICc is undefined for {' and '.join(name for name in fits if name not in scores)} (too few points)"
    else:
        best = min(scores, key=scores.__getitem__)
        gap = max(scores.values()) - min(scores.values())
        if gap >= CLEAR:
            return Comparison(fits, best, f"{best} is preferred: its AICc is lower by {gap:.1f}, and {held_out}.")
        verdict = f"AICc differs by {gap:.1f} only"
    best = min(judged, key=judged.__getitem__) if judged else "power_offset"
    why = held_out if judged else f"no rung was held out, and a pure power law is unsafe where {UNSAFE}"
    return Comparison(fits, best, f"{best} is preferred: {verdict}, and {why}.")


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
        a_centred, b_centred, alpha, beta = self.theta[-4:]
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
        # gradients of log N* and a by ([E,] A_centred, B_centred, alpha, beta); log D* and b mirror them
        offset = [0.0] * (len(self.theta) - 4)
        by_linear = [*offset, 1 / a_centred, -1 / b_centred]
        by_n = np.array([*by_linear, 1 / alpha + log_cn - log_n, log_d - log_cd - 1 / beta]) / total
        by_a = np.array([*offset, 0, 0, -beta, alpha]) / total**2
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
    law: str = "surface",
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
        law: "surface", or "surface_floor" with E = 0, for losses above a floor that is known.
        groups: a label for each point, one per independent run; branches of one trunk, which share its luck, are one.
        options: y_stderr and labels, as in `fit_law`, and hold_out: how many of the largest n are kept out, with all
            their points, since a checkpoint of a run that is in the fit says little about a larger run.

    Raises:
        ValueError: as `fit_law`.
        TooFewPoints: as `fit_law`; n and d each need three different values.
    """
    return fit_points(SurfaceFit, law, {"n": n, "d": d}, loss, objective=objective, groups=groups, **options)
