"""From measured points to a `Fit`: which points count, the solver, parameters and intervals in the user's units."""

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import scipy
from numpy.typing import ArrayLike
from scipy import stats

from rfjax.analysis.engine import EXPONENTS, METHOD, OBJECTIVES, TINY, Array, Objective, Problem, Solution, solve
from rfjax.analysis.fit import LEVEL, Fit, Point, Status
from rfjax.analysis.shapes import SHAPES
from rfjax.errors import nearest

PARAMETERS = {law: shape.parameters for law, shape in SHAPES.items()}
UNGROUPED = (
    "Several points share a model size: if they are checkpoints of one run, their errors are correlated and these "
    "intervals too narrow; pass groups."
)
FEWEST_GROUPS = 4  # leaving one out must leave three model sizes, for E, A and alpha
SPARE = 3  # degrees of freedom: with fewer, Student's t makes an interval wide
POOLED = 0.25  # p of the F test above which the scatter about a law and that between seeds are taken for one


class TooFewPoints(ValueError):
    """A law was to be fitted to no more points than it has parameters, or to too few different sizes or groups."""


F = TypeVar("F", bound=Fit)


def fit_points(
    kind: type[F],
    law: str,
    inputs: dict[str, ArrayLike],
    y: ArrayLike,
    *,
    y_stderr: ArrayLike | None = None,
    objective: str,
    hold_out: int = 0,
    groups: Sequence[object] | None = None,
    least_scatter: bool = False,
    stderr_freedom: int | None = None,
    labels: Sequence[str] | None = None,
) -> F:
    """Fits `law` to measured points and judges it on the `hold_out` largest rungs; see `fit_law` and `fit_surface`."""
    if objective not in OBJECTIVES:
        raise ValueError(f"there is no objective '{objective}'{nearest(objective, OBJECTIVES)}.")
    if hold_out < 0:
        raise ValueError(f"hold_out counts rungs and cannot be {hold_out}.")
    usable, left_out = _points(inputs, y, y_stderr, groups, labels)
    largest = sorted({p.inputs[0] for p in usable}, reverse=True)[:hold_out]
    used, kept_out = [p for p in usable if p.inputs[0] not in largest], [p for p in usable if p.inputs[0] in largest]
    own = None if groups is None else [groups[p.index] for p in used]
    names, parameter_names = tuple(inputs), PARAMETERS[law]
    _demand(law, names, used, own, f"{len(left_out)} left out, {len(kept_out)} held out")
    goal = OBJECTIVES[objective]
    solution, log_centre, unit, typical = _solved(law, used, own, goal, y_stderr is not None)
    if least_scatter and typical:
        solution = _with_seeds(solution, typical / (1.0 if goal.log else unit), stderr_freedom)
    scale = np.where(SHAPES[law].scaled, unit, 1.0)
    theta, covariance = solution.theta * scale, solution.covariance * np.outer(scale, scale)
    parameters, intervals = _original_units(parameter_names, solution, theta, covariance, log_centre)
    on_bound = [name for name, flag in zip(parameter_names, solution.at_bound, strict=True) if flag]
    lost = [name for name, known in zip(parameter_names, solution.identified, strict=True) if not known]
    trusted = solution.success and bool(on_bound or not lost)
    bounds = tuple(f"{name} = {parameters[name]:g}" for name in on_bound)
    ungrouped = len(names) > 1 and groups is None and len({p.inputs[0] for p in used}) < len(used)
    said = [] if trusted else ["The search did not end at a minimum that the points determine: do not trust this fit."]
    said += _few(len(used), len(parameter_names), solution.degrees_of_freedom)
    said += [*_warnings(bounds, lost, left_out), *([UNGROUPED] if ungrouped else [])]
    return kind(
        law=law,
        parameters=parameters,
        intervals=intervals,
        status=Status.ABNORMAL if not trusted else Status.BOUND if bounds else Status.CONVERGED,
        bounds_hit=bounds,
        condition_number=solution.condition_number,
        degrees_of_freedom=solution.degrees_of_freedom,
        scatter=solution.scatter * (1.0 if goal.log else unit),
        scatter_of="log loss" if goal.log else "loss",
        aicc=_aicc(solution, goal.delta is not None),
        points=tuple(used),
        left_out=tuple(left_out),
        objective=objective,
        method=METHOD,
        warnings=tuple(said),
        versions={"numpy": np.__version__, "scipy": scipy.__version__},
        held_out=None,
        centre=tuple(np.exp(log_centre).tolist()),
        theta=tuple(theta.tolist()),
        covariance=tuple(map(tuple, covariance.tolist())),
        typical_stderr=typical,
    ).judged(kept_out, names)


def _solved(
    law: str, used: list[Point], groups: Sequence[object] | None, goal: Objective, weighted: bool
) -> tuple[Solution, Array, float, float | None]:
    """The solution with losses in units of their mean, log of the centre, that unit, and the typical standard error."""
    x, loss = np.array([p.inputs for p in used]), np.array([p.loss for p in used])
    log_centre, unit = np.log(x).mean(0), float(np.exp(np.log(loss).mean()))
    weights, typical = np.ones_like(loss), None
    if weighted:
        stderr = np.array([p.stderr for p in used]) / (loss if goal.log else 1.0)
        typical = float(np.exp(np.log(stderr).mean()))
        weights = typical / stderr
    solution = solve(Problem(np.log(x) - log_centre, loss / unit, weights, SHAPES[law], goal), groups)
    return solution, log_centre, unit, typical


def _with_seeds(solution: Solution, seeds: float, freedom: int | None) -> Solution:
    """The solution with a scatter that heeds what seeds say of it; seeds: their standard error at a typical point.

    With its degrees of freedom known, an F test asks whether the points scatter about the law by more than seeds do.
    Where it sees nothing (p above POOLED) both estimate one noise and are pooled, degrees of freedom too: exact where
    the law is right. Where it does, or they are not known, the scatter is the larger of the two, with those of the
    points. Beyond a ladder of five rungs or more whose rungs also scatter by as much as one or two standard deviations
    over seeds, 95 % intervals so made hold 94 % or more; with four rungs 87 % (tests/analysis/test_seeds_in_fits.py).
    """
    own = solution.degrees_of_freedom
    if freedom and stats.f.sf((solution.scatter / seeds) ** 2, own, freedom) > POOLED:
        scatter = float(np.sqrt((own * solution.scatter**2 + freedom * seeds**2) / (own + freedom)))
        own += freedom
    elif solution.scatter < seeds:
        scatter = seeds
    else:
        return solution
    grown = (scatter / solution.scatter) ** 2 if solution.scatter > 0 else 1.0
    covariance = solution.covariance * grown
    return dataclasses.replace(solution, scatter=scatter, covariance=covariance, degrees_of_freedom=own)


def _points(
    inputs: dict[str, ArrayLike],
    y: ArrayLike,
    y_stderr: ArrayLike | None,
    groups: Sequence[object] | None,
    labels: Sequence[str] | None,
) -> tuple[list[Point], list[Point]]:
    """The usable points and those left out: sizes are asked for and must be right, but losses may diverge."""
    columns = {name: np.atleast_1d(np.asarray(values, float)) for name, values in inputs.items()}
    loss = np.atleast_1d(np.asarray(y, float))
    stderr = None if y_stderr is None else np.atleast_1d(np.asarray(y_stderr, float))
    for name, values in {**columns, "y_stderr": stderr, "groups": groups, "labels": labels}.items():
        if values is not None and (loss.ndim > 1 or len(values) != loss.size):
            raise ValueError(f"{name} has {len(values)} values, and the losses have shape {loss.shape}.")
    usable, left_out = [], []
    for i, value in enumerate(loss.tolist()):
        for name, sizes in columns.items():
            if not (np.isfinite(sizes[i]) and sizes[i] > 0):
                raise ValueError(f"{name}[{i}] is {sizes[i]}, and a size must be positive and finite.")
        at = tuple(float(sizes[i]) for sizes in columns.values())
        error, label = None if stderr is None else float(stderr[i]), labels[i] if labels else ""
        if not (np.isfinite(value) and value > 0):
            reason = "the loss is not positive" if np.isfinite(value) else "the loss is not finite"
            left_out.append(Point(i, at, value, error, reason, label))
        elif error is not None and not (np.isfinite(error) and error > 0):
            raise ValueError(f"y_stderr[{i}] is {error}, and a standard error must be positive and finite.")
        else:
            usable.append(Point(i, at, value, error, label=label))
    return usable, left_out


def _demand(law: str, names: tuple[str, ...], used: list[Point], groups: Sequence[object] | None, aside: str) -> None:
    """Raises TooFewPoints where the law has no point, no size or no group to spare."""
    parameters = len(PARAMETERS[law])
    sizes = parameters if len(names) == 1 else 3  # of each input
    needs = [(len(used), parameters + 1, "points")]
    needs += [(len({p.inputs[j] for p in used}), sizes, f"different values of {name}") for j, name in enumerate(names)]
    if groups is not None:
        needs.append((len(set(groups)), FEWEST_GROUPS, "groups"))
    for have, need, what in needs:
        if have < need:
            raise TooFewPoints(
                f"the {law} law has {parameters} parameters and needs {need} {what} or more, not {have} ({aside})."
            )


def _original_units(
    names: tuple[str, ...], solution: Solution, theta: Array, covariance: Array, log_centre: Array
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Parameters and their 95 % intervals; log A = log A_centre + alpha log(centre), A's exponent behind it."""
    quantile = stats.t.ppf((1 + LEVEL) / 2, solution.degrees_of_freedom)
    parameters, intervals = {}, {}
    for i, name in enumerate(names):
        value, gradient, known = theta[i], np.eye(theta.size)[i], solution.identified[i]
        amplitude = name in ("A", "B")
        if amplitude:
            j = i + log_centre.size
            gradient[[i, j]] = 1 / max(value, TINY), log_centre[j - names.index("alpha")]
            value = np.log(max(value, TINY)) + theta[j] * gradient[j]
            known = known and theta[i] > 0 and solution.identified[j]
        value += log_centre[0] if name == "x_break" else 0.0
        half = quantile * np.sqrt(gradient @ covariance @ gradient) if known else np.inf
        with np.errstate(over="ignore"):
            ends = np.array([value, value - half, value + half])
            value, low, high = np.exp(ends).tolist() if amplitude or name == "x_break" else ends.tolist()
        parameters[name] = 0.0 if amplitude and theta[i] == 0 else value
        intervals[name] = (max(low, 0.0) if name == "E" else low, high)
    return parameters, intervals


def _aicc(solution: Solution, huber: bool) -> float | None:
    """AICc of the residuals as normal, or as Laplace for the Huber objective; None with too few points."""
    n, k = solution.residual.size, solution.theta.size + 1
    if n <= k + 1:
        return None
    log_spread = np.log(max(2 * solution.cost / n, 1e-28))  # a perfect fit has no logarithm
    return float((2 if huber else 1) * n * log_spread + 2 * k + 2 * k * (k + 1) / (n - k - 1))


def _few(n: int, p: int, freedom: float) -> list[str]:
    """Sentences on few points; freedom: of the scatter, to which seeds may have lent theirs."""
    said = []
    if n - p < SPARE and freedom < SPARE:
        said.append(
            f"{n} points leave {p} parameters only {n - p} degree{'s'[: n - p - 1]} of freedom: intervals are wide."
        )
    if n <= p + 2:
        said.append(f"AICc is undefined with {n} points and {p + 1} parameters (the scatter is one); it needs {p + 3}.")
    return said


def _warnings(bounds: tuple[str, ...], lost: list[str], left_out: list[Point]) -> list[str]:
    limits = f"E, A and B from 0, exponents from {EXPONENTS[0]} to {EXPONENTS[1]}, a break inside of the ladder"
    said = [f"{bound} is a bound of the search ({limits})." for bound in bounds]
    if lost:
        said.append(f"The points do not determine {' and '.join(lost)}.")
    return said + [f"{point.label or f'Point {point.index}'} was left out: {point.reason}." for point in left_out]
