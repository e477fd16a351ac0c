"""One pre-norm Vision Transformer (Dosovitskiy et al. 2021), with options for what published encoders change in it.

B batch, N patches, T tokens (the prefix before the patches), D width, H heads, K head width.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
    "silu": nn.silu,
}


@dataclass(frozen=True)
class Architecture:
    """The options of the network.

    Attributes:
        patch: side of a patch in pixels.
        width: D.
        depth: number of blocks.
        heads: attention heads H.
        hidden: width within the MLP.
        activation: of ACTIVATIONS.
        epsilon: of every LayerNorm.
        cls: whether a class token is in front.
        registers: tokens between the class token and the patches, which have no positions.
        gated: whether the MLP is out(activation(gate(x)) * fc1(x)).
        layer_scale: whether a learned vector multiplies what a block adds.
        pre_norm: whether a LayerNorm comes before the first block.
        final_norm: whether the features are behind a last LayerNorm.
        rope: base of the rotation of queries and keys by the patch's place; 0: a table of positions is added.
    """

    patch: int
    width: int
    depth: int
    heads: int
    hidden: int
    activation: str
    epsilon: float
    cls: bool = True
    registers: int = 0
    gated: bool = False
    layer_scale: bool = False
    pre_norm: bool = False
    final_norm: bool = True
    rope: float = 0.0

    @property
    def prefix(self) -> int:
        """Tokens before the patches."""
        return self.cls + self.registers

    def flops(self, grid: tuple[int, int]) -> int:
        """Of a picture's forward pass: two for a multiplication and its addition in a matrix product."""
        patches, d = grid[0] * grid[1], self.width
        tokens = patches + self.prefix
        block = tokens * (4 * d**2 + (3 if self.gated else 2) * d * self.hidden) + 2 * tokens**2 * d
        return 2 * (patches * 3 * self.patch**2 * d + self.depth * block)


def rotations(grid: tuple[int, int], width: int, base: float) -> tuple[Float[np.ndarray, "N K"], ...]:
    """Cosine and sine of DINOv3's rotation of a head of width K, for each patch.

    A patch's centre lies at y and x in (-1, 1). The K / 4 angles of each are 2 pi place base^(-4 j / K); [y | x] come
    twice, because the two halves of a head are rotated into one another.
    """
    y, x = ((np.arange(n) + 0.5) / n * 2 - 1 for n in grid)
    places = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2, 1)
    angle = 2 * np.pi * places * base ** (-4 * np.arange(width // 4) / width)
    angle = np.tile(angle.reshape(len(places), -1), 2)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def rotate(x: Float[Array, "B T H K"], cos: Float[Any, "N K"], sin: Float[Any, "N K"]) -> Float[Array, "B T H K"]:
    """Rotates the patches' queries or keys; the prefix stays as it is."""
    prefix, patches = jnp.split(x.astype(jnp.float32), [x.shape[1] - len(cos)], axis=1)
    first, second = jnp.split(patches, 2, axis=-1)
    turned = patches * cos[:, None] + jnp.concatenate([-second, first], axis=-1) * sin[:, None]
    return jnp.concatenate([prefix, turned], axis=1).astype(x.dtype)


class QKV(nn.Module):
    """One Linear to queries, keys and values, each (B, T, H, K)."""

    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> tuple[Array, Array, Array]:
        qkv = nn.DenseGeneral((3, self.heads, x.shape[-1] // self.heads), dtype=self.dtype, name="linear")(x)
        return qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]


class MLP(nn.Module):
    """Linear, activation, Linear; or gated."""

    arch: Architecture
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        activation = ACTIVATIONS[self.arch.activation]
        h = nn.Dense(self.arch.hidden, dtype=self.dtype, name="fc1")(x)
        if self.arch.gated:
            h = activation(nn.Dense(self.arch.hidden, dtype=self.dtype, name="gate")(x)) * h
        else:
            h = activation(h)
        return nn.Dense(self.arch.width, dtype=self.dtype, name="fc2")(h)


class Block(nn.Module):
    """Attention and MLP, each behind a LayerNorm and added to the residual stream, which is float32."""

    arch: Architecture
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], rotation: Any) -> tuple[Float[Array, "B T D"], None]:
        arch = self.arch
        q, k, v = QKV(arch.heads, self.dtype, name="qkv")(norm(arch, "norm1")(x))
        if rotation is not None:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
        mixed = jax.nn.dot_product_attention(q, k, v).reshape(x.shape)
        x += self.scaled("scale1", nn.Dense(arch.width, dtype=self.dtype, name="out")(mixed))
        x += self.scaled("scale2", MLP(arch, self.dtype, name="mlp")(norm(arch, "norm2")(x)))
        return x, None

    def scaled(self, name: str, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """What is added, times the layer's scale, in float32."""
        wide = x.astype(jnp.float32)
        return wide * self.param(name, nn.initializers.ones, (self.arch.width,)) if self.arch.layer_scale else wide


def norm(arch: Architecture, name: str) -> nn.LayerNorm:
    """A LayerNorm in float32, with the exact variance: the fast one is off by 3e-3 where the mean is large."""
    return nn.LayerNorm(arch.epsilon, use_fast_variance=False, dtype=jnp.float32, name=name)


class ViT(nn.Module):
    """Pictures -> patch tokens, row by row; and before them, if `whole`, the prefix's.

    Its weights `prefix` are the class token, with its position, and the registers; `positions` are the patches' own.

    Attributes:
        arch: the options.
        grid: rows and columns of patches.
        dtype: of the matrix products; all else is float32.
        whole: whether the class token and the registers come too, before the patches.
    """

    arch: Architecture
    grid: tuple[int, int]
    dtype: Any = jnp.float32
    whole: bool = False

    @nn.compact
    def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B N D"]:
        """Encodes normalised pictures of grid * patch pixels."""
        arch, (rows, columns), batch = self.arch, self.grid, len(pixels)
        patches = pixels.reshape(batch, rows, arch.patch, columns, arch.patch, 3).transpose(0, 1, 3, 2, 4, 5)
        patches = patches.reshape(batch, rows * columns, -1)
        x = nn.Dense(arch.width, dtype=self.dtype, name="patch")(patches).astype(jnp.float32)
        if not arch.rope:
            x += self.param("positions", nn.initializers.zeros, (rows * columns, arch.width))
        if arch.prefix:
            prefix = self.param("prefix", nn.initializers.zeros, (arch.prefix, arch.width))
            x = jnp.concatenate([jnp.broadcast_to(prefix, (batch, *prefix.shape)), x], axis=1)
        if arch.pre_norm:
            x = norm(arch, "pre_norm")(x)
        rotation = rotations(self.grid, arch.width // arch.heads, arch.rope) if arch.rope else None
        blocks = nn.scan(
            Block, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=nn.broadcast, length=arch.depth
        )
        x, _ = blocks(arch, self.dtype, name="blocks")(x, rotation)
        x = x if self.whole else x[:, arch.prefix :]
        return norm(arch, "norm")(x) if arch.final_norm else x
