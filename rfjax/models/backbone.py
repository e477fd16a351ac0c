"""What all backbones share: their settings, and the way from pixels to tokens, from time to a vector, and back.

B batch, *S spatial axes (H, W of an image; F, H, W of a video), C channels, N image tokens, L text tokens, D width,
E text width, P pooled width, y the conditioning vector.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rfjax.models import layers
from rfjax.models.blocks import ADALN, NONE, Spec
from rfjax.models.inputs import Inputs
from rfjax.models.positions import Positions, crop, sincos
from rfjax.models.shards import WHOLE, Shards
from rfjax.models.stacking import Stack, Stacking, Taps

# What the network is told of t, by name. DiT's own code counts its steps from 0; SiT's own runs from noise to data, so
# that its velocity also has the other sign.
TIMES = {"1000t": lambda t: 1000 * t, "1000t-1": lambda t: 1000 * t - 1, "t": lambda t: t, "1-t": lambda t: 1 - t}
HEADS = "heads"  # the collection that heads write their outputs to


def whole(tokens: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
    """All of a block's tokens, as training's heads read them."""
    return tokens


@dataclass(frozen=True)
class Head:
    """A small network that reads the hidden image tokens of one block, such as REPA's projector.

    Its weights lie in the network's own tree, under its name. It runs only where the collection `heads` is mutable.

    Attributes:
        name: of its weights and of its output.
        after: the number of the block whose output it reads, counted from 1.
        module: (B, N, D) -> anything; unbound.
    """

    name: str
    after: int
    module: nn.Module


class Backbone(nn.Module):
    """A network (z, t, cond) -> prediction, of the shape of z.

    Attributes:
        depth: number of blocks d.
        width: D; the paper's rule is 64 d.
        heads: attention heads; the paper's rule is d.
        patch: sides of a patch, one for each spatial axis.
        mlp_ratio: hidden width of the MLPs over D.
        qk_norm: RMSNorm of queries and keys.
        remat: what the backward pass computes again, to save memory; of `shards.REMAT`.
        unroll: blocks per iteration of the scan over depth; `depth` unrolls it whole.
        dtype: of the matrix products; parameters, norms and softmax stay float32.
        attention: implementation, see `matmul.attention`: None, "xla" or "cudnn".
        positions: where image tokens lie.
        time: what the network is told: "1000t" (SD3), "1000t-1" (DiT's own code), "t" (SiT as in REPA's code), or "1-t"
            and the output negated (SiT's own code, where t = 1 is data).
        frequency_shift: of the sinusoid, see `layers.sinusoid`.
        modulation: how the network learns of the vector y of time and pooled text. "adaln": the norms' shifts and
            scales and the branches' gates depend on it (DiT, SD3). "token": it is one more token before the text's, and
            norms have shifts and scales of their own (U-ViT, Bao et al. 2023, has a token each for time and text).
            "none": the same, but y is of the pooled text alone, and the network is not told the time, as in i1 (arXiv
            2606.11289), whose published code drops t where it has no adaLN. i1 also has RMSNorm, which its streams
            share, norms behind the branches, long skips and no pooled vector; here nothing else changes, so that a
            comparison is one of modulation alone.
        shards: what this device has of the weights, inside of `jax.shard_map`.
        readouts: the heads that read hidden states.
        tapped: what they read of a block's image tokens, (B, N, D) -> (B, M, D): all, or less of them, so that the scan
            over depth does not keep the rest.
    """

    depth: int
    width: int
    heads: int
    patch: tuple[int, ...] = (2, 2)
    mlp_ratio: int = 4
    qk_norm: bool = False
    remat: str = "none"
    unroll: int = 1
    dtype: Any = jnp.float32
    attention: str | None = None
    positions: Positions = Positions()
    time: str = "1000t"
    frequency_shift: int = 0
    modulation: str = ADALN
    shards: Shards = WHOLE
    readouts: tuple[Head, ...] = ()
    tapped: Callable[[Array], Array] = whole

    @property
    def spec(self) -> Spec:
        """What the blocks need to know."""
        return Spec(
            self.width,
            self.heads,
            self.mlp_ratio,
            self.qk_norm,
            self.dtype,
            self.attention,
            self.shards,
            self.modulation,
        )

    def dense(self, width: int, name: str) -> nn.Dense:
        """A Linear outside of the blocks."""
        return self.spec.dense(width, name)

    def run_stacks(
        self, stacks: list[Stack], carry: Any, given: Any, tokens: Callable[[Any], Array] = lambda carry: carry
    ) -> Any:
        """Runs the blocks, and the heads if their outputs are wanted; returns the last carry.

        Args:
            stacks: the blocks, in order.
            carry: what each block changes.
            given: what each block reads.
            tokens: carry -> the image tokens in it, (B, N, D).
        """
        wanted = self.readouts if self.is_initializing() or self.is_mutable_collection(HEADS) else ()
        read = lambda carry: self.tapped(tokens(carry))  # noqa: E731
        taps = Taps(tuple(head.after for head in wanted), read)
        use = taps if wanted and not self.is_initializing() else None
        stacking = Stacking(self.remat, self.unroll, self.shards)
        carry, states = stacking.run(self.spec, stacks, carry, given, use)
        for head, state in zip(wanted, states or [read(carry)] * len(wanted), strict=True):
            out = head.module.clone(name=head.name, parent=self)(state)
            if not self.is_initializing():
                self.put_variable(HEADS, head.name, out)  # `sow` refuses the name, which is the head's own
        return carry

    def grid(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Patches along each spatial axis of an example (*S, C).

        Raises:
            UserError: if the patches do not fit.
        """
        layers.check_patches(shape[:-1], self.patch)
        return tuple(side // patch for side, patch in zip(shape[:-1], self.patch, strict=True))

    def image_tokens(self, z: Float[Array, "B *S C"]) -> Float[Array, "B N D"]:
        """Patches through a Linear, plus their positions."""
        x = self.dense(self.width, "patch_embed")(layers.patchify(z, self.patch))
        return (x + self.position_table(self.grid(z.shape[1:]))).astype(self.dtype)

    def position_table(self, grid: tuple[int, ...]) -> Float[Any, "N D"]:
        """Positions of a grid of tokens: by formula, or the middle of a checkpoint's table, which is not trained."""
        side = self.positions.stored
        if not side:
            return sincos(grid, self.width, self.positions)
        initial = lambda key: jnp.asarray(sincos((side, side), self.width))  # noqa: E731
        table = jax.lax.stop_gradient(self.param("positions", initial)).astype(jnp.float32)
        rows, columns = grid
        top, left = crop(rows, side), crop(columns, side)
        middle = table.reshape(side, side, self.width)[top : top + rows, left : left + columns]
        return middle.reshape(rows * columns, self.width)

    def time_vector(self, t: Float[Array, " B"]) -> Float[Array, "B D"]:
        """The time's part of y; zeros for a network that is not told the time."""
        if self.modulation == NONE:
            return jnp.zeros((t.shape[0], self.width), self.dtype)
        waves = layers.sinusoid(TIMES[self.time](t), self.frequency_shift)
        return layers.VectorMLP(self.width, self.dtype, name="time_embed")(waves)

    def pooled_vector(self, pooled: Float[Array, "B P"]) -> Float[Array, "B D"]:
        """The text's part of y."""
        return layers.VectorMLP(self.width, self.dtype, name="pooled_embed")(pooled)

    def with_token(self, tokens: Float[Array, "B L D"], y: Float[Array, "B D"]) -> Float[Array, "B L2 D"]:
        """The text's tokens, behind y as one more where y does not modulate."""
        return tokens if self.spec.modulated else jnp.concatenate([y[:, None], tokens], axis=1)

    @property
    def more_tokens(self) -> int:
        """How many tokens `with_token` adds."""
        return 0 if self.spec.modulated else 1

    def image(self, x: Float[Array, "B N D"], y: Float[Array, "B D"], shape: tuple[int, ...]) -> Float[Array, "B *S C"]:
        """The last norm and Linear, then tokens to (*S, C) in float32, with the sign that `time` asks for."""
        if self.spec.modulated:
            shift, scale = layers.Modulation(2, self.dtype, name="final_modulation")(y)
        else:
            shift, scale = layers.Norms(("final",), self.width, self.dtype, name="final_norm")().values()
        values, zeros = self.patch_values(shape), nn.initializers.zeros
        final = layers.Dense(values, dtype=self.dtype, kernel_init=zeros, name="final")
        out = final(layers.modulated_norm(x, shift, scale)).astype(jnp.float32)
        return layers.unpatchify(-out if self.time == "1-t" else out, shape, self.patch)

    def patch_values(self, shape: tuple[int, ...]) -> int:
        """Values in a patch of an example (*S, C)."""
        return math.prod(self.patch) * shape[-1]

    def tokens(self, shape: tuple[int, ...]) -> int:
        """Image tokens N of an example (*S, C)."""
        return math.prod(self.grid(shape))

    def macs_of_ends(self, inputs: Inputs, text: tuple[int, int]) -> int:
        """Multiplications of all that is not a block, for one example.

        Args:
            inputs: the shapes.
            text: (L, E) of the text tokens that are read; (0, 0): none.
        """
        width, patch_values, tokens = self.width, self.patch_values(inputs.shape), self.tokens(inputs.shape)
        time = 0 if self.modulation == NONE else layers.FREQUENCIES * width + width**2
        vectors = time + inputs.cond.pooled.shape[0] * width + width**2
        final = 2 * width**2 * self.spec.modulated + tokens * width * patch_values
        return tokens * patch_values * width + text[0] * text[1] * width + vectors + final

    def is_head(self, path: str) -> bool:
        """Whether a parameter, by its path, belongs to a head, which the size N of a network leaves out."""
        return path.split("/", maxsplit=1)[0] in {head.name for head in self.readouts}

    def used_by_image_token(self, path: str) -> bool:
        """Whether a parameter, by its path, multiplies image tokens (rather than text tokens or one vector)."""
        others = ("modulation", "time_embed", "pooled_embed", "label_embed", "text", "positions", "cross/kv")
        return not any(word in path for word in others)
