"""Which tensor of a published autoencoder fills which of our weights."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from rfjax.encoders.autoencoder.description import Architecture
from rfjax.errors import UserError
from rfjax.tensors.layout import Layout, Piece, conv, linear, same

HALVES = ("encoder", "decoder")
QUANT = {"encoder": "quant", "decoder": "post_quant"}  # a half's 1 x 1 convolution outside of it


@dataclass(frozen=True)
class Names:
    """How files name the parts; those of a half follow "encoder." or "decoder.".

    Attributes:
        resnet: of a level of the encoder, by {level} and {number}.
        up_resnet: of a level of the decoder; {level} counts in the order of computing, {turned} from full resolution.
        shortcut: within a residual block.
        down, up: the convolution that changes the resolution.
        middle: the two residual blocks of the lowest resolution.
        norm, attention: of the middle's attention, and its queries, keys, values and output.
        flat: whether those four are matrices; else they are 1 x 1 convolutions.
        norm_out: before the last convolution.
        prefix: before all names.
    """

    resnet: str = "down_blocks.{level}.resnets.{number}"
    up_resnet: str = "up_blocks.{level}.resnets.{number}"
    shortcut: str = "conv_shortcut"
    down: str = "down_blocks.{level}.downsamplers.0.conv"
    up: str = "up_blocks.{level}.upsamplers.0.conv"
    middle: tuple[str, str] = ("mid_block.resnets.0", "mid_block.resnets.1")
    norm: str = "mid_block.attentions.0.group_norm"
    attention: tuple[str, str, str, str] = tuple(
        f"mid_block.attentions.0.{x}" for x in ("to_q", "to_k", "to_v", "to_out.0")
    )
    flat: bool = True
    norm_out: str = "conv_norm_out"
    prefix: str = ""


DIFFUSERS = Names()
OLD_ATTENTION = tuple(f"mid_block.attentions.0.{x}" for x in ("query", "key", "value", "proj_attn"))
LDM = Names(
    resnet="down.{level}.block.{number}",
    up_resnet="up.{turned}.block.{number}",
    shortcut="nin_shortcut",
    down="down.{level}.downsample.conv",
    up="up.{turned}.upsample.conv",
    middle=("mid.block_1", "mid.block_2"),
    norm="mid.attn_1.norm",
    attention=tuple(f"mid.attn_1.{x}" for x in ("q", "k", "v", "proj_out")),
    flat=False,
    norm_out="norm_out",
)  # of latent diffusion's own code, which SD3's single files and Flux's autoencoder have too


def recognise(found: Mapping[str, tuple[int, ...]], where: object) -> Names:
    """The names of a file by its tensors' names and shapes.

    Raises:
        UserError: if it holds no autoencoder.
    """
    for prefix in ("", "first_stage_model."):
        for names in (DIFFUSERS, LDM):
            if f"{prefix}decoder.{names.norm_out}.weight" not in found:
                continue
            queries = f"{prefix}decoder.{OLD_ATTENTION[0]}.weight"
            if names is DIFFUSERS and queries in found:
                return replace(names, prefix=prefix, attention=OLD_ATTENTION, flat=len(found[queries]) == 2)
            return replace(names, prefix=prefix)
    raise UserError(f"{where} holds no autoencoder: it lacks decoder.{DIFFUSERS.norm_out}.weight")


def ignored(names: Names, half: str) -> tuple[str, ...]:
    """Beginnings of names that are no part of a half: of the other half, and of what else a single file holds."""
    other = HALVES[1 - HALVES.index(half)]
    prefix = names.prefix.replace(".", r"\.")
    outside = (rf"(?!{prefix})",) if prefix else ()
    return (rf"{prefix}({other}\.|{QUANT[other]}_conv\.|loss\.)", *outside)


def layout(arch: Architecture, half: str, names: Names = DIFFUSERS) -> Layout:
    """The layout of the encoder or the decoder: path of our weight -> their tensor.

    Args:
        arch: the options.
        half: "encoder" or "decoder".
        names: of the file.
    """
    start = f"{names.prefix}{half}."
    pieces = dict(_ends(arch, half, names, start))
    lowest, levels = arch.widths[-1], len(arch.widths)
    for number, name in enumerate(names.middle):
        pieces |= _resnet(f"mid_{number}", start + name, lowest, lowest, names)
    if arch.attention:
        pieces |= _norm("attention/norm", start + names.norm, lowest)
        for own, name in zip(("q", "k", "v", "out"), names.attention, strict=True):
            pieces |= _linear(f"attention/{own}", start + name, lowest, lowest, names.flat)
    down = half == "encoder"
    before = arch.widths[0] if down else lowest
    for level, width in enumerate(arch.widths if down else reversed(arch.widths)):
        say = {"level": level, "turned": levels - 1 - level}
        for number in range(arch.resnets + (not down)):
            name = (names.resnet if down else names.up_resnet).format(**say, number=number)
            pieces |= _resnet(f"level_{level}_{number}", start + name, before, width, names)
            before = width
        if level < levels - 1:
            name = (names.down if down else names.up).format(**say)
            pieces |= _conv(f"{'down' if down else 'up'}_{level}", start + name, 3, width, width)
    return {path: (piece,) for path, piece in pieces.items()}


def _ends(arch: Architecture, half: str, names: Names, start: str) -> Iterator[tuple[str, Piece]]:
    """What comes first and last."""
    top, lowest, latent = arch.widths[0], arch.widths[-1], arch.latent
    encoder = half == "encoder"
    inside, outside, last = (arch.inputs, 2 * latent, lowest) if encoder else (latent, arch.outputs, top)
    yield from _conv("conv_in", f"{start}conv_in", 3, inside, top if encoder else lowest).items()
    yield from _norm("norm", start + names.norm_out, last).items()
    yield from _conv("conv_out", f"{start}conv_out", 3, last, outside).items()
    if arch.quant if encoder else arch.post_quant:
        width = 2 * latent if encoder else latent
        yield from _conv(QUANT[half], f"{names.prefix}{QUANT[half]}_conv", 1, width, width).items()


def _conv(path: str, name: str, size: int, inputs: int, outputs: int) -> dict[str, Piece]:
    return {
        f"{path}/kernel": conv(f"{name}.weight", (size, size), inputs, outputs),
        f"{path}/bias": same(f"{name}.bias", (outputs,)),
    }


def _linear(path: str, name: str, inputs: int, outputs: int, flat: bool) -> dict[str, Piece]:
    if not flat:
        return _conv(path, name, 1, inputs, outputs)
    return {
        f"{path}/kernel": linear(f"{name}.weight", inputs, outputs),
        f"{path}/bias": same(f"{name}.bias", (outputs,)),
    }


def _norm(path: str, name: str, width: int) -> dict[str, Piece]:
    return {
        f"{path}/scale": same(f"{name}.weight", (width,)),
        f"{path}/bias": same(f"{name}.bias", (width,)),
    }


def _resnet(path: str, name: str, inputs: int, outputs: int, names: Names) -> dict[str, Piece]:
    pieces = {
        **_norm(f"{path}/norm1", f"{name}.norm1", inputs),
        **_conv(f"{path}/conv1", f"{name}.conv1", 3, inputs, outputs),
        **_norm(f"{path}/norm2", f"{name}.norm2", outputs),
        **_conv(f"{path}/conv2", f"{name}.conv2", 3, outputs, outputs),
    }
    if inputs != outputs:
        pieces |= _conv(f"{path}/shortcut", f"{name}.{names.shortcut}", 1, inputs, outputs)
    return pieces
