"""DiT and SiT: one set of weights for all tokens (Peebles & Xie 2023, Ma et al. 2024; the baseline of SD3's Fig. 4).

With text, the text's tokens stand before the image's in one sequence and share every weight with them: MM-DiT with one
set of weights. With class labels, the label's vector is added to the time's and there are no other tokens.

B batch, N image tokens, L text tokens, D width, E text width, P pooled width.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rfjax.conditioning import TextConditioning
from rfjax.errors import UserError
from rfjax.models import layers
from rfjax.models.backbone import HEADS, Backbone
from rfjax.models.blocks import Spec, Stream, sow_attention
from rfjax.models.inputs import Inputs
from rfjax.models.stacking import Stack

SIGMA = "sigma"  # among the outputs of heads: where the variance lies between its two ends, -1 and 1
# The published sizes: depth, width, heads.
SIZES = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}


class Block(nn.Module):
    """A block with adaLN-Zero, shaped for a scan: (x, y) -> (x, None)."""

    spec: Spec

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"], y: Float[Array, "B D"]) -> tuple[Float[Array, "B N D"], None]:
        stream = Stream(self.spec, name="stream")
        ada = stream.adaln(y)
        q, k, v = stream.project(x, ada)
        sow_attention(self, q, k)
        x = stream.add_attention(x, self.spec.attend(q, k, v), ada)
        return stream.add_mlp(x, ada), None


class DiT(Backbone):
    """The network: (z, t, cond) -> prediction, of the shape of z; see `Backbone` for its settings.

    Attributes:
        classes: number of class labels; `cond.pooled` is then one-hot, or all zero for "no label", and `cond.context`
            is not read. 0: conditioned on text.
        learn_sigma: the final layer has twice the channels, of which `__call__` leaves out the second half (DiT's
            learned variances); where outputs of heads are wanted, it is the one named SIGMA.
    """

    classes: int = 0
    learn_sigma: bool = False

    def __call__(
        self, z: Float[Array, "B *S C"], t: Float[Array, " B"], cond: TextConditioning
    ) -> Float[Array, "B *S C"]:
        out, channels = self.with_sigma(z, t, cond), z.shape[-1]
        if self.learn_sigma and self.is_mutable_collection(HEADS) and not self.is_initializing():
            self.put_variable(HEADS, SIGMA, out[..., channels:])
        return out[..., :channels]

    @nn.compact
    def with_sigma(
        self, z: Float[Array, "B *S C"], t: Float[Array, " B"], cond: TextConditioning
    ) -> Float[Array, "B *S C2"]:
        """The prediction and, where it is learned, the variance: all channels of the final layer."""
        x, y = self.image_tokens(z), self.time_vector(t)
        count = x.shape[1]
        if self.classes:
            y = y + self._label_vector(cond.pooled)
            x = self.with_token(x, y)
        else:
            y = y + self.pooled_vector(cond.pooled)
            context = self.with_token(self.dense(self.width, "context_embed")(cond.context), y)
            x = jnp.concatenate([context, x], axis=1)
        x = self.run_stacks([Stack(Block, "blocks", self.depth, {})], x, y, tokens=lambda x: x[:, -count:])
        return self.image(x[:, -count:], y, (*z.shape[1:-1], z.shape[-1] * (1 + self.learn_sigma)))

    def _label_vector(self, pooled: Float[Array, "B P"]) -> Float[Array, "B D"]:
        if pooled.shape[1] != self.classes:
            raise UserError(f"the model knows {self.classes} classes, and was given one of {pooled.shape[1]}")
        label = jnp.where((pooled != 0).any(-1), pooled.argmax(-1), self.classes)
        table = nn.Embed(self.classes + 1, self.width, embedding_init=layers.small_normal, name="label_embed")
        return table(label).astype(self.dtype)

    def forward_flops(self, inputs: Inputs) -> int:
        """Exact floating-point operations of the matrix products for one example, 2 m k n each; see `MMDiT`."""
        text, image = inputs.cond.context.shape, self.tokens(inputs.shape)
        tokens = image + self.more_tokens + (0 if self.classes else text[0])
        ends = self.macs_of_ends(inputs, (0, 0) if self.classes else text)
        if self.classes:
            ends -= inputs.cond.pooled.shape[0] * self.width + self.width**2  # a label's vector is looked up
        ends += self.learn_sigma * image * self.width * self.patch_values(inputs.shape)
        return 2 * (ends + self.depth * Stream.macs(self.spec, tokens, tokens))
