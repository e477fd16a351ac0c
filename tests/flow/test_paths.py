import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax.flow.paths import PATHS

T = np.linspace(0.02, 0.98, 25, dtype=np.float32)


@pytest.mark.parametrize("name", PATHS)
def test_the_ends_are_data_and_noise(name):
    path = PATHS[name]
    ends = jnp.array([0.0, 1.0])
    np.testing.assert_allclose(path.a(ends), [1, 0], atol=1e-6)
    np.testing.assert_allclose(path.b(ends), [0, 1], atol=1e-6)


@pytest.mark.parametrize("name", PATHS)
def test_derivatives_are_those_of_the_coefficients(name):
    path = PATHS[name]
    for f, df in ((path.a, path.da), (path.b, path.db)):
        np.testing.assert_allclose(jax.vmap(jax.grad(f))(T), df(T), rtol=1e-5)


def test_the_log_snr_of_rectified_flow():
    np.testing.assert_allclose(PATHS["rf"].log_snr(jnp.asarray(T)), 2 * np.log((1 - T) / T), rtol=2e-5, atol=1e-6)


def test_interpolation_and_velocity_go_example_by_example():
    x0, eps = jnp.ones((2, 3, 3, 1)), jnp.full((2, 3, 3, 1), 3.0)
    z = PATHS["rf"].interpolate(x0, eps, jnp.array([0.0, 0.5]))
    np.testing.assert_allclose(z[:, 0, 0, 0], [1.0, 2.0])
    np.testing.assert_allclose(PATHS["rf"].velocity(x0, eps, jnp.array([0.0, 0.5])), 2.0)
