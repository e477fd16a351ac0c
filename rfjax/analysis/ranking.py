"""The ranking of variants by several metrics at once, averaged over sampler settings (SD3, section 5.1, Table 1)."""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from rfjax.analysis.correlation import Correlation, kendall, spearman
from rfjax.analysis.fit import LEVEL
from rfjax.analysis.fitting import TooFewPoints

BETTER = ("higher", "lower")  # of the two quantities in the paper: CLIP score and FID
Seed = int
Setting = tuple[object, ...]


@dataclass(frozen=True)
class Ranking:
    """The average rank of each name over settings and seeds, best first; a rank counts fronts of this pool of names.

    Attributes:
        average: name -> mean front; equal means in the order of the names.
        spread: name -> standard deviation over the settings of its front, seeds averaged; None with one setting. The
            settings share their training runs, so it is no error.
        interval: name -> 95 % interval of the average, by Student t over the seeds, cut at rank 1; None with one seed.
        by_seed: seed -> setting -> name -> front, among the runs of that seed.
        missing: name -> the (seed, setting) where it was not measured: such names are not ranked, anywhere.
    """

    average: dict[str, float]
    spread: dict[str, float | None]
    interval: dict[str, tuple[float, float] | None]
    by_seed: dict[Seed, dict[Setting, dict[str, int]]]
    missing: dict[str, tuple[tuple[Seed, Setting], ...]]

    @property
    def by_setting(self) -> dict[Setting, dict[str, float]]:
        """Setting -> name -> front, the mean over the seeds."""
        rows = list(self.by_seed.values())
        return {s: {name: float(np.mean([row[s][name] for row in rows])) for name in self.average} for s in rows[0]}

    def restricted(self, keep: Callable[[Setting], bool]) -> "Ranking":
        """The averages over the settings for which `keep` is true: the columns "5 steps" and "50 steps" of Table 1.

        Fronts and the pool stay as they are, so that columns compare.

        Raises:
            ValueError: where no setting is kept.
        """
        kept = {seed: {s: ranks for s, ranks in rows.items() if keep(s)} for seed, rows in self.by_seed.items()}
        if not all(kept.values()):
            settings = list(next(iter(self.by_seed.values())))
            raise ValueError(f"none of the {len(settings)} settings is kept: {_listed(settings)}")
        return _averaged(kept, self.missing)


def fronts(*columns: ArrayLike, better: Sequence[str] = BETTER) -> NDArray[np.intp]:
    """Non-dominated sorting: 1 for the Pareto front, 2 for the front of the rest, and so on.

    One point dominates another that it equals or beats in every column and beats in one; equal points share a front.

    Args:
        columns: a quantity each, such as CLIP scores and FID, all of shape (n,).
        better: of each column, "higher" or "lower".

    Returns:
        The number of each point's front, shape (n,).

    Raises:
        ValueError: for unequal shapes and for NaN.
    """
    values = [np.asarray(column, float) for column in columns]
    if len({v.shape for v in values}) != 1 or values[0].ndim != 1 or len(values) != len(better):
        shapes = " and ".join(str(v.shape) for v in values)
        raise ValueError(f"the {len(better)} columns need one shape (n,): they have {shapes}")
    for i, column in enumerate(values):
        if np.isnan(column).any():
            raise ValueError(f"columns[{i}][{int(np.argmax(np.isnan(column)))}] is NaN and can't be ranked")
    signed = [v if way == "higher" else -v for v, way in zip(values, better, strict=True)]
    no_worse = np.logical_and.reduce([v[:, None] >= v for v in signed])
    dominates = no_worse & ~no_worse.T
    ranks, left = np.zeros(values[0].size, np.intp), np.ones(values[0].size, bool)
    while left.any():
        front = left & ~dominates[left].any(0)
        ranks[front] = ranks.max() + 1
        left &= ~front
    return ranks


def average_ranks(
    measured: Mapping[Seed, Mapping[Setting, Mapping[str, Sequence[float]]]], better: Sequence[str] = BETTER
) -> Ranking:
    """Ranks the names by `fronts` in every setting of every seed, and averages.

    Only names that were measured in every setting of every seed are ranked, since a rank depends on who else is there;
    `Ranking.missing` has the others. A run that diverged can be left out, or put last by infinities.

    Args:
        measured: seed -> setting, such as (dataset, ema, steps, guidance), -> name -> a value of each quantity.
        better: of each quantity, "higher" or "lower".

    Raises:
        ValueError: for no setting, where no name was measured in all of them, and for NaN, with the setting and name.
    """
    settings = list(dict.fromkeys(setting for rows in measured.values() for setting in rows))
    if not settings:
        raise ValueError("there is nothing to rank: no setting was measured")
    places = [(seed, setting) for seed in measured for setting in settings]
    everyone = sorted({name for rows in measured.values() for points in rows.values() for name in points})
    missing = {name: tuple(at for at in places if name not in measured[at[0]].get(at[1], ())) for name in everyone}
    missing = {name: where for name, where in missing.items() if where}
    names = [name for name in everyone if name not in missing]
    if not names:
        raise ValueError(f"no name was measured in all {len(places)} settings: {_listed(settings)}")
    by_seed: dict[Seed, dict[Setting, dict[str, int]]] = {seed: {} for seed in measured}
    for seed, setting in places:
        columns = np.array([measured[seed][setting][name] for name in names], float)
        if np.isnan(columns).any():
            name = names[int(np.argmax(np.isnan(columns).any(1)))]
            values = tuple(measured[seed][setting][name])
            raise ValueError(f"'{name}' in the setting {setting} is {values}: NaN can't be ranked")
        by_seed[seed][setting] = dict(zip(names, fronts(*columns.T, better=better).tolist(), strict=True))
    return _averaged(by_seed, missing)


@dataclass(frozen=True)
class Agreement:
    """How far two lists of ranks, ours and a paper's, agree over the names of both.

    Attributes:
        correlations: "Spearman", "Kendall" -> correlation; empty where the names are too few.
        reason: why there is none, or "".
        places: name -> (ours, theirs), from 1, the best; equal values share the mean of their places.
    """

    correlations: dict[str, Correlation]
    reason: str
    places: dict[str, tuple[float, float]]

    @property
    def text(self) -> str:
        """The correlations with their intervals."""
        return ", ".join(f"{name} {c.text}" for name, c in self.correlations.items())

    @functools.cached_property
    def orders_as_good(self) -> tuple[int, int] | None:
        """How many of all orders of the names have as many pairs as ours in their order, or more; and all orders."""
        if not self.correlations:
            return None
        ours, theirs = zip(*self.places.values(), strict=True)
        pairs = list(itertools.combinations(range(len(ours)), 2))
        agreeing = lambda order: sum((order[i] - order[j]) * (theirs[i] - theirs[j]) > 0 for i, j in pairs)  # noqa: E731
        here = agreeing(ours)
        orders = [agreeing(order) for order in itertools.permutations(range(len(ours)))]
        return sum(count >= here for count in orders), len(orders)


def agreement(ours: Mapping[str, float], theirs: Mapping[str, float]) -> Agreement:
    """Compares two lists of ranks, or of values of which the lower is the better, over the names of both."""
    names = [name for name in ours if name in theirs]
    sides = [[side[name] for name in names] for side in (ours, theirs)]
    places = dict(zip(names, zip(*(stats.rankdata(side).tolist() for side in sides), strict=True), strict=True))
    try:
        return Agreement({"Spearman": spearman(*sides), "Kendall": kendall(*sides)}, "", places)
    except TooFewPoints as error:
        return Agreement({}, f"No rank correlation with the paper: {error}", places)


def _averaged(
    by_seed: dict[Seed, dict[Setting, dict[str, int]]], missing: dict[str, tuple[tuple[Seed, Setting], ...]]
) -> Ranking:
    names = next(iter(next(iter(by_seed.values())).values()))
    tables = {name: np.array([[row[name] for row in rows.values()] for rows in by_seed.values()]) for name in names}
    average = {name: float(table.mean()) for name, table in tables.items()}
    average = dict(sorted(average.items(), key=lambda item: (item[1], item[0])))
    spread, interval = dict.fromkeys(average), dict.fromkeys(average)
    for name, mean in average.items():
        seeds, settings = tables[name].shape
        if settings > 1:
            spread[name] = float(tables[name].mean(0).std(ddof=1))
        if seeds > 1:
            half = stats.t.ppf((1 + LEVEL) / 2, seeds - 1) * tables[name].mean(1).std(ddof=1) / np.sqrt(seeds)
            interval[name] = (max(mean - float(half), 1.0), mean + float(half))
    return Ranking(average, spread, interval, by_seed, missing)


def _listed(settings: list[Setting], most: int = 4) -> str:
    return ", ".join(map(str, settings[:most])) + (", ..." if len(settings) > most else "")
