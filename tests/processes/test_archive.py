"""An archive that two processes draw together, killed on the way, against one process with as many devices."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny import begun_run, tiny

from rfjax import config as configs
from rfjax.errors import Exit

ROOT = Path(__file__).parents[2]
BATCHES, BATCH = 30, 8
COUNT = BATCHES * BATCH - 3
MEMBER = "samples.npz"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "digits"
    c = tiny()
    c.model.update(depth=1, backbone="sit", heads=2)
    c.data.update(name="digits", image_size=8, channels=1)
    c.text.update(encoder="labels", pooled_width=10)
    begun_run(folder, configs.parse(c), (1,))
    return folder


def start(folder, source, processes, devices):
    """Starts processes with as many devices each."""
    settings = {
        "PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        "DEVICES_PER_PROCESS": str(devices),
        "XLA_FLAGS": "",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    flags = {"workdir": folder, "generate.source": source, "generate.count": COUNT, "generate.batch": BATCH}
    words = [f"--config.{name}={value}" for name, value in flags.items()]
    return subprocess.Popen(
        [ROOT / "launch" / "local.sh", str(processes), "--config=configs/archive.py", *words],
        env=os.environ | settings, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def finish(process):
    out, _ = process.communicate(timeout=480)
    assert process.returncode == Exit.DONE, out
    return " ".join(out.split())


def kill_when(process, path):
    """Kills all processes of a job, with signal 9, once a file is there."""
    end = time.monotonic() + 240  # for other processes may want the cores
    while not path.exists():
        assert process.poll() is None and time.monotonic() < end, process.communicate()[0]
        time.sleep(0.005)
    find = ["pgrep", "-P", str(process.pid), "-f", "rfjax.main"]
    for worker in subprocess.run(find, capture_output=True, text=True, check=True).stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(worker), signal.SIGKILL)
    process.communicate(timeout=60)


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
