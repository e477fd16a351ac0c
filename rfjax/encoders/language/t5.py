"""The encoder of T5 v1.1, of any size.

B batch, L tokens, D width, H heads. There are no biases, no scale of the logits, and no mask: padding is attended to,
as in SD3. Its activations exceed float16's range, so that they are never in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32

from rfjax.encoders.language.fields import Fields
from rfjax.encoders.language.layouts import Names, block_layout
from rfjax.encoders.language.parts import MLP, QKV, Linear, Table, attention, stacked
from rfjax.errors import UserError
from rfjax.tensors.layout import Layout, same

TABLES = ("shared.weight", "encoder.embed_tokens.weight")  # the same table; a file has one or both
IGNORED = ("decoder.", "lm_head", r"encoder\.block\.0\.layer\.0\.SelfAttention\.relative_attention_bias")
RELATIVE = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
NAMES = Names(
    "encoder.block.{}.",
    qkv=tuple(f"layer.0.SelfAttention.{x}" for x in "qkv"),
    out="layer.0.SelfAttention.o",
    mlp={"gate": "layer.1.DenseReluDense.wi_0", "fc1": "layer.1.DenseReluDense.wi_1",
         "fc2": "layer.1.DenseReluDense.wo"},
    norms={"norm1": "layer.0.layer_norm", "norm2": "layer.1.layer_norm"},
    bias=False,
)  # fmt: skip


@dataclass(frozen=True)
class T5:
    """The sizes of an encoder.

    Attributes:
        width: D. depth: blocks. heads: H. head: width of a head. hidden: units of the MLP. vocabulary: of the tokens.
        buckets: of relative positions. distance: from which on positions share the last bucket.
        epsilon: of every norm.
    """

    width: int
    depth: int
    heads: int
    head: int
    hidden: int
    vocabulary: int
    buckets: int = 32
    distance: int = 128
    epsilon: float = 1e-6

    def flops(self, length: int) -> int:
        """Of a text of so many tokens: two for a multiplication and its addition."""
        inner = self.heads * self.head
        block = length * self.width * (4 * inner + 3 * self.hidden) + 2 * length**2 * inner
        return 2 * self.depth * block


def read_t5(settings: Mapping[str, Any], where: str) -> T5:
    """The sizes by config.json.

    Raises:
        UserError: if a size is missing or invalid, or it is no T5 v1.1.
    """
    found = Fields(settings, where)
    if (kind := settings.get("feed_forward_proj", "relu")) != "gated-gelu":
        raise UserError(f"{where} has feed_forward_proj = {kind!r}, and only T5 v1.1 is read, which has 'gated-gelu'")
    return T5(
        width=found.whole("d_model", 512),
        depth=found.whole("num_layers", 6),
        heads=found.whole("num_heads", 8),
        head=found.whole("d_kv", 64),
        hidden=found.whole("d_ff", 2048),
        vocabulary=found.whole("vocab_size", 32128),
        buckets=found.multiple("relative_attention_num_buckets", 32, 4),
        distance=found.whole("relative_attention_max_distance", 128),
        epsilon=found.number("layer_norm_epsilon", 1e-6),
    )


def relative_buckets(length: int, buckets: int = 32, distance: int = 128) -> Int32[np.ndarray, "L L"]:
    """The bucket of each key, seen from each query, as T5 computes it in float32.

    Half of the buckets are for keys behind the query; of each half, the first half is for one distance each, the rest
    for ranges that grow as the logarithm, up to `distance`.
    """
    relative = np.arange(length)[None, :] - np.arange(length)[:, None]
    half, exact, far = buckets // 2, buckets // 4, np.abs(relative)
    ratio = np.log(np.maximum(far, 1).astype(np.float32) / np.float32(exact)) / np.float32(np.log(distance / exact))
    large = exact + (ratio * np.float32(half - exact)).astype(np.int32)
    found = np.where(far < exact, far, np.minimum(large, half - 1))
    return (found + np.where(relative > 0, half, 0)).astype(np.int32)


class RMSNorm(nn.Module):
    """x / root mean square, times a learned vector, in float32."""

    epsilon: float

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + self.epsilon) * scale


class T5Block(nn.Module):
    """Attention and gated MLP, each behind a norm and added to the residual stream."""

    arch: T5
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], bias: Float[Array, "1 H L L"]) -> tuple[Float[Array, "B L D"], None]:
        arch = self.arch
        qkv = QKV(arch.heads, arch.head, self.dtype, bias=False, name="qkv")(RMSNorm(arch.epsilon, name="norm1")(x))
        x += Linear((arch.width,), self.dtype, bias=False, name="out")(attention(qkv, bias, 1.0, self.dtype))
        mlp = MLP(arch.hidden, "gelu_new", self.dtype, bias=False, gated=True, name="mlp")
        return x + mlp(RMSNorm(arch.epsilon, name="norm2")(x)), None


class T5Encoder(nn.Module):
    """Tokens -> states behind the last norm."""

    arch: T5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, ids: Int[Any, "B L"]) -> Float32[Array, "B L D"]:
        """Encodes any number of tokens."""
        arch = self.arch
        table = self.param("relative", nn.initializers.zeros, (arch.buckets, arch.heads))
        bias = table[relative_buckets(ids.shape[1], arch.buckets, arch.distance)].transpose(2, 0, 1)[None]
        x = Table(arch.vocabulary, arch.width, self.dtype, name="tokens")(ids)
        x, _ = stacked(T5Block, arch.depth)(arch, self.dtype, name="blocks")(x, bias)
        return RMSNorm(arch.epsilon, name="norm")(x)


def t5_layout(arch: T5, stored: tuple[str, ...]) -> Layout:
    """Which tensor fills which leaf; `stored`: the names of TABLES that the file has."""
    first, *copies = stored or TABLES[:1]
    return {
        "tokens/embedding": (same(first, (arch.vocabulary, arch.width), copies=tuple(copies)),),
        "relative": (same(RELATIVE, (arch.buckets, arch.heads)),),
        "norm/scale": (same("encoder.final_layer_norm.weight", (arch.width,)),),
        **block_layout(NAMES, "", arch.depth, arch.width, heads=(arch.heads, arch.head), hidden=arch.hidden),
    }
