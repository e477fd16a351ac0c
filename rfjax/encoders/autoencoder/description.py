"""What the config.json of an AutoencoderKL says, and back."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rfjax.errors import UserError, nearest, one_line

CLASS = "AutoencoderKL"
BLOCKS = {"down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D"}
SILU = ("silu", "swish")
# What diffusers takes for a field that config.json leaves out.
DEFAULTS: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D"],
    "block_out_channels": [64],
    "layers_per_block": 1,
    "act_fn": "silu",
    "latent_channels": 4,
    "norm_num_groups": 32,
    "scaling_factor": 0.18215,
    "shift_factor": None,
    "latents_mean": None,
    "latents_std": None,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
}
WITHOUT_EFFECT = ("sample_size", "force_upcast")  # on what is computed: tiling and half precision of diffusers
MOST_LEVELS, MOST_RESNETS, WIDEST = 8, 64, 65_536


@dataclass(frozen=True)
class Architecture:
    """The options of the network.

    Attributes:
        widths: channels of each level, from full resolution down; each level but the last halves the resolution.
        resnets: residual blocks of a level of the encoder; the decoder has one more.
        latent: channels of a latent.
        groups: of every GroupNorm.
        inputs: channels of an encoded picture.
        outputs: channels of a decoded picture.
        quant: whether a 1 x 1 convolution follows the encoder.
        post_quant: whether one precedes the decoder.
        attention: whether the middle blocks attend.
    """

    widths: tuple[int, ...]
    resnets: int
    latent: int
    groups: int = 32
    inputs: int = 3
    outputs: int = 3
    quant: bool = True
    post_quant: bool = True
    attention: bool = True

    @property
    def factor(self) -> int:
        """Pixels of a picture along a side of a latent pixel."""
        return 2 ** (len(self.widths) - 1)


@dataclass(frozen=True)
class Description:
    """An autoencoder.

    Attributes:
        arch: of the network.
        scale, shift: z = (latent - shift) * scale is what a diffusion model sees.
        others: names and values of the config's fields that change no result, to be written back.
    """

    arch: Architecture
    scale: float
    shift: float
    others: tuple[tuple[str, Any], ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """The config.json of this autoencoder, as diffusers writes it."""
        arch, levels = self.arch, len(self.arch.widths)
        return {
            "_class_name": CLASS,
            "in_channels": arch.inputs,
            "out_channels": arch.outputs,
            **{key: [block] * levels for key, block in BLOCKS.items()},
            "block_out_channels": list(arch.widths),
            "layers_per_block": arch.resnets,
            "act_fn": SILU[0],
            "latent_channels": arch.latent,
            "norm_num_groups": arch.groups,
            "scaling_factor": self.scale,
            "shift_factor": self.shift or None,
            "use_quant_conv": arch.quant,
            "use_post_quant_conv": arch.post_quant,
            "mid_block_add_attention": arch.attention,
            **dict(self.others),
        }


def describe(settings: Mapping[str, Any], where: str) -> Description:
    """Reads a config.json.

    Args:
        settings: its content.
        where: its path, for messages.

    Raises:
        UserError: if it is of another class, or has a field or a value that this network can't follow.
    """
    if (name := settings.get("_class_name", CLASS)) != CLASS:
        raise UserError(f"{where} describes {one_line(repr(name))}: config.autoencoder.path needs an {CLASS}")
    known = {*DEFAULTS, *WITHOUT_EFFECT}
    if unknown := [key for key in settings if key not in known and not key.startswith("_")]:
        raise UserError(
            f"{where} has the field '{one_line(unknown[0])}', which {CLASS} does not have{nearest(unknown[0], known)}"
        )
    values = DEFAULTS | dict(settings)
    widths, groups = _widths(values["block_out_channels"], where), _whole(values, "norm_num_groups", where, WIDEST)
    _check_fixed(values, len(widths), where)
    if wrong := [width for width in widths if width % groups]:
        raise UserError(
            f"{where}: norm_num_groups = {groups} does not divide {wrong[0]} channels of block_out_channels"
        )
    arch = Architecture(
        widths,
        _whole(values, "layers_per_block", where, MOST_RESNETS),
        _whole(values, "latent_channels", where, WIDEST),
        groups,
        _whole(values, "in_channels", where, WIDEST),
        _whole(values, "out_channels", where, WIDEST),
        *(_flag(values, key, where) for key in ("use_quant_conv", "use_post_quant_conv", "mid_block_add_attention")),
    )
    scale, shift = _number(values, "scaling_factor", where), _number(values, "shift_factor", where, absent=0.0)
    if scale == 0:
        raise UserError(f"{where} has scaling_factor = 0, by which no latent can be divided")
    others = ((key, settings[key]) for key in WITHOUT_EFFECT if type(settings.get(key)) in (int, bool))
    return Description(arch, scale, shift, tuple(others))


def _check_fixed(values: Mapping[str, Any], levels: int, where: str) -> None:
    """Refuses values that change the result and that the network does not follow."""
    for key, block in BLOCKS.items():
        if values[key] != [block] * levels and values[key] != (block,) * levels:
            raise UserError(
                f"{where} has {key} = {one_line(repr(values[key]))}: it must be {block} for each of the {levels} "
                "levels of block_out_channels"
            )
    if values["act_fn"] not in SILU:
        raise UserError(f"{where} has act_fn = {one_line(repr(values['act_fn']))}: only silu is computed")
    for key in ("latents_mean", "latents_std"):
        if values[key] is not None:
            raise UserError(f"{where} has {key}: only scaling_factor and shift_factor are followed, so it must be null")


def _widths(value: Any, where: str) -> tuple[int, ...]:
    good = isinstance(value, list | tuple) and all(type(x) is int and 0 < x <= WIDEST for x in value)
    if not good or not 1 <= len(value) <= MOST_LEVELS:
        raise UserError(
            f"{where} has block_out_channels = {one_line(repr(value))}: it must list 1 to {MOST_LEVELS} numbers of "
            "channels"
        )
    return tuple(value)


def _whole(values: Mapping[str, Any], key: str, where: str, most: int) -> int:
    value = values[key]
    if type(value) is not int or not 1 <= value <= most:
        raise UserError(f"{where} has {key} = {one_line(repr(value))}: it must be a whole number from 1 to {most:,}")
    return value


def _flag(values: Mapping[str, Any], key: str, where: str) -> bool:
    if not isinstance(values[key], bool):
        raise UserError(f"{where} has {key} = {one_line(repr(values[key]))}: it must be true or false")
    return values[key]


def _number(values: Mapping[str, Any], key: str, where: str, absent: float | None = None) -> float:
    value = values[key]
    if value is None and absent is not None:
        return absent
    if type(value) not in (int, float) or not math.isfinite(value) or abs(value) > 1e6:
        raise UserError(f"{where} has {key} = {one_line(repr(value))}: it must be a number")
    return float(value)
