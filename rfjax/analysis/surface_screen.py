"""The first judgement of grids of depths and token budgets: by the delta method at the pilot's possible surfaces."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from jaxtyping import Float
from scipy import stats

from rfjax.analysis.candidates import Candidate, front
from rfjax.analysis.engine import Array
from rfjax.analysis.fit import LEVEL
from rfjax.analysis.many_surfaces import surface
from rfjax.analysis.surface_candidates import SurfaceGround, candidates

SCREENED = 12  # surfaces of the delta method
AT_ONCE = 400  # grids
RIDGE = 1e-13  # of information matrices with columns of norm 1, so that they can be inverted
WIDEST = 50.0  # half-width of the logarithm: wider ones are this wide


def screened(ground: SurfaceGround, limit: float, probability: float) -> list[Candidate]:
    """The front of all candidates that cost no more than the limit."""
    tried = list(candidates(ground, limit))
    return front(tried, screen(ground, tried, probability)) if tried else []


def screen(ground: SurfaceGround, tried: Sequence[Candidate], probability: float) -> Float[np.ndarray, " c"]:
    """The width that each candidate keeps with this probability at the target, by the delta method; no fits.

    The expected covariance of the jackknife is exact for a law that is linear in its parameters: theta less theta
    without group g is Q_g J_g'(e_g - J_g d_g), with the error d_g of the fit to the others independent of e_g.
    """
    rng = np.random.default_rng(0)
    truths = ground.truths.some(slice(SCREENED))
    draws = cache(lambda n: rng.chisquare(n, len(truths)) / n)
    depths = sorted({depth for one in tried for depth in one.depths})
    place = {depth: i for i, depth in enumerate(depths)}
    by_budgets: dict[tuple[int, ...], list[int]] = {}
    for i, one in enumerate(tried):
        by_budgets.setdefault(one.budgets, []).append(i)
    widths = np.zeros(len(tried))
    for budgets, rows in by_budgets.items():
        cells = _Cells(ground, depths, budgets)
        for first in range(0, len(rows), AT_ONCE):
            some = rows[first : first + AT_ONCE]
            seeds = np.zeros((len(some), len(depths)))
            for row, i in zip(seeds, some, strict=True):
                row[[place[depth] for depth in tried[i].depths]] = tried[i].seeds
            groups = np.repeat(seeds, cells.each, axis=1)
            variance = cells.variance(groups)
            freedom = groups.sum(1).astype(int) - 1
            variance = np.where(variance > 0, variance, np.inf)  # rounding, where the rest determine nothing
            error = np.sqrt(variance * np.stack([draws(n) for n in freedom], 1))
            half = np.minimum(stats.t.ppf((1 + LEVEL) / 2, freedom) * error, WIDEST)
            widths[some] = np.quantile(2 * np.sinh(half), probability, axis=0)
    return widths


class _Cells:
    """What one group at each place tells of the surface: a trunk with its branches, or a single run."""

    def __init__(self, ground: SurfaceGround, depths: Sequence[int], budgets: tuple[int, ...]) -> None:
        """Takes the derivatives of log losses at all depths and these budgets, and at the target."""
        truths = ground.truths.some(slice(SCREENED))
        n = np.array([ground.size(depth) for depth in depths])
        grid = np.stack(np.broadcast_arrays(n[:, None], np.array(budgets) * float(ground.batch)), -1)
        centre = np.array(truths.centre)
        value, jacobian = surface(truths.theta, np.log(grid.reshape(-1, 2) / centre))
        new, gradient = surface(truths.theta, np.log(np.array([ground.target]) / centre))
        jacobian, gradient = jacobian / value[..., None], (gradient / new[..., None])[:, 0]
        scale = np.linalg.norm(jacobian, axis=1)
        self.gradient = gradient / scale
        shape = (len(truths), len(depths), len(budgets)) if ground.branched else (len(truths), value.shape[1], 1)
        rows = (jacobian / scale[:, None]).reshape(*shape, 5)
        self.each, self.size = (1 if ground.branched else len(budgets)), shape[2]
        self.gram, sums = rows.mT @ rows, rows.sum(2)
        self.sigma = truths.sigma
        within, between = (part[:, None, None, None] ** 2 for part in (truths.within, truths.between))
        self.noise = within * self.gram + between * sums[..., :, None] * sums[..., None, :]

    def variance(self, groups: Float[np.ndarray, "c g"]) -> Float[np.ndarray, "m c"]:
        """Of the log loss of one new run at the target as a fit would state it, for so many groups at each place."""
        m, g = self.gram.shape[:2]
        whole, noise = (np.einsum("cg,mgx->mcx", groups, part.reshape(m, g, 25)) for part in (self.gram, self.noise))
        whole, noise = (part.reshape(m, -1, 5, 5) for part in (whole, noise))
        z = np.linalg.solve(_firm(whole), self.gradient[:, None, :, None])[..., 0]
        one, where = np.nonzero(groups)
        gram, own, z = self.gram[:, where], self.noise[:, where], z[:, one]
        rest = np.linalg.inv(_firm(whole[:, one] - gram, whole[:, one]))
        others = rest @ (noise[:, one] - own) @ rest
        pull = np.einsum("mpij,mpj->mpi", gram, z)
        moves = np.einsum("mpi,mpij,mpj->mp", z, own, z) + np.einsum("mpi,mpij,mpj->mp", pull, others, pull)
        outside = np.einsum("mpij,mpij->mp", gram, others) / self.size
        count = groups.sum(1)
        totals = [_sum(part * groups[one, where], one, len(groups)) for part in (moves, outside)]
        return totals[0] * (count - 1) / count + totals[1] / count + self.sigma[:, None] ** 2


def _firm(gram: Array, like: Array | None = None) -> Array:
    """Gram matrices that can be inverted."""
    trace = np.trace(gram if like is None else like, axis1=-2, axis2=-1)
    return gram + RIDGE * trace[..., None, None] * np.eye(gram.shape[-1])


def _sum(values: Float[np.ndarray, "m p"], which: Array, count: int) -> Float[np.ndarray, "m c"]:
    """The sums of values by the candidate that they belong to."""
    return np.stack([np.bincount(which, row, count) for row in values])
