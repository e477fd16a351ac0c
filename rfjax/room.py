"""A full disk, whatever error says so, as one sentence."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from rfjax.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_WORDS = tuple(os.strerror(number).lower() for number in FULL)  # libraries in C++ raise errors with these words


class FullDisk(UserError):
    """There is no room left: every other write would fail as well."""


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
