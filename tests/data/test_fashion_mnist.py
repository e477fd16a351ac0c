"""The command that prepares Debian's dataset-fashion-mnist, on tiny files in its format."""

import gzip
import struct

import numpy as np
import pytest

from rfjax import config as configs
from rfjax.data import fashion_mnist, tfds
from rfjax.errors import UserError

COUNTS = {"train": 24, "t10k": 7}


def write_idx(path, array):
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        prefix: (rng.integers(0, 256, (count, 28, 28), np.uint8), (np.arange(count) % 10).astype(np.uint8))
        for prefix, count in COUNTS.items()
    }


@pytest.fixture
def source(tmp_path, arrays):
    folder = tmp_path / "idx"
    folder.mkdir()
    for prefix, (images, labels) in arrays.items():
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", labels)
    return folder


def run(source, data_dir):
    return fashion_mnist.main(["--source", str(source), "--data_dir", str(data_dir)])


def read(data_dir, split):
    settings = {"name": "tfds", "dataset": "fashion_mnist", "data_dir": str(data_dir), "train_split": "train"}
    return tfds.open_source(configs.Data(**settings, image_size=28, channels=1, cache_mb=0.0), split)


def captions_of(source):
    return [source[index]["caption"] for index in range(len(source))]


def test_every_picture_comes_back_with_its_caption(source, arrays, tmp_path, capsys):
    data_dir = tmp_path / "tfds"
    assert run(source, data_dir) == 0
    assert capsys.readouterr().out == f"Prepared {data_dir}/fashion_mnist/1.0.0\n"
    for split, prefix in (("train", "train"), ("test", "t10k")):
        got = read(data_dir, split)
        captions = {got[index]["image"].tobytes(): got[index]["caption"] for index in range(len(got))}
        names = [fashion_mnist.LABELS[label].lower() for label in arrays[prefix][1]]
        assert captions == {
            image.tobytes(): f"a photo of a {name}" for image, name in zip(arrays[prefix][0], names, strict=True)
        }
    assert {"a photo of a ankle boot", "a photo of a t-shirt"} < set(captions_of(read(data_dir, "train")))


def test_a_second_run_says_it_is_there(source, tmp_path, capsys):
    assert run(source, tmp_path / "tfds") == 0
    shard = next((tmp_path / "tfds").rglob("*train*"))
    before = shard.stat()
    assert run("/nowhere", tmp_path / "tfds") == 0
    assert "Already there: " in capsys.readouterr().out
    assert shard.stat() == before


def test_a_killed_preparation_is_not_taken_for_complete(source, tmp_path, monkeypatch):
    data_dir = tmp_path / "tfds"
    save, saved = fashion_mnist.Image.Image.save, []

    def killed(self, *arguments, **settings):
        saved.append(1)
        if len(saved) == 10:
            raise KeyboardInterrupt
        save(self, *arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(fashion_mnist.Image.Image, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            run(source, data_dir)
    with pytest.raises(UserError, match="no prepared TFDS data set"):
        read(data_dir, "train")
    remains = data_dir / "fashion_mnist" / "incomplete.ABC123_1.0.0"  # what a kill -9 leaves at the worst moment
    remains.mkdir(parents=True)
    for name in ("dataset_info.json", "features.json"):
        (remains / name).write_text("{}")
    with pytest.raises(UserError, match="no prepared TFDS data set"):
        read(data_dir, "train")
    assert run(source, data_dir) == 0
    assert len(read(data_dir, "train")) == COUNTS["train"]
    assert [path.name for path in (data_dir / "fashion_mnist").iterdir()] == ["1.0.0"]


def test_a_missing_source_names_the_package(tmp_path, capsys):
    assert run(tmp_path / "nowhere", tmp_path / "tfds") == 2
    error = capsys.readouterr().err
    assert "apt-get install dataset-fashion-mnist" in error and error.count("\n") == 1
    assert not (tmp_path / "tfds").exists()


@pytest.mark.parametrize("damage", ["cut", "magic", "count", "label", "text"])
def test_damaged_files_are_named(source, arrays, tmp_path, capsys, damage):
    images, labels = source / "train-images-idx3-ubyte.gz", source / "train-labels-idx1-ubyte.gz"
    if damage == "cut":
        images.write_bytes(images.read_bytes()[:-50])
    elif damage == "magic":
        write_idx(images, arrays["train"][1])
    elif damage == "count":
        write_idx(labels, arrays["train"][1][:-1])
    elif damage == "label":
        write_idx(labels, arrays["train"][1] + 1)
    else:
        images.write_text("not gzip")
    assert run(source, tmp_path / "tfds") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert ("train-* in" if damage in ("count", "label") else "train-images-idx3-ubyte.gz") in error


def test_something_in_the_way_is_named(source, tmp_path, capsys):
    (tmp_path / "tfds" / "fashion_mnist" / "1.0.0").mkdir(parents=True)
    assert run(source, tmp_path / "tfds") == 2
    assert "is not a complete TFDS data set: move it away" in capsys.readouterr().err


def test_help_helps(capsys):
    with pytest.raises(SystemExit) as end:
        fashion_mnist.main(["--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("--source", "--data_dir", "dataset-fashion-mnist", "work/tfds"))


def test_the_labels_are_the_data_sets_own_in_its_order():
    assert len(set(fashion_mnist.LABELS)) == 10
    assert fashion_mnist.LABELS[0] == "T-shirt" and fashion_mnist.LABELS[9] == "Ankle boot"
