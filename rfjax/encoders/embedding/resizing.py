"""Resizing of pictures by the rules that published metrics use, as a matrix for each axis.

Scores move by more than papers differ if one rule stands in for another: on noise, half pixel and no half pixel are 8
to 45 of 255 levels apart (root mean square).
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from rfjax.encoders.vision.resampling import resize_matrix

RULES = ("tf1", "bilinear", "bicubic")


def matrix(rule: str, target: int, source: int) -> Float[np.ndarray, "target source"]:
    """The matrix that resizes an axis; its rows sum to 1.

    Args:
        rule: `tf1` is TensorFlow 1's bilinear, whose pixel j reads the position j source / target; `bilinear` is
            torch's interpolate without antialias, which reads (j + 1/2) source / target - 1/2, at least 0; `bicubic` is
            PIL's in float mode and torch's with antialias=True (Keys 1981, A = -1/2). The positions of the first two
            are float32, as there.
        target: length after it.
        source: length before it.
    """
    if rule == "bicubic":
        return resize_matrix(target, source, "antialias")
    scale, pixels = np.float32(source) / np.float32(target), np.arange(target)
    if rule == "tf1":
        places = pixels.astype(np.float32) * scale
    else:  # one rounding at the end, as a processor's fused multiplication and addition has it
        places = np.maximum((pixels + 0.5) * np.float64(scale) - 0.5, 0).astype(np.float32)
    low = np.minimum(places.astype(np.int64), source - 1)
    high = np.minimum(low + 1, source - 1)
    share = (places - low.astype(np.float32)).astype(np.float64)
    found = np.zeros((target, source))
    found[pixels, low] = 1 - share
    found[pixels, high] += share
    return found


def resize(images: UInt8[Array, "B H W 3"], side: int, rule: str) -> Float[Array, "B side side 3"]:
    """Pictures of side x side pixels, float32 about 0 to 255; bicubic ones may lie beyond that by a little."""
    x = images.astype(jnp.float32)
    _, height, width, _ = x.shape
    if height != side:
        rows = matrix(rule, side, height).astype(np.float32)
        x = jnp.einsum("mh,bhwc->bmwc", rows, x, precision="highest")
    if width != side:
        columns = matrix(rule, side, width).astype(np.float32)
        x = jnp.einsum("nw,bmwc->bmnc", columns, x, precision="highest")
    return x
