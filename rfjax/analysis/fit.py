"""What every fit is: a record with parameters, intervals, a status, a held-out verdict and `predict`."""

import dataclasses
import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from rfjax.analysis.engine import OBJECTIVES, evaluate

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
    """A measurement: its index in the call, its x (or n and d), loss and standard error, and why it was left out."""

    index: int
    inputs: tuple[float, ...]
    loss: float
    stderr: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class HeldOut:
    """The judgement on the largest rungs, kept out of the fit: a value per point, and the verdict in one sentence.

    `x` holds x, or (n, d) for a surface; `low` and `high` bound the 95 % interval of a measurement with that point's
    standard error; `error` is predicted / actual - 1.
    """

    x: tuple[float | tuple[float, ...], ...]
    actual: tuple[float, ...]
    predicted: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    error: tuple[float, ...]
    inside: tuple[bool, ...]
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A fitted law L = [E] + sum_j A_j x_j^-alpha_j, complete enough to predict from the record alone.

    parameters, intervals   in the units of x and the loss; 95 % intervals by the delta method with Student t, A and B
                            in their logarithm, E cut at 0; infinite where the points do not determine a parameter
    scatter, scatter_of     residual standard deviation about the law at a point of typical standard error, and of what:
                            "log loss" (relative) for the log objectives, "loss" for "squares"
    aicc                    Akaike's criterion, corrected, the scatter being a parameter; None with too few points;
                            only laws with the same points and objective compare
    condition_number        of the Jacobian with columns of norm 1
    centre, theta           geometric means of the inputs; the parameters with A and B taken there
    covariance              of theta
    typical_stderr          geometric mean of the standard errors passed (relative to the loss for the log objectives)
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
        value, gradient = evaluate(np.array(self.theta), np.log(points / self.centre), "E" in self.parameters)
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
        actual = np.array([p.loss for p in points])
        inside, error = (low <= actual) & (actual <= high), value / actual - 1
        worst = int(np.argmax(np.abs(error)))
        where = ", ".join(f"{name} = {size:.4g}" for name, size in zip(names, points[worst].inputs, strict=True))
        verb, these = ("predicted", inside) if inside.all() else ("missed", ~inside)
        count = "the held-out rung" if len(points) == 1 else f"{these.sum()} of {len(points)} held-out points"
        verdict = (
            f"The law {verb} {count}: "
            f"{'' if len(points) == 1 else 'worst '}at {where} it says {value[worst]:.5g} "
            f"(95 % interval {low[worst]:.5g} to {high[worst]:.5g}) and {actual[worst]:.5g} was measured, "
            f"an error of {100 * error[worst]:+.2f} %."
        )
        x = tuple(p.inputs if len(names) > 1 else p.inputs[0] for p in points)
        columns = [tuple(a.tolist()) for a in (actual, value, low, high, error, inside)]
        return dataclasses.replace(self, held_out=HeldOut(x, *columns, verdict))


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
