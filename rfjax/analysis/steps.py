"""The change of loss from each rung of a ladder to the next: paired by triples, over seeds."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rfjax.analysis.ladder import Ladder, Measured
from rfjax.analysis.seeds import Change, Spread, change

NOT_KNOWN = "one seed: not known"


@dataclass(frozen=True)
class Step:
    """The change of loss from one rung to the next; note: why examples are not paired, or ""."""

    smaller: str
    larger: str
    change: Change
    note: str

    @property
    def falls(self) -> str:
        """Whether the loss falls, in a word or two; seeds are the unit, so one seed says nothing."""
        if self.change.seed_error is None:
            return NOT_KNOWN
        if self.change.low is None:
            return "not known"
        return "not clearly" if self.change.falls is None else "yes" if self.change.falls else "no, it rises"


def why_unpaired(runs: Sequence[Measured]) -> str:
    """Why the losses of single triples of these runs can't be set side by side; "" where they can."""
    triples = [run.triples for run in runs if run.triples is not None]
    if len(triples) < len(runs):
        return "the losses of single triples are not recorded"
    if len(set(map(len, triples))) > 1:
        return "the runs were validated with different numbers of triples"
    if len({run.grid for run in runs}) > 1:
        return "the runs were validated on different grids of t"
    return "" if all(np.isfinite(losses).all() for losses in triples) else "the loss of a triple is not finite"


def paired_steps(ladder: Ladder) -> tuple[Step, ...]:
    """The change of loss between neighbours of the trend: example errors on the same triples, and seeds."""
    steps = []
    for small, large in itertools.pairwise(ladder.rungs):
        note, difference, levels = why_unpaired((*small.runs, *large.runs)), None, 1
        if not note:
            means = [np.mean([run.triples for run in rung.runs], axis=0) for rung in (large, small)]
            difference, levels = means[0] - means[1], len(large.runs[0].levels)
        found = change(small.losses, large.losses, difference, levels, ladder.spread, sizes=(small.x, large.x))
        steps.append(Step(small.name, large.name, found, note))
    return tuple(steps)


def step_warnings(steps: Iterable[Step], spread: Spread | None) -> list[str]:
    """Sentences on rungs that are not lower than the one before, as far as seeds can tell."""
    steps = list(steps)
    said = [f"{s.smaller} and {s.larger} are not compared triple by triple: {s.note}." for s in steps if s.note]
    if steps and spread is None:
        said.append(
            "One seed a rung: how much another seed would change a loss is not known, so neither is whether the loss "
            "falls from one rung to the next. The errors over examples do not say it. Add seeds: "
            "config.study.axes.training.seed."
        )
        return said
    for step in steps:
        found = step.change
        where = f"{found.value:+.4f}"
        if found.low is not None:
            where += f", 95 % over seeds and examples {found.low:+.4f} to {found.high:+.4f}"
        if found.falls is False:
            said.append(
                f"{step.larger} is worse than {step.smaller} ({where}): it is under-trained, or its learning rate does "
                "not suit it."
            )
        elif found.falls is None:
            said.append(f"{step.larger} is not clearly better than {step.smaller} ({where}).")
    return said
