"""The backbones by name, how they are built by the depth rule, and the shapes of what goes into any of them."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from rfjax.models.backbone import Backbone
from rfjax.models.crossdit import CrossDiT
from rfjax.models.dit import DiT
from rfjax.models.mmdit import MMDiT
from rfjax.models.uvit import UViT

# MM-DiT with three sets of weights is an MMDiT that is told the lengths of two kinds of text; SiT, a DiT that sees t.
BACKBONES: dict[str, Callable[..., Backbone]] = {
    "mmdit": MMDiT,
    "mmdit3": MMDiT,
    "dit": DiT,
    "sit": functools.partial(DiT, time="t"),
    "crossdit": CrossDiT,
    "uvit": UViT,
}


@dataclass(frozen=True)
class Inputs:
    """Shapes of one example: image (H, W, C), text (L, E), pooled (P,)."""

    image: tuple[int, int, int]
    text: tuple[int, int]
    pooled_width: int

    @property
    def shapes(self) -> tuple[tuple[int, int, int], tuple[int, int], int]:
        """(image, text, pooled width), as a backbone's `forward_flops` takes them."""
        return self.image, self.text, self.pooled_width

    def abstract(self, batch: int) -> tuple[jax.ShapeDtypeStruct, ...]:
        """(z, t, context, pooled) for a batch, as float32 shapes."""
        shapes = (self.image, (), self.text, (self.pooled_width,))
        return tuple(jax.ShapeDtypeStruct((batch, *shape), jnp.float32) for shape in shapes)


def build(name: str, depth: int, width_per_depth: int, **options: Any) -> Backbone:
    """A backbone by the paper's depth rule (SD3 section 5.3): width = width_per_depth x depth (64 there), depth heads.

    `options` are the backbone's own settings; among them, width and heads overrule the rule.
    """
    rule = {"depth": depth, "width": width_per_depth * depth, "heads": depth}
    return BACKBONES[name](**(rule | options))
