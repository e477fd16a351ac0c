"""CrossDiT: DiT whose image tokens look at the text by cross-attention (SD3's Fig. 4; PixArt-alpha, Chen et al. 2023).

B batch, N image tokens, L text tokens, D width, E text width, P pooled width.
"""

import flax.linen as nn
from jaxtyping import Array, Float

from rfjax.conditioning import TextConditioning
from rfjax.models import layers
from rfjax.models.backbone import Backbone
from rfjax.models.blocks import Spec, Stream, sow_attention
from rfjax.models.inputs import Inputs
from rfjax.models.stacking import Stack


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


class Block(nn.Module):
    """Self-attention, cross-attention without norm, modulation or gate, MLP; (x, (y, c)) -> (x, None)."""

    spec: Spec

    @nn.compact
    def __call__(
        self, x: Float[Array, "B N D"], given: tuple[Float[Array, "B D"], Float[Array, "B L D"]]
    ) -> tuple[Float[Array, "B N D"], None]:
        y, c = given
        stream = Stream(self.spec, name="stream")
        ada = stream.adaln(y)
        q, k, v = stream.project(x, ada)
        sow_attention(self, q, k)
        x = stream.add_attention(x, self.spec.attend(q, k, v), ada)
        x = x + CrossAttention(self.spec, name="cross")(x, c)
        return stream.add_mlp(x, ada), None

    @staticmethod
    def macs(spec: Spec, tokens: int, text: int) -> int:
        """Multiplications for one example."""
        return Stream.macs(spec, tokens, tokens) + CrossAttention.macs(spec, tokens, text)


class CrossDiT(Backbone):
    """The network: (z, t, cond) -> prediction, of the shape of z; see `Backbone` for its settings."""

    @nn.compact
    def __call__(
        self, z: Float[Array, "B *S C"], t: Float[Array, " B"], cond: TextConditioning
    ) -> Float[Array, "B *S C"]:
        x = self.image_tokens(z)
        y = self.time_vector(t) + self.pooled_vector(cond.pooled)
        c = self.with_token(self.dense(self.width, "context_embed")(cond.context), y)
        x = self.run_stacks([Stack(Block, "blocks", self.depth, {})], x, (y, c))
        return self.image(x, y, z.shape[1:])

    def forward_flops(self, inputs: Inputs) -> int:
        """Exact floating-point operations of the matrix products for one example, 2 m k n each; see `MMDiT`."""
        text = inputs.cond.context.shape
        blocks = self.depth * Block.macs(self.spec, self.tokens(inputs.shape), text[0] + self.more_tokens)
        return 2 * (self.macs_of_ends(inputs, text) + blocks)
