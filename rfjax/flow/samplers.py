"""Samplers: from noise at t = 1 to data at t = 0 along dz/dt = velocity(z, t)."""

import itertools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

Velocity = Callable[[Float[Array, "B *S"], Float[Array, " B"]], Float[Array, "B *S"]]


def uniform_times(steps: int) -> Float32[np.ndarray, " T"]:
    """The grid 1, 1 - 1/steps, ..., 0: steps + 1 times."""
    return np.linspace(1.0, 0.0, steps + 1, dtype=np.float32)


def euler(velocity: Velocity, z: Float[Array, "B *S"], times: Float32[np.ndarray, " T"]) -> Float[Array, "B *S"]:
    """Euler's method, order 1, one evaluation a step (SD3 section 2, Eq. 1).

    The steps are a Python loop: with a jitted velocity nothing is compiled anew, whatever the number of steps.

    Args:
        velocity: (z, t) -> dz/dt. z: noise at times[0]. times: decreasing, from 1 (noise) to 0 (data).
    """
    for now, then in itertools.pairwise(times):
        z = z + (then - now) * velocity(z, jnp.full(z.shape[:1], now))
    return z


SAMPLERS: dict[str, Callable[..., Array]] = {"euler": euler}
