"""How far raters agree with each other beyond chance."""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from rfjax.analysis.ratings import RESAMPLES, percentiles

FEWEST_UNITS = 5  # that an interval needs


@dataclass(frozen=True)
class Agreement:
    """How far several raters agree beyond chance.

    Attributes:
        alpha: Krippendorff's, of nominal values: 1 is full agreement, 0 is chance; NaN where it is not defined.
        low, high: 95 % interval, resampling units; NaN where there is none.
        units: pairs that two raters or more judged.
        same: of all two raters' judgements of one unit, the share that are the same; NaN without units.
    """

    alpha: float
    low: float
    high: float
    units: int
    same: float


def agreement(units: Iterable[Sequence[Hashable]], seed: int = 0) -> Agreement:
    """Krippendorff's alpha (2011) of nominal values, 1 - (n - 1) sum_(c != k) o_ck / sum_(c != k) n_c n_k.

    Args:
        units: the values that raters gave to each; units with fewer than two don't count.
        seed: of the resamples.
    """
    rated = [list(unit) for unit in units if len(unit) > 1]
    values = {value: i for i, value in enumerate(dict.fromkeys(value for unit in rated for value in unit))}
    if not rated:
        return Agreement(math.nan, math.nan, math.nan, 0, math.nan)
    counts = np.zeros((len(rated), len(values)))
    for row, unit in zip(counts, rated, strict=True):
        for value in unit:
            row[values[value]] += 1
    size, equal = counts.sum(1), (counts * (counts - 1)).sum(1)

    def alpha(weights: Float[np.ndarray, "b u"]) -> Float[np.ndarray, " b"]:
        marginal = weights @ counts
        n = marginal.sum(1)
        expected = n**2 - (marginal**2).sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return 1 - (n - 1) * (n - weights @ (equal / (size - 1))) / expected

    weights = np.random.default_rng(seed).multinomial(len(rated), np.full(len(rated), 1 / len(rated)), RESAMPLES)
    found, drawn = float(alpha(np.ones((1, len(rated))))[0]), alpha(weights.astype(float))
    drawn = drawn[np.isfinite(drawn)]
    low, high = percentiles(drawn) if len(rated) >= FEWEST_UNITS and drawn.size else (math.nan, math.nan)
    if not math.isfinite(found):
        found = low = high = math.nan
    return Agreement(found, float(low), float(high), len(rated), float(equal.sum() / (size * (size - 1)).sum()))
