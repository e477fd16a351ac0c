"""The validation loss level by level: what is above the known floor, and how that goes with size."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rfjax import analysis
from rfjax.study.reports.ladder import Point, finite

WHOLE, ABOVE, AFTER_0 = "all levels", "all levels, above the floor", "mean over t > 0"
GRIDS = {"k/8": 0.0, "(k+0.5)/8": 0.5}  # the first level, in eighths


@dataclass(frozen=True)
class Row:
    """One level, or a mean of several, at every rung.

    Attributes:
        name: what it is. t: of the level; None for a mean. floor: known, expected; None where none is known.
        excess: loss above the floor that this row's triples drew, of each rung, averaged over seeds.
        fit: the study's law, without the held-out rungs; None where there is none. reason: why there is none.
    """

    name: str
    t: float | None
    floor: float | None
    excess: tuple[float, ...]
    fit: analysis.LawFit | None
    reason: str


def times(grid: str, count: int) -> list[float] | None:
    """The levels of t of a grid; None for one that is not known here."""
    return [(GRIDS[grid] + k) / count for k in range(count)] if grid in GRIDS else None


def floors(final: dict[str, Any], key: str = "floors") -> list[float | None]:
    """The known floor of each level as a validation line holds it; None where none is known, or none was recorded."""
    known, count = final.get(key), len(final["levels"])
    if not isinstance(known, list) or len(known) != count:
        return [None] * count
    return [float(value) if finite(value) else None for value in known]


def rows(points: Sequence[Point], study: dict[str, Any]) -> tuple[Row, ...]:
    """A row for each level, for the mean over t > 0, and for all levels above the known floor and whole.

    Args:
        points: of the trend. study: the config's section, for law, objective, weights and hold_out.

    Returns:
        () where the rungs were validated on different levels.
    """
    finals = [[rung.final(study["weights"]) for rung in point.runs] for point in points]
    if len({(f["grid"], len(f["levels"])) for group in finals for f in group}) != 1:
        return ()
    first = finals[0][0]
    at, expected = times(first["grid"], len(first["levels"])), floors(first)
    losses = [[np.array(final["levels"], float) for final in group] for group in finals]
    above = [[_excess(final) for final in group] for group in finals]
    known = sum(floor or 0.0 for floor in expected) / len(expected)
    made = []
    for k, floor in enumerate(expected):
        t = at[k] if at else None
        name = f"t = {t:g}" if t is not None else f"level {k}"
        made.append(_row((name, t, floor), [[run[k] for run in group] for group in above], points, study))
    if at and at[0] == 0:
        made.append(_row((AFTER_0, None, None), [[run[1:].mean() for run in g] for g in losses], points, study))
    if known:
        made.append(_row((ABOVE, None, known), [[run.mean() for run in g] for g in above], points, study))
    return (*made, _row((WHOLE, None, None), [[run.mean() for run in g] for g in losses], points, study))


def _excess(final: dict[str, Any]) -> np.ndarray:
    """Loss of each level above its floor: of the noise drawn where that is recorded, else expected."""
    drawn = floors(final, "floors_drawn")
    base = [d if d is not None else e or 0.0 for d, e in zip(drawn, floors(final), strict=True)]
    return np.array(final["levels"], float) - np.array(base)


def _row(
    what: tuple[str, float | None, float | None],
    values: list[list[float]],
    points: Sequence[Point],
    study: dict[str, Any],
) -> Row:
    """A row from its (name, t, floor) and the values of each rung's seeds."""
    excess = [float(np.mean(group)) for group in values]
    spread = analysis.pooled_spread([group for group in values if min(group) > 0])
    seeded = spread is not None and spread.relative > 0
    stderr = [spread.stderr(y, len(g)) for y, g in zip(excess, values, strict=True)] if seeded else None
    try:
        fit = analysis.fit_law(
            [point.x for point in points],
            excess,
            law=study["law"],
            y_stderr=stderr,
            objective=study["objective"],
            hold_out=study["hold_out"],
            least_scatter=seeded,
            labels=[point.name for point in points],
        )
        reason = ", ".join(f"{p.label}: {p.reason}" for p in fit.left_out)
    except analysis.TooFewPoints as error:
        fit, reason = None, str(error)
    return Row(*what, tuple(excess), fit, reason)
