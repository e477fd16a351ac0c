"""Files that a reader finds whole, whenever a process is killed and whenever a disk is full.

What is written once takes its place by a rename (`atomic`, `write`); what grows does so by whole pieces (`Growing`).
Both are safe from the death of a process, not from that of a machine: nothing waits for the disk.
"""

import contextlib
import errno
import functools
import hashlib
import os
import re
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from rfjax.errors import UserError

PARTIAL = re.compile(r"\..+\.(?P<place>[\w-]+)\.(?P<pid>\d+)\.partial")
FORGOTTEN = 3600.0  # seconds after which a partial file of another machine is taken for a dead process's
BLOCK = 2**16
FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_WORDS = tuple(os.strerror(number).lower() for number in FULL)  # libraries in C++ raise errors with these words

_writing: set[Path] = set()  # the partial files that this process has open now


class FullDisk(UserError):
    """There is no room left: every other write would fail as well."""


class Machine(NamedTuple):
    """Where process numbers mean something: a host since its last start, and there one container."""

    host: str
    boot: str
    space: str


@functools.cache
def machine() -> Machine:
    """This machine; the last two are empty where the system does not tell."""
    boot = space = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        space = os.readlink("/proc/self/ns/pid")
    return Machine(socket.gethostname(), boot, space)


def started(pid: int) -> str | None:
    """When a process of this machine started, in the system's own units; None if it is gone, "" where nobody knows."""
    try:
        state, *numbers = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
    else:
        return None if state in "ZX" else numbers[18]  # a killed process stays a zombie until its parent looks
    try:
        os.kill(pid, 0)  # asks only
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""


def partial_name(path: Path) -> Path:
    """The temporary name of a file while this process writes it: hidden, beside it, with the process in its name."""
    host = re.sub(r"[^\w-]", "-", machine().host)[:40]
    place = f"{host}-{hashlib.sha256(repr(machine()).encode()).hexdigest()[:8]}"
    return path.with_name(f".{path.name}.{place}.{os.getpid()}.partial")


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path`; what has that name at the end vanishes, or by `clean` after a kill."""
    partial = partial_name(path)
    _writing.add(partial)
    try:
        yield partial
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        _writing.discard(partial)


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary name to write to; then it takes the place of `path`, or vanishes after an error.

    A reader sees the old file or the whole new one. The folder is made if need be. The name ends in ".partial", so a
    writer that goes by the ending must be told the format.

    Raises:
        FullDisk: if there is no room. OSError: if it can't be written for another reason.
    """
    with full_disk(path), beside(path) as partial:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, path)


def write(path: Path, content: str | bytes) -> None:
    """Writes a whole file; see `atomic`."""
    with atomic(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def clean(*folders: Path) -> None:
    """Removes the partial files that killed processes left in these folders (not in those within them).

    Those of this machine go if their process is gone, those of others an hour after their last change.
    """
    ours = PARTIAL.fullmatch(partial_name(Path("x")).name)
    for folder in folders:
        with contextlib.suppress(OSError):  # another process may clean up too; and nothing depends on it
            for path in folder.iterdir():
                found = PARTIAL.fullmatch(path.name)
                if not found or path in _writing:
                    continue
                here = found["place"] == ours["place"]
                dead = here and (found["pid"] == ours["pid"] or started(int(found["pid"])) is None)
                if dead or time.time() - path.stat().st_mtime > FORGOTTEN:
                    path.unlink(missing_ok=True)


class Growing:
    """A file that grows by whole pieces (lines, records), and by one writer at a time.

    A piece is handed over by a single call, so that a reader, or another process after a kill, finds all of it or
    nothing. Two things can cut one all the same: a full disk, after which the piece is taken back at once; and a kill
    in the midst of a piece of many pages, which is cut off at the next opening.
    """

    def __init__(self, path: Path, *, lines: bool = True) -> None:
        """Opens a file, making it and its folder if need be; where it holds lines, cuts off an unfinished last one.

        Raises:
            FullDisk: if there is no room. OSError: if it can't be opened for another reason.
        """
        self.path = path
        with full_disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            size = os.fstat(self._file).st_size
            if lines and (whole := _whole_lines(self._file, size)) < size:
                os.ftruncate(self._file, whole)

    def append(self, piece: str | bytes) -> None:
        """Adds a piece; a line brings its own end.

        Raises:
            FullDisk: if it does not fit; then nothing of it stays. OSError: if it can't be written for another reason.
        """
        data = piece.encode() if isinstance(piece, str) else piece
        with full_disk(self.path):
            done = os.write(self._file, data)
            if done < len(data):  # a regular file takes less than all of it only where there is no room
                end = os.lseek(self._file, 0, os.SEEK_CUR)
                if os.fstat(self._file).st_size == end:
                    os.ftruncate(self._file, end - done)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def empty(self) -> bool:
        return os.fstat(self._file).st_size == 0

    def close(self) -> None:
        """Closes the file, if it is open; a shared file system may say only here that there is no room."""
        file, self._file = self._file, None
        if file is not None:
            with full_disk(self.path):
                os.close(file)


def append_line(path: Path, line: str) -> None:
    """Adds one line to a file that many processes add to, each now and then; see `Growing`."""
    file = Growing(path)
    try:
        file.append(f"{line}\n")
    finally:
        file.close()


def _whole_lines(file: int, size: int) -> int:
    """Bytes up to the last end of a line."""
    end = size
    while end:
        start = max(0, end - BLOCK)
        if (found := os.pread(file, end - start, start).rfind(b"\n")) >= 0:
            return start + found + 1
        end = start
    return 0


@contextlib.contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """Turns the errors of a full disk, also those of libraries, into one sentence.

    Args:
        path: the file or the folder that is written.

    Raises:
        FullDisk: in place of them. Any other error passes as it is.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not _is_full(error):
            raise
        raise FullDisk(
            f"there is no room to write {path} ({_room(path)}): nothing before the last checkpoint is lost; make room, "
            "and the same command goes on"
        ) from error


def _is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, says that there is no room: by number, or in words."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        error = waiting.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        if any(words in str(error).lower() for words in FULL_WORDS):
            return True
        waiting += [error.__cause__, error.__context__, *getattr(error, "exceptions", ())]
    return False


def _room(path: Path) -> str:
    """What is left where `path` should go, in words."""
    folder = next((p for p in (path, *path.absolute().parents) if p.is_dir()), Path("/"))
    try:
        free, files = shutil.disk_usage(folder).free, os.statvfs(folder)
    except OSError:
        return "what is left is not known"
    if files.f_files and not files.f_favail:
        return f"{_size(free)} are free in {folder}, but no more files fit there"
    return f"{_size(free)} are free in {folder}" + (", so it may be a quota" if free > 2**30 else "")


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"


def regular(path: Path, limit: int) -> BinaryIO:
    """Opens a user's file to read, and nothing but a file: a FIFO would wait for ever, /dev/zero has no end.

    Args:
        path: of the file; links are followed. limit: bytes, above which it is refused.

    Returns:
        The file, open in binary mode; a read of all of it takes `limit` bytes at most, unless the file grows.

    Raises:
        UserError: if it is a folder, a FIFO, a socket or a device, or too large. OSError: if it can't be opened.
    """
    # Non-blocking: a FIFO without a writer would hold up the opening itself. Regular files don't know the difference.
    opened = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode):
            kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
            kind = kinds.get(stat.S_IFMT(status.st_mode), "a device")
            raise UserError(f"{path} is {kind}, and must be a file: put the file itself there")
        if status.st_size > limit:
            raise UserError(f"{path} has {_size(status.st_size)}, and {_size(limit)} is the most that is read of it")
        return os.fdopen(opened, "rb")
    except BaseException:
        os.close(opened)
        raise
