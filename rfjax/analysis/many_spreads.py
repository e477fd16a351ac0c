"""The noise between runs against size: a known course, and `pooled_spread` of many simulated ladders at once."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import special, stats

from rfjax.analysis.engine import TINY, Array
from rfjax.analysis.seeds import UNEVEN, Spread

FEWEST = 3  # sizes with several seeds, below which no trend is sought


@dataclass(frozen=True)
class Course:
    """How noise goes with size: (x / centre)^slope, which is not taken to shrink beyond `largest`."""

    slope: float = 0.0
    centre: float = 1.0
    largest: float = np.inf

    def at(self, x: ArrayLike) -> Array:
        """The noise at sizes, as a multiple of that at the centre."""
        return _course(np.asarray(x, float), self.slope, self.centre, self.largest)


FLAT = Course()


def course_of(spread: Spread | None) -> Course:
    """The course that a ladder's spread has; flat where none can be told."""
    if spread is None or spread.trend is None:
        return FLAT
    return Course(spread.trend.slope, spread.centre, spread.largest)


@dataclass(frozen=True)
class Spreads:
    """The spread between seeds of each of m ladders, as `Spread` has it; slope 0 where no trend can be told."""

    relative: Float[np.ndarray, " m"]
    slope: Float[np.ndarray, " m"]
    centre: float
    largest: float

    def at(self, x: Float[np.ndarray, " g"]) -> Float[np.ndarray, "m g"]:
        """The standard deviation of one run's log loss at sizes."""
        return self.relative[:, None] * _course(x, self.slope[:, None], self.centre, self.largest)


def _course(x: Array, slope: Array | float, centre: float, largest: float) -> Array:
    return (np.where(np.asarray(slope) < 0, np.minimum(x, largest), x) / centre) ** slope


def spreads(
    losses: Float[np.ndarray, "m k s"], seeds: Float[np.ndarray, " k"], x: Float[np.ndarray, " k"]
) -> Spreads | None:
    """The spread of each ladder, whose rungs' first `seeds` losses count; None without two seeds of a rung."""
    several = seeds > 1
    n, sizes = seeds[several], x[several]
    freedom = int((n - 1).sum())
    if not freedom:
        return None
    there = np.arange(losses.shape[-1]) < n[:, None]
    logs = np.where(there, np.log(losses[:, several]), 0)
    off = np.where(there, logs - (logs.sum(-1) / n)[..., None], 0)
    squares = (off**2).sum(-1)
    slope, centre = np.zeros(len(losses)), float(np.exp(np.log(sizes).mean()))
    if sizes.size >= FEWEST:
        half = (n - 1) / 2
        y = np.log(np.maximum(squares / (n - 1), TINY)) - special.digamma(half) + np.log(half)
        weights = 1 / special.polygamma(1, half)
        u = np.log(sizes) - np.average(np.log(sizes), weights=weights)
        information = float((weights * u**2).sum())
        found = (y * weights * u).sum(-1) / information
        clear = 2 * stats.norm.sf(np.abs(found) * np.sqrt(information)) < UNEVEN
        slope = np.where(clear, found / 2, 0.0)
    total = (squares / (sizes / centre) ** (2 * slope[:, None])).sum(-1)
    return Spreads(np.sqrt(total / (freedom - (slope != 0))), slope, centre, float(sizes.max()))
