"""Classifier-free guidance: dropping conditions in training, mixing two velocities in sampling."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Part = tuple[slice, slice, slice]  # one encoder's text tokens, their channels, and its channels of the pooled vector


def drop_text(
    keep: Bool[Array, "B G"],
    context: Float[Array, "B L E"],
    pooled: Float[Array, "B P"],
    parts: Sequence[Part],
) -> tuple[Float[Array, "B L E"], Float[Array, "B P"]]:
    """Sets to zero the outputs of the encoders that an example does not keep (SD3 App. B.3).

    Args:
        keep: for each example, which of G encoders; SD3 drops each of its three independently with 46.4 %.
        context: text tokens. pooled: pooled vectors.
        parts: where in context and pooled each encoder's outputs lie.
    """
    for i, (tokens, channels, vector) in enumerate(parts):
        kept = keep[:, i].astype(context.dtype)
        context = context.at[:, tokens, channels].multiply(kept[:, None, None])
        pooled = pooled.at[:, vector].multiply(kept[:, None])
    return context, pooled


def guided(
    network: Callable[..., Float[Array, "B2 *S"]],
    context: Float[Array, "B L E"],
    pooled: Float[Array, "B P"],
    scale: float,
) -> Callable[[Float[Array, "B *S"], Float[Array, " B"]], Float[Array, "B *S"]]:
    """Binds the text to a network: (z, t) -> out_0 + scale (out_text - out_0), where out_0 sees zeros for text.

    Both halves go through the network as one batch; at scale 1 only the conditional half is computed.

    Args:
        network: (z, t, context, pooled) -> output.
    """
    if scale == 1:
        return lambda z, t: network(z, t, context, pooled)
    both = lambda x: jnp.concatenate([x, jnp.zeros_like(x)])  # noqa: E731
    context, pooled = both(context), both(pooled)

    def apply(z: Float[Array, "B *S"], t: Float[Array, " B"]) -> Float[Array, "B *S"]:
        out = network(jnp.concatenate([z, z]), jnp.concatenate([t, t]), context, pooled)
        with_text, without = jnp.split(out, 2)
        return without + scale * (with_text - without)

    return apply
