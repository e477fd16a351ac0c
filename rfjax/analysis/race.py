"""Models trained alike: where each ends, how much compute each needs for the same loss, who leads early."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from rfjax.analysis.multipliers import (
    Beginning,
    Estimate,
    Multiplier,
    beginning,
    cheapest,
    leads,
    multipliers,
    over_seeds,
)  # fmt: skip
from rfjax.analysis.ranking import Agreement, agreement

BUDGETS = {"flops": "flops", "steps": "step"}  # what multipliers are of -> column of the points


@dataclass(frozen=True)
class Course:
    """One run along its training.

    Attributes:
        name: of the run.
        seed: of the run.
        points: its checkpoints in order of the steps: "step", "flops", "loss" and so on -> value, NaN where not known.
        final: quantity -> value at the end; empty unless the run is complete.
    """

    name: str
    seed: Hashable
    points: tuple[Mapping[str, float], ...]
    final: Mapping[str, float]


@dataclass(frozen=True)
class Entrant:
    """The runs of one model, by seed; final: quantity -> mean over its complete runs, with an interval."""

    name: str
    runs: tuple[Course, ...]
    final: dict[str, Estimate]

    @property
    def complete(self) -> tuple[Course, ...]:
        return tuple(run for run in self.runs if run.final)


@dataclass(frozen=True)
class Race:
    """All that models trained alike say.

    Attributes:
        entrants: name -> its runs, in the paper's order, then the others.
        multipliers: "flops", "steps" -> (row, column) -> how many times less the row needs than the column.
        ranked: names by final loss, the lowest first.
        leads: (better, next) -> difference of their losses, by seed.
        cheapest: the name that needs fewer FLOPs than each other that it compares with, and the nearest of those.
        beginning: who leads early, or None.
        agreement: how our order agrees with the paper's.
    """

    entrants: dict[str, Entrant]
    multipliers: dict[str, dict[tuple[str, str], Multiplier]]
    ranked: tuple[str, ...]
    leads: dict[tuple[str, str], Estimate]
    cheapest: tuple[str, str] | None
    beginning: Beginning | None
    agreement: Agreement


def analyse_race(
    runs: Mapping[str, Sequence[Course]], quantities: Sequence[str], steps: int, published: Sequence[str]
) -> Race:
    """Compares models trained alike, as far as they are trained.

    Args:
        runs: name -> its runs, one a seed.
        quantities: those of `Course.final` that are averaged.
        steps: of a whole run.
        published: names from the highest final loss to the lowest, in the paper.
    """
    order = dict.fromkeys([*(name for name in published if name in runs), *runs])
    entrants = {}
    for name in order:
        ends = [run.final for run in runs[name] if run.final]
        values = {q: [end[q] for end in ends if math.isfinite(end[q])] for q in quantities}
        final = {q: over_seeds(numbers) for q, numbers in values.items() if numbers}
        entrants[name] = Entrant(name, tuple(runs[name]), final)
    complete = {name: one.complete for name, one in entrants.items() if one.complete}
    tables = {}
    for budget, x in BUDGETS.items():
        curve = lambda run, x=x: ([p[x] for p in run.points], [p["loss"] for p in run.points])  # noqa: E731
        tables[budget] = multipliers({name: {run.seed: curve(run) for run in of} for name, of in complete.items()})
    losses = {name: one.final["loss"].value for name, one in entrants.items() if one.final}
    ranked = tuple(sorted(losses, key=losses.__getitem__))
    return Race(
        entrants=entrants,
        multipliers=tables,
        ranked=ranked,
        leads=leads({name: {run.seed: run.final["loss"] for run in of} for name, of in complete.items()}, ranked),
        cheapest=cheapest(ranked, tables["flops"]),
        beginning=beginning(
            {n: [{p["step"]: p["loss"] for p in run.points} for run in one.runs] for n, one in entrants.items()}, steps
        ),
        agreement=agreement(losses, {name: float(len(published) - i) for i, name in enumerate(published)}),
    )
