import functools

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from rfjax.data import digits
from rfjax.errors import UserError
from rfjax.evaluation.metrics.classifier import digit_of, shrink, train_reader
from rfjax.evaluation.statistics.frechet import fit_gaussian, frechet_distance

N = 256


@functools.cache
def split(name, size=16, channels=3):
    return digits.load(split=name, image_size=size, channels=channels)


@functools.cache
def reference():
    return fit_gaussian(train_reader().features(split("train").pixels))


def distance(images):
    return frechet_distance(fit_gaussian(train_reader().features(images)), reference())


def noisy(images, deviation):
    noise = np.random.default_rng(0).normal(0, 1, images.shape)
    return np.clip(images + deviation * noise + 0.5, 0, 255).astype(np.uint8)


def blurred(images, pixels):
    return (gaussian_filter(images.astype(np.float32), (0, pixels, pixels, 0)) + 0.5).astype(np.uint8)


@pytest.mark.parametrize("name", ["validation", "test"])
@pytest.mark.parametrize(("size", "channels"), [(8, 1), (8, 3), (16, 1), (16, 3), (28, 1)])
def test_it_reads_digits_that_it_has_not_seen(name, size, channels):
    data = split(name, size, channels)
    captions = [data[i]["caption"] for i in range(len(data))]
    right = train_reader().read(data.pixels) == [digit_of(caption) for caption in captions]
    assert right.mean() >= 0.97


def test_captions_that_belong_to_other_images_are_at_chance():
    data = split("train")
    read = train_reader().read(data.pixels)
    shuffled = [np.random.default_rng(seed).permutation(data.labels) for seed in range(20)]
    assert (read == np.array(shuffled)).mean() == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_distance_grows_with_noise_and_blur(seed):
    images = split("train").pixels[np.random.default_rng(seed).choice(1437, N)]
    for spoil, levels in ((noisy, (0, 16, 32, 64, 128)), (blurred, (0, 0.5, 0.7, 1, 1.5, 2, 4))):
        found = [distance(spoil(images, level)) for level in levels]
        assert (np.diff(found) > 0).all(), (spoil.__name__, found)


def test_on_the_reference_itself_it_grows_from_nothing():
    images = split("train").pixels
    assert distance(images) < 1e-6
    for spoil, levels in ((noisy, (1, 2, 4, 8, 16)), (blurred, (0.4, 0.5, 0.7))):
        assert (np.diff([distance(images), *(distance(spoil(images, level)) for level in levels)]) > 0).all()


@functools.cache
def floor():
    rng = np.random.default_rng(1)
    return [distance(split("train").pixels[rng.choice(1437, N)]) for _ in range(6)]


@pytest.mark.parametrize("digit", range(10))
def test_the_distance_grows_with_the_share_of_a_digit_that_is_missing(digit):
    data, rng = split("train"), np.random.default_rng(0)
    rows = rng.choice(1437, N)
    bad = np.flatnonzero(data.labels[rows] == digit)
    spare = rng.choice(np.flatnonzero(data.labels != digit), len(bad))
    found = []
    for part in (0, 0.5, 0.75, 1):
        some = rows.copy()
        some[bad[: round(part * len(bad))]] = spare[: round(part * len(bad))]
        found.append(distance(data.pixels[some]))
    assert (np.diff(found) > 0).all(), found
    assert found[-1] > max(floor())


def test_it_is_the_same_each_time():
    again = train_reader.__wrapped__()
    for a, b in zip(again.weights + again.biases, train_reader().weights + train_reader().biases, strict=True):
        np.testing.assert_array_equal(a, b)
    assert train_reader() is train_reader()


def test_shrinking_averages_areas_of_any_size():
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), dtype=np.uint8)
    expected = images.reshape(3, 8, 2, 8, 3, 3).mean((2, 4, 5)) / 255
    np.testing.assert_allclose(shrink(images), expected, atol=1e-6)
    np.testing.assert_allclose(shrink(np.full((1, 13, 9, 1), 51, np.uint8)), 0.2, atol=1e-6)


def test_a_caption_names_its_digit():
    for digit, word in enumerate(digits.WORDS):
        assert digit_of(digits.CAPTION.format(word)) == digit
    for caption, reason in (("", "no digit"), ("a handwritten someone", "no digit"), ("one or two", "more than one")):
        with pytest.raises(UserError, match=reason):
            digit_of(caption)


def test_what_is_no_image_is_said():
    with pytest.raises(UserError, match="NaN"):
        train_reader().read(np.full((2, 8, 8, 1), np.nan))
    with pytest.raises(UserError, match="uint8"):
        train_reader().features(np.zeros((2, 8, 8, 1), np.int32))
