"""Sets of pictures: archives and folders, read in batches; what is no set is refused in a sentence."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rfjax import config as configs
from rfjax.errors import UserError
from rfjax.evaluation.picture_sets import PictureSet, open_set, open_split


def pictures(count, channels=3, side=6):
    return np.random.default_rng(count).integers(0, 256, (count, side, side, channels), np.uint8)


def read(found, size):
    batches = list(found.batches(size))
    assert all(len(images) == size for images, _ in batches[:-1])
    return np.concatenate([images for images, _ in batches]), [text for _, texts in batches for text in texts]


@given(count=st.integers(1, 9), size=st.integers(1, 10), packed=st.booleans())
@settings(max_examples=20, deadline=None)
def test_an_archive_is_read_in_batches_of_any_size(tmp_path_factory, count, size, packed):
    path, own = tmp_path_factory.mktemp("a") / "samples.npz", pictures(count)
    (np.savez_compressed if packed else np.savez)(path, arr_0=own, captions=np.array([f"n {i}" for i in range(count)]))
    found = open_set(path)
    assert isinstance(found, PictureSet)
    assert (len(found), found.shape, found.captioned) == (count, own.shape[1:], True)
    images, texts = read(found, size)
    np.testing.assert_array_equal(images, own)
    assert texts == [f"n {i}" for i in range(count)]


def test_labels_become_captions_by_the_names_of_classes(tmp_path):
    path = tmp_path / "samples.npz"
    np.savez(path, arr_0=pictures(3), arr_1=np.array([1, 0, 1]))
    assert not open_set(path).captioned
    assert read(open_set(path, ["a cat", "a dog"]), 2)[1] == ["a dog", "a cat", "a dog"]
    with pytest.raises(UserError, match="labels go to 1, and 1 names"):
        open_set(path, ["cat"])


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"arr_1": np.zeros(3)}, "no member arr_0"),
        ({"arr_0": np.zeros((2, 4, 4, 16), np.float32)}, "latents must be decoded"),
        ({"arr_0": np.zeros((2, 4, 4), np.uint8)}, "1 or 3"),
        ({"arr_0": pictures(2), "captions": np.array(["one"])}, "2 pictures and 1 captions"),
    ],
)
def test_archives_that_are_none(tmp_path, arrays, said):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=said):
        open_set(tmp_path / "a.npz")


def test_broken_and_missing_files(tmp_path):
    with pytest.raises(UserError, match="there is no"):
        open_set(tmp_path / "a.npz")
    with pytest.raises(UserError, match="neither a folder"):
        open_set(tmp_path / "a.txt")
    (tmp_path / "b.npz").write_bytes(b"PK nothing")
    with pytest.raises(UserError, match="can't be read as an archive"):
        open_set(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", arr_0=pictures(64))
    data = bytearray((tmp_path / "c.npz").read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "c.npz").write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        read(open_set(tmp_path / "c.npz"), 8)


def test_a_folder_in_the_order_of_names_with_captions_beside(tmp_path):
    own = pictures(3)
    for name, image in zip(("b", "a", "c"), own, strict=True):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(f"picture {name}")
    images, texts = read(open_set(tmp_path), 2)
    np.testing.assert_array_equal(images, own[[1, 0, 2]])
    assert texts == ["picture a", "picture b", "picture c"]


def test_grey_pictures_become_coloured_and_jpegs_are_said(tmp_path):
    Image.fromarray(pictures(1, 1)[0, :, :, 0]).save(tmp_path / "a.jpg")
    found = open_set(tmp_path)
    assert found.shape == (6, 6, 3)
    assert "1 of 1 pictures" in found.notes[0]
    assert read(found, 4)[0].shape == (1, 6, 6, 3)


def test_folders_that_are_no_sets(tmp_path):
    with pytest.raises(UserError, match="holds no pictures"):
        open_set(tmp_path)
    Image.fromarray(pictures(1)[0]).save(tmp_path / "a.png")
    Image.fromarray(pictures(1, side=8)[0]).save(tmp_path / "b.png")
    with pytest.raises(UserError, match="6 x 6 and 8 x 8"):
        read(open_set(tmp_path), 4)
    (tmp_path / "a.png").write_bytes(b"none")
    with pytest.raises(UserError, match="can't be read as a picture"):
        open_set(tmp_path)


def test_a_split_of_a_data_set():
    found = open_split(configs.Data(name="shapes", image_size=8), "validation", 5)
    images, texts = read(found, 2)
    assert images.shape == (5, 8, 8, 3)
    assert all(texts)
    assert "shapes, validation, 5 pictures" in found.name
