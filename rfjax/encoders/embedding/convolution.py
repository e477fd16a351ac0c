"""What frozen convolutional networks are made of, NHWC in float32, with weights {kernel, bias}.

Batch normalisation is folded into the convolution before it when weights are read. Products are exact to float32 on
every device: TF32 and bfloat16 move a Fréchet distance by more than papers differ.
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

Weights = Mapping[str, Array | np.ndarray]
NUMBERS = ("NHWC", "HWIO", "NHWC")
BEHIND = ((0, 1), (0, 1))
EXACT = lax.Precision.HIGHEST


def folded(leaves: Mapping[str, np.ndarray], epsilon: float) -> dict[str, np.ndarray]:
    """The kernel and bias of a convolution without bias and the batch normalisation behind it.

    Args:
        leaves: kernel (..., D), and scale, bias, mean and variance (D).
        epsilon: that is added to the variance.
    """
    scale, bias, mean, variance = (leaves[name].astype(np.float64) for name in ("scale", "bias", "mean", "variance"))
    factor = scale / np.sqrt(variance + epsilon)
    kernel = (leaves["kernel"] * factor).astype(np.float32)
    return {"kernel": kernel, "bias": (bias - mean * factor).astype(np.float32)}


def convolve(
    weights: Weights, x: Float[Array, "B H W C"], stride: int = 1, padding: str | tuple = "SAME"
) -> Float[Array, "B H2 W2 D"]:
    """A convolution with its bias; padding as in `jax.lax`, or VALID.

    XLA's convolutions on processors are up to eight times as fast with any padding as without, so VALID ones get a row
    and a column of zeros behind the picture, and give back what those add.
    """
    kernel = jnp.asarray(weights["kernel"])
    valid = padding == "VALID"
    size = tuple((n - k) // stride + 1 for n, k in zip(x.shape[1:3], kernel.shape, strict=False))
    padding = BEHIND if valid else padding
    out = lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=NUMBERS, precision=EXACT)
    return (out[:, : size[0], : size[1]] if valid else out) + weights["bias"]


def product(kernel: Array | np.ndarray, x: Float[Array, "*B C"]) -> Float[Array, "*B D"]:
    """A 1 x 1 convolution without bias, of a kernel (C, D)."""
    return jnp.matmul(x, kernel, precision=EXACT)


def depthwise(weights: Weights, x: Float[Array, "B H W C"], stride: int = 1) -> Float[Array, "B H2 W2 C"]:
    """A convolution of each channel with a kernel of its own, (k, k, 1, C), with zeros around as TensorFlow pads.

    As a sum over the windows' pixels it is ten times as fast on processors as XLA's convolution in groups.
    """
    kernel = jnp.asarray(weights["kernel"])
    size, sides = kernel.shape[0], x.shape[1:3]
    zeros = [max((-(-side // stride) - 1) * stride + size - side, 0) for side in sides]
    x = jnp.pad(x, ((0, 0), *((zero // 2, zero - zero // 2) for zero in zeros), (0, 0)))
    taps = kernel.reshape(size * size, -1)
    return sum((pixel * tap for pixel, tap in zip(_windows(x, size, stride), taps, strict=True)), weights["bias"])


def max_pool(x: Float[Array, "B H W C"], size: int = 3, stride: int = 2) -> Float[Array, "B H2 W2 C"]:
    """The largest of each size x size window that lies within the picture."""
    return functools.reduce(jnp.maximum, _windows(x, size, stride))


def max_pool_same(x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """The largest of the 3 x 3 pixels around each."""
    return functools.reduce(jnp.maximum, _windows(_bordered(x, -jnp.inf)))


def average_pool(x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """The mean of those of the 3 x 3 pixels around each that lie within the picture."""
    sums = functools.reduce(jnp.add, _windows(_bordered(x, 0.0)))
    rows, columns = (np.convolve(np.ones(n), np.ones(3), "same") for n in x.shape[1:3])
    return sums * (1 / np.outer(rows, columns)).astype(np.float32)[..., None]


def _windows(x: Array, size: int = 3, stride: int = 1) -> list[Array]:
    """Each pixel of all windows; XLA combines them in one pass, seven times as fast as its own pools on processors."""
    height, width = (stride * ((n - size) // stride) + 1 for n in x.shape[1:3])  # from a window's pixel to the last's
    return [x[:, i : i + height : stride, j : j + width : stride] for i in range(size) for j in range(size)]


def _bordered(x: Array, value: float) -> Array:
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=value)


def relu6(x: Array) -> Array:
    """min(max(x, 0), 6)."""
    return jnp.clip(x, 0, 6)


relu = jax.nn.relu
