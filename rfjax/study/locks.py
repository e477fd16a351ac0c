"""Lock files on shared file systems, so that only one job at a time works on a run.

A lock is the file `lock.json` in the run's folder. It names the process that has it, and its time of change is that
process's last sign of life. A hard link makes it, which succeeds for one process only, on NFS too. All times are the
file system's own, so that the machines' clocks need not agree.
"""

import contextlib
import errno
import functools
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple

from rfjax import files
from rfjax.errors import UserError
from rfjax.study.lock_holder import MISSED, SHORTEST, SIGNS, Holder, holder, seconds_of_doubt
from rfjax.untrusted import parse_json, regular

NAME = "lock.json"
LARGEST = 2**16  # bytes of a lock; it has some hundreds
TURNS = 100  # attempts to take a lock while others take and release it
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


@dataclass(frozen=True)
class Held:
    """A lock that another job has.

    Attributes:
        by: the other process, in words.
        silent: seconds since its last sign of life.
        sign: time of its last sign of life, in ns of the file system.
        doubtful: whether it may be dead; a later look then shows another sign of life, or the lock becomes void.
    """

    by: str
    silent: float
    sign: int
    doubtful: bool

    def __str__(self) -> str:
        return f"another job has it ({self.by}, sign of life {self.silent:.0f} s ago)"


class Lock(contextlib.AbstractContextManager):
    """A lock that this process has until `release` or the end of a `with`. A thread gives its signs of life.

    Attributes:
        note: a sentence about the void lock that it replaced, or "".
        lost: set if another job has taken the lock, because this process was suspended until its lock was void.
    """

    def __init__(self, path: Path, text: str, every: float, alarm: Callable[[], None], note: str = "") -> None:
        self.note, self.lost = note, threading.Event()
        self._path, self._text, self._every, self._alarm = path, text, every, alarm
        self._signed = time.time()  # this clock continues while a process or its machine is suspended
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lock", daemon=True)
        self._thread.start()

    def ours(self) -> bool:
        """Whether the file shows that this process still has the lock; sets `lost` if not.

        When a suspended process resumes, the thread that gives signs of life may not have run yet. A missing file is
        made again, unless this process was silent for so long that another job may have taken and released the lock.
        """
        try:
            seen = _look(self._path)
            if seen is None and time.time() - self._signed < MISSED * self._every:
                _create(self._path, self._text)
                seen = _look(self._path)
            if seen is None or seen.text != self._text:
                self.lost.set()
        except (OSError, UserError):
            pass  # the file system is unavailable or full, which is no reason to stop
        return not self.lost.is_set()

    def _renew(self) -> None:
        while not self._over.wait(self._every):
            if not self.ours():
                self._alarm()
                return
            with contextlib.suppress(OSError):
                os.utime(self._path)
                self._signed = time.time()

    def release(self) -> None:
        """Releases the lock, if this process has it. A file that can't be removed is void after the process ends."""
        self._over.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            seen = _look(self._path)
            if seen and seen.text == self._text:
                self._path.unlink()

    def __exit__(self, *raised: object) -> None:
        self.release()


class _Seen(NamedTuple):
    """The content of a lock file, and its last sign of life in ns."""

    text: str
    sign: int


def take(folder: Path, stale_minutes: float, alarm: Callable[[], None] = lambda: None) -> Lock | Held:
    """Takes the lock of a folder; replaces a void lock.

    A lock is void at once if its process was on this machine and is gone. If this process seems to replace that process
    (`Holder.replaced`), it is void after a fifth of `stale_minutes` without a sign of life, else after `stale_minutes`.

    Args:
        stale_minutes: see config.cluster.stale_minutes.
        alarm: called by another thread if the lock is lost, see `Lock`.

    Returns:
        This process's lock, or the lock that another job has.

    Raises:
        UserError: if the disk has no room, or the lock can neither be taken nor read.
        OSError: if the folder can't be written.
    """
    path, stale, held = folder / NAME, 60 * stale_minutes, None
    text = json.dumps(asdict(holder()), indent=1) + "\n"
    ours = functools.partial(Lock, path, text, max(stale / SIGNS, SHORTEST), alarm)
    for _ in range(TURNS):
        if _create(path, text):
            return ours()
        if seen := _look(path):
            other, silent = read_holder(seen.text), max(_now(path) - seen.sign, 0) / 1e9
            who, reason = str(other or "its file names no process"), _void(seen, silent, stale)
            doubtful = bool(reason or silent > seconds_of_doubt(stale) or (other and other.replaced()))
            held = Held(who, silent, seen.sign, doubtful)
            if not reason:
                return held
            if _displace(path, seen, text, stale):
                return ours(f"the lock of another job ({who}) is void ({reason}): taken over")
        time.sleep(0.01)  # the lock was just released, or another job is taking it over
    if held:
        return held
    raise UserError(f"{path} can neither be taken nor read: if no other job works in that folder, remove it")


def _void(seen: _Seen, silent: float, stale: float) -> str:
    """Why a lock is void, or ""."""
    if other := read_holder(seen.text):
        return other.void(silent, stale)
    # An unreadable lock is being made, or its process was killed while it made the lock.
    return "it is damaged" if silent > stale else ""


def _displace(path: Path, void: _Seen, text: str, stale: float) -> bool:
    """Replaces a void lock by ours, and returns whether it did.

    This requires a second lock, a guard that is named after the void lock. Without the guard, a late process could
    replace the new lock, which it takes for the void one. A guard whose process was killed is replaced in the same way.
    """
    name = hashlib.sha256(f"{void.sign} {void.text}".encode()).hexdigest()[:12]
    guard = path.with_name(f"{path.name if path.name.startswith('.') else '.' + path.name}.{name}")
    if not _create(guard, text):
        other = _look(guard)
        silent = other and max(_now(guard) - other.sign, 0) / 1e9
        if not other or not _void(other, silent, stale) or not _displace(guard, other, text, stale):
            return False
    try:
        if _look(path) != void:
            return False
        files.write(path, text)
    finally:
        guard.unlink(missing_ok=True)
    if path.name == NAME:
        for left in path.parent.glob(f".{NAME}.*[0-9a-f]"):  # guards of killed processes
            left.unlink(missing_ok=True)
    return True


def _look(path: Path) -> _Seen | None:
    """The content of a lock file, or None; read after a new opening, because NFS then asks its server for the state."""
    try:
        with regular(path, fix="if no other job works in that folder, remove it") as file:
            text = file.read(LARGEST).decode(errors="replace")
            return _Seen(text, os.fstat(file.fileno()).st_mtime_ns)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ESTALE:  # NFS: the file was removed while it was opened
            return None
        raise


def read_holder(text: str) -> Holder | None:
    """The holder that a lock's text names, or None if the text is damaged."""
    try:
        known = Holder(**parse_json(text, NAME))
    except (UserError, TypeError):
        return None
    kinds = ((field.name, int if field.name == "pid" else str) for field in fields(Holder))
    return known if all(type(getattr(known, name)) is kind for name, kind in kinds) else None


def _now(path: Path) -> int:
    """The file system's current time in ns."""
    with files.beside(path.with_name("clock")) as clock:
        clock.touch()
        os.utime(clock)
        return clock.stat().st_mtime_ns


def _create(path: Path, text: str) -> bool:
    """Makes a complete lock file; returns False if there already is one."""
    with files.full_disk(path), files.beside(path) as partial:
        partial.write_text(text, encoding="utf-8")
        try:
            os.link(partial, path)
            return True
        except FileExistsError:
            return partial.stat().st_nlink == 2  # NFS may send a request twice, and refuse the second
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
        try:
            made = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        try:
            os.write(made, text.encode())
        finally:
            os.close(made)
        return True
