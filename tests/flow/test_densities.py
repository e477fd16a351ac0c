import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

from rfjax.flow.densities import lognorm, uniform

CASES = {"uniform": uniform(), "lognorm(0,1)": lognorm(0.0, 1.0), "lognorm(1,0.6)": lognorm(1.0, 0.6)}


@pytest.mark.parametrize("name", CASES)
def test_the_pdf_integrates_to_one_and_is_the_derivative_of_the_distribution(name):
    density = CASES[name]
    total, _ = quad(lambda t: float(density.pdf(jnp.float32(t))), 1e-6, 1 - 1e-6, limit=200)
    assert total == pytest.approx(1, abs=2e-4)
    u = jnp.linspace(0.05, 0.95, 19)
    slope = jax.vmap(jax.grad(density.quantile))(u)
    np.testing.assert_allclose(density.pdf(density.quantile(u)) * slope, 1, rtol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_samples_agree_with_the_pdf(name):
    density = CASES[name]
    samples = np.asarray(density.sample(jax.random.key(0), (20_000,)))
    grid = np.linspace(1e-4, 1 - 1e-4, 4001)
    pdf = np.asarray(density.pdf(jnp.asarray(grid, jnp.float32)), float)
    cdf = np.concatenate([[0], np.cumsum((pdf[1:] + pdf[:-1]) / 2 * np.diff(grid))])
    assert stats.kstest(samples, lambda t: np.interp(t, grid, cdf / cdf[-1])).pvalue > 1e-3


def test_logit_normal_equals_its_definition():
    t = np.array([0.1, 0.4, 0.5, 0.9])
    logit = np.log(t / (1 - t))
    expected = stats.norm.pdf(logit, 0.5, 0.6) / (t * (1 - t))
    np.testing.assert_allclose(lognorm(0.5, 0.6).pdf(jnp.asarray(t, jnp.float32)), expected, rtol=1e-5)


def test_samples_stay_inside_where_the_tails_are_heavy():
    t = np.asarray(lognorm(0.0, 2.2).sample(jax.random.key(1), (100_000,)))
    assert np.isfinite(t).all()
    assert ((t >= 0) & (t <= 1)).all()
