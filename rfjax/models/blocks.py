"""What transformer blocks are made of: streams of tokens with weights of their own, attention, and the scan over depth.

B batch, N tokens, L text tokens, D width, H heads, K head width, y the conditioning vector.
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rfjax.models import layers
from rfjax.models.matmul import attention
from rfjax.models.shards import REMAT, WHOLE, Shards


@dataclass(frozen=True)
class Spec:
    """What all blocks of a network have in common.

    Attributes:
        width: D. heads: H. mlp_ratio: hidden width of the MLPs over D. qk_norm: RMSNorm of queries and keys.
        dtype: of the matrix products. attention: implementation, see `matmul.attention`.
        shards: what this device has of the weights.
    """

    width: int
    heads: int
    mlp_ratio: int = 4
    qk_norm: bool = False
    dtype: Any = jnp.float32
    attention: str | None = None
    shards: Shards = WHOLE

    def dense(self, width: int, name: str | None = None) -> nn.Dense:
        """A Linear with DiT's initialisation."""
        return layers.Dense(width, dtype=self.dtype, kernel_init=layers.xavier, name=name)

    def out(self, name: str | None = None) -> layers.OutDense:
        """The Linear behind an attention's heads."""
        return layers.OutDense(self.width, self.dtype, self.shards, name=name)

    def attend(
        self, q: Float[Array, "B N H K"], k: Float[Array, "B M H K"], v: Float[Array, "B M H K"]
    ) -> Float[Array, "B N F"]:
        """Softmax attention with scale 1 / sqrt(K) and no mask; the heads lie side by side in what is returned."""
        out = attention(q, k, v, self.attention)
        return out.reshape(*out.shape[:2], -1)


class Stream(nn.Module):
    """One set of weights in a block: what comes before the attention, and what comes after it.

    Attributes:
        pre_only: modulation and q, k, v only: a text stream of the last block, whose output nobody reads.
        dual: these tokens also attend to themselves alone, with weights of their own (images in SD3.5).
    """

    spec: Spec
    pre_only: bool = False
    dual: bool = False

    def setup(self) -> None:
        spec = self.spec
        self.modulation = layers.Modulation(2 if self.pre_only else 9 if self.dual else 6, spec.dtype)
        self.qkv = layers.QKV(spec.heads, spec.qk_norm, spec.dtype, spec.shards)
        if not self.pre_only:
            self.out = spec.out()
            self.mlp = layers.MLP(spec.mlp_ratio, spec.dtype, spec.shards)
        if self.dual:
            self.dual_qkv = layers.QKV(spec.heads, spec.qk_norm, spec.dtype, spec.shards)
            self.dual_out = spec.out()

    def before(self, x: Float[Array, "B N D"], y: Float[Array, "B D"]) -> tuple[Any, Any]:
        """Returns ((q, k, v), what `after` needs)."""
        shift, scale, *rest = self.modulation(y)
        if self.dual:
            *rest, shift_dual, scale_dual, gate_dual = rest
            qkv = self.dual_qkv(layers.modulated_norm(x, shift_dual, scale_dual))
            rest.append(gate_dual * self.dual_out(self.spec.attend(*qkv)))
        return self.qkv(layers.modulated_norm(x, shift, scale)), rest

    def attended(self, x: Float[Array, "B N D"], attended: Float[Array, "B N F"], rest: Any) -> Float[Array, "B N D"]:
        """Adds the output projection, gated, to the residual stream."""
        gate, _, _, _, *dual = rest
        return sum(dual, x + gate * self.out(attended))

    def after(self, x: Float[Array, "B N D"], rest: Any) -> Float[Array, "B N D"]:
        """Adds the MLP, gated."""
        _, shift, scale, gate, *_ = rest
        return x + gate * self.mlp(layers.modulated_norm(x, shift, scale))

    @staticmethod
    def macs(spec: Spec, tokens: int, keys: int, *, pre_only: bool = False, dual: bool = False) -> int:
        """Multiplications for one example: `tokens` of this stream, each of which attends to `keys`."""
        square = spec.width**2
        if pre_only:
            return 2 * square + tokens * 3 * square
        count = 6 * square + tokens * (4 + 2 * spec.mlp_ratio) * square + 2 * tokens * keys * spec.width
        return count + dual * (3 * square + tokens * 4 * square + 2 * tokens**2 * spec.width)


class CrossAttention(nn.Module):
    """Queries from one sequence, keys and values from another, an output projection; no norm, no modulation, no gate.

    (B, N, D), (B, L, D) -> (B, N, D), the branch that PixArt adds to a block of DiT.
    """

    spec: Spec

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"], context: Float[Array, "B L D"]) -> Float[Array, "B N D"]:
        spec = self.spec
        heads = (spec.heads // spec.shards.tensor, spec.width // spec.heads)
        dense = lambda shape, name: layers.DenseGeneral(shape, dtype=spec.dtype, kernel_init=layers.xavier, name=name)  # noqa: E731
        kv = dense((2, *heads), "kv")(spec.shards.share(context))
        return spec.out("out")(spec.attend(dense(heads, "q")(spec.shards.share(x)), kv[:, :, 0], kv[:, :, 1]))

    @staticmethod
    def macs(spec: Spec, tokens: int, keys: int) -> int:
        """Multiplications for one example."""
        return (2 * tokens + 2 * keys) * spec.width**2 + 2 * tokens * keys * spec.width


STACKS = ("dual_blocks", "blocks", "last_block")  # in order; below these names, weights are put together block by block
ATTENTION = "attention"  # the collection that `sow_attention` writes to


def sow_attention(block: nn.Module, q: Float[Array, "B N H K"], k: Float[Array, "B M H K"]) -> None:
    """Where somebody asks for the collection `attention`: the largest logit, and the mean entropy of a query in nats.

    SD3's measure of instability (section 5.3.2, Fig. 5): logits grow and the entropy falls before training diverges.
    """
    if block.is_initializing() or not block.is_mutable_collection(ATTENTION):
        return
    logits = jnp.einsum("bnhk,bmhk->bhnm", q.astype(jnp.float32), k.astype(jnp.float32)) / q.shape[-1] ** 0.5
    entropy = jax.scipy.special.entr(jax.nn.softmax(logits)).sum(-1).mean()
    for name, value in (("largest_logit", logits.max()), ("entropy", entropy)):
        block.sow(ATTENTION, name, value, reduce_fn=lambda _, new: new, init_fn=lambda: 0.0)


@dataclass(frozen=True)
class Stacking:
    """How blocks are put behind one another.

    Attributes:
        remat: what the backward pass computes again, of `shards.REMAT`. unroll: blocks per iteration of the scan.
        shards: what this device has of the weights.
    """

    remat: str = "none"
    unroll: int = 1
    shards: Shards = WHOLE

    def one(self, block: Any, name: str, *, unrolled: bool = False) -> Any:
        """A block's class, ready for a device's part of the weights, which are found at `name`.

        `unrolled`: it is one of several in a row. XLA would use again what should not be kept; within a loop it can't,
        and for a single block, whose backward pass comes right after, it may.
        """
        if self.shards.dimensions:
            whole = lambda tree: {"params": self.shards.gather(tree["params"], name)}  # noqa: E731
            block = nn.map_variables(block, "params", trans_in_fn=whole)
        if self.remat == "none" and not self.shards.dimensions:
            return block
        return nn.remat(block, prevent_cse=unrolled, policy=REMAT[self.remat])

    def many(self, block: Any, count: int, name: str) -> Any:
        """`count` blocks (carry, y) -> (carry, None) in a scan: one is traced and compiled, whatever the depth.

        Each parameter gets a leading axis of that length. The result is called as the block's constructor.
        """
        return nn.scan(
            self.one(block, name, unrolled=self.unroll >= count > 1),
            variable_axes={"params": 0, ATTENTION: 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=count,
            unroll=min(self.unroll, count),
        )
