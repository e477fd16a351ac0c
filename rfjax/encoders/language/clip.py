"""CLIP's text tower: ViT-L/14 of OpenAI, bigG/14 of OpenCLIP, and others by their config.json.

B batch, L tokens, D width, P width of the projection.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int

from rfjax.encoders.language.fields import Fields
from rfjax.encoders.language.layouts import Names, block_layout, norm_layout
from rfjax.encoders.language.parts import ACTIVATIONS, HIDDEN, MLP, QKV, Linear, Table, attention, norm, stacked
from rfjax.tensors.layout import Layout, linear, same

PROJECTION = "text_projection.weight"
FIRST = "embeddings.token_embedding.weight"  # by which the prefix of all names is found
PREFIXES = ("text_model.", "")  # transformers before 5.6 and since, for the tower without projection
IGNORED = (r".*position_ids$", "logit_scale", "visual_projection", "vision_model")
NAMES = Names(
    "encoder.layers.{}.",
    qkv=tuple(f"self_attn.{x}_proj" for x in "qkv"),
    out="self_attn.out_proj",
    mlp={"fc1": "mlp.fc1", "fc2": "mlp.fc2"},
    norms={"norm1": "layer_norm1", "norm2": "layer_norm2"},
)


@dataclass(frozen=True)
class Clip:
    """The sizes of a text tower.

    Attributes:
        width: D. depth: blocks. heads: of the attention. hidden: units of the MLP. vocabulary: of the tokens.
        positions: the most tokens. projected: P. activation: of the MLP. epsilon: of every LayerNorm.
        eos: the token whose state is pooled; 2, in old files, stands for the largest number.
    """

    width: int
    depth: int
    heads: int
    hidden: int
    vocabulary: int
    positions: int
    projected: int
    activation: str
    epsilon: float
    eos: int

    def flops(self, length: int) -> int:
        """Of a text of so many tokens: two for a multiplication and its addition."""
        block = length * (4 * self.width**2 + 2 * self.width * self.hidden) + 2 * length**2 * self.width
        return 2 * (self.depth * block + self.width * self.projected)


class ClipStates(NamedTuple):
    """What a tower makes of tokens, float32.

    Attributes:
        penultimate: states before the last block, without a norm, which SD3 takes.
        last: states behind the last block and the last norm.
        pooled: the last state at the first end token, projected.
        unprojected: the same before the projection, which Flux takes.
    """

    penultimate: Any
    last: Any
    pooled: Any
    unprojected: Any


def read_clip(settings: Mapping[str, Any], where: str) -> Clip:
    """The sizes by config.json.

    Args:
        settings: its content, of the tower or of a whole CLIP.
        where: its name, for messages.

    Raises:
        UserError: if a size is missing or invalid.
    """
    inner = settings.get("text_config") if settings.get("model_type") == "clip" else settings
    found = Fields(inner, where)
    whole = found if inner is settings else Fields(settings, where)  # which has the projection of both towers
    # A tower whose class has no projection keeps its width, whatever its config says.
    alone = "CLIPTextModel" in (settings.get("architectures") or ())
    width = found.whole("hidden_size", 512)
    return Clip(
        width=width,
        depth=found.whole("num_hidden_layers", 12),
        heads=found.divisor("num_attention_heads", 8, width),
        hidden=found.whole("intermediate_size", 2048),
        vocabulary=found.whole("vocab_size", 49408),
        positions=found.whole("max_position_embeddings", 77),
        projected=width if alone else whole.whole("projection_dim", 512),
        activation=found.choice("hidden_act", "quick_gelu", ACTIVATIONS),
        epsilon=found.number("layer_norm_eps", 1e-5),
        eos=found.whole("eos_token_id", 49407, low=0),
    )


class ClipBlock(nn.Module):
    """Attention and MLP, each behind a LayerNorm and added to the residual stream."""

    arch: Clip
    dtype: Any

    @nn.compact
    def __call__(self, carry: tuple[Array, Array], bias: Array) -> tuple[tuple[Array, Array], None]:
        (x, _), arch = carry, self.arch
        head = arch.width // arch.heads
        qkv = QKV(arch.heads, head, self.dtype, name="qkv")(norm(arch.epsilon, "norm1")(x))
        mixed = attention(qkv, bias, head**-0.5, self.dtype)
        y = x + Linear((arch.width,), self.dtype, name="out")(mixed)
        h = norm(arch.epsilon, "norm2")(y)
        return (y + MLP(arch.hidden, arch.activation, self.dtype, name="mlp")(h), x), None


class ClipText(nn.Module):
    """Tokens -> states. Each token attends to itself and to those before it; nothing else is masked."""

    arch: Clip
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, ids: Int[Any, "B L"]) -> ClipStates:
        """Encodes at most `arch.positions` tokens."""
        arch, length = self.arch, ids.shape[1]
        places = Table(arch.positions, arch.width, self.dtype, name="positions")(np.arange(length))
        x = Table(arch.vocabulary, arch.width, self.dtype, name="tokens")(ids) + places
        causal = jnp.where(np.tri(length, dtype=bool), 0.0, HIDDEN)[None, None]
        (x, penultimate), _ = stacked(ClipBlock, arch.depth)(arch, self.dtype, name="blocks")((x, x), causal)
        last = norm(arch.epsilon, "norm")(x)
        ends = ids if arch.eos == 2 else ids == arch.eos
        pooled = jnp.take_along_axis(last, jnp.argmax(ends, axis=1)[:, None, None], axis=1)[:, 0]
        projection = self.param("projection", nn.initializers.zeros, (arch.width, arch.projected))
        projected = jnp.matmul(pooled, projection, precision=lax.Precision.HIGHEST)  # the identity is exact
        return ClipStates(penultimate, last, projected, pooled)


def clip_layout(arch: Clip, prefix: str, projection: bool) -> Layout:
    """Which tensor fills which leaf; `projection`: whether the file has one."""
    width = arch.width
    layout = {
        "tokens/embedding": (same(f"{prefix}{FIRST}", (arch.vocabulary, width)),),
        "positions/embedding": (same(f"{prefix}embeddings.position_embedding.weight", (arch.positions, width)),),
        **norm_layout("norm", f"{prefix}final_layer_norm", width),
        **block_layout(NAMES, prefix, arch.depth, width, heads=(arch.heads, width // arch.heads), hidden=arch.hidden),
    }
    if projection:
        layout["projection"] = (linear(PROJECTION, width, arch.projected),)
    return layout
