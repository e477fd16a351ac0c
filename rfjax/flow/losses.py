"""The conditional flow-matching loss."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from rfjax.flow.formulations import Coefficients
from rfjax.flow.quantities import expand_to

Network = Callable[[Float[Array, "B *S"], Float[Array, " B"]], Float[Array, "B *S"]]


def noised(
    at: Coefficients, x0: Float[Array, "B *S"], eps: Float[Array, "B *S"]
) -> tuple[Float[Array, "B *S"], Float[Array, "B *S"]]:
    """What the network is shown, scale z_t with z_t = a x0 + b eps, and what it should say, p x0 + q eps.

    Args:
        at: a formulation's coefficients at each example's time, (B,).
        x0: data.
        eps: standard normal noise.
    """
    z = expand_to(at.a, x0) * x0 + expand_to(at.b, x0) * eps
    return expand_to(at.scale, x0) * z, expand_to(at.p, x0) * x0 + expand_to(at.q, x0) * eps


def cfm_loss(
    network: Network, at: Coefficients, x0: Float[Array, "B *S"], eps: Float[Array, "B *S"]
) -> Float[Array, " B"]:
    """Each example's mean squared error of the prediction at z_t, over all but the first axis, in float32 (SD3 Eq. 8).

    Args:
        network: (scaled z, time) -> prediction, of the shape of z.
        at: a formulation's coefficients at each example's time.
        x0: data.
        eps: standard normal noise.
    """
    shown, target = noised(at, x0, eps)
    return squared_error(network(shown, at.time), target)


def squared_error(prediction: Float[Array, "B *S"], target: Float[Array, "B *S"]) -> Float[Array, " B"]:
    """Mean squared error over all but the first axis, in float32."""
    error = prediction.astype(jnp.float32) - target
    return jnp.mean(error**2, axis=tuple(range(1, error.ndim)))
