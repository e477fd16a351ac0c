import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import flow


def gaussian_velocity(s):
    """The exact velocity for x0 ~ N(0, s^2) on the linear path."""
    return lambda z, t: (-(1 - t[:, None]) * s**2 + t[:, None]) / ((1 - t[:, None]) ** 2 * s**2 + t[:, None] ** 2) * z


# Standard deviation of what Euler makes of it (facts of REPA section 1.5, computed from the exact variance recursion).
GOLDEN = {(0.5, 50): 0.4853967383, (0.5, 250): 0.4970452435, (1, 50): 0.9746161920, (1, 250): 0.9948715743}


@pytest.mark.parametrize(("s", "steps"), GOLDEN)
def test_euler_gives_the_golden_figures(s, steps):
    out = flow.euler(gaussian_velocity(s), jnp.ones((1, 1)), flow.uniform_times(steps))
    assert float(out[0, 0]) == pytest.approx(GOLDEN[s, steps], rel=1e-5)  # float32, one rounding a step


def test_euler_is_of_order_one():
    errors = []
    for steps in (20, 40, 80, 160):
        out = flow.euler(gaussian_velocity(0.5), jnp.ones((1, 1)), flow.uniform_times(steps))
        errors.append(abs(float(out[0, 0]) - 0.5))
    order = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    np.testing.assert_allclose(order, 1, atol=0.1)


def test_the_grid_goes_from_noise_to_data():
    times = flow.uniform_times(4)
    np.testing.assert_allclose(times, [1, 0.75, 0.5, 0.25, 0])
