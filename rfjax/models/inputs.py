"""The shapes of what goes into a network, so that it can be built, counted and planned without data."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from rfjax.conditioning import TextConditioning


@dataclass(frozen=True)
class Inputs:
    """The shapes of one example.

    Attributes:
        shape: of z, channels last: an image (H, W, C) or a video (F, H, W, C).
        cond: the conditioning of one example, with `jax.ShapeDtypeStruct` as leaves that have no batch axis.
    """

    shape: tuple[int, ...]
    cond: Any

    @classmethod
    def of_text(cls, shape: tuple[int, ...], text: tuple[int, int], pooled: int) -> "Inputs":
        """Inputs for text of one encoder: tokens (L, E) and a pooled vector (P,)."""
        leaf = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)  # noqa: E731
        return cls(shape, TextConditioning(leaf(*text), leaf(pooled)))

    def abstract(self, batch: int) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct, Any]:
        """(z, t, cond) for a batch, as shapes."""
        whole = lambda leaf: jax.ShapeDtypeStruct((batch, *leaf.shape), leaf.dtype)  # noqa: E731
        z, t = jax.ShapeDtypeStruct(self.shape, jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
        return whole(z), whole(t), jax.tree.map(whole, self.cond)
