"""The KL autoencoder of latent diffusion (Rombach et al. 2022) as diffusers' AutoencoderKL computes it, NHWC.

B batch, H W pixels of a level, C channels of a level, Z channels of a latent.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rfjax.encoders.autoencoder.convolution import Conv, ConvOfDoubled
from rfjax.encoders.autoencoder.description import Architecture

EPSILON = 1e-6  # of every GroupNorm
MOST_LOGITS = 2**25  # of attention at one time, 128 MiB of float32: those of 5792 pixels of the lowest level
BELOW = ((0, 1), (0, 1))  # padding of a convolution that halves the resolution


class GroupNorm(nn.Module):
    """GroupNorm in float32 with the exact variance; optionally SiLU behind it.

    Attributes:
        groups: of channels.
        silu: whether SiLU follows.
    """

    groups: int
    silu: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        batch, *_, channels = x.shape
        scale = self.param("scale", nn.initializers.ones, (channels,)).astype(jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,)).astype(jnp.float32)
        wide = x.astype(jnp.float32).reshape(batch, -1, channels)

        def group_mean(values: Float[Array, "B N C"]) -> Float[Array, "B 1 C"]:
            # Over the pixels first: sums of whole rows are vectorised.
            means = values.mean(1).reshape(batch, self.groups, channels // self.groups).mean(-1)
            return jnp.repeat(means, channels // self.groups, axis=-1)[:, None]

        mean = group_mean(wide)
        variance = group_mean(jnp.square(wide - mean))
        out = ((wide - mean) * (jax.lax.rsqrt(variance + EPSILON) * scale) + bias).reshape(x.shape)
        return (nn.silu(out) if self.silu else out).astype(x.dtype)


class Resnet(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), with a 1 x 1 convolution of x where the number of channels changes."""

    channels: int
    arch: Architecture
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W D"]:
        h = GroupNorm(self.arch.groups, name="norm1")(x)
        h = Conv(self.channels, self.dtype, name="conv1")(h)
        h = GroupNorm(self.arch.groups, name="norm2")(h)
        h = Conv(self.channels, self.dtype, name="conv2")(h)
        if x.shape[-1] != self.channels:
            x = nn.Dense(self.channels, dtype=self.dtype, name="shortcut")(x)
        return x + h


class Attention(nn.Module):
    """x + the attention of all pixels to each other, with one head as wide as the level; softmax in float32."""

    arch: Architecture
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        batch, height, width, channels = x.shape
        h = GroupNorm(self.arch.groups, silu=False, name="norm")(x).reshape(batch, height * width, channels)
        q, k, v = (nn.Dense(channels, dtype=self.dtype, name=name)(h) for name in ("q", "k", "v"))
        h = nn.Dense(channels, dtype=self.dtype, name="out")(attend(q, k, v))
        return x + h.reshape(x.shape)


def attend(q: Float[Array, "B N C"], k: Float[Array, "B N C"], v: Float[Array, "B N C"]) -> Float[Array, "B N C"]:
    """Softmax attention with one head; the queries of large pictures attend in parts, so that logits stay few."""
    batch, pixels, channels = q.shape

    def some(queries: Float[Array, "B M C"]) -> Float[Array, "B M C"]:
        logits = jnp.einsum("bmc,bnc->bmn", queries, k, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(logits * channels**-0.5, axis=-1).astype(v.dtype)
        return jnp.einsum("bmn,bnc->bmc", weights, v)

    parts = -(-batch * pixels * pixels // MOST_LOGITS)
    if parts == 1:
        return some(q)
    size = -(-pixels // parts)
    padded = jnp.pad(q, ((0, 0), (0, parts * size - pixels), (0, 0)))
    cut = padded.reshape(batch, parts, size, channels).swapaxes(0, 1)
    return jax.lax.map(some, cut).swapaxes(0, 1).reshape(batch, parts * size, channels)[:, :pixels]


def halving(channels: int, dtype: Any, name: str) -> nn.Conv:
    """A 3 x 3 convolution with stride 2; the picture is padded on the right and below only."""
    return nn.Conv(channels, (3, 3), strides=(2, 2), padding=BELOW, dtype=dtype, name=name)


def middle(x: Float[Array, "B H W C"], arch: Architecture, dtype: Any) -> Float[Array, "B H W C"]:
    """The blocks of the lowest resolution, within the module that calls it."""
    x = Resnet(x.shape[-1], arch, dtype, name="mid_0")(x)
    if arch.attention:
        x = Attention(arch, dtype, name="attention")(x)
    return Resnet(x.shape[-1], arch, dtype, name="mid_1")(x)


class Encoder(nn.Module):
    """Pictures from -1 to 1 -> mean and log variance of their latents, (B, H / f, W / f, 2 Z).

    Attributes:
        arch: the options.
        dtype: of convolutions and matrix products.
    """

    arch: Architecture
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, pixels: Float[Array, "B H W I"]) -> Float[Array, "B h w Z2"]:
        arch, dtype = self.arch, self.dtype
        x = Conv(arch.widths[0], dtype, name="conv_in")(pixels)
        for level, channels in enumerate(arch.widths):
            for number in range(arch.resnets):
                x = Resnet(channels, arch, dtype, name=f"level_{level}_{number}")(x)
            if level < len(arch.widths) - 1:
                x = halving(channels, dtype, f"down_{level}")(x)
        x = GroupNorm(arch.groups, name="norm")(middle(x, arch, dtype))
        x = Conv(2 * arch.latent, dtype, name="conv_out")(x)
        return nn.Dense(2 * arch.latent, dtype=dtype, name="quant")(x) if arch.quant else x


class Decoder(nn.Module):
    """Latents -> pictures, which lie about -1 to 1.

    Attributes:
        arch: the options.
        dtype: of convolutions and matrix products.
    """

    arch: Architecture
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, latent: Float[Array, "B h w Z"]) -> Float[Array, "B H W O"]:
        arch, dtype = self.arch, self.dtype
        x = latent.astype(dtype)
        if arch.post_quant:
            x = nn.Dense(arch.latent, dtype=dtype, name="post_quant")(x)
        x = middle(Conv(arch.widths[-1], dtype, name="conv_in")(x), arch, dtype)
        for level, channels in enumerate(reversed(arch.widths)):
            for number in range(arch.resnets + 1):
                x = Resnet(channels, arch, dtype, name=f"level_{level}_{number}")(x)
            if level < len(arch.widths) - 1:
                x = ConvOfDoubled(channels, dtype, name=f"up_{level}")(x)
        return Conv(arch.outputs, dtype, name="conv_out")(GroupNorm(arch.groups, name="norm")(x))
