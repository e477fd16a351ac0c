"""The checkpoint formats of other projects, by name: how to read a config from one, and where our parameters are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rfjax import untrusted
from rfjax.config import Config
from rfjax.errors import UserError, nearest
from rfjax.interop import dit, sd3
from rfjax.models import Backbone, Inputs
from rfjax.tensors.layout import Layout
from rfjax.tensors.opening import member
from rfjax.tensors.safetensors import HEADER_LIMIT
from rfjax.tensors.stored import Tensors

Metadata = Mapping[str, Any] | None  # the config.json beside the weights


@dataclass(frozen=True)
class CheckpointFormat:
    """One way in which another project writes a network.

    Attributes:
        description: for users.
        file: suffix of its files; "" for a folder.
        read_config: (tensors, metadata, heads) -> config of the network; heads is the user's number, 0 if not given.
        layout: (model, inputs, config) -> the layout of our parameters.
        times: values of config.model.time that its networks may have.
        backbones: values of config.model.backbone that its networks may have.
        metadata: (model, inputs) -> content of a folder's config.json.
        ignore: regular expressions for names of tensors to ignore.
        table: whether it stores the table of positions.
        heads: model -> the number of heads that its shapes imply, 0 if none; None if the format stores the number.
    """

    description: str
    file: str
    read_config: Callable[[Tensors, Metadata, int], Config]
    layout: Callable[[Any, Inputs, Config], Layout]
    times: tuple[str, ...]
    backbones: tuple[str, ...]
    metadata: Callable[[Any, Inputs], dict[str, Any]] | None = None
    ignore: tuple[str, ...] = ()
    table: bool = True
    heads: Callable[[Any], int] | None = None


def _pt(whose: str, description: str) -> CheckpointFormat:
    return CheckpointFormat(
        description,
        ".pt",
        lambda tensors, metadata, heads: dit.from_file(tensors, whose, heads),
        lambda model, inputs, config: dit.layout(model, inputs, projectors=whose == "repa"),
        (dit.TIMES[whose],),
        ("dit", "sit"),
        heads=lambda model: dit.implied_heads(model.depth, model.width),
    )


LAYOUTS: dict[str, CheckpointFormat] = {
    "sd3": CheckpointFormat(
        "SD3 and SD3.5, a diffusers folder",
        "",
        lambda tensors, metadata, heads: sd3.from_folder(tensors, metadata),
        lambda model, inputs, config: sd3.layout(model, inputs, sd3.DIFFUSERS),
        ("1000t",),
        ("mmdit",),
        sd3.to_folder,
    ),
    "sd3-file": CheckpointFormat(
        "SD3 and SD3.5, the original single .safetensors file",
        ".safetensors",
        lambda tensors, metadata, heads: sd3.from_file(tensors),
        lambda model, inputs, config: sd3.layout(model, inputs, sd3.ORIGINAL),
        ("1000t",),
        ("mmdit",),
        ignore=sd3.ELSEWHERE,
        heads=lambda model: model.heads if model.qk_norm else model.depth,
    ),
    "dit": _pt("dit", "DiT, a .pt file (t is a step, 0 to 999)"),
    "sit": _pt("sit", "SiT, a .pt file (t = 1 is data, the velocity points to data)"),
    "repa": _pt("repa", "SiT as REPA trains it, a .pt file (t = 0 is data), with its projectors"),
    "dit-folder": CheckpointFormat(
        "DiT, a diffusers folder",
        "",
        lambda tensors, metadata, heads: dit.from_folder(tensors, metadata),
        lambda model, inputs, config: dit.folder_layout(model, inputs),
        ("1000t-1", "1000t"),
        ("dit", "sit"),
        dit.to_folder,
        table=False,
    ),
}


def find_format(name: str) -> CheckpointFormat:
    """The format of that name.

    Raises:
        UserError: if there is none.
    """
    if name not in LAYOUTS:
        raise UserError(f"there is no layout '{name}'{nearest(name, LAYOUTS)}")
    return LAYOUTS[name]


def read_metadata(tensors: Tensors, outside: bool) -> Metadata:
    """Reads the config.json in the folder of the weights; None if there is no file.

    Args:
        outside: whether the file may be a link out of the folder.

    Raises:
        UserError: if it is not a JSON object.
    """
    return untrusted.read_json(member(tensors.source.parent, "config.json", outside), limit=HEADER_LIMIT)


def check_export(name: str, config: Config, model: Backbone) -> None:
    """Refuses a network that a layout can't store."""
    form = find_format(name)
    if config.model.backbone not in form.backbones:
        raise UserError(f"the layout '{name}' stores {' and '.join(form.backbones)}, not '{config.model.backbone}'")
    if "dit" in form.backbones and not getattr(model, "classes", 0):
        raise UserError(f"the layout '{name}' stores networks with class labels, and this one reads text")
    if model.time not in form.times:
        raise UserError(
            f"the layout '{name}' stores networks with config.model.time = {' or '.join(form.times)}, and this one has "
            f"{model.time}"
        )
    if model.modulation != "adaln":
        raise UserError(
            f"the layout '{name}' stores adaLN's weights, and this network has none "
            f"(config.model.modulation = '{model.modulation}'): export it as it is, or train one with 'adaln'"
        )
    if form.table and model.frequency_shift:
        raise UserError(f"the layout '{name}' has no sinusoid with a shift of {model.frequency_shift}")
    if form.file == ".pt" and model.qk_norm:
        raise UserError(f"the layout '{name}' has no RMSNorm of queries and keys: see config.model.qk_norm")
    if form.heads and (implied := form.heads(model)) != model.heads:
        raise UserError(
            f"the layout '{name}' does not store the number of heads, and its readers assume {implied or 'no number'} "
            f"at depth {model.depth} and width {model.width}, but this network has {model.heads}"
        )
