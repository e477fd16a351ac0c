"""How published Vision Transformers differ: their configs, names of tensors, and what becomes of a picture.

The state that REPA aligns with is the last one: behind the last LayerNorm, but before it for MAE and CLIP, whose last
LayerNorm serves another loss.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rfjax.encoders.vision.vit import Architecture
from rfjax.errors import UserError, nearest

Colour = tuple[float, float, float]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation of pixels in 0 ... 1
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
ACTIVATION_NAMES = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "silu": "silu",
    "swish": "silu",
}


@dataclass(frozen=True)
class Names:
    """The names of a family's tensors, which end in .weight and .bias where nothing else is said.

    "X[1/3]" is the second of three equal parts of the rows of X.

    Attributes:
        patch: the patches' convolution.
        cls: the class token (whole name).
        registers: the register tokens (whole name).
        positions: the table (whole name); the class token's comes first.
        pre_norm: before the first block.
        norm: behind the last block.
        block: beginning of the names within a block; {} is its number.
        norm1: before the attention.
        qkv: queries, keys and values.
        out: behind the attention.
        norm2: before the MLP.
        mlp: into and out of the MLP.
        gated: gate, into and out of the gated MLP.
        scales: of what attention and MLP add (whole names).
    """

    patch: str = "embeddings.patch_embeddings.projection"
    cls: str = "embeddings.cls_token"
    registers: str = "embeddings.register_tokens"
    positions: str = "embeddings.position_embeddings"
    pre_norm: str = "pre_layrnorm"
    norm: str = "layernorm"
    block: str = "encoder.layer.{}."
    norm1: str = "layernorm_before"
    qkv: tuple[str, str, str] = tuple(f"attention.attention.{x}" for x in ("query", "key", "value"))
    out: str = "attention.output.dense"
    norm2: str = "layernorm_after"
    mlp: tuple[str, str] = ("intermediate.dense", "output.dense")
    gated: tuple[str, str, str] = ("mlp.weights_in[0/2]", "mlp.weights_in[1/2]", "mlp.weights_out")
    scales: tuple[str, str] = ("layer_scale1.lambda1", "layer_scale2.lambda1")


VIT = Names()
DINOV2 = dataclasses.replace(VIT, norm1="norm1", norm2="norm2", mlp=("mlp.fc1", "mlp.fc2"))
DINOV3 = dataclasses.replace(
    DINOV2,
    patch="embeddings.patch_embeddings",
    norm="norm",
    block="layer.{}.",
    qkv=tuple(f"attention.{x}_proj" for x in "qkv"),
    out="attention.o_proj",
    mlp=("mlp.up_proj", "mlp.down_proj"),
    gated=("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
)
TOWER = dataclasses.replace(
    DINOV2,
    patch="embeddings.patch_embedding",
    cls="embeddings.class_embedding",
    positions="embeddings.position_embedding.weight",
    norm="post_layernorm",
    block="encoder.layers.{}.",
    norm1="layer_norm1",
    qkv=tuple(f"self_attn.{x}_proj" for x in "qkv"),
    out="self_attn.out_proj",
    norm2="layer_norm2",
)
TIMM = dataclasses.replace(
    DINOV2,
    patch="patch_embed.proj",
    cls="cls_token",
    positions="pos_embed",
    norm="norm",
    block="blocks.{}.",
    qkv=tuple(f"attn.qkv[{i}/3]" for i in range(3)),
    out="attn.proj",
)


@dataclass(frozen=True)
class Family:
    """A kind of published encoder.

    Attributes:
        names: of its tensors.
        prefixes: what may stand before all names.
        ignore: beginnings of the names, without the prefix, of what its files hold besides (a regular expression).
        defaults: the config's values where the file leaves them out, as transformers has them.
        colours: mean and standard deviation that pixels are normalised by.
        cls, layer_scale, pre_norm, final_norm: as in `Architecture`.
        patch_bias: whether the patches' convolution has a bias.
    """

    names: Names
    prefixes: tuple[str, ...]
    ignore: str
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    colours: tuple[Colour, Colour] = IMAGENET
    cls: bool = True
    layer_scale: bool = False
    pre_norm: bool = False
    final_norm: bool = True
    patch_bias: bool = True


BASE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 16,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "intermediate_size": 3072,
}
RATIO = {key: value for key, value in BASE.items() if key != "intermediate_size"} | {"mlp_ratio": 4}
SMALL = BASE | {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
HEADS = (
    "pooler|classifier|lm_head|mask_token|embeddings.mask_token|rope_embeddings"  # of ViTs, which encode without them
)
OTHER_TOWER = "text_model|logit_|text_projection|visual_projection|head|embeddings.position_ids"
DINOV2_FAMILY = Family(
    DINOV2, ("", "dinov2."), HEADS, RATIO | {"patch_size": 14, "layer_norm_eps": 1e-6}, layer_scale=True
)
CLIP_FAMILY = Family(
    TOWER,
    ("", "vision_model."),
    f"{OTHER_TOWER}|post_layernorm",
    BASE | {"patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    CLIP,
    pre_norm=True,
    final_norm=False,
    patch_bias=False,
)
SIGLIP_FAMILY = Family(
    TOWER,
    ("", "vision_model."),
    OTHER_TOWER,
    BASE | {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
    HALF,
    cls=False,
)
FAMILIES = {  # by the model_type of config.json; DINO of 2021 is a `vit`
    "dinov2": DINOV2_FAMILY,
    "dinov2_with_registers": dataclasses.replace(
        DINOV2_FAMILY,
        prefixes=("", "dinov2_with_registers."),
        defaults=RATIO | {"layer_norm_eps": 1e-6, "num_register_tokens": 4},
    ),
    "dinov3_vit": Family(
        DINOV3,
        ("", "dinov3_vit."),
        HEADS,
        SMALL | {"layer_norm_eps": 1e-5, "rope_theta": 100.0, "num_register_tokens": 0, "key_bias": False},
        layer_scale=True,
    ),
    "vit_mae": Family(VIT, ("", "vit."), f"decoder|layernorm|{HEADS}", BASE, final_norm=False),
    "ijepa": Family(VIT, ("", "ijepa."), HEADS, BASE, cls=False),
    "vit": Family(VIT, ("", "vit."), HEADS, BASE),
    "clip": CLIP_FAMILY,
    "clip_vision_model": CLIP_FAMILY,
    "siglip": SIGLIP_FAMILY,
    "siglip_vision_model": SIGLIP_FAMILY,
    "mocov3": Family(TIMM, ("module.base_encoder.",), "head|module"),
}
TOWERS = ("clip", "siglip")  # their config describes the vision tower in `vision_config`
LARGEST = 2**16  # of any size
BIASES = {"q": ("qkv_bias", "query_bias"), "k": ("qkv_bias", "key_bias"), "v": ("qkv_bias", "value_bias"),
          "out": ("proj_bias",), "mlp": ("mlp_bias",)}  # fmt: skip


@dataclass(frozen=True)
class Description:
    """What a folder or a file holds.

    Attributes:
        family: a name of FAMILIES.
        arch: the network's options.
        side: of the square table of positions, in patches; 0: there is none.
        without: the Linears without biases: of "patch", "q", "k", "v", "out", "mlp".
    """

    family: str
    arch: Architecture
    side: int
    without: tuple[str, ...] = ()


def describe(settings: Mapping[str, Any], where: str) -> Description:
    """Reads a config.json of Hugging Face.

    Args:
        settings: its content.
        where: its name, for messages.

    Raises:
        UserError: if it describes no encoder that is known here, or has no valid sizes.
    """
    kind = settings.get("model_type")
    if kind not in FAMILIES or kind == "mocov3":
        known = sorted(set(FAMILIES) - {"mocov3"})
        raise UserError(f"{where} has model_type {kind!r}, and the encoders that can be read are {', '.join(known)}")
    family = FAMILIES[kind]
    given = settings.get("vision_config", {}) if kind in TOWERS else settings
    if not isinstance(given, dict):
        raise UserError(f"{where} has a vision_config that is no object: take the file that came with the weights")
    values = dict(family.defaults) | {key: value for key, value in given.items() if value is not None}
    width, patch, image = (_whole(values, key, where) for key in ("hidden_size", "patch_size", "image_size"))
    heads, act = _whole(values, "num_attention_heads", where), values["hidden_act"]
    gated = bool(values.get("use_swiglu_ffn") or values.get("use_gated_mlp"))
    act = "silu" if values.get("use_swiglu_ffn") else act
    if act not in ACTIVATION_NAMES:
        raise UserError(f"{where} has hidden_act {act!r}, which is not known here{nearest(str(act), ACTIVATION_NAMES)}")
    if "rope_theta" not in family.defaults and image % patch:
        raise UserError(f"{where}: patches of {patch} pixels (patch_size) do not divide an image_size of {image}")
    if width % heads or ("rope_theta" in family.defaults and width // heads % 4):
        what = "widths that are multiples of 4" if "rope_theta" in family.defaults else "equal widths"
        raise UserError(f"{where}: {heads} attention heads do not divide the hidden_size {width} into {what}")
    if values["num_channels"] != 3:
        raise UserError(
            f"{where} has num_channels = {values['num_channels']!r}: only encoders of colour pictures are read"
        )
    arch = Architecture(
        patch=patch,
        width=width,
        depth=_whole(values, "num_hidden_layers", where),
        heads=heads,
        hidden=_hidden(values, width, where),
        activation=ACTIVATION_NAMES[act],
        epsilon=_number(values, "layer_norm_eps", where),
        cls=family.cls,
        registers=_whole(values, "num_register_tokens", where, 0) if "num_register_tokens" in family.defaults else 0,
        gated=gated,
        layer_scale=family.layer_scale,
        pre_norm=family.pre_norm,
        final_norm=family.final_norm,
        rope=_number(values, "rope_theta", where) if "rope_theta" in family.defaults else 0.0,
    )
    off = [name for name, keys in BIASES.items() if any(values.get(key) is False for key in keys)]
    without = (*off, *(() if family.patch_bias else ("patch",)))
    return Description(kind, arch, 0 if arch.rope else image // patch, without)


def _hidden(values: Mapping[str, Any], width: int, where: str) -> int:
    """The MLP's inner width; DINOv2's SwiGLU has two thirds of the plain one, rounded up to a multiple of 8."""
    if "mlp_ratio" not in values:
        return _whole(values, "intermediate_size", where)
    plain = int(width * _number(values, "mlp_ratio", where))
    return (int(plain * 2 / 3) + 7) // 8 * 8 if values.get("use_swiglu_ffn") else plain


def _whole(values: Mapping[str, Any], key: str, where: str, least: int = 1) -> int:
    """A size; a square may be written as a list of two equal sides."""
    value = values[key]
    if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
        value = value[0]
    if type(value) is not int or not least <= value <= LARGEST:
        raise UserError(f"{where} has {key} = {value!r}: it must be a whole number from {least} to {LARGEST}")
    return value


def _number(values: Mapping[str, Any], key: str, where: str) -> float:
    value = values[key]
    if type(value) not in (int, float) or not 0 < value < 1e6:
        raise UserError(f"{where} has {key} = {value!r}: it must be a number above 0")
    return float(value)
