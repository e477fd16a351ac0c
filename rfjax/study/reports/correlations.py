"""Does the validation loss tell how good the samples are? Loss against score and distance (SD3 Fig. 8, lower row)."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rfjax import analysis
from rfjax.study.records import RunRecord
from rfjax.study.reports.measures import number

QUANTITIES = {"score": "score (higher is better)", "frechet": "Fréchet distance (lower is better)"}


@dataclass(frozen=True)
class Pair:
    """A checkpoint: its validation loss, and what its samples are worth in one setting; NaN for what is not known.

    Attributes:
        stderr, frechet_stderr: of score and frechet, over pictures. floor: the distance of as many true pictures.
        count: of pictures.
    """

    run: str
    step: int
    setting: str
    sampling_steps: int
    loss: float
    score: float
    frechet: float
    stderr: float = math.nan
    frechet_stderr: float = math.nan
    floor: float = math.nan
    count: int = 0


@dataclass(frozen=True)
class Relation:
    """The correlations of the loss with one quantity in one setting.

    They are empty, and `reason` says why, where points are too few or the quantity tells no checkpoints apart.
    """

    setting: str
    quantity: str
    runs: int
    correlations: tuple[analysis.Correlation, ...]
    reason: str


def pairs(rungs: Iterable[RunRecord], weights: str) -> tuple[Pair, ...]:
    """Every checkpoint with both a validation loss and scores under these weights."""
    found = []
    for rung in rungs:
        losses = {line["step"]: line["loss"] for line in rung.curve(weights)}
        for line in rung.scores:
            if line["weights"] == weights and line["step"] in losses:
                names = (*QUANTITIES, "stderr", "frechet_stderr", "frechet_floor")
                where = (rung.name, line["step"], line["setting"], int(line["steps"]))
                values = [number(line, name) for name in names]
                found.append(Pair(*where, losses[line["step"]], *values, int(line.get("count") or 0)))
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
            there = [p for p in found if p.setting == setting]
            points = [p for p in there if math.isfinite(getattr(p, quantity))]
            x, y = [p.loss for p in points], [getattr(p, quantity) for p in points]
            groups = [p.run for p in points]
            if reason := floor_of(points, quantity):
                said = f"Not printed, for it tells no checkpoints apart: {reason}."
                made.append(Relation(setting, quantity, len(set(groups)), (), said))
                continue
            try:
                both = (analysis.pearson(x, y, groups=groups), analysis.spearman(x, y, groups=groups))
                if out := [f"{p.run} at step {p.step}" for p in there if p not in points]:
                    shown = ", ".join(out[:3]) + (f" and {len(out) - 3} more" if len(out) > 3 else "")
                    note = f"At {setting} without a finite {quantity}, and left out: {shown}. {both[0].note}".strip()
                    both = (dataclasses.replace(both[0], note=note), both[1])
                made.append(Relation(setting, quantity, len(set(groups)), both, ""))
            except analysis.TooFewPoints as error:
                made.append(Relation(setting, quantity, len(set(groups)), (), str(error)))
    return tuple(made)


def floor_of(points: Sequence[Pair], quantity: str) -> str:
    """Why a quantity says nothing of these checkpoints: `analysis.floored`, or all are as near as true pictures."""
    values = [getattr(p, quantity) for p in points]
    if quantity == "score":
        return analysis.floored(values, [p.stderr for p in points], [p.count for p in points])
    if points and all(p.frechet <= p.floor + 2 * p.frechet_stderr for p in points):
        return f"no checkpoint is farther than as many true pictures, {points[0].floor:.3g}, within two standard errors"
    return analysis.floored(values, [p.frechet_stderr for p in points])
