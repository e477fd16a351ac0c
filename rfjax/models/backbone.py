"""What all backbones share: their settings, and the way from pixels to tokens, from time to a vector, and back.

B batch, H W C image, N image tokens, L text tokens, D width, E text width, P pooled width, y the conditioning vector.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rfjax.models import layers
from rfjax.models.blocks import Spec, Stacking
from rfjax.models.positions import Positions, crop, sincos_2d
from rfjax.models.shards import WHOLE, Shards

# What the network is told of t, by name. DiT's own code counts its steps from 0; SiT's own runs from noise to data, so
# that its velocity also has the other sign.
TIMES = {"1000t": lambda t: 1000 * t, "1000t-1": lambda t: 1000 * t - 1, "t": lambda t: t, "1-t": lambda t: 1 - t}


class Backbone(nn.Module):
    """A network (z, t, context, pooled) -> prediction, of the shape of z.

    Attributes:
        depth: number of blocks d.
        width: D; the paper's rule is 64 d.
        heads: attention heads; the paper's rule is d.
        patch: side of a patch in pixels.
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
        shards: what this device has of the weights, inside of `jax.shard_map`.
    """

    depth: int
    width: int
    heads: int
    patch: int = 2
    mlp_ratio: int = 4
    qk_norm: bool = False
    remat: str = "none"
    unroll: int = 1
    dtype: Any = jnp.float32
    attention: str | None = None
    positions: Positions = Positions()
    time: str = "1000t"
    frequency_shift: int = 0
    shards: Shards = WHOLE

    @property
    def spec(self) -> Spec:
        """What the blocks need to know."""
        return Spec(self.width, self.heads, self.mlp_ratio, self.qk_norm, self.dtype, self.attention, self.shards)

    def dense(self, width: int, name: str) -> nn.Dense:
        """A Linear outside of the blocks."""
        return self.spec.dense(width, name)

    def one(self, block: Any, name: str, **settings: Any) -> Any:
        """A block by itself."""
        return self._stacking.one(block, name)(self.spec, name=name, **settings)

    def stack(self, block: Any, count: int, name: str = "blocks", **settings: Any) -> Any:
        """`count` of a block's kind in one scan."""
        return self._stacking.many(block, count, name)(self.spec, name=name, **settings)

    @property
    def _stacking(self) -> Stacking:
        return Stacking(self.remat, self.unroll, self.shards)

    def image_tokens(self, z: Float[Array, "B H W C"]) -> Float[Array, "B N D"]:
        """Patches through a Linear, plus their positions."""
        rows, columns = z.shape[1] // self.patch, z.shape[2] // self.patch
        x = self.dense(self.width, "patch_embed")(layers.patchify(z, self.patch))
        return (x + self.position_table(rows, columns)).astype(self.dtype)

    def position_table(self, rows: int, columns: int) -> Float[Any, "N D"]:
        """Positions of a grid of tokens: by formula, or the middle of a checkpoint's table, which is not trained."""
        side = self.positions.stored
        if not side:
            return sincos_2d(rows, columns, self.width, self.positions)
        initial = lambda key: jnp.asarray(sincos_2d(side, side, self.width))  # noqa: E731
        table = jax.lax.stop_gradient(self.param("positions", initial)).astype(jnp.float32)
        top, left = crop(rows, side), crop(columns, side)
        middle = table.reshape(side, side, self.width)[top : top + rows, left : left + columns]
        return middle.reshape(rows * columns, self.width)

    def time_vector(self, t: Float[Array, " B"]) -> Float[Array, "B D"]:
        """The time's part of y."""
        waves = layers.sinusoid(TIMES[self.time](t), self.frequency_shift)
        return layers.VectorMLP(self.width, self.dtype, name="time_embed")(waves)

    def pooled_vector(self, pooled: Float[Array, "B P"]) -> Float[Array, "B D"]:
        """The text's part of y."""
        return layers.VectorMLP(self.width, self.dtype, name="pooled_embed")(pooled)

    def image(
        self, x: Float[Array, "B N D"], y: Float[Array, "B D"], shape: tuple[int, ...]
    ) -> Float[Array, "B H W C"]:
        """The last norm and Linear, then tokens to pixels (H, W, C) in float32, with the sign that `time` asks for."""
        shift, scale = layers.Modulation(2, self.dtype, name="final_modulation")(y)
        final = layers.Dense(
            self.patch**2 * shape[-1], dtype=self.dtype, kernel_init=nn.initializers.zeros, name="final"
        )
        out = final(layers.modulated_norm(x, shift, scale)).astype(jnp.float32)
        return layers.unpatchify(-out if self.time == "1-t" else out, shape, self.patch)

    def tokens(self, image: tuple[int, int, int]) -> int:
        """Image tokens N of an image (H, W, C)."""
        return (image[0] // self.patch) * (image[1] // self.patch)

    def macs_of_ends(self, image: tuple[int, int, int], text: tuple[int, int], pooled_width: int) -> int:
        """Multiplications of all that is not a block, for one example with text and a pooled vector.

        Args:
            image: (H, W, C). text: (L, E). pooled_width: P.
        """
        width, patch_values = self.width, self.patch**2 * image[-1]
        vectors = layers.FREQUENCIES * width + pooled_width * width + 2 * width**2
        final = 2 * width**2 + self.tokens(image) * width * patch_values
        return self.tokens(image) * patch_values * width + text[0] * text[1] * width + vectors + final

    @staticmethod
    def used_by_image_token(path: str) -> bool:
        """Whether a parameter, by its path, multiplies image tokens (rather than text tokens or one vector)."""
        others = ("modulation", "time_embed", "pooled_embed", "label_embed", "text", "positions", "cross/kv")
        return not any(word in path for word in others)
