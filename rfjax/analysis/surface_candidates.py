"""The grids of depths and token budgets that a design tries: what they contain of the pilot, and what they cost."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from jaxtyping import Float
from scipy import stats

from rfjax.analysis.candidates import ADDED, BEYOND, DEEPEST, Candidate, whole
from rfjax.analysis.fit import LEVEL
from rfjax.analysis.surface_truths import FEWEST_EACH, FEWEST_GROUPS, SurfaceTruths

COUNTS = (4, 5, 6, 8)  # of depths, in grids that do not go on from the pilot's
BUDGETS = (3, 4, 5, 6)  # how many
APART = 1.2  # times a budget that the next one is, at least
STARTS, ENDS = 2, 6  # smallest and largest depths and budgets that are tried, at most
EQUAL = (1, 2, 3, 5)  # seeds of every depth
FALLS = ((2, 1), (3, 1), (5, 1), (8, 2))  # seeds of the smallest depth and of the largest


@dataclass(frozen=True)
class SurfaceSide:
    """The design of the question.

    Attributes:
        truths: surfaces that the pilot leaves possible.
        size: depth -> parameters.
        run: (depth, steps, first step) -> the cost of a run: of training from that step on, and of validation.
        decay_start: steps -> the step at which such a run branches off; None where each run is trained apart.
        done: (depth, seed) -> steps -> loss, of the pilot's runs that a ladder may contain.
    """

    truths: SurfaceTruths
    size: Callable[[float], float]
    run: Callable[[float, float, int], float]
    decay_start: Callable[[int], int] | None = None
    done: Mapping[tuple[int, int], Mapping[int, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class SurfaceGround:
    """What a design of token budgets stands on; a size in question is the share of the way to the target.

    Attributes:
        sides: one.
        batch: examples of a step.
        depths, budgets: the pilot's; budgets in steps. Both ascending.
        target: parameters and examples; the way to it starts at the pilot's largest of both.
        examples: of validation.
        least_seeds: of each depth.
        named: whether ladders with seeds can contain the pilot's runs; else those with one seed of each depth alone.
    """

    sides: tuple[SurfaceSide]
    batch: int
    depths: tuple[int, ...]
    budgets: tuple[int, ...]
    target: tuple[float, float]
    examples: int
    least_seeds: int = 1
    named: bool = True

    @property
    def truths(self) -> SurfaceTruths:
        return self.sides[0].truths

    @property
    def size(self) -> Callable[[float], float]:
        return self.sides[0].size

    @property
    def branched(self) -> bool:
        return self.sides[0].decay_start is not None

    def at(self, share: Float[np.ndarray, "..."] | float) -> Float[np.ndarray, "... 2"]:
        """(n, d) on the way, straight in logarithms: 0 is the pilot's corner, 1 the target."""
        corner = np.log([self.size(self.depths[-1]), self.budgets[-1] * self.batch])
        return np.exp(corner + np.multiply.outer(share, np.log(self.target) - corner))

    def path(self, points: int) -> Float[np.ndarray, " g"]:
        """Shares at which simulated ladders are asked; the last is the target."""
        return np.linspace(0, 1, points + 1)[1:]

    def allows(self, one: Candidate, share: float) -> bool:
        """Whether a ladder may aim there: what is new in it is at most half as large, and trained for no longer."""
        n, d = self.at(share)
        new = [x for depth, x in zip(one.depths, one.x, strict=True) if depth not in self.depths]
        longest = max((steps for steps in one.budgets if steps not in self.budgets), default=0)
        return BEYOND * max(new, default=0) <= n * (1 + 1e-9) and longest * self.batch <= d * (1 + 1e-9)

    def points(self, one: Candidate) -> Float[np.ndarray, "groups each 2"]:
        """(n, d) of all runs: a group is a trunk with its branches, by depth and seed, or else a single run."""
        n = np.repeat(one.x, one.seeds)
        d = np.array(one.budgets) * float(self.batch)
        grid = np.stack(np.broadcast_arrays(n[:, None], d), -1)
        return grid if self.branched else grid.reshape(-1, 1, 2)

    def known(self, depth: int, seed: int, budgets: tuple[int, ...]) -> dict[int, float]:
        """The pilot's runs of these budgets at a depth and seed: steps -> loss."""
        done = self.sides[0].done.get((depth, seed), {})
        return {steps: done[steps] for steps in budgets if steps in done}


def candidates(ground: SurfaceGround, limit: float = np.inf) -> Iterator[Candidate]:
    """All grids that are tried and cost no more than the limit.

    The largest new depth has at most half of the target's parameters, and the longest new budget at most its examples.
    """
    size, price = cache(ground.size), cache(ground.sides[0].run)
    seen = set()
    for chosen, budgets in itertools.product(_depths(ground), _budgets(ground)):
        free = {depth for depth in ground.depths if len(ground.known(depth, 0, budgets)) == len(budgets)}
        depths = tuple(sorted({*chosen, *(free if ground.named else ())}))
        for pattern in patterns(len(depths)):
            seeds = _seeds(ground, depths, budgets, pattern)
            key = (depths, budgets, seeds)
            if key in seen or (sum(seeds) if ground.branched else sum(seeds) * len(budgets)) < FEWEST_GROUPS:
                continue
            seen.add(key)
            cost, reused = cost_of(ground, depths, seeds, budgets, price)
            if cost <= limit:
                yield Candidate(depths, seeds, ground.examples, tuple(map(size, depths)), cost, reused, budgets)


@cache
def patterns(depths: int) -> tuple[tuple[int, ...], ...]:
    """Seeds of each depth, the smallest first: equal, or falling with size."""
    found = [(count,) * depths for count in EQUAL]
    found += [tuple(int(n) for n in np.rint(np.geomspace(high, low, depths))) for high, low in FALLS]
    return tuple(dict.fromkeys(found))


def _seeds(
    ground: SurfaceGround, depths: tuple[int, ...], budgets: tuple[int, ...], pattern: tuple[int, ...]
) -> tuple[int, ...]:
    """The pattern's seeds, and all those of the pilot that cost nothing."""
    wanted = [max(n, ground.least_seeds) for n in pattern]
    if ground.named:
        free = [next(s for s in itertools.count() if len(ground.known(d, s, budgets)) < len(budgets)) for d in depths]
        wanted = [max(pair) for pair in zip(wanted, free, strict=True)]
    return tuple(wanted)


def cost_of(
    ground: SurfaceGround,
    depths: tuple[int, ...],
    seeds: tuple[int, ...],
    budgets: tuple[int, ...],
    price: Callable[..., float],
) -> tuple[float, int]:
    """What is still to train costs, and how many runs are the pilot's.

    A finished trunk has kept the checkpoints of its own branches alone. So a grid that would branch off it elsewhere
    is trained anew, in a folder of its own.
    """
    every = [(depth, seed) for depth, count in zip(depths, seeds, strict=True) for seed in range(count)]
    if ground.named or set(seeds) == {1}:
        known = {run: ground.known(*run, budgets) for run in every}
        if ground.branched and any(_dead_end(ground, done, budgets) for done in known.values()):
            known = {}
    else:
        known = {}
    cost, start = 0.0, ground.sides[0].decay_start
    for depth, seed in every:
        there = known.get((depth, seed), {})
        for steps in budgets:
            if steps not in there:
                cost += price(depth, steps, start(steps) if start and steps != budgets[-1] else 0)
    return cost, sum(map(len, known.values()))


def _dead_end(ground: SurfaceGround, done: Mapping[int, float], budgets: tuple[int, ...]) -> bool:
    """Whether a branch is missing whose trunk is finished and has no checkpoint for it."""
    if budgets[-1] not in done:
        return False
    missing = [steps for steps in budgets if steps not in done]
    return any(steps not in ground.budgets or budgets[-1] != ground.budgets[-1] for steps in missing)


def _depths(ground: SurfaceGround) -> list[tuple[int, ...]]:
    """The pilot's depths, these with one to three more, and evenly and geometrically spaced ones."""
    n, (first, last) = ground.target[0], (ground.depths[0], ground.depths[-1])
    top = first
    while ground.size(top + 1) * BEYOND <= n and top < DEEPEST:
        top += 1
    ends = whole(np.geomspace(first + 1, max(top, first + 1), ENDS))
    starts = whole(np.geomspace(first, max(first, ground.depths[-2]), STARTS))
    found = {ground.depths: None}
    for high, more in itertools.product(ends, ADDED):
        if last < high <= top:
            found[tuple(sorted({*ground.depths, *whole(np.geomspace(last, high, more + 1))}))] = None
    for low, high, count, space in itertools.product(starts, ends, COUNTS, (np.geomspace, np.linspace)):
        depths = whole(space(low, high, count)) if low < high <= top else ()
        if len(depths) >= FEWEST_EACH:
            found[depths] = None
    return list(found)


def _budgets(ground: SurfaceGround) -> list[tuple[int, ...]]:
    """The pilot's budgets, these with one to three longer ones, and geometrically spaced ones; in steps."""
    own, most = ground.budgets, int(ground.target[1] / ground.batch * (1 + 1e-9))
    found = {own: None}
    ends = whole(np.geomspace(own[1], max(most, own[1]), ENDS))
    for high, more in itertools.product(ends, ADDED):
        if own[-1] < high <= most and len(own) + more <= BUDGETS[-1]:
            found[(*own, *whole(np.geomspace(own[-1], high, more + 1))[1:])] = None
    for low, high, count in itertools.product(own[:STARTS], ends, BUDGETS):
        spaced = whole(np.geomspace(low, high, count)) if low < high <= most else ()
        budgets = tuple(sorted({_near(steps, own) for steps in spaced}))
        if len(budgets) >= FEWEST_EACH:
            found[budgets] = None
    return [budgets for budgets in found if budgets == own or _spread(budgets)]


def _near(steps: int, own: tuple[int, ...]) -> int:
    """The pilot's budget that is so near that no other is worth its runs, or the budget itself."""
    nearest = min(own, key=lambda known: abs(np.log(known / steps)))
    return nearest if max(nearest / steps, steps / nearest) < np.sqrt(APART) else steps


def _spread(budgets: tuple[int, ...]) -> bool:
    """Whether each budget says something that the one before does not."""
    return all(longer >= APART * shorter for shorter, longer in itertools.pairwise(budgets))


def least_width(ground: SurfaceGround, probability: float) -> float:
    """The width that noise allows at best: one run's scatter with its seed, about a surface that is known."""
    return float(2 * np.sinh(stats.norm.ppf((1 + LEVEL) / 2) * np.quantile(ground.truths.sigma, probability)))
