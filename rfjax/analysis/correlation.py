"""Pearson, Spearman and Kendall correlations with 95 % intervals that hold, also for checkpoints of few runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from rfjax.analysis.fit import LEVEL
from rfjax.analysis.fitting import TooFewPoints

FEWEST_POINTS = 4  # Fisher's z has the standard error 1 / sqrt(n - 3)
FEWEST_GROUPS = 5
EXACT = 7  # points up to which all n! orders are tried for Spearman's p-value
ANGLE = np.linspace(-np.pi / 2, np.pi / 2, 20_001)  # arcsin of the normal correlation, where intervals are sought
TAU = 2 / np.pi * ANGLE  # Kendall's and Spearman's correlations of a bivariate normal
RHO = 6 / np.pi * np.arcsin(np.sin(ANGLE) / 2)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Correlation:
    """A correlation of n points, its 95 % interval, and the p-value of "no correlation" (two-sided).

    kind: "pearson", "spearman" or "kendall" (tau-b). groups: how many independent runs the interval rests on, None
    where it takes every point for independent. note: what a reader must know of the interval, or "".
    """

    kind: str
    value: float
    low: float
    high: float
    n: int
    p_value: float
    groups: int | None = None
    note: str = ""

    @property
    def text(self) -> str:
        """The correlation with its interval, in words."""
        return f"{self.value:+.2f} (95 % interval {self.low:+.2f} to {self.high:+.2f})"

    @property
    def sign(self) -> int:
        """1 where the interval is above 0, -1 where it is below, and 0 where it holds 0."""
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


def pearson(x: ArrayLike, y: ArrayLike, *, groups: Sequence[object] | None = None) -> Correlation:
    """The linear correlation of x and y, both of shape (n,); the interval by Fisher's z (Fisher 1921).

    tanh(artanh(r) +- q / sqrt(n - 3)). It assumes a bivariate normal: where a curve is not straight or tails are heavy,
    `spearman` and `kendall` say more. p-value: Student t.

    Intervals that take checkpoints of one run for independent cover 47 to 92 % instead of 95. With five groups or more
    z gets the standard error of a leave-one-group-out jackknife and Student t with (groups - 1) degrees of freedom;
    interval and p-value are the wider of that and of the independent points' (measured coverage 93 to 99 % with 5 to 20
    runs of 4 checkpoints; resampling whole runs covers 69 to 96 %). With fewer groups `note` says so.

    Args:
        x: shape (n,).
        y: shape (n,).
        groups: a label for each point, one per independent run.

    Raises:
        TooFewPoints: with fewer than 4 points, or where x or y (also without one group) is constant.
        ValueError: for unequal shapes and for values that are not finite.
    """
    return _correlation("pearson", x, y, groups)


def spearman(x: ArrayLike, y: ArrayLike, *, groups: Sequence[object] | None = None) -> Correlation:
    """The correlation of the ranks of x and y, both of shape (n,); ties share their mean rank.

    The interval is that of Bonett and Wright (2000), tanh(artanh(r) +- q sqrt((1 + r^2 / 2) / (n - 3))), mended for
    strong correlations, where it covers too seldom (84 % for a normal correlation of 0.97, n = 8): |r| = 1 counts as
    half a step of r less, and an end that would lie farther out without the bias of r, E[r] = (3 tau + (n - 2) rho_s) /
    (n + 1) (Moran 1948), is put there. It holds for every monotone transform of a bivariate normal. p-value: all orders
    up to 7 points, Student t above. Arguments and errors: as `pearson`.
    """
    return _correlation("spearman", x, y, groups)


def kendall(x: ArrayLike, y: ArrayLike, *, groups: Sequence[object] | None = None) -> Correlation:
    """Kendall's tau-b of x and y, both of shape (n,): the share of pairs in the same order less that in the opposite.

    The interval is every tau with |t - tau| <= q sd(tau), sd being exact for monotone transforms of a bivariate normal
    without ties (Esscher 1924; Kendall, Rank Correlation Methods, chapter 10). Fisher's z with 0.437 / (n - 4) (Fieller
    et al. 1957) covers too seldom where the correlation is strong (88 % for 0.9, n = 8). p-value: scipy's, exact for
    few points without ties. Arguments and errors: as `pearson`.
    """
    return _correlation("kendall", x, y, groups)


def floored(values: ArrayLike, errors: ArrayLike, counts: ArrayLike | None = None) -> str:
    """Why values, each with a standard error, say nothing of what they belong to; "" where they do, or can't be judged.

    They do not where all are equal, or where their variation is what their errors alone would bring: chi-square of the
    differences from the weighted mean, below its 95 % point. Shared errors make the test the stricter.

    Args:
        values, errors: shape (n,); without all errors (NaN) only equal values are found.
        counts: of pictures, where the values are shares of them: no error is below one picture's share.
    """
    v, e = np.asarray(values, float), np.asarray(errors, float)
    if v.size < 2:
        return ""
    if np.ptp(v) == 0:
        return f"it is {v[0]:.3g} everywhere"
    if counts is not None:
        e = np.maximum(e, 1 / np.maximum(np.asarray(counts, float), 1))
    if not (np.isfinite(e).all() and (e > 0).all()):
        return ""
    centre = np.sum(v / e**2) / np.sum(1 / e**2)
    if np.sum(((v - centre) / e) ** 2) > stats.chi2.ppf(LEVEL, v.size - 1):
        return ""
    return f"values from {v.min():.3g} to {v.max():.3g} are what errors of {np.median(e):.2g} bring by chance"


def _correlation(kind: str, x: ArrayLike, y: ArrayLike, groups: Sequence[object] | None) -> Correlation:
    a, b = np.asarray(x, float), np.asarray(y, float)
    if a.ndim != 1 or a.shape != b.shape or (groups is not None and len(groups) != a.size):
        also = "" if groups is None else f", and there are {len(groups)} groups"
        raise ValueError(f"x and y need one shape (n,): they have {a.shape} and {b.shape}{also}.")
    for name, values in {"x": a, "y": b}.items():
        if not np.isfinite(values).all():
            i = int(np.argmin(np.isfinite(values)))
            raise ValueError(f"{name}[{i}] is {values[i]}, and a correlation needs finite values.")
    if a.size < FEWEST_POINTS:
        raise TooFewPoints(f"a correlation with an interval needs {FEWEST_POINTS} points or more, not {a.size}.")
    value, p_value = _coefficient(kind, a, b), _p_value(kind, a, b)
    low, high = INTERVALS[kind](value, a.size)
    labels = [] if groups is None else list(groups)
    names = list(dict.fromkeys(labels))
    if len(names) in (0, a.size):
        return Correlation(kind, value, low, high, a.size, p_value)
    if len(names) < FEWEST_GROUPS:
        note = (
            f"The interval takes the {a.size} points for independent, though they come from {len(names)} "
            f"group{'s'[: len(names) - 1]}: it is too narrow; {FEWEST_GROUPS} groups or more would mend it."
        )
        return Correlation(kind, value, low, high, a.size, p_value, note=note)
    without = []
    for name in names:
        kept = np.array([label != name for label in labels])
        without.append(_coefficient(kind, a[kept], b[kept], f" without group {name!r}"))
    z, freedom = np.arctanh(_inside(value, a.size)), len(names) - 1
    stderr = float(np.sqrt(freedom / len(names) * np.sum((np.arctanh(_inside(without, a.size)) - z) ** 2)))
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * stderr
    return Correlation(
        kind,
        value,
        min(low, float(np.tanh(z - half))),
        max(high, float(np.tanh(z + half))),
        a.size,
        max(p_value, float(2 * stats.t.sf(abs(z) / max(stderr, 1e-300), freedom))),
        groups=len(names),
    )


def _coefficient(kind: str, x: Array, y: Array, where: str = "") -> float:
    for name, values in {"x": x, "y": y}.items():
        if np.ptp(values) == 0:
            raise TooFewPoints(f"{name} has the same value at all {values.size} points{where}: nothing can correlate.")
    if kind == "kendall":
        return float(stats.kendalltau(x, y).statistic)
    if kind == "spearman":
        x, y = stats.rankdata(x), stats.rankdata(y)
    return float(stats.pearsonr(x, y).statistic)


def _p_value(kind: str, x: Array, y: Array) -> float:
    if kind == "kendall":
        return float(stats.kendalltau(x, y).pvalue)
    if kind == "pearson":
        return float(stats.pearsonr(x, y).pvalue)
    if x.size > EXACT:
        return float(stats.spearmanr(x, y).pvalue)
    ranks = stats.rankdata(y) - (x.size + 1) / 2
    test = stats.permutation_test(
        (stats.rankdata(x),),
        lambda order, axis: np.sum(order * ranks, axis=axis),
        permutation_type="pairings",
        vectorized=True,
        n_resamples=np.inf,
    )
    return float(test.pvalue)


def _inside(r: ArrayLike, n: int) -> Array:
    """Correlations short of 1 by half of Spearman's smallest step, 12 / (n (n^2 - 1)), so that artanh is finite."""
    end = 1 - 6 / (n * (n**2 - 1))
    return np.clip(r, -end, end)


def _fisher(r: float, n: int) -> tuple[float, float]:
    z, half = np.arctanh(np.clip(r, -1 + 1e-15, 1 - 1e-15)), stats.norm.ppf((1 + LEVEL) / 2) / np.sqrt(n - 3)
    return float(np.tanh(z - half)), float(np.tanh(z + half))


def _bonett_wright(r: float, n: int) -> tuple[float, float]:
    half = stats.norm.ppf((1 + LEVEL) / 2) * np.sqrt((1 + r**2 / 2) / (n - 3))
    ends = np.tanh(np.arctanh(_inside(r, n)) + np.array([-half, half]))
    unbiased = np.interp(ends, (3 * TAU + (n - 2) * RHO) / (n + 1), RHO)
    return float(min(r, ends[0], unbiased[0])), float(max(r, ends[1], unbiased[1]))


def _tau_variance(n: int) -> Array:
    """The variance of Kendall's t in n points, at each of TAU."""
    return np.maximum(2 / (n * (n - 1)) * (1 - TAU**2 + 2 * (n - 2) * (1 - RHO**2) / 9), 0)


def _esscher(t: float, n: int) -> tuple[float, float]:
    near = np.abs(t - TAU) <= stats.norm.ppf((1 + LEVEL) / 2) * np.sqrt(_tau_variance(n))
    return float(min(t, *TAU[near])), float(max(t, *TAU[near]))


INTERVALS = {"pearson": _fisher, "spearman": _bonett_wright, "kendall": _esscher}
