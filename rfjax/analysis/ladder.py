"""From runs to the points of a trend: seeds are averaged, settings chosen, and whatever is left out is named."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from rfjax.analysis.seeds import UNEVEN, Spread, pooled_spread

SEED = re.compile(r"-seed\d+|^seed\d+-?")  # in the name of a run, as rfjax.config writes it


@dataclass(frozen=True)
class Measured:
    """What a finished run of a ladder measured; its losses are of validation, means over levels of t.

    Attributes:
        x: its size; None where it is not known.
        setting: runs that share it are seeds of one model.
        seen: examples that it was trained on.
        stderr: of the loss, over examples; None where it is not known.
        floors: the known floor of each level, expected; None as a whole where none was recorded.
        floors_drawn: the same for the noise that was drawn.
        triples: the loss of each validation triple; None where it was not recorded.
        data: the data set, in words."""

    name: str
    x: float | None
    setting: str
    seen: int
    loss: float
    stderr: float | None
    grid: str
    levels: tuple[float, ...]
    floors: tuple[float | None, ...] | None
    floors_drawn: tuple[float | None, ...] | None
    triples: Float[np.ndarray, " n"] | None
    data: str = ""

    @property
    def measure(self) -> tuple[str, str]:
        """What its loss is a loss of, in words: losses of another grid of t, or on other data, don't compare."""
        return f"the grid {self.grid} of {len(self.levels)} levels", self.data


@dataclass(frozen=True)
class Lost:
    """A run that has ended and yet is no part of the law: its size, where it is known, its setting, and why."""

    name: str
    x: float | None
    setting: str
    reason: str


@dataclass(frozen=True)
class Rung:
    """A rung of the trend: runs of one size and one setting that differ by their seed alone.

    Attributes:
        x: the size.
        stderr: of the mean loss over examples; None where it is not known.
        error: of the mean loss over seeds, by the spread pooled over the study; None where no rung has two seeds."""

    name: str
    x: float
    losses: tuple[float, ...]
    stderr: float | None
    runs: tuple[Measured, ...]
    error: float | None = None

    @property
    def loss(self) -> float:
        return float(np.mean(self.losses))

    @property
    def seeds(self) -> int:
        return len(self.losses)


@dataclass(frozen=True)
class Ladder:
    """The rungs by size, the runs that are no part of them, the spread between seeds, and sentences on all that."""

    rungs: tuple[Rung, ...]
    lost: tuple[Lost, ...]
    spread: Spread | None
    warnings: tuple[str, ...]

    @property
    def fitted(self) -> dict[str, Any]:
        """Arguments of a fit: x, y (NaN for a lost run, so that the fit lists it), errors over seeds, labels."""
        sized = [one for one in self.lost if one.x]
        stderr = [rung.error or 0.0 for rung in self.rungs] + [math.nan] * len(sized)
        seeded = self.spread is not None and self.spread.relative > 0
        return {
            "x": [one.x for one in (*self.rungs, *sized)],
            "y": [rung.loss for rung in self.rungs] + [math.nan] * len(sized),
            "y_stderr": stderr if seeded else None,
            "least_scatter": seeded,
            "stderr_freedom": self.spread.degrees_of_freedom if seeded else None,
            "labels": [one.name for one in (*self.rungs, *sized)],
        }

    @property
    def examples_seen(self) -> str:
        """The D of the rungs in words, "D = 9,216 examples", or a range."""
        seen = sorted({run.seen for rung in self.rungs for run in rung.runs})
        if not seen:
            return "no examples"
        return f"D = {seen[0]:,} examples" if len(seen) == 1 else f"D = {seen[0]:,} to {seen[-1]:,} examples"

    @property
    def on_seeds(self) -> str:
        """Where the errors over seeds come from, in a sentence or two."""
        if self.spread is None:
            return (
                "Every rung has one seed, so how much of a change is luck is not known. Errors are over examples alone."
            )
        several = [f"{rung.name} ({rung.seeds})" for rung in self.rungs if rung.seeds > 1]
        smallest, largest = (100 * self.spread.at(rung.x) for rung in (self.rungs[0], self.rungs[-1]))
        course = "and taken to be equal at all sizes"
        if self.spread.trend:
            course = (
                f"as a power of size ({smallest:.2g} % at {self.rungs[0].name}, {largest:.2g} % at "
                f"{self.rungs[-1].name}), which it is not taken to go below beyond the rungs with several seeds"
            )
        how = f"{100 * self.spread.relative:.2g} %" if not self.spread.trend else f"{smallest:.2g} to {largest:.2g} %"
        return (
            f"One run's loss varies by {how} with the seed: pooled over {', '.join(several)}, with "
            f"{self.spread.degrees_of_freedom} degrees of freedom, {course}. Intervals: Student's t over both errors "
            "(Satterthwaite)."
        )


def build_ladder(runs: Sequence[Measured], lost: Sequence[Lost]) -> Ladder:
    """Makes the ladder of a study from its finished runs and from those that left no loss.

    Of runs whose losses don't compare, being of different grids of t or data sets, those stay that have most sizes.
    """
    runs, apart = _of_one_measure(runs)
    lost = (*lost, *apart)
    said = [f"{one.name} is no part of the law: {one.reason}." for one in lost]
    sized = [run for run in runs if run.x]
    sizes = {run.x for run in sized}
    if (gone := [one for one in lost if one.x and one.x > max(sizes, default=0)]) and sizes:
        said.append(f"The law lacks its largest rung ({', '.join(one.name for one in gone)}): the next is held out.")
    different: dict[tuple[Any, ...], Measured] = {}
    for run in sized:
        first = different.setdefault((run.x, run.loss, *run.levels), run)
        if first is not run:
            said.append(
                f"{run.name} and {first.name} end with the same bits: what they differ in changes nothing, and they "
                "count as one run."
            )
    chosen = _by_setting(different.values(), said)
    seeded = [rung for found in chosen.values() for rung in found if min(rung.losses) > 0]
    spread = pooled_spread([rung.losses for rung in seeded], [rung.x for rung in seeded])
    rungs = []
    for size in sorted(chosen):
        best = chosen[size][0]
        error = None if spread is None else spread.stderr(best.loss, best.seeds, size)
        rungs.append(Rung(best.name, size, best.losses, best.stderr, best.runs, error))
        missing = [one.name for one in lost if one.setting == best.runs[0].setting]
        if missing:
            said.append(
                f"{best.name} rests on {best.seeds} of {best.seeds + len(missing)} seeds: {', '.join(missing)} left no "
                "loss, and those that stay may be the lucky ones."
            )
    return Ladder(tuple(rungs), tuple(lost), spread, (*said, *_on_spread(spread)))


def _of_one_measure(runs: Sequence[Measured]) -> tuple[list[Measured], list[Lost]]:
    """The runs of the grid and data set with most sizes, of equals the first, and the others."""
    sizes: dict[tuple[str, str], set[float | None]] = {}
    for run in runs:
        sizes.setdefault(run.measure, set()).add(run.x)
    if len(sizes) < 2:
        return list(runs), []
    chosen = max(sizes, key=lambda measure: len(sizes[measure]))
    apart: list[Lost] = []
    for run in runs:
        pairs = [pair for pair in zip(run.measure, chosen, strict=True) if pair[0] != pair[1]]
        differs = " and ".join(f"{own}, those of the law {other}" for own, other in pairs)
        reason = (
            f"the runs were validated on different grids of t or data sets, and no law joins them: this on {differs}"
        )
        apart += [Lost(run.name, None, run.setting, reason)] if pairs else []
    return [run for run in runs if run.measure == chosen], apart


def _by_setting(runs: Iterable[Measured], said: list[str]) -> dict[float, list[Rung]]:
    """Size -> a rung for each setting, the lowest loss first."""
    groups: dict[tuple[float, str], list[Measured]] = {}
    for run in runs:
        groups.setdefault((run.x, run.setting), []).append(run)
    chosen: dict[float, list[Rung]] = {}
    repeated = any(len(members) > 1 for members in groups.values())
    for (size, _), members in groups.items():
        errors = [run.stderr for run in members]
        stderr = None if None in errors else float(np.mean(errors))
        losses = tuple(run.loss for run in members)
        name = SEED.sub("", members[0].name) if repeated else members[0].name
        chosen.setdefault(size, []).append(Rung(name or members[0].name, size, losses, stderr, tuple(members)))
    for rungs in chosen.values():
        rungs.sort(key=lambda rung: rung.loss)
    several = {rungs[0].name: len(rungs) for rungs in chosen.values() if len(rungs) > 1}
    if several:
        best = ", ".join(f"{name} (of {count})" for name, count in several.items())
        said.append(
            f"Of several settings of one size the law takes that of the lowest loss: {best}. The lowest of several is "
            "partly luck, so these losses are a little low."
        )
    return chosen


def _on_spread(spread: Spread | None) -> list[str]:
    """That the spread between seeds changes with size, where it clearly does."""
    if spread is None or spread.trend is None or spread.trend.p >= UNEVEN:
        return []
    trend, grows = spread.trend, spread.trend.slope > 0
    return [
        f"The relative spread between seeds {'grows' if grows else 'shrinks'} with size, as x^({trend.slope:.2f} ± "
        f"{trend.stderr:.2f}) (p = {trend.p:.2g}): the intervals take it so."
    ]
