import dataclasses
import functools

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from rfjax.data.shapes import SPLIT_BITS, Scene, Shapes, imagine, render
from rfjax.errors import UserError
from rfjax.evaluation.metrics.features import COUNT, shapes_features
from rfjax.evaluation.statistics.frechet import fit_gaussian, frechet_distance

N = 256
SIZES = (16, 32)
VALIDATION = 1 << SPLIT_BITS


@functools.cache
def reference(size):
    return fit_gaussian(shapes_features(Shapes("train", size).read(range(4096))[0]))


def distance(images):
    return frechet_distance(fit_gaussian(shapes_features(images)), reference(images.shape[1]))


def scene(start=0, count=N):
    """True scenes of the validation split: none is in the reference."""
    return imagine(VALIDATION + np.arange(start, start + count))


def noisy(images, deviation):
    noise = np.random.default_rng(0).normal(0, 1, images.shape)
    return np.clip(images + deviation * noise + 0.5, 0, 255).astype(np.uint8)


def blurred(images, pixels):
    return (gaussian_filter(images.astype(np.float32), (0, pixels, pixels, 0)) + 0.5).astype(np.uint8)


def without(true, mode, fraction):
    """The first part of the scenes that have the mode are replaced by others that have not."""
    spare = imagine(VALIDATION + np.arange(10**6, 10**6 + 10 * N))
    bad, good = np.flatnonzero(mode(true)), np.flatnonzero(~mode(spare))
    bad = bad[: round(fraction * len(bad))]
    fields = {field.name: getattr(true, field.name).copy() for field in dataclasses.fields(Scene)}
    for name, values in fields.items():
        values[bad] = getattr(spare, name)[good[: len(bad)]]
    return Scene(**fields)


def shows(name, value):
    """Whether one of the objects that a scene shows has this kind or colour."""
    return lambda s: ((getattr(s, name) == value) & (np.arange(4) < s.count[:, None])).any(axis=1)


MODES = {
    "red": shows("colour", 0),
    "blue": shows("colour", 5),
    "circle": shows("kind", 0),
    "square": shows("kind", 1),
    "triangle": shows("kind", 2),
    "cross": shows("kind", 3),
    "one object": lambda s: s.count == 1,
    "two objects": lambda s: s.count == 2,
    "more": lambda s: s.count > 2,
    "counting": lambda s: s.skill == 2,
}


@functools.cache
def floor(size):
    return [distance(render(scene(10**4 * k), size)) for k in range(1, 6)]


@pytest.mark.parametrize(("size", "start"), [(16, 0), (16, 5000), (32, 0)])
def test_the_distance_grows_with_noise_and_blur_from_what_the_eye_cannot_see(size, start):
    images = render(scene(start), size)
    for spoil, levels in ((noisy, (0, 2, 4, 8, 16, 32, 64, 128)), (blurred, (0, 0.5, 0.7, 1, 1.5, 2, 4))):
        found = [distance(spoil(images, level)) for level in levels]
        assert (np.diff(found) > 0).all(), (spoil.__name__, found)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", MODES)
def test_the_distance_grows_with_the_share_of_a_mode_that_is_missing(size, mode):
    found = [
        distance(render(without(scene(), MODES[mode], part), size))
        for part in ((0, 0.25, 0.5, 0.75, 1) if size == 16 else (0, 0.5, 1))
    ]
    assert (np.diff(found) > 0).all(), found
    # A mode that is gone is seen among 256 images: beyond five independent sets of true ones.
    assert found[-1] > max(floor(size))


def test_the_sampling_error_falls_with_the_count():
    found = [distance(render(scene(10**5, count), 16)) for count in (128, 512, 2048)]
    assert found[0] > found[1] > found[2]


def test_a_lone_square_has_the_features_that_are_written():
    """A red square of 4 x 4 pixels in the upper left quadrant of a black image of 16 x 16."""
    images = np.zeros((1, 16, 16, 3), np.uint8)
    images[0, 2:6, 2:6] = (225, 30, 35)
    found = shapes_features(images)[0]
    assert found.shape == (COUNT,)
    colour = np.array([225, 30, 35]) / 255
    np.testing.assert_allclose(found[:3], 0.5 * 16 / 64 * colour, rtol=1e-6)
    np.testing.assert_array_equal(found[3:12], 0)
    # It fills whole 2 x 2 blocks, so the finest scale is empty; at the next each of 4 blocks of 4 is a corner.
    np.testing.assert_array_equal(found[12:17], 0)
    np.testing.assert_allclose(found[17:20], 0.7 * np.sqrt(4 * colour.mean() / 2 / 16), rtol=1e-5)
    # The other colours and black are far from red, and their windows are Gaussian: orange's is not quite empty.
    assert found[27] == pytest.approx(np.sqrt(16 / 256), rel=1e-3)
    assert (found[28:35] < 0.1).all()
    sides, corner = np.sqrt(2 * 3 / 16), np.sqrt(1 / 16)
    np.testing.assert_allclose(found[35:46], [0.25, sides, sides, *[corner] * 4, *[0] * 4], rtol=1e-6)
    assert found[46] == 1


@pytest.mark.parametrize("size", [16, 24, 32, 33])
def test_true_images_have_as_many_objects_as_the_scene_says(size):
    true = scene()
    objects = shapes_features(render(true, size))[:, -1]
    assert (np.rint(objects**2) == true.count).mean() > 0.99


def test_features_belong_to_an_image_whatever_is_beside_it():
    images = render(scene(0, 600), 16)
    np.testing.assert_allclose(shapes_features(images)[550:], shapes_features(images[550:]), atol=1e-6)
    assert shapes_features(images[:0]).shape == (0, COUNT)


def test_what_is_no_image_is_said():
    images = np.zeros((2, 16, 16, 3))
    with pytest.raises(UserError, match="uint8"):
        shapes_features(images)
    with pytest.raises(UserError, match="NaN"):
        shapes_features(np.where(np.arange(3) == 1, np.nan, images).astype(np.float32))
    for shape in ((2, 16, 16, 1), (2, 4, 16, 3)):
        with pytest.raises(UserError, match="must be"):
            shapes_features(np.zeros(shape, np.uint8))
