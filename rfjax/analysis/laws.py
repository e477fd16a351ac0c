"""One-dimensional scaling laws: L(x) = A x^-alpha and L(x) = E + A x^-alpha, and the choice between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from rfjax.analysis.fit import LEVEL, Fit, Prediction, plain
from rfjax.analysis.fitting import TooFewPoints, fit_points
from rfjax.errors import nearest

LAWS = ("power", "power_offset")
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
        spans = ", ".join(f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in self.intervals.items())
        formula = f"L = {offset}{p['A']:.4g} x^-{p['alpha']:.3f}"
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
    labels: Sequence[str] | None = None,
) -> LawFit:
    """Fits "power", L = A x^-alpha, or "power_offset", L = E + A x^-alpha, with 0.01 <= alpha <= 3 and E, A >= 0.

    y_stderr says how points compare: the weights are 1 / stderr^2, and the scatter about the law is still estimated
    from the residuals, with n - p degrees of freedom, as Var(y_i) = scatter^2 (stderr_i / typical)^2. So a stderr that
    all points share (examples common to all models, in a paired validation) cannot widen an interval, and seed noise or
    misfit beyond it cannot be missed. With least_scatter it is the noise that a point is known to have, such as the
    spread over seeds: a few residuals may be small by luck, and the interval then still spans what another seed would
    do. The degrees of freedom stay n - p, so such intervals cover more than 95 %.

    Args:
        x: sizes (parameters, FLOPs or examples; positive), shape (n,).
        y: losses, shape (n,); one that is not finite and positive (a diverged run) is left out and listed.
        law: "power" or "power_offset".
        y_stderr: standard errors of y, in its units, shape (n,).
        objective: "squares" of the loss, "log_squares" of its logarithm, or "log_huber" (Hoffmann et al. 2022, delta =
            1e-3).
        hold_out: how many of the largest usable rungs (different x; all points of a rung) are kept out and judged.
        least_scatter: the scatter is at least y_stderr.
        labels: names of the points, for messages.

    Raises:
        ValueError: for sizes or standard errors that are not positive and finite.
        TooFewPoints: for n <= p.
    """
    if law not in LAWS:
        raise ValueError(f"there is no law '{law}'{nearest(law, LAWS)}.")
    options = {"objective": objective, "hold_out": hold_out, "least_scatter": least_scatter, "labels": labels}
    return fit_points(LawFit, law, {"x": x}, y, y_stderr=y_stderr, **options)


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

    Arguments as in `fit_law`. Where the points suffice for the power law alone, it stands alone, with the reason.
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
