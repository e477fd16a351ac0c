"""What a network may predict, and how each such quantity becomes another.

Every one of them is a linear mix P x0 + Q eps of data and noise with coefficients that depend on t alone, and so is
z = a x0 + b eps. Two mixes determine x0 and eps, and with them every third mix: one formula converts them all.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from rfjax.errors import UserError, nearest
from rfjax.flow.paths import Path, Times

SIGMA_DATA = 0.5  # EDM's standard deviation of the data; SD3 keeps it though its latents have 1


class PathValues(NamedTuple):
    """A path at times t: coefficients and their derivatives, each of the shape of t."""

    a: Times
    b: Times
    da: Times
    db: Times


def path_values(path: Path, t: Times) -> PathValues:
    """A path's coefficients at times t."""
    return PathValues(path.a(t), path.b(t), path.da(t), path.db(t))


def _preconditioned(m: PathValues) -> tuple[Times, Times]:
    """EDM's F: (sigma x0 - sigma_d^2 eps) / (sigma_d sqrt(sigma^2 + sigma_d^2)) for sigma = b / a."""
    norm = jnp.hypot(m.b, m.a * SIGMA_DATA)
    return m.b / (SIGMA_DATA * norm), -SIGMA_DATA * m.a / norm


# name -> (path_values -> P, Q)
QUANTITIES: dict[str, Callable[[PathValues], tuple[Times, Times]]] = {
    "velocity": lambda m: (m.da, m.db),
    "x0": lambda m: (jnp.ones_like(m.a), jnp.zeros_like(m.a)),
    "eps": lambda m: (jnp.zeros_like(m.a), jnp.ones_like(m.a)),
    "v": lambda m: (-m.b, m.a),
    "F": _preconditioned,
    "score": lambda m: (jnp.zeros_like(m.a), -1 / m.b),
}


def mix(name: str, at: PathValues) -> tuple[Times, Times]:
    """The coefficients (P, Q) of a quantity.

    "velocity" is dz/dt; "v" is the diffusion literature's a eps - b x0, which is another thing.

    Raises:
        UserError: for a name that is none of QUANTITIES.
    """
    if name not in QUANTITIES:
        raise UserError(f"there is no quantity '{name}'{nearest(name, QUANTITIES)}")
    return QUANTITIES[name](at)


def convert(
    value: Float[Array, "B *S"], z: Float[Array, "B *S"], at: PathValues, source: str, target: str
) -> Float[Array, "B *S"]:
    """Turns one quantity at z into another.

    Not every pair is possible at the ends: eps says nothing of x0 where a = 0, nor x0 of eps where b = 0.

    Args:
        value: the quantity `source` of QUANTITIES.
        z: where.
        at: the path at the times (B,) or ().
    """
    (p, q), (p_target, q_target) = mix(source, at), mix(target, at)
    determinant = at.a * q - at.b * p
    of_z, of_value = (p_target * q - q_target * p) / determinant, (q_target * at.a - p_target * at.b) / determinant
    return expand_to(of_z, z) * z + expand_to(of_value, z) * value


def expand_to(value: Float[Array, "*B"], x: Float[Array, "*BS"]) -> Float[Array, "*ones"]:
    """Shapes one value per example so that it broadcasts over x."""
    return value.reshape(value.shape + (1,) * (x.ndim - value.ndim))
