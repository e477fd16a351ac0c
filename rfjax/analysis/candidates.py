"""The ladders that a design tries, and their first judgement: by the delta method at the pilot's possible laws."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from jaxtyping import Float
from scipy import stats

from rfjax.analysis import target_multiplier
from rfjax.analysis.engine import Array
from rfjax.analysis.fit import LEVEL
from rfjax.analysis.fitting import PARAMETERS
from rfjax.analysis.truths import Truths

EQUAL = (1, 2, 3, 4, 8)  # seeds of every rung
FALLS = ((2, 1), (3, 1), (4, 1), (8, 1), (8, 2))  # seeds of the smallest rung and of the largest
FOOT = ((3, 2), (6, 2))  # so many seeds on so many of the smallest rungs, one on the rest
MORE_EXAMPLES = (1, 2, 4)  # times the pilot's validation examples
COUNTS = (4, 5, 6, 8, 10, 12)  # of rungs
STARTS, ENDS = 3, 14  # smallest and largest rungs that are tried, at most
ADDED = (1, 2, 3)  # rungs beyond the pilot's
DEEPEST = 10_000  # blocks
SCREENED = 40  # laws of the delta method
AT_ONCE = 2000  # ladders
BEYOND = 2.0  # times its largest rung, at least, that a ladder's target lies: nearer, training the target is the answer
RIDGE = 1e-13  # of information matrices with columns of norm 1, so that they can be inverted


@dataclass(frozen=True)
class Candidate:
    """A ladder.

    Attributes:
        depths, seeds, x: of each rung; x is the size.
        examples: of validation.
        cost: of the runs that are not there yet.
        reused: how many runs of the pilot it contains; where there are any, it works in the pilot's folder.
        budgets: steps of the runs of each depth and seed; () where the study's rule for steps has one.
    """

    depths: tuple[int, ...]
    seeds: tuple[int, ...]
    examples: int
    x: tuple[float, ...]
    cost: float
    reused: int = 0
    budgets: tuple[int, ...] = ()


@dataclass(frozen=True)
class Side:
    """One design of a question: the only one, or one of two that are compared.

    Attributes:
        truths: laws that the pilot leaves possible; the noise is that of one run with the pilot's `examples`.
        size: depth -> x of the law.
        cost: (depth, examples) -> the cost of one run.
        done: depth -> losses of the pilot's runs that a ladder may contain, of seeds 0, 1, ...
    """

    truths: Truths
    size: Callable[[float], float]
    cost: Callable[[float, int], float]
    done: Mapping[int, Float[np.ndarray, " s"]] = field(default_factory=dict)


@dataclass(frozen=True)
class Ground:
    """What a design stands on.

    Attributes:
        sides: one; or two, whose compute multiplier is asked for: the second is that which the target is of.
        share: of the variance between runs, what more validation examples would take away; 0 where it is not known.
        examples: of validation, the pilot's.
        more: multiples of them that are allowed.
        depths: the pilot's, ascending.
        least_seeds: of each rung.
        named: whether ladders with seeds can contain the pilot's runs; else those with one seed of each rung alone.
        correlation: between the noise of both sides' runs of one depth and seed.
    """

    sides: tuple[Side, ...]
    law: str
    objective: str
    share: float
    examples: int
    more: tuple[int, ...]
    depths: tuple[int, ...]
    least_seeds: int = 1
    named: bool = True
    correlation: float = 0.0

    @property
    def size(self) -> Callable[[float], float]:
        return self.sides[-1].size

    @property
    def truths(self) -> Truths:
        return self.sides[-1].truths

    def cost(self, depth: float, examples: int) -> float:
        """The cost of a run of each side."""
        return sum(side.cost(depth, examples) for side in self.sides)

    def shrink(self, examples: int) -> float:
        """The noise of a run with so many validation examples, as a share of the pilot's."""
        return float(np.sqrt(1 - self.share + self.share * self.examples / examples))

    def path(self, target: float, points: int) -> Float[np.ndarray, " g"]:
        """Sizes up to the target at which simulated ladders are asked."""
        return np.geomspace(self.size(self.depths[-1]), target, points)

    def allows(self, one: Candidate, size: float) -> bool:
        """Whether a ladder may aim at a size."""
        return size >= BEYOND * one.x[-1]

    def done(self, side: Side, one: Candidate, depth: int) -> Float[np.ndarray, " s"]:
        """The losses of the pilot's runs at this depth that the candidate contains."""
        return side.done.get(depth, np.zeros(0)) if one.reused else np.zeros(0)


def least_width(ground: Ground, target: float, probability: float) -> float:
    """The width at x = target that noise allows at best: one run's scatter with its seed, about a law that is known.

    A multiplier is one of laws, which enough seeds would tell: 0.
    """
    if len(ground.sides) == 2:
        return 0.0
    sigma = np.quantile(ground.truths.noise(np.array([target])), probability) * ground.shrink(
        ground.examples * max(ground.more)
    )
    return float(2 * np.sinh(stats.norm.ppf((1 + LEVEL) / 2) * sigma))


@cache
def patterns(rungs: int) -> tuple[tuple[int, ...], ...]:
    """Seeds of each rung, the smallest first: equal, or falling with size, since a small rung's seeds cost little."""
    found = [(count,) * rungs for count in EQUAL]
    for high, low in FALLS:
        found.append(tuple(int(n) for n in np.rint(np.geomspace(high, low, rungs))))
    for high, first in FOOT:
        found.append(tuple(high if i < first else 1 for i in range(rungs)))
    found.append(tuple(3 if 5 * i < 2 * rungs else 2 if 5 * i < 3 * rungs else 1 for i in range(rungs)))
    return tuple(dict.fromkeys(found))


def candidates(ground: Ground, target: float, limit: float = np.inf) -> Iterator[Candidate]:
    """All ladders that are tried and cost no more than the limit, at most half as large as the target.

    A ladder with the pilot's validation examples contains all runs of the pilot that it can: they cost nothing.
    """
    size, price = cache(ground.size), cache(lambda side, depth, examples: ground.sides[side].cost(depth, examples))
    sets, seen = _depths(ground, target), set()
    for more, depths in itertools.product(ground.more, sets):
        examples = ground.examples * more
        for pattern in patterns(len(depths)):
            there = _there(ground, pattern) if more == 1 else [{} for _ in ground.sides]
            wanted = dict(zip(depths, pattern, strict=True))
            rungs = tuple(sorted({*depths, *(depth for done in there for depth in done)}))
            counts = [max(wanted.get(d, 1), ground.least_seeds, *(done.get(d, 0) for done in there)) for d in rungs]
            key = (rungs, tuple(counts), more)
            if key in seen:
                continue
            seen.add(key)
            cost = sum(
                (count - done.get(depth, 0)) * price(side, depth, examples)
                for side, done in enumerate(there)
                for depth, count in zip(rungs, counts, strict=True)
                if count > done.get(depth, 0)
            )
            if cost <= limit:
                reused = sum(sum(done.values()) for done in there)
                yield Candidate(rungs, tuple(counts), examples, tuple(map(size, rungs)), cost, reused)


def _there(ground: Ground, pattern: tuple[int, ...]) -> list[dict[int, int]]:
    """For each side, depth -> seeds of the pilot that a ladder with these seeds can contain."""
    if not ground.named and (set(pattern) != {1} or ground.least_seeds > 1):
        return [{} for _ in ground.sides]
    return [{depth: len(losses) for depth, losses in side.done.items() if len(losses)} for side in ground.sides]


def _depths(ground: Ground, target: float) -> list[tuple[int, ...]]:
    """Evenly and geometrically spaced ladders, and the pilot's with one to three rungs more, or with none."""
    first, top = ground.depths[0], ground.depths[0]
    while ground.size(top + 1) * BEYOND <= target and top < DEEPEST:
        top += 1
    starts = whole(np.geomspace(first, max(first, ground.depths[-1] - 1), STARTS))
    ends = whole(np.geomspace(first + 1, max(first + 1, top), ENDS))
    found: dict[tuple[int, ...], None] = {}
    fewest = len(PARAMETERS[ground.law]) + 1
    counts = [fewest, *(n for n in COUNTS if n > fewest)]
    for low, high, rungs, space in itertools.product(starts, ends, counts, (np.geomspace, np.linspace)):
        depths = whole(space(low, high, rungs)) if low < high <= top else ()
        if len(depths) >= fewest:
            found[depths] = None
    last = ground.depths[-1]
    if len(ground.depths) >= fewest and ground.size(last) < target:
        found[ground.depths] = None
        for high, rungs in itertools.product(ends, ADDED):
            if last < high <= top:
                found[tuple(sorted({*ground.depths, *whole(np.geomspace(last, high, rungs + 1))}))] = None
    return list(found)


def whole(values: Array) -> tuple[int, ...]:
    """The whole numbers nearest to these, each once, ascending."""
    return tuple(sorted({int(value) for value in np.rint(values)}))


def screen(ground: Ground, tried: Sequence[Candidate], target: float, probability: float) -> Float[np.ndarray, " c"]:
    """The width that each candidate keeps with this probability, by the delta method; fixed draws, no fits."""
    rng = np.random.default_rng(0)
    depths = sorted({depth for one in tried for depth in one.depths})
    place = {depth: i for i, depth in enumerate(depths)}
    truths = [side.truths.some(slice(SCREENED)) for side in ground.sides]
    information = _Information(ground, truths, np.array(depths), target)
    draws = cache(lambda n: rng.chisquare(n, len(truths[0])) / n)
    widths = np.zeros(len(tried))
    for first in range(0, len(tried), AT_ONCE):
        some = tried[first : first + AT_ONCE]
        seeds = np.zeros((len(some), len(depths)))
        for row, one in zip(seeds, some, strict=True):
            row[[place[depth] for depth in one.depths]] = one.seeds
        freedom = np.array([len(one.depths) - len(PARAMETERS[ground.law]) for one in some])
        spare = np.array([sum(one.seeds) - len(one.depths) for one in some])
        freedom = freedom + spare  # residuals and seeds are pooled where both tell of one noise
        scatter = np.stack([draws(n) for n in freedom], 1)
        shrink = np.array([ground.shrink(one.examples) for one in some])
        error = shrink * np.sqrt(scatter * information.variance(seeds))
        half = stats.t.ppf((1 + LEVEL) / 2, freedom) * error
        widths[first : first + len(some)] = np.quantile(2 * np.sinh(np.minimum(half, 50.0)), probability, axis=0)
    return widths


class _Information:
    """What runs at each depth tell of the answer, at each possible law."""

    def __init__(self, ground: Ground, truths: Sequence[Truths], depths: Array, target: float) -> None:
        """Takes the derivatives of log losses by the parameters, at all depths and for the answer."""
        rungs = []
        for side, one in zip(ground.sides, truths, strict=True):
            x = np.array([side.size(depth) for depth in depths])
            rungs.append(one.jacobian(x, ground.law) / one.course.at(x)[:, None])
        self.sigma, self.correlation, self.new = [one.sigma for one in truths], ground.correlation, len(truths) == 1
        self.one_run = truths[0].noise(np.array([target]))[:, 0]
        if self.new:
            gradients = [truths[0].jacobian(np.array([target]), ground.law)[:, 0]]
        else:
            gradients = target_multiplier.gradients(*truths, target, ground.law)
        scale = [np.linalg.norm(jacobian, axis=1) for jacobian in rungs]
        self.rungs = [jacobian / s[:, None] for jacobian, s in zip(rungs, scale, strict=True)]
        self.gradients = [gradient / s for gradient, s in zip(gradients, scale, strict=True)]

    def variance(self, seeds: Float[np.ndarray, "c d"]) -> Float[np.ndarray, "m c"]:
        """Of the logarithm of the answer, for ladders with these seeds at each depth."""
        solved = []
        for jacobian, gradient in zip(self.rungs, self.gradients, strict=True):
            m, d, p = jacobian.shape
            products = (jacobian[..., :, None] * jacobian[..., None, :]).reshape(m, d, p * p)
            gram = (seeds @ products).reshape(m, len(seeds), p, p)
            gram = gram + RIDGE * np.trace(gram, axis1=-2, axis2=-1)[..., None, None] * np.eye(p)
            solved.append(np.linalg.solve(gram, gradient[:, None, :, None])[..., 0])
        parts = [
            sigma[:, None] ** 2 * np.maximum((one * gradient[:, None]).sum(-1), 0)
            for sigma, one, gradient in zip(self.sigma, solved, self.gradients, strict=True)
        ]
        if self.new:
            return parts[0] + self.one_run[:, None] ** 2
        a, b = (jacobian @ one.mT for jacobian, one in zip(self.rungs, solved, strict=True))  # (m, d, c)
        shared = (seeds.T * a * b).sum(1) * (self.sigma[0] * self.sigma[1])[:, None]
        return np.maximum(parts[0] + parts[1] + 2 * self.correlation * shared, 0)


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
    tried = list(candidates(ground, target, limit))
    return front(tried, screen(ground, tried, target, probability)) if tried else []
