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
    """Text tokens and a pooled vector, as in SD3 section 4, and what stands for "no text".

    Attributes:
        context: text tokens, (B, L, E).
        pooled: one vector an example, (B, P).
        parts: which tokens and channels are whose (static: no leaf of the tree).
        empty: the context and the pooled vector of no text, such as the encodings of the empty prompt, for each
            example, so that they are spread and divided as those are. None: zeros.
    """

    context: Any
    pooled: Any
    parts: tuple[Group, ...] = struct.field(pytree_node=False, default=(Group(),))
    empty: tuple[Any, Any] | None = None

    @property
    def groups(self) -> int:
        """The number of encoders."""
        return len(self.parts)

    def drop(self, keep: Bool[Array, "B G"]) -> Self:
        """Replaces the outputs of the encoders that an example does not keep by those of no text (SD3 App. B.3).

        Args:
            keep: for each example, which of the G encoders; SD3 drops each of its three independently with 46.4 %.
        """
        context, pooled = self.context, self.pooled
        for i, (tokens, channels, vector) in enumerate(self.parts):
            kept = keep[:, i].astype(context.dtype)
            share, own = (slice(None), slice(*tokens), slice(*channels)), (slice(None), slice(*vector))
            context = context.at[share].multiply(kept[:, None, None])
            pooled = pooled.at[own].multiply(kept[:, None])
            if self.empty is not None:
                context = context.at[share].add(self.empty[0][share] * (1 - kept)[:, None, None])
                pooled = pooled.at[own].add(self.empty[1][own] * (1 - kept)[:, None])
        return self.replace(context=context, pooled=pooled)

    def null(self) -> Self:
        """No text: zeros, or `empty`."""
        context, pooled = self.empty or (jnp.zeros_like(self.context), jnp.zeros_like(self.pooled))
        return self.replace(context=context, pooled=pooled)
