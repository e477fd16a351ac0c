"""How many times less compute one model needs than another for the same loss, from curves along their training.

A curve is (x, loss): steps or FLOPs, and the loss there, of one seed. It is read as its running minimum, with straight
lines in (log x, log loss) between the measurements: a power law L = A x^-a is such a line, and L = E + A x^-a is nearer
to one than it would be in the loss itself. Neither the unit of x nor that of the loss matters.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from rfjax.analysis.fit import LEVEL

Curve = tuple[ArrayLike, ArrayLike]
Array = NDArray[np.float64]

QUARTER = 4  # who learns fastest is read where this part of the steps is over


class Estimate(NamedTuple):
    """A mean and its interval; no interval where there is one value only."""

    value: float
    low: float | None
    high: float | None

    def text(self, form: str, named: str = "") -> str:
        """The mean with its interval in brackets, where it has one; named: what stands before the interval."""
        value = format(self.value, form)
        return value if self.low is None else f"{value} ({named}{format(self.low, form)} to {format(self.high, form)})"


@dataclass(frozen=True)
class Multiplier:
    """How many times less x the second model needs than the first: above 1 the second is better.

    Attributes:
        at_end: at the loss that the slower of the two reaches at its end; None where no seed has a common loss.
        overall: averaged over all losses that both curves pass (evenly in log loss); None likewise.
        losses: for each of the seeds, the loss at which `at_end` compares.
        logs: for each of the seeds, log(x of the first / x of the second) at that loss.
        note: why there is no number or no interval, or which seeds were left out; or "".
    """

    at_end: Estimate | None
    overall: Estimate | None
    seeds: tuple[Hashable, ...]
    losses: tuple[float, ...]
    logs: tuple[float, ...]
    note: str


class _Falls(NamedTuple):
    """The running minimum: log x and log loss at each measurement."""

    x: Array
    loss: Array

    def reached(self, level: ArrayLike) -> Array:
        """log x at which the running minimum first is at `level` (log loss), which has to be in its range."""
        level = np.asarray(level, float)
        i = np.searchsorted(-self.loss, -level)  # the first measurement at or below the level
        before = np.maximum(i - 1, 0)
        fall = self.loss[before] - self.loss[i]
        share = np.where(fall > 0, (self.loss[before] - level) / np.where(fall > 0, fall, 1.0), 1.0)
        return np.where(share == 1, self.x[i], self.x[before] + share * (self.x[i] - self.x[before]))


def multiplier(
    curves_a: Mapping[Hashable, Curve], curves_b: Mapping[Hashable, Curve], confidence: float = LEVEL
) -> Multiplier:
    """The compute multiplier of model B over model A: x_a / x_b at the same loss, above 1 where B is better.

    For each seed of both: the loss is the larger of the two lowest losses, and x_a and x_b are where each first reaches
    it. Over seeds: the mean and the Student t interval of log(x_a / x_b), given back as ratios. A seed without a loss
    in common (one starts below the other's end) is left out, which draws the rest towards 1: `note` says so.

    Args:
        curves_a: seed -> (x of shape (n,), increasing and positive; loss of shape (n,), positive).
        curves_b: likewise; seeds that only one of them has are not used.
        confidence: of the intervals.

    Raises:
        ValueError: for a curve that is empty or not increasing, and for values that are not positive and finite.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is a share between 0 and 1, not {confidence}.")
    paired = [seed for seed in curves_a if seed in curves_b]
    if not paired:
        return Multiplier(None, None, (), (), (), "no seed in common")
    seeds, losses, logs, wholes = [], [], [], []
    for seed in paired:
        a, b = _falls(curves_a[seed], f"curves_a[{seed!r}]"), _falls(curves_b[seed], f"curves_b[{seed!r}]")
        low, high = max(a.loss[-1], b.loss[-1]), min(a.loss[0], b.loss[0])
        if low > high:
            continue
        seeds.append(seed)
        losses.append(float(np.exp(low)))
        logs.append(float(a.reached(low) - b.reached(low)))
        wholes.append(_average(a, b, low, high))
    lost = len(paired) - len(seeds)
    if not seeds:
        return Multiplier(None, None, (), (), (), "no common loss: one starts below the other's lowest")
    notes = []
    if len(seeds) == 1:
        notes.append("one seed: no interval")
    if lost:
        notes.append(f"{lost} of {len(paired)} seeds left out, without a common loss: too near 1")
    ends = (over_seeds(values, confidence) for values in (logs, wholes))
    at_end, overall = (Estimate(*(None if log is None else float(np.exp(log)) for log in end)) for end in ends)
    return Multiplier(at_end, overall, tuple(seeds), tuple(losses), tuple(logs), "; ".join(notes))


def multipliers(curves: Mapping[str, Mapping[Hashable, Curve]]) -> dict[tuple[str, str], Multiplier]:
    """Of every two names with curves: how many times less x the first, the row, needs than the second, the column."""
    return {(row, column): multiplier(curves[column], curves[row]) for row, column in permutations(curves, 2)}


def cheapest(names: Iterable[str], table: Mapping[tuple[str, str], Multiplier]) -> tuple[str, str] | None:
    """The name whose smallest multiplier over another is the largest, and above 1; and that other."""
    best, most = None, 1.0
    for name in names:
        ours = {other: m.at_end.value for (row, other), m in table.items() if row == name and m.at_end}
        nearest = min(ours, key=ours.__getitem__, default=None)
        if nearest is not None and ours[nearest] > most:
            best, most = (name, nearest), ours[nearest]
    return best


def leads(ends: Mapping[str, Mapping[Hashable, float]], ranked: Sequence[str]) -> dict[tuple[str, str], Estimate]:
    """Neighbours in a ranking: by how much the better one's final loss is lower, seed by seed.

    Args:
        ends: name -> seed -> final loss.
        ranked: names, the best first; those without a seed in common with the next have no lead.
    """
    found = {}
    for better, worse in pairwise(ranked):
        differences = [ends[worse][seed] - loss for seed, loss in ends[better].items() if seed in ends[worse]]
        if differences:
            found[better, worse] = over_seeds(differences)
    return found


class Beginning(NamedTuple):
    """Who leads early: the step, of how many, and name -> mean loss there, the lowest first."""

    step: int
    steps: int
    losses: dict[str, float]


def beginning(curves: Mapping[str, Sequence[Mapping[int, float]]], steps: int) -> Beginning | None:
    """Who leads at the last checkpoint within the first quarter of the steps, or at the first, where there is none.

    Args:
        curves: name -> for each run, step -> loss.
        steps: of a whole run.
    """
    known = sorted({step for runs in curves.values() for curve in runs for step in curve})
    if not known:
        return None
    step = max((s for s in known if s <= steps / QUARTER), default=known[0])
    found = {name: [curve[step] for curve in runs if step in curve] for name, runs in curves.items()}
    means = {name: sum(losses) / len(losses) for name, losses in found.items() if losses}
    return Beginning(step, steps, dict(sorted(means.items(), key=lambda item: item[1])))


def over_seeds(values: Sequence[float], confidence: float = LEVEL) -> Estimate:
    """The mean of values of shape (n,), one a seed, and its Student t interval; no interval of one value."""
    n, mean = len(values), float(np.mean(values))
    if n == 1:
        return Estimate(mean, None, None)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return Estimate(mean, mean - half, mean + half)


def _falls(curve: Curve, name: str) -> _Falls:
    xs, losses = (np.asarray(values, float) for values in curve)
    if xs.ndim != 1 or xs.shape != losses.shape or not xs.size:
        raise ValueError(f"{name}: x and loss need one shape (n,), n >= 1: they have {xs.shape} and {losses.shape}.")
    for what, values in {"x": xs, "loss": losses}.items():
        wrong = ~(np.isfinite(values) & (values > 0))
        if wrong.any():
            i = int(np.argmax(wrong))
            raise ValueError(f"{name}: {what}[{i}] is {values[i]}, and a curve needs positive finite values.")
    if (np.diff(xs) <= 0).any():
        raise ValueError(f"{name}: x does not increase after x[{int(np.argmax(np.diff(xs) <= 0))}].")
    return _Falls(np.log(xs), np.minimum.accumulate(np.log(losses)))


def _average(a: _Falls, b: _Falls, low: float, high: float) -> float:
    """The mean of log(x_a / x_b) over log losses from low to high: exact, for between knots the difference is straight.

    At its end a flat part of a running minimum is a jump, so the straight parts are taken by their midpoints.
    """
    knots = np.unique(np.concatenate([a.loss, b.loss, [low, high]]))
    knots = knots[(knots >= low) & (knots <= high)]
    if knots.size == 1:
        return float(a.reached(low) - b.reached(low))
    middle = (knots[1:] + knots[:-1]) / 2
    return float(np.average(a.reached(middle) - b.reached(middle), weights=np.diff(knots)))
