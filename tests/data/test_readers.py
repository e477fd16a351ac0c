"""Processes that read: the same examples as without them, and errors that say what to do."""

import gc
import os
import signal
import time

import makers
import numpy as np
import pytest

from rfjax import config as configs
from rfjax import data
from rfjax.data import readers
from rfjax.errors import UserError


@pytest.fixture
def tar(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    samples = [makers.sample(number) for number in range(12)]
    samples[5][1]["jpg"] = b"<html>"
    makers.write_tar(tmp_path / "train.tar", samples)
    return tmp_path / "train.tar"


def load(path, count, **settings):
    plain = {"name": "webdataset", "path": str(path), "image_size": 8, "validation_percent": 0.0, "max_bad": 0.1}
    plain |= {"synthetic_key": "synthetic", "cache_mb": 0.0, "readers": count}
    return data.open_source(configs.Data(**(plain | settings)), "train")


def batches(source, count, start=0):
    prepare = lambda found: found.arrays | {"text": np.array(found.captions)}  # noqa: E731
    stream = data.batches(source, prepare, data.Order(4, 3, True, synthetic=0.5), start=start)
    return [next(stream) for _ in range(count)]


def wait_for(what, seconds=20.0):
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.02)
    assert what()


def test_they_read_what_this_process_would_and_end_with_the_source(tar):
    source, alone = load(tar, 2), load(tar, 0)
    whole = batches(alone, 9)
    for found, expected in zip(batches(source, 6) + batches(source, 3, start=6), whole, strict=True):
        assert all((expected[name] == found[name]).all() for name in expected)
    pool = readers.of(source, 2, 4)
    numbers = [process._popen.pid for process in pool._processes]
    assert len(numbers) == 2 and source.problems == alone.problems != ()
    # More than the shared memory holds, in pieces; some of the fields; none.
    pool._processes[0]._size = pool._processes[1]._size = 3 * 8 * 8 * 3 + 64
    taken = pool.take(range(12))
    np.testing.assert_array_equal(taken.arrays["image"], np.stack([alone[n]["image"] for n in range(12)]))
    assert taken.captions == [alone[n]["caption"] for n in range(12)]
    assert pool.take([3], []).arrays == {} and pool.take([], None).arrays["image"].shape == (0, 8, 8, 3)
    with pytest.raises(RuntimeError, match=r"in a process that reads the data:\n(.*\n)*IndexError: index 12"):
        pool.take([12])
    processes = list(pool._processes)
    del source, pool
    gc.collect()
    wait_for(lambda: all(process._popen.poll() == 0 for process in processes))


def test_what_is_wrong_is_a_sentence_here_too(tar):
    source = load(tar, 1, max_bad=0.0)
    with pytest.raises(UserError, match=r"1 of 12 records are bad, more than config.data.max_bad = 0 allows"):
        readers.of(source, 1, 4).take(range(12))
    source = load(tar, 1)
    pool = readers.of(source, 1, 4)
    assert len(pool.take([1]).captions) == 1
    os.kill(pool._processes[0]._popen.pid, signal.SIGTERM)  # for the whole job: the training process decides
    assert len(pool.take([1]).captions) == 1
    os.kill(pool._processes[0]._popen.pid, signal.SIGKILL)
    with pytest.raises(UserError, match=r"has ended \(killed by signal 9\): .* set config.data.readers lower"):
        pool.take([1])
    with pytest.raises(UserError, match="has ended before"):
        pool.take([1])


def test_data_in_memory_need_none(tar):
    assert load(tar, -1, cache_mb=512.0).readers == 0 and load(tar, -1).readers == -1


class Odd:
    """What no other process can have."""

    readers = 1

    def __init__(self, held):
        self.held, self.fields = held, {"image": data.Field((2, 2, 3), "uint8")}

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return {"image": np.zeros((2, 2, 3), np.uint8), "caption": "", "index": index}

    def __setstate__(self, state):
        raise AttributeError("no such thing there")


@pytest.mark.parametrize(("held", "message"), [(lambda: 0, "Error"), (0, "Error")])
def test_a_source_that_other_processes_can_not_have_is_a_sentence(held, message):
    source = Odd(held)
    with pytest.raises(
        UserError, match=rf"can't be read by other processes \(.*({message}).*: set config.data.readers = 0"
    ):
        readers.of(source, 1, 2).take([0])
