"""The one solver under every law; the law L(x) = [E] + sum_j A_j (x_j / centre_j)^-alpha_j by variable projection.

Parameters travel as one vector, `theta` = ([E], A_1 .. A_m, alpha_1 .. alpha_m), with A taken at the centre, the
geometric mean of the x used, where it is the loss above E: the problem is then well conditioned. Other laws have a
`Shape` of their own (rfjax/analysis/broken.py).

Method. A grid over the exponents alone, with the linear parameters solved by non-negative least squares at every point
(Golub and Pereyra 1973), then a polish of the grid's local minima in all parameters on the exact objective.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import minimum_filter
from scipy.optimize import OptimizeResult, least_squares
from scipy.special import erf

Array = NDArray[np.float64]

METHOD = "variable projection over a grid of exponents, then scipy least_squares in all parameters; no random numbers"
EXPONENTS = (0.01, 3.0)  # bounds of every alpha: published loss exponents lie between 0.02 and 1
GRID = {1: 200, 2: 32}  # points of the grid per axis, for one and two inputs, evenly spaced in log alpha
STARTS = 4  # local minima of a grid that are polished
REWEIGHTINGS = 12  # of the grid's least squares towards the Huber objective
NEAR = 1e-3  # a parameter this near to a bound is tried on it, and stays where that costs nothing
NEGLIGIBLE = 1e-11  # singular values of J below this share of the largest: directions that the points say nothing of
TINY = 1e-300
HUBER_DELTA = 1e-3  # Hoffmann et al. 2022, appendix D.3


@dataclass(frozen=True)
class Objective:
    """The sum of rho(r_i) is minimised: r of the loss or of its logarithm, rho = r^2 / 2 or Huber's with `delta`."""

    log: bool
    delta: float | None

    def cost(self, residual: Array) -> Array:
        """Sum of rho(r) over the last axis."""
        psi = self.slope(residual)
        return np.sum(psi * (residual - 0.5 * psi), axis=-1)

    def slope(self, residual: Array) -> Array:
        """psi = d rho / d r."""
        return residual if self.delta is None else np.clip(residual, -self.delta, self.delta)


OBJECTIVES = {
    "squares": Objective(log=False, delta=None),
    "log_squares": Objective(log=True, delta=None),
    "log_huber": Objective(log=True, delta=HUBER_DELTA),
}


@dataclass(frozen=True)
class Shape:
    """The form of a law.

    Attributes:
        parameters: names of `theta`; E, A and B scale with the loss.
        evaluate: theta (p,), log(x / centre) (n, m) -> the law's values (n,) and their Jacobian (n, p).
        starts: a problem -> where to begin, the most promising first.
        bounds: log(x / centre) -> the lowest and the highest theta.
    """

    parameters: tuple[str, ...]
    evaluate: Callable[[Array, Array], tuple[Array, Array]]
    starts: Callable[["Problem"], list[Array]]
    bounds: Callable[[Array], tuple[Array, Array]]

    @property
    def scaled(self) -> NDArray[np.bool_]:
        """Which parameters are in units of the loss."""
        return np.array([name in ("E", "A", "B") for name in self.parameters])


def sum_of_powers(*parameters: str) -> Shape:
    """The shape of [E] + sum_j A_j x_j^-alpha_j, with its parameters' names in the order of theta."""
    offset = parameters[0] == "E"
    m = (len(parameters) - offset) // 2

    def evaluate(theta: Array, log_x: Array) -> tuple[Array, Array]:
        basis = _basis(log_x, theta[-m:], offset)
        return basis @ theta[:-m], np.concatenate([basis, -theta[-2 * m : -m] * basis[:, -m:] * log_x], axis=-1)

    def bounds(log_x: Array) -> tuple[Array, Array]:
        exponent = np.arange(len(parameters)) >= len(parameters) - m
        return np.where(exponent, EXPONENTS[0], 0.0), np.where(exponent, EXPONENTS[1], np.inf)

    return Shape(parameters, evaluate, lambda problem: _grid_starts(problem, offset), bounds)


@dataclass(frozen=True)
class Problem:
    """What is to be fitted: losses `y` (n,) of order 1 at log(x / centre) (n, m), weights (n,) of geometric mean 1."""

    log_x: Array
    y: Array
    weights: Array
    shape: Shape
    objective: Objective

    def residual(self, value: Array) -> Array:
        """Weighted residuals of predicted losses (..., n), in the objective's space."""
        return self.weights * (np.log(np.maximum(value, TINY) / self.y) if self.objective.log else value - self.y)

    def residual_at(self, theta: Array) -> Array:
        """Weighted residuals (n,) of the law with `theta`."""
        return self.residual(self.shape.evaluate(theta, self.log_x)[0])

    def jacobian_at(self, theta: Array) -> Array:
        """Derivatives (n, p) of `residual_at`."""
        value, jacobian = self.shape.evaluate(theta, self.log_x)
        return jacobian * (self.weights / np.maximum(value, TINY) if self.objective.log else self.weights)[:, None]


@dataclass(frozen=True)
class Solution:
    """The best theta and what is known about it; `at_bound` and `identified` have a flag for each parameter."""

    theta: Array
    covariance: Array
    scatter: float
    degrees_of_freedom: int
    cost: float
    residual: Array
    condition_number: float
    at_bound: NDArray[np.bool_]
    identified: NDArray[np.bool_]
    success: bool


def solve(problem: Problem, groups: Sequence[object] | None = None) -> Solution:
    """Finds the global minimum and the covariance of the parameters.

    The covariance is the sandwich: for squares s^2 (J'J)^-1; for the Huber objective E[psi^2] B^-1 J'J B^-1, with B =
    sum of E[psi'_i] J_i J_i' (Huber 1981, section 7.6, without equal variances). J keeps the columns of parameters on a
    bound: dropping one would pretend to know that parameter. With `groups` it is the leave-one-group-out jackknife,
    linearised (CR3; Bell and McCaffrey 2002), with (groups - 1) degrees of freedom.
    """
    best = min((_polish(problem, start) for start in problem.shape.starts(problem)), key=lambda result: result.cost)
    theta, residual, objective = best.x, problem.residual_at(best.x), problem.objective
    jacobian, psi = problem.jacobian_at(theta), objective.slope(residual)
    root = np.sqrt(_curvature(residual, theta.size, objective))
    norms = np.linalg.norm(jacobian * root[:, None], axis=0)
    safe = np.where(norms > 0, norms, np.inf)
    left, singular, right = np.linalg.svd(jacobian * root[:, None] / safe, full_matrices=False)
    kept = singular > NEGLIGIBLE * singular[0]
    left, half = left[:, kept], right[kept].T / singular[kept] / safe[:, None]  # half half' = B^-1
    if groups is None:
        freedom = residual.size - theta.size
        scores = jacobian @ half
        covariance = half @ (np.sum(psi**2) / freedom * scores.T @ scores) @ half.T
        scatter = float(np.sqrt(np.sum(residual**2) / freedom))
    else:
        members = [np.flatnonzero([group == label for group in groups]) for label in dict.fromkeys(groups)]
        freedom = len(members) - 1
        moves, outside = np.zeros((len(members), theta.size)), residual.copy()
        for move, rows in zip(moves, members, strict=True):  # theta, less theta fitted without this group
            rest = np.linalg.pinv(np.eye(rows.size) - left[rows] @ left[rows].T, rcond=1e-8, hermitian=True)
            move[:] = half @ (left[rows].T @ (rest @ (psi[rows] / root[rows])))
            outside[rows] += jacobian[rows] @ move
        covariance = moves.T @ moves * freedom / len(members)
        scatter = float(np.sqrt(np.mean(outside**2)))
    return Solution(
        theta=theta,
        covariance=covariance,
        scatter=scatter,
        degrees_of_freedom=freedom,
        cost=float(objective.cost(residual)),
        residual=residual,
        condition_number=float(singular[0] / singular[-1]) if singular[-1] > 0 else np.inf,
        at_bound=best.at_bound,
        identified=~((np.abs(right[~kept]) > 1e-3).any(0) | (norms == 0)),
        success=bool(best.success and np.isfinite(theta).all() and np.isfinite(covariance).all()),
    )


def _basis(log_x: Array, exponents: Array, offset: bool) -> Array:
    """The columns [1,] (x_j / centre_j)^-alpha_j: (..., n, k) for exponents (..., m)."""
    powers = np.exp(-log_x * exponents[..., None, :])
    return np.concatenate([np.ones_like(powers[..., :1]), powers], axis=-1) if offset else powers


def _curvature(residual: Array, parameters: int, objective: Objective) -> Array:
    """E[psi'] of the Huber objective at each point: the weight of the point in the bread of the sandwich.

    psi' itself, 1 within delta and 0 elsewhere, is useless on a short ladder: such a fit passes exactly through as many
    points as it has parameters. So its mean is that of normal residuals, with a median scale that leaves those out
    (McKean and Schrader 1987), its course over the points a normal kernel's (Powell 1991; Silverman's bandwidth).
    """
    if objective.delta is None:
        return np.ones_like(residual)
    size = np.abs(residual)
    scale = max(1.4826 * float(np.median(np.sort(size)[parameters:])), 1e-15)
    kernel = np.maximum(np.exp(-0.5 * (size / (1.06 * scale * size.size**-0.2)) ** 2), 1e-4)
    return kernel / kernel.mean() * erf(objective.delta / (np.sqrt(2) * scale))


def _grid_starts(problem: Problem, offset: bool) -> list[Array]:
    """The lowest local minima over the grid of exponents, with the linear parameters projected out."""
    objective, m = problem.objective, problem.log_x.shape[1]
    axis = np.geomspace(*EXPONENTS, GRID[m])
    exponents = np.stack(np.meshgrid(*[axis] * m, indexing="ij"), -1).reshape(-1, m)
    basis = _basis(problem.log_x, exponents, offset)
    base = problem.weights / problem.y if objective.log else problem.weights  # log L - log y = (L - y) / y, nearly
    rows = np.broadcast_to(base, basis.shape[:2])
    for _ in range(REWEIGHTINGS if objective.delta else 1):
        linear = _nonnegative(basis * rows[..., None], problem.y * rows)
        residual = problem.residual((basis @ linear[..., None])[..., 0])
        if objective.delta:
            rows = base * np.sqrt(np.minimum(1.0, objective.delta / np.maximum(np.abs(residual), TINY)))
    chosen = lowest_minima(objective.cost(residual).reshape([axis.size] * m))
    return [np.concatenate([linear[i], exponents[i]]) for i in chosen]


def lowest_minima(cost: Array) -> NDArray[np.intp]:
    """The flat indices of the STARTS lowest local minima over a grid, the lowest first."""
    minima = np.flatnonzero(cost == minimum_filter(cost, size=3, mode="nearest"))
    return minima[np.argsort(cost.ravel()[minima], kind="stable")][:STARTS]


def _nonnegative(a: Array, b: Array) -> Array:
    """min |a c - b| over c >= 0 for a stack of problems, a (g, n, k) and b (g, n): the best feasible set of columns."""
    k = a.shape[-1]
    scale = np.linalg.norm(a, axis=-2)
    a = a / scale[:, None, :]
    gram, moment = a.mT @ a + 1e-13 * np.eye(k), (a.mT @ b[..., None])[..., 0]
    best, lowest = np.zeros_like(moment), np.zeros(len(a))
    for kept in [list(columns) for size in range(1, k + 1) for columns in combinations(range(k), size)]:
        solved = np.linalg.solve(gram[:, kept][:, :, kept], moment[:, kept, None])[..., 0]
        cost = -np.sum(solved * moment[:, kept], axis=-1)  # |a c - b|^2 - |b|^2 at the least-squares c
        wins = (solved >= 0).all(-1) & (cost < lowest)
        best[wins] = 0.0
        best[np.ix_(wins, kept)] = solved[wins]
        lowest[wins] = cost[wins]
    return best / scale


def _polish(problem: Problem, theta: Array) -> OptimizeResult:
    """The exact minimum near `theta`, in all parameters; parameters that end near a bound are tried exactly on it."""
    delta = problem.objective.delta
    low, high = problem.shape.bounds(problem.log_x)

    def minimise(start: Array, free: NDArray[np.bool_]) -> OptimizeResult:
        def whole(part: Array) -> Array:
            theta = start.copy()
            theta[free] = part
            return theta

        result = least_squares(
            lambda part: problem.residual_at(whole(part)),
            start[free],
            lambda part: problem.jacobian_at(whole(part))[:, free],
            bounds=(low[free], high[free]),
            loss="huber" if delta else "linear",
            f_scale=delta or 1.0,
            x_scale="jac",
            ftol=1e-15,
            xtol=1e-15,
            gtol=1e-15,
            max_nfev=2000,
        )
        result.x = whole(result.x)
        return result

    best = minimise(np.clip(theta, low, high), np.ones(theta.size, bool))
    free = np.ones(theta.size, bool)
    for i in np.flatnonzero((best.x - low < NEAR) | (high - best.x < NEAR)):
        chosen = np.arange(theta.size) == i
        if (free & ~chosen).any():
            bound = low if best.x[i] - low[i] < NEAR else high
            snapped = minimise(np.where(chosen, bound, best.x), free & ~chosen)
            if snapped.cost <= best.cost * (1 + 1e-7) + 1e-30:
                best, free = snapped, free & ~chosen
    best.at_bound = (best.x == low) | (best.x == high)
    return best
