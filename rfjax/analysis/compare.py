"""How much less compute one design needs than another: at each rung, and at a target, from two ladders of runs.

A design is a ladder: sizes, with the losses of one or more seeds at each, and a law, fitted to their logarithms. Design
A reaches the loss that B's law has at the target where law_A(x*) = law_B(target), and then needs FLOPs_A(x*) over
FLOPs_B(target) times B's compute. The interval of x* is the set of x at which log law_B(target) - log law_A(x) is no
further from 0 than its error allows (Fieller 1954): it needs no slope, and is open where A's law is too flat to say
where it gets there, if anywhere. To first order a fitted law is linear in the log losses of its rungs, so that this
difference is a contrast of them, whose error counts what the designs share (`rfjax.analysis.contrasts`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from rfjax.analysis.contrasts import Contrast, Errors, Place, errors_of, half_width
from rfjax.analysis.engine import Array
from rfjax.analysis.fitting import TooFewPoints
from rfjax.analysis.laws import LawFit, fit_law
from rfjax.analysis.multipliers import Estimate, Multiplier, multiplier
from rfjax.analysis.shapes import SHAPES

GRID = 600  # sizes at which the set of possible x* is looked for,
BELOW, ABOVE = 1e-4, 1e9  # from this part of A's smallest rung to that multiple of its largest
MOST_SEEDS = 99


@dataclass(frozen=True)
class Design:
    """A ladder, its rungs by size, with its law; fit: None, and `reason` why, where there are too few rungs."""

    name: str
    rungs: tuple[Place, ...]
    fit: LawFit | None
    reason: str = ""

    def flops(self, x: Array | float) -> Array:
        """FLOPs of training a run of size x: as the rungs count them, straight in logarithms between and beyond."""
        return _line(*np.log([[rung.x, rung.flops] for rung in self.rungs]).T, x)

    def size(self, flops: float) -> float:
        """The size that takes so many FLOPs."""
        return float(_line(*np.log([[rung.flops, rung.x] for rung in self.rungs]).T, flops))

    def log_loss(self, x: Array) -> Float[np.ndarray, " g"]:
        """The law."""
        return np.log(self.fit.predict(x).value)

    def weights(self, x: Array) -> Float[np.ndarray, "g k"]:
        """d log law(x) / d log loss of each rung; a parameter at its bound stays there."""
        fit, theta = self.fit, np.array(self.fit.theta)
        log = lambda values: np.log(np.asarray(values, float) / fit.centre[0])[:, None]  # noqa: E731
        rows, at = (SHAPES[fit.law].evaluate(theta, log(v)) for v in ([r.x for r in self.rungs], x))
        bound = {text.split(" = ")[0] for text in fit.bounds_hit}
        free = [name not in bound for name in fit.parameters]
        jacobian, gradient = ((slope / value[:, None])[:, free] for value, slope in (rows, at))
        root = np.sqrt([len(rung.losses) for rung in self.rungs])
        return gradient @ (np.linalg.pinv(root[:, None] * jacobian) * root)


def _line(known: Array, values: Array, at: Array | float) -> Array:
    """exp of the straight lines through (known, values), both logarithms, at log(at)."""
    at = np.log(np.asarray(at, float))
    i = np.clip(np.searchsorted(known, at) - 1, 0, len(known) - 2)
    return np.exp(values[i] + np.diff(values)[i] / np.diff(known)[i] * (at - known[i]))


def make_design(name: str, rungs: Sequence[Place], law: str) -> Design:
    """A ladder by size and its law, fitted to log losses with the number of seeds as weights."""
    rungs = tuple(sorted(rungs, key=lambda rung: rung.x))
    sizes, losses = ([getattr(rung, key) for rung in rungs] for key in ("x", "loss"))
    errors = [rung.loss / np.sqrt(len(rung.losses)) for rung in rungs]
    labels = [rung.name for rung in rungs]
    try:
        return Design(name, rungs, fit_law(sizes, losses, law=law, y_stderr=errors, labels=labels))
    except TooFewPoints as error:
        return Design(name, rungs, None, str(error))


@dataclass(frozen=True)
class RungPair:
    """Two designs at the same place.

    Attributes:
        seeds: that both have.
        difference: log L_B - log L_A at the end of training.
        flops: of a run of A over one of B.
        at_loss: how many times less compute B needs for the same loss along the runs.
    """

    name: str
    x_b: float
    loss_a: float
    loss_b: float
    seeds: int
    difference: Contrast
    flops: float
    at_loss: Multiplier


@dataclass(frozen=True)
class AtTarget:
    """How many times less compute, and size, B needs for the loss that its law has at the target.

    Attributes:
        x: the target, of B; A's law has that loss at `x_a`, infinite where it never does.
        beyond: the target over B's largest rung.
        compute, size: A's need over B's; an end is infinite, or 0, where the ladders set no bound.
        same: log law_B - log law_A at the compute of B's target.
        seeds: of each rung that would make it clear, if the difference is what it looks like; 0: it is clear; None:
            more than MOST_SEEDS, or the triples blur it whatever the seeds.
        misfit: p of the residuals about the laws against the seeds'; None with one seed.
    """

    x: float
    x_a: float
    loss: float
    beyond: float
    compute: Estimate
    size: Estimate
    same: Contrast
    seeds: int | None
    misfit: float | None

    @property
    def clear(self) -> bool:
        """Whether the interval of the compute multiplier leaves out 1."""
        return self.compute.low > 1 or self.compute.high < 1


@dataclass(frozen=True)
class Pair:
    """B against A.

    Attributes:
        rungs: at the places that both have.
        target: None where `reason` says why.
        course: the same at sizes up to the target.
    """

    a: str
    b: str
    rungs: tuple[RungPair, ...]
    target: AtTarget | None
    course: tuple[AtTarget, ...] = ()
    reason: str = ""


def compare(a: Design, b: Design, target: float = 0.0, levels: int = 8, course: int = 0) -> Pair:
    """Compares two designs at the places that both have, and at a target.

    Args:
        target: size of B; 0: that of its largest rung.
        levels: of t in the validation.
        course: at how many sizes, from B's smallest rung to the target, the same is asked.
    """
    why = next((f"{one.name} has no law: {one.reason}" for one in (a, b) if not one.fit), "")
    spare = 0 if why else min(one.fit.degrees_of_freedom for one in (a, b))
    residuals = None if why else tuple(np.log([r.loss for r in d.rungs]) - d.log_loss(_sizes(d)) for d in (a, b))
    errors = errors_of(a.rungs, b.rungs, residuals, spare, levels)
    pairs = tuple(
        _rung_pair(errors, one, other, np.eye(len(a.rungs) + len(b.rungs))[[i, len(a.rungs) + j]])
        for i, one in enumerate(a.rungs)
        for j, other in enumerate(b.rungs)
        if one.name == other.name
    )
    if why:
        return Pair(a.name, b.name, pairs, None, reason=why)
    sizes = _sizes(b)
    target = target or float(sizes[-1])
    along = np.geomspace(min(sizes[0], target), max(sizes[-1], target), course)
    found = [_at_target(a, b, float(x), errors) for x in (target, *along)]
    return Pair(a.name, b.name, pairs, found[0], tuple(found[1:]))


def _sizes(design: Design) -> Array:
    return np.array([rung.x for rung in design.rungs])


def _rung_pair(errors: Errors, a: Place, b: Place, at: Float[np.ndarray, "2 k"]) -> RungPair:
    difference = errors.contrast(float(np.log(b.loss / a.loss)), at[1] - at[0], laws=False)
    both = len(a.losses.keys() & b.losses.keys())
    return RungPair(a.name, b.x, a.loss, b.loss, both, difference, a.flops / b.flops, multiplier(a.curves, b.curves))


def _at_target(a: Design, b: Design, x: float, errors: Errors) -> AtTarget:
    """The multiplier at B's size x."""
    of_b, loss, flops = b.weights([x])[0], float(b.log_loss(np.array([x]))[0]), float(b.flops(x))
    equal = np.array([a.size(flops)])
    weights = np.concatenate([-a.weights(equal)[0], of_b])
    same = errors.contrast(loss - float(a.log_loss(equal)[0]), weights)
    between, freedom, misfit = errors.between_runs(weights)
    grid = np.geomspace(a.rungs[0].x * BELOW, a.rungs[-1].x * ABOVE, GRID)
    stacked = np.concatenate([-a.weights(grid), np.broadcast_to(of_b, (GRID, of_b.size))], axis=1)
    runs, triples = (0.0 if m is None else _quadratic(stacked, m) for m in (between, errors.triples))
    off, half = loss - a.log_loss(grid), half_width(runs, triples, freedom)
    low, x_a, high = (_crossing(grid, off + shift) for shift in (half, 0.0, -half))
    compute = Estimate(*(float(a.flops(v) / flops) if 0 < v < np.inf else v for v in (x_a, low, high)))
    size = Estimate(*(v / x for v in (x_a, low, high)))
    seeds = 0 if not compute.low <= 1 <= compute.high else _seeds_needed(same, a, b)
    return AtTarget(x, x_a, float(np.exp(loss)), x / b.rungs[-1].x, compute, size, same, seeds, misfit)


def _quadratic(weights: Float[np.ndarray, "g k"], matrix: Float[np.ndarray, "k k"]) -> Float[np.ndarray, " g"]:
    return np.maximum(np.einsum("gi,ij,gj->g", weights, matrix, weights), 0.0)


def _crossing(grid: Array, values: Array) -> float:
    """The first size at which values are 0 or above; 0 where all are, infinite where none is."""
    above = values >= 0
    if not above.any():
        return float("inf")
    i = int(np.argmax(above))
    if i == 0:
        return 0.0
    share = -values[i - 1] / (values[i] - values[i - 1])
    return float(np.exp(np.log(grid[i - 1]) + share * np.log(grid[i] / grid[i - 1])))


def _seeds_needed(same: Contrast, a: Design, b: Design) -> int | None:
    """Seeds of each rung with which a difference as large as this would be clear."""
    places = (*a.rungs, *b.rungs)
    now = sum(len(rung.losses) for rung in places) / len(places)
    for seeds in range(int(now) + 1, MOST_SEEDS + 1):
        freedom = same.freedom + len(b.rungs) * (seeds - now)
        if abs(same.value) > half_width(same.runs * now / seeds, same.triples or 0.0, freedom):
            return seeds
    return None
