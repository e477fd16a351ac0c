"""MM-DiT: two streams with weights of their own, one attention over both (SD3 section 4, Fig. 2).

B batch, N image tokens, L text tokens, D width, E text width, P pooled width.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rfjax.models import layers
from rfjax.models.positions import sincos_2d


class Stream(nn.Module):
    """One stream's half of a block: what comes before the joint attention, and what comes after.

    `pre_only` keeps the modulation and the q, k, v only: the text stream of the last block, whose output nobody reads.
    """

    heads: int
    mlp_ratio: int
    qk_norm: bool
    dtype: Any
    pre_only: bool = False

    def setup(self) -> None:
        self.modulation = layers.Modulation(2 if self.pre_only else 6, self.dtype)
        self.qkv = layers.QKV(self.heads, self.qk_norm, self.dtype)
        if not self.pre_only:
            self.mlp = layers.MLP(self.mlp_ratio, self.dtype)

    def before(self, x: Float[Array, "B N D"], y: Float[Array, "B D"]) -> tuple[Any, Any]:
        """Returns ((q, k, v), the modulation that `after` needs)."""
        shift, scale, *rest = self.modulation(y)
        return self.qkv(layers.modulated_norm(x, shift, scale)), rest

    @nn.compact
    def after(self, x: Float[Array, "B N D"], attended: Float[Array, "B N D"], rest: Any) -> Float[Array, "B N D"]:
        """Output projection, MLP, and their gated residuals."""
        gate_attention, shift, scale, gate_mlp = rest
        x = x + gate_attention * nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=layers.xavier, name="out")(
            attended
        )
        return x + gate_mlp * self.mlp(layers.modulated_norm(x, shift, scale))


class JointBlock(nn.Module):
    """A block of MM-DiT, shaped for `nn.scan`: ((x, c), y) -> ((x, c), None)."""

    heads: int
    mlp_ratio: int = 4
    qk_norm: bool = False
    dtype: Any = jnp.float32
    last: bool = False
    attention: str | None = None

    @nn.compact
    def __call__(
        self, carry: tuple[Float[Array, "B N D"], Float[Array, "B L D"]], y: Float[Array, "B D"]
    ) -> tuple[tuple[Float[Array, "B N D"], Float[Array, "B L D"]], None]:
        x, c = carry
        args = (self.heads, self.mlp_ratio, self.qk_norm, self.dtype)
        text = Stream(*args, pre_only=self.last, name="text")
        image = Stream(*args, name="image")
        (qc, kc, vc), rest_c = text.before(c, y)
        (qx, kx, vx), rest_x = image.before(x, y)
        # The text's queries of the last block would only make an output that is thrown away.
        q = qx if self.last else jnp.concatenate([qc, qx], axis=1)
        k, v = jnp.concatenate([kc, kx], axis=1), jnp.concatenate([vc, vx], axis=1)
        out = jax.nn.dot_product_attention(q, k, v, implementation=self.attention)
        out = out.reshape(*out.shape[:2], -1)
        if not self.last:
            c = text.after(c, out[:, : c.shape[1]], rest_c)
        x = image.after(x, out[:, -x.shape[1] :], rest_x)
        return (x, c), None


class MMDiT(nn.Module):
    """The network: (z, t, context, pooled) -> prediction, of the shape of z.

    Attributes:
        depth: number of blocks d.
        width: D; the paper's rule is 64 d.
        heads: attention heads; the paper's rule is d.
        patch: side of a patch in pixels.
        mlp_ratio: hidden width of the MLPs over D.
        qk_norm: RMSNorm of queries and keys.
        remat: recompute each block in the backward pass, to save memory.
        unroll: blocks per iteration of the scan over depth; `depth` unrolls it whole.
        dtype: of the matrix products; parameters, norms and softmax stay float32.
        attention: implementation for `jax.nn.dot_product_attention`: None, "xla" or "cudnn".
    """

    depth: int
    width: int
    heads: int
    patch: int = 2
    mlp_ratio: int = 4
    qk_norm: bool = False
    remat: bool = False
    unroll: int = 1
    dtype: Any = jnp.float32
    attention: str | None = None

    @nn.compact
    def __call__(
        self,
        z: Float[Array, "B H W C"],
        t: Float[Array, " B"],
        context: Float[Array, "B L E"],
        pooled: Float[Array, "B P"],
    ) -> Float[Array, "B H W C"]:
        _, h, w, channels = z.shape
        dense = lambda width, name, init: nn.Dense(width, dtype=self.dtype, kernel_init=init, name=name)  # noqa: E731
        positions = sincos_2d(h // self.patch, w // self.patch, self.width)
        x = dense(self.width, "patch_embed", layers.xavier)(layers.patchify(z, self.patch)) + positions
        x = x.astype(self.dtype)
        c = dense(self.width, "context_embed", layers.xavier)(context)
        y = layers.VectorMLP(self.width, self.dtype, name="time_embed")(layers.sinusoid(t))
        y = y + layers.VectorMLP(self.width, self.dtype, name="pooled_embed")(pooled)

        block = nn.remat(JointBlock, prevent_cse=False) if self.remat else JointBlock
        args = (self.heads, self.mlp_ratio, self.qk_norm, self.dtype)
        if self.depth > 1:
            scanned = nn.scan(
                block,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=nn.broadcast,
                length=self.depth - 1,
                unroll=self.unroll,
            )
            (x, c), _ = scanned(*args, attention=self.attention, name="blocks")((x, c), y)
        (x, c), _ = block(*args, last=True, attention=self.attention, name="last_block")((x, c), y)

        shift, scale = layers.Modulation(2, self.dtype, name="final_modulation")(y)
        out = dense(self.patch**2 * channels, "final", nn.initializers.zeros)(layers.modulated_norm(x, shift, scale))
        return layers.unpatchify(out.astype(jnp.float32), (h, w, channels), self.patch)

    def forward_flops(self, image: tuple[int, int, int], text: tuple[int, int], pooled_width: int) -> int:
        """Exact floating-point operations of the matrix products for one example, 2 m k n each.

        Norms, activations and softmax are left out, as is usual. Note what 6 N D gets wrong here: modulation runs once
        per example, and a token passes through one stream only.

        Args:
            image: (H, W, C). text: (L, E). pooled_width: P.
        """
        (h, w, channels), (tokens_c, text_width), width = image, text, self.width
        tokens_x = (h // self.patch) * (w // self.patch)
        patch_values = self.patch**2 * channels
        both, per_token = tokens_x + tokens_c, (4 + 2 * self.mlp_ratio) * width**2
        vectors = layers.FREQUENCIES * width + width**2 + pooled_width * width + width**2
        embed = tokens_x * patch_values * width + tokens_c * text_width * width + vectors
        block = 2 * 6 * width**2 + both * per_token + 2 * both**2 * width
        last = (6 + 2) * width**2 + tokens_x * per_token + tokens_c * 3 * width**2 + 2 * tokens_x * both * width
        final = 2 * width**2 + tokens_x * width * patch_values
        return 2 * (embed + (self.depth - 1) * block + last + final)

    @staticmethod
    def used_by_image_token(path: str) -> bool:
        """Whether a parameter, by its path, multiplies image tokens (rather than text tokens or one vector)."""
        modulation, embeds = "modulation" in path, ("time_embed" in path or "pooled_embed" in path)
        return not (modulation or embeds or "text" in path)


def build(depth: int, width_per_depth: int, **options: Any) -> MMDiT:
    """The paper's depth rule (SD3 section 5.3): width = width_per_depth x depth (64 in the paper), depth heads."""
    return MMDiT(depth=depth, width=width_per_depth * depth, heads=depth, **options)
