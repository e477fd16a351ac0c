"""DiT's, SiT's and REPA's class-conditional networks: their own .pt files, and diffusers' folders of DiT.

The tensors of a DiT and a SiT have the same names and shapes; what the network is told of t differs, and for SiT the
sign of what it answers (facts of REPA, 1.1). So the file can't say which it is.
"""

import functools
import re
from collections.abc import Mapping
from typing import Any

from rfjax import config as configs
from rfjax.config import Config
from rfjax.errors import UserError
from rfjax.interop import described
from rfjax.interop.layout import Layout, same
from rfjax.interop.rules import AttentionNames, Rules, StreamNames
from rfjax.interop.stored import Tensors
from rfjax.models import layers
from rfjax.models.dit import SIZES, DiT
from rfjax.models.inputs import Inputs

# What the network is told of t, by whose weights they are; and how it was trained.
TIMES = {"dit": "1000t-1", "sit": "1-t", "repa": "t"}
FORMULATIONS = {"dit": "dit/eps", "sit": "sit/linear", "repa": "repa/linear"}
HEAD = 64  # width of a head in S, B and L; XL has 72

ORIGINAL = StreamNames(
    "adaLN_modulation.1",
    AttentionNames(("attn.qkv",), "attn.proj"),
    ("mlp.fc1", "mlp.fc2"),
)
DIFFUSERS = StreamNames(
    "norm1.linear",
    AttentionNames(("attn1.to_q", "attn1.to_k", "attn1.to_v"), "attn1.to_out.0"),
    ("ff.net.0.proj", "ff.net.2"),
)


def layout(model: DiT, inputs: Inputs, projectors: tuple[int, ...] = (), hidden: int = 0) -> Layout:
    """Where each of our parameters is in a .pt file, for a model whose table of positions is stored.

    Args:
        projectors: widths of the encoders that REPA's projectors aim at. hidden: width of their hidden layers.
    """
    rules, width, side = Rules(), model.width, model.positions.stored
    rules.patches("patch_embed", "x_embedder.proj", model.patch[0], inputs.shape[-1], width)
    rules.table("positions", "pos_embed", side * side, width)
    rules.dense("time_embed/fc1", "t_embedder.mlp.0", layers.FREQUENCIES, width)
    rules.dense("time_embed/fc2", "t_embedder.mlp.2", width, width)
    rules.add("label_embed/embedding", same("y_embedder.embedding_table.weight", (model.classes + 1, width)))
    for layer in range(model.depth):
        ORIGINAL.add(rules, "blocks/stream", f"blocks.{layer}", model.spec, (layer,))
    rules.dense("final_modulation/linear", "final_layer.adaLN_modulation.1", width, 2 * width)
    rules.dense("final", "final_layer.linear", width, _outputs(model, inputs))
    for i, target in enumerate(projectors):
        sizes = (width, hidden, hidden, target)
        for j in range(3):
            rules.dense(f"projector_{i}/fc{j + 1}", f"projectors.{i}.{2 * j}", sizes[j], sizes[j + 1])
    return rules.layout()


def folder_layout(model: DiT, inputs: Inputs) -> Layout:
    """Where each of our parameters is in a diffusers folder, whose blocks each have a copy of two embeddings."""
    rules, width = Rules(), model.width
    embed = [f"transformer_blocks.{layer}.norm1.emb" for layer in range(model.depth)]
    rules.patches("patch_embed", "pos_embed.proj", model.patch[0], inputs.shape[-1], width)
    for ours, name, size in (("fc1", "linear_1", layers.FREQUENCIES), ("fc2", "linear_2", width)):
        first, *copies = (f"{each}.timestep_embedder.{name}" for each in embed)
        rules.dense(f"time_embed/{ours}", first, size, width, copies=copies)
    first, *copies = (f"{each}.class_embedder.embedding_table.weight" for each in embed)
    rules.add("label_embed/embedding", same(first, (model.classes + 1, width), copies=tuple(copies)))
    for layer in range(model.depth):
        DIFFUSERS.add(rules, "blocks/stream", f"transformer_blocks.{layer}", model.spec, (layer,))
    rules.dense("final_modulation/linear", "proj_out_1", width, 2 * width)
    rules.dense("final", "proj_out_2", width, _outputs(model, inputs))
    return rules.layout()


def _outputs(model: DiT, inputs: Inputs) -> int:
    return model.patch[0] ** 2 * inputs.shape[-1] * (1 + model.learn_sigma)


def make_config(whose: str, image: tuple[int, int], classes: int, model: Mapping[str, Any]) -> Config:
    """The config of a class-conditional network without data.

    Args:
        whose: "dit", "sit" or "repa". image: side and channels. model: keys of config.model.
    """
    c = configs.default()
    c.data.update(name="none", image_size=image[0], channels=image[1])
    c.text.update(encoder="labels", pooled_width=classes)
    c.flow.formulation = FORMULATIONS[whose]
    c.model.update(backbone="dit" if whose == "dit" else "sit", time=TIMES[whose], **model)
    return configs.from_dict(c.to_dict())


def from_file(tensors: Tensors, whose: str, heads: int = 0) -> Config:
    """What a .pt file holds, from the shapes of its tensors.

    Args:
        heads: how many, which no shape tells; 0: as many as a network of this depth and width is known to have.

    Raises:
        UserError: if the tensors that tell it are not there, or the number of heads is not known or does not fit.
    """
    shape = functools.partial(described.shape, tensors, whose="a checkpoint of DiT, SiT or REPA")
    width, channels, patch, _ = shape("x_embedder.proj.weight", 4)
    side = round(shape("pos_embed", 3)[1] ** 0.5)
    depth = described.count_blocks(tensors, r"blocks\.(\d+)\.")
    hidden = shape("blocks.0.mlp.fc1.weight", 2)[0]
    outputs = shape("final_layer.linear.weight", 2)[0]
    heads = heads or implied_heads(depth, width)
    if not heads or width % heads:
        why = f"--heads={heads} does not divide it" if heads else f"no size of DiT's and no multiple of {HEAD}"
        raise UserError(
            f"{tensors.source} has {depth} blocks of width {width}: {why}, so its number of heads is not known; say it "
            "to python -m rfjax.interop by --heads"
        )
    model = {
        "depth": depth,
        "width": width,
        "heads": heads,
        "patch": patch,
        "mlp_ratio": hidden // width,
        "stored_positions": side,
        "learn_sigma": outputs == 2 * patch**2 * channels,
    }
    count = described.count_blocks(tensors, r"projectors\.(\d+)\.")
    if count:
        model["projectors"] = tuple(shape(f"projectors.{i}.4.weight", 2)[0] for i in range(count))
        model["projector_width"] = shape("projectors.0.0.weight", 2)[0]
    classes = shape("y_embedder.embedding_table.weight", 2)[0] - 1
    return make_config(whose, (side * patch, channels), classes, model)


def implied_heads(depth: int, width: int) -> int:
    """The number of heads, which no file stores: a published size's, else of 64 channels each; 0 if neither fits."""
    known = [heads for blocks, size, heads in SIZES.values() if (blocks, size) == (depth, width)]
    return known[0] if known else (0 if width % HEAD else width // HEAD)


def from_folder(tensors: Tensors, facts: Mapping[str, Any] | None) -> Config:
    """What a diffusers folder of a DiT holds, from its config.json.

    diffusers' published DiT has an epsilon of 1e-5 in one of its norms, where DiT's own code and ours have 1e-6.

    Raises:
        UserError: if there is none, or it describes a network that is not ours.
    """
    where = tensors.source.parent / "config.json"
    if facts is None or facts.get("_class_name") != "DiTTransformer2DModel":
        raise UserError(f"{where} should be the config of a DiTTransformer2DModel, and it is not")
    number = functools.partial(described.number, facts, where=where)
    depth, heads, patch = number("num_layers"), number("num_attention_heads"), number("patch_size")
    channels = number("in_channels")
    outputs = channels if facts.get("out_channels") is None else number("out_channels")
    model = {"depth": depth, "width": heads * number("attention_head_dim"), "heads": heads, "patch": patch}
    model |= {"learn_sigma": outputs == 2 * channels, "frequency_shift": 1}
    if (blocks := described.count_blocks(tensors, r"transformer_blocks\.(\d+)\.")) != depth:
        raise UserError(f"{where} says num_layers = {depth}, and the weights beside it are of {blocks} blocks")
    return make_config("dit", (number("sample_size"), channels), number("num_embeds_ada_norm"), model)


def to_folder(model: DiT, inputs: Inputs) -> dict[str, Any]:
    """The config.json of a diffusers folder.

    Raises:
        UserError: if diffusers has no such network.
    """
    if model.mlp_ratio != 4 or model.qk_norm or model.frequency_shift != 1 or model.positions.stored:
        raise UserError(
            "diffusers' DiT has MLPs of ratio 4, no QK-norm, plain positions and a sinusoid with a shift of 1: a model "
            "for it is trained with config.model.frequency_shift = 1"
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


def is_ambiguous(tensors: Tensors) -> bool:
    """Whether the names are DiT's, which SiT shares."""
    return any(re.match(r"blocks\.0\.adaLN_modulation", name) for name in tensors.names)
