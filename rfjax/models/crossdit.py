"""CrossDiT: DiT whose image tokens look at the text by cross-attention (SD3's Fig. 4; PixArt-alpha, Chen et al. 2023).

B batch, N image tokens, L text tokens, D width, E text width, P pooled width.
"""

import flax.linen as nn
from jaxtyping import Array, Float

from rfjax.models.backbone import Backbone
from rfjax.models.blocks import CrossAttention, Spec, Stream, sow_attention


class Block(nn.Module):
    """Self-attention, cross-attention without norm, modulation or gate, MLP; (x, (y, c)) -> (x, None)."""

    spec: Spec

    @nn.compact
    def __call__(
        self, x: Float[Array, "B N D"], given: tuple[Float[Array, "B D"], Float[Array, "B L D"]]
    ) -> tuple[Float[Array, "B N D"], None]:
        y, c = given
        stream = Stream(self.spec, name="stream")
        qkv, rest = stream.before(x, y)
        sow_attention(self, *qkv[:2])
        x = stream.attended(x, self.spec.attend(*qkv), rest)
        x = x + CrossAttention(self.spec, name="cross")(x, c)
        return stream.after(x, rest), None

    @staticmethod
    def macs(spec: Spec, tokens: int, text: int) -> int:
        """Multiplications for one example."""
        return Stream.macs(spec, tokens, tokens) + CrossAttention.macs(spec, tokens, text)


class CrossDiT(Backbone):
    """The network: (z, t, context, pooled) -> prediction, of the shape of z; see `Backbone` for its settings."""

    @nn.compact
    def __call__(
        self,
        z: Float[Array, "B H W C"],
        t: Float[Array, " B"],
        context: Float[Array, "B L E"],
        pooled: Float[Array, "B P"],
    ) -> Float[Array, "B H W C"]:
        x = self.image_tokens(z)
        y = self.time_vector(t) + self.pooled_vector(pooled)
        c = self.dense(self.width, "context_embed")(context)
        x, _ = self.stack(Block, self.depth)(x, (y, c))
        return self.image(x, y, z.shape[1:])

    def forward_flops(self, image: tuple[int, int, int], text: tuple[int, int], pooled_width: int) -> int:
        """Exact floating-point operations of the matrix products for one example, 2 m k n each; see `MMDiT`.

        Args:
            image: (H, W, C). text: (L, E). pooled_width: P.
        """
        blocks = self.depth * Block.macs(self.spec, self.tokens(image), text[0])
        return 2 * (self.macs_of_ends(image, text, pooled_width) + blocks)
