"""Which ladder answers a question: candidates are simulated from a pilot's laws and fitted as a study fits them.

A candidate is first judged by the delta method at the pilot's laws; the best at each cost are then simulated, run by
run, and fitted by `fit_law` with the errors over seeds that `Ladder.fitted` gives. The width that a ladder promises is
that of the 95 % interval of ONE new run's measured loss at the target, high less low, relative to the law's value.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from scipy import stats

from rfjax.analysis.engine import Array
from rfjax.analysis.fit import LEVEL
from rfjax.analysis.fitting import PARAMETERS
from rfjax.analysis.ladder import Ladder, Rung
from rfjax.analysis.laws import fit_law
from rfjax.analysis.seeds import pooled_spread
from rfjax.analysis.truths import Truths

SEEDS = (1, 2, 3, 4, 6, 8)
MORE_EXAMPLES = (1, 2, 4)  # times the pilot's validation examples
MOST_RUNGS = 12
STARTS, ENDS = 5, 24  # smallest and largest rungs that are tried, at most
SCREENED = 64  # laws of the delta method
BEYOND = 2.0  # times its largest rung, at least, that a ladder's target lies: nearer, training the target is the answer
CURVE = 8  # points of the curve of width against cost that are simulated
REACH = 25  # sizes up to the target at which simulated ladders are asked


@dataclass(frozen=True)
class Candidate:
    """A ladder: its depths, seeds of each rung, validation examples, sizes of the rungs, and cost."""

    depths: tuple[int, ...]
    seeds: int
    examples: int
    x: tuple[float, ...]
    cost: float


@dataclass(frozen=True)
class Ground:
    """What a design stands on.

    Attributes:
        truths: laws that the pilot leaves possible; the noise is that of one run with the pilot's `examples`.
        share: of the variance between runs, what more validation examples would take away; 0 where it is not known.
        examples: of validation, the pilot's.
        more: multiples of them that are allowed.
        depths: the pilot's, ascending.
        size: depth -> x of the law.
        cost: (depth, examples) -> the cost of one run.
    """

    truths: Truths
    law: str
    objective: str
    share: float
    examples: int
    more: tuple[int, ...]
    depths: tuple[int, ...]
    size: Callable[[float], float]
    cost: Callable[[float, int], float]

    def shrink(self, examples: int) -> float:
        """The noise of a run with so many validation examples, as a share of the pilot's."""
        return float(np.sqrt(1 - self.share + self.share * self.examples / examples))


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


def least_width(ground: Ground, probability: float) -> float:
    """The width that noise allows at best: one run's scatter with its seed, about a law that is known exactly."""
    sigma = np.quantile(ground.truths.sigma, probability) * ground.shrink(ground.examples * max(ground.more))
    return float(2 * np.sinh(stats.norm.ppf((1 + LEVEL) / 2) * sigma))


def candidates(ground: Ground, target: float) -> Iterator[Candidate]:
    """All ladders that are tried, at most half as large as the target at their largest rung."""
    for depths in _depths(ground, target):
        x = tuple(map(ground.size, depths))
        for more in ground.more:
            examples = ground.examples * more
            once = sum(ground.cost(depth, examples) for depth in depths)
            yield from (Candidate(depths, seeds, examples, x, seeds * once) for seeds in SEEDS)


def _depths(ground: Ground, target: float) -> list[tuple[int, ...]]:
    first, top = ground.depths[0], ground.depths[0]
    while ground.size(top + 1) * BEYOND <= target and top < 10_000:
        top += 1
    starts = {int(d) for d in np.rint(np.geomspace(first, max(first, ground.depths[-1] - 1), STARTS))}
    ends = {int(d) for d in np.rint(np.geomspace(first + 1, max(first + 1, top), ENDS))}
    found: dict[tuple[int, ...], None] = {}
    fewest = len(PARAMETERS[ground.law]) + 1
    for low in sorted(starts):
        for high in sorted(end for end in ends if low < end <= top):
            for rungs in range(fewest, MOST_RUNGS + 1):
                for space in (np.geomspace, np.linspace):
                    depths = tuple(sorted({int(d) for d in np.rint(space(low, high, rungs))}))
                    if len(depths) >= fewest:
                        found[depths] = None
    return list(found)


def screen(ground: Ground, tried: Sequence[Candidate], target: float, probability: float) -> Float[np.ndarray, " c"]:
    """The width that each candidate keeps with this probability, by the delta method; fixed draws, no fits."""
    rng, truths = np.random.default_rng(0), ground.truths.some(slice(SCREENED))
    at, leverage = np.array([target]), {}
    gradient = truths.jacobian(at, ground.law)[:, 0]
    widths = np.zeros(len(tried))
    for i, one in enumerate(tried):
        if one.depths not in leverage:
            jacobian = truths.jacobian(np.array(one.x), ground.law)
            scale = np.linalg.norm(jacobian, axis=1)
            gram = np.einsum("mki,mkj->mij", jacobian, jacobian) / scale[:, :, None] / scale[:, None]
            scaled = gradient / scale
            inverse = np.linalg.pinv(gram, hermitian=True)
            leverage[one.depths] = np.einsum("mi,mij,mj->m", scaled, inverse, scaled)
        freedom = len(one.depths) - gradient.shape[1]
        scatter = rng.chisquare(freedom, len(truths)) / freedom
        if one.seeds > 1:
            spare = len(one.depths) * (one.seeds - 1)
            scatter = np.maximum(scatter, rng.chisquare(spare, len(truths)) / spare)
        error = truths.sigma * ground.shrink(one.examples) * np.sqrt(scatter * (leverage[one.depths] / one.seeds + 1))
        half = stats.t.ppf((1 + LEVEL) / 2, freedom) * error
        widths[i] = np.quantile(2 * np.sinh(np.minimum(half, 50.0)), probability)
    return widths


def front(tried: Sequence[Candidate], widths: Float[np.ndarray, " c"]) -> list[Candidate]:
    """The candidates that no cheaper one beats, by cost."""
    kept, best = [], np.inf
    for i in sorted(range(len(tried)), key=lambda i: (tried[i].cost, widths[i])):
        if widths[i] < best:
            kept.append(tried[i])
            best = widths[i]
    return kept


def screened(ground: Ground, target: float, limit: float, probability: float) -> list[Candidate]:
    """The front of all candidates that cost no more than the limit."""
    tried = [one for one in candidates(ground, target) if one.cost <= limit]
    return front(tried, screen(ground, tried, target, probability))


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
    spread = pooled_spread(losses)
    error = lambda row: None if spread is None else spread.stderr(float(row.mean()), one.seeds)  # noqa: E731
    rungs = tuple(
        Rung(f"d{d}", size, tuple(row.tolist()), None, (), error(row))
        for d, size, row in zip(one.depths, one.x, losses, strict=True)
    )
    fitted = Ladder(rungs, (), spread, ()).fitted
    fit = fit_law(law=ground.law, objective=ground.objective, **fitted)
    found = fit.predict(sizes)
    if fit.typical_stderr is not None:
        found = fit.predict(sizes, y_stderr=spread.relative * found.value)
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
    for i in sorted({int(i) for i in np.rint(np.linspace(0, len(best) - 1, CURVE))}):
        search(best[i])
    reach = search.furthest(width, limit) if width and wanted is None else None
    curve = tuple(sorted(search.done.values(), key=lambda found: found.candidate.cost))
    return Designs(wanted, affordable, curve, reach, limit(target))
