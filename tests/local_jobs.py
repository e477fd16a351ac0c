"""Jobs of several local processes on one small run: started by launch/local.sh, waited for, killed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tiny import begun_run, tiny

from rfjax import config as configs
from rfjax.errors import Exit

ROOT = Path(__file__).parents[1]
BATCHES, BATCH = 30, 8
COUNT = BATCHES * BATCH - 3


def digits_run(folder):
    """A run of SiT on digits that nobody trained."""
    c = tiny()
    c.model.update(depth=1, backbone="sit", heads=2)
    c.data.update(name="digits", image_size=8, channels=1)
    c.text.update(encoder="labels", pooled_width=10)
    begun_run(folder, configs.parse(c), (1,))
    return folder


def start(folder, source, processes, devices, config="archive", words=()):
    """Starts processes with as many devices each."""
    settings = {
        "PYTHON": sys.executable,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
        "DEVICES_PER_PROCESS": str(devices),
        "XLA_FLAGS": "",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    flags = {"workdir": folder, "generate.source": source, "generate.count": COUNT, "generate.batch": BATCH}
    words = [*(f"--config.{name}={value}" for name, value in flags.items()), *words]
    return subprocess.Popen(
        [ROOT / "launch" / "local.sh", str(processes), f"--config=configs/{config}.py", *words],
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
