"""Does the validation loss tell how good the samples are? Loss against score and distance (SD3 Fig. 8, lower row)."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from rfjax import analysis
from rfjax.study.records import Rung

QUANTITIES = {"score": "score (higher is better)", "frechet": "Fréchet distance (lower is better)"}


@dataclass(frozen=True)
class Pair:
    """A checkpoint: its validation loss, and what its samples are worth in one setting of the sampler."""

    run: str
    step: int
    setting: str
    sampling_steps: int
    loss: float
    score: float
    frechet: float


@dataclass(frozen=True)
class Relation:
    """The correlations of the loss with one quantity in one setting; empty, and a reason, where points are too few."""

    setting: str
    quantity: str
    runs: int
    correlations: tuple[analysis.Correlation, ...]
    reason: str


def pairs(rungs: Iterable[Rung], weights: str) -> tuple[Pair, ...]:
    """Every checkpoint with both a validation loss and scores under these weights."""
    found = []
    for rung in rungs:
        losses = {line["step"]: line["loss"] for line in rung.curve(weights)}
        for line in rung.scores:
            if line["weights"] == weights and line["step"] in losses:
                values = [math.nan if line.get(name) is None else line[name] for name in QUANTITIES]
                where = (rung.name, line["step"], line["setting"], int(line["steps"]))
                found.append(Pair(*where, losses[line["step"]], *values))
    return tuple(sorted(found, key=lambda pair: (-pair.sampling_steps, pair.setting, pair.run, pair.step)))


def main_setting(found: Iterable[Pair]) -> str:
    """The setting with the most checkpoints; of several, the one with the most steps."""
    count: dict[tuple[int, str], int] = {}
    for pair in found:
        count[pair.sampling_steps, pair.setting] = count.get((pair.sampling_steps, pair.setting), 0) + 1
    return max(count, key=lambda key: (count[key], key))[1] if count else ""


def relations(found: tuple[Pair, ...]) -> tuple[Relation, ...]:
    """Pearson's and Spearman's correlation for each setting and quantity; checkpoints of one run are no new runs."""
    made = []
    for setting in dict.fromkeys(pair.setting for pair in found):
        for quantity in QUANTITIES:
            points = [p for p in found if p.setting == setting and math.isfinite(getattr(p, quantity))]
            x, y = [p.loss for p in points], [getattr(p, quantity) for p in points]
            groups = [p.run for p in points]
            try:
                both = (analysis.pearson(x, y, groups=groups), analysis.spearman(x, y, groups=groups))
                made.append(Relation(setting, quantity, len(set(groups)), both, ""))
            except analysis.TooFewPoints as error:
                made.append(Relation(setting, quantity, len(set(groups)), (), str(error)))
    return tuple(made)
