"""From runs to the points of a trend: seeds are averaged, settings chosen, and whatever is left out is named."""

import itertools
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from rfjax import analysis
from rfjax.study.records import RunRecord

SEED = re.compile(r"-seed\d+|^seed\d+-?")  # in the name of a run, as rfjax.config writes it
UNEVEN = 0.05  # the spread between seeds is said to change with size below this p


@dataclass(frozen=True)
class Point:
    """A rung of the trend: runs of one size and one setting that differ by their seed alone.

    Attributes:
        name: of the run, without its seed where several are averaged. x: the size. losses: of each run, validation.
        stderr: of the mean loss over examples; None where it is not known. runs: in the order of losses.
        error: of the mean loss over seeds, by the spread pooled over the study; None where no rung has two seeds.
    """

    name: str
    x: float
    losses: tuple[float, ...]
    stderr: float | None
    runs: tuple[RunRecord, ...]
    error: float | None = None

    @property
    def loss(self) -> float:
        return float(np.mean(self.losses))

    @property
    def seeds(self) -> int:
        return len(self.losses)


@dataclass(frozen=True)
class Lost:
    """A run that has ended and yet is no part of the law: its name, its size where it is known, and why."""

    name: str
    x: float | None
    reason: str


@dataclass(frozen=True)
class Step:
    """The change of loss from one rung to the next; note: why examples are not paired, or ""."""

    smaller: str
    larger: str
    change: analysis.Change
    note: str


@dataclass(frozen=True)
class Ladder:
    """The points by size, the runs that are no part of them, the spread between seeds, and sentences on all that."""

    points: tuple[Point, ...]
    lost: tuple[Lost, ...]
    spread: analysis.Spread | None
    said: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Of what a fit is given: the points, then the lost runs whose size is known."""
        return [point.name for point in self.points] + [one.name for one in self._sized]

    @property
    def fitted(self) -> dict[str, Any]:
        """Arguments of a fit: x, y (NaN for a lost run, so that the fit lists it), errors over seeds, labels."""
        sized = self._sized
        y = [point.loss for point in self.points] + [math.nan] * len(sized)
        stderr = [point.error or 0.0 for point in self.points] + [math.nan] * len(sized)
        seeded = self.spread is not None and self.spread.relative > 0
        return {
            "x": [point.x for point in self.points] + [one.x for one in sized],
            "y": y,
            "y_stderr": stderr if seeded else None,
            "least_scatter": seeded,
            "labels": self.names,
        }

    @property
    def _sized(self) -> list[Lost]:
        return [one for one in self.lost if one.x]


def build(rungs: Sequence[RunRecord], x: str, weights: str) -> Ladder:
    """Makes the ladder of a study.

    Args:
        rungs: all of them. x: "parameters" or "train_flops". weights: whose validation loss, "ema" or "raw".
    """
    lost = tuple(
        Lost(rung.name, size_of(rung, x), reason) for rung in rungs if (reason := why_lost(rung, weights)) is not None
    )
    said = [f"{one.name} is no part of the law: {one.reason}." for one in lost]
    sizes = {size for rung in rungs if rung.final(weights) and (size := size_of(rung, x))}
    if (gone := [one for one in lost if one.x and one.x > max(sizes, default=0)]) and sizes:
        said.append(f"The law lacks its largest rung ({', '.join(one.name for one in gone)}): the next is held out.")
    done = _without_twins([rung for rung in rungs if usable(rung, weights) and size_of(rung, x)], x, weights, said)
    chosen = _chosen(done, x, weights, said)
    spread = analysis.pooled_spread(
        [point.losses for groups in chosen.values() for point in groups if min(point.losses) > 0]
    )
    points = []
    for size in sorted(chosen):
        best = chosen[size][0]
        error = None if spread is None else spread.stderr(best.loss, best.seeds)
        points.append(Point(best.name, size, best.losses, best.stderr, best.runs, error))
        missing = _missing_seeds(best, lost, rungs)
        if missing:
            said.append(
                f"{best.name} rests on {best.seeds} of {best.seeds + len(missing)} seeds: {', '.join(missing)} left no "
                "loss, and those that stay may be the lucky ones."
            )
    if len(grids := {rung.final(weights)["grid"] for point in points for rung in point.runs}) > 1:
        said.append(
            f"The rungs were validated on different grids of t ({', '.join(sorted(grids))}): no law joins them."
        )
    return Ladder(tuple(points), lost, spread, (*said, *_on_spread(points)))


def finite(value: Any) -> bool:
    """Whether a value of a line is a number, and finite."""
    return isinstance(value, int | float) and math.isfinite(value)


def usable(rung: RunRecord, weights: str) -> bool:
    """Whether a run has ended with a finite validation loss."""
    final = rung.final(weights)
    return final is not None and finite(final["loss"])


def why_lost(rung: RunRecord, weights: str) -> str | None:
    """Why a run that has ended has no loss that counts; None where it has one, or has not ended."""
    if usable(rung, weights):
        return None
    last = [line for line in rung.validation if line["step"] == rung.steps]
    bad = [line["weights"] for line in last if not finite(line["loss"])]
    if bad:
        return f"the validation loss of its {' and '.join(dict.fromkeys(bad))} weights is not finite"
    if last or rung.state == "complete":
        return f"it has no validation loss of its {weights} weights at its last step"
    return None


def size_of(rung: RunRecord, x: str) -> float | None:
    """A rung's place on the law's axis: its parameters, or the FLOPs of its whole training."""
    if x == "parameters":
        return float(rung.size["parameters"])
    flops = [line["flops"] for line in (*rung.validation, *rung.train) if line["step"] == rung.steps]
    return float(flops[0]) if flops else None


def setting(rung: RunRecord) -> str:
    """All of a run's config but its seed: runs that share it are seeds of one model."""
    config = {name: value for name, value in rung.config.items() if name not in ("workdir", "only", "job")}
    training = {name: value for name, value in config.get("training", {}).items() if name != "seed"}
    return json.dumps({**config, "training": training}, sort_keys=True, default=str)


def why_unpaired(runs: Iterable[RunRecord], weights: str) -> str:
    """Why the losses of single triples of these runs can't be set side by side; "" where they can.

    Every comparison of runs by their triples asks here first.
    """
    runs = list(runs)
    found = [rung.examples.get(weights) for rung in runs]
    if any(losses is None for losses in found):
        return "the losses of single triples are not recorded"
    if len({len(losses) for losses in found if losses is not None}) > 1:
        return "the runs were validated with different numbers of triples"
    if len({(rung.final(weights) or {}).get("grid") for rung in runs}) > 1:
        return "the runs were validated on different grids of t"
    if not all(np.isfinite(losses).all() for losses in found if losses is not None):
        return "the loss of a triple is not finite"
    return ""


def paired_steps(points: Sequence[Point], weights: str, spread: analysis.Spread | None) -> tuple[Step, ...]:
    """The change of loss between neighbours of the trend: example errors on the same triples, and seeds."""
    steps = []
    for small, large in itertools.pairwise(points):
        note, difference, levels = why_unpaired((*small.runs, *large.runs), weights), None, 1
        if not note:
            difference = _mean_examples(large, weights) - _mean_examples(small, weights)
            levels = len(large.runs[0].final(weights)["levels"])
        found = analysis.change(small.losses, large.losses, difference, levels, spread)
        steps.append(Step(small.name, large.name, found, note))
    return tuple(steps)


def _mean_examples(point: Point, weights: str) -> Float[np.ndarray, " n"]:
    return np.mean([rung.examples[weights] for rung in point.runs], axis=0)


def _without_twins(rungs: list[RunRecord], x: str, weights: str, said: list[str]) -> list[RunRecord]:
    """One of each set of runs of a size whose losses agree to the bit at every level."""
    kept: dict[tuple[Any, ...], RunRecord] = {}
    for rung in rungs:
        final = rung.final(weights)
        first = kept.setdefault((size_of(rung, x), final["loss"], *final["levels"]), rung)
        if first is not rung:
            said.append(
                f"{rung.name} and {first.name} end with the same bits: what they differ in changes nothing, and they "
                "count as one run."
            )
    return list(kept.values())


def _chosen(rungs: list[RunRecord], x: str, weights: str, said: list[str]) -> dict[float, list[Point]]:
    """Size -> a point for each setting, the lowest loss first."""
    groups: dict[tuple[float, str], list[RunRecord]] = {}
    for rung in rungs:
        groups.setdefault((size_of(rung, x), setting(rung)), []).append(rung)
    chosen: dict[float, list[Point]] = {}
    for (size, _), members in groups.items():
        finals = [rung.final(weights) for rung in members]
        errors = [final["stderr"] for final in finals]
        stderr = float(np.mean(errors)) if all(map(finite, errors)) else None
        losses = tuple(float(final["loss"]) for final in finals)
        name = SEED.sub("", members[0].name) if len(members) > 1 else members[0].name
        chosen.setdefault(size, []).append(Point(name or members[0].name, size, losses, stderr, tuple(members)))
    for points in chosen.values():
        points.sort(key=lambda point: point.loss)
    several = {points[0].name: len(points) for points in chosen.values() if len(points) > 1}
    if several:
        best = ", ".join(f"{name} (of {count})" for name, count in several.items())
        said.append(
            f"Of several settings of one size the law takes that of the lowest loss: {best}. The lowest of several is "
            "partly luck, so these losses are a little low."
        )
    return chosen


def _missing_seeds(point: Point, lost: Sequence[Lost], rungs: Sequence[RunRecord]) -> list[str]:
    own, names = setting(point.runs[0]), {one.name for one in lost}
    return [rung.name for rung in rungs if rung.name in names and setting(rung) == own]


def _on_spread(points: Sequence[Point]) -> list[str]:
    """Whether the spread between seeds changes with size, which intervals suppose that it does not."""
    seeded = [point for point in points if point.seeds > 1 and min(point.losses) > 0]
    trend = analysis.noise_trend([point.x for point in seeded], [point.losses for point in seeded])
    if trend is None or trend.p >= UNEVEN:
        return []
    grows = trend.slope > 0
    return [
        f"The relative spread between seeds {'grows' if grows else 'shrinks'} with size, as x^({trend.slope:.2f} ± "
        f"{trend.stderr:.2f}) (p = {trend.p:.2g}): intervals, which suppose equal noise, are too "
        f"{'narrow' if grows else 'wide'} for large models."
    ]
