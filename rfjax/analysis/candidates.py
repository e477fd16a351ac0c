"""The ladders that a design tries, and their first judgement: by the delta method at the pilot's possible laws."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from rfjax.analysis.engine import Array
from rfjax.analysis.fit import LEVEL
from rfjax.analysis.fitting import PARAMETERS
from rfjax.analysis.truths import Truths

SEEDS = (1, 2, 3, 4, 6, 8)
MORE_EXAMPLES = (1, 2, 4)  # times the pilot's validation examples
MOST_RUNGS = 12
STARTS, ENDS = 5, 24  # smallest and largest rungs that are tried, at most
DEEPEST = 10_000  # blocks
SCREENED = 64  # laws of the delta method
BEYOND = 2.0  # times its largest rung, at least, that a ladder's target lies: nearer, training the target is the answer


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
        seeds: numbers of seeds that are tried.
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
    seeds: tuple[int, ...] = SEEDS

    def shrink(self, examples: int) -> float:
        """The noise of a run with so many validation examples, as a share of the pilot's."""
        return float(np.sqrt(1 - self.share + self.share * self.examples / examples))


def least_width(ground: Ground, probability: float) -> float:
    """The width that noise allows at best: one run's scatter with its seed, about a law that is known."""
    sigma = np.quantile(ground.truths.sigma, probability) * ground.shrink(ground.examples * max(ground.more))
    return float(2 * np.sinh(stats.norm.ppf((1 + LEVEL) / 2) * sigma))


def candidates(ground: Ground, target: float) -> Iterator[Candidate]:
    """All ladders that are tried, at most half as large as the target at their largest rung."""
    for depths in _depths(ground, target):
        x = tuple(map(ground.size, depths))
        for more in ground.more:
            examples = ground.examples * more
            once = sum(ground.cost(depth, examples) for depth in depths)
            yield from (Candidate(depths, seeds, examples, x, seeds * once) for seeds in ground.seeds)


def _depths(ground: Ground, target: float) -> list[tuple[int, ...]]:
    first, top = ground.depths[0], ground.depths[0]
    while ground.size(top + 1) * BEYOND <= target and top < DEEPEST:
        top += 1
    starts = whole(np.geomspace(first, max(first, ground.depths[-1] - 1), STARTS))
    ends = whole(np.geomspace(first + 1, max(first + 1, top), ENDS))
    found: dict[tuple[int, ...], None] = {}
    fewest = len(PARAMETERS[ground.law]) + 1
    spaces, counts = (np.geomspace, np.linspace), range(fewest, MOST_RUNGS + 1)
    for low, high, rungs, space in itertools.product(starts, ends, counts, spaces):
        depths = whole(space(low, high, rungs)) if low < high <= top else ()
        if len(depths) >= fewest:
            found[depths] = None
    return list(found)


def whole(values: Array) -> tuple[int, ...]:
    """The whole numbers nearest to these, each once, ascending."""
    return tuple(sorted({int(value) for value in np.rint(values)}))


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
