"""MM-DiT: streams with weights of their own, one attention over all of them (SD3 section 4, Fig. 2).

Two sets of weights, for the image and for the text, or three: for the image and for two kinds of text tokens (CLIP's
and T5's in the paper). Blocks may also let the image attend to itself alone, as the first 13 of SD3.5 medium do.

B batch, N image tokens, L text tokens, D width, E text width, P pooled width.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rfjax.conditioning import TextConditioning
from rfjax.errors import UserError
from rfjax.models.backbone import Backbone
from rfjax.models.blocks import Spec, Stream, sow_attention
from rfjax.models.inputs import Inputs
from rfjax.models.stacking import Stack

Tokens = tuple[Float[Array, "B N D"], tuple[Float[Array, "B _ D"], ...]]  # the image's, and each kind of text's


def text_names(kinds: int) -> tuple[str, ...]:
    """What the text's sets of weights are called: "text", or "text_0", "text_1" ..."""
    return ("text",) if kinds == 1 else tuple(f"text_{i}" for i in range(kinds))


class JointBlock(nn.Module):
    """A block of MM-DiT, shaped for a scan: ((x, texts), y) -> ((x, texts), None).

    Attributes:
        spec: of the network.
        last: the text comes out unchanged, since no layer reads it.
        dual: the image also attends to itself alone.
    """

    spec: Spec
    last: bool = False
    dual: bool = False

    @nn.compact
    def __call__(self, carry: Tokens, y: Float[Array, "B D"]) -> tuple[Tokens, None]:
        image, texts = carry
        streams = [Stream(self.spec, pre_only=self.last, name=name) for name in text_names(len(texts))]
        streams.append(Stream(self.spec, dual=self.dual, name="image"))
        tokens = [*texts, image]
        adas = [stream.adaln(y) for stream in streams]
        alone = streams[-1].attend_to_itself(image, adas[-1]) if self.dual else 0
        qkvs = [stream.project(x, ada) for stream, x, ada in zip(streams, tokens, adas, strict=True)]
        q, k, v = (jnp.concatenate(parts, axis=1) for parts in zip(*qkvs, strict=True))
        if self.last:
            q = qkvs[-1][0]  # no layer would read what the text's queries found
        sow_attention(self, q, k)
        ends = [] if self.last else np.cumsum([x.shape[1] for x in texts]).tolist()
        attended = jnp.split(self.spec.attend(q, k, v), ends, axis=1)
        first = len(texts) if self.last else 0
        rows = zip(streams[first:], tokens[first:], attended, adas[first:], strict=True)
        added = [(stream, stream.add_attention(x, found, ada), ada) for stream, x, found, ada in rows]
        out = [stream.add_mlp(x + alone if stream.dual else x, ada) for stream, x, ada in added]
        return (out[-1], texts if self.last else tuple(out[:-1])), None


class MMDiT(Backbone):
    """The network: (z, t, cond) -> prediction, of the shape of z; see `Backbone` for its settings.

    Attributes:
        texts: how many text tokens belong to each kind that has weights of its own; (): all of them to one.
        dual_blocks: how many of the first blocks let the image also attend to itself alone.
    """

    texts: tuple[int, ...] = ()
    dual_blocks: int = 0

    @nn.compact
    def __call__(
        self, z: Float[Array, "B *S C"], t: Float[Array, " B"], cond: TextConditioning
    ) -> Float[Array, "B *S C"]:
        x = self.image_tokens(z)
        y = self.time_vector(t) + self.pooled_vector(cond.pooled)
        kinds = self._kinds(cond.context.shape[1])
        parts = jnp.split(cond.context, np.cumsum(kinds)[:-1].tolist(), axis=1)
        embeds = [name.replace("text", "context_embed") for name in text_names(len(kinds))]
        texts = tuple(self.dense(self.width, name)(part) for name, part in zip(embeds, parts, strict=True))
        texts = (self.with_token(texts[0], y), *texts[1:])
        dual = min(self.dual_blocks, self.depth - 1)
        stacks = [
            Stack(JointBlock, "dual_blocks", dual, {"dual": True}),
            Stack(JointBlock, "blocks", self.depth - 1 - dual, {}),
        ]
        last = Stack(JointBlock, "last_block", 0, {"last": True, "dual": self.dual_blocks == self.depth})
        stacks = [*(stack for stack in stacks if stack.count), last]
        x, _ = self.run_stacks(stacks, (x, texts), y, tokens=lambda carry: carry[0])
        return self.image(x, y, z.shape[1:])

    def _kinds(self, length: int) -> tuple[int, ...]:
        """How many text tokens are of each kind; a UserError if there are others than the model was made for."""
        kinds = self.texts or (length,)
        if sum(kinds) != length:
            raise UserError(
                f"the model has weights for {' + '.join(map(str, kinds))} text tokens, and was given {length}"
            )
        return kinds

    def forward_flops(self, inputs: Inputs) -> int:
        """Exact floating-point operations of the matrix products for one example, 2 m k n each.

        Norms, activations and softmax are left out, as is usual. Note what 6 N D gets wrong here: modulation runs once
        per example, and a token passes through one stream only.
        """
        text = inputs.cond.context.shape
        spec, tokens, kinds = self.spec, self.tokens(inputs.shape), self._kinds(text[0])
        kinds = (kinds[0] + self.more_tokens, *kinds[1:])
        keys = tokens + sum(kinds)
        texts = sum(Stream.macs(spec, length, keys) for length in kinds)
        last_texts = sum(Stream.macs(spec, length, keys, pre_only=True) for length in kinds)
        blocks = sum(Stream.macs(spec, tokens, keys, dual=i < self.dual_blocks) for i in range(self.depth))
        blocks += (self.depth - 1) * texts + last_texts
        return 2 * (self.macs_of_ends(inputs, text) + blocks)
