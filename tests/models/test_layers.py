import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfjax.errors import UserError
from rfjax.models.layers import patchify, sinusoid, unpatchify


def test_patches_come_back_in_their_place():
    image = jax.random.normal(jax.random.key(0), (2, 8, 12, 3))
    tokens = patchify(image, (4, 4))
    assert tokens.shape == (2, 6, 48)
    np.testing.assert_array_equal(tokens[0, 1].reshape(4, 4, 3), image[0, :4, 4:8])
    np.testing.assert_array_equal(unpatchify(tokens, (8, 12, 3), (4, 4)), image)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), min_size=2, max_size=3), st.integers(1, 3))
def test_unpatchify_is_the_inverse_of_patchify(axes, channels):
    """Of an image or a video: places times sides of a patch along each axis; a token is a patch as numpy slices it."""
    grid, patch = zip(*axes, strict=True)
    shape = (*(places * side for places, side in axes), channels)
    z = jnp.asarray(np.random.default_rng(0).standard_normal((2, *shape), np.float32))
    tokens = patchify(z, patch)
    assert tokens.shape == (2, math.prod(grid), math.prod(patch) * channels)
    for number, place in enumerate(itertools.product(*map(range, grid))):
        cut = tuple(slice(i * side, (i + 1) * side) for i, side in zip(place, patch, strict=True))
        np.testing.assert_array_equal(tokens[1, number].reshape(*patch, channels), z[(1, *cut)])
    np.testing.assert_array_equal(unpatchify(tokens, shape, patch), z)


def test_the_time_embedding_is_the_reference_s():
    t = jnp.array([0.0, 0.3])
    frequencies = np.exp(-np.log(10_000) * np.arange(128) / 128)
    expected = np.concatenate([np.cos(300 * frequencies), np.sin(300 * frequencies)])
    np.testing.assert_allclose(sinusoid(1000 * t)[1], expected, atol=5e-5)  # float32 angles up to 300
    np.testing.assert_allclose(sinusoid(1000 * t)[0], [1] * 128 + [0] * 128)


def test_the_time_embedding_has_its_known_values():
    """Facts of REPA, 4.1: t = 0.5 as it is."""
    found = np.asarray(sinusoid(jnp.array([0.5])))[0]
    np.testing.assert_allclose(found[:3], [0.87758256, 0.89369327, 0.90771853], rtol=2e-7)
    np.testing.assert_allclose(found[128:131], [0.47942554, 0.44867843, 0.41957963], rtol=2e-7)
    assert found.sum(dtype=float) == pytest.approx(134.1723094, rel=1e-7)


def test_the_shifted_embedding_ends_at_a_period_of_ten_thousand():
    found = np.asarray(sinusoid(jnp.array([10_000 * np.pi / 2]), shift=1))[0]
    assert found[127] == pytest.approx(0, abs=1e-2)  # cos: its frequency, 1e-4, is rounded to float32
    assert found[255] == pytest.approx(1, abs=1e-4)


def test_an_image_that_no_patches_fill_is_refused():
    with pytest.raises(UserError, match="15 x 16 can't be cut into patches of 2 x 2"):
        patchify(jnp.zeros((1, 15, 16, 3)), (2, 2))
