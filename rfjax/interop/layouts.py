"""The layouts of other projects by name: what is in a file, and where each of our parameters is in it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rfjax import untrusted
from rfjax.config import Config
from rfjax.errors import UserError, nearest
from rfjax.interop import dit, sd3
from rfjax.interop.layout import Layout
from rfjax.interop.safetensors import HEADER_LIMIT
from rfjax.interop.stored import Tensors
from rfjax.interop.tensors import member
from rfjax.models import Backbone, Inputs

Facts = Mapping[str, Any] | None  # the config.json beside the weights


@dataclass(frozen=True)
class Kind:
    """One way in which another project writes a network.

    Attributes:
        what: for people. file: how its files end; "" for a folder.
        describe: (tensors, facts, heads) -> the config of the network that is there; heads: where the user says how
            many, else 0.
        layout: (model, inputs, config) -> where our parameters are.
        facts: (model, inputs) -> config.json of a folder.
        times: what its networks may be told of t (config.model.time). backbones: what they are here.
        ignore: names of tensors that may be there too, as regular expressions.
        table: whether it stores the table of positions.
        heads: model -> the number of heads that its shapes imply, 0 for none; None where the number is stored.
    """

    what: str
    file: str
    describe: Callable[[Tensors, Facts, int], Config]
    layout: Callable[[Any, Inputs, Config], Layout]
    times: tuple[str, ...]
    backbones: tuple[str, ...]
    facts: Callable[[Any, Inputs], dict[str, Any]] | None = None
    ignore: tuple[str, ...] = ()
    table: bool = True
    heads: Callable[[Any], int] | None = None


def _pt(whose: str, what: str) -> Kind:
    return Kind(
        what,
        ".pt",
        lambda tensors, facts, heads: dit.from_file(tensors, whose, heads),
        lambda model, inputs, config: dit.layout(
            model, inputs, config.model.projectors if whose == "repa" else (), config.model.projector_width
        ),
        (dit.TIMES[whose],),
        ("dit", "sit"),
        heads=lambda model: dit.implied_heads(model.depth, model.width),
    )


LAYOUTS: dict[str, Kind] = {
    "sd3": Kind(
        "SD3 and SD3.5, a diffusers folder",
        "",
        lambda tensors, facts, heads: sd3.from_folder(tensors, facts),
        lambda model, inputs, config: sd3.layout(model, inputs, sd3.DIFFUSERS),
        ("1000t",),
        ("mmdit",),
        sd3.to_folder,
    ),
    "sd3-file": Kind(
        "SD3 and SD3.5, the original single .safetensors file",
        ".safetensors",
        lambda tensors, facts, heads: sd3.from_file(tensors),
        lambda model, inputs, config: sd3.layout(model, inputs, sd3.ORIGINAL),
        ("1000t",),
        ("mmdit",),
        ignore=sd3.ELSEWHERE,
        heads=lambda model: model.heads if model.qk_norm else model.depth,
    ),
    "dit": _pt("dit", "DiT, a .pt file (t is a step, 0 to 999)"),
    "sit": _pt("sit", "SiT, a .pt file (t = 1 is data, the velocity points to data)"),
    "repa": _pt("repa", "SiT as REPA trains it, a .pt file (t = 0 is data), with its projectors"),
    "dit-folder": Kind(
        "DiT, a diffusers folder",
        "",
        lambda tensors, facts, heads: dit.from_folder(tensors, facts),
        lambda model, inputs, config: dit.folder_layout(model, inputs),
        ("1000t-1", "1000t"),
        ("dit", "sit"),
        dit.to_folder,
        table=False,
    ),
}


def find(name: str) -> Kind:
    """The layout of that name.

    Raises:
        UserError: if there is none.
    """
    if name not in LAYOUTS:
        raise UserError(f"there is no layout '{name}'{nearest(name, LAYOUTS)}")
    return LAYOUTS[name]


def facts_beside(tensors: Tensors, outside: bool) -> Facts:
    """The config.json in the folder of the weights, or None; outside: whether it may be a link to elsewhere.

    Raises:
        UserError: if it is no JSON object.
    """
    return untrusted.read_json(member(tensors.source.parent, "config.json", outside), limit=HEADER_LIMIT)


def check_export(name: str, config: Config, model: Backbone) -> None:
    """Raises UserError if a layout has no place for a network."""
    kind = find(name)
    if config.model.backbone not in kind.backbones:
        raise UserError(
            f"the layout '{name}' is for {' and '.join(kind.backbones)}, not for a '{config.model.backbone}'"
        )
    if "dit" in kind.backbones and not getattr(model, "classes", 0):
        raise UserError(f"the layout '{name}' is for networks with class labels, and this one reads text")
    if model.time not in kind.times:
        raise UserError(
            f"the layout '{name}' is for networks that are told {' or '.join(kind.times)}, and this one is told "
            f"{model.time}: see config.model.time"
        )
    if kind.table and model.frequency_shift:
        raise UserError(f"the layout '{name}' has no sinusoid with a shift of {model.frequency_shift}")
    if kind.file == ".pt" and model.qk_norm:
        raise UserError(f"the layout '{name}' has no RMSNorm of queries and keys: see config.model.qk_norm")
    if kind.heads and (implied := kind.heads(model)) != model.heads:
        raise UserError(
            f"the layout '{name}' does not store the number of heads, which whoever opens it takes to be "
            f"{implied or 'unknown'} at depth {model.depth} and width {model.width}, and this network has {model.heads}"
        )
