"""Resizes of pictures: beside loops over pixels, which say each rule in its own words."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from embedding_cases import images
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rfjax.encoders.embedding.resizing import RULES, matrix, resize

LENGTHS = st.integers(1, 24)


def looped(rule, target, values):
    """An axis resized pixel by pixel."""
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
    np.testing.assert_allclose(matrix(rule, target, source) @ values, looped(rule, target, values), rtol=0, atol=1e-12)


@given(rule=st.sampled_from(RULES), target=LENGTHS, source=LENGTHS)
def test_a_picture_of_one_colour_keeps_it(rule, target, source):
    np.testing.assert_allclose(matrix(rule, target, source).sum(1), 1, rtol=0, atol=1e-12)


@given(rule=st.sampled_from(RULES), length=LENGTHS)
def test_no_resize_is_the_identity(rule, length):
    np.testing.assert_allclose(matrix(rule, length, length), np.eye(length), rtol=0, atol=1e-12)


def test_doubling_by_hand():
    """(1, 3) as four pixels: without half a pixel the last repeats, with it the ends do."""
    np.testing.assert_array_equal(matrix("tf1", 4, 2) @ [1.0, 3.0], [1, 2, 3, 3])
    np.testing.assert_array_equal(matrix("bilinear", 4, 2) @ [1.0, 3.0], [1, 1.5, 2.5, 3])


@pytest.mark.parametrize("shape", [(20, 33), (64, 17), (299, 40)])
def test_bicubic_is_pillows_in_float_mode(shape):
    picture = images(shape[0], 1, shape[1])
    found = np.asarray(resize(jnp.asarray(picture), 50, "bicubic"))
    channels = [Image.fromarray(picture[0, ..., c].astype(np.float32)) for c in range(3)]
    expected = np.stack([np.asarray(channel.resize((50, 50), Image.BICUBIC)) for channel in channels], -1)
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=5e-3)  # of 255: Pillow keeps its weights as floats


@pytest.mark.parametrize("rule", RULES)
def test_pictures_are_resized_along_both_axes(rule):
    picture = images(12, 2, 19)
    found = np.asarray(resize(jnp.asarray(picture), 15, rule))
    expected = np.einsum("mh,nw,bhwc->bmnc", matrix(rule, 15, 12), matrix(rule, 15, 19), picture.astype(np.float64))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
