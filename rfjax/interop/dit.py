"""DiT's, SiT's and REPA's class-conditional networks: their own .pt files, and diffusers' folders of DiT.

The tensors of a DiT and a SiT have the same names and shapes, so the file does not show which it is. They differ in how
the network receives t, and SiT's output has the opposite sign.
"""

import functools
import itertools
from collections.abc import Mapping
from typing import Any

from rfjax import config as configs
from rfjax.config import Config
from rfjax.errors import UserError
from rfjax.interop import sizes
from rfjax.interop.builder import AttentionNames, LayoutBuilder, StreamNames
from rfjax.models import layers
from rfjax.models.dit import SIZES, DiT
from rfjax.models.inputs import Inputs
from rfjax.models.projector import Projector
from rfjax.tensors.layout import Layout, same
from rfjax.tensors.stored import Tensors

# The project -> config.model.time, and config.flow.formulation.
TIMES = {"dit": "1000t-1", "sit": "1-t", "repa": "t"}
FORMULATIONS = {"dit": "dit/eps", "sit": "sit/linear", "repa": "repa/linear"}
HEAD = 64  # width of a head in S, B and L; XL has 72

ORIGINAL = StreamNames("adaLN_modulation.1", AttentionNames(("attn.qkv",), "attn.proj"), ("mlp.fc1", "mlp.fc2"))
DIFFUSERS = StreamNames(
    "norm1.linear",
    AttentionNames(("attn1.to_q", "attn1.to_k", "attn1.to_v"), "attn1.to_out.0"),
    ("ff.net.0.proj", "ff.net.2"),
)


def layout(model: DiT, inputs: Inputs, *, projectors: bool = False) -> Layout:
    """The layout of a .pt file, for a model whose table of positions is stored.

    Args:
        model: the network.
        inputs: its shapes.
        projectors: whether the file holds the model's projectors too.

    Raises:
        UserError: if a projector is not REPA's.
    """
    builder, width, side = LayoutBuilder(), model.width, model.positions.stored
    builder.patches("patch_embed", "x_embedder.proj", model.patch[0], inputs.shape[-1], width)
    builder.table("positions", "pos_embed", side * side, width)
    builder.dense("time_embed/fc1", "t_embedder.mlp.0", layers.FREQUENCIES, width)
    builder.dense("time_embed/fc2", "t_embedder.mlp.2", width, width)
    builder.add("label_embed/embedding", same("y_embedder.embedding_table.weight", (model.classes + 1, width)))
    for layer in range(model.depth):
        ORIGINAL.add(builder, "blocks/stream", f"blocks.{layer}", model.spec, (layer,))
    builder.dense("final_modulation/linear", "final_layer.adaLN_modulation.1", width, 2 * width)
    builder.dense("final", "final_layer.linear", width, _outputs(model, inputs))
    for i, head in enumerate(model.readouts if projectors else ()):
        if not isinstance(head.module, Projector):
            raise UserError(f"the layout 'repa' has no place for the head '{head.name}': REPA's projector is an MLP")
        hidden = head.module.width
        for j, sides in enumerate(itertools.pairwise((width, hidden, hidden, head.module.target))):
            builder.dense(f"{head.name}/fc{j + 1}", f"projectors.{i}.{2 * j}", *sides)
    return builder.layout()


def folder_layout(model: DiT, inputs: Inputs) -> Layout:
    """The layout of a diffusers folder, in which each block has a copy of two embeddings."""
    builder, width = LayoutBuilder(), model.width
    embed = [f"transformer_blocks.{layer}.norm1.emb" for layer in range(model.depth)]
    builder.patches("patch_embed", "pos_embed.proj", model.patch[0], inputs.shape[-1], width)
    for ours, name, size in (("fc1", "linear_1", layers.FREQUENCIES), ("fc2", "linear_2", width)):
        first, *copies = (f"{each}.timestep_embedder.{name}" for each in embed)
        builder.dense(f"time_embed/{ours}", first, size, width, copies=copies)
    first, *copies = (f"{each}.class_embedder.embedding_table.weight" for each in embed)
    builder.add("label_embed/embedding", same(first, (model.classes + 1, width), copies=tuple(copies)))
    for layer in range(model.depth):
        DIFFUSERS.add(builder, "blocks/stream", f"transformer_blocks.{layer}", model.spec, (layer,))
    builder.dense("final_modulation/linear", "proj_out_1", width, 2 * width)
    builder.dense("final", "proj_out_2", width, _outputs(model, inputs))
    return builder.layout()


def _outputs(model: DiT, inputs: Inputs) -> int:
    return model.patch[0] ** 2 * inputs.shape[-1] * (1 + model.learn_sigma)


def make_config(whose: str, image: tuple[int, int], classes: int, model: Mapping[str, Any]) -> Config:
    """The config of a class-conditional network without data.

    Args:
        whose: "dit", "sit" or "repa".
        image: side and channels.
        model: key of config.model -> value.
    """
    c = configs.default()
    c.data.update(name="none", image_size=image[0], channels=image[1])
    c.text.update(encoder="labels", pooled_width=classes)
    c.flow.formulation = FORMULATIONS[whose]
    c.model.update(backbone="dit" if whose == "dit" else "sit", time=TIMES[whose], **model)
    return configs.from_dict(c.to_dict())


def from_file(tensors: Tensors, whose: str, heads: int = 0) -> Config:
    """Reads the config of a .pt file from the shapes of its tensors.

    Args:
        whose: "dit", "sit" or "repa".
        heads: number of attention heads, which no shape shows; 0 takes the known number for this depth and width.

    Raises:
        UserError: if a needed tensor is missing, or the number of heads is unknown or does not fit.
    """
    shape = functools.partial(sizes.shape, tensors, whose="a checkpoint of DiT, SiT or REPA")
    width, channels, patch, _ = shape("x_embedder.proj.weight", 4)
    side = round(shape("pos_embed", 3)[1] ** 0.5)
    depth = sizes.count_blocks(tensors, r"blocks\.(\d+)\.")
    hidden = shape("blocks.0.mlp.fc1.weight", 2)[0]
    outputs = shape("final_layer.linear.weight", 2)[0]
    heads = heads or implied_heads(depth, width)
    if not heads or width % heads:
        why = f"--heads={heads} does not divide it" if heads else f"no size of DiT's and no multiple of {HEAD}"
        raise UserError(
            f"{tensors.source} has {depth} blocks of width {width}: {why}, so its number of heads is unknown: give it "
            "to python -m rfjax.interop with --heads"
        )
    model = {"depth": depth, "width": width, "heads": heads, "patch": patch, "stored_positions": side}
    model |= {"mlp_ratio": hidden // width, "learn_sigma": outputs == 2 * patch**2 * channels}
    if count := sizes.count_blocks(tensors, r"projectors\.(\d+)\."):
        model["projectors"] = tuple(shape(f"projectors.{i}.4.weight", 2)[0] for i in range(count))
        model["projector_width"] = shape("projectors.0.0.weight", 2)[0]
    classes = shape("y_embedder.embedding_table.weight", 2)[0] - 1
    return make_config(whose, (side * patch, channels), classes, model)


def implied_heads(depth: int, width: int) -> int:
    """The number of heads, which no file stores: of the published size, else width / 64; 0 if neither fits."""
    known = [heads for blocks, size, heads in SIZES.values() if (blocks, size) == (depth, width)]
    return known[0] if known else (0 if width % HEAD else width // HEAD)


def from_folder(tensors: Tensors, metadata: Mapping[str, Any] | None) -> Config:
    """Reads the config of a diffusers folder of a DiT from its config.json.

    diffusers' published DiT has an epsilon of 1e-5 in one of its norms; DiT's own code and ours have 1e-6.

    Raises:
        UserError: if there is no config.json, or rfjax has no such network.
    """
    where = tensors.source.parent / "config.json"
    if metadata is None or metadata.get("_class_name") != "DiTTransformer2DModel":
        raise UserError(f"{where} must be the config of a DiTTransformer2DModel")
    number = functools.partial(sizes.number, metadata, where=where)
    depth, heads, patch = number("num_layers"), number("num_attention_heads"), number("patch_size")
    channels = number("in_channels")
    outputs = channels if metadata.get("out_channels") is None else number("out_channels")
    model = {"depth": depth, "width": heads * number("attention_head_dim"), "heads": heads, "patch": patch}
    model |= {"learn_sigma": outputs == 2 * channels, "frequency_shift": 1}
    if (blocks := sizes.count_blocks(tensors, r"transformer_blocks\.(\d+)\.")) != depth:
        raise UserError(f"{where} has num_layers = {depth}, but the weights beside it have {blocks} blocks")
    return make_config("dit", (number("sample_size"), channels), number("num_embeds_ada_norm"), model)


def to_folder(model: DiT, inputs: Inputs) -> dict[str, Any]:
    """The config.json of a diffusers folder.

    Raises:
        UserError: if diffusers has no such network.
    """
    if model.mlp_ratio != 4 or model.qk_norm or model.frequency_shift != 1 or model.positions.stored:
        raise UserError(
            "diffusers' DiT has MLPs of ratio 4, no QK-norm, plain positions and a sinusoid with a shift of 1: train "
            "the model with config.model.frequency_shift = 1"
        )
    return {
        "_class_name": "DiTTransformer2DModel",
        "sample_size": inputs.shape[0],
        "patch_size": model.patch[0],
        "in_channels": inputs.shape[-1],
        "out_channels": inputs.shape[-1] * (1 + model.learn_sigma),
        "num_layers": model.depth,
        "attention_head_dim": model.width // model.heads,
        "num_attention_heads": model.heads,
        "num_embeds_ada_norm": model.classes,
        "norm_eps": layers.EPSILON,
    }
