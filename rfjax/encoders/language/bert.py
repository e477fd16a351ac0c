"""BERT and the small sentence encoders of its form, such as all-MiniLM. B batch, L tokens, D width."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

from rfjax.encoders.language.fields import Fields
from rfjax.encoders.language.layouts import Names, block_layout, norm_layout
from rfjax.encoders.language.parts import ACTIVATIONS, HIDDEN, MLP, QKV, Linear, Table, attention, norm, stacked
from rfjax.errors import UserError
from rfjax.tensors.layout import Layout, same

FIRST = "embeddings.word_embeddings.weight"
PREFIXES = ("", "bert.")
IGNORED = (r".*position_ids$", "pooler", "bert.pooler", "cls.")
NAMES = Names(
    "encoder.layer.{}.",
    qkv=tuple(f"attention.self.{x}" for x in ("query", "key", "value")),
    out="attention.output.dense",
    mlp={"fc1": "intermediate.dense", "fc2": "output.dense"},
    norms={"norm1": "attention.output.LayerNorm", "norm2": "output.LayerNorm"},
)


@dataclass(frozen=True)
class Bert:
    """The sizes of an encoder.

    Attributes:
        width: D. depth: blocks. heads: of the attention. hidden: units of the MLP. vocabulary: of the tokens.
        positions: the most tokens. kinds: of tokens, of which the first is taken. activation: of the MLP.
        epsilon: of every LayerNorm.
    """

    width: int
    depth: int
    heads: int
    hidden: int
    vocabulary: int
    positions: int
    kinds: int
    activation: str
    epsilon: float

    def flops(self, length: int) -> int:
        """Of a text of so many tokens: two for a multiplication and its addition."""
        return 2 * self.depth * (
            length * (4 * self.width**2 + 2 * self.width * self.hidden) + 2 * length**2 * self.width
        )  # fmt: skip


def read_bert(settings: Mapping[str, Any], where: str) -> Bert:
    """The sizes by config.json.

    Raises:
        UserError: if a size is missing or invalid, or positions are not a table.
    """
    found = Fields(settings, where)
    if (kind := settings.get("position_embedding_type", "absolute")) != "absolute":
        raise UserError(f"{where} has position_embedding_type = {kind!r}, and only 'absolute' is read")
    width = found.whole("hidden_size", 768)
    return Bert(
        width=width,
        depth=found.whole("num_hidden_layers", 12),
        heads=found.divisor("num_attention_heads", 12, width),
        hidden=found.whole("intermediate_size", 3072),
        vocabulary=found.whole("vocab_size", 30522),
        positions=found.whole("max_position_embeddings", 512),
        kinds=found.whole("type_vocab_size", 2),
        activation=found.choice("hidden_act", "gelu", ACTIVATIONS),
        epsilon=found.number("layer_norm_eps", 1e-12),
    )


class BertBlock(nn.Module):
    """Attention and MLP, each added to the residual stream and followed by a LayerNorm."""

    arch: Bert
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], bias: Float[Array, "B 1 1 L"]) -> tuple[Float[Array, "B L D"], None]:
        arch = self.arch
        head = arch.width // arch.heads
        qkv = QKV(arch.heads, head, self.dtype, name="qkv")(x)
        mixed = attention(qkv, bias, head**-0.5, self.dtype)
        x = norm(arch.epsilon, "norm1")(x + Linear((arch.width,), self.dtype, name="out")(mixed))
        return norm(arch.epsilon, "norm2")(x + MLP(arch.hidden, arch.activation, self.dtype, name="mlp")(x)), None


class BertEncoder(nn.Module):
    """Tokens -> states of the last block; tokens that `mask` leaves out are not attended to."""

    arch: Bert
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, ids: Int[Any, "B L"], mask: Bool[Any, "B L"]) -> Float32[Array, "B L D"]:
        """Encodes at most `arch.positions` tokens."""
        arch = self.arch
        x = Table(arch.vocabulary, arch.width, self.dtype, name="tokens")(ids)
        x += Table(arch.positions, arch.width, self.dtype, name="positions")(np.arange(ids.shape[1]))
        x += Table(arch.kinds, arch.width, self.dtype, name="kinds")(np.zeros(1, np.int32))
        x = norm(arch.epsilon, "norm")(x)
        bias = jnp.where(mask, 0.0, HIDDEN)[:, None, None]
        return stacked(BertBlock, arch.depth)(arch, self.dtype, name="blocks")(x, bias)[0]


def bert_layout(arch: Bert, prefix: str) -> Layout:
    """Which tensor fills which leaf."""
    width, start = arch.width, f"{prefix}embeddings."
    return {
        "tokens/embedding": (same(f"{prefix}{FIRST}", (arch.vocabulary, width)),),
        "positions/embedding": (same(f"{start}position_embeddings.weight", (arch.positions, width)),),
        "kinds/embedding": (same(f"{start}token_type_embeddings.weight", (arch.kinds, width)),),
        **norm_layout("norm", f"{start}LayerNorm", width),
        **block_layout(NAMES, prefix, arch.depth, width, heads=(arch.heads, width // arch.heads), hidden=arch.hidden),
    }
