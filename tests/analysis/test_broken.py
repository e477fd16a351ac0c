"""The broken power law: recovery, its Jacobian, what it becomes without a break, refusals."""

import numpy as np
import pytest

from rfjax.analysis import OBJECTIVES, Status, TooFewPoints, fit_law
from rfjax.analysis.broken import SMOOTHNESS, evaluate

X = np.geomspace(1e5, 3e7, 9)
A, FIRST, SECOND, BREAK = 0.5, 0.12, 0.04, 2e6


def broken(x):
    """As Caballero et al. 2022, equation 1, write it."""
    x = np.asarray(x) / 1e6
    rise = (1 + (x / (BREAK / 1e6)) ** (1 / SMOOTHNESS)) ** (-(SECOND - FIRST) * SMOOTHNESS)
    return A * x**-FIRST * rise


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_recovers_the_law_without_noise(objective):
    fit = fit_law(X, broken(X), law="broken_power", objective=objective)
    assert fit.status is Status.CONVERGED
    found = [fit.parameters[name] for name in ("alpha", "alpha_2", "x_break")]
    np.testing.assert_allclose(found, [FIRST, SECOND, BREAK], rtol=1e-4)
    assert fit.predict(1e8).value == pytest.approx(broken(1e8), rel=1e-6)
    assert "exponent 0.040 beyond about 2e+06" in fit.text


def test_the_jacobian_is_the_derivative():
    theta, log_x = np.array([0.4, 0.2, 0.1, 0.3]), np.linspace(-3, 3, 7)[:, None]
    jacobian = evaluate(theta, log_x)[1]
    for i, step in enumerate(1e-6 * np.eye(4)):
        numeric = (evaluate(theta + step, log_x)[0] - evaluate(theta - step, log_x)[0]) / 2e-6
        np.testing.assert_allclose(jacobian[:, i], numeric, rtol=1e-6, atol=1e-10)


def test_units_do_not_matter():
    y = broken(X) * np.exp(0.001 * np.random.default_rng(0).normal(size=X.size))
    one, other = fit_law(X, y, law="broken_power"), fit_law(1e3 * X, 7 * y, law="broken_power")
    assert other.parameters["x_break"] == pytest.approx(1e3 * one.parameters["x_break"], rel=1e-4)
    assert np.log(other.intervals["x_break"]) == pytest.approx(np.log(one.intervals["x_break"]) + np.log(1e3), abs=1e-3)
    assert other.predict(1e11).high == pytest.approx(7 * one.predict(1e8).high, rel=1e-5)
    low, high = one.intervals["x_break"]
    assert low < BREAK < high


def test_without_a_break_it_is_the_power_law():
    fit = fit_law(X, 0.4 * (X / 1e6) ** -0.1, law="broken_power")
    assert fit.parameters["alpha"] == pytest.approx(0.1, abs=1e-5)
    assert fit.parameters["alpha_2"] == pytest.approx(0.1, abs=1e-5)


def test_too_few_rungs_are_refused_with_numbers():
    with pytest.raises(TooFewPoints, match="needs 5 points or more, not 4"):
        fit_law(X[:4], broken(X[:4]), law="broken_power")
