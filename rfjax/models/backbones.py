"""The backbones by name, and the shapes of what goes into any of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from rfjax.models import mmdit

# name -> build(depth, width_per_depth, **options): a module called as (z, t, context, pooled).
BACKBONES: dict[str, Callable[..., Any]] = {"mmdit": mmdit.build}


@dataclass(frozen=True)
class Inputs:
    """Shapes of one example: image (H, W, C), text (L, E), pooled (P,)."""

    image: tuple[int, int, int]
    text: tuple[int, int]
    pooled_width: int

    def abstract(self, batch: int) -> tuple[jax.ShapeDtypeStruct, ...]:
        """(z, t, context, pooled) for a batch, as float32 shapes."""
        shapes = (self.image, (), self.text, (self.pooled_width,))
        return tuple(jax.ShapeDtypeStruct((batch, *shape), jnp.float32) for shape in shapes)
