"""The validation loss level by level: what is above the known floor, and how that goes with size."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rfjax.analysis.diagnostics import SUSPICIOUS, curvature
from rfjax.analysis.fitting import TooFewPoints
from rfjax.analysis.ladder import Measured, Rung
from rfjax.analysis.laws import LawFit, fit_law
from rfjax.analysis.seeds import pooled_spread

WHOLE, ABOVE, AFTER_0 = "all levels", "all levels, above the floor", "mean over t > 0"
Floors = Sequence[float | None] | None
GRIDS = {"k/8": 0.0, "(k+0.5)/8": 0.5}  # the first level, in eighths


@dataclass(frozen=True)
class Level:
    """One level of t, or a mean of several (t is None), at every rung.

    Attributes:
        floor: known, expected; None where none is known.
        excess: loss above the floor that the triples drew, of each rung, averaged over seeds.
        fit: the study's law, without the held-out rungs; where the floor of the level is known, a pure power law of
            what is above it, unless its residuals bend: then examples or steps, not size, set what is left. None where
            there is none, and `reason` says why."""

    name: str
    t: float | None
    floor: float | None
    excess: tuple[float, ...]
    fit: LawFit | None
    reason: str


def times(grid: str, count: int) -> list[float] | None:
    """The levels of t of a grid; None for one that is not known here."""
    return [(GRIDS[grid] + k) / count for k in range(count)] if grid in GRIDS else None


def analyse_levels(rungs: Sequence[Rung], law: str, objective: str, hold_out: int) -> tuple[Level, ...]:
    """A row for each level, for the mean over t > 0, and for all levels above the known floor and whole.

    Returns:
        () where the rungs were validated on different levels.
    """
    if len({(run.grid, len(run.levels)) for rung in rungs for run in rung.runs}) != 1:
        return ()
    first = rungs[0].runs[0]
    at = times(first.grid, len(first.levels))
    expected = first.floors or (None,) * len(first.levels)
    losses = [[np.array(run.levels, float) for run in rung.runs] for rung in rungs]
    above = [[_excess(run) for run in rung.runs] for rung in rungs]

    def row(name: str, t: float | None, floor: float | None, values: list[list[float]]) -> Level:
        excess = [float(np.mean(group)) for group in values]
        positive = [(rung.x, group) for rung, group in zip(rungs, values, strict=True) if min(group) > 0]
        spread = pooled_spread([group for _, group in positive], [x for x, _ in positive])
        seeded = spread is not None and spread.relative > 0
        triples = zip(excess, values, rungs, strict=True)
        stderr = [spread.stderr(y, len(g), rung.x) for y, g, rung in triples] if seeded else None
        options = {"objective": objective, "hold_out": hold_out, "y_stderr": stderr, "least_scatter": seeded}
        options |= {"stderr_freedom": spread.degrees_of_freedom if seeded else None}
        try:
            fit = _fit_row(excess, law, known=bool(t == 0 and floor), options=options)
            reason = ", ".join(f"{p.label}: {p.reason}" for p in fit.left_out)
        except TooFewPoints as error:
            fit, reason = None, str(error)
        return Level(name, t, floor, tuple(excess), fit, reason)

    def _fit_row(excess: list[float], law: str, known: bool, options: dict[str, Any]) -> LawFit:
        sizes, labels = [rung.x for rung in rungs], [rung.name for rung in rungs]
        if known:
            pure = fit_law(sizes, excess, law="power", labels=labels, **options)
            bend = curvature(pure)
            if bend is None or bend.p >= SUSPICIOUS:
                return pure
        return fit_law(sizes, excess, law=law, labels=labels, **options)

    made = []
    for k, floor in enumerate(expected):
        t = at[k] if at else None
        name = f"t = {t:g}" if t is not None else f"level {k}"
        made.append(row(name, t, floor, [[run[k] for run in group] for group in above]))
    if at and at[0] == 0:
        made.append(row(AFTER_0, None, None, [[run[1:].mean() for run in group] for group in losses]))
    if known := sum(floor or 0.0 for floor in expected) / len(expected):
        made.append(row(ABOVE, None, known, [[run.mean() for run in group] for group in above]))
    return (*made, row(WHOLE, None, None, [[run.mean() for run in group] for group in losses]))


def _excess(run: Measured) -> np.ndarray:
    return above_floors(run.levels, run.floors, run.floors_drawn)


def above_floors(levels: Sequence[float], floors: Floors, drawn: Floors) -> np.ndarray:
    """Loss of each level above its floor: of the noise drawn where that is recorded, else expected."""
    nothing = (None,) * len(levels)
    base = [d if d is not None else e or 0.0 for d, e in zip(drawn or nothing, floors or nothing, strict=True)]
    return np.array(levels, float) - np.array(base)


def describe_floor(rungs: Sequence[Rung]) -> str:
    """The part of the loss that no model can lower, and its share of the largest rung's loss, in words."""
    if not rungs:
        return ""
    largest = rungs[-1]
    run = largest.runs[0]
    if run.floors is None:
        return "These runs are from before known floors were recorded, so none is shown."
    at, count = times(run.grid, len(run.levels)), len(run.floors)
    known = {k: floor for k, floor in enumerate(run.floors) if floor}
    if not known:
        return f"No level of the grid {run.grid} has a known floor: every one sees some of the noise."
    k, floor = next(iter(known.items()))
    share, where = floor / count, f"t = {at[k]:g}" if at else f"level {k}"
    return (
        f"A floor is known at {where} alone: the network sees nothing of the noise there, so no model's loss is below "
        f"{floor:.4g}. That is {share:.4g} of the mean over {count} levels, {share / largest.loss:.0%} of "
        f"{largest.name}'s loss. At other levels some loss is unavoidable too; how much is not known."
    )
