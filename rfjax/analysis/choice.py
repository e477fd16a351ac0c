"""Which law? Three are fitted to all rungs: their predictions judge them, and a mean of them heeds all.

Weights are of predictions, not Akaike's: on six rungs the correction of AICc alone takes 28 off a law with E (k = 4)
beside one without (k = 3), whatever the losses are, since it supposes that a fit predicts with a normal error of the
residuals' size. These fits predict with Student's t, which knows its few degrees of freedom, and are judged as such.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from rfjax.analysis.engine import OBJECTIVES
from rfjax.analysis.fit import LEVEL, Prediction
from rfjax.analysis.fitting import TooFewPoints
from rfjax.analysis.laws import LAWS, UNSAFE, LawFit, fit_law
from rfjax.analysis.successive import Ahead, score, successive

SAFE = "power_offset"
TOLD = 0.95  # weight from which the points are said to tell a law from the others
BETTER = 2.0  # times smaller successive errors that decide where AICc does not
COMMON = 3  # rungs that all laws must have predicted for that
NESTED = "power"  # is within both others, E = 0 or no break, so that no losses can show it to be the law
PERFECT = 1e-9  # of the loss: the least scale of a prediction, where losses follow a law to the last digit
HALVINGS = 60  # of the bracket of an averaged quantile


@dataclass(frozen=True)
class Choice:
    """The laws of all rungs and what speaks for each.

    Attributes:
        fits: of the laws that the rungs suffice for.
        missing: law -> why it was not fitted.
        weights: of the laws that predict each rung from the others, by how likely they found it (`predictive_weights`);
            empty where fewer than two do.
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
        """The mean of the laws' predictions by their weights; None where there are no weights.

        The interval holds a new measured loss: the quantiles of the mixture of the laws' own predictive distributions,
        Student's t with each law's scale and degrees of freedom, so that it widens where the laws part.

        Args:
            x: sizes, any shape.
            level: of the interval.
        """
        if not self.weights:
            return None
        shape = np.shape(x)
        sizes = np.ravel(np.asarray(x, float))
        fits, weights = [self.fits[law] for law in self.weights], np.array(list(self.weights.values()))
        back = np.exp if OBJECTIVES[fits[0].objective].log else np.asarray
        freedom = np.array([fit.degrees_of_freedom for fit in fits])[:, None]
        centre, scale = (np.array(rows) for rows in zip(*(_student(fit, sizes, None) for fit in fits), strict=True))
        ends = [_quantile(p, weights[:, None], centre, scale, freedom) for p in ((1 - level) / 2, (1 + level) / 2)]
        made = [back(values).reshape(shape) for values in (weights @ centre, *ends)]
        return Prediction(*(values if shape else float(values) for values in made))


def _student(fit: LawFit, x: Any, y_stderr: Any) -> tuple[Any, Any]:
    """Centre and scale of the Student's t that a law predicts with: of the log loss for the log objectives."""
    value, _, high = fit.predict(x, y_stderr=y_stderr)
    if OBJECTIVES[fit.objective].log:
        value, high = np.log(value), np.log(high)
    return value, (high - value) / stats.t.ppf((1 + LEVEL) / 2, fit.degrees_of_freedom)


def _quantile(p: float, weights: Any, centre: Any, scale: Any, freedom: Any) -> Any:
    """Where a mixture of Student's t, rows of (laws, n), has the probability p below it: (n,), by bisection."""
    scale = np.maximum(scale, np.finfo(float).tiny)  # of a law that its points lie on to the last digit
    each = centre + scale * stats.t.ppf(p, freedom)
    low, high = each.min(0), each.max(0)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        below = np.sum(weights * stats.t.cdf((middle - centre) / scale, freedom), axis=0) < p
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2


def choose_law(x: ArrayLike, y: ArrayLike, **options: Any) -> Choice:
    """Fits every law to all rungs and says what predictions of rungs left out and of larger rungs make of them.

    Arguments as in `fit_law`, one point a rung.
    """
    fits, missing = {}, {}
    for law in LAWS:
        try:
            fits[law] = fit_law(x, y, law=law, **options)
        except TooFewPoints as error:
            missing[law] = str(error)
    ahead = {law: successive(x, y, law=law, **options) for law in fits}
    scores = {law: found for law in fits if (found := predictive_score(x, y, law=law, **options)) is not None}
    weights = predictive_weights(scores) if len(scores) > 1 else {}
    best, told, reason = _verdict(fits, weights, ahead)
    return Choice(fits, missing, weights, ahead, best, told, " ".join([reason, *_absent(fits, missing, weights)]))


def predictive_score(
    x: ArrayLike, y: ArrayLike, *, law: str, y_stderr: ArrayLike | None = None, labels: Any = None, **options: Any
) -> float | None:
    """The sum over rungs of the log density that the law of the others gives to it (Geisser and Eddy 1979).

    None where the others do not suffice for the law. Arguments as in `fit_law`, one point a rung.
    """
    sizes, losses = np.asarray(x, float), np.asarray(y, float)
    usable = np.isfinite(losses) & (losses > 0)
    errors, total = None if y_stderr is None else np.asarray(y_stderr, float), 0.0
    for i in np.flatnonzero(usable):
        rest = usable & (np.arange(sizes.size) != i)
        own, others = (None, None) if errors is None else (errors[i], errors[rest])
        try:
            fit = fit_law(sizes[rest], losses[rest], law=law, y_stderr=others, **options)
        except TooFewPoints:
            return None
        centre, scale = _student(fit, sizes[i], own)
        at = np.log(losses[i]) if OBJECTIVES[fit.objective].log else losses[i]
        scale = max(float(scale), PERFECT * abs(float(losses[i])))
        total += _log_density((at - centre) / scale, fit.degrees_of_freedom) - np.log(scale)
    return total


def _log_density(u: float, freedom: float) -> float:
    """Of Student's t; `stats.t.logpdf` looks for JAX, which a report does without."""
    half = freedom / 2
    return float(
        special.gammaln(half + 0.5) - special.gammaln(half) - np.log(freedom * np.pi) / 2
        - (half + 0.5) * np.log1p(u * u / freedom)
    )  # fmt: skip


def predictive_weights(scores: Mapping[str, float]) -> dict[str, float]:
    """exp(score), with sum 1: pseudo-Bayesian model averaging (Yao et al. 2018, section 3.4)."""
    highest = max(scores.values())
    raw = {law: float(np.exp(value - highest)) for law, value in scores.items()}
    return {law: value / sum(raw.values()) for law, value in raw.items()}


def _verdict(
    fits: Mapping[str, LawFit], weights: Mapping[str, float], ahead: Mapping[str, tuple[Ahead, ...]]
) -> tuple[str, bool, str]:
    """The best law, whether the points tell it from the others, and why."""
    if not fits:
        return "", False, "There are too few rungs for any law."
    safe = SAFE if SAFE in fits else next(iter(fits))
    said = "So few rungs can't compare the laws"
    if weights:
        heaviest = max(weights, key=weights.__getitem__)
        shares = ", ".join(f"{law} {weight:.2f}" for law, weight in weights.items())
        if weights[heaviest] >= TOLD and heaviest != NESTED:
            return heaviest, True, f"The rungs tell the laws apart, for {heaviest}: weights {shares}."
        said = f"The rungs can't tell the laws apart (weights {shares})"
        if heaviest == NESTED and SAFE in fits:
            top = fits[SAFE].intervals["E"][1]
            said += f"; they are content without E, and do not exclude one of up to {top:.3g}"
    common = set.intersection(*({one.x for one in rows} for rows in ahead.values()))
    if len(fits) > 1 and len(common) >= COMMON:
        errors = {law: score(one for one in rows if one.x in common).error for law, rows in ahead.items()}
        shares = ", ".join(f"{law} {100 * error:.2g} %" for law, error in errors.items())
        first, second, *_ = sorted(errors, key=errors.__getitem__)
        where = f"over the {len(common)} rungs that every law predicted from the smaller ones (errors {shares})"
        if errors[second] > BETTER * errors[first] and first != NESTED:
            return first, True, f"{said}, but {first} errs {BETTER:g} times less or better {where}."
        said += f", and no law with an E or a break errs {BETTER:g} times less than the next {where}"
    why = f"the safe choice, since {UNSAFE}" if safe == SAFE else "all that so few rungs allow, and unsafe"
    mean = ": look at the mean over laws, whose interval holds their disagreement" if weights else ""
    return safe, False, f"{said}. {safe} is {why}{mean}."


def _absent(fits: Mapping[str, LawFit], missing: Mapping[str, str], weights: Mapping[str, float]) -> list[str]:
    """Which laws are not compared, and what they would need."""
    said = [f"{law} was not fitted: {why}" for law, why in missing.items()]
    for law, fit in fits.items():
        if weights and law not in weights:
            need = len(fit.parameters) + 2
            said.append(f"{law} has no weight with {len(fit.points)} rungs, and no part in the mean; it needs {need}.")
    return said
