"""DiT and SiT: one set of weights for all tokens (Peebles & Xie 2023, Ma et al. 2024; the baseline of SD3's Fig. 4).

With text, the text's tokens stand before the image's in one sequence and share every weight with them: MM-DiT with one
set of weights. With class labels, the label's vector is added to the time's and there are no other tokens.

B batch, N image tokens, L text tokens, D width, E text width, P pooled width.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rfjax.errors import UserError
from rfjax.models import layers
from rfjax.models.backbone import Backbone
from rfjax.models.blocks import Spec, Stream, sow_attention

# The published sizes: depth, width, heads.
SIZES = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}


class Block(nn.Module):
    """A block with adaLN-Zero, shaped for a scan: (x, y) -> (x, None)."""

    spec: Spec

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"], y: Float[Array, "B D"]) -> tuple[Float[Array, "B N D"], None]:
        stream = Stream(self.spec, name="stream")
        qkv, rest = stream.before(x, y)
        sow_attention(self, *qkv[:2])
        return stream.after(stream.attended(x, self.spec.attend(*qkv), rest), rest), None


class DiT(Backbone):
    """The network: (z, t, context, pooled) -> prediction, of the shape of z; see `Backbone` for its settings.

    Attributes:
        classes: number of class labels; `pooled` is then one-hot, or all zero for "no label", and `context` is not
            read. 0: conditioned on text.
        learn_sigma: the final layer has twice the channels, of which `__call__` leaves out the second half (DiT's
            learned variances).
    """

    classes: int = 0
    learn_sigma: bool = False

    def __call__(
        self,
        z: Float[Array, "B H W C"],
        t: Float[Array, " B"],
        context: Float[Array, "B L E"],
        pooled: Float[Array, "B P"],
    ) -> Float[Array, "B H W C"]:
        return self.with_sigma(z, t, context, pooled)[..., : z.shape[-1]]

    @nn.compact
    def with_sigma(
        self,
        z: Float[Array, "B H W C"],
        t: Float[Array, " B"],
        context: Float[Array, "B L E"],
        pooled: Float[Array, "B P"],
    ) -> Float[Array, "B H W C2"]:
        """The prediction and, where it is learned, the variance: all channels of the final layer."""
        x, y = self.image_tokens(z), self.time_vector(t)
        if self.classes:
            y = y + self._label_vector(pooled)
        else:
            y = y + self.pooled_vector(pooled)
            x = jnp.concatenate([self.dense(self.width, "context_embed")(context), x], axis=1)
        x, _ = self.stack(Block, self.depth)(x, y)
        rows, columns, channels = z.shape[1:]
        count = rows * columns // self.patch**2
        return self.image(x[:, -count:], y, (rows, columns, channels * (1 + self.learn_sigma)))

    def _label_vector(self, pooled: Float[Array, "B P"]) -> Float[Array, "B D"]:
        if pooled.shape[1] != self.classes:
            raise UserError(f"the model knows {self.classes} classes, and was given one of {pooled.shape[1]}")
        label = jnp.where((pooled != 0).any(-1), pooled.argmax(-1), self.classes)
        table = nn.Embed(self.classes + 1, self.width, embedding_init=layers.small_normal, name="label_embed")
        return table(label).astype(self.dtype)

    def forward_flops(self, image: tuple[int, int, int], text: tuple[int, int], pooled_width: int) -> int:
        """Exact floating-point operations of the matrix products for one example, 2 m k n each; see `MMDiT`.

        Args:
            image: (H, W, C). text: (L, E). pooled_width: P.
        """
        tokens = self.tokens(image) + (0 if self.classes else text[0])
        ends = self.macs_of_ends(image, (0, 0) if self.classes else text, pooled_width)
        if self.classes:
            ends -= pooled_width * self.width + self.width**2  # a label's vector is looked up
        ends += self.learn_sigma * self.tokens(image) * self.width * self.patch**2 * image[-1]
        return 2 * (ends + self.depth * Stream.macs(self.spec, tokens, tokens))
