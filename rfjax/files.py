"""Writes files so that a reader always finds them complete, even after a kill or on a full disk.

A file that is written once gets its name by a rename (`atomic`, `write`); a file that grows does so by complete pieces
(`Growing`). Both survive the death of the process. With `lasting` or `sync` they also survive a power cut, because the
writer waits for the disk. Each write below a folder of `rfjax.ownership` first checks that the folder is still ours.
"""

import contextlib
import errno
import functools
import hashlib
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rfjax.disk import FullDisk, full_disk  # noqa: F401  (for callers that catch it)
from rfjax.errors import UserError
from rfjax.ownership import check_ours

PARTIAL = re.compile(r"\..+\.(?P<place>[\w-]+)\.(?P<pid>\d+)\.partial")
ABANDONED_SECONDS = 3600.0  # age after which a partial file of another machine counts as abandoned
BLOCK = 2**16

_writing: set[Path] = set()  # the partial files that this process is writing


class Machine(NamedTuple):
    """The scope of process numbers: a host since its last boot, and a container on it."""

    host: str
    boot: str
    space: str


@functools.cache
def machine() -> Machine:
    """This machine; `boot` and `space` are empty if the system does not provide them."""
    boot = space = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        space = os.readlink("/proc/self/ns/pid")
    return Machine(socket.gethostname(), boot, space)


def started(pid: int) -> str | None:
    """The start time of a process of this machine, in the system's own units.

    Returns:
        None if the process is gone, "" if the system does not provide its start time.
    """
    try:
        state, *numbers = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
    else:
        return None if state in "ZX" else numbers[18]  # a killed process is a zombie until its parent waits for it
    with contextlib.suppress(PermissionError):
        try:
            os.kill(pid, 0)  # signal 0 only checks that the process exists
        except ProcessLookupError:
            return None
    return ""


def partial_name(path: Path) -> Path:
    """The temporary name of a file that this process writes: hidden, beside it, with the process in its name."""
    host = re.sub(r"[^\w-]", "-", machine().host)[:40]
    place = f"{host}-{hashlib.sha256(repr(machine()).encode()).hexdigest()[:8]}"
    return path.with_name(f".{path.name}.{place}.{os.getpid()}.partial")


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path` and removes that file at the end; after a kill `clean` does."""
    partial = partial_name(path)
    _writing.add(partial)
    try:
        yield partial
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        _writing.discard(partial)


@contextlib.contextmanager
def atomic(path: Path, *, lasting: bool = False) -> Iterator[Path]:
    """Yields a temporary name to write to, and then renames the file to `path`; after an error it removes the file.

    A reader sees the old file or the complete new one. Missing folders are made. The name ends in ".partial", so a
    writer that chooses a format by the suffix needs the format explicitly.

    Args:
        lasting: whether to wait until the disk has the file and its name, so that a power cut leaves the old file or
            the new one; without it, a power cut may leave an empty file. It takes milliseconds (benchmarks/saves.py).

    Raises:
        FullDisk: if the disk has no room.
        FolderTaken: if another process has the folder now.
        UserError: if `path` is a folder, or its folder is a file.
        OSError: if the file can't be written for another reason.
    """
    with full_disk(path), _in_place(path), beside(path) as partial:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        if lasting:
            sync(partial)
        check_ours(path)
        os.replace(partial, path)
        if lasting:
            sync(path.parent)


def write(path: Path, content: str | bytes, *, lasting: bool = False) -> None:
    """Writes a whole file; see `atomic`."""
    with atomic(path, lasting=lasting) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def sync(*paths: Path) -> None:
    """Waits until the disk has the current content of files and folders, if the file system can."""
    for path in paths:
        with contextlib.suppress(OSError):  # some file systems can't sync folders
            opened = os.open(path, os.O_RDONLY)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)


def sync_tree(folder: Path) -> None:
    """Syncs all that is in a folder, the folder itself, and its name in its parent."""
    sync(*folder.rglob("*"), folder, folder.parent)


@contextlib.contextmanager
def _in_place(path: Path) -> Iterator[None]:
    """Turns the errors of a folder in place of a file, and of a file in place of a folder, into a UserError."""
    try:
        yield
    except (IsADirectoryError, NotADirectoryError, FileExistsError) as error:
        wrong = next((p for p in (path, *path.absolute().parents) if p.exists() or p.is_symlink()), path)
        if wrong.is_dir() != (wrong == path):  # another kind of error
            raise
        what = "is a folder, but must be a file" if wrong == path else "is a file, but must be a folder"
        raise UserError(f"{wrong} {what}: move it away and repeat the same command") from error


def clean(*folders: Path) -> None:
    """Removes the partial files that killed processes left in these folders, but not in subfolders.

    Files of this machine are removed if their process is gone, files of other machines an hour after their last change.
    """
    ours = PARTIAL.fullmatch(partial_name(Path("x")).name)
    for folder in folders:
        with contextlib.suppress(OSError):  # another process may clean up too, and nothing depends on it
            for path in folder.iterdir():
                match = PARTIAL.fullmatch(path.name)
                if not match or path in _writing:
                    continue
                here = match["place"] == ours["place"]
                dead = here and (match["pid"] == ours["pid"] or started(int(match["pid"])) is None)
                if dead or time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                    path.unlink(missing_ok=True)


class Growing:
    """A file that grows by complete pieces, such as lines, with one writer at a time.

    A single call writes a piece, so that a reader, or another process after a kill, finds all of it or nothing. Two
    events can still cut a piece: a full disk, after which `append` removes the piece; and a kill during a piece of many
    pages, which the next opening cuts off.
    """

    def __init__(self, path: Path, *, lines: bool = True) -> None:
        """Opens a file; makes it and its folder if they are missing.

        Args:
            lines: whether the pieces are lines; then an incomplete last line is cut off.

        Raises:
            FullDisk: if the disk has no room.
            OSError: if the file can't be opened for another reason.
        """
        self.path = path
        with full_disk(path), _in_place(path):
            check_ours(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            size = os.fstat(self._file).st_size
            if lines and (whole := _whole_lines(self._file, size)) < size:
                os.ftruncate(self._file, whole)

    def append(self, piece: str | bytes) -> None:
        """Adds a piece. A line must include its end.

        Raises:
            FullDisk: if the disk has no room; then nothing of the piece stays.
            FolderTaken: if another process has the folder now.
            OSError: if the piece can't be written for another reason.
        """
        data = piece.encode() if isinstance(piece, str) else piece
        check_ours(self.path)
        with full_disk(self.path):
            done = os.write(self._file, data)
            if done < len(data):  # a regular file takes only a part of the data if there is no more room
                end = os.lseek(self._file, 0, os.SEEK_CUR)
                if os.fstat(self._file).st_size == end:
                    os.ftruncate(self._file, end - done)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def sync(self) -> None:
        """Waits until the disk has all pieces."""
        with full_disk(self.path):
            os.fsync(self._file)

    def empty(self) -> bool:
        return os.fstat(self._file).st_size == 0

    def close(self) -> None:
        """Closes the file if it is open. A shared file system may report a full disk only now."""
        file, self._file = self._file, None
        if file is not None:
            with full_disk(self.path):
                os.close(file)


def append_line(path: Path, line: str) -> None:
    """Adds one line to a file that several processes write to; see `Growing`."""
    with contextlib.closing(Growing(path)) as file:
        file.append(f"{line}\n")


def _whole_lines(file: int, size: int) -> int:
    """Bytes up to the last end of a line."""
    end = size
    while end:
        start = max(0, end - BLOCK)
        if (place := os.pread(file, end - start, start).rfind(b"\n")) >= 0:
            return start + place + 1
        end = start
    return 0
