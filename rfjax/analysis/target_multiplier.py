"""How many times less compute one design needs than another at a target, of many simulated ladders at once.

The multiplier is x_A / x, x in FLOPs of training, where law A at x_A has B's loss at x: above 1 the second design, B,
is better. The interval of x_A is the set of sizes at which log law_B(x) - log law_A is no further from 0 than its error
allows (Fieller 1954); it is open where A's law is too flat. The error is that of a contrast of the rungs' mean log
losses: between seeds, with the covariance of both designs' runs of one seed, pooled with residuals about the laws,
unless these are larger than seeds explain, when they alone count. `intervals` is what reports must agree with.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from rfjax.analysis.engine import TINY, Array
from rfjax.analysis.fit import LEVEL
from rfjax.analysis.many_fits import SAFE, ManyFits, fit_many
from rfjax.analysis.truths import Truths

MISFIT = 0.05  # below this p the residuals about the laws are larger than seeds explain
POINTS = 240  # sizes at which the ends are looked for, from
BELOW, ABOVE = 1e-4, 1e9  # this part of A's smallest rung to that multiple of its largest


class _Runs(NamedTuple):
    """Covariances (m, 2, 2) of one run's log loss of A and of B, by seeds and by residuals, and their freedoms."""

    seeds: Array | None
    of_seeds: int
    residuals: Array
    of_residuals: int


def intervals(
    law: str,
    x: tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]],
    losses: tuple[Float[np.ndarray, "m k s"], Float[np.ndarray, "m k s"]],
    seeds: Float[np.ndarray, " k"],
    targets: Float[np.ndarray, " g"],
) -> tuple[Array, Array, Array]:
    """The multipliers at FLOPs of design B and their 95 % intervals, three arrays of shape (m, g); inf or 0: no end.

    Args:
        x: FLOPs of a run at each rung, of A and of B.
        losses: of A and of B; the first `seeds` of each rung count, and are pairs.
    """
    there = np.arange(losses[0].shape[-1]) < seeds[:, None]
    logs = [np.where(there, np.log(each), 0) for each in losses]
    means = [each.sum(-1) / seeds for each in logs]
    off = np.stack([np.where(there, each - mean[..., None], 0) for each, mean in zip(logs, means, strict=True)])
    error = np.broadcast_to(1 / np.sqrt(seeds), means[0].shape)
    a, b = (fit_many(law, sizes, np.exp(mean), error) for sizes, mean in zip(x, means, strict=True))
    of_seeds = int((seeds - 1).sum())
    scaled = np.stack([fit.residual * np.sqrt(seeds) for fit in (a, b)])
    runs = _Runs(
        np.einsum("amks,bmks->mab", off, off) / of_seeds if of_seeds else None,
        of_seeds,
        np.einsum("amk,bmk->mab", scaled, scaled) / a.freedom,
        a.freedom,
    )
    return _fieller(a, b, runs, seeds, targets)


def _fieller(a: ManyFits, b: ManyFits, runs: _Runs, seeds: Array, targets: Array) -> tuple[Array, Array, Array]:
    m = len(a.theta)
    at = np.broadcast_to(targets, (m, targets.size))
    log_b, by_b = b.at(at)
    of_b = np.einsum("mgp,mpk->mgk", by_b, b.projection)
    between, freedom = _between(runs, -np.einsum("mgp,mpk->mgk", a.at(at)[1], a.projection), of_b, seeds)
    sizes = np.geomspace(BELOW * a.least, ABOVE * a.most, POINTS)
    log_a, by_a = a.at(np.broadcast_to(sizes, (m, POINTS)))
    of_a = -np.einsum("mnp,mpk->mnk", by_a, a.projection)
    own, theirs = (of_a**2 / seeds).sum(-1), (of_b**2 / seeds).sum(-1)
    value, low, high = (np.zeros(at.shape) for _ in range(3))
    for j in range(targets.size):  # a target at a time: less memory
        cov = between[:, j]
        shared = np.einsum("mnk,mk->mn", of_a / seeds, of_b[:, j])
        variance = cov[:, 0, 0, None] * own + 2 * cov[:, 0, 1, None] * shared + (cov[:, 1, 1] * theirs[:, j])[:, None]
        half = _quantile(freedom[:, j])[:, None] * np.sqrt(np.maximum(variance, 0))
        gap = log_b[:, j, None] - log_a
        for ends, shift in ((value, 0.0), (low, half), (high, -half)):
            ends[:, j] = _crossing(np.log(sizes), gap + shift)
    return tuple(np.exp(ends) / targets for ends in (value, low, high))


def _between(runs: _Runs, of_a: Array, of_b: Array, seeds: Array) -> tuple[Array, Array]:
    """The covariance (m, g, 2, 2) between runs and its degrees of freedom (m, g), of contrasts near these."""
    shape = of_a.shape[:2]
    residuals = np.broadcast_to(runs.residuals[:, None], (*shape, 2, 2))
    if runs.seeds is None:
        return residuals, np.full(shape, runs.of_residuals)
    products = np.stack([of_a**2, 2 * of_a * of_b, of_b**2]) / seeds

    def variance(cov: Array) -> Array:
        parts = np.stack([cov[:, 0, 0], cov[:, 0, 1], cov[:, 1, 1]])
        return np.maximum((parts[:, :, None] * products.sum(-1)).sum(0), TINY)

    p = stats.f.sf(variance(runs.residuals) / variance(runs.seeds), runs.of_residuals, runs.of_seeds)
    both = runs.of_seeds + runs.of_residuals
    pooled = (runs.of_seeds * runs.seeds + runs.of_residuals * runs.residuals) / both
    bad = p < MISFIT
    chosen = np.where(bad[..., None, None], residuals, pooled[:, None])
    return chosen, np.where(bad, runs.of_residuals, both)


def _quantile(freedom: Array) -> Array:
    known, place = np.unique(freedom, return_inverse=True)
    return stats.t.ppf((1 + LEVEL) / 2, known)[place]


def _crossing(log_x: Float[np.ndarray, " n"], values: Float[np.ndarray, "m n"]) -> Float[np.ndarray, " m"]:
    """log x at which values first are 0 or above; -inf where all are, inf where none is."""
    above = values >= 0
    i = np.argmax(above, -1)
    before = np.maximum(i - 1, 0)
    rows = np.arange(len(values))
    step = values[rows, i] - values[rows, before]
    share = np.where(step > 0, -values[rows, before] / np.where(step > 0, step, 1.0), 0.0)
    found = log_x[before] + share * (log_x[i] - log_x[before])
    return np.where(above.any(-1), np.where(i == 0, -np.inf, found), np.inf)


def correlation(first: Float[np.ndarray, "m k s"], second: Float[np.ndarray, "m k s"], seeds: Array) -> Array:
    """Of log losses of both designs between seeds, about the means of the rungs, less its standard error, shape (m,).

    Never below 0, and 0 without two seeds of a rung: a correlation that is too small makes wider intervals.
    """
    there = np.arange(first.shape[-1]) < seeds[:, None]
    freedom = int((seeds - 1).sum())
    if not freedom:
        return np.zeros(len(first))
    off = []
    for losses in (first, second):
        logs = np.where(there, np.log(losses), 0)
        off.append(np.where(there, logs - (logs.sum(-1) / seeds)[..., None], 0))
    shared, one, two = ((a * b).sum((-1, -2)) for a, b in (off, (off[0], off[0]), (off[1], off[1])))
    found = shared / np.sqrt(np.maximum(one * two, TINY))
    return np.maximum(found - (1 - found**2) / np.sqrt(freedom), 0)


def true_multiplier(a: Truths, b: Truths, x: Float[np.ndarray, " g"]) -> Float[np.ndarray, "m g"]:
    """The multipliers of laws that are known; inf where A never comes down to B's loss."""
    log = _where(_theta(a), a.centre, b.loss(x))
    return np.where(np.isfinite(log), np.exp(np.minimum(log - np.log(x), SAFE)), np.inf)


def gradients(a: Truths, b: Truths, x: float, law: str) -> tuple[Array, Array]:
    """Derivatives of the log multiplier at x by the parameters of A and of B, each of shape (m, p)."""
    theta, at = _theta(a), np.array([x])
    log = _where(theta, a.centre, b.loss(at))
    log = np.where(np.isfinite(log), log, np.log(x))
    slope = _slope(theta, a.centre, log)
    by_a = np.stack([a.some(slice(i, i + 1)).jacobian(np.exp(log[i]), law)[0, 0] for i in range(len(a))])
    return -by_a / slope, b.jacobian(at, law)[:, 0] / slope


def _theta(truths: Truths) -> Array:
    return np.stack([truths.offset, truths.amplitude, truths.alpha], -1)


def _where(theta: Array, centre: float, loss: Array) -> Array:
    """log x at which laws (m, 3) have these losses (m, g); inf where they never have."""
    above = (loss - theta[:, :1]) / np.maximum(theta[:, 1, None], TINY)
    log = np.log(centre) - np.log(np.maximum(above, TINY)) / theta[:, 2, None]
    return np.where((above > 0) & (log < SAFE), log, np.inf)


def _slope(theta: Array, centre: float, log_x: Array) -> Array:
    """d log L / d log x, below 0."""
    part = theta[:, 1, None] * np.exp(-theta[:, 2, None] * (log_x - np.log(centre)))
    return np.minimum(-theta[:, 2, None] * part / np.maximum(theta[:, :1] + part, TINY), -TINY)
