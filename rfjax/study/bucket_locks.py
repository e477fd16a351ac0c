"""Locks in buckets, by conditional writes; otherwise as `rfjax.study.locks`.

A lock is the object `lock.json` in the run's folder. It is made only if there is none, and replaced only while it is
still the version that was read; so one job has it, whatever the others do. A sign of life is such a replacement with
another number in it, and its time is the object's, by the store's clock. A store can't remove an object under a
condition, and an unconditional removal might hit another job's lock: an empty object is a released lock, and stays.
"""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from rfjax import files
from rfjax.buckets import Conflict, Place
from rfjax.errors import UserError
from rfjax.study.lock_holder import SHORTEST, SIGNS, holder, seconds_of_doubt
from rfjax.study.locks import TURNS, Held, read_holder
from rfjax.untrusted import parse_json

ANY_SIGN = 2  # seconds: stores count their times in whole ones


class Mine(NamedTuple):
    """A lock that this process wants.

    Attributes:
        fields: what the object holds, see `lock_holder.Holder`.
        stale: seconds without a sign of life until it is void.
        alarm: called by another thread if it is lost.
    """

    place: Place
    fields: dict[str, Any]
    stale: float
    alarm: Callable[[], None]


class BucketLock(contextlib.AbstractContextManager):
    """A lock that this process has until `release` or the end of a `with`; see `locks.Lock`.

    Attributes:
        note: a sentence about the void lock that it replaced, or "".
        lost: set if another job has taken the lock.
    """

    def __init__(self, mine: "Mine", version: Mapping[str, str], note: str = "") -> None:
        """version: of the object, as this process has written it."""
        self.note, self.lost, self._mine, self._version = note, threading.Event(), mine, version
        self._signed, self._number = time.time(), 0  # this clock continues while a process is suspended
        self._changing = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="bucket lock", daemon=True)
        self._thread.start()

    def ours(self) -> bool:
        """Whether this process still has the lock; asks the store only if the last sign of life is old."""
        if not self.lost.is_set() and time.time() - self._signed >= seconds_of_doubt(self._mine.stale):
            self._sign()
        return not self.lost.is_set()

    def _sign(self) -> None:
        """Gives a sign of life; sets `lost` if the object is another's by now."""
        with self._changing, contextlib.suppress(UserError):  # an unavailable store is no reason to stop
            for _ in range(2):
                self._number += 1
                began, text = time.time(), _text(self._mine.fields, self._number)
                try:
                    self._version = self._mine.place.write(text, self._version)
                    self._signed = began
                    return
                except Conflict:
                    seen = self._mine.place.look()
                if not seen or _without_number(seen.data) != _without_number(text):
                    self.lost.set()
                    return
                self._version = seen.version  # an earlier request of ours, whose answer was lost

    def _renew(self) -> None:
        while not self._over.wait(max(self._mine.stale / SIGNS, SHORTEST)):
            self._sign()
            if self.lost.is_set():
                self._mine.alarm()
                return

    def release(self) -> None:
        """Releases the lock, if this process has it. If the store does not answer, it becomes void later."""
        self._over.set()
        self._thread.join()
        with contextlib.suppress(UserError, Conflict):
            self._mine.place.write(b"", self._version)

    def __exit__(self, *raised: object) -> None:
        self.release()


def take(place: Place, stale_minutes: float, alarm: Callable[[], None] = lambda: None) -> BucketLock | Held:
    """Takes the lock at a place; replaces a void lock. See `locks.take`.

    Raises:
        UserError: if the store can't be reached, or the lock changes all the time.
    """
    stale, held = 60 * stale_minutes, None
    mine = Mine(place, asdict(holder()), stale, alarm)
    text = _text(mine.fields, 0)
    for _ in range(TURNS):
        seen, note = place.look(), ""
        if seen and seen.data == text:
            return BucketLock(mine, seen.version)  # an earlier request, whose answer was lost
        if seen and seen.data:
            other, silent = read_holder(_without_number(seen.data)), _silent(place, seen.modified)
            who = str(other or "its object names no process")
            damaged = "it is damaged" if silent > stale else ""
            reason = other.void(silent, max(stale, ANY_SIGN)) if other else damaged
            doubtful = bool(reason or silent > seconds_of_doubt(stale) + ANY_SIGN or (other and other.replaced()))
            held = Held(who, silent, int.from_bytes(str(dict(seen.version)).encode()), doubtful)
            if not reason:
                return held
            note = f"the lock of another job ({who}) is void ({reason}): taken over"
        with contextlib.suppress(Conflict):
            return BucketLock(mine, place.write(text, seen.version if seen else "create"), note)
        time.sleep(0.05)
    if held:
        return held
    raise UserError(f"{place} can't be taken: other jobs take and release it all the time")


def is_held(place: Place) -> bool:
    """Whether there is a lock that was not released."""
    return bool((found := place.entry()) and found.size)


def _text(fields: dict, number: int) -> bytes:
    return (json.dumps(fields | {"sign": number}, indent=1) + "\n").encode()


def _without_number(text: bytes) -> str:
    try:
        fields = parse_json(text, "lock.json")
    except UserError:
        return ""
    return json.dumps({name: value for name, value in fields.items() if name != "sign"})


def _silent(place: Place, modified: datetime) -> float:
    """Seconds since then, by the store's clock."""
    clock = place.parent / f".clock-{files.partial_name(Path('x')).name.strip('.')}"
    clock.write(b"")
    now = clock.look()
    clock.parent.remove([clock.name])
    return max((now.modified - modified).total_seconds(), 0.0) if now else 0.0
