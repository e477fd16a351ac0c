"""Convolutions by fewer products are the plain ones, gradients included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfjax.encoders.autoencoder import convolution
from rfjax.encoders.autoencoder.convolution import SAME, Conv, ConvOfDoubled, plain, winograd


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@given(batch=st.integers(1, 3), height=st.integers(1, 4), width=st.integers(1, 4))
@settings(max_examples=6)
def test_winograd_is_the_plain_convolution(batch, height, width):
    x, kernel = draw(batch, 2 * height, 2 * width, 5), draw(3, 3, 5, 4, seed=1)
    np.testing.assert_allclose(winograd(x, kernel), plain(x, kernel, SAME), atol=1e-5)


def test_winograd_in_double_precision_and_its_gradients():
    with jax.enable_x64(True):
        x, kernel = (jnp.asarray(v, jnp.float64) for v in (draw(2, 6, 4, 3), draw(3, 3, 3, 5, seed=1)))
        np.testing.assert_allclose(winograd(x, kernel), plain(x, kernel, SAME), atol=1e-12)
        found, expected = (
            jax.grad(lambda x, k, f=f: jnp.sin(f(x, k)).sum(), argnums=(0, 1))(x, kernel)
            for f in (winograd, lambda x, k: plain(x, k, SAME))
        )
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-11)


@pytest.mark.parametrize("side", [4, 5])
def test_a_wide_convolution_chooses_by_size(side, monkeypatch):
    monkeypatch.setattr(convolution, "WIDE", 4)
    used = []
    monkeypatch.setattr(convolution, "winograd", lambda x, k: used.append(1) or winograd(x, k))
    x, module = draw(1, side, side, 4), Conv(4, jnp.float32)
    weights = module.init(jax.random.key(0), x)
    used.clear()
    expected = plain(x, weights["params"]["kernel"], SAME) + weights["params"]["bias"]
    np.testing.assert_allclose(module.apply(weights, x), expected, atol=1e-5)
    assert len(used) == (side == 4)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 2)])
def test_a_doubled_picture(height, width):
    x, module = draw(2, height, width, 3), ConvOfDoubled(4, jnp.float32)
    weights = module.init(jax.random.key(0), x)
    doubled = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    expected = plain(doubled, weights["params"]["kernel"], SAME) + weights["params"]["bias"]
    np.testing.assert_allclose(module.apply(weights, x), expected, atol=1e-5)
