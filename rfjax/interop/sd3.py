"""SD3's and SD3.5's MM-DiT: diffusers' folders (`SD3Transformer2DModel`) and the original single file.

Both store the same network. Names differ, diffusers has three matrices for q, k and v, and it has the scale before the
shift if there are two vectors of modulation. Both store the table of positions, and we read the table, because the
initial table of diffusers differs from the paper's formula.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rfjax import config as configs
from rfjax.config import Config
from rfjax.errors import UserError, one_line
from rfjax.interop import sizes
from rfjax.interop.builder import AttentionNames, LayoutBuilder, StreamNames
from rfjax.models import layers
from rfjax.models.inputs import Inputs
from rfjax.models.mmdit import MMDiT
from rfjax.tensors.layout import Index, Layout
from rfjax.tensors.stored import Tensors

TEXT_TOKENS = 154  # 77 of CLIP's and 77 of T5's; the network takes any number


@dataclass(frozen=True)
class Names:
    """A project's names of the parts of the network."""

    patch: str
    positions: str
    context: str
    time: tuple[str, str]
    pooled: tuple[str, str]
    block: str
    image: StreamNames
    text: StreamNames
    final_modulation: str
    final: str
    scale_first: bool


def _diffusers_attention(name: str, q: str, norm: str, out: str) -> AttentionNames:
    qkv = tuple(f"{name}.{q.format(kind)}" for kind in "qkv")
    return AttentionNames(qkv, f"{name}.{out}", f"{name}.{norm}_q", f"{name}.{norm}_k")


DIFFUSERS = Names(
    patch="pos_embed.proj",
    positions="pos_embed.pos_embed",
    context="context_embedder",
    time=("time_text_embed.timestep_embedder.linear_1", "time_text_embed.timestep_embedder.linear_2"),
    pooled=("time_text_embed.text_embedder.linear_1", "time_text_embed.text_embedder.linear_2"),
    block="transformer_blocks.{}",
    image=StreamNames(
        "norm1.linear",
        _diffusers_attention("attn", "to_{}", "norm", "to_out.0"),
        ("ff.net.0.proj", "ff.net.2"),
        _diffusers_attention("attn2", "to_{}", "norm", "to_out.0"),
    ),
    text=StreamNames(
        "norm1_context.linear",
        _diffusers_attention("attn", "add_{}_proj", "norm_added", "to_add_out"),
        ("ff_context.net.0.proj", "ff_context.net.2"),
    ),
    final_modulation="norm_out.linear",
    final="proj_out",
    scale_first=True,
)


def _original_stream(side: str) -> StreamNames:
    attention = lambda name: AttentionNames(  # noqa: E731
        (f"{side}.{name}.qkv",), f"{side}.{name}.proj", f"{side}.{name}.ln_q", f"{side}.{name}.ln_k"
    )
    mlp = (f"{side}.mlp.fc1", f"{side}.mlp.fc2")
    return StreamNames(f"{side}.adaLN_modulation.1", attention("attn"), mlp, attention("attn2"))


PREFIX = "model.diffusion_model."
ORIGINAL = Names(
    patch=f"{PREFIX}x_embedder.proj",
    positions=f"{PREFIX}pos_embed",
    context=f"{PREFIX}context_embedder",
    time=(f"{PREFIX}t_embedder.mlp.0", f"{PREFIX}t_embedder.mlp.2"),
    pooled=(f"{PREFIX}y_embedder.mlp.0", f"{PREFIX}y_embedder.mlp.2"),
    block=f"{PREFIX}joint_blocks.{{}}",
    image=_original_stream("x_block"),
    text=_original_stream("context_block"),
    final_modulation=f"{PREFIX}final_layer.adaLN_modulation.1",
    final=f"{PREFIX}final_layer.linear",
    scale_first=False,
)
# Names to ignore: a single file may hold the autoencoder and the text encoders too.
ELSEWHERE = (r"(?!model\.diffusion_model\.)",)


def layout(model: MMDiT, inputs: Inputs, names: Names) -> Layout:
    """The layout of a checkpoint, for a model whose table of positions is stored."""
    builder, spec, width = LayoutBuilder(), model.spec, model.width
    channels, side = inputs.shape[-1], model.positions.stored
    builder.patches("patch_embed", names.patch, model.patch[0], channels, width)
    builder.table("positions", names.positions, side * side, width)
    builder.dense("context_embed", names.context, inputs.cond.context.shape[1], width)
    for ours, theirs, size in (
        ("time_embed", names.time, layers.FREQUENCIES),
        ("pooled_embed", names.pooled, inputs.cond.pooled.shape[0]),
    ):
        builder.dense(f"{ours}/fc1", theirs[0], size, width)
        builder.dense(f"{ours}/fc2", theirs[1], width, width)
    for layer in range(model.depth):
        block, dual = names.block.format(layer), layer < model.dual_blocks
        ours, index = _group(model, layer)
        names.image.add(builder, f"{ours}/image", block, spec, index, dual=dual)
        if layer < model.depth - 1:
            names.text.add(builder, f"{ours}/text", block, spec, index)
        else:
            names.text.add_pre_only(builder, f"{ours}/text", block, spec, index, swapped=names.scale_first)
    modulation = builder.swapped if names.scale_first else builder.dense
    modulation("final_modulation/linear", names.final_modulation, width, 2 * width)
    builder.dense("final", names.final, width, model.patch[0] ** 2 * channels)
    return builder.layout()


def _group(model: MMDiT, layer: int) -> tuple[str, Index]:
    """The group of blocks that a layer belongs to, and the layer's index in the group."""
    if layer == model.depth - 1:
        return "last_block", ()
    if layer < model.dual_blocks:
        return "dual_blocks", (layer,)
    return "blocks", (layer - min(model.dual_blocks, model.depth - 1),)


def make_config(image_size: int, channels: int, text: tuple[int, int], model: Mapping[str, Any]) -> Config:
    """The config of a network without data, whose text is encoded elsewhere until a job names its encoders.

    Args:
        image_size: side of the latents.
        text: widths of the text tokens and of the pooled vector.
        model: key of config.model -> value.
    """
    c = configs.default()
    c.data.update(name="none", image_size=image_size, channels=channels)
    c.text.update(encoder="stored", layout="sd3", length=TEXT_TOKENS, width=text[0], pooled_width=text[1])
    c.flow.formulation = "rf/lognorm(0.00,1.00)"
    c.model.update(backbone="mmdit", **model)
    return configs.from_dict(c.to_dict())


def from_folder(tensors: Tensors, metadata: Mapping[str, Any] | None) -> Config:
    """Reads the config of a diffusers folder from its config.json.

    Raises:
        UserError: if there is no config.json, or rfjax has no such network.
    """
    where = tensors.source.parent / "config.json"
    if metadata is None:
        raise UserError(f"{where} is missing: a diffusers folder describes its network there")
    kind = metadata.get("_class_name")
    if kind != "SD3Transformer2DModel":
        raise UserError(f"{where} is of a {one_line(str(kind))}: expected an SD3Transformer2DModel")
    number = functools.partial(sizes.number, metadata, where=where)
    depth, patch, side = number("num_layers"), number("patch_size"), number("pos_embed_max_size")
    heads, head = number("num_attention_heads"), number("attention_head_dim")
    channels, norm = number("in_channels"), metadata.get("qk_norm")
    dual = metadata.get("dual_attention_layers") or []
    if dual != list(range(len(dual) if isinstance(dual, list) else 0)) or norm not in (None, "rms_norm"):
        raise UserError(
            f"{where}: dual_attention_layers = {one_line(repr(dual))} and qk_norm = {one_line(repr(norm))}, and "
            "rfjax knows the first few layers, and None or 'rms_norm'"
        )
    outputs, projected = number("out_channels"), number("caption_projection_dim")
    if (channels, heads * head) != (outputs, projected):
        raise UserError(
            f"{where}: in_channels = {channels} and out_channels = {outputs} must be equal, and so must heads x head "
            f"dim = {heads * head} and caption_projection_dim = {projected}"
        )
    model = {"depth": depth, "width": heads * head, "heads": heads, "patch": patch, "stored_positions": side}
    model |= {"qk_norm": norm is not None, "dual_blocks": len(dual)}
    if (blocks := sizes.count_blocks(tensors, r"transformer_blocks\.(\d+)\.")) != depth:
        raise UserError(f"{where} has num_layers = {depth}, but the weights beside it have {blocks} blocks")
    widths = number("joint_attention_dim"), number("pooled_projection_dim")
    return make_config(number("sample_size"), channels, widths, model)


def to_folder(model: MMDiT, inputs: Inputs) -> dict[str, Any]:
    """The config.json of a diffusers folder.

    Raises:
        UserError: if diffusers has no such network.
    """
    if model.mlp_ratio != 4:
        raise UserError(f"diffusers' SD3 has MLPs of ratio 4, but this model has ratio {model.mlp_ratio}")
    return {
        "_class_name": "SD3Transformer2DModel",
        "sample_size": inputs.shape[0],
        "patch_size": model.patch[0],
        "in_channels": inputs.shape[-1],
        "out_channels": inputs.shape[-1],
        "num_layers": model.depth,
        "attention_head_dim": model.width // model.heads,
        "num_attention_heads": model.heads,
        "joint_attention_dim": inputs.cond.context.shape[1],
        "caption_projection_dim": model.width,
        "pooled_projection_dim": inputs.cond.pooled.shape[0],
        "pos_embed_max_size": model.positions.stored,
        "dual_attention_layers": list(range(model.dual_blocks)),
        "qk_norm": "rms_norm" if model.qk_norm else None,
    }


def from_file(tensors: Tensors) -> Config:
    """Reads the config of an original single file from the shapes of its tensors.

    Without QK-norm the number of heads is the number of blocks, as in the original code.

    Raises:
        UserError: if a needed tensor is missing.
    """
    shape = functools.partial(sizes.shape, tensors, whose="one of SD3's original files")
    width, channels, patch, _ = shape(f"{ORIGINAL.patch}.weight", 4)
    side = round(shape(ORIGINAL.positions, 3)[1] ** 0.5)
    block = rf"{re.escape(PREFIX)}joint_blocks\.(\d+)\."
    depth, dual = (sizes.count_blocks(tensors, block + end) for end in ("", r"x_block\.attn2"))
    norm = f"{PREFIX}joint_blocks.0.x_block.attn.ln_q.weight"
    heads = width // shape(norm, 1)[0] if norm in tensors.names else depth
    hidden = shape(f"{PREFIX}joint_blocks.0.x_block.mlp.fc1.weight", 2)[0]
    model = {"depth": depth, "width": width, "heads": heads, "patch": patch, "stored_positions": side}
    model |= {"qk_norm": norm in tensors.names, "dual_blocks": dual, "mlp_ratio": hidden // width}
    text = shape(f"{ORIGINAL.context}.weight", 2)[1], shape(f"{ORIGINAL.pooled[0]}.weight", 2)[1]
    if not heads or width % heads:
        raise UserError(f"{tensors.source} has a width of {width} and {depth} blocks: expected as many heads as blocks")
    return make_config(min(128, side * patch), channels, text, model)
