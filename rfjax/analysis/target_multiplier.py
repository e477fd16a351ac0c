"""How many times less compute one design needs than another at a target: x_A / x, where law A at x_A has B's loss at x.

Above 1 the second design, B, is better. The interval is that of the logarithm by the delta method, from the errors of
both laws; runs of one depth and seed share a part of their noise, so the two laws' errors are correlated.
"""

import numpy as np
from jaxtyping import Float
from scipy import stats

from rfjax.analysis.engine import TINY, Array
from rfjax.analysis.fit import LEVEL
from rfjax.analysis.many_fits import SAFE, ManyFits
from rfjax.analysis.truths import Truths


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


def intervals(
    a: ManyFits, b: ManyFits, x: Float[np.ndarray, " g"], seeds: Array, shared: Float[np.ndarray, " m"]
) -> tuple[Array, Array, Array]:
    """The multipliers at sizes x of design B and their 95 % intervals, three arrays of shape (m, g).

    inf where law A never comes down to the loss; the interval is then everything.

    Args:
        a, b: fits to ladders with the same rungs and seeds.
        seeds: of each rung, shape (k,).
        shared: the correlation between runs of both of one depth and seed.
    """
    at = np.broadcast_to(x, (len(a.theta), x.size))
    log_b, by_b = b.at(at)
    log_a = _where(a.theta, a.centre, np.exp(log_b))
    reached = np.isfinite(log_a)
    log_a = np.where(reached, log_a, np.log(at))
    _, by_a = a.at(np.exp(log_a))
    slope = _slope(a.theta, a.centre, log_a)
    by_a, by_b = -by_a / slope[..., None], by_b / slope[..., None]
    variance = sum(np.einsum("mgi,mij,mgj->mg", by, fit.covariance, by) for by, fit in ((by_a, a), (by_b, b)))
    both = np.einsum("mik,mjk->mij", a.projection / seeds, b.projection) * (shared * a.noise * b.noise)[:, None, None]
    variance = np.maximum(variance + 2 * np.einsum("mgi,mij,mgj->mg", by_a, both, by_b), 0)
    half = stats.t.ppf((1 + LEVEL) / 2, a.freedom) * np.sqrt(variance)
    half = np.where(reached & np.isfinite(half), np.minimum(half, SAFE), SAFE)
    log = np.clip(log_a - np.log(at), -SAFE, SAFE)
    value = np.where(reached, np.exp(log), np.inf)
    return value, np.exp(log - half), np.exp(log + half)


def true_multiplier(a: Truths, b: Truths, x: Float[np.ndarray, " g"]) -> Float[np.ndarray, "m g"]:
    """The multipliers of laws that are known; inf where A never comes down to B's loss."""
    log = _where(_theta(a), a.centre, b.loss(x))
    return np.where(np.isfinite(log), np.exp(np.minimum(log - np.log(x), SAFE)), np.inf)


def gradients(a: Truths, b: Truths, x: Float[np.ndarray, "m 1"], law: str) -> tuple[Array, Array]:
    """Derivatives of the log multiplier at x by the parameters of A and of B, each of shape (m, p)."""
    theta = _theta(a)
    log = _where(theta, a.centre, b.loss(x[0]))
    log = np.where(np.isfinite(log), log, np.log(x))
    slope = np.minimum(_slope(theta, a.centre, log), -TINY)
    by_a = np.stack([a.some(slice(i, i + 1)).jacobian(np.exp(log[i]), law)[0, 0] for i in range(len(a))])
    return -by_a / slope, b.jacobian(x[0], law)[:, 0] / slope


def _theta(truths: Truths) -> Array:
    return np.stack([truths.offset, truths.amplitude, truths.alpha], -1)


def _where(theta: Array, centre: float, loss: Array) -> Array:
    """log x at which laws (m, p) have these losses (m, g); inf where they never have."""
    offset = theta[:, :1] if theta.shape[1] == 3 else 0.0
    above = (loss - offset) / np.maximum(theta[:, -2, None], TINY)
    log = np.log(centre) - np.log(np.maximum(above, TINY)) / theta[:, -1, None]
    return np.where((above > 0) & (log < SAFE), log, np.inf)


def _slope(theta: Array, centre: float, log_x: Array) -> Array:
    """d log L / d log x, at most 0."""
    part = theta[:, -2, None] * np.exp(-theta[:, -1, None] * (log_x - np.log(centre)))
    whole = part + (theta[:, :1] if theta.shape[1] == 3 else 0.0)
    return np.minimum(-theta[:, -1, None] * part / np.maximum(whole, TINY), -TINY)
