"""Real processes on this machine, joined by launch/local.sh over gloo, against one process with as many devices."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny import run_job, tiny

from rfjax import config as configs
from rfjax.errors import Exit
from rfjax.study import records, runner

ROOT = Path(__file__).parents[2]
CONFIG = """
import sys
sys.path.insert(0, {tests!r})
from test_processes import small

get_config = small
"""
STEPS = 24


def small():
    """A run that ends within seconds, whose last validation batch is not full, on a mesh of 2 x 2 x 2."""
    c = tiny()
    c.model.update(backbone="dit", heads=4, width=16)
    c.training.update(steps=STEPS, log_every=2, checkpoint_every=8, validate_every=16)
    c.validation.update(examples=24, batch=16)
    c.mesh.update(data=-1, fsdp=2, tensor=2)
    c.sampling.count = 0
    c.data.update(alt_text=0.5, synthetic_share=0.5)
    c.training.measurements = ("validation", "representations@16")
    c.representations.update(encoders=("shapes",), levels=(0.25,), examples=44, batch=16, k=5, probe_examples=60)
    return c


def start(folder, processes, devices):
    """Starts processes with as many devices each, on a study in a folder."""
    (folder / "config.py").write_text(CONFIG.format(tests=str(Path(__file__).parent)))
    settings = {
        "PYTHON": sys.executable,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
        "DEVICES_PER_PROCESS": str(devices),
        "XLA_FLAGS": "",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [ROOT / "launch" / "local.sh", str(processes), f"--config={folder / 'config.py'}"]
    return subprocess.Popen(
        [*command, f"--config.workdir={folder / 'study'}"],
        env=os.environ | settings, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def finish(process, code=Exit.DONE):
    out, _ = process.communicate(timeout=480)
    assert process.returncode == code, out
    return out


def read(folder):
    (rung,) = records.read(folder / "study").runs
    return rung


def wait_for_step(folder, step):
    path = folder / "study" / "runs" / "run" / "metrics.jsonl"
    for _ in range(4800):  # four minutes, for other processes may want the cores
        with contextlib.suppress(FileNotFoundError):
            if f'"train", "step": {step},' in path.read_text():
                return
        time.sleep(0.05)
    raise TimeoutError(f"{path} has no step {step}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One process with eight devices."""
    c = small()
    c.workdir = str(tmp_path_factory.mktemp("whole") / "study")
    assert run_job(runner, configs.parse(c), time.time()) == Exit.DONE
    return read(Path(c.workdir).parent)


def compare(rung, whole, tolerance):
    """The same steps with the same losses, validation losses and losses of each triple."""
    for ours, theirs in ((rung.train, whole.train), *((rung.curve(w), whole.curve(w)) for w in ("raw", "ema"))):
        assert [line["step"] for line in ours] == [line["step"] for line in theirs]
        np.testing.assert_allclose([x["loss"] for x in ours], [x["loss"] for x in theirs], rtol=tolerance)
    for key in ("captions_synthetic", "captions_original"):
        assert [line[key] for line in rung.train] == [line[key] for line in whole.train]
    steps = [(0, 0.25), (16, 0.25), (STEPS, 0.25)]
    assert [(line["step"], line["t"]) for line in rung.representations] == steps
    for ours, theirs in zip(rung.representations, whole.representations, strict=True):
        np.testing.assert_allclose(ours["cknna"]["shapes"], theirs["cknna"]["shapes"], rtol=0.1)  # ties may fall anew
        np.testing.assert_allclose(ours["accuracy"], theirs["accuracy"], atol=2.5 / 44)
    for weights in ("raw", "ema"):
        assert len(rung.examples[weights]) == 24
        np.testing.assert_allclose(rung.examples[weights], whole.examples[weights], rtol=tolerance)


def test_two_and_four_processes_end_where_one_does_through_preemption_and_damage(whole, tmp_path):
    # Two processes; one of them gets SIGTERM, as when a cluster takes one machine away: all save the same step.
    job, folder = start(tmp_path, 2, 4), tmp_path / "study/runs/run"
    wait_for_step(tmp_path, 10)
    find = ["pgrep", "-P", str(job.pid), "-f", "rfjax.main"]
    workers = subprocess.run(find, capture_output=True, text=True, check=True).stdout.split()
    assert len(workers) == 2
    os.kill(int(workers[-1]), signal.SIGTERM)
    out = finish(job, Exit.PREEMPTED)
    assert out.count("nothing is lost") == 2, out
    before, saved = sorted(int(path.name) for path in (folder / "checkpoints").iterdir())
    assert before == 8
    assert 10 <= saved < STEPS
    assert f"stopped at step {saved} of {STEPS}" in out or "stopped while measuring" in out

    # What they saved is damaged. Four notice it alike, and go on from the one before, to the same end.
    for path in (folder / f"checkpoints/{saved}/run").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    out = finish(start(tmp_path, 4, 2))
    assert f"checkpoints/{saved} can't be read" in out.replace("\n", "")
    compare(read(tmp_path), whole, tolerance=1e-6)
    starts = [line for line in _lines(tmp_path) if line["kind"] == "start"]
    assert [(line["step"], line["processes"]) for line in starts] == [(0, 2), (before, 4)]
    assert len((tmp_path / "study/sessions.jsonl").read_text().splitlines()) == 1  # process 0 alone writes
    assert json.loads((folder / "result.json").read_text())["status"] == "complete"


def _lines(folder):
    return [json.loads(line) for line in (folder / "study/runs/run/metrics.jsonl").read_text().splitlines()]
