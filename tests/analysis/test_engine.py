"""The solver against brute force and against scipy's own solvers."""

import numpy as np
import pytest
from scipy.optimize import minimize, nnls

from rfjax.analysis.engine import EXPONENTS, OBJECTIVES, Problem, _nonnegative, solve
from rfjax.analysis.shapes import SHAPES


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_no_random_start_finds_a_lower_objective(objective, seed):
    rng = np.random.default_rng(seed)
    offset, n = bool(seed % 2), int(rng.integers(5, 12))
    log_x = np.sort(rng.uniform(-2, 2, (n, 1)), axis=0)
    y = (0.5 * offset + 0.4 * np.exp(-rng.uniform(0.02, 1) * log_x[:, 0])) * np.exp(0.02 * rng.normal(size=n))
    problem = Problem(log_x, y, np.ones(n), SHAPES["power_offset" if offset else "power"], OBJECTIVES[objective])
    solution = solve(problem)
    assert solution.success
    for _ in range(4):
        start = np.append(rng.uniform(0, 1, 1 + offset), np.exp(rng.uniform(*np.log(EXPONENTS))))
        found = minimize(
            lambda theta: problem.objective.cost(problem.residual_at(theta)),
            start,
            method="Nelder-Mead",
            bounds=[(0, None)] * (1 + offset) + [EXPONENTS],
            options={"maxfev": 4000, "xatol": 1e-9, "fatol": 1e-15},
        )
        assert solution.cost <= found.fun * (1 + 1e-6)


def test_stacked_nonnegative_least_squares_agree_with_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(200, 9, 3)), rng.normal(size=(200, 9))
    expected = np.array([nnls(one, other)[0] for one, other in zip(a, b, strict=True)])
    np.testing.assert_allclose(_nonnegative(a, b), expected, atol=1e-9)


def test_the_huber_covariance_approaches_least_absolute_deviations():
    """Normal errors far above delta: the variance tends to pi/2 times that of least squares (Koenker 2005, 3.2)."""
    rng, ratios = np.random.default_rng(1), []
    log_x = np.linspace(-2, 2, 400)[:, None]
    for _ in range(20):
        y = np.exp(-0.3 * log_x[:, 0] + 0.05 * rng.normal(size=400))
        huber, squares = (
            solve(Problem(log_x, y, np.ones(400), SHAPES["power"], OBJECTIVES[name]))
            for name in ("log_huber", "log_squares")
        )
        ratios.append(huber.covariance[1, 1] / squares.covariance[1, 1])
    assert np.mean(ratios) == pytest.approx(np.pi / 2, rel=0.15)
