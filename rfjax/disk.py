"""Turns all errors of a full disk into one sentence."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from rfjax.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_WORDS = tuple(os.strerror(number).lower() for number in FULL)  # the errors of C++ libraries have only these words


class FullDisk(UserError):
    """The disk is full, so that all other writes would fail as well."""


@contextlib.contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """Turns the errors of a full disk, including those of libraries, into one sentence.

    Args:
        path: the file or the folder that is written.

    Raises:
        FullDisk: in place of such an error; other errors pass unchanged.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not _is_full(error):
            raise
        raise FullDisk(
            f"the disk has no room to write {path} ({_free_space(path)}): free some space and repeat the same command, "
            "which continues from the last checkpoint"
        ) from error


def _is_full(error: BaseException | None) -> bool:
    """Whether an error, or one of its causes, reports a full disk by number or in words."""
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


def _free_space(path: Path) -> str:
    """The free space of the file system of `path`, in words."""
    folder = next((p for p in (path, *path.absolute().parents) if p.is_dir()), Path("/"))
    try:
        free, files = shutil.disk_usage(folder).free, os.statvfs(folder)
    except OSError:
        return "its free space is unknown"
    if files.f_files and not files.f_favail:
        return f"{_size(free)} are free in {folder}, but it can hold no more files"
    return f"{_size(free)} are free in {folder}" + (", so it may be a quota" if free > 2**30 else "")


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"
