"""Several processes on this machine: what becomes of all when something happens to one."""

import os
import signal
import time
from pathlib import Path

import pytest
from launch_waiting import wait_for

CONFIG = "--config=configs/scaling.py"
WORKS = """
echo $$ >"$HOME/pid$RFJAX_PROCESS.new"
trap "exit 75" TERM
trap "exit 130" INT
mv "$HOME/pid$RFJAX_PROCESS.new" "$HOME/pid$RFJAX_PROCESS"
while true; do sleep 0.05; done
"""


def pids(folder: Path, count: int) -> list[int]:
    return [int(wait_for(folder / f"pid{process}").read_text()) for process in range(count)]


def gone(pid: int) -> bool:
    """Whether the process has ended, now or within seconds; an orphan that nobody has buried yet has."""
    status = Path(f"/proc/{pid}/status")
    for _ in range(500):
        try:
            if "State:\tZ" in status.read_text():
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("exit 0", 0),
        ("exit 75", 75),
        ("exit 130", 130),
        ("exit 1", 1),
        ("((RFJAX_PROCESS == 1)) && exit 2; sleep 0.4; exit 0", 2),
        ("((RFJAX_PROCESS == 1)) && exit 75; sleep 0.4; exit 0", 75),
        ("((RFJAX_PROCESS == 1)) && kill -s SEGV $$; sleep 0.4; exit 1", 139),
    ],
)
def test_its_exit_code_is_that_of_its_processes(fakes, body, code):
    fakes.python(body)
    assert fakes.run("local.sh", "2", CONFIG).returncode == code
    assert len(fakes.calls()) == 2


def test_every_process_knows_its_place(fakes):
    fakes.python('env >"$HOME/env$RFJAX_PROCESS"')
    assert fakes.run("local.sh", "3", CONFIG, "--config.only=d1", DEVICES_PER_PROCESS="2").returncode == 0
    found = [dict(line.split("=", 1) for line in (fakes.folder / f"env{i}").read_text().splitlines()) for i in range(3)]
    assert [(e["RFJAX_PROCESS"], e["RFJAX_PROCESSES"], e["JAX_PLATFORMS"]) for e in found] == [
        (str(i), "3", "cpu") for i in range(3)
    ]
    assert found[0]["XLA_FLAGS"] == "--xla_force_host_platform_device_count=2"
    (address,) = {e["RFJAX_COORDINATOR"] for e in found}
    host, port = address.split(":")
    assert host == "127.0.0.1"
    assert 20000 <= int(port) < 30000
    assert {tuple(call[1:]) for call in fakes.calls()} == {("-m", "rfjax.main", CONFIG, "--config.only=d1")}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_reaches_every_process(fakes, number, code):
    fakes.python(WORKS)
    script = fakes.start("local.sh", "3", CONFIG)
    alive = pids(fakes.folder, 3)
    script.send_signal(number)
    assert script.wait(timeout=20) == code
    assert all(map(gone, alive))


def test_when_one_is_killed_the_others_do_not_hang(fakes):
    """They get GRACE seconds, then are killed with all that they have started."""
    fakes.python('(trap "" TERM; sleep 60) & echo $! >"$HOME/child$RFJAX_PROCESS"; trap "" TERM\n' + WORKS)
    script = fakes.start("local.sh", "3", CONFIG, GRACE="1")
    alive = pids(fakes.folder, 3)
    children = [int((fakes.folder / f"child{process}").read_text()) for process in range(3)]
    os.kill(alive[1], signal.SIGKILL)
    assert script.wait(timeout=20) == 128 + signal.SIGKILL
    assert all(map(gone, alive + children))


def test_it_starts_again_where_it_is_told_to(fakes):
    fakes.python('touch "$HOME/$RFJAX_PROCESS.$RFJAX_COORDINATOR"; exit 75')
    done = fakes.run("local.sh", "2", CONFIG, RESTARTS="2")
    assert done.returncode == 75
    assert len(fakes.calls()) == 6
    assert done.stderr.count("again in 0 seconds") == 2
