"""What runs that differ by their seed alone say about a comparison: the unit of every claim about a model is a seed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import special, stats

from rfjax.analysis.fit import LEVEL

UNEVEN = 0.05  # the spread between seeds is said to change with size below this p
ENOUGH = 5  # degrees of freedom: with fewer a spread has no trend
SETTLED = 0.02  # a training loss that clearly falls by more than this over the last quarter of a run is still falling


@dataclass(frozen=True)
class Spread:
    """How much the loss of one model varies with the seed.

    Attributes:
        relative: standard deviation of one run's log loss, pooled over models; at the size `centre` where it has a
            trend, else as if it were equal at all sizes.
        degrees_of_freedom: the sum over models of (seeds - 1), one less with a trend.
        models: how many have two seeds or more.
        trend: of the spread with size, where three sizes and ENOUGH degrees of freedom give one; None: there is none.
        largest: the largest size with two seeds or more; a spread that shrinks is not taken to shrink beyond it.
    """

    relative: float
    degrees_of_freedom: int
    models: int
    trend: "NoiseTrend | None" = None
    centre: float = 1.0
    largest: float = 1.0

    def at(self, size: float) -> float:
        """The standard deviation of one run's log loss at a size."""
        if self.trend is None:
            return self.relative
        reach = min(size, self.largest) if self.trend.slope < 0 else size
        return float(self.relative * (reach / self.centre) ** self.trend.slope)

    def stderr(self, loss: float, seeds: int, size: float) -> float:
        """The standard error of a mean loss over seeds at a size, in units of the loss."""
        return self.at(size) * loss / float(np.sqrt(seeds))


@dataclass(frozen=True)
class Change:
    """The change of loss from one model to another.

    Attributes:
        value: second less first, the mean over levels of t.
        example_error: its standard error over examples, paired; None where a level has one example.
        seed_error: over seeds; None where no model has two seeds.
        degrees_of_freedom: of both errors together (Satterthwaite 1946).
        low, high: the 95 % interval by Student's t; None where either error is unknown.
    """

    value: float
    example_error: float | None
    seed_error: float | None
    degrees_of_freedom: float | None
    low: float | None
    high: float | None

    @property
    def falls(self) -> bool | None:
        """Whether the second is lower: True or False where the interval excludes 0, None where nothing is known."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return None
        return self.high < 0


def pooled_spread(models: Iterable[Sequence[float]], sizes: Iterable[float] | None = None) -> Spread | None:
    """The spread over seeds, pooled over models, each given as its positive losses; None without two seeds of any.

    Args:
        models: the losses of each.
        sizes: of each; where they suffice the spread is a power of size (`noise_trend`), whether that is clear or not:
            a test first would make intervals wrong where it just fails.
    """
    models = list(models)
    sizes = [1.0] * len(models) if sizes is None else list(sizes)
    rows = [(size, np.log(losses)) for size, losses in zip(sizes, models, strict=True) if len(losses) > 1]
    freedom = sum(len(values) - 1 for _, values in rows)
    if not freedom:
        return None
    seeded, trend = np.array([size for size, _ in rows], float), noise_trend(sizes, models)
    trend = trend if freedom >= ENOUGH else None
    centre, slope = float(np.exp(np.log(seeded).mean())), trend.slope if trend else 0.0
    squares = sum(
        float(((values - values.mean()) ** 2).sum()) / (size / centre) ** (2 * slope) for size, values in rows
    )
    freedom -= trend is not None
    return Spread(float(np.sqrt(squares / freedom)), freedom, len(rows), trend, centre, float(seeded.max()))


def change(
    first: Sequence[float],
    second: Sequence[float],
    difference: Float[np.ndarray, " n"] | None,
    levels: int,
    spread: Spread | None,
    *,
    sizes: tuple[float, float] = (1.0, 1.0),
) -> Change:
    """Compares two models by their mean losses over seeds.

    The variance is that over examples, of the differences on the same triples averaged over seeds and stratified by
    level, plus that over seeds, spread^2 (first^2 / seeds + second^2 / seeds): a little too large, never too small.

    Args:
        first, second: the loss of each seed.
        difference: of each triple, second less first, each averaged over seeds;
            the level of triple i is i mod `levels`. None where the losses of single triples are unknown.
        spread: between seeds, pooled over the whole study.
        sizes: of both, where the spread goes with size.
    """
    a, b = float(np.mean(first)), float(np.mean(second))
    value, parts, example_error, seed_error = b - a, [], None, None
    if difference is not None:
        strata = [difference[k::levels] for k in range(levels)]
        if all(len(stratum) for stratum in strata):
            value = float(np.mean([stratum.mean() for stratum in strata]))
        if all(len(stratum) > 1 for stratum in strata):
            parts = [(float(s.var(ddof=1)) / len(s) / levels**2, len(s) - 1) for s in strata]
            example_error = float(np.sqrt(sum(variance for variance, _ in parts)))
    if spread is not None:
        seed_error = float(np.hypot(spread.stderr(a, len(first), sizes[0]), spread.stderr(b, len(second), sizes[1])))
    if spread is not None:
        parts.append((seed_error**2, spread.degrees_of_freedom))
    total = sum(variance for variance, _ in parts)
    if example_error is None or seed_error is None or not total:  # where nothing varies, nothing is known of what might
        return Change(value, example_error, seed_error, None, None, None)
    freedom = total**2 / sum(variance**2 / degrees for variance, degrees in parts)
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom) * np.sqrt(total))
    return Change(value, example_error, seed_error, float(freedom), value - half, value + half)


@dataclass(frozen=True)
class NoiseTrend:
    """The slope of log(standard deviation over seeds) against log size, its standard error, and its two-sided p."""

    slope: float
    stderr: float
    p: float


def noise_trend(sizes: Sequence[float], models: Sequence[Sequence[float]]) -> NoiseTrend | None:
    """Does the relative spread between seeds change with size? None with fewer than three sizes of two seeds or more.

    The logarithm of a sample variance with f = n - 1 degrees of freedom has mean log(variance) + psi(f/2) - log(f/2)
    and variance psi'(f/2), whatever the variance is (Bartlett and Kendall 1946), so the error of the line is known.
    """
    rows = [(x, len(y) - 1, float(np.var(np.log(y), ddof=1))) for x, y in zip(sizes, models, strict=True) if len(y) > 1]
    rows = [row for row in rows if row[2] > 0]
    if len({x for x, _, _ in rows}) < 3:
        return None
    x, freedom, variance = (np.array(column, float) for column in zip(*rows, strict=True))
    y = np.log(variance) - special.digamma(freedom / 2) + np.log(freedom / 2)
    weights = 1 / special.polygamma(1, freedom / 2)
    u = np.log(x) - np.average(np.log(x), weights=weights)
    information = float((weights * u**2).sum())
    slope, error = float((weights * u * y).sum()) / information, information**-0.5
    return NoiseTrend(slope / 2, error / 2, float(2 * stats.norm.sf(abs(slope) / error)))


def late_fall(losses: ArrayLike) -> tuple[float, float] | None:
    """By how much, relative, the mean of the last quarter of a curve is below that of the quarter before.

    Args:
        losses: along a run, shape (n,).

    Returns:
        The fall and the lower end of its 95 % interval, by the scatter of each quarter about its own straight line,
        with Student's t; or None where a quarter has fewer than four losses.
    """
    values = np.asarray(losses, float)
    quarter = values.size // 4
    if quarter < 4:
        return None
    before, last = values[-2 * quarter : -quarter], values[-quarter:]
    step, a, b = np.arange(quarter), float(before.mean()), float(last.mean())
    scatter = [np.sum((part - np.polyval(np.polyfit(step, part, 1), step)) ** 2) for part in (before, last)]
    first, second = (float(s) / (quarter - 2) / quarter for s in scatter)
    error = float(np.hypot(np.sqrt(second) / a, np.sqrt(first) * b / a**2))
    return 1 - b / a, 1 - b / a - float(stats.t.ppf((1 + LEVEL) / 2, 2 * (quarter - 2))) * error


def under_trained(curves: Mapping[str, Sequence[float]]) -> list[str]:
    """A sentence on runs (name -> training losses) that clearly still fell by more than SETTLED at their end."""
    found = {name: late_fall(losses) for name, losses in curves.items()}
    falling = {name: fall[0] for name, fall in found.items() if fall and fall[0] > SETTLED and fall[1] > 0}
    if not falling:
        return []
    worst = max(falling, key=falling.__getitem__)
    return [
        f"Under-trained: the training loss of {', '.join(falling)} still fell by more than {SETTLED:.0%} over the last "
        f"quarter ({worst}: {falling[worst]:.1%}). The law holds for this number of steps only."
    ]
