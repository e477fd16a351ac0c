"""How far the best learning rate moves with size: by seed, since the seed is the unit, with intervals over seeds.

u is the base-2 logarithm of a learning rate, v of a size (a depth or a width); L a validation loss.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from rfjax.analysis.fit import LEVEL

Losses = Mapping[float, Mapping[float, Mapping[int, float]]]  # size -> rate -> seed -> loss; NaN: it diverged


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, with its 95 % interval by Student's t; None where there is one seed."""

    value: float
    low: float | None
    high: float | None
    seeds: int

    @property
    def excludes_zero(self) -> bool:
        """Whether it is known to be other than 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Best:
    """The best rate of one seed at one size.

    Attributes:
        rate: where a parabola in u through the lowest loss and its neighbours is lowest.
        loss: of that parabola there, or at the edge.
        at_edge: the lowest loss has no finite loss on one side, so the best rate may lie beyond it.
    """

    rate: float
    loss: float
    at_edge: bool


@dataclass(frozen=True)
class Transfer:
    """One parameterisation over all sizes.

    Attributes:
        best: size -> seed -> the best rate.
        means: size -> rate -> the mean loss over the seeds of that rate; NaN where one of them diverged.
        slopes: seed -> the slope of u of the best rate against v.
        slope: their mean, per doubling of the size.
        total: the change of u over all sizes by that slope: 1 is a factor of two.
        penalty: how much higher, relative, the largest size's loss is at the smallest one's best rate than its lowest.
        edges: (size, seed) whose best rate is at the edge of the sweep.
        missing: number of runs without any loss.
        diverged: number of runs whose loss is not finite.
    """

    best: dict[float, dict[int, Best]]
    means: dict[float, dict[float, float]]
    slopes: dict[int, float]
    slope: Interval | None
    total: Interval | None
    penalty: Interval | None
    edges: tuple[tuple[float, int], ...]
    missing: int
    diverged: int


def over_seeds(values: Sequence[float]) -> Interval | None:
    """The mean of one value a seed; None without any."""
    if not values:
        return None
    mean, n = float(np.mean(values)), len(values)
    if n == 1:
        return Interval(mean, None, None, 1)
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def best_rate(losses: Mapping[float, float]) -> Best | None:
    """The best of a sweep, rate -> loss; None with fewer than three finite losses."""
    rates = [rate for rate in sorted(losses) if math.isfinite(losses[rate])]
    if len(rates) < 3:
        return None
    low = min(range(len(rates)), key=lambda i: losses[rates[i]])
    if low in (0, len(rates) - 1):
        return Best(rates[low], losses[rates[low]], True)
    near = rates[low - 1 : low + 2]
    u = np.log2(near) - np.log2(rates[low])
    curve = np.polyfit(u, [losses[rate] for rate in near], 2)
    if curve[0] <= 0:
        return Best(rates[low], losses[rates[low]], False)
    at = float(np.clip(-curve[1] / (2 * curve[0]), u[0], u[2]))
    return Best(float(rates[low] * 2**at), float(np.polyval(curve, at)), False)


def loss_at(losses: Mapping[float, float], rate: float) -> float:
    """The loss at any rate within a sweep, by the parabola in u through the nearest rate and the two beside it.

    NaN outside of the sweep, or beside a run that diverged.
    """
    rates = sorted(losses)
    if len(rates) < 3 or not rates[0] <= rate <= rates[-1]:
        return math.nan
    u = np.log2(rates) - math.log2(rate)
    middle = int(np.clip(np.argmin(np.abs(u)), 1, len(rates) - 2))
    near = slice(middle - 1, middle + 2)
    return float(np.polyval(np.polyfit(u[near], [losses[each] for each in rates[near]], 2), 0.0))


def transfer(losses: Losses, wanted: int = 0) -> Transfer:
    """How far the best rate of one parameterisation moves.

    Args:
        losses: of its runs.
        wanted: how many runs there should be.
    """
    seeds = sorted({seed for by_rate in losses.values() for by_seed in by_rate.values() for seed in by_seed})
    sizes, best, means = sorted(losses), {}, {}
    for size in sizes:
        of_seed = {seed: {r: found[seed] for r, found in losses[size].items() if seed in found} for seed in seeds}
        best[size] = {seed: one for seed, sweep in of_seed.items() if (one := best_rate(sweep))}
        means[size] = {rate: float(np.mean(list(losses[size][rate].values()))) for rate in sorted(losses[size])}
    whole = [seed for seed in seeds if len(sizes) > 1 and all(seed in best[size] for size in sizes)]
    slopes = {seed: _slope(sizes, [best[size][seed].rate for size in sizes]) for seed in whole}
    doublings = math.log2(sizes[-1] / sizes[0]) if len(sizes) > 1 else 0.0
    values = [x for by_rate in losses.values() for by_seed in by_rate.values() for x in by_seed.values()]
    return Transfer(
        best=best,
        means=means,
        slopes=slopes,
        slope=over_seeds(list(slopes.values())),
        total=over_seeds([slope * doublings for slope in slopes.values()]),
        penalty=over_seeds([x for seed in whole if math.isfinite(x := _penalty(losses, best, seed))]),
        edges=tuple((size, seed) for size in sizes for seed, one in best[size].items() if one.at_edge),
        missing=max(wanted - len(values), 0),
        diverged=sum(not math.isfinite(x) for x in values),
    )


def compared(first: Transfer, second: Transfer) -> Interval | None:
    """By how much the best rate moves less with the first than with the second, per doubling, paired by seed."""
    both = [seed for seed in first.slopes if seed in second.slopes]
    return over_seeds([abs(second.slopes[seed]) - abs(first.slopes[seed]) for seed in both])


def _slope(sizes: Sequence[float], rates: Sequence[float]) -> float:
    return float(np.polyfit(np.log2(sizes), np.log2(rates), 1)[0])


def _penalty(losses: Losses, best: Mapping[float, Mapping[int, Best]], seed: int) -> float:
    """How far the largest size's loss at the smallest one's best rate is above its lowest, relative, for one seed."""
    small, large = min(losses), max(losses)
    sweep = {rate: found[seed] for rate, found in losses[large].items() if seed in found}
    return loss_at(sweep, best[small][seed].rate) / best[large][seed].loss - 1
