"""The loss against the learning rate: where it is lowest, whom it suits, and how that rate goes with depth."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class RateSweep:
    """The mean loss against the learning rate at one depth, and behind each loss the number of runs.

    Attributes:
        lost: rates that left no loss.
        best: the rate where a parabola through the best three is lowest.
        at_edge: whether `best` is a rate without a loss on one side."""

    depth: int
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    seeds: tuple[int, ...]
    lost: tuple[float, ...]
    best: float
    at_edge: bool

    @property
    def warnings(self) -> list[str]:
        """Sentences on a best rate at the edge, on rates without a loss and on unequal numbers of seeds."""
        said = []
        if self.at_edge:
            beyond = [rate for rate in self.lost if rate > self.best]
            why = f"; beyond it, {', '.join(f'{rate:g}' for rate in beyond)} left no loss" if beyond else ""
            said.append(
                f"The best learning rate of depth {self.depth}, {self.best:g}, is at the edge of its sweep{why}."
            )
        elif self.lost:
            said.append(f"Depth {self.depth}: no loss at rate {', '.join(f'{rate:g}' for rate in self.lost)}.")
        if len(set(self.seeds)) > 1:
            said.append(f"Depth {self.depth}: the rates rest on different numbers of seeds, {self.seeds}.")
        return said


@dataclass(frozen=True)
class RateChoice:
    """The learning rates of one contestant on one data set.

    Attributes:
        losses: rate -> validation loss at the end, the mean over its complete runs; NaN where it has none.
        best: the rate with the lowest, or None.
        flops: of all its runs, what the choice cost.
        out: rates that lack some of the final losses of the others: they are not chosen.
    """

    who: str
    dataset: str
    losses: dict[float, float]
    best: float | None
    flops: float
    out: tuple[float, ...]

    def to_plain(self) -> dict[str, Any]:
        losses = {rate: loss if math.isfinite(loss) else None for rate, loss in self.losses.items()}
        return {"who": self.who, "dataset": self.dataset, "losses": losses, "best": self.best, "flops": self.flops}

    @property
    def warnings(self) -> list[str]:
        """Sentences on rates without a final loss, and on a best rate at the edge."""
        whom, said = f"{self.who} on {self.dataset}", []
        if self.best is None:
            return [f"{whom}: none of its learning rates has a complete run yet: it is left out."]
        if self.out:
            rates = ", ".join(f"{rate:g}" for rate in self.out)
            said.append(f"{whom}: not all runs at the learning rate {rates} have a final loss.")
        if self.best in (min(self.losses), max(self.losses)):
            said.append(f"{whom}: the best learning rate, {self.best:g}, is at the edge of those tried.")
        return said


def choose_rate(who: str, dataset: str, ends: Mapping[float, Sequence[float]], flops: float) -> RateChoice:
    """The rate with the lowest mean of the final losses `ends`, among those with as many of them as any."""
    most = max(map(len, ends.values()))
    losses = {rate: float(np.mean(ends[rate])) if ends[rate] else math.nan for rate in sorted(ends)}
    able = [rate for rate in losses if most and len(ends[rate]) == most]
    best = min(able, key=losses.__getitem__, default=None)
    return RateChoice(who, dataset, losses, best, flops, tuple(rate for rate in losses if rate not in able))


def sweep_rates(losses: Mapping[int, Mapping[float, Sequence[float]]]) -> tuple[RateSweep, ...]:
    """Depth -> rate -> losses of its runs, to a sweep for each depth that has a loss at three rates or more."""
    sweeps = []
    for depth in sorted(losses):
        by_rate = losses[depth]
        rates = sorted(rate for rate, values in by_rate.items() if values)
        if len(rates) < 3:
            continue
        means = [float(np.mean(by_rate[rate])) for rate in rates]
        lost = tuple(sorted(rate for rate, values in by_rate.items() if not values))
        counts = tuple(len(by_rate[rate]) for rate in rates)
        sweeps.append(RateSweep(depth, tuple(rates), tuple(means), counts, lost, *_lowest(rates, means)))
    return tuple(sweeps)


def _lowest(rates: list[float], means: list[float]) -> tuple[float, bool]:
    """The rate of the lowest loss, by a parabola where it has a neighbour on both sides; and whether it has not."""
    low = int(np.argmin(means))
    if low in (0, len(rates) - 1):
        return rates[low], True
    u = np.log(rates[low - 1 : low + 2])
    curve = np.polyfit(u - u[1], means[low - 1 : low + 2], 2)
    inside = curve[0] > 0 and abs(curve[1]) < 2 * curve[0] * max(u[2] - u[1], u[1] - u[0])
    return (float(np.exp(u[1] - curve[1] / (2 * curve[0]))) if inside else rates[low]), False


def rate_exponent(sweeps: Sequence[RateSweep]) -> tuple[float, float] | None:
    """The slope of log(best learning rate) against log(depth), by least squares, with its standard error."""
    inside = [sweep for sweep in sweeps if not sweep.at_edge]
    if len(inside) < 3:
        return None
    u, v = np.log([s.depth for s in inside]), np.log([s.best for s in inside])
    slope, cut = np.polyfit(u, v, 1)
    residuals = v - (slope * u + cut)
    error = math.sqrt(float((residuals**2).sum()) / (len(u) - 2) / float(((u - u.mean()) ** 2).sum()))
    return float(slope), error
