"""What frozen convolutional networks are made of, NHWC in float32, with weights {kernel, bias}.

Batch normalisation is folded into the convolution before it when weights are read. Products are exact to float32 on
every device: TF32 and bfloat16 move a Fréchet distance by more than papers differ.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

Weights = Mapping[str, Array | np.ndarray]
NUMBERS = ("NHWC", "HWIO", "NHWC")
EXACT = lax.Precision.HIGHEST


def folded(leaves: Mapping[str, np.ndarray], epsilon: float) -> dict[str, np.ndarray]:
    """The kernel and bias of a convolution without bias and the batch normalisation behind it.

    Args:
        leaves: kernel (..., D), and scale, bias, mean and variance (D).
        epsilon: that is added to the variance.
    """
    scale, bias, mean, variance = (leaves[name].astype(np.float64) for name in ("scale", "bias", "mean", "variance"))
    with np.errstate(invalid="ignore", divide="ignore"):  # a wrong variance is found in the result
        factor = scale / np.sqrt(variance + epsilon)
        kernel = (leaves["kernel"] * factor).astype(np.float32)
        return {"kernel": kernel, "bias": (bias - mean * factor).astype(np.float32)}


def convolve(
    weights: Weights, x: Float[Array, "B H W C"], stride: int = 1, padding: str | tuple = "SAME"
) -> Float[Array, "B H2 W2 D"]:
    """A convolution with its bias."""
    kernel = jnp.asarray(weights["kernel"])
    out = lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=NUMBERS, precision=EXACT)
    return out + weights["bias"]


def product(kernel: Array | np.ndarray, x: Float[Array, "*B C"]) -> Float[Array, "*B D"]:
    """A 1 x 1 convolution without bias, of a kernel (C, D)."""
    return jnp.matmul(x, kernel, precision=EXACT)


def depthwise(weights: Weights, x: Float[Array, "B H W C"], stride: int = 1) -> Float[Array, "B H2 W2 C"]:
    """A convolution of each channel with a kernel of its own, (k, k, 1, C), with zeros around as TensorFlow pads."""
    kernel = jnp.asarray(weights["kernel"])
    out = lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=NUMBERS,
        precision=EXACT,
        feature_group_count=x.shape[-1],
    )
    return out + weights["bias"]


def max_pool(x: Float[Array, "B H W C"], size: int = 3, stride: int = 2) -> Float[Array, "B H2 W2 C"]:
    """The largest of each size x size window that lies within the picture."""
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, size, size, 1), (1, stride, stride, 1), "VALID")


def max_pool_same(x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """The largest of the 3 x 3 pixels around each."""
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")


def average_pool(x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """The mean of those of the 3 x 3 pixels around each that lie within the picture."""
    _, height, width, _ = x.shape
    sums = lax.reduce_window(x, 0.0, lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")
    rows, columns = (np.convolve(np.ones(n), np.ones(3), "same") for n in (height, width))
    return sums * (1 / np.outer(rows, columns)).astype(np.float32)[..., None]


def relu6(x: Array) -> Array:
    """min(max(x, 0), 6)."""
    return jnp.clip(x, 0, 6)


relu = jax.nn.relu
