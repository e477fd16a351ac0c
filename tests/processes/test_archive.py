"""An archive that two processes draw together, killed on the way, against one process with as many devices."""

import numpy as np
import pytest
from local_jobs import BATCHES, COUNT, digits_run, finish, kill_when, start

MEMBER = "samples.npz"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return digits_run(tmp_path_factory.mktemp("source") / "digits")


def test_two_processes_that_are_killed_end_in_the_bytes_of_one(source, tmp_path):
    whole = tmp_path / "whole"
    assert f"{COUNT} uint8 pictures are in" in finish(start(whole, source, 1, 4))

    folder = tmp_path / "killed"
    kill_when(start(folder, source, 2, 2), folder / "parts" / "000004.npz")
    there = len(list((folder / "parts").glob("*.npz")))
    assert 5 <= there < BATCHES and not (folder / MEMBER).exists()
    (folder / "parts" / ".000029.npz.elsewhere.1.partial").write_bytes(b"what a kill leaves")
    out = finish(start(folder, source, 2, 2))
    assert f"{BATCHES - there} batches took" in out

    assert (folder / MEMBER).read_bytes() == (whole / MEMBER).read_bytes()
    with np.load(folder / MEMBER) as arrays:
        assert (arrays["arr_0"].shape, arrays["arr_1"].shape) == ((COUNT, 8, 8, 1), (COUNT,))
        assert len(np.unique(arrays["arr_0"].reshape(COUNT, -1), axis=0)) == COUNT
