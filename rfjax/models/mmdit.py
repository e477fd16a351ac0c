"""MM-DiT: streams with weights of their own, one attention over all of them (SD3 section 4, Fig. 2).

Two sets of weights, for the image and for the text, or three: for the image and for two kinds of text tokens (CLIP's
and T5's in the paper). Blocks may also let the image attend to itself alone, as the first 13 of SD3.5 medium do.

B batch, N image tokens, L text tokens, D width, E text width, P pooled width.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rfjax.errors import UserError
from rfjax.models.backbone import Backbone
from rfjax.models.blocks import Spec, Stream, sow_attention

Tokens = tuple[Float[Array, "B N D"], tuple[Float[Array, "B _ D"], ...]]  # the image's, and each kind of text's


def text_names(kinds: int) -> tuple[str, ...]:
    """What the text's sets of weights are called: "text", or "text_0", "text_1" ..."""
    return ("text",) if kinds == 1 else tuple(f"text_{i}" for i in range(kinds))


class JointBlock(nn.Module):
    """A block of MM-DiT, shaped for a scan: ((x, texts), y) -> ((x, texts), None).

    Attributes:
        last: the text comes out unchanged, since nobody reads it. dual: the image also attends to itself alone.
    """

    spec: Spec
    last: bool = False
    dual: bool = False

    @nn.compact
    def __call__(self, carry: Tokens, y: Float[Array, "B D"]) -> tuple[Tokens, None]:
        x, texts = carry
        sets = [Stream(self.spec, pre_only=self.last, name=name) for name in text_names(len(texts))]
        image = Stream(self.spec, dual=self.dual, name="image")
        before = [stream.before(tokens, y) for stream, tokens in zip(sets, texts, strict=True)]
        (qx, kx, vx), rest_x = image.before(x, y)
        # The text's queries of the last block would only make an output that is thrown away.
        q = qx if self.last else jnp.concatenate([*(qkv[0] for qkv, _ in before), qx], axis=1)
        k, v = (jnp.concatenate([*(qkv[i] for qkv, _ in before), own], axis=1) for i, own in ((1, kx), (2, vx)))
        sow_attention(self, q, k)
        *out, out_x = jnp.split(
            self.spec.attend(q, k, v), [] if self.last else np.cumsum([t.shape[1] for t in texts]).tolist(), axis=1
        )
        x = image.after(image.attended(x, out_x, rest_x), rest_x)
        if not self.last:
            texts = tuple(
                stream.after(stream.attended(tokens, o, rest), rest)
                for stream, tokens, o, (_, rest) in zip(sets, texts, out, before, strict=True)
            )
        return (x, texts), None


class MMDiT(Backbone):
    """The network: (z, t, context, pooled) -> prediction, of the shape of z; see `Backbone` for its settings.

    Attributes:
        texts: how many text tokens belong to each kind that has weights of its own; (): all of them to one.
        dual_blocks: how many of the first blocks let the image also attend to itself alone.
    """

    texts: tuple[int, ...] = ()
    dual_blocks: int = 0

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
        kinds = self._kinds(context.shape[1])
        parts = jnp.split(context, np.cumsum(kinds)[:-1].tolist(), axis=1)
        embeds = [name.replace("text", "context_embed") for name in text_names(len(kinds))]
        texts = tuple(self.dense(self.width, name)(part) for name, part in zip(embeds, parts, strict=True))
        carry = (x, texts)
        dual = min(self.dual_blocks, self.depth - 1)
        if dual:
            carry, _ = self.stack(JointBlock, dual, "dual_blocks", dual=True)(carry, y)
        if self.depth - 1 - dual:
            carry, _ = self.stack(JointBlock, self.depth - 1 - dual)(carry, y)
        last = self.one(JointBlock, "last_block", last=True, dual=self.dual_blocks == self.depth)
        (x, _), _ = last(carry, y)
        return self.image(x, y, z.shape[1:])

    def _kinds(self, length: int) -> tuple[int, ...]:
        """How many text tokens are of each kind.

        Raises:
            UserError: if there are others than the model was made for.
        """
        kinds = self.texts or (length,)
        if sum(kinds) != length:
            raise UserError(
                f"the model has weights for {' + '.join(map(str, kinds))} text tokens, and was given {length}"
            )
        return kinds

    def forward_flops(self, image: tuple[int, int, int], text: tuple[int, int], pooled_width: int) -> int:
        """Exact floating-point operations of the matrix products for one example, 2 m k n each.

        Norms, activations and softmax are left out, as is usual. Note what 6 N D gets wrong here: modulation runs once
        per example, and a token passes through one stream only.

        Args:
            image: (H, W, C). text: (L, E). pooled_width: P.
        """
        spec, tokens, kinds = self.spec, self.tokens(image), self._kinds(text[0])
        keys = tokens + text[0]
        texts = sum(Stream.macs(spec, length, keys) for length in kinds)
        last_texts = sum(Stream.macs(spec, length, keys, pre_only=True) for length in kinds)
        blocks = sum(Stream.macs(spec, tokens, keys, dual=i < self.dual_blocks) for i in range(self.depth))
        blocks += (self.depth - 1) * texts + last_texts
        return 2 * (self.macs_of_ends(image, text, pooled_width) + blocks)
