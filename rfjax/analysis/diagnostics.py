"""Does a law deserve its intervals? Residuals, each rung from the others, curvature, and the seeds' own spread."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from rfjax.analysis.engine import OBJECTIVES
from rfjax.analysis.fit import Fit
from rfjax.analysis.fitting import TooFewPoints
from rfjax.analysis.laws import fit_law
from rfjax.analysis.shapes import SHAPES

Array = NDArray[np.float64]

SUSPICIOUS = 0.05  # a test warns below this p: one sound ladder in twenty warns too
FLAT = 1e-7  # share of a direction beside the law's own below which the points can't tell it from them


@dataclass(frozen=True)
class LeftOut:
    """A rung predicted from all others: x, measured and predicted loss, 95 % interval, and predicted / actual - 1.

    outside: the rung is the smallest or the largest, so that the law was extrapolated. parameters: without this rung; E
    that moves with every rung is not determined, whatever its interval says.
    """

    x: float
    label: str
    actual: float
    predicted: float
    low: float
    high: float
    error: float
    inside: bool
    outside: bool
    parameters: dict[str, float]


@dataclass(frozen=True)
class Check:
    """The p of a test that a sound law passes with probability 1 - p, with the statistic and its degrees of freedom."""

    statistic: float
    degrees_of_freedom: tuple[int, int]
    p: float


@dataclass(frozen=True)
class LawCheck:
    """How a law of all rungs stands up; None, or (), and a reason, where there are too few rungs to say."""

    residuals: tuple[float, ...]
    left_out: tuple[LeftOut, ...]
    curvature: Check | None
    lack_of_fit: Check | None
    reason: str


def check_law(fit: Fit, seeds_degrees_of_freedom: int | None, **options: Any) -> LawCheck:
    """Residuals, each rung from the others, curvature, and the scatter beside that of the seeds.

    Args:
        fit: a law of all rungs.
        seeds_degrees_of_freedom: of the spread between seeds; None where it is not known.
        options: x, y and so on, as the fit was given them.
    """
    left_out, reason = (), ""
    try:
        left_out = leave_one_out(law=fit.law, **options)
    except TooFewPoints as error:
        reason = str(error)
    misfit = None if seeds_degrees_of_freedom is None else lack_of_fit(fit, seeds_degrees_of_freedom)
    return LawCheck(tuple(residuals(fit).tolist()), left_out, curvature(fit), misfit, reason)


def law_warnings(law: str, check: LawCheck) -> list[str]:
    """Sentences on a law whose residuals bend, scatter beyond the seeds, or that misses its own rungs."""
    said, bend, misfit = [], check.curvature, check.lack_of_fit
    signs = "".join("+" if value > 0 else "-" for value in check.residuals)
    if bend is not None and bend.p < SUSPICIOUS:
        said.append(
            f"The residuals of {law} bend (signs {signs} by size; p = {bend.p:.2g} against one parameter more): the "
            "law is not quite right, and its E and its predictions far beyond the ladder are not to be trusted."
        )
    if misfit is not None and misfit.p < SUSPICIOUS:
        said.append(
            f"The rungs scatter about {law} by more than their seeds do (F = {misfit.statistic:.2g}, p = "
            f"{misfit.p:.2g}): the law, or the learning rate of some rung, is not quite right."
        )
    missed = [one for one in check.left_out if not one.inside]
    if missed:
        names = ", ".join(f"{one.label} ({100 * one.error:+.1f} %)" for one in missed)
        said.append(f"Predicted from the other rungs by {law}, {names} lies outside the 95 % interval.")
    return said


def leave_one_out(
    x: ArrayLike,
    y: ArrayLike,
    *,
    law: str,
    y_stderr: ArrayLike | None = None,
    labels: Sequence[str] | None = None,
    **options: Any,
) -> tuple[LeftOut, ...]:
    """Fits the law to all rungs but one, for each rung; arguments as in `fit_law`.

    Raises:
        TooFewPoints: where the others do not suffice for the law.
    """
    sizes, losses = np.asarray(x, float), np.asarray(y, float)
    stderr = None if y_stderr is None else np.asarray(y_stderr, float)
    usable = np.isfinite(losses) & (losses > 0)
    found = []
    for size in np.unique(sizes[usable]):
        rest, own = usable & (sizes != size), np.flatnonzero(usable & (sizes == size))
        own_stderr = None if stderr is None else stderr[rest]
        fit = fit_law(sizes[rest], losses[rest], law=law, y_stderr=own_stderr, **options)
        outside = bool(size < sizes[rest].min() or size > sizes[rest].max())
        for i in own.tolist():
            value, low, high = fit.predict(size, y_stderr=None if stderr is None else stderr[i])
            label, inside = labels[i] if labels else "", bool(low <= losses[i] <= high)
            error = float(value / losses[i] - 1)
            interval = (value, low, high, error, inside, outside)
            found.append(LeftOut(float(size), label, float(losses[i]), *interval, fit.parameters))
    return tuple(found)


def residuals(fit: Fit) -> Array:
    """Measured less fitted at each point of the fit: of the log loss for the log objectives, else of the loss."""
    value, _ = _law(fit)
    measured = np.array([point.loss for point in fit.points])
    return np.log(measured / value) if OBJECTIVES[fit.objective].log else measured - value


def curvature(fit: Fit) -> Check | None:
    """Do the residuals bend? The law against the law times exp(gamma (log x)^2), one parameter more.

    The F test with 1 and n - p - 1 degrees of freedom, linear about the fit: exact for the power law, whose logarithm
    is a line, and near to it for the law with E (tests/analysis/test_diagnostics.py counts false alarms). Parameters on
    a bound do not count. None where no degree of freedom is left, or the points can't tell the bend from the law.
    """
    points = np.array([point.inputs for point in fit.points])
    log_x, log = np.log(points / fit.centre)[:, 0], OBJECTIVES[fit.objective].log
    value, jacobian = _law(fit)
    weights = _weights(fit)
    scale = weights if not log else weights / value
    bend = weights * log_x**2 * (1.0 if log else value)
    fixed = {bound.split(" = ")[0] for bound in fit.bounds_hit}
    free = [i for i, name in enumerate(fit.parameters) if name not in fixed]
    own = (jacobian * scale[:, None])[:, free]
    own = own / np.maximum(np.linalg.norm(own, axis=0), np.finfo(float).tiny)
    basis, singular, _ = np.linalg.svd(own, full_matrices=False)
    basis = basis[:, singular > FLAT * singular[0]] if singular.size else basis
    left = bend - basis @ (basis.T @ bend)
    rest = weights * residuals(fit)
    rest = rest - basis @ (basis.T @ rest)
    freedom = len(points) - basis.shape[1] - 1
    if freedom < 1 or np.linalg.norm(left) < FLAT * np.linalg.norm(bend):
        return None
    along = float(rest @ left / np.linalg.norm(left))
    other = float(rest @ rest) - along**2
    if other <= 1e-20:  # rounding: the law holds to the last digit
        return None
    f = along**2 / (other / freedom)
    return Check(f, (1, freedom), float(stats.f.sf(f, 1, freedom)))


def lack_of_fit(fit: Fit, seeds_degrees_of_freedom: int) -> Check | None:
    """Is the scatter about the law larger than the seeds' own spread? The classical F test (Fisher 1922).

    The fit's standard errors must be those of the seeds' means, from a spread with these degrees of freedom. None where
    the fit has no standard errors.
    """
    if fit.typical_stderr is None:
        return None
    weights, freedom = _weights(fit), len(fit.points) - len(fit.parameters)
    f = float(np.sum((weights * residuals(fit)) ** 2)) / freedom / fit.typical_stderr**2
    return Check(f, (freedom, seeds_degrees_of_freedom), float(stats.f.sf(f, freedom, seeds_degrees_of_freedom)))


def _law(fit: Fit) -> tuple[Array, Array]:
    points = np.array([point.inputs for point in fit.points])
    return SHAPES[fit.law].evaluate(np.array(fit.theta), np.log(points / fit.centre))


def _weights(fit: Fit) -> Array:
    """Of each point, as in the fit: typical standard error / its own."""
    if fit.typical_stderr is None:
        return np.ones(len(fit.points))
    relative = [(p.stderr or 0.0) / (p.loss if OBJECTIVES[fit.objective].log else 1.0) for p in fit.points]
    return fit.typical_stderr / np.array(relative)
