import jax
import jax.numpy as jnp
import numpy as np

from rfjax import flow


def best_velocity(z, t):
    """The optimum for x0 ~ N(0, 1): E[eps - x0 | z] = (2 t - 1) z / ((1 - t)^2 + t^2)."""
    t = t.reshape(-1, 1)
    return (2 * t - 1) / ((1 - t) ** 2 + t**2) * z


def test_the_loss_of_the_best_network_is_the_closed_form():
    n = 200_000
    x0, eps = (jax.random.normal(jax.random.key(k), (n, 1)) for k in (0, 1))
    found = []
    for k in range(8):
        t = jnp.full((n,), k / 8)
        found.append(float(flow.cfm_loss(best_velocity, flow.formulation("rf"), x0, eps, t).mean()))
    t = np.arange(8) / 8
    expected = 2 - (2 * t - 1) ** 2 / ((1 - t) ** 2 + t**2)
    np.testing.assert_allclose(expected, [1, 1.28, 1.6, 1.882353, 2, 1.882353, 1.6, 1.28], atol=1e-6)
    np.testing.assert_allclose(found, expected, rtol=4 * np.sqrt(2 / n))  # four standard errors


def test_the_loss_is_a_mean_over_everything_but_the_batch():
    zero = lambda z, t: jnp.zeros_like(z)  # noqa: E731
    x0 = jnp.zeros((2, 4, 4, 3))
    eps = jnp.stack([jnp.ones((4, 4, 3)), 2 * jnp.ones((4, 4, 3))])
    loss = flow.cfm_loss(zero, flow.formulation("rf"), x0, eps, jnp.array([0.3, 0.9]))
    np.testing.assert_allclose(loss, [1, 4])
