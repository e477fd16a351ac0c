"""Layers that the backbones share. B batch, N tokens, D width, H heads, K head width."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rfjax.errors import UserError
from rfjax.models.matmul import dot_general, product
from rfjax.models.positions import MAX_PERIOD
from rfjax.models.shards import WHOLE, Shards

FREQUENCIES = 256

xavier = nn.initializers.xavier_uniform()
Dense = functools.partial(nn.Dense, dot_general=dot_general)
DenseGeneral = functools.partial(nn.DenseGeneral, dot_general=dot_general)
small_normal = nn.initializers.normal(0.02)  # DiT's initialisation of the time and label MLPs
EPSILON = 1e-6  # of every norm


def sinusoid(t: Float[Array, " B"], shift: int = 0) -> Float[Array, "B F"]:
    """Sinusoidal embedding of t, [cos | sin] of 128 frequencies 10,000^(-i / (128 - shift)).

    DiT and SD3's reference code have no shift; diffusers' DiT has a shift of 1. The exponents are rounded to float32 as
    they are there: at t = 1000 that moves an angle by 6e-4, and published weights were trained with it.
    """
    half = FREQUENCIES // 2
    exponents = np.float32(-np.log(MAX_PERIOD)) * np.arange(half, dtype=np.float32) / np.float32(half - shift)
    frequencies = np.exp(exponents.astype(np.float64)).astype(np.float32)
    angle = t.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


class VectorMLP(nn.Module):
    """Linear, SiLU, Linear: from a vector per example to the conditioning vector, (B, F) -> (B, D)."""

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B F"]) -> Float[Array, "B D"]:
        x = Dense(self.width, dtype=self.dtype, kernel_init=small_normal, name="fc1")(x)
        return Dense(self.width, dtype=self.dtype, kernel_init=small_normal, name="fc2")(nn.silu(x))


class OutDense(nn.Module):
    """A Linear behind heads or hidden units, (B, N, F) -> (B, N, width): its products are added up over all that share
    them, then the bias is added."""

    width: int
    dtype: Any = jnp.float32
    shards: Shards = WHOLE
    kernel_init: Any = xavier

    @nn.compact
    def __call__(self, x: Float[Array, "B N F"]) -> Float[Array, "B N D"]:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.width), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32)
        products = product(x.astype(self.dtype), kernel.astype(self.dtype))
        return self.shards.add_up(products) + bias.astype(self.dtype)


class MLP(nn.Module):
    """Linear, GELU (tanh), Linear on each token, (B, N, D) -> (B, N, D)."""

    ratio: int = 4
    dtype: Any = jnp.float32
    shards: Shards = WHOLE
    end_init: Any = xavier  # of the second Linear

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        width = x.shape[-1]
        hidden = self.ratio * width // self.shards.tensor
        x = Dense(hidden, dtype=self.dtype, kernel_init=xavier, name="fc1")(self.shards.share(x))
        return OutDense(width, self.dtype, self.shards, self.end_init, name="fc2")(nn.gelu(x, approximate=True))


class Modulation(nn.Module):
    """adaLN: SiLU and one Linear from the conditioning vector to `chunks` vectors, each (B, 1, D); starts at zero."""

    chunks: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, y: Float[Array, "B D"]) -> list[Float[Array, "B 1 D"]]:
        width, zeros = self.chunks * y.shape[-1], nn.initializers.zeros
        out = Dense(width, dtype=self.dtype, kernel_init=zeros, name="linear")(nn.silu(y))
        return jnp.split(out[:, None, :], self.chunks, axis=-1)


class Norms(nn.Module):
    """Shifts and scales of LayerNorms that are learned and the same for all examples; both start at zero.

    Attributes:
        parts: what the norms stand before: "attn", "mlp" ...
    """

    parts: tuple[str, ...]
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self) -> dict[str, Float[Array, "1 1 D"]]:
        names = [f"{kind}_{part}" for part in self.parts for kind in ("shift", "scale")]
        vector = lambda name: self.param(name, nn.initializers.zeros, (self.width,), jnp.float32)  # noqa: E731
        return {name: vector(name).astype(self.dtype)[None, None] for name in names}


def modulated_norm(
    x: Float[Array, "B N D"], shift: Float[Array, "#B 1 D"], scale: Float[Array, "#B 1 D"]
) -> Float[Array, "B N D"]:
    """LayerNorm without parameters (eps 1e-6, in float32), then x (1 + scale) + shift."""
    wide = x.astype(jnp.float32)
    mean = wide.mean(-1, keepdims=True)
    centred = wide - mean
    normal = centred * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + EPSILON)
    return normal.astype(x.dtype) * (1 + scale) + shift


class QKV(nn.Module):
    """One Linear to queries, keys and values of H heads, each (B, N, H, K), with optional RMSNorm of q and k per head.

    The Linear's kernel is (D, 3, H, K), so that heads can be shared out. The norm has a learnable scale and eps 1e-6,
    in float32 (SD3 section 5.3.2).
    """

    heads: int
    qk_norm: bool = False
    dtype: Any = jnp.float32
    shards: Shards = WHOLE

    @nn.compact
    def __call__(
        self, x: Float[Array, "B N D"]
    ) -> tuple[Float[Array, "B N H K"], Float[Array, "B N H K"], Float[Array, "B N H K"]]:
        shape = (3, self.heads // self.shards.tensor, x.shape[-1] // self.heads)
        qkv = DenseGeneral(shape, dtype=self.dtype, kernel_init=xavier, name="linear")(self.shards.share(x))
        q, k, v = (qkv[:, :, i] for i in range(3))
        if self.qk_norm:
            q = nn.RMSNorm(epsilon=EPSILON, dtype=jnp.float32, name="q_norm")(q).astype(self.dtype)
            k = nn.RMSNorm(epsilon=EPSILON, dtype=jnp.float32, name="k_norm")(k).astype(self.dtype)
        return q, k, v


def check_patches(sides: tuple[int, ...], patch: tuple[int, ...]) -> None:
    """Raises UserError if an image (H, W) or a video (F, H, W) can't be cut into whole patches."""
    written = [" x ".join(map(str, each)) for each in (sides, patch)]
    if len(sides) != len(patch):
        raise UserError(f"an example of {written[0]} has another number of axes than the patches of {written[1]}")
    if any(side % length for side, length in zip(sides, patch, strict=True)):
        raise UserError(f"an image of {written[0]} can't be cut into patches of {written[1]}: take multiples of them")


def patchify(z: Float[Array, "B *S C"], patch: tuple[int, ...]) -> Float[Array, "B N F"]:
    """Cuts examples into patches in row-major order; a patch is flattened in row-major order too, channels last.

    Args:
        z: images (B, H, W, C) or videos (B, F, H, W, C).
        patch: the sides of a patch.

    Raises:
        UserError: if a side is no multiple of the patch.
    """
    b, *sides, c = z.shape
    check_patches(tuple(sides), patch)
    pairs = [length for side, p in zip(sides, patch, strict=True) for length in (side // p, p)]
    outer, inner = range(1, 2 * len(patch), 2), range(2, 2 * len(patch) + 1, 2)
    x = z.reshape(b, *pairs, c).transpose(0, *outer, *inner, 2 * len(patch) + 1)
    return x.reshape(b, -1, math.prod(patch) * c)


def unpatchify(tokens: Float[Array, "B N F"], shape: tuple[int, ...], patch: tuple[int, ...]) -> Float[Array, "B *S C"]:
    """The inverse of `patchify` for examples of shape (*S, C)."""
    *sides, c = shape
    axes = len(patch)
    grid = [side // length for side, length in zip(sides, patch, strict=True)]
    places = [axis for i in range(axes) for axis in (1 + i, 1 + axes + i)]
    x = tokens.reshape(tokens.shape[0], *grid, *patch, c).transpose(0, *places, 2 * axes + 1)
    return x.reshape(tokens.shape[0], *shape)
