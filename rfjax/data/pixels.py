"""Between stored pixels and what a network sees; for numpy and JAX arrays alike."""

from typing import Any

import numpy as np


def to_network(image: Any) -> Any:
    """uint8 0..255 -> float32 -1..1; latents, which are floats already, pass unchanged."""
    return image.astype(np.float32) / 127.5 - 1 if image.dtype == np.uint8 else image


def to_pixels(image: Any) -> np.ndarray:
    """-1..1 -> uint8 0..255, rounded, clipped at the ends."""
    return np.clip(np.asarray(image, np.float32) * 127.5 + 128, 0, 255).astype(np.uint8)
