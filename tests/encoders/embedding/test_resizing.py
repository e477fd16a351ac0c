"""Resizes of pictures: beside loops over pixels, which say each rule in its own words."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from embedding_cases import images
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rfjax.encoders.embedding.resizing import RULES, neighbours, resize

LENGTHS = st.integers(1, 24)


def along(rule, target, values):
    """An axis resized by its neighbours."""
    low, high, share = neighbours(rule, target, len(values))
    return (1 - share) * values[low] + share * values[high]


def looped(rule, target, values):
    """The same pixel by pixel."""
    source, found = len(values), []
    for j in range(target):
        place = np.float32(j) * (np.float32(source) / np.float32(target))
        if rule == "bilinear":
            scale = float(np.float32(source) / np.float32(target))
            place = np.float32(max(0, (j + 0.5) * scale - 0.5))
        low = min(math.floor(place), source - 1)
        share = float(place - np.float32(low))
        found.append((1 - share) * values[low] + share * values[min(low + 1, source - 1)])
    return np.array(found)


@pytest.mark.parametrize("rule", ["tf1", "bilinear"])
@given(target=LENGTHS, source=LENGTHS)
def test_bilinear_rules_are_their_loops(rule, target, source):
    values = np.sin(np.arange(source))
    np.testing.assert_allclose(along(rule, target, values), looped(rule, target, values), rtol=0, atol=1e-6)


@given(rule=st.sampled_from(["tf1", "bilinear"]), length=LENGTHS)
def test_no_resize_is_the_identity(rule, length):
    values = np.sin(np.arange(length))
    np.testing.assert_allclose(along(rule, length, values), values, rtol=0, atol=1e-6)


def test_doubling_by_hand():
    """(1, 3) as four pixels: without half a pixel the last repeats, with it the ends do."""
    np.testing.assert_array_equal(along("tf1", 4, np.array([1.0, 3.0])), [1, 2, 3, 3])
    np.testing.assert_array_equal(along("bilinear", 4, np.array([1.0, 3.0])), [1, 1.5, 2.5, 3])


@pytest.mark.parametrize("shape", [(20, 33), (64, 17)])
def test_bicubic_is_pillows_in_float_mode(shape):
    picture = images(shape[0], 1, shape[1])
    found = np.asarray(resize(jnp.asarray(picture), 50, "bicubic"))
    channels = [Image.fromarray(picture[0, ..., c].astype(np.float32)) for c in range(3)]
    expected = np.stack([np.asarray(channel.resize((50, 50), Image.BICUBIC)) for channel in channels], -1)
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=5e-3)  # of 255: Pillow keeps its weights as floats


@pytest.mark.parametrize("rule", RULES[:2])
def test_pictures_are_resized_along_both_axes(rule):
    picture = images(12, 2, 19)
    found = np.asarray(resize(jnp.asarray(picture), 15, rule))
    rows = np.apply_along_axis(lambda values: looped(rule, 15, values), 1, picture.astype(np.float64))
    expected = np.apply_along_axis(lambda values: looped(rule, 15, values), 2, rows)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)  # of 255: three roundings


@pytest.mark.parametrize("rule", RULES)
def test_a_picture_of_one_colour_keeps_it(rule):
    found = np.asarray(resize(jnp.full((1, 9, 21, 3), 200, jnp.uint8), 13, rule))
    np.testing.assert_allclose(found, np.full((1, 13, 13, 3), 200), rtol=0, atol=1e-4)
