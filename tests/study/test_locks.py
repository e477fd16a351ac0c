import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from rfjax import files
from rfjax.errors import UserError
from rfjax.study import locks
from rfjax.study.locks import Held, Lock, take

ROUNDS = 30
STALE = 5.0  # minutes
PRESENT = time.time()


def contend(folder, name, start, done, stale_minutes):
    """Takes the lock of each round's folder at the same moment as the others, and keeps it."""
    kept = []
    for number in range(ROUNDS):
        start.wait()
        found = take(folder / str(number), stale_minutes)
        (folder / str(number) / name).write_text(str(int(isinstance(found, Lock))))
        kept.append(found)
        done.wait()
    for found in kept:
        if isinstance(found, Lock):
            found.release()


def rounds(tmp_path, prepare, count=2):
    """How many of the contenders got the lock, round by round."""
    for number in range(ROUNDS):
        (tmp_path / str(number)).mkdir()
        prepare(tmp_path / str(number))
    spawn = multiprocessing.get_context("spawn")
    barriers = spawn.Barrier(count, timeout=60), spawn.Barrier(count, timeout=60)
    workers = [spawn.Process(target=contend, args=(tmp_path, f"w{i}", *barriers, STALE)) for i in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert [sorted(p.name for p in (tmp_path / str(n)).iterdir()) for n in range(ROUNDS)] == [
        ["w0", "w1", "w2"]
    ] * ROUNDS
    return [sum(int(path.read_text()) for path in (tmp_path / str(n)).iterdir()) for n in range(ROUNDS)]


def test_one_of_several_processes_gets_a_lock(tmp_path):
    assert rounds(tmp_path, lambda folder: None, count=3) == [1] * ROUNDS


def test_one_of_several_processes_takes_over_a_void_lock(tmp_path):
    gone = dead()
    assert rounds(tmp_path, lambda folder: left_by(folder, gone), count=3) == [1] * ROUNDS


def dead():
    """A process of this machine that is gone."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    known = replace(locks.holder(), pid=done.pid, started=files.started(done.pid) or "")
    done.wait()
    return known


def left_by(folder, holder, seconds=0.0):
    """Leaves a lock whose last sign of life is some seconds old."""
    path = folder / locks.NAME
    path.write_text(json.dumps(asdict(holder)))
    os.utime(path, (PRESENT, time.time() - seconds))
    return path


def living(**changes):
    """A process that is alive, and is not this one."""
    return replace(locks.holder(), pid=os.getppid(), started=files.started(os.getppid()), **changes)


def test_a_lock_is_kept_from_others_and_given_back(tmp_path):
    with take(tmp_path, STALE) as lock:
        assert lock.note == ""
        found = take(tmp_path, STALE)
        assert isinstance(found, Held)
        assert not found.doubtful
        assert str(found).startswith(f"another job has it ({files.machine().host}, process {os.getpid()}, sign of life")
    assert list(tmp_path.iterdir()) == []
    with take(tmp_path, STALE) as lock:
        assert isinstance(lock, Lock)


def test_the_lock_of_a_process_that_was_killed_is_taken_over_at_once(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from rfjax.study import locks\n"
        "locks.take(Path(sys.argv[1]), 5.0); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    with take(tmp_path, STALE) as lock:
        assert lock.note.startswith(f"the lock of another job ({files.machine().host}, process ")
        assert lock.note.endswith(") is void (that process is gone): taken over")


def test_a_process_with_the_number_of_one_that_is_gone_does_not_keep_its_lock(tmp_path):
    left_by(tmp_path, replace(living(), started="1"))
    with take(tmp_path, STALE) as lock:
        assert "that process is gone" in lock.note


@pytest.mark.parametrize(
    ("holder", "silent", "outcome"),
    [
        (living(), 60, "held"),
        (living(), 299, "doubt"),
        (living(), 301, "void"),
        (living(host="elsewhere", boot="b"), 59, "held"),  # another machine
        (living(host="elsewhere", boot="b"), 61, "doubt"),
        (living(host="elsewhere", boot="b"), 301, "void"),
        (living(boot="b"), 0, "doubt"),  # this machine before it was started again, or one of the same name
        (living(boot="b"), 61, "void"),
        (living(space="s"), 0, "doubt"),  # another container of this machine, or this one before it was restarted
        (living(space="s"), 61, "void"),
        (living(host="elsewhere", job="Slurm job 7", start="0"), 0, "doubt"),  # this job, before it was put back
        (living(host="elsewhere", job="Slurm job 7", start="0"), 61, "void"),
        (living(host="elsewhere", job="Slurm job 8", start="0"), 61, "doubt"),
        (living(host="elsewhere", job="Slurm job 7", start="1"), 59, "held"),
    ],
)
def test_when_a_lock_is_void(tmp_path, monkeypatch, holder, silent, outcome):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    left_by(tmp_path, holder, silent - 0.5)
    found = take(tmp_path, STALE)
    if outcome == "void":
        assert re.search(r"\(no sign of life for \d+ s\): taken over", found.note)
        found.release()
    else:
        assert (type(found), found.doubtful) == (Held, outcome == "doubt")
        assert (tmp_path / locks.NAME).exists()


def test_a_damaged_lock_is_void_with_time(tmp_path):
    path = left_by(tmp_path, living())
    path.write_text("")
    assert str(take(tmp_path, STALE)).startswith("another job has it (its file names no process, sign of life ")
    os.utime(path, (PRESENT, time.time() - 301))
    with take(tmp_path, STALE) as lock:
        assert "it is damaged" in lock.note


def test_clocks_of_machines_need_not_agree(tmp_path, monkeypatch):
    present = time.time()
    monkeypatch.setattr(time, "time", lambda: present + 1e6)
    left_by(tmp_path, living(), 1e6)
    assert isinstance(take(tmp_path, STALE), Held)


def test_signs_of_life_are_given(tmp_path):
    with take(tmp_path, 0.01):
        signs = set()
        for _ in range(30):
            signs.add((tmp_path / locks.NAME).stat().st_mtime_ns)
            time.sleep(0.03)
    assert len(signs) > 2


def wait_for(event):
    assert event.wait(5)


def test_a_lock_that_was_taken_away_is_noticed_and_left_alone(tmp_path):
    alarms = []
    lock = take(tmp_path, 0.01, lambda: alarms.append(1))
    other = json.dumps(asdict(living()))
    files.write(tmp_path / locks.NAME, other)
    wait_for(lock.lost)
    lock.release()
    assert alarms == [1]
    assert (tmp_path / locks.NAME).read_text() == other


def test_a_lock_that_somebody_removed_comes_back(tmp_path):
    with take(tmp_path, 0.01) as lock:
        text = (tmp_path / locks.NAME).read_text()
        (tmp_path / locks.NAME).unlink()
        time.sleep(0.5)
        assert (tmp_path / locks.NAME).read_text() == text
        assert not lock.lost.is_set()


def test_one_who_comes_late_to_a_void_lock_leaves_the_new_one_alone(tmp_path):
    """Between his seeing a void lock and taking it over, another was quicker."""
    void = locks._look(left_by(tmp_path, dead()))
    with take(tmp_path, STALE):
        new = (tmp_path / locks.NAME).read_text()
        assert not locks._displace(tmp_path / locks.NAME, void, "late", STALE)
        assert (tmp_path / locks.NAME).read_text() == new
    assert list(tmp_path.iterdir()) == []


def test_one_who_is_killed_while_taking_over_keeps_nobody_off(tmp_path, monkeypatch):
    left_by(tmp_path, dead())
    me, killed = locks.holder(), dead()
    monkeypatch.setattr(locks, "holder", lambda: killed)
    with monkeypatch.context() as patch:
        patch.setattr(files, "write", lambda *arguments: 1 / 0)
        patch.setattr(Path, "unlink", lambda *arguments, **more: None)
        with pytest.raises(ZeroDivisionError):
            take(tmp_path, STALE)
    for path in tmp_path.glob("*.partial"):
        path.unlink()
    assert len(list(tmp_path.iterdir())) == 2  # the void lock, and the guard of one who is gone
    monkeypatch.setattr(locks, "holder", lambda: me)
    with take(tmp_path, STALE) as lock:
        assert "that process is gone" in lock.note
    assert list(tmp_path.iterdir()) == []


def test_while_another_takes_over_a_void_lock_it_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "TURNS", 3)
    path = left_by(tmp_path, dead())
    monkeypatch.setattr(locks, "_displace", lambda *arguments: False)
    found = take(tmp_path, STALE)
    assert (type(found), found.doubtful) == (Held, True)
    assert path.exists()


def test_without_hard_links_a_lock_is_made_all_the_same(tmp_path, monkeypatch):
    def link(*paths):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    with take(tmp_path, STALE):
        assert isinstance(take(tmp_path, STALE), Held)
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_can_neither_be_taken_nor_read_is_named(tmp_path):
    (tmp_path / locks.NAME).symlink_to("nowhere")
    with pytest.raises(UserError, match=r"lock.json can neither be taken nor read: if no other job"):
        take(tmp_path, STALE)


def test_the_environment_names_the_job():
    assert str(locks.holder({"SLURM_JOB_ID": "7"})).endswith(", Slurm job 7")
    assert locks.holder({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "2"}).start == "2"
    assert str(locks.holder({})) == f"{files.machine().host}, process {os.getpid()}"


@pytest.mark.parametrize("text", ["", "[" * 100_000, "[]", '{"pid": 1}', "\udcff"])
def test_a_lock_without_a_word_of_sense_is_void_once_it_is_old(tmp_path, text):
    path = tmp_path / locks.NAME
    path.write_text(text, errors="surrogateescape")
    found = take(tmp_path, STALE)
    assert isinstance(found, Held)
    assert "its file names no process" in str(found)
    os.utime(path, (0, time.time() - 61 * STALE))
    with take(tmp_path, STALE) as lock:
        assert "it is damaged" in lock.note


def test_a_lock_whose_fields_are_of_other_kinds_is_one_without_a_name(tmp_path):
    (tmp_path / locks.NAME).write_text(json.dumps(asdict(living()) | {"pid": "x"}))
    assert "its file names no process" in str(take(tmp_path, STALE))


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_a_lock_that_is_no_file_is_named(tmp_path, make):
    make(tmp_path / locks.NAME)
    with pytest.raises(UserError, match=r"lock.json is (a folder|a FIFO), and .*: if no other job .* remove it"):
        take(tmp_path, STALE)
