"""Many simulated studies on one grid of N and D, each fitted by L(N, D) at once: `fit_surface` of each, in arrays.

For squared errors of log L, with the leave-one-group-out jackknife of `engine.solve`. tests/analysis/
test_many_surfaces.py holds it to `fit_surface` and `SurfaceFit.predict`.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float
from scipy import stats

from rfjax.analysis.engine import EXPONENTS, NEGLIGIBLE, TINY, Array
from rfjax.analysis.fit import LEVEL
from rfjax.analysis.many_fits import SAFE, least_squares

AXIS = 16  # exponents of each axis of the grid that the search starts from
SINGULAR = 1e-8  # eigenvalues of I - H below this: a group without which the rest determine nothing
LOW = np.array([0.0, 0.0, 0.0, EXPONENTS[0], EXPONENTS[0]])
HIGH = np.array([np.inf, np.inf, np.inf, EXPONENTS[1], EXPONENTS[1]])


@dataclass(frozen=True)
class ManySurfaces:
    """L = E + A (n / n0)^-alpha + B (d / d0)^-beta, fitted to m studies.

    Attributes:
        theta: (E, A, B, alpha, beta), A and B at the centre; shape (m, 5), and `covariance`, shape (m, 5, 5).
        scatter: of log losses of points outside the fit, shape (m,).
        freedom: groups less 1.
        centre: geometric means of n and d.
    """

    theta: Float[np.ndarray, "m 5"]
    covariance: Float[np.ndarray, "m 5 5"]
    scatter: Float[np.ndarray, " m"]
    freedom: int
    centre: Float[np.ndarray, "2"]

    def new_run(self, at: Float[np.ndarray, "g 2"]) -> tuple[Array, Array, Array]:
        """The surfaces' values at (n, d) and the 95 % intervals of one new run's loss: three arrays of shape (m, g)."""
        value, gradient = surface(self.theta, np.log(at / self.centre))
        gradient = gradient / value[..., None]
        variance = np.einsum("mgi,mij,mgj->mg", gradient, self.covariance, gradient)
        half = stats.t.ppf((1 + LEVEL) / 2, self.freedom) * np.sqrt(variance + self.scatter[:, None] ** 2)
        half = np.minimum(half, SAFE)
        return value, value * np.exp(-half), value * np.exp(half)


def surface(theta: Float[np.ndarray, "m 5"], log_x: Float[np.ndarray, "k 2"]) -> tuple[Array, Array]:
    """The surfaces' values (m, k) at log(x / centre), and their derivatives by theta (m, k, 5)."""
    falls = np.exp(-theta[:, None, 3:] * log_x)  # (m, k, 2)
    value = theta[:, :1] + (falls * theta[:, None, 1:3]).sum(-1)
    slopes = -theta[:, None, 1:3] * falls * log_x
    return np.maximum(value, TINY), np.concatenate([np.ones_like(falls[..., :1]), falls, slopes], -1)


def fit_surfaces(x: Float[np.ndarray, "groups each 2"], y: Float[np.ndarray, "m groups each"]) -> ManySurfaces:
    """Fits L(N, D) to m studies on the same n and d.

    Args:
        x: n and d of each point; the points of a group share its luck (branches of one trunk), or a group is one run.
        y: losses, positive.
    """
    groups, each = x.shape[:2]
    log_x, losses = np.log(x).reshape(-1, 2), y.reshape(len(y), -1)
    log_centre = log_x.mean(0)
    log_x = log_x - log_centre
    unit = np.exp(np.log(losses).mean(-1))
    scaled, scale = losses / unit[:, None], np.ones((len(y), 5))
    scale[:, :3] = unit[:, None]

    def residuals(theta: Array) -> tuple[Array, Array]:
        value, gradient = surface(theta, log_x)
        return np.log(value / scaled), gradient / value[..., None]

    theta = least_squares(_start(log_x, scaled), residuals, LOW, HIGH)
    residual, jacobian = residuals(theta)
    moves, outside = _jackknife(residual, jacobian, (groups, each))
    moves = moves * scale[:, None]
    covariance = np.einsum("mgi,mgj->mij", moves, moves) * (groups - 1) / groups
    return ManySurfaces(theta * scale, covariance, np.sqrt((outside**2).mean(-1)), groups - 1, np.exp(log_centre))


def _jackknife(residual: Array, jacobian: Array, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Theta less theta fitted without each group (m, groups, p), and residuals of points outside the fit (m, k)."""
    (m, k, p), (groups, each) = jacobian.shape, shape
    norms = np.linalg.norm(jacobian, axis=1)
    safe = np.where(norms > 0, norms, np.inf)
    left, singular, right = np.linalg.svd(jacobian / safe[:, None], full_matrices=False)
    kept = singular > NEGLIGIBLE * singular[:, :1]
    left = left * kept[:, None]
    half = right.mT * np.where(kept, 1 / np.where(kept, singular, 1.0), 0.0)[:, None] / safe[:, :, None]
    left, r = left.reshape(m, groups, each, p), residual.reshape(m, groups, each)
    rest = np.linalg.pinv(np.eye(each) - left @ left.mT, rcond=SINGULAR, hermitian=True)
    pulls = np.einsum("mgep,mgef,mgf->mgp", left, rest, r)
    moves = pulls @ half.mT
    outside = r + np.einsum("mgep,mgp->mge", jacobian.reshape(m, groups, each, p), moves)
    return moves, outside.reshape(m, k)


def _start(log_x: Float[np.ndarray, "k 2"], y: Float[np.ndarray, "m k"]) -> Float[np.ndarray, "m 5"]:
    """The best pair of exponents of a grid for each study, with E, A, B >= 0 by least squares of (L - y) / y."""
    axis = np.geomspace(*EXPONENTS, AXIS)
    exponents = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    falls = np.exp(-log_x * exponents[:, None])
    basis = np.concatenate([np.ones_like(falls[..., :1]), falls], -1)  # (grid, k, 3)
    products = (basis[..., :, None] * basis[..., None, :]).transpose(0, 2, 3, 1).reshape(-1, y.shape[1])
    gram = ((y**-2) @ products.T).reshape(len(y), len(exponents), 3, 3)
    moment = ((1 / y) @ basis.transpose(0, 2, 1).reshape(-1, y.shape[1]).T).reshape(len(y), len(exponents), 3)
    size = np.sqrt(np.einsum("mgii->mgi", gram))
    gram, moment = gram / size[..., :, None] / size[..., None, :] + 1e-13 * np.eye(3), moment / size
    best, lowest = np.zeros_like(moment), np.zeros(moment.shape[:2])
    for columns in [list(some) for n in (1, 2, 3) for some in combinations(range(3), n)]:
        solved = np.linalg.solve(gram[..., columns, :][..., columns], moment[..., columns, None])[..., 0]
        cost = -(solved * moment[..., columns]).sum(-1)  # the squares at the least, less those of L = 0
        wins = (solved >= 0).all(-1) & (cost < lowest)
        whole = np.zeros_like(best)
        whole[..., columns] = solved
        best, lowest = np.where(wins[..., None], whole, best), np.where(wins, cost, lowest)
    chosen, rows = lowest.argmin(-1), np.arange(len(y))
    return np.concatenate([(best / size)[rows, chosen], exponents[chosen]], -1)
