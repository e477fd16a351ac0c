"""What transformer blocks are made of: streams of tokens with weights of their own, attention, and the scan over depth.

B batch, N tokens, L text tokens, D width, H heads, K head width, y the conditioning vector.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rfjax.models import layers
from rfjax.models.matmul import attention
from rfjax.models.shards import WHOLE, Shards

Vector = Float[Array, "#B 1 D"]
ADALN, TOKEN, NONE = "adaln", "token", "none"  # values of `Spec.modulation`


@dataclass(frozen=True)
class Spec:
    """What all blocks of a network have in common.

    Attributes:
        width: D.
        heads: H.
        mlp_ratio: hidden width of the MLPs over D.
        qk_norm: RMSNorm of queries and keys.
        dtype: of the matrix products.
        attention: implementation, see `matmul.attention`.
        shards: what this device has of the weights.
        modulation: how the blocks learn of y: "adaln"; "token" or "none": they don't, and their norms' shifts and
            scales are weights.
    """

    width: int
    heads: int
    mlp_ratio: int = 4
    qk_norm: bool = False
    dtype: Any = jnp.float32
    attention: str | None = None
    shards: Shards = WHOLE
    modulation: str = ADALN

    @property
    def modulated(self) -> bool:
        """Whether norms are modulated by y, and branches gated."""
        return self.modulation == ADALN

    @property
    def end_init(self) -> Any:
        """How the last Linear of a branch starts: at zero where no gate that starts at zero stands behind it."""
        return layers.xavier if self.modulated else nn.initializers.zeros

    def dense(self, width: int, name: str | None = None) -> nn.Dense:
        """A Linear with DiT's initialisation."""
        return layers.Dense(width, dtype=self.dtype, kernel_init=layers.xavier, name=name)

    def out(self, name: str | None = None) -> layers.OutDense:
        """The Linear behind an attention's heads."""
        return layers.OutDense(self.width, self.dtype, self.shards, self.end_init, name=name)

    def attend(
        self, q: Float[Array, "B N H K"], k: Float[Array, "B M H K"], v: Float[Array, "B M H K"]
    ) -> Float[Array, "B N F"]:
        """Softmax attention with scale 1 / sqrt(K) and no mask; the heads lie side by side in what is returned."""
        out = attention(q, k, v, self.attention)
        return out.reshape(*out.shape[:2], -1)


class AdaLN(NamedTuple):
    """The vectors of adaLN-Zero (DiT section 3.2) for one stream of a block, each (B, 1, D).

    A stream that ends with its attention has the first two; only SD3.5's dual attention has the last three. Without
    adaLN the shifts and scales are weights, (1, 1, D), and there are no gates.
    """

    shift_attn: Vector
    scale_attn: Vector
    gate_attn: Vector | None = None
    shift_mlp: Vector | None = None
    scale_mlp: Vector | None = None
    gate_mlp: Vector | None = None
    shift_dual: Vector | None = None
    scale_dual: Vector | None = None
    gate_dual: Vector | None = None


def gated(branch: Float[Array, "B N D"], gate: Vector | None) -> Float[Array, "B N D"]:
    """A branch times its gate, where it has one."""
    return branch if gate is None else gate * branch


class Stream(nn.Module):
    """One set of weights in a block: adaLN, q, k and v, the Linear behind the attention, and the MLP.

    Attributes:
        spec: of the network.
        pre_only: adaLN and q, k, v only, as the text of SD3's last block, whose output no layer reads.
        dual: these tokens also attend to themselves alone, with weights of their own (images in SD3.5).
    """

    spec: Spec
    pre_only: bool = False
    dual: bool = False

    def setup(self) -> None:
        spec = self.spec
        parts = ("attn",) if self.pre_only else ("attn", "mlp", "dual")[: 2 + self.dual]
        if spec.modulated:
            self.modulation = layers.Modulation(2 if self.pre_only else 3 * len(parts), spec.dtype)
        else:
            self.norms = layers.Norms(parts, spec.width, spec.dtype)
        self.qkv = layers.QKV(spec.heads, spec.qk_norm, spec.dtype, spec.shards)
        if not self.pre_only:
            self.out = spec.out()
            self.mlp = layers.MLP(spec.mlp_ratio, spec.dtype, spec.shards, spec.end_init)
        if self.dual:
            self.dual_qkv = layers.QKV(spec.heads, spec.qk_norm, spec.dtype, spec.shards)
            self.dual_out = spec.out()

    def adaln(self, y: Float[Array, "B D"]) -> AdaLN:
        """The block's shifts, scales and gates; without adaLN they don't depend on y."""
        return AdaLN(*self.modulation(y)) if self.spec.modulated else AdaLN(**self.norms())

    def project(self, x: Float[Array, "B N D"], ada: AdaLN) -> tuple[Array, Array, Array]:
        """Queries, keys and values of the modulated tokens, each (B, N, H, K)."""
        return self.qkv(layers.modulated_norm(x, ada.shift_attn, ada.scale_attn))

    def attend_to_itself(self, x: Float[Array, "B N D"], ada: AdaLN) -> Float[Array, "B N D"]:
        """The gated attention of these tokens to themselves alone; only with `dual`."""
        qkv = self.dual_qkv(layers.modulated_norm(x, ada.shift_dual, ada.scale_dual))
        return gated(self.dual_out(self.spec.attend(*qkv)), ada.gate_dual)

    def add_attention(
        self, x: Float[Array, "B N D"], attended: Float[Array, "B N F"], ada: AdaLN
    ) -> Float[Array, "B N D"]:
        """x + gate out(attended)."""
        return x + gated(self.out(attended), ada.gate_attn)

    def add_mlp(self, x: Float[Array, "B N D"], ada: AdaLN) -> Float[Array, "B N D"]:
        """x + gate MLP(modulated x)."""
        return x + gated(self.mlp(layers.modulated_norm(x, ada.shift_mlp, ada.scale_mlp)), ada.gate_mlp)

    @staticmethod
    def macs(spec: Spec, tokens: int, keys: int, *, pre_only: bool = False, dual: bool = False) -> int:
        """Multiplications for one example: `tokens` of this stream, each of which attends to `keys`."""
        square = spec.width**2
        vectors = square * spec.modulated  # of one vector of adaLN
        if pre_only:
            return 2 * vectors + tokens * 3 * square
        count = 6 * vectors + tokens * (4 + 2 * spec.mlp_ratio) * square + 2 * tokens * keys * spec.width
        return count + dual * (3 * vectors + tokens * 4 * square + 2 * tokens**2 * spec.width)


STACKS = ("dual_blocks", "blocks", "last_block")  # in order; below these names, weights are put together block by block
ATTENTION = "attention"  # the collection that `sow_attention` writes to


def sow_attention(block: nn.Module, q: Float[Array, "B N H K"], k: Float[Array, "B M H K"]) -> None:
    """Writes the largest logit and the mean entropy of a query (nats) to the collection `attention`, if it is mutable.

    SD3's measure of instability (section 5.3.2, Fig. 5): logits grow and the entropy falls before training diverges.
    """
    if block.is_initializing() or not block.is_mutable_collection(ATTENTION):
        return
    logits = jnp.einsum("bnhk,bmhk->bhnm", q.astype(jnp.float32), k.astype(jnp.float32)) / q.shape[-1] ** 0.5
    entropy = jax.scipy.special.entr(jax.nn.softmax(logits)).sum(-1).mean()
    for name, value in (("largest_logit", logits.max()), ("entropy", entropy)):
        block.sow(ATTENTION, name, value, reduce_fn=lambda _, new: new, init_fn=lambda: 0.0)
