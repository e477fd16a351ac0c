"""REPA's projector: from a token of the network's residual stream to a token of a frozen encoder (REPA section 3)."""

import flax.linen as nn
from jaxtyping import Array, Float

from rfjax.models import layers

WIDTH = 2048  # of its hidden layers, in REPA's code


class Projector(nn.Module):
    """Linear, SiLU, Linear, SiLU, Linear, with biases: (B, N, D) -> (B, N, target).

    Attributes:
        target: width of the encoder's tokens.
        width: of the hidden layers.
    """

    target: int
    width: int = WIDTH

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N Z"]:
        x = nn.silu(layers.Dense(self.width, kernel_init=layers.xavier, name="fc1")(x))
        x = nn.silu(layers.Dense(self.width, kernel_init=layers.xavier, name="fc2")(x))
        return layers.Dense(self.target, kernel_init=layers.xavier, name="fc3")(x)
