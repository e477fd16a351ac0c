"""What a network is conditioned on besides the time: a pytree that can drop its parts and knows its null.

Encoders make it, objectives drop parts of it in training, guidance replaces it by its null, and networks read it.
B batch, L text tokens, E channels of a token, P channels of the pooled vector, G groups that are dropped together.
"""

from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool


@runtime_checkable
class Conditioning(Protocol):
    """The contract: a pytree whose leaves have the batch as their first axis.

    A class that keeps it, and a backbone that reads it, can stand in for `TextConditioning` everywhere.
    """

    @property
    def groups(self) -> int:
        """How many parts can be dropped independently of each other."""
        ...

    def drop(self, keep: Bool[Array, "B G"]) -> Self:
        """The conditioning without the parts that an example does not keep."""
        ...

    def null(self) -> Self:
        """The conditioning that says nothing, of the same shape: the other half of classifier-free guidance."""
        ...


Span = tuple[int, int | None]  # the indices start ... stop - 1; None: to the end


class Group(NamedTuple):
    """One encoder's share of the text: guidance drops it as a whole.

    Attributes:
        tokens: its text tokens.
        channels: its channels of those tokens.
        pooled: its channels of the pooled vector.
    """

    tokens: Span = (0, None)
    channels: Span = (0, None)
    pooled: Span = (0, None)


class TextConditioning(struct.PyTreeNode):
    """Text tokens and a pooled vector, as in SD3 section 4. Zeros stand for "no text".

    Attributes:
        context: text tokens, (B, L, E).
        pooled: one vector an example, (B, P).
        parts: which tokens and channels are whose (static: no leaf of the tree).
    """

    context: Any
    pooled: Any
    parts: tuple[Group, ...] = struct.field(pytree_node=False, default=(Group(),))

    @property
    def groups(self) -> int:
        """The number of encoders."""
        return len(self.parts)

    def drop(self, keep: Bool[Array, "B G"]) -> Self:
        """Sets to zero the outputs of the encoders that an example does not keep (SD3 App. B.3).

        Args:
            keep: for each example, which of the G encoders; SD3 drops each of its three independently with 46.4 %.
        """
        context, pooled = self.context, self.pooled
        for i, (tokens, channels, vector) in enumerate(self.parts):
            kept = keep[:, i].astype(context.dtype)
            context = context.at[:, slice(*tokens), slice(*channels)].multiply(kept[:, None, None])
            pooled = pooled.at[:, slice(*vector)].multiply(kept[:, None])
        return self.replace(context=context, pooled=pooled)

    def null(self) -> Self:
        """Zeros for text."""
        return self.replace(context=jnp.zeros_like(self.context), pooled=jnp.zeros_like(self.pooled))
