"""Was the width kept that a study promised, what does its interval rest on, and what would narrow it?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from rfjax.analysis.engine import OBJECTIVES, Array
from rfjax.analysis.fit import LEVEL
from rfjax.analysis.ladder import Ladder, Rung
from rfjax.analysis.laws import LawFit
from rfjax.analysis.shapes import SHAPES

SAME = 1e-3  # relative: a size that is so near to a rung's is the rung's
LESS = 0.5  # of what seeds can take away from a width: what "narrower" asks for
MOST_RUNS = 200  # that are tried, one after the other


@dataclass(frozen=True)
class Promise:
    """What was promised of the 95 % interval of one new run's loss.

    Attributes:
        x: the size.
        width: upper end less lower end, relative to the law's value; 0: nothing was promised.
        probability: with which it was promised.
    """

    x: float
    width: float = 0.0
    probability: float = 0.8


class Predicted:
    """What every answer says of its interval, of what was measured, and of the width that was promised (0: none)."""

    value: float
    low: float
    high: float
    measured: float | None
    promised: float
    probability: float

    @property
    def width(self) -> float:
        return (self.high - self.low) / self.value

    @property
    def kept(self) -> bool | None:
        """Whether the interval is as narrow as was promised; None where nothing was."""
        return self.width <= self.promised if self.promised else None

    @property
    def inside(self) -> bool | None:
        """Whether the interval holds what was measured; None where nothing was."""
        return None if self.measured is None else self.low <= self.measured <= self.high

    @property
    def error(self) -> float | None:
        """Predicted over measured, less 1."""
        return None if self.measured is None else self.value / self.measured - 1


@dataclass(frozen=True)
class Answer(Predicted):
    """The law's answer at a size that it has not seen.

    Attributes:
        value: of the law; low, high: the 95 % interval of one new run's loss.
        rung: its name where it was trained, and `measured` the mean loss there; else "" and None.
        beyond: the size over that of the largest rung in the fit.
    """

    promise: Promise
    value: float
    low: float
    high: float
    rung: str
    measured: float | None
    beyond: float

    @property
    def promised(self) -> float:
        return self.promise.width

    @property
    def probability(self) -> float:
        return self.promise.probability


@dataclass(frozen=True)
class Narrower:
    """Runs that would narrow an interval.

    Attributes:
        runs: (name of a rung, seeds to add).
        width: of the interval then, as the delta method has it.
        cost: of these runs, in the unit of the costs that were given.
        least: the width that no number of seeds goes below.
    """

    runs: tuple[tuple[str, int], ...]
    width: float
    cost: float
    least: float


def answer(promise: Promise, ladder: Ladder, judged: LawFit, whole: LawFit) -> Answer:
    """Asks the law at the promise's size: the one without the held-out rungs where it is one of them, else the whole.

    Args:
        judged: the law without the held-out rungs.
        whole: the law of all rungs.
    """
    rung = next((one for one in ladder.rungs if abs(one.x / promise.x - 1) < SAME), None)
    seen = {point.inputs[0] for point in judged.points}
    fit = whole if rung is None or rung.x in seen else judged
    found = fit.predict(promise.x)
    if fit.typical_stderr is not None and ladder.spread is not None:
        stderr = rung.error if rung else ladder.spread.stderr(found.value, 1, promise.x)
        found = fit.predict(promise.x, y_stderr=stderr)
    beyond = promise.x / max(point.inputs[0] for point in fit.points)
    held = rung if rung and rung.x not in {point.inputs[0] for point in fit.points} else None
    return Answer(promise, *found, held.name if held else "", held.loss if held else None, beyond)


def narrower(
    found: Answer, ladder: Ladder, fit: LawFit, costs: Sequence[float], share: float = LESS
) -> Narrower | None:
    """The seeds to add until the promise is kept, or `share` of what seeds can take away is gone; the best buy first.

    By the delta method at the law, as it stands: the noise and the degrees of freedom of the law are kept.

    Args:
        costs: of one run of each of the ladder's rungs, in any unit.

    Returns:
        None where no number of seeds will do, or the law is not a power of the size, with an offset or without.
    """
    inside = {point.inputs[0] for point in fit.points}
    chosen = [(rung, cost) for rung, cost in zip(ladder.rungs, costs, strict=True) if rung.x in inside and cost > 0]
    if len(chosen) < len(inside) or fit.law not in ("power", "power_offset"):
        return None
    rungs, prices = [rung for rung, _ in chosen], np.array([cost for _, cost in chosen])
    seeds = np.array([rung.seeds for rung in rungs], float)
    present = _half(fit, rungs, seeds, found.promise.x)
    scale = found.width / present
    added, half = np.zeros(len(rungs), int), present
    least = scale * _half(fit, rungs, np.full(len(rungs), np.inf), found.promise.x)
    wanted = found.promise.width if found.kept is False else least + (1 - share) * (found.width - least)
    if least >= wanted:
        return Narrower((), found.width, 0.0, least)
    for _ in range(MOST_RUNS):
        if scale * half <= wanted:
            break
        tried = [_half(fit, rungs, seeds + added + one, found.promise.x) for one in np.eye(len(rungs), dtype=int)]
        best = int(np.argmax((half - np.array(tried)) / prices))
        added[best] += 1
        half = tried[best]
    runs = tuple((rung.name, int(n)) for rung, n in zip(rungs, added, strict=True) if n)
    return Narrower(runs, scale * half, float(added @ prices), least)


def _half(fit: LawFit, rungs: Sequence[Rung], seeds: Array, x: float) -> float:
    """The half width of the interval at x in units of one run's noise, with so many seeds of each rung."""
    sizes = np.array([*(rung.x for rung in rungs), x])
    value, gradient = SHAPES[fit.law].evaluate(np.array(fit.theta), np.log(sizes[:, None] / fit.centre))
    gradient = gradient / value[:, None] if OBJECTIVES[fit.objective].log else gradient
    free = [i for i, name in enumerate(fit.parameters) if not any(b.startswith(f"{name} =") for b in fit.bounds_hit)]
    rows, last = gradient[:-1][:, free], gradient[-1, free]
    if np.isinf(seeds).all():
        leverage = 0.0
    else:
        leverage = float(last @ np.linalg.pinv((rows * seeds[:, None]).T @ rows, hermitian=True) @ last)
    return float(stats.t.ppf((1 + LEVEL) / 2, fit.degrees_of_freedom) * np.sqrt(leverage + 1.0))
