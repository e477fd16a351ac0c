import json
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import pytest

from rfjax import files
from rfjax.buckets import Conflict, Place
from rfjax.errors import UserError
from rfjax.study import bucket_locks, locks
from rfjax.study.bucket_locks import BucketLock, is_held, take
from rfjax.study.locks import Held

STALE = 5.0  # minutes


@pytest.fixture
def place(memory):
    return memory / "study/runs/d1/lock.json"


def left_by(place, holder):
    place.write(json.dumps(asdict(holder) | {"sign": 3}).encode())


def dead():
    done = subprocess.Popen([sys.executable, "-c", ""])
    known = replace(locks.holder(), pid=done.pid, started=files.started(done.pid) or "")
    done.wait()
    return known


def elsewhere():
    return replace(locks.holder(), host="other", boot="b", space="s")


def test_one_has_it_until_it_is_released(place):
    with take(place, STALE) as lock:
        assert isinstance(lock, BucketLock)
        assert lock.ours()
        assert is_held(place)
        other = take(place, STALE)
        assert isinstance(other, Held)
        assert not other.doubtful
        assert f"process {files.os.getpid()}" in str(other)
    assert not is_held(place)
    with take(place, STALE) as again:
        assert again.note == ""
    assert [entry.name for entry in place.parent.entries()] == ["lock.json"]


def test_of_many_that_take_it_at_the_same_moment_one_gets_it(place):
    for _ in range(10):
        start, found = threading.Barrier(6), []

        def contend(start=start, found=found):
            start.wait()
            found.append(take(place, STALE))

        threads = [threading.Thread(target=contend) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (ours,) = [one for one in found if isinstance(one, BucketLock)]
        ours.release()


def test_the_lock_of_a_dead_process_is_taken_over_at_once_and_by_one(place):
    for _ in range(5):
        left_by(place, dead())
        found = [take(place, STALE) for _ in range(2)]
        assert [type(one) for one in found] == [BucketLock, Held]
        assert "that process is gone): taken over" in found[0].note
        found[0].release()


def test_a_lock_of_another_machine_is_void_once_it_is_silent(place, monkeypatch):
    left_by(place, elsewhere())
    held = take(place, STALE)
    assert isinstance(held, Held)
    assert held.by.startswith("other, process")
    for seconds, doubtful in ((59.0, False), (70.0, True), (299.0, True)):
        monkeypatch.setattr(bucket_locks, "_silent", lambda *_, seconds=seconds: seconds)
        found = take(place, STALE)
        assert (found.silent, found.doubtful) == (seconds, doubtful)
    monkeypatch.setattr(bucket_locks, "_silent", lambda *_: 301.0)
    with take(place, STALE) as lock:
        assert "no sign of life for 301 s" in lock.note


def test_time_is_the_store_s_own(place):
    place.write(b"x")
    assert 0 <= bucket_locks._silent(place, place.look().modified) < 2
    assert [entry.name for entry in place.parent.entries()] == ["lock.json"]


def test_signs_of_life_change_the_object_and_a_lost_lock_is_noticed(place, monkeypatch):
    monkeypatch.setattr(bucket_locks, "SHORTEST", 0.02)
    alarms = []
    lock = take(place, 0.3 / 60, lambda: alarms.append(1))
    first = place.look()
    assert until(lambda: place.look().data != first.data)
    before = take(place, STALE).sign
    assert until(lambda: take(place, STALE).sign != before)
    left_by(place, elsewhere())  # as if this process had been suspended
    assert until(lambda: alarms == [1])
    assert not lock.ours()
    text = place.look().data
    lock.release()
    assert place.look().data == text  # the other's stays


def test_a_suspended_process_asks_before_it_writes(place):
    lock = take(place, STALE)
    left_by(place, elsewhere())
    assert lock.ours()  # nobody may have taken it so soon
    lock._signed -= 61
    assert not lock.ours()
    lock.release()


def test_an_answer_that_was_lost_is_no_lost_lock(place, monkeypatch):
    lock = take(place, STALE)
    real = Place.write

    def write_and_lose(self, data, condition="overwrite"):
        real(self, data, condition)
        raise Conflict

    with monkeypatch.context() as patched:
        patched.setattr(Place, "write", write_and_lose)
        lock._sign()
    lock._signed -= 61
    assert lock.ours()
    lock.release()
    assert not is_held(place)


def test_a_store_without_an_answer_is_no_lost_lock(place, monkeypatch):
    lock = take(place, STALE)

    def fail(*_):
        raise UserError("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(Place, "write", fail)
        lock._signed -= 61
        assert lock.ours()
        with pytest.raises(UserError, match="no answer"):
            take(place.parent / "other.json", STALE)
    lock.release()


def until(true):
    for _ in range(500):
        if true():
            return True
        time.sleep(0.01)
    return False
