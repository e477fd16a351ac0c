import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import flow


def best_velocity(z, t):
    """The optimum for x0 ~ N(0, 1): E[eps - x0 | z] = (2 t - 1) z / ((1 - t)^2 + t^2)."""
    t = t.reshape(-1, 1)
    return (2 * t - 1) / ((1 - t) ** 2 + t**2) * z


def test_the_loss_of_the_best_network_is_the_closed_form():
    n = 200_000
    x0, eps = (jax.random.normal(jax.random.key(k), (n, 1)) for k in (0, 1))
    formulation = flow.formulation("rf")
    found = []
    for k in range(8):
        at = formulation.coefficients(jnp.full((n,), k / 8))
        found.append(float(flow.cfm_loss(best_velocity, at, x0, eps).mean()))
    t = np.arange(8) / 8
    expected = 2 - (2 * t - 1) ** 2 / ((1 - t) ** 2 + t**2)
    np.testing.assert_allclose(expected, [1, 1.28, 1.6, 1.882353, 2, 1.882353, 1.6, 1.28], atol=1e-6)
    np.testing.assert_allclose(found, expected, rtol=4 * np.sqrt(2 / n))  # four standard errors


def test_the_loss_is_a_mean_over_everything_but_the_batch():
    zero = lambda z, t: jnp.zeros_like(z)  # noqa: E731
    x0 = jnp.zeros((2, 4, 4, 3))
    eps = jnp.stack([jnp.ones((4, 4, 3)), 2 * jnp.ones((4, 4, 3))])
    at = flow.formulation("rf").coefficients(jnp.array([0.3, 0.9]))
    np.testing.assert_allclose(flow.cfm_loss(zero, at, x0, eps), [1, 4])


def test_the_loss_is_float32_for_a_network_in_bfloat16():
    x0, eps = jnp.zeros((2, 3)), jnp.full((2, 3), 1 + 2.0**-10)
    at = flow.formulation("rf").coefficients(jnp.array([0.3, 0.9]))
    loss = flow.cfm_loss(lambda z, t: jnp.zeros_like(z, jnp.bfloat16), at, x0, eps)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, (1 + 2.0**-10) ** 2, rtol=1e-6)


@pytest.mark.parametrize("name", ["rf", "eps/linear", "v/cos", "edm", "edm/cos", "sit/vp"])
def test_a_network_that_knows_the_answer_loses_nothing(name):
    """Each example is noised at its own time, and the network sees that time."""
    made = flow.formulation(name)
    at = made.coefficients(jnp.array([0.1005, 0.5005, 0.9005]))
    x0, eps = (jax.random.normal(jax.random.key(k), (3, 4, 4, 2)) for k in (0, 1))
    shown, target = flow.noised(at, x0, eps)
    for i in range(3):
        z = at.a[i] * x0[i] + at.b[i] * eps[i]
        np.testing.assert_allclose(shown[i], at.scale[i] * z, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(target[i], at.p[i] * x0[i] + at.q[i] * eps[i], rtol=1e-5, atol=1e-6)

    def network(z, time):
        np.testing.assert_array_equal(time, at.time)
        np.testing.assert_array_equal(z, shown)
        return target

    np.testing.assert_array_equal(flow.cfm_loss(network, at, x0, eps), 0)
