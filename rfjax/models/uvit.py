"""UViT: convolutional levels around a transformer, as in simple diffusion (Hoogeboom et al. 2023; SD3's Fig. 4).

SD3 does not say how it configured its UViT. Ours, for a transformer of depth d and width D and a patch of p = 2^n:

- n convolutional levels; level l works at 1 / 2^l of the resolution with D / 2^(n - l) channels;
- each has two residual blocks on the way down and two on the way up: GroupNorm, SiLU, 3 x 3 convolution, GroupNorm,
  scale and shift by the conditioning vector, SiLU, 3 x 3 convolution that starts at zero. Blocks on the way up read
  what the block of the same height on the way down has left, beside their own input;
- 2 x 2 patches through a Linear between levels, so that the transformer sees as many tokens as any other backbone;
- d blocks of `crossdit` in the middle, with sine-cosine positions; text enters by their cross-attention.

B batch, H W C image, D width, E text width, P pooled width, y the conditioning vector.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rfjax.conditioning import TextConditioning
from rfjax.errors import UserError
from rfjax.models import crossdit, layers
from rfjax.models.backbone import Backbone
from rfjax.models.inputs import Inputs
from rfjax.models.stacking import Stack

BLOCKS = 2  # residual blocks of a level, each way
KERNEL = 3
HALVES = (2, 2)  # patches between two levels


def group_norm(channels: int, name: str) -> nn.GroupNorm:
    """GroupNorm in float32: 32 groups, or fewer where they would not divide the channels or have less than four."""
    groups = math.gcd(32, channels)
    while groups > 1 and channels < 4 * groups:
        groups //= 2
    return nn.GroupNorm(groups, epsilon=layers.EPSILON, dtype=jnp.float32, name=name)


class ResBlock(nn.Module):
    """A residual block, conditioned by scale and shift: (B, H, W, C), (B, D) -> (B, H, W, channels)."""

    channels: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], y: Float[Array, "B D"]) -> Float[Array, "B H W C2"]:
        kernel, zeros = (KERNEL, KERNEL), nn.initializers.zeros
        h = nn.silu(group_norm(x.shape[-1], "norm1")(x)).astype(self.dtype)
        h = nn.Conv(self.channels, kernel, dtype=self.dtype, kernel_init=layers.xavier, name="conv1")(h)
        vector = layers.Dense(2 * self.channels, dtype=self.dtype, kernel_init=zeros, name="modulation")(nn.silu(y))
        scale, shift = jnp.split(vector[:, None, None, :], 2, axis=-1)
        h = nn.silu(group_norm(self.channels, "norm2")(h) * (1 + scale) + shift).astype(self.dtype)
        h = nn.Conv(self.channels, kernel, dtype=self.dtype, kernel_init=zeros, name="conv2")(h)
        if x.shape[-1] != self.channels:
            x = layers.Dense(self.channels, dtype=self.dtype, kernel_init=layers.xavier, name="shortcut")(x)
        return x + h

    @staticmethod
    def macs(side: tuple[int, int], inside: int, channels: int, width: int) -> int:
        """Multiplications for one example at a resolution of `side`."""
        shortcut = side[0] * side[1] * inside * channels if inside != channels else 0
        convolutions = convolution(side, inside, channels) + convolution(side, channels, channels)
        return convolutions + shortcut + width * 2 * channels


def convolution(side: tuple[int, int], inside: int, outside: int) -> int:
    """Multiplications of a 3 x 3 convolution that keeps the resolution, without those with its padding."""
    rows, columns = (KERNEL * n - 2 for n in side)  # at either end, one of the three products is with padding
    return rows * columns * inside * outside


class UViT(Backbone):
    """The network: (z, t, cond) -> prediction, of the shape of z; see `Backbone` for its settings."""

    def levels(self) -> list[int]:
        """Channels of each convolutional level, the finest first.

        Raises:
            UserError: if the patch is no power of two above 1, or the width can't be halved so often.
        """
        patch = self.patch[0]
        count = patch.bit_length() - 1
        if self.patch != (2**count, 2**count) or count < 1 or self.width % patch:
            raise UserError(
                f"UViT halves the resolution and doubles the channels until a patch is one token, up to the width: its "
                f"patch must be 2, 4, 8 ... and divide the width, and they are {patch} and {self.width}"
            )
        return [self.width // 2 ** (count - level) for level in range(count)]

    @nn.compact
    def __call__(
        self, z: Float[Array, "B H W C"], t: Float[Array, " B"], cond: TextConditioning
    ) -> Float[Array, "B H W C"]:
        self.grid(z.shape[1:])
        levels = self.levels()
        y = self.time_vector(t) + self.pooled_vector(cond.pooled)
        c = self.dense(self.width, "context_embed")(cond.context)
        x = nn.Conv(levels[0], (KERNEL, KERNEL), dtype=self.dtype, kernel_init=layers.xavier, name="stem")(z)
        kept = []
        for level, (width, above) in enumerate(zip(levels, [*levels[1:], self.width], strict=True)):
            for i in range(BLOCKS):
                x = ResBlock(width, self.dtype, name=f"down_{level}_{i}")(x, y)
                kept.append(x)
            shape = (x.shape[1] // 2, x.shape[2] // 2)
            x = self.dense(above, f"reduce_{level}")(layers.patchify(x, HALVES)).reshape(-1, *shape, above)
        table = self.position_table(x.shape[1:3])
        tokens = (x.reshape(x.shape[0], -1, self.width) + table).astype(self.dtype)
        tokens = self.run_stacks([Stack(crossdit.Block, "blocks", self.depth, {})], tokens, (y, c))
        x = tokens.reshape(x.shape)
        for level, width in reversed(list(enumerate(levels))):
            x = self.dense(4 * width, f"expand_{level}")(x.reshape(x.shape[0], -1, x.shape[-1]))
            x = layers.unpatchify(x, (kept[-1].shape[1], kept[-1].shape[2], width), HALVES)
            for i in reversed(range(BLOCKS)):
                x = ResBlock(width, self.dtype, name=f"up_{level}_{i}")(jnp.concatenate([x, kept.pop()], axis=-1), y)
        x = nn.silu(group_norm(levels[0], "final_norm")(x)).astype(self.dtype)
        final = nn.Conv(
            z.shape[-1], (KERNEL, KERNEL), dtype=self.dtype, kernel_init=nn.initializers.zeros, name="final"
        )
        return final(x).astype(jnp.float32) * (-1 if self.time == "1-t" else 1)

    def forward_flops(self, inputs: Inputs) -> int:
        """Exact floating-point operations of the matrix products and convolutions for one example; see `MMDiT`."""
        (h, w, channels), width, levels = inputs.shape, self.width, self.levels()
        text, (pooled,) = inputs.cond.context.shape, inputs.cond.pooled.shape
        count = layers.FREQUENCIES * width + pooled * width + 2 * width**2 + text[0] * text[1] * width
        count += convolution((h, w), channels, levels[0]) + convolution((h, w), levels[0], channels)
        for level, (own, above) in enumerate(zip(levels, [*levels[1:], width], strict=True)):
            side = (h >> level, w >> level)
            count += BLOCKS * ResBlock.macs(side, own, own, width)
            count += BLOCKS * ResBlock.macs(side, 2 * own, own, width)
            count += 2 * side[0] * side[1] * own * above  # to the level below and back
        return 2 * (count + self.depth * crossdit.Block.macs(self.spec, self.tokens(inputs.shape), text[0]))
