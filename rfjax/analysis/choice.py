"""Which law? Three are fitted to all rungs: AICc and successive predictions judge, and their mean heeds all of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from rfjax.analysis.engine import OBJECTIVES
from rfjax.analysis.fit import LEVEL, Prediction
from rfjax.analysis.fitting import TooFewPoints
from rfjax.analysis.laws import LAWS, UNSAFE, LawFit, fit_law
from rfjax.analysis.successive import Ahead, score, successive

SAFE = "power_offset"
TOLD = 0.95  # Akaike weight from which the points are said to tell a law from the others
BETTER = 2.0  # times smaller successive errors that decide where AICc does not
COMMON = 3  # rungs that all laws must have predicted for that
HALVINGS = 60  # of the bracket of an averaged quantile


@dataclass(frozen=True)
class Choice:
    """The laws of all rungs and what speaks for each.

    Attributes:
        fits: of the laws that the rungs suffice for.
        missing: law -> why it was not fitted.
        weights: Akaike weights of the laws that have an AICc; empty where fewer than two have one.
        ahead: each law's successive predictions.
        best: the law that the points speak for, or the safe one; "" without any fit.
        told: whether the points tell it from the others.
        reason: all that in a few sentences.
    """

    fits: dict[str, LawFit]
    missing: dict[str, str]
    weights: dict[str, float]
    ahead: dict[str, tuple[Ahead, ...]]
    best: str
    told: bool
    reason: str

    def average(self, x: ArrayLike, level: float = LEVEL) -> Prediction | None:
        """The mean of the laws' predictions by Akaike weights; None where there are no weights.

        The interval holds a new measured loss: the quantiles of the mixture of the laws' own predictive distributions,
        Student's t with each law's scale and degrees of freedom, so that it widens where the laws part (Burnham and
        Anderson 2002, section 4.3, for the mean).

        Args:
            x: sizes, any shape.
            level: of the interval.
        """
        if not self.weights:
            return None
        shape = np.shape(x)
        sizes = np.ravel(np.asarray(x, float))
        fits, weights = [self.fits[law] for law in self.weights], np.array(list(self.weights.values()))
        log = OBJECTIVES[fits[0].objective].log
        there, back = (np.log, np.exp) if log else (lambda v: v, lambda v: v)
        freedom = np.array([fit.degrees_of_freedom for fit in fits])[:, None]
        quantile = stats.t.ppf((1 + level) / 2, freedom)
        centre, top = (there(np.array(rows)) for rows in zip(*(fit.predict(sizes, level)[::2] for fit in fits)))  # noqa: B905
        scale = (top - centre) / quantile
        ends = [_quantile(p, weights[:, None], centre, scale, freedom) for p in ((1 - level) / 2, (1 + level) / 2)]
        made = [back(values).reshape(shape) for values in (weights @ centre, *ends)]
        return Prediction(*(values if shape else float(values) for values in made))


def _quantile(p: float, weights: Any, centre: Any, scale: Any, freedom: Any) -> Any:
    """Where a mixture of Student's t, rows of (laws, n), has the probability p below it: (n,), by bisection."""
    each = centre + scale * stats.t.ppf(p, freedom)
    low, high = each.min(0), each.max(0)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        below = np.sum(weights * stats.t.cdf((middle - centre) / scale, freedom), axis=0) < p
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2


def choose_law(x: ArrayLike, y: ArrayLike, **options: Any) -> Choice:
    """Fits every law to all rungs and says what AICc and successive predictions make of them.

    Arguments as in `fit_law`, one point a rung.
    """
    fits, missing = {}, {}
    for law in LAWS:
        try:
            fits[law] = fit_law(x, y, law=law, **options)
        except TooFewPoints as error:
            missing[law] = str(error)
    ahead = {law: successive(x, y, law=law, **options) for law in fits}
    scores = {law: fit.aicc for law, fit in fits.items() if fit.aicc is not None}
    weights = akaike_weights(scores) if len(scores) > 1 else {}
    best, told, reason = _verdict(fits, weights, ahead)
    return Choice(fits, missing, weights, ahead, best, told, " ".join([reason, *_absent(fits, missing, weights)]))


def akaike_weights(scores: Mapping[str, float]) -> dict[str, float]:
    """exp(-difference of AICc / 2), with sum 1 (Burnham and Anderson 2002, section 2.9)."""
    lowest = min(scores.values())
    raw = {law: float(np.exp(-(value - lowest) / 2)) for law, value in scores.items()}
    return {law: value / sum(raw.values()) for law, value in raw.items()}


def _verdict(
    fits: Mapping[str, LawFit], weights: Mapping[str, float], ahead: Mapping[str, tuple[Ahead, ...]]
) -> tuple[str, bool, str]:
    """The best law, whether the points tell it from the others, and why."""
    if not fits:
        return "", False, "There are too few rungs for any law."
    safe = SAFE if SAFE in fits else next(iter(fits))
    said = "AICc can't compare the laws of so few rungs"
    if weights:
        heaviest = max(weights, key=weights.__getitem__)
        shares = ", ".join(f"{law} {weight:.2f}" for law, weight in weights.items())
        if weights[heaviest] >= TOLD:
            return heaviest, True, f"The rungs tell the laws apart, for {heaviest}: Akaike weights {shares}."
        said = f"AICc can't tell the laws apart (Akaike weights {shares})"
    common = set.intersection(*({one.x for one in rows} for rows in ahead.values()))
    if len(fits) > 1 and len(common) >= COMMON:
        errors = {law: score(one for one in rows if one.x in common).error for law, rows in ahead.items()}
        shares = ", ".join(f"{law} {100 * error:.2g} %" for law, error in errors.items())
        first, second, *_ = sorted(errors, key=errors.__getitem__)
        where = f"over the {len(common)} rungs that every law predicted from the smaller ones (errors {shares})"
        if errors[second] > BETTER * errors[first]:
            return first, True, f"{said}, but {first} errs {BETTER:g} times less or better {where}."
        said += f", and no law errs {BETTER:g} times less than the next {where}"
    why = f"the safe choice, since {UNSAFE}" if safe == SAFE else "all that so few rungs allow, and unsafe"
    mean = ": look at the mean over laws, whose interval holds their disagreement" if weights else ""
    return safe, False, f"{said}. {safe} is {why}{mean}."


def _absent(fits: Mapping[str, LawFit], missing: Mapping[str, str], weights: Mapping[str, float]) -> list[str]:
    """Which laws are not compared, and what they would need."""
    said = [f"{law} was not fitted: {why}" for law, why in missing.items()]
    for law, fit in fits.items():
        if law not in weights and fit.aicc is None:
            need = len(fit.parameters) + 3
            said.append(f"{law} has no AICc with {len(fit.points)} rungs, and no part in the mean; it needs {need}.")
    return said
