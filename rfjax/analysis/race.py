"""Models trained alike: where each ends, how much compute each needs for the same loss, who leads early."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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

Label = Callable[[str], str]

BUDGETS = {"flops": "flops", "steps": "step"}  # what multipliers are of -> column of the points


@dataclass(frozen=True)
class Course:
    """One run along its training.

    Attributes:
        points: its checkpoints in order of the steps: "step", "flops", "loss" and so on -> value, NaN where not known.
        final: quantity -> value at the end; empty unless the run is complete."""

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
        cheapest: the name that needs fewer FLOPs than each other that it compares with, and the nearest of those."""

    entrants: dict[str, Entrant]
    multipliers: dict[str, dict[tuple[str, str], Multiplier]]
    ranked: tuple[str, ...]
    leads: dict[tuple[str, str], Estimate]
    cheapest: tuple[str, str] | None
    beginning: Beginning | None
    agreement: Agreement

    def record(self) -> dict[str, Any]:
        plain = lambda estimate: estimate and estimate._asdict()  # noqa: E731
        return {
            "entrants": [
                {"name": name, "seeds": [run.seed for run in one.complete],
                 "final": {q: plain(estimate) for q, estimate in one.final.items()}}
                for name, one in self.entrants.items()
            ],
            "multipliers": [
                {"of": x, "row": row, "column": column, "at_end": plain(m.at_end), "overall": plain(m.overall),
                 "seeds": m.seeds, "losses": m.losses, "logs": m.logs, "note": m.note}
                for x, table in self.multipliers.items()
                for (row, column), m in table.items()
            ],
            "ranked": self.ranked,
            "leads": [{"better": a, "worse": b, **plain(lead)} for (a, b), lead in self.leads.items()],
            "cheapest": self.cheapest,
            "beginning": plain(self.beginning),
            "places": {name: {"ours": ours, "paper": theirs} for name, (ours, theirs) in self.agreement.places.items()},
            "agreement": {name: vars(c) for name, c in self.agreement.correlations.items()},
            "orders_agreeing_as_well": self.agreement.orders_as_good,
        }  # fmt: skip


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


def describe_race(race: Race, label: Label, published: Sequence[str], favourite: str) -> list[str]:
    """Who ends lowest, who needs least compute, who leads early, and how that compares with the paper, in sentences.

    Args:
        race: the comparison.
        label: name -> what the sentences call it.
        published: names from the highest final loss to the lowest, in the paper.
        favourite: the name that learns fastest at first, in the paper.
    """
    if not race.ranked:
        return ["No backbone has a complete run with a validation loss yet: there is nothing to compare."]
    said = [*_lowest(race, label), *_least_compute(race, label), *_early(race, label, favourite)]
    return [*said, *_against_the_paper(race, label, published)]


def _lowest(race: Race, label: Label) -> list[str]:
    best = race.entrants[race.ranked[0]]
    loss, seeds = best.final["loss"].text(".4f", "95 % interval "), len(best.complete)
    said = f"{label(best.name)} ends with the lowest validation loss, {loss}"
    said += f" over {seeds} seeds" if seeds > 1 else " (one seed)"
    if len(race.ranked) == 1:
        return [f"{said}; no other backbone has a complete run."]
    second = race.ranked[1]
    lead = race.leads.get((best.name, second))
    if lead is None:
        return [f"{said}, before {label(second)}, which has no seed in common with it."]
    clear = "" if lead.low is None else ", clearly" if lead.low > 0 else ", not clearly"
    return [f"{said}{clear} before {label(second)}: {lead.text('.4f')} lower."]


def _least_compute(race: Race, label: Label) -> list[str]:
    """In FLOPs: the leader against the nearest and against the farthest."""
    if race.cheapest is None:
        return []
    name, nearest = race.cheapest
    ours = {other: m.at_end for (row, other), m in race.multipliers["flops"].items() if row == name and m.at_end}
    farthest = max(ours, key=lambda other: ours[other].value)
    times = lambda e: f"{e.value:.2f} times" + ("" if e.low is None else f" ({e.low:.2f} to {e.high:.2f})")  # noqa: E731
    low = ours[nearest].low
    clear = "" if low is None else " clearly" if low > 1 else ", though not clearly,"
    said = f"For the same loss {label(name)}{clear} needs the fewest FLOPs: "
    said += ", ".join(f"{times(ours[other])} fewer than {label(other)}" for other in dict.fromkeys((nearest, farthest)))
    apart = len(race.ranked) - 1 - len(ours)
    return [f"{said}{f' ({apart} more without a common loss)' if apart else ''}."]


def _early(race: Race, label: Label, favourite: str) -> list[str]:
    """The lowest at the first quarter of the steps."""
    found = race.beginning
    if found is None or len(found.losses) < 2:
        return []
    order = list(found.losses)
    first, second = order[:2]
    paper_says = f"in the paper {label(favourite)} learns fastest at first"
    if favourite in order and first != favourite:
        paper_says += f"; here it has place {order.index(favourite) + 1} of {len(order)}"
    return [
        f"Early, at step {found.step:,} of {found.steps:,}, {label(first)} leads: {found.losses[first]:.4f}, before "
        f"{label(second)}, {found.losses[second]:.4f} ({paper_says})."
    ]


def _against_the_paper(race: Race, label: Label, published: Sequence[str]) -> list[str]:
    """The two orders, and how little as few ranks say."""
    agreement = race.agreement
    both = [name for name in reversed(race.ranked) if name in agreement.places]
    if not both:
        return []
    ours, theirs = (" > ".join(map(label, names)) for names in (both, [name for name in published if name in both]))
    order = f"From the highest final loss to the lowest: {ours}; in the paper: {theirs}."
    if agreement.orders_as_good is None:
        return [order, agreement.reason]
    good, whole = agreement.orders_as_good
    return [
        f"{order} {agreement.text}.",
        f"{len(both)} ranks say little: of their {whole} orders {good} {'agrees' if good == 1 else 'agree'} with the "
        f"paper's at least as well, so chance alone does so {good / whole:.1%} of the time.",
    ]
