"""Products and attention as written for CPUs: the same values and gradients as JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfjax.models import products

sizes = st.integers(1, 9)


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@given(rows=st.lists(sizes, min_size=1, max_size=3), fan_in=sizes, out=st.lists(sizes, min_size=1, max_size=3))
def test_a_product_and_its_gradients_are_jaxs(rows: list[int], fan_in: int, out: list[int]) -> None:
    x, kernel, seen = normal(0, *rows, fan_in), normal(1, fan_in, *out), normal(2, *rows, *out)
    own, backward = jax.vjp(products.product, x, kernel)
    expected, reference = jax.vjp(lambda x, kernel: jnp.tensordot(x, kernel, 1), x, kernel)
    for a, b in zip((own, *backward(seen)), (expected, *reference(seen)), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_a_product_in_bfloat16_has_gradients_in_bfloat16() -> None:
    x, kernel = normal(0, 5, 3).astype(jnp.bfloat16), normal(1, 3, 4).astype(jnp.bfloat16)
    out, backward = jax.vjp(products.product, x, kernel)
    assert {a.dtype for a in (out, *backward(out))} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize("keys", [7, 12])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attention_is_jaxs(keys: int, dtype: str) -> None:
    q, k, v = (normal(i, 2, n, 3, 8).astype(dtype) for i, n in enumerate((7, keys, keys)))
    own, backward = jax.vjp(products.attention, q, k, v)
    expected, reference = jax.vjp(jax.nn.dot_product_attention, q, k, v)
    for a, b in zip((own, *backward(expected)), (expected, *reference(expected)), strict=True):
        assert a.dtype == b.dtype
        tolerance = 1e-5 if dtype == "float32" else 4e-2
        np.testing.assert_allclose(a.astype(jnp.float32), b.astype(jnp.float32), rtol=tolerance, atol=tolerance)


def test_another_implementation_can_be_asked_for() -> None:
    q = normal(0, 1, 4, 2, 8)
    np.testing.assert_allclose(products.attention(q, q, q, "xla"), products.attention(q, q, q), rtol=1e-5, atol=1e-6)
    with pytest.raises(RuntimeError, match=r"(?i)cudnn|gpu"):
        products.attention(q, q, q, "cudnn")
