"""Which ladder answers a question: candidates are simulated from a pilot's laws and fitted as a study fits them.

The best candidates at each cost are simulated run by run, and fitted as `Ladder.fitted` and `fit_law` do it, with
errors over seeds. Runs of the pilot that a candidate contains keep the losses that they have. The width that a ladder
promises is that of the 95 % interval of ONE new run's measured loss at the target, high less low, relative to the
law's value; or, of two designs, that of the compute multiplier, relative to it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from rfjax.analysis import target_multiplier
from rfjax.analysis.candidates import Candidate, Ground, Side, screened, whole
from rfjax.analysis.engine import Array
from rfjax.analysis.ladder import Ladder, Rung
from rfjax.analysis.laws import fit_law
from rfjax.analysis.many_fits import fit_many, means
from rfjax.analysis.many_spreads import spreads
from rfjax.analysis.seeds import pooled_spread
from rfjax.analysis.simulated import Simulated
from rfjax.analysis.surface_candidates import SurfaceGround
from rfjax.analysis.surface_design import simulate_surface
from rfjax.analysis.surface_screen import screened as screened_grids
from rfjax.analysis.truths import Truths

CURVE = 8  # points of the curve of width against cost that are simulated, up to the limit
DEARER, MORE = 4.0, 3  # the curve goes on to so many times the limit, with so many points
REACH = (25, 9)  # sizes up to the target at which simulated ladders are asked, of one design and of two
WAY = 20  # points on the way to a target of parameters and examples
AT_ONCE = "log_squares"  # the objective whose simulated ladders are fitted all at once


def simulate(
    ground: Ground,
    one: Candidate,
    sizes: Float[np.ndarray, " g"],
    truths: Sequence[Truths],
    rng: np.random.Generator,
) -> Simulated:
    """Runs a candidate once on each law, fits it as a study does, and asks for its intervals.

    Args:
        sizes: where to ask; the last is the target.
        truths: of each side, equally many.
    """
    shape = (len(truths[0]), len(one.depths), max(one.seeds))
    noise = rng.normal(size=shape)
    second = ground.correlation * noise + np.sqrt(1 - ground.correlation**2) * rng.normal(size=shape)
    losses = [
        _run(ground, side, one, truth, luck)
        for side, truth, luck in zip(ground.sides, truths, (noise, second), strict=False)
    ]
    if len(losses) == 2:
        x = tuple(np.array([side.size(depth) for depth in one.depths]) for side in ground.sides)
        value, low, high = target_multiplier.intervals(ground.law, x, tuple(losses), np.array(one.seeds), sizes)
        new = target_multiplier.true_multiplier(*truths, sizes[-1:])[:, 0]
        apart = (low[:, -1] > 1) | (high[:, -1] < 1)
    else:
        value, low, high = intervals(ground, one, losses[0], sizes)
        sigma, apart = truths[0].noise(sizes[-1:])[:, 0] * ground.shrink(one.examples), None
        new = truths[0].loss(sizes[-1:])[:, 0] * np.exp(sigma * rng.normal(size=len(sigma)))
    with np.errstate(invalid="ignore"):
        widths = np.where(np.isfinite(high), (high - low) / value, np.inf)
    return Simulated(one, widths, ((low[:, -1] <= new) & (new <= high[:, -1])).astype(float), apart)


def _run(ground: Ground, side: Side, one: Candidate, truths: Truths, noise: Array) -> Float[np.ndarray, "m k s"]:
    """The losses of a candidate's runs of one side, those that are there as they are."""
    x = np.array([side.size(depth) for depth in one.depths])
    sigma = truths.noise(x) * ground.shrink(one.examples)
    losses = truths.loss(x)[..., None] * np.exp(sigma[..., None] * noise)
    for i, depth in enumerate(one.depths):
        known = ground.done(side, one, depth)
        losses[:, i, : known.size] = known
    return losses


def intervals(
    ground: Ground, one: Candidate, losses: Float[np.ndarray, "m k s"], sizes: Float[np.ndarray, " g"]
) -> tuple[Array, Array, Array]:
    """The laws' values and the 95 % intervals of one new run's loss: three arrays of shape (m, g)."""
    seeds, x = np.array(one.seeds), np.array(one.x)
    if ground.objective == AT_ONCE:
        spread = spreads(losses, seeds, x)
        error = None if spread is None else spread.at(x) / np.sqrt(seeds)
        fits = fit_many(ground.law, x, means(losses, seeds), error, of_seeds=0 if spread is None else spread.freedom)
        return fits.new_run(sizes, None if spread is None else spread.at(sizes))
    found = [_interval(ground, one, [row[:n] for row, n in zip(rows, seeds, strict=True)], sizes) for rows in losses]
    return tuple(np.stack(parts) for parts in zip(*found, strict=True))


def _interval(
    ground: Ground, one: Candidate, losses: Sequence[Float[np.ndarray, " s"]], sizes: Float[np.ndarray, " g"]
) -> tuple[Array, Array, Array]:
    """The same of one ladder, by the code that fits a study, for the other objectives."""
    spread = pooled_spread(losses, one.x)
    error = lambda row, x: None if spread is None else spread.stderr(float(row.mean()), len(row), x)  # noqa: E731
    rungs = tuple(
        Rung(f"d{d}", size, tuple(row.tolist()), None, (), error(row, size))
        for d, size, row in zip(one.depths, one.x, losses, strict=True)
    )
    fit = fit_law(law=ground.law, objective=ground.objective, **Ladder(rungs, (), spread, ()).fitted)
    found = fit.predict(sizes)
    if fit.typical_stderr is not None:
        found = fit.predict(sizes, y_stderr=[spread.stderr(v, 1, x) for v, x in zip(found.value, sizes, strict=True)])
    return found.value, found.low, found.high


@dataclass
class Search:
    """Simulates candidates of a front when they are asked for, each once, all on the same laws.

    With a ground of surfaces, sizes are shares of the way to the target.
    """

    ground: Ground | SurfaceGround
    sizes: Float[np.ndarray, " g"]
    probability: float
    trials: int
    done: dict[Candidate, Simulated] = field(default_factory=dict)

    def __call__(self, one: Candidate) -> Simulated:
        if one not in self.done:
            self.done[one] = self._simulate(one, slice(self.trials), 1)
        return self.done[one]

    def confirmed(self, one: Candidate) -> Simulated:
        """The same on laws that chose nothing."""
        return self._simulate(one, slice(self.trials, 2 * self.trials), 2)

    def _simulate(self, one: Candidate, which: slice, seed: int) -> Simulated:
        truths = [side.truths.some(which) for side in self.ground.sides]
        run = simulate_surface if isinstance(self.ground, SurfaceGround) else simulate
        return run(self.ground, one, self.sizes, truths, np.random.default_rng(seed))

    def cheapest(self, best: Sequence[Candidate], width: float) -> Simulated | None:
        """The cheapest of a front that keeps the width, by halving, as fresh laws confirm; None where none does."""
        if best and not best[0].cost and self(best[0]).width(self.probability) <= width:
            return self.confirmed(best[0])  # the pilot's own runs: nothing in them is still to be drawn
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
        """Of the dearest of a front, and with surfaces of what is there already, that with the least width.

        A pilot whose own residuals are small by luck is narrower than most that go on from it.
        """
        free = [one for one in best[:1] if not one.cost and isinstance(self.ground, SurfaceGround)]
        chosen = min([*free, *best[-3:]], key=lambda one: self(one).width(self.probability))
        return self.confirmed(chosen)

    def furthest(self, width: float, limit: Callable[[float], float]) -> tuple[float, Simulated] | None:
        """The largest size at which a simulated ladder keeps the width, for at most limit(size), and that ladder."""
        reached = [
            (float(size), -found.candidate.cost, found)
            for found in self.done.values()
            for j, size in enumerate(self.sizes)
            if self.ground.allows(found.candidate, size)
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
        curve: simulated ladders by cost, some beyond the limit.
        reach: the furthest size of the wanted width and its ladder, where the target is too far.
        limit: what a ladder was allowed to cost.
    """

    wanted: Simulated | None
    affordable: Simulated
    curve: tuple[Simulated, ...]
    reach: tuple[float, Simulated] | None
    limit: float


def design(
    ground: Ground | SurfaceGround,
    target: float,
    limit: Callable[[float], float],
    *,
    width: float,
    probability: float,
    trials: int,
) -> Designs | None:
    """Searches the ladders; None where not even the cheapest costs less than the limit.

    Args:
        target: x of the question; 1, the whole way, with a ground of surfaces.
        limit: size -> what a ladder that aims at it may cost.
        width: wanted, relative; 0 asks for none.
        probability: with which a ladder keeps its width.
        trials: simulated ladders of a candidate; the sides' truths have twice as many laws.
    """
    most = DEARER * limit(target)
    on_grids = isinstance(ground, SurfaceGround)
    tried = screened_grids(ground, most, probability) if on_grids else screened(ground, target, most, probability)
    best = [one for one in tried if one.cost <= limit(target)]
    if not best:
        return None
    sizes = ground.path(WAY) if on_grids else ground.path(target, REACH[len(ground.sides) - 1])
    search = Search(ground, sizes, probability, trials)
    wanted = search.cheapest(best, width) if width else None
    affordable = search.narrowest(best)
    for i in whole(np.linspace(0, len(best) - 1, CURVE)):
        search(best[i])
    reach = search.furthest(width, limit) if width and wanted is None else None
    dearer = tried[len(best) :]
    for i in whole(np.linspace(0, len(dearer) - 1, MORE)) if dearer else ():
        search(dearer[i])
    curve = tuple(sorted(search.done.values(), key=lambda found: found.candidate.cost))
    return Designs(wanted, affordable, curve, reach, limit(target))
