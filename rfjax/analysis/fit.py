"""What every fit is: a record with parameters, intervals, a status, a held-out verdict and `predict`."""

import dataclasses
import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from rfjax.analysis.engine import OBJECTIVES
from rfjax.analysis.shapes import SHAPES

LEVEL = 0.95


class Status(enum.StrEnum):
    """How a fit ended: inside its bounds, on one of them, or not at a minimum that can be trusted."""

    CONVERGED = "converged"
    BOUND = "hit a bound"
    ABNORMAL = "abnormal"


class Prediction(NamedTuple):
    """The law's value and the interval of a new measured loss; floats, or arrays of the shape asked for."""

    value: Any
    low: Any
    high: Any


@dataclass(frozen=True)
class Point:
    """A measurement: index in the call, x (or n and d), loss and standard error, why it was left out, its name."""

    index: int
    inputs: tuple[float, ...]
    loss: float
    stderr: float | None = None
    reason: str = ""
    label: str = ""


@dataclass(frozen=True)
class HeldOut:
    """The judgement on the largest rungs, kept out of the fit: a value per point, and the verdict in one sentence.

    Attributes:
        x: x, or (n, d) for a surface.
        low, high: the 95 % interval of a measurement with that point's standard error.
        error: predicted / actual - 1.
        baseline: "the same as the rung before", the loss of the largest size in the fit (of a surface, at the nearest
            d). It passes where it lies inside the interval or errs by no more than the law: then nothing is tested.
        outcome: "missed" where a point lies outside its interval, "not tested" where the baseline passes at every
            point, else "predicted".
    """

    x: tuple[float | tuple[float, ...], ...]
    actual: tuple[float, ...]
    predicted: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    error: tuple[float, ...]
    inside: tuple[bool, ...]
    baseline: tuple[float, ...]
    baseline_error: tuple[float, ...]
    baseline_passes: tuple[bool, ...]
    outcome: str
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A fitted law, one of `shapes.SHAPES`, complete enough to predict from the record alone.

    E is what the loss tends to as x grows with all else as it was: with more examples it is lower, so it is no floor of
    the data. All intervals suppose that the law is right, and that the noise is equally large at all points, or in
    proportion to the standard errors passed.

    Attributes:
        parameters: in the units of x and the loss.
        intervals: 95 %, by the delta method with Student t, A and B in their logarithm, E cut at 0; infinite where the
            points do not determine a parameter.
        degrees_of_freedom: of the scatter: points less parameters, and those of the standard errors where pooled.
        scatter: standard deviation about the law at a point of typical standard error; with `least_scatter` never below
            the standard errors passed, or pooled with them.
        scatter_of: "log loss" (relative) for the log objectives, "loss" for "squares".
        aicc: Akaike's criterion, corrected, the scatter being a parameter; None with too few points; only laws with the
            same points and objective compare.
        condition_number: of the Jacobian with columns of norm 1.
        centre: geometric means of the inputs.
        theta: the parameters, with A and B taken at the centre, and log(x_break / centre).
        covariance: of theta.
        typical_stderr: geometric mean of the standard errors passed (relative to the loss for the log objectives).
    """

    law: str
    parameters: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    status: Status
    bounds_hit: tuple[str, ...]
    condition_number: float
    degrees_of_freedom: int
    scatter: float
    scatter_of: str
    aicc: float | None
    points: tuple[Point, ...]
    left_out: tuple[Point, ...]
    objective: str
    method: str
    warnings: tuple[str, ...]
    versions: dict[str, str]
    held_out: HeldOut | None
    centre: tuple[float, ...]
    theta: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    typical_stderr: float | None

    def record(self) -> dict[str, Any]:
        """The whole fit as plain JSON; what is not finite becomes null."""
        return plain(self)

    def _predict(self, inputs: Sequence[ArrayLike], level: float, y_stderr: ArrayLike | None) -> Prediction:
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, and is {level}.")
        arrays = np.broadcast_arrays(*[np.asarray(values, float) for values in inputs])
        points = np.stack([values.ravel() for values in arrays], axis=-1)
        if not (np.isfinite(points) & (points > 0)).all():
            raise ValueError("a law predicts at positive, finite sizes only.")
        value, gradient = SHAPES[self.law].evaluate(np.array(self.theta), np.log(points / self.centre))
        log = OBJECTIVES[self.objective].log
        if log:
            gradient = gradient / value[:, None]
        noise = np.full(value.shape, self.scatter)
        if y_stderr is not None:
            if self.typical_stderr is None:
                raise ValueError("y_stderr at a prediction needs a fit that was given y_stderr.")
            stderr = np.broadcast_to(np.asarray(y_stderr, float), arrays[0].shape).ravel()
            noise = self.scatter * (stderr / value if log else stderr) / self.typical_stderr
        variance = np.einsum("ni,ij,nj->n", gradient, np.array(self.covariance), gradient)
        half = stats.t.ppf((1 + level) / 2, self.degrees_of_freedom) * np.sqrt(variance + noise**2)
        with np.errstate(over="ignore"):
            low, high = (value * np.exp(-half), value * np.exp(half)) if log else (value - half, value + half)
        shape = arrays[0].shape
        return Prediction(*[(a.reshape(shape) if shape else float(a[0])) for a in (value, low, high)])

    def judged(self, points: Sequence[Point], names: tuple[str, ...]) -> Self:
        """The same fit with the verdict on `points`."""
        if not points:
            return self
        stderr = None if self.typical_stderr is None else [float(p.stderr or 0) for p in points]
        value, low, high = self._predict(np.array([p.inputs for p in points]).T, LEVEL, stderr)
        actual, baseline = np.array([p.loss for p in points]), np.array([self._before(p).loss for p in points])
        inside, error, by_baseline = (low <= actual) & (actual <= high), value / actual - 1, baseline / actual - 1
        passes = ((low <= baseline) & (baseline <= high)) | (np.abs(by_baseline) <= np.abs(error))
        outcome = "missed" if not inside.all() else "not tested" if passes.all() else "predicted"
        x = tuple(p.inputs if len(names) > 1 else p.inputs[0] for p in points)
        columns = (actual, value, low, high, error, inside, baseline, by_baseline, passes)
        held = HeldOut(x, *(tuple(a.tolist()) for a in columns), outcome, "")
        worst = int(np.argmax(np.abs(error)))
        where = ", ".join(f"{name} = {size:.4g}" for name, size in zip(names, points[worst].inputs, strict=True))
        where = f"{points[worst].label} ({where})" if points[worst].label else where
        return dataclasses.replace(self, held_out=dataclasses.replace(held, verdict=_verdict(held, worst, where)))

    def _before(self, point: Point) -> Point:
        """The point of the fit with the largest size, at the nearest of the other inputs."""
        largest = max(p.inputs[0] for p in self.points)
        apart = lambda p: sum(abs(np.log(a / b)) for a, b in zip(p.inputs[1:], point.inputs[1:], strict=True))  # noqa: E731
        return min((p for p in self.points if p.inputs[0] == largest), key=apart)


def _verdict(held: HeldOut, i: int, where: str) -> str:
    """The outcome in words, with the baseline; i: the point with the largest error."""
    n, one = len(held.x), len(held.x) == 1
    hits = sum(held.inside)
    said = {
        "predicted": f"The law predicted {'the held-out rung' if one else f'{hits} of {n} held-out points'}",
        "missed": f"The law missed {'the held-out rung' if one else f'{n - hits} of {n} held-out points'}",
        "not tested": "Not tested by "
        + ("the held-out rung" if one else f"{n} held-out points")
        + ", which the law holds in its interval, but where 'the same as the rung before' passes too",
    }[held.outcome]
    width, step = held.high[i] - held.low[i], held.actual[i] - held.baseline[i]
    lies = "inside" if held.low[i] <= held.baseline[i] <= held.high[i] else "outside"
    ratio = width / abs(step) if step else 0.0
    times = f", {ratio:.{0 if ratio >= 10 else 2}f} times the ladder's last step ({step:+.3g})" if step else ""
    return (
        f"{said}: {'' if one else 'worst '}at {where} it says {held.predicted[i]:.5g} "
        f"(95 % interval {held.low[i]:.5g} to {held.high[i]:.5g}) and {held.actual[i]:.5g} was measured, "
        f"an error of {100 * held.error[i]:+.2f} %. 'The same as the rung before' errs by "
        f"{100 * held.baseline_error[i]:+.2f} % and lies {lies} the interval, which is {width:.3g} wide{times}."
    )


def plain(value: Any) -> Any:
    """Dataclasses, enums, tuples and numpy numbers as strict JSON: dicts, lists, strings, finite numbers and None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, np.generic):
        return plain(value.item())
    return None if isinstance(value, float) and not np.isfinite(value) else value
