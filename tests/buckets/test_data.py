"""Data in a bucket give what the same files give on a disk."""

import makers
import numpy as np
import pytest

from rfjax import config as configs
from rfjax import data
from rfjax.data import shards
from rfjax.errors import UserError


def upload(folder, place):
    for path in folder.rglob("*"):
        if path.is_file():
            (place / path.relative_to(folder).as_posix()).write(path)


def tars(folder):
    makers.write_tars(folder, 24)
    return {"name": "webdataset"}


def parquet(folder):
    makers.write_parquet(folder / "data" / "train-00000-of-00001.parquet", range(14))
    makers.write_parquet(folder / "data" / "validation-00000-of-00001.parquet", range(14, 20))
    return {"name": "parquet"}


def latents(folder):
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("validation", 4)):
        (folder / split).mkdir()
        np.save(folder / split / "latents.npy", rng.normal(size=(count, 8, 8, 4)).astype(np.float32))
        np.save(folder / split / "labels.npy", rng.integers(10, size=count))
    return {"name": "latents", "channels": 4}


@pytest.mark.parametrize("make", [tars, parquet, latents])
def test_examples_are_those_of_the_same_files_on_a_disk(make, memory, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    settings = make(folder)
    upload(folder, memory / "set")
    for split in ("train", "validation"):
        here, there = (
            data.open_source(configs.Data(**{"image_size": 8} | settings | {"path": path}), split)
            for path in (str(folder), "memory://bucket/set")
        )
        assert len(here) == len(there) > 0
        for index in range(len(here)):
            one, other = here[index], there[index]
            assert one.keys() == other.keys()
            for name, value in one.items():
                np.testing.assert_array_equal(value, other[name])


def test_of_tar_and_parquet_files_only_ranges_are_read(memory, tmp_path):
    (tmp_path / "set").mkdir()
    settings = tars(tmp_path / "set")
    upload(tmp_path / "set", memory / "set")
    source = data.open_source(configs.Data(image_size=8, path="memory:/bucket/set", **settings), "train")
    assert source[0]["caption"] == "number 0"
    assert not list((tmp_path / "cache").rglob("*.tar"))
    name = next(entry.name for entry in memory.entries() if entry.name.endswith(".tar"))
    one = data.open_source(configs.Data(image_size=8, path=f"memory://bucket/{name}", **settings), "train")
    assert 0 < len(one) < len(source)
    with pytest.raises(UserError, match=r"has no .tar files"):
        data.open_source(configs.Data(image_size=8, path="memory://bucket/none", **settings), "train")
    path = shards.Path(f"memory://bucket/{name}")
    memory.remove([name])
    with pytest.raises(UserError, match="was there when the run began, and is gone now"):
        shards.read_at(path, 0, 1, (1, 1))
    with pytest.raises(UserError, match="there is no object"):
        shards.stamp(path)
