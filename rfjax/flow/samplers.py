"""Samplers: from noise at t = 1 to data at t = 0 along dz/dt = velocity(z, t)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Velocity = Callable[[Float[Array, "B *S"], Float[Array, " B"]], Float[Array, "B *S"]]


def uniform_times(steps: int) -> Float[Array, " T"]:
    """The grid 1, 1 - 1/steps, ..., 0: steps + 1 times."""
    return jnp.linspace(1.0, 0.0, steps + 1)


def euler(velocity: Velocity, z: Float[Array, "B *S"], times: Float[Array, " T"]) -> Float[Array, "B *S"]:
    """Euler's method, order 1, one evaluation a step (SD3 section 2, Eq. 1).

    Args:
        velocity: (z, t) -> dz/dt. z: noise at times[0]. times: decreasing, from 1 (noise) to 0 (data).
    """

    def step(z: Float[Array, "B *S"], pair: tuple[Array, Array]) -> tuple[Float[Array, "B *S"], None]:
        now, then = pair
        return z + (then - now) * velocity(z, jnp.full(z.shape[:1], now)), None

    return jax.lax.scan(step, z, (times[:-1], times[1:]))[0]


SAMPLERS: dict[str, Callable[..., Array]] = {"euler": euler}
