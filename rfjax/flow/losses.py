"""The conditional flow-matching loss."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from rfjax.flow.formulations import Formulation

Network = Callable[[Float[Array, "B *S"], Float[Array, " B"]], Float[Array, "B *S"]]


def cfm_loss(
    network: Network,
    flow: Formulation,
    x0: Float[Array, "B *S"],
    eps: Float[Array, "B *S"],
    t: Float[Array, " B"],
) -> Float[Array, " B"]:
    """Each example's mean squared error of the prediction at z_t, over all but the first axis, in float32 (SD3 Eq. 8).

    Args:
        network: (z, t) -> prediction, of the shape of z.
        flow: the path gives z_t, the prediction gives the target.
        x0: data. eps: standard normal noise. t: times in [0, 1].
    """
    z = flow.path.interpolate(x0, eps, t)
    return squared_error(network(z, t), flow.prediction.target(flow.path, x0, eps, t))


def squared_error(prediction: Float[Array, "B *S"], target: Float[Array, "B *S"]) -> Float[Array, " B"]:
    """Mean squared error over all but the first axis, in float32."""
    error = prediction.astype(jnp.float32) - target
    return jnp.mean(error**2, axis=tuple(range(1, error.ndim)))
