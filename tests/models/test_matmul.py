"""Products and attention as written for CPUs: the same values and gradients as JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax.models import matmul


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def whole(seed: int, *shape: int) -> jax.Array:
    """Small whole numbers, whose products and sums are exact."""
    return jnp.asarray(np.random.default_rng(seed).integers(-8, 9, shape), jnp.float32)


@pytest.mark.parametrize(
    ("rows", "fan_in", "out"),
    [
        ((5,), 3, (7,)),
        ((2, 9), 7, (3,)),
        ((2, 3, 4), 6, (6,)),
        ((2, 5), 6, (3, 2, 4)),
        ((1,), 1, (1, 1)),
        ((4, 1), 8, (2, 2)),
    ],
)
def test_a_product_and_its_gradients_are_jaxs_to_the_bit(rows: tuple, fan_in: int, out: tuple) -> None:
    @jax.jit
    def both(x: jax.Array, kernel: jax.Array, seen: jax.Array) -> list:
        ways = matmul.product, lambda x, kernel: jnp.tensordot(x, kernel, 1)
        return [(y, *backward(seen)) for y, backward in (jax.vjp(way, x, kernel) for way in ways)]

    own, expected = both(whole(0, *rows, fan_in), whole(1, fan_in, *out), whole(2, *rows, *out))
    for a, b in zip(own, expected, strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


def test_a_product_in_bfloat16_has_gradients_in_bfloat16() -> None:
    x, kernel = normal(0, 5, 3).astype(jnp.bfloat16), normal(1, 3, 4).astype(jnp.bfloat16)
    out, backward = jax.vjp(matmul.product, x, kernel)
    assert {a.dtype for a in (out, *backward(out))} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize("keys", [7, 12])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attention_is_jaxs(keys: int, dtype: str) -> None:
    q, k, v = (normal(i, 2, n, 3, 8).astype(dtype) for i, n in enumerate((7, keys, keys)))
    own, backward = jax.vjp(matmul.attention, q, k, v)
    expected, reference = jax.vjp(jax.nn.dot_product_attention, q, k, v)
    for a, b in zip((own, *backward(expected)), (expected, *reference(expected)), strict=True):
        assert a.dtype == b.dtype
        tolerance = 1e-5 if dtype == "float32" else 4e-2
        np.testing.assert_allclose(a.astype(jnp.float32), b.astype(jnp.float32), rtol=tolerance, atol=tolerance)


def test_another_implementation_can_be_asked_for() -> None:
    q = normal(0, 1, 4, 2, 8)
    np.testing.assert_allclose(matmul.attention(q, q, q, "xla"), matmul.attention(q, q, q), rtol=1e-5, atol=1e-6)
    with pytest.raises(RuntimeError, match=r"(?i)cudnn|gpu"):
        matmul.attention(q, q, q, "cudnn")
