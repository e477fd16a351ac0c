"""Which ladder answers a question: candidates are simulated from a pilot's laws and fitted as a study fits them.

The best candidates at each cost are simulated run by run, and fitted by `fit_law` with the errors over seeds that
`Ladder.fitted` gives. The width that a ladder promises is that of the 95 % interval of ONE new run's measured loss at
the target, high less low, relative to the law's value.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from rfjax.analysis.candidates import BEYOND, Candidate, Ground, screened, whole
from rfjax.analysis.engine import Array
from rfjax.analysis.ladder import Ladder, Rung
from rfjax.analysis.laws import fit_law
from rfjax.analysis.seeds import pooled_spread
from rfjax.analysis.truths import Truths

CURVE = 8  # points of the curve of width against cost that are simulated
REACH = 25  # sizes up to the target at which simulated ladders are asked


@dataclass(frozen=True)
class Simulated:
    """What simulated ladders of a candidate gave.

    Attributes:
        widths: relative, at each size asked, shape (ladders, sizes).
        inside: whether the interval at the last size held a new run's loss, shape (ladders,).
    """

    candidate: Candidate
    widths: Float[np.ndarray, "m g"]
    inside: Float[np.ndarray, " m"]

    def width(self, probability: float) -> float:
        """The width at the target that this share of ladders keeps."""
        return float(np.quantile(self.widths[:, -1], probability, method="higher"))

    def kept(self, width: float) -> float:
        """The share of ladders whose interval at the target is no wider."""
        return float(np.mean(self.widths[:, -1] <= width))


def simulate(
    ground: Ground, one: Candidate, sizes: Float[np.ndarray, " g"], truths: Truths, rng: np.random.Generator
) -> Simulated:
    """Runs a candidate once on each law, fits it as a study does, and asks for its intervals.

    Args:
        sizes: where to ask; the last is the target.
    """
    x, sigma = np.array(one.x), truths.sigma * ground.shrink(one.examples)
    means, new = truths.loss(x), truths.loss(sizes[-1:])[:, 0] * np.exp(sigma * rng.normal(size=len(truths)))
    noise = sigma[:, None, None] * rng.normal(size=(len(truths), x.size, one.seeds))
    widths, inside = np.zeros((len(truths), sizes.size)), np.zeros(len(truths))
    for i in range(len(truths)):
        value, low, high = interval(ground, one, means[i, :, None] * np.exp(noise[i]), sizes)
        widths[i], inside[i] = (high - low) / value, low[-1] <= new[i] <= high[-1]
    return Simulated(one, widths, inside)


def interval(
    ground: Ground, one: Candidate, losses: Float[np.ndarray, "k s"], sizes: Float[np.ndarray, " g"]
) -> tuple[Array, Array, Array]:
    """The law's value and the 95 % interval of one new run's loss, from a ladder's losses by rung and seed."""
    spread = pooled_spread(losses, one.x)
    error = lambda row, x: None if spread is None else spread.stderr(float(row.mean()), one.seeds, x)  # noqa: E731
    rungs = tuple(
        Rung(f"d{d}", size, tuple(row.tolist()), None, (), error(row, size))
        for d, size, row in zip(one.depths, one.x, losses, strict=True)
    )
    fitted = Ladder(rungs, (), spread, ()).fitted
    fit = fit_law(law=ground.law, objective=ground.objective, **fitted)
    found = fit.predict(sizes)
    if fit.typical_stderr is not None:
        found = fit.predict(sizes, y_stderr=[spread.stderr(v, 1, x) for v, x in zip(found.value, sizes, strict=True)])
    return found.value, found.low, found.high


@dataclass
class Search:
    """Simulates candidates of a front when they are asked for, each once, all on the same laws."""

    ground: Ground
    sizes: Float[np.ndarray, " g"]
    probability: float
    trials: int
    done: dict[Candidate, Simulated] = field(default_factory=dict)

    def __call__(self, one: Candidate) -> Simulated:
        if one not in self.done:
            truths, rng = self.ground.truths.some(slice(self.trials)), np.random.default_rng(1)
            self.done[one] = simulate(self.ground, one, self.sizes, truths, rng)
        return self.done[one]

    def confirmed(self, one: Candidate) -> Simulated:
        """The same on laws that chose nothing."""
        truths = self.ground.truths.some(slice(self.trials, 2 * self.trials))
        return simulate(self.ground, one, self.sizes, truths, np.random.default_rng(2))

    def cheapest(self, best: Sequence[Candidate], width: float) -> Simulated | None:
        """The cheapest of a front that keeps the width, by halving, as fresh laws confirm; None where none does."""
        low, high = 0, len(best)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self(best[middle]).width(self.probability) <= width else (middle + 1, high)
        for one in best[low:]:
            if self(one).width(self.probability) <= width:
                found = self.confirmed(one)
                if found.kept(width) >= self.probability:
                    return found
        return None

    def narrowest(self, best: Sequence[Candidate]) -> Simulated:
        """Of the dearest of a front, that with the least width."""
        chosen = min(best[-3:], key=lambda one: self(one).width(self.probability))
        return self.confirmed(chosen)

    def furthest(self, width: float, limit: Callable[[float], float]) -> tuple[float, Simulated] | None:
        """The largest size at which a simulated ladder keeps the width, for at most limit(size), and that ladder."""
        reached = [
            (float(size), -found.candidate.cost, found)
            for found in self.done.values()
            for j, size in enumerate(self.sizes)
            if size >= BEYOND * found.candidate.x[-1]
            and found.candidate.cost <= limit(float(size))
            and np.mean(found.widths[:, j] <= width) >= self.probability
        ]
        best = max(reached, key=lambda row: row[:2], default=None)
        return None if best is None else (best[0], best[2])


@dataclass(frozen=True)
class Designs:
    """The answer.

    Attributes:
        wanted: the cheapest ladder of the wanted width; None where none was asked for, or none keeps it.
        affordable: the narrowest ladder within the budget, or, without one, within the cost of the target itself.
        curve: simulated ladders by cost.
        reach: the furthest size of the wanted width and its ladder, where the target is too far.
        limit: what a ladder was allowed to cost.
    """

    wanted: Simulated | None
    affordable: Simulated
    curve: tuple[Simulated, ...]
    reach: tuple[float, Simulated] | None
    limit: float


def design(
    ground: Ground, target: float, limit: Callable[[float], float], *, width: float, probability: float, trials: int
) -> Designs | None:
    """Searches the ladders; None where not even the cheapest costs less than the limit.

    Args:
        target: x of the question.
        limit: size -> what a ladder that aims at it may cost.
        width: wanted, relative; 0 asks for none.
        probability: with which a ladder keeps its width.
        trials: simulated ladders of a candidate; `ground.truths` has twice as many laws.
    """
    best = screened(ground, target, limit(target), probability)
    if not best:
        return None
    search = Search(ground, np.geomspace(ground.size(ground.depths[-1]), target, REACH), probability, trials)
    wanted = search.cheapest(best, width) if width else None
    affordable = search.narrowest(best)
    for i in whole(np.linspace(0, len(best) - 1, CURVE)):
        search(best[i])
    reach = search.furthest(width, limit) if width and wanted is None else None
    curve = tuple(sorted(search.done.values(), key=lambda found: found.candidate.cost))
    return Designs(wanted, affordable, curve, reach, limit(target))
