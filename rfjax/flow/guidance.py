"""Classifier-free guidance: dropping conditions in training, mixing two predictions in sampling."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rfjax.errors import UserError
from rfjax.flow.paths import Number

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


@dataclass(frozen=True)
class Guidance:
    """How to guide.

    Attributes:
        scale: w in out_0 + w (out_text - out_0); 1 is no guidance. May be traced.
        low, high: t within which guidance is on; outside, only the conditional half is computed (REPA's interval, whose
            [0, 0.7] leaves the noisiest part alone).
        channels: how many leading channels of the prediction are guided; None: all, as REPA does (DiT and SiT: 3 of 4).

    Raises:
        UserError: for an interval that is none.
    """

    scale: Number = 1.0
    low: float = 0.0
    high: float = 1.0
    channels: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise UserError(f"guidance needs an interval within [0, 1], not [{self.low:g}, {self.high:g}]")
        if self.channels is not None and self.channels < 1:
            raise UserError(f"guidance needs at least one channel, not {self.channels}")

    @property
    def none(self) -> bool:
        """Whether the scale is known to be 1."""
        return isinstance(self.scale, int | float) and self.scale == 1


GuidedNetwork = Callable[[Float[Array, "B *S"], Float[Array, " B"], Float[Array, ""]], Float[Array, "B *S"]]


def guided(
    network: Callable[..., Float[Array, "B *S"]],
    context: Float[Array, "B L E"] | None,
    pooled: Float[Array, "B P"] | None,
    guidance: Guidance,
) -> GuidedNetwork:
    """Binds the text to a network: (z, time, t) -> out_0 + scale (out_text - out_0), where out_0 sees zeros for text.

    Both halves go through the network as one batch. Since every quantity is linear in the prediction, guiding the
    prediction is guiding the velocity, the score or the drift.

    Args:
        network: (z, time, context, pooled) -> prediction. context, pooled: the text; None if the model takes none.

    Returns:
        (z, time, t): `time` is what the network is told, t decides whether guidance is on.

    Raises:
        UserError: for guidance of a model without text.
    """
    if context is None or pooled is None:
        if not guidance.none:
            raise UserError("guidance needs a model with text: this one is unconditional, so set the scale to 1")
        return lambda z, time, t: network(z, time)
    plain: GuidedNetwork = lambda z, time, t: network(z, time, context, pooled)  # noqa: E731
    if guidance.none:
        return plain
    both = [jnp.concatenate([x, jnp.zeros_like(x)]) for x in (context, pooled)]

    def mixed(z: Float[Array, "B *S"], time: Float[Array, " B"], t: Float[Array, ""]) -> Float[Array, "B *S"]:
        out = network(jnp.concatenate([z, z]), jnp.concatenate([time, time]), *both)
        with_text, without = jnp.split(out, 2)
        change = (guidance.scale - 1) * (with_text - without)
        if guidance.channels is not None:
            change = change.at[..., guidance.channels :].set(0)
        return with_text + change

    if guidance.low == 0 and guidance.high == 1:
        return mixed
    inside = lambda t: (guidance.low <= t) & (t <= guidance.high)  # noqa: E731
    return lambda z, time, t: jax.lax.cond(inside(t), mixed, plain, z, time, t)
