"""3 x 3 convolutions: of a picture, and of a picture with each pixel as 2 x 2. Both take the parameters of `nn.Conv`.

On a CPU wide ones in float32 take fewer products: Winograd's minimal filtering F(2 x 2, 3 x 3) (Lavin & Gray 2016,
arXiv 1509.09308) makes 2 x 2 output pixels of 4 x 4 input pixels by 16 products in place of 36. Its transforms are sums
of a few neighbours, which cost more than they save where channels are few. The results differ by rounding alone.
Accelerators get the plain convolution, whose algorithm their libraries choose.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

SAME = ((1, 1), (1, 1))
NUMBERS = ("NHWC", "HWIO", "NHWC")
WIDE = 256  # channels from which Winograd's transforms cost less than they save (measured on two cores)
KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)  # its transform of a kernel
# Which of three weights fall on which of two pixels: for even output pixels of a doubled picture, and for odd ones.
SUMS = np.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], np.float32)


class Conv(nn.Module):
    """A 3 x 3 convolution with one pixel of zeros around the picture.

    Attributes:
        channels: of the result.
        dtype: of the products.
    """

    channels: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W D"]:
        kernel, bias = _parameters(self, x.shape[-1])
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        out = winograd(x, kernel) if _by_winograd(x, self.channels) else plain(x, kernel, SAME)
        return out + bias.astype(self.dtype)


class ConvOfDoubled(nn.Module):
    """A 3 x 3 convolution of the picture with each pixel as 2 x 2, by 4 / 9 of the products.

    Output row 2 i sees the rows i - 1 and i of the small picture, row 2 i + 1 the rows i and i + 1; columns alike. So
    each of the four kinds of output pixels is a 2 x 2 convolution of the small picture, with the sums of those weights
    that fall on one pixel.

    Attributes:
        channels: of the result.
        dtype: of the products.
    """

    channels: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 D"]:
        batch, height, width, inputs = x.shape
        kernel, bias = _parameters(self, inputs)
        flat, x = kernel.astype(jnp.float32).reshape(9, -1), x.astype(self.dtype)

        def part(row: int, column: int) -> Float[Array, "B H W D"]:
            """The output pixels of even or odd rows and columns."""
            sums = jnp.matmul(np.kron(SUMS[row], SUMS[column]), flat, precision="highest")
            small = sums.reshape(2, 2, inputs, self.channels).astype(self.dtype)
            return plain(x, small, ((1 - row, row), (1 - column, column)))

        rows = [jnp.stack([part(row, 0), part(row, 1)], axis=3) for row in (0, 1)]
        out = jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, self.channels)
        return out + bias.astype(self.dtype)


def _parameters(module: Conv | ConvOfDoubled, inputs: int) -> tuple[Array, Array]:
    shape = (3, 3, inputs, module.channels)
    kernel = module.param("kernel", nn.initializers.lecun_normal(), shape)
    return kernel, module.param("bias", nn.initializers.zeros, (module.channels,))


def plain(x: Array, kernel: Array, padding: tuple[tuple[int, int], tuple[int, int]]) -> Array:
    """The convolution as XLA has it."""
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=NUMBERS)


def _by_winograd(x: Array, channels: int) -> bool:
    _, height, width, inputs = x.shape
    even = height % 2 == 0 and width % 2 == 0
    return jax.default_backend() == "cpu" and x.dtype == jnp.float32 and even and min(inputs, channels) >= WIDE


def winograd(x: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C D"]) -> Float[Array, "B H W D"]:
    """The 3 x 3 convolution by F(2 x 2, 3 x 3), one picture at a time, with one pixel of zeros around it; H, W even."""
    spread = jnp.matmul(np.kron(KERNEL, KERNEL), kernel.reshape(9, -1), precision="highest")
    # The barriers keep XLA from computing a transform again within each of the 16 products.
    kernels = lax.optimization_barrier(list(spread.reshape(16, *kernel.shape[2:])))

    def one(picture: Float[Array, "H W C"]) -> Float[Array, "H W D"]:
        tiles = lax.optimization_barrier(_tiles(picture))
        products = [tile @ each for tile, each in zip(tiles, kernels, strict=True)]
        return _joined(lax.optimization_barrier(products), *picture.shape[:2])

    return one(x[0])[None] if len(x) == 1 else lax.map(one, x)


def _tiles(x: Float[Array, "H W C"]) -> list[Float[Array, "N C"]]:
    """The transform of the 4 x 4 tiles that begin at every second pixel: its 16 values, for the N tiles."""
    height, width, channels = x.shape
    pairs = jnp.pad(x, ((1, 1), (1, 1), (0, 0))).reshape(height // 2 + 1, 2, width + 2, channels)
    found = []
    for row in _four(pairs[:-1, 0], pairs[:-1, 1], pairs[1:, 0], pairs[1:, 1]):
        cut = row.reshape(height // 2, width // 2 + 1, 2, channels)
        found += _four(cut[:, :-1, 0], cut[:, :-1, 1], cut[:, 1:, 0], cut[:, 1:, 1])
    return [values.reshape(-1, channels) for values in found]


def _four(d0: Array, d1: Array, d2: Array, d3: Array) -> list[Array]:
    """The transform of four neighbours."""
    return [d0 - d2, d1 + d2, d2 - d1, d1 - d3]


def _joined(products: list[Float[Array, "N D"]], height: int, width: int) -> Float[Array, "H W D"]:
    """The 2 x 2 output pixels of each tile, in their places."""

    def two(m0: Array, m1: Array, m2: Array, m3: Array) -> tuple[Array, Array]:
        return m0 + m1 + m2, m1 - m2 - m3

    grids = [values.reshape(height // 2, width // 2, -1) for values in products]
    columns = [two(*grids[4 * row : 4 * row + 4]) for row in range(4)]
    pixels = [two(*(column[side] for column in columns)) for side in (0, 1)]  # of the left and the right column
    rows = [jnp.stack([pixels[0][row], pixels[1][row]], axis=2) for row in (0, 1)]
    return jnp.stack(rows, axis=1).reshape(height, width, -1)
