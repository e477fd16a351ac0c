"""From tokens of the network's residual stream to tokens of a frozen encoder: REPA's projector, and iREPA's."""

import math
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from rfjax.models import layers

WIDTH = 2048  # of its hidden layers, in REPA's code
KERNEL = (3, 3)


class Projector(nn.Module):
    """Linear, SiLU, Linear, SiLU, Linear, with biases: (B, N, D) -> (B, N, target) (REPA section 3).

    Attributes:
        target: width of the encoder's tokens.
        width: of the hidden layers.
        dtype: of the matrix products; None: that of the input.
    """

    target: int
    width: int = WIDTH
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N Z"]:
        dense = lambda width, name: layers.Dense(width, dtype=self.dtype, kernel_init=layers.xavier, name=name)  # noqa: E731
        x = nn.silu(dense(self.width, "fc1")(x))
        x = nn.silu(dense(self.width, "fc2")(x))
        return dense(self.target, "fc3")(x)

    def macs(self, tokens: int, width: int) -> int:
        """Multiplications for one example of N tokens of width D."""
        return tokens * (width * self.width + self.width**2 + self.width * self.target)


class ConvProjector(nn.Module):
    """A 3 x 3 convolution over the grid of tokens, padded with zeros: (B, N, D) -> (B, N, target) (iREPA).

    Attributes:
        target: width of the encoder's tokens.
        grid: rows and columns of the tokens.
        dtype: of the products; None: that of the input.
    """

    target: int
    grid: tuple[int, int]
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N Z"]:
        images = x.reshape(len(x), *self.grid, x.shape[-1])
        conv = nn.Conv(self.target, KERNEL, dtype=self.dtype, kernel_init=layers.xavier, name="conv")
        return conv(images).reshape(len(x), -1, self.target)

    def macs(self, tokens: int, width: int) -> int:
        """Multiplications for one example of N tokens of width D, those with the padding among them."""
        return tokens * math.prod(KERNEL) * width * self.target
