"""Classifier-free guidance: mixing the predictions with and without a condition (Ho & Salimans 2022)."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rfjax.conditioning import Conditioning
from rfjax.errors import UserError
from rfjax.flow.paths import Number


@dataclass(frozen=True)
class Guidance:
    """How to guide.

    Attributes:
        scale: w in out_0 + w (out_cond - out_0); 1 is no guidance. May be traced.
        low: guidance is on from this t; outside the interval only the conditional half is computed.
        high: guidance is on up to this t (REPA's interval [0, 0.7] leaves the noisiest part alone).
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
    network: Callable[..., Float[Array, "B *S"]], cond: Conditioning | None, guidance: Guidance
) -> GuidedNetwork:
    """Binds the condition to a network: (z, time, t) -> out_0 + scale (out_cond - out_0), where out_0 sees its null.

    Both halves go through the network as one batch. Since every quantity is linear in the prediction, guiding the
    prediction is guiding the velocity, the score or the drift.

    Args:
        network: (z, time, cond) -> prediction, or (z, time) -> prediction without a condition.
        cond: the condition; None if the network takes none.
        guidance: how to guide.

    Returns:
        (z, time, t): `time` is what the network is told, t decides whether guidance is on.

    Raises:
        UserError: for guidance of a network without a condition.
    """
    if cond is None:
        if not guidance.none:
            raise UserError("guidance needs a model with text: this one is unconditional, so set the scale to 1")
        return lambda z, time, t: network(z, time)
    plain: GuidedNetwork = lambda z, time, t: network(z, time, cond)  # noqa: E731
    if guidance.none:
        return plain
    both = jax.tree.map(lambda *halves: jnp.concatenate(halves), cond, cond.null())

    def mixed(z: Float[Array, "B *S"], time: Float[Array, " B"], t: Float[Array, ""]) -> Float[Array, "B *S2"]:
        out = network(jnp.concatenate([z, z]), jnp.concatenate([time, time]), both)
        with_cond, without = jnp.split(out, 2)
        change = (guidance.scale - 1) * (with_cond - without)
        if guidance.channels is not None or out.shape[-1] > z.shape[-1]:  # a variance is never guided
            change = change.at[..., guidance.channels or z.shape[-1] :].set(0)
        return with_cond + change

    if guidance.low == 0 and guidance.high == 1:
        return mixed
    inside = lambda t: (guidance.low <= t) & (t <= guidance.high)  # noqa: E731
    return lambda z, time, t: jax.lax.cond(inside(t), mixed, plain, z, time, t)
