"""A training job whose data other processes read: interrupted, killed and resumed, it is the job without them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import makers
import pytest

from rfjax.errors import Exit

ROOT = Path(__file__).parents[2]
STEPS = 400


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    makers.write_tars(folder, 60, shards=3)
    return folder


def start(workdir, shards, readers):
    """Starts the job in a process group of its own, as a shell does."""
    (workdir.parent / f"{workdir.name}.py").write_text(
        f"from tiny import tiny\ndef get_config():\n    c = tiny()\n    c.workdir = {str(workdir)!r}\n"
        f"    c.data.update(name='webdataset', path={str(shards)!r}, image_size=8, cache_mb=0.0, readers={readers})\n"
        f"    c.data.update(validation_percent=20.0, synthetic_key='synthetic', synthetic_share=0.5, flip=True)\n"
        f"    c.model.update(depth=1)\n    c.sampling.count = 0\n"
        f"    c.training.update(steps={STEPS}, log_every=10, checkpoint_every=100)\n    return c\n",
        encoding="utf-8",
    )
    settings = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    settings |= {"XDG_CACHE_HOME": str(workdir.parent / "cache")}
    return subprocess.Popen(
        [sys.executable, "-m", "rfjax.main", f"--config={workdir.parent / workdir.name}.py"],
        env=os.environ | settings, cwd=workdir.parent, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip


def readers_of(process):
    """The numbers of its processes that read."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == process.pid and b"readers.serve" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except (OSError, IndexError):
            continue
    return found


def lines(workdir):
    found = []
    for path in workdir.rglob("metrics.jsonl"):
        found += [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    kept = ("step", "loss", "grad_norm", "captions_synthetic")
    return {one["step"]: [one.get(name) for name in kept] for one in found if "grad_norm" in one}


def wait(what, process, seconds=240):
    end = time.monotonic() + seconds
    while not what():
        assert process.poll() is None and time.monotonic() < end, process.communicate()[0]
        time.sleep(0.05)


def gone(numbers):
    end = time.monotonic() + 20
    while any(Path(f"/proc/{number}").exists() for number in numbers) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(Path(f"/proc/{number}").exists() for number in numbers)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at other processes in /proc")
def test_a_job_ends_with_its_readers_and_goes_on_alike(tmp_path, shards):
    whole = start(tmp_path / "whole", shards, 0)
    out, _ = whole.communicate(timeout=480)
    assert whole.returncode == Exit.DONE, out
    workdir = tmp_path / "parts"
    for number, code in ((signal.SIGINT, None), (signal.SIGTERM, None), (signal.SIGKILL, -signal.SIGKILL)):
        before = max(lines(workdir), default=0)
        process = start(workdir, shards, 2)
        wait(lambda: max(lines(workdir), default=0) >= min(before + 20, STEPS - 10), process)  # noqa: B023
        numbers = readers_of(process)
        assert len(numbers) == 2
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)  # Ctrl-C reaches the whole group
        out, _ = process.communicate(timeout=240)
        assert "Traceback" not in out and (code is None or process.returncode == code), out
        assert gone(numbers)
    process = start(workdir, shards, 2)
    out, _ = process.communicate(timeout=480)
    assert process.returncode == Exit.DONE, out
    assert lines(workdir) == lines(tmp_path / "whole") and len(lines(workdir)) == STEPS // 10
