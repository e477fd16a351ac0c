"""The handwritten digits: the splits, the pixels, the captions."""

import pickle

import numpy as np
import pytest
from sklearn.datasets import load_digits

from rfjax.data import digits
from rfjax.data.types import SPLITS, Source
from rfjax.errors import UserError


def load(split="train", image_size=8, channels=1):
    return digits.load(split=split, image_size=image_size, channels=channels)


def test_the_splits_are_disjoint_and_complete():
    order = digits.permutation()
    assert sorted(order) == list(range(1797))
    assert order[:5] == [1486, 168, 347, 1140, 566]  # for ever: another order is another data set
    images = np.concatenate([load(split).pixels for split in SPLITS])
    assert [len(load(split)) for split in SPLITS] == [1437, 180, 180]
    np.testing.assert_array_equal(images[..., 0], np.rint(load_digits().images[order] * 255 / 16))


def test_every_split_holds_every_digit():
    for split in SPLITS:
        assert np.bincount(load(split).labels, minlength=10).min() >= 10


def test_an_example():
    source = load("validation")
    example = source[17]
    original = load_digits()
    position = digits.permutation()[1437 + 17]
    assert isinstance(source, Source)
    assert example["index"] == 17
    assert example["image"].shape == (8, 8, 1) and example["image"].dtype == np.uint8
    assert example["image"].max() == 255  # its darkest block is full
    assert example["caption"] == f"a handwritten {digits.WORDS[original.target[position]]}"
    assert not example["image"].flags.writeable


def test_captions_belong_to_pixels():
    """The nearest training picture has the same caption: 1-nearest-neighbour is about 98 % right on this data."""
    train, validation = load("train"), load("validation")
    known = train.pixels.reshape(len(train), -1).astype(float)
    right = 0
    for index in range(len(validation)):
        distances = ((known - validation[index]["image"].reshape(-1)) ** 2).sum(1)
        right += train[int(distances.argmin())]["caption"] == validation[index]["caption"]
    assert right / len(validation) > 0.95


@pytest.mark.parametrize(("image_size", "channels"), [(8, 3), (16, 1), (32, 3), (5, 1)])
def test_sizes_and_channels(image_size, channels):
    source, plain = load("test", image_size, channels), load("test")
    assert source.pixels.shape == (180, image_size, image_size, channels)
    assert (source.pixels == source.pixels[..., :1]).all()
    assert abs(source.pixels.mean() - plain.pixels.mean()) < 4  # resizing keeps the ink, but for clipping at the ends


def test_pickled_and_loaded_again_it_is_the_same():
    source = load("test", 12)
    for other in (pickle.loads(pickle.dumps(source)), load("test", 12)):
        np.testing.assert_array_equal(other[3]["image"], source[3]["image"])


@pytest.mark.parametrize("index", [-1, 180])
def test_outside_is_an_index_error(index):
    with pytest.raises(IndexError, match=f"index {index} is outside"):
        load("test")[index]


def test_bad_settings_are_sentences():
    with pytest.raises(UserError, match="did you mean 'validation'"):
        load("validaton")
    with pytest.raises(UserError, match="channels must be 1"):
        load(channels=2)
