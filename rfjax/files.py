"""Files that a reader finds whole, whenever a process is killed and whenever a disk is full.

What is written once takes its place by a rename (`atomic`, `write`); what grows does so by whole pieces (`Growing`).
Both are safe from the death of a process. Those whose loss would cost work wait for the disk too (`lasting`, `sync`),
and so outlive the machine's. Each write below a folder of `rfjax.ownership` first asks whether it is still ours.
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

from rfjax.errors import UserError
from rfjax.ownership import check_ours
from rfjax.room import FullDisk, full_disk  # noqa: F401  (for those who catch what this module raises)

PARTIAL = re.compile(r"\..+\.(?P<place>[\w-]+)\.(?P<pid>\d+)\.partial")
FORGOTTEN = 3600.0  # seconds after which a partial file of another machine is taken for a dead process's
BLOCK = 2**16

_writing: set[Path] = set()  # the partial files that this process has open now


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
def atomic(path: Path, *, lasting: bool = False) -> Iterator[Path]:
    """Yields a temporary name to write to; then it takes the place of `path`, or vanishes after an error.

    A reader sees the old file or the whole new one. The folder is made if need be. The name ends in ".partial", so a
    writer that goes by the ending must be told the format.

    Args:
        lasting: wait until the disk has the file and its name, so that a power cut leaves the old one or the new one;
            else it may leave an empty one. It takes milliseconds (benchmarks/saves.py).

    Raises:
        FullDisk: if there is no room. Taken: if the folder is another's by now. UserError: if a folder has this name,
        or a file that of its folder. OSError: if it can't be written for another reason.
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
    """Waits until the disk has files and folders as they are now, as far as the file system can."""
    for path in paths:
        with contextlib.suppress(OSError):  # some file systems sync no folders; then nothing better can be done
            opened = os.open(path, os.O_RDONLY)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)


def sync_tree(folder: Path) -> None:
    """`sync` for all that is in a folder, for itself, and for its name in the folder that it is in."""
    sync(*folder.rglob("*"), folder, folder.parent)


@contextlib.contextmanager
def _in_place(path: Path) -> Iterator[None]:
    """Turns the errors of a folder that has a file's name, and of a file that has a folder's, into one sentence.

    Raises:
        UserError: in place of them.
    """
    try:
        yield
    except (IsADirectoryError, NotADirectoryError, FileExistsError) as error:
        wrong = next((p for p in (path, *path.absolute().parents) if p.exists() or p.is_symlink()), path)
        if wrong.is_dir() != (wrong == path):  # not what this is about
            raise
        what = "is a folder, where a file should be" if wrong == path else "is a file, where a folder should be"
        raise UserError(f"{wrong} {what}: move it away, and the same command makes what belongs there") from error


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
        with full_disk(path), _in_place(path):
            check_ours(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            size = os.fstat(self._file).st_size
            if lines and (whole := _whole_lines(self._file, size)) < size:
                os.ftruncate(self._file, whole)

    def append(self, piece: str | bytes) -> None:
        """Adds a piece; a line brings its own end.

        Raises:
            FullDisk: if it does not fit; then nothing of it stays. Taken: if the folder is another's by now.
            OSError: if it can't be written for another reason.
        """
        data = piece.encode() if isinstance(piece, str) else piece
        check_ours(self.path)
        with full_disk(self.path):
            done = os.write(self._file, data)
            if done < len(data):  # a regular file takes less than all of it only where there is no room
                end = os.lseek(self._file, 0, os.SEEK_CUR)
                if os.fstat(self._file).st_size == end:
                    os.ftruncate(self._file, end - done)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def sync(self) -> None:
        """Waits until the disk has all that was added."""
        with full_disk(self.path):
            os.fsync(self._file)

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
