"""The backbones by name, and how they are built by the depth rule."""

from typing import Any

from rfjax import lookup
from rfjax.models.backbone import Backbone

# MM-DiT with three sets of weights is an MMDiT that is told the lengths of two kinds of text; SiT, a DiT that sees t.
BACKBONES: dict[str, str] = {
    "mmdit": "rfjax.models.mmdit:MMDiT",
    "mmdit3": "rfjax.models.mmdit:MMDiT",
    "dit": "rfjax.models.dit:DiT",
    "sit": "rfjax.models.dit:DiT",
    "crossdit": "rfjax.models.crossdit:CrossDiT",
    "uvit": "rfjax.models.uvit:UViT",
}
OWN: dict[str, dict[str, Any]] = {"sit": {"time": "t"}}


def build(name: str, depth: int, width_per_depth: int, *, patch: int | tuple[int, ...] = 2, **options: Any) -> Backbone:
    """A backbone by the paper's depth rule (SD3 section 5.3): width = width_per_depth x depth (64 there), depth heads.

    Args:
        name: of BACKBONES, or an import path `MODULE:NAME`.
        patch: the sides of a patch; one number: of a square.
        options: the backbone's own settings; among them, width and heads overrule the rule.
    """
    rule = {"depth": depth, "width": width_per_depth * depth, "heads": depth}
    sides = (patch, patch) if isinstance(patch, int) else patch
    kind = lookup.find(name, BACKBONES, "model.backbone")
    return kind(**(rule | OWN.get(name, {}) | options), patch=sides)
