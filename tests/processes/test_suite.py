"""A suite that two processes draw together, killed on the way, against one process with as many devices."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import begun_run, tiny

from rfjax import config as configs
from rfjax.errors import Exit

ROOT = Path(__file__).parents[2]
PROMPTS, BATCH = 50, 8


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "d1"
    c = tiny()
    c.model.depth = 1
    begun_run(folder, configs.parse(c))
    return folder


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    line = {"tag": "single_object", "include": [{"class": "cup", "count": 1}]}
    path = tmp_path_factory.mktemp("prompts") / "evaluation_metadata.jsonl"
    path.write_text("".join(json.dumps(line | {"prompt": f"a sketch of cup {n}"}) + "\n" for n in range(PROMPTS)))
    return path


def start(folder, source, prompts, processes, devices):
    """Starts processes with as many devices each."""
    settings = {
        "PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        "DEVICES_PER_PROCESS": str(devices),
        "XLA_FLAGS": "",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    flags = {"workdir": folder, "generate.source": source, "suite.prompts": prompts, "generate.batch": BATCH}
    words = [f"--config.{name}={value}" for name, value in flags.items()]
    return subprocess.Popen(
        [ROOT / "launch" / "local.sh", str(processes), "--config=configs/suites.py", *words],
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


def pictures(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in (folder / "images").rglob("*.png")}


def test_two_processes_that_are_killed_end_in_the_bytes_of_one(source, prompts, tmp_path):
    whole = tmp_path / "whole"
    assert f"{4 * PROMPTS} pictures of GenEval are drawn" in finish(start(whole, source, prompts, 1, 4))

    folder = tmp_path / "killed"
    kill_when(start(folder, source, prompts, 2, 2), folder / "images" / "00008" / "samples" / "0003.png")
    there = pictures(folder)
    assert 36 <= len(there) < 4 * PROMPTS
    (folder / ".drawn.elsewhere.1.partial").write_bytes(b"what a kill leaves")
    out = finish(start(folder, source, prompts, 2, 2))
    assert f"{4 * PROMPTS} pictures" not in out.partition("are drawn in")[0]  # not all anew

    assert pictures(folder) == pictures(whole) and len(set(pictures(folder).values())) == 4 * PROMPTS
    names = {path.name for path in (folder / "images").rglob("*") if path.is_file()}
    assert names == {"metadata.jsonl", *(f"000{j}.png" for j in range(4))}
