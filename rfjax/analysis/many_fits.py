"""Many ladders of the same rungs, fitted at once: `fit_law` of each, in arrays; a design simulates thousands of them.

For squared errors of log L. tests/analysis/test_many_fits.py holds it to `Ladder.fitted`, `fit_law` and `Fit.predict`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from rfjax.analysis.engine import EXPONENTS, GRID, NEGLIGIBLE, TINY, Array
from rfjax.analysis.fit import LEVEL
from rfjax.analysis.fitting import PARAMETERS, POOLED

STEPS = 80  # of Levenberg and Marquardt's method, at most
DONE = 1e-12  # relative fall of the squares below which all ladders have converged
SAFE = 200.0  # half-widths of log L beyond this are written as this: exp does not overflow


@dataclass(frozen=True)
class ManyFits:
    """Laws fitted to m ladders.

    Attributes:
        theta: ([E], A at the centre, alpha), shape (m, p), and `covariance`, shape (m, p, p).
        projection: d theta / d log loss of each rung, shape (m, p, k); a parameter at its bound stays there.
        residual: log law less log loss, shape (m, k).
        scatter: of log losses about the law at a rung of typical standard error, shape (m,).
        typical: that standard error, shape (m,).
        freedom: degrees of freedom of the scatter, shape (m,); `spare`: those of the rungs.
        centre: geometric mean of the sizes; the least and the most of them.
    """

    theta: Float[np.ndarray, "m p"]
    covariance: Float[np.ndarray, "m p p"]
    projection: Float[np.ndarray, "m p k"]
    residual: Float[np.ndarray, "m k"]
    scatter: Float[np.ndarray, " m"]
    typical: Float[np.ndarray, " m"]
    freedom: Float[np.ndarray, " m"]
    spare: int
    centre: float
    least: float
    most: float

    def at(self, x: Float[np.ndarray, "m g"]) -> tuple[Float[np.ndarray, "m g"], Float[np.ndarray, "m g p"]]:
        """Log L at sizes, and its derivatives by theta."""
        value, gradient = _law(self.theta, np.log(x / self.centre))
        return np.log(value), gradient / value[..., None]

    def new_run(self, x: Float[np.ndarray, " g"], error: Float[np.ndarray, "m g"] | None) -> tuple[Array, Array, Array]:
        """The laws' values at sizes and the 95 % intervals of one new run's loss: three arrays of shape (m, g).

        Args:
            error: standard error of that run's log loss; None: the typical one.
        """
        log, gradient = self.at(np.broadcast_to(x, (len(self.theta), x.size)))
        variance = np.einsum("mgi,mij,mgj->mg", gradient, self.covariance, gradient)
        share = 1.0 if error is None else error / self.typical[:, None]
        noise = self.scatter[:, None] * share
        half = stats.t.ppf((1 + LEVEL) / 2, self.freedom)[:, None] * np.sqrt(variance + noise**2)
        half = np.minimum(half, SAFE)
        return np.exp(log), np.exp(log - half), np.exp(log + half)


def means(losses: Float[np.ndarray, "m k s"], seeds: Float[np.ndarray, " k"]) -> Float[np.ndarray, "m k"]:
    """The mean of each rung, of which the first `seeds` losses count."""
    there = np.arange(losses.shape[-1]) < seeds[:, None]
    return np.where(there, losses, 0).sum(-1) / seeds


def fit_many(
    law: str,
    x: Float[np.ndarray, " k"],
    y: Float[np.ndarray, "m k"],
    stderr: Float[np.ndarray, "m k"] | None,
    *,
    of_seeds: int = 0,
) -> ManyFits:
    """Fits "power" or "power_offset" to m ladders with the same sizes.

    Args:
        y: mean losses, positive.
        stderr: of log y, which weighs the rungs; None: rungs count alike.
        of_seeds: its degrees of freedom, where seeds tell it: the scatter then heeds it as `fit_law`'s does.
    """
    log_x, unit = np.log(x) - np.log(x).mean(), np.exp(np.log(y).mean(-1))
    errors = np.ones_like(y) if stderr is None else stderr
    typical = np.exp(np.log(errors).mean(-1))
    weights = typical[:, None] / errors
    theta = _polish(_start(law, log_x, y / unit[:, None], weights), log_x, y / unit[:, None], weights)
    value, gradient = _law(theta, np.broadcast_to(log_x, y.shape))
    jacobian, residual = gradient / value[..., None] * weights[..., None], np.log(value / (y / unit[:, None]))
    spare = len(x) - theta.shape[1]
    scatter, freedom = np.sqrt(((weights * residual) ** 2).sum(-1) / spare), np.full(len(y), float(spare))
    inverse = _inverse(jacobian)
    if of_seeds:
        alike = stats.f.sf((scatter / typical) ** 2, spare, of_seeds) > POOLED
        both = np.sqrt((spare * scatter**2 + of_seeds * typical**2) / (spare + of_seeds))
        scatter = np.where(alike, both, np.maximum(scatter, typical))
        freedom += np.where(alike, of_seeds, 0)
    scale = np.ones_like(theta)
    scale[:, : -1 if law == "power" else 2] = unit[:, None]
    half = inverse * scale[:, :, None]  # (m, p, k): weighted residuals to theta
    covariance = np.einsum("mik,mjk->mij", half, half) * scatter[:, None, None] ** 2
    centre = float(np.exp(np.log(x).mean()))
    low, high = _bounds(theta.shape[1])
    free = (theta > low) & (theta < high)
    projection = _inverse(jacobian * free[:, None]) * scale[:, :, None] * weights[:, None]
    ends = (float(x.min()), float(x.max()))
    return ManyFits(theta * scale, covariance, projection, residual, scatter, typical, freedom, spare, centre, *ends)


def _bounds(parameters: int) -> tuple[Array, Array]:
    """Of E, A >= 0 and the exponent."""
    low, high = (
        np.append(np.zeros(parameters - 1), EXPONENTS[0]),
        np.append(np.full(parameters - 1, np.inf), EXPONENTS[1]),
    )
    return low, high


def _law(theta: Array, log_x: Array) -> tuple[Array, Array]:
    """The laws' values (m, g) at log(x / centre) (m, g), and their derivatives by theta (m, g, p)."""
    amplitude, alpha = theta[:, -2, None], theta[:, -1, None]
    falls = np.exp(-alpha * log_x)
    columns = [falls, -amplitude * falls * log_x]
    value = amplitude * falls
    if theta.shape[1] == 3:
        columns, value = [np.ones_like(falls), *columns], theta[:, :1] + value
    return np.maximum(value, TINY), np.stack(columns, -1)


def _start(law: str, log_x: Array, y: Array, weights: Array) -> Array:
    """The best exponent of a grid for each ladder, with E and A >= 0 by least squares of (L - y) / y: theta (m, p)."""
    alphas = np.geomspace(*EXPONENTS, GRID[1])
    falls = np.exp(-alphas[:, None] * log_x)  # (g, k)
    rows = weights / y
    rhs, squares = rows * y, rows**2
    a_f, f_f = np.einsum("gk,mk,mk->mg", falls, rows, rhs), np.einsum("gk,mk->mg", falls**2, squares)
    only = a_f / f_f  # E = 0
    offset, amplitude = np.zeros_like(only), only
    if len(PARAMETERS[law]) == 3:
        one_f, one, a_one = falls @ squares.T, squares.sum(-1)[:, None], (rows * rhs).sum(-1)[:, None]
        one_f = one_f.T
        determinant = one * f_f - one_f**2
        safe = np.where(determinant > 1e-13 * one * f_f, determinant, 1.0)
        e, a = (a_one * f_f - a_f * one_f) / safe, (one * a_f - one_f * a_one) / safe
        flat = (a <= 0) & (determinant > 1e-13 * one * f_f)  # then E alone
        inside = (e > 0) & (a > 0) & (determinant > 1e-13 * one * f_f)
        offset = np.where(inside, e, np.where(flat, a_one / one, 0.0))
        amplitude = np.where(inside, a, np.where(flat, 0.0, only))
    value = np.maximum(offset[..., None] + amplitude[..., None] * falls, TINY)
    cost = ((weights[:, None] * np.log(value / y[:, None])) ** 2).sum(-1)
    best = cost.argmin(-1)
    rows_of = np.arange(len(y))
    columns = [amplitude[rows_of, best], alphas[best]]
    return np.stack([offset[rows_of, best], *columns] if len(PARAMETERS[law]) == 3 else columns, -1)


def _polish(theta: Array, log_x: Array, y: Array, weights: Array) -> Array:
    """The least squares of weighted log L - log y near each theta, E and A >= 0, alpha within its bounds."""
    where = np.broadcast_to(log_x, y.shape)

    def residuals(at: Array) -> tuple[Array, Array]:
        value, gradient = _law(at, where)
        return weights * np.log(value / y), gradient / value[..., None] * weights[..., None]

    return least_squares(theta, residuals, *_bounds(theta.shape[1]))


def least_squares(
    theta: Float[np.ndarray, "m p"],
    residuals: Callable[[Array], tuple[Array, Array]],
    low: Float[np.ndarray, " p"],
    high: Float[np.ndarray, " p"],
) -> Float[np.ndarray, "m p"]:
    """The least squares of m problems near each theta, within bounds, by Levenberg and Marquardt's method.

    Args:
        residuals: theta -> residuals (m, k) and their derivatives (m, k, p).
    """
    p, damping = theta.shape[1], np.full(len(theta), 1e-3)
    r, jacobian = residuals(theta)
    cost = (r**2).sum(-1)
    for _ in range(STEPS):
        slope = np.einsum("mkp,mk->mp", jacobian, r)
        stuck = ((theta <= low) & (slope > 0)) | ((theta >= high) & (slope < 0))
        gram = np.einsum("mkp,mkq->mpq", jacobian, jacobian)
        free = ~stuck
        gram *= free[:, :, None] & free[:, None]
        diagonal = np.einsum("mpp->mp", gram)
        gram = gram + np.eye(p) * np.where(diagonal > 0, diagonal * damping[:, None] + TINY, 1.0)[:, None]
        tried = np.clip(theta - np.linalg.solve(gram, (slope * free)[..., None])[..., 0], low, high)
        r_tried, jacobian_tried = residuals(tried)
        cost_tried = (r_tried**2).sum(-1)
        better = cost_tried < cost
        fall = np.where(better, cost - cost_tried, 0) / np.maximum(cost, TINY)
        theta = np.where(better[:, None], tried, theta)
        r, jacobian = np.where(better[:, None], r_tried, r), np.where(better[:, None, None], jacobian_tried, jacobian)
        cost = np.where(better, cost_tried, cost)
        damping = np.clip(np.where(better, damping / 10, damping * 10), 1e-12, 1e12)
        if ((fall < DONE) & (better | (damping >= 1e8))).all():
            break
    return theta


def _inverse(jacobian: Array) -> Array:
    """The pseudo-inverse (m, p, k) of each (m, k, p), its columns scaled; directions without information get none."""
    norms = np.linalg.norm(jacobian, axis=1)
    safe = np.where(norms > 0, norms, np.inf)
    left, singular, right = np.linalg.svd(jacobian / safe[:, None], full_matrices=False)
    kept = singular > NEGLIGIBLE * singular[:, :1]
    inverse = np.where(kept, 1 / np.where(kept, singular, 1.0), 0.0)
    return np.einsum("mqp,mq,mkq->mpk", right, inverse, left) / safe[:, :, None]
