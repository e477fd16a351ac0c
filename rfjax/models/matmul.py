"""Matrix products and attention, written so that XLA's CPU compiler copies nothing that it need not.

On a CPU that is a fifth of a training step (benchmarks/README.md). Other machines get what they get from JAX, whose
compilers choose layouts themselves. The mathematics is the same.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

ROWS, COLUMNS = ((0,), (0,)), ((1,), (1,))  # contract the rows of two matrices, or their columns


def on_cpu() -> bool:
    """Whether programs are for a CPU."""
    return jax.default_backend() == "cpu"


def product(x: Float[Array, "*B D"], kernel: Float[Array, "D *F"]) -> Float[Array, "..."]:
    """The products of a Linear: contracts the last axis of x with the first of the kernel."""
    return _product(x, kernel) if on_cpu() else _contract(x, kernel)


def dot_general(x: Array, kernel: Array, dimension_numbers: Any, **_: Any) -> Array:
    """`product` as a Flax layer calls it, which always contracts the axes that `product` does."""
    return product(x, kernel)


def _contract(x: Array, kernel: Array) -> Array:
    return lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


@jax.custom_vjp
def _product(x: Array, kernel: Array) -> Array:
    return _contract(x, kernel)


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _contract(x, kernel), (x, kernel)


def _backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    """What JAX would compute; but as products of matrices, the narrower one transposed, and of arrays that exist.

    Over several axes XLA transposes one of the two first, and computes again, in that order, what made it.
    """
    x, kernel = kept
    fan_in, fan_out = x.shape[-1], math.prod(kernel.shape[1:])
    out = gradient.reshape(-1, fan_out)
    to_x = lax.dot_general(out, kernel.reshape(fan_in, fan_out), (COLUMNS, ((), ())))
    rows, out = lax.optimization_barrier((x.reshape(-1, fan_in), out))
    if fan_in <= fan_out:
        to_kernel = lax.dot_general(rows, out, (ROWS, ((), ())))
    else:
        to_kernel = lax.optimization_barrier(lax.dot_general(out, rows, (ROWS, ((), ())))).T
    return to_x.reshape(x.shape), to_kernel.reshape(kernel.shape)


_product.defvjp(_forward, _backward)


def attention(
    q: Float[Array, "B N H K"],
    k: Float[Array, "B M H K"],
    v: Float[Array, "B M H K"],
    implementation: str | None = None,
) -> Float[Array, "B N H K"]:
    """Softmax attention with scale 1 / sqrt(K) and no mask; the softmax is in float32.

    Args:
        implementation: for `jax.nn.dot_product_attention`; None: the fastest that is known for the machine.
    """
    if implementation or not on_cpu():
        return jax.nn.dot_product_attention(q, k, v, implementation=implementation)
    b, n, h, width = q.shape
    # One axis for examples and heads, and arrays that exist in that order: small products then run twice as fast.
    q, k, v = (lax.optimization_barrier(x.transpose(0, 2, 1, 3).reshape(b * h, -1, width)) for x in (q, k, v))
    logits = lax.dot_general(q, k, (((2,), (2,)), ((0,), (0,))), preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(logits * width**-0.5).astype(v.dtype)
    out = lax.dot_general(weights, v, (((2,), (1,)), ((0,), (0,))))
    return out.reshape(b, h, n, width).transpose(0, 2, 1, 3)
