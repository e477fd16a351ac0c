"""A work folder in a bucket: the job works in a local folder, and this module keeps the bucket and the folder alike.

Why a mirror, and not a second implementation of every read and write: rfjax's files are written whole under a
temporary name or grow by complete pieces, so a copy of a file at any moment is a file that a kill could have left, and
each reader copes with those already. What an object store lacks (to append, to rename) stays in the local folder. A
file that grows is written again as a whole, every EVERY seconds at most: the metrics of a long run have some megabytes,
and parts would have to be put together by whoever looks into the bucket.

What counts, counts in the bucket. Each start makes an empty folder and reads the bucket into it; no job trusts what an
earlier one left on this machine. Files go up in the order of their last change. Three barriers wait for that
(`publish`): before the last object of a checkpoint, so that a checkpoint never lacks the lines before it; before a
run's lock is released; and before the process ends. A kill loses what was written since: the run goes on from the last
checkpoint in the bucket, to the same bits.

The arrays of checkpoints (`*.part`) are no part of the mirror: each process writes its own to the bucket and reads
those that it needs (rfjax/training/parts.py), because a pod's hosts share no disk. Locks live in the bucket alone
(rfjax/study/bucket_locks.py). Each process of a job has its own mirror, and one alone writes, as on a shared disk. Two
jobs at one study have a mirror each of the whole study: a job writes only what it has changed itself, and reads a run's
folder again when it takes the run (`refresh`).
"""

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from rfjax import files, ownership
from rfjax.buckets.cache import fetch
from rfjax.buckets.place import Conflict, Entry, Place, tag_of
from rfjax.errors import UserError

EVERY = 10.0  # seconds between two looks for changed files
THREADS = 16  # files that are read at the same time
LARGE = 2**26  # bytes from which on a file is sent from the disk, in pieces
SENT = ".npy"  # suffix of what a job writes and does not read again: a mirror sends it, and does not keep it here
PARTS = ".part"  # suffix of a checkpoint's arrays
LOCK = "lock.json"


class _Known(NamedTuple):
    """A file that the bucket and the folder have alike: the object's tag; the file's time of change, size and inode."""

    tag: str
    stamp: tuple[int, int, int]


class Mirror:
    """A folder of this machine that holds what a folder of a bucket holds."""

    def __init__(self, source: Place, folder: Path, *, writes: bool = True) -> None:
        """Reads the bucket's folder into a new local one.

        Args:
            source: the bucket's folder.
            folder: the local one, empty.
            writes: whether changes go to the bucket.

        Raises:
            UserError: if the bucket can't be read.
        """
        self.source, self.folder, self._writes = source, folder.absolute(), writes
        self._known: dict[str, _Known] = {}
        self._lock = threading.RLock()
        self._over = threading.Event()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.refresh(self.folder)
        self._thread = threading.Thread(target=self._repeat, name="mirror", daemon=True)
        if writes:
            self._thread.start()

    def place_of(self, path: Path) -> Place:
        """The object, or the folder in the bucket, of a local path below the folder."""
        inner = path.absolute().relative_to(self.folder).as_posix()
        return self.source if inner == "." else self.source / inner

    def refresh(self, below: Path) -> None:
        """Reads what other jobs have changed in the bucket; what this one has changed and not yet written stays.

        Raises:
            UserError: if the bucket can't be read, or the disk has no room.
        """
        with self._lock, files.full_disk(self.folder):
            where = self.place_of(below)
            start = where.key[len(self.source.key) :].strip("/")
            prefix = f"{start}/" if start else ""
            entries = [one for one in where.entries() if not (self._writes and one.name.endswith(SENT))]
            there = {f"{prefix}{one.name}": one for one in entries if _mirrored(one.name)}
            changed = [name for name, entry in there.items() if self._outdated(name, entry)]
            with ThreadPoolExecutor(THREADS, "refresh") as pool:
                fetched = pool.map(lambda name: self._fetch(name, there[name]), changed)
                self._known |= {name: known for name, known in zip(changed, fetched, strict=True) if known}
            for name in [name for name in self._known if name.startswith(prefix) and name not in there]:
                if _stamp(self.folder / name) in (None, self._known[name].stamp):  # another job has removed it
                    (self.folder / name).unlink(missing_ok=True)
                    del self._known[name]

    def _outdated(self, name: str, entry: Entry) -> bool:
        known, stamp = self._known.get(name), _stamp(self.folder / name)
        if known is None:
            return stamp is None
        return known.tag != entry.tag and stamp == known.stamp

    def _fetch(self, name: str, entry: Entry) -> _Known | None:
        try:
            fetch(self.source / name, self.folder / name)
        except FileNotFoundError:  # another job has just removed it
            return None
        return _Known(entry.tag, _stamp(self.folder / name) or (0, 0, 0))

    def publish(self) -> None:
        """Writes all changes to the bucket, oldest first, and returns once it has them.

        Files of a folder that another job has taken (`rfjax.ownership`) are left out, now and later.

        Raises:
            UserError: if the bucket can't be written.
        """
        if not self._writes:
            return
        with self._lock:
            stamps = {name: stamp for name in self._local() if (stamp := _stamp(self.folder / name))}
            changed = [name for name, stamp in stamps.items() if self._stamp_known(name) != stamp]
            for name in sorted(changed, key=lambda name: (stamps[name][0], name)):
                if not self._ours(name):
                    self._known[name] = _Known("", stamps[name])  # never sent: the next `refresh` reads the other job's
                    continue
                with contextlib.suppress(FileNotFoundError):
                    self._known[name] = self._send(name, stamps[name])
            gone = [name for name in self._known if name not in stamps and not name.endswith(SENT)]
            for name in [name for name in gone if not (self.folder / name).exists()]:
                if self._ours(name):
                    self.source.remove([name])
                del self._known[name]

    def _ours(self, name: str) -> bool:
        try:
            ownership.check_ours(self.folder / name)
        except ownership.FolderTaken:
            return False
        return True

    def _stamp_known(self, name: str) -> tuple[int, int, int] | None:
        known = self._known.get(name)
        return known and known.stamp

    def _send(self, name: str, stamp: tuple[int, int, int]) -> _Known:
        path, target = self.folder / name, self.source / name
        if "/" not in name and name.endswith(".jsonl"):
            return self._send_shared(name)
        known = _Known(tag_of(target.write(path if stamp[1] > LARGE else path.read_bytes())), stamp)
        if name.endswith(SENT):
            path.unlink()
        return known

    def _send_shared(self, name: str) -> _Known:
        """Adds new lines to a file to which other jobs add lines too: `sessions.jsonl`."""
        stamp, ours = _stamp(self.folder / name) or (0, 0, 0), (self.folder / name).read_bytes()
        tag, sent = self._known.get(name, _Known("", (0, 0, 0)))
        new = ours[sent[1] :]
        while True:
            seen = (self.source / name).look()
            if seen is None or tag_of(seen.version) == tag:
                lines = ours
            elif new and seen.data.endswith(new):  # a request that was sent twice
                return _Known("", stamp)
            else:
                lines = seen.data + new
            with contextlib.suppress(Conflict):
                written = (self.source / name).write(lines, seen.version if seen else "create")
                return _Known(tag_of(written) if lines == ours else "", stamp)  # "": the next refresh reads the others'

    def _local(self) -> Iterator[str]:
        for root, _, names in os.walk(self.folder):
            inner = Path(root).relative_to(self.folder)
            yield from (name for one in names if _mirrored(name := (inner / one).as_posix()))

    def _repeat(self) -> None:
        while not self._over.wait(EVERY):
            with contextlib.suppress(UserError, OSError):  # the next barrier says it if it lasts
                self.publish()

    def close(self) -> None:
        """Writes all changes, then removes the local folder.

        Raises:
            UserError: if the bucket can't be written; then the folder stays.
        """
        self._over.set()
        if self._writes:
            self._thread.join()
        self.publish()
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()  # of this process, unless it has another mirror


def _mirrored(name: str) -> bool:
    last = name.rpartition("/")[2]
    temporary = last.endswith(".partial") or last.startswith((".clock", ".rfjax-"))
    return not (name.endswith(("/", PARTS)) or last == LOCK or temporary)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
