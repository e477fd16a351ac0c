"""How much sooner one way of training reaches what another ends with: REPA's speed-up (its Fig. 1 and section 4.3).

A curve is (x, y): steps or FLOPs, and a quantity there, of one seed. It is read as its best value so far, with straight
lines in (log x, y) between the measurements. Nothing is extrapolated.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rfjax.analysis.multipliers import Curve, Estimate, over_seeds


@dataclass(frozen=True)
class SpeedUp:
    """By which factor a curve reaches another's final value sooner.

    Attributes:
        factor: the other's last x over the x at which its final value is reached, the mean of the logarithm over
            seeds with its Student t interval; None unless every seed reaches it.
        by_seed: seed -> that factor, or None if it is not reached.
        at_first: whether a seed reaches it before its first measurement, so that the factor is a lower bound.
        flat: whether a seed's reference is nowhere better than at its first measurement; then nothing is compared.
    """

    factor: Estimate | None
    by_seed: dict[Hashable, float | None]
    at_first: bool
    flat: bool = False

    @property
    def reached(self) -> int:
        """How many seeds reach the final value."""
        return sum(value is not None for value in self.by_seed.values())

    def text(self) -> str:
        """The factor in words: "1.8 (1.5 to 2.2)", "not reached", "reached by 2 of 3 seeds", or why there is none."""
        if self.flat:
            return "no progress to compare"
        if not self.by_seed:
            return "no seed in common"
        if self.factor is None:
            return f"reached by {self.reached} of {len(self.by_seed)} seeds" if self.reached else "not reached"
        return ("at least " if self.at_first else "") + self.factor.text(".2f")


def speed_up(slow: Mapping[Hashable, Curve], fast: Mapping[Hashable, Curve], better: str) -> SpeedUp:
    """The factor by which the curves `fast` reach what those of `slow` end with, seed by seed.

    Args:
        slow: seed -> (x, y) of the reference, x increasing and positive, each of shape (n,).
        fast: likewise; seeds that only one of them has are not used.
        better: "lower" or "higher", the direction of y.

    Returns:
        The factor; above 1, `fast` is faster.
    """
    by_seed: dict[Hashable, float | None] = {}
    at_first = False
    for seed in (seed for seed in slow if seed in fast):
        x, y = _best(slow[seed], better)
        if not len(x):
            continue
        if y[0] == y[-1]:
            return SpeedUp(None, {}, at_first=False, flat=True)
        found = first_reached(fast[seed], float(y[-1]), better)
        by_seed[seed] = None if found is None else float(x[-1]) / found[0]
        at_first |= found is not None and found[1]
    values = [value for value in by_seed.values() if value is not None]
    factor = None
    if values and len(values) == len(by_seed):
        mean = over_seeds(np.log(values).tolist())
        factor = Estimate(*(None if value is None else float(np.exp(value)) for value in mean))
    return SpeedUp(factor, by_seed, at_first)


def first_reached(curve: Curve, value: float, better: str) -> tuple[float, bool] | None:
    """The x at which a curve first is as good as a value, and whether that is its first measurement; None: never."""
    x, y = _best(curve, better)
    reached = np.flatnonzero(y <= value if better == "lower" else y >= value)
    if not len(reached):
        return None
    i = int(reached[0])
    if i == 0 or y[i] == value:
        return float(x[i]), i == 0
    share = (y[i - 1] - value) / (y[i - 1] - y[i])
    return float(np.exp(np.log(x[i - 1]) + share * np.log(x[i] / x[i - 1]))), False


def _best(curve: Curve, better: str) -> tuple[np.ndarray, np.ndarray]:
    """The best value so far at each measurement that is finite."""
    x, y = (np.asarray(values, float) for values in curve)
    known = np.isfinite(y)
    best: ArrayLike = np.minimum.accumulate(y[known]) if better == "lower" else np.maximum.accumulate(y[known])
    return x[known], np.asarray(best)
