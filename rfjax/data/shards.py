"""Data sets in many files: which file belongs to which split, and reading a part of one."""

import functools
import os
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from rfjax import buckets, untrusted
from rfjax.config.paths import expanded
from rfjax.data import paths
from rfjax.data.types import Split
from rfjax.errors import UserError

OPEN = 128  # files that stay open
_WORDS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
}


def split_in(name: str) -> str:
    """The split that a file's path names, such as "train" of "data/train-00000-of-00002.parquet"; "" without one."""
    words = re.findall(r"[a-z]+", name.lower())
    return next((_WORDS[word] for word in reversed(words) if word in _WORDS), "")


def find(path: str, suffix: str, split: Split, outside: bool) -> tuple[Path, list[str], bool]:
    """The files of a split of the data set that config.data.path names.

    If no name says "validation", the files that say "train", or no split at all, hold both.

    Args:
        path: a folder, or one file.
        suffix: of the files, such as ".tar"; hidden files don't count.
        split: "train", "validation" or "test".
        outside: whether links may lead out of the folder.

    Returns:
        The folder; the files of the split, sorted, relative to it; and whether a hash must divide their records
        into training and validation.

    Raises:
        UserError: if there are none.
    """
    remote = buckets.is_address(path)
    root, found = _in_bucket(path, suffix) if remote else _here(path, suffix)
    if not found:
        what = "is not a folder" if not (remote or root.is_dir()) else f"has no {suffix} files"
        raise UserError(f"config.data.path = '{path}' {what}: it must be a folder of them, or one file")
    if not (outside or remote):
        paths.check_inside(root, found, f"'{root}'")
    named = {name: split_in(name) for name in found}
    mixed = "validation" not in named.values()
    wanted = {"train", ""} if split == "train" or (split == "validation" and mixed) else {split}
    files = [name for name in found if named[name] in wanted]
    if not files:
        raise UserError(
            f"config.data.path = '{path}' has {len(found)} {suffix} files, and none whose name says '{split}'"
        )
    return root, files, mixed and split != "test"


def _here(path: str, suffix: str) -> tuple[Path, list[str]]:
    root = expanded(path, "config.data.path")
    return (root.parent, [root.name]) if root.is_file() else (root, sorted(_below(root, suffix)))


def _in_bucket(path: str, suffix: str) -> tuple[Path, list[str]]:
    """The folder as a Path, such as s3:/bucket/folder, which `opened`, `stamp` and `read_at` take, and its files."""
    place = buckets.place(path, "config.data.path")
    if place.name.lower().endswith(suffix) and place.entry():
        return Path(str(place.parent)), [place.name]
    names = [entry.name for entry in place.entries() if entry.name.lower().endswith(suffix)]
    return Path(str(place)), [name for name in names if not any(part.startswith(".") for part in name.split("/"))]


def opened(path: Path) -> BinaryIO:
    """A file of the data set for reading, here or in a bucket; errors as of `untrusted.regular`."""
    return buckets.opened(path) if buckets.is_address(path) else untrusted.regular(path, paths.ANY_SIZE)


def _below(root: Path, suffix: str) -> Iterable[str]:
    for place, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(place).relative_to(root)
        for name in files:
            if name.lower().endswith(suffix) and not name.startswith("."):
                yield (below / name).as_posix()


class _Opened:
    """A file that is closed with the last reference to it, so that no thread reads from a number that is reused."""

    def __init__(self, path: Path) -> None:
        self.number = -1
        with untrusted.regular(path, paths.ANY_SIZE) as file:
            self.number = os.dup(file.fileno())

    def stamp(self) -> tuple[int, int]:
        status = os.fstat(self.number)
        return status.st_size, status.st_mtime_ns

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


def stamp(path: Path) -> tuple[int, int]:
    """A regular file's size in bytes and time of change in ns; errors as of `untrusted.regular`.

    An object in a bucket has a number of its content in place of the time.
    """
    if buckets.is_address(path):
        found = buckets.place(path, "config.data.path").entry()
        if found is None:
            raise UserError(f"there is no object '{path}'")
        return found.size, zlib.crc32(found.tag.encode())
    with untrusted.regular(path, paths.ANY_SIZE) as file:
        status = os.fstat(file.fileno())
        return status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=OPEN)
def _opened(path: Path, known: tuple[int, int]) -> _Opened:
    file = _Opened(path)
    if file.stamp() != known:
        raise UserError(f"'{path}' changed since the run began: start it again")
    return file


def read_at(path: Path, offset: int, size: int, known: tuple[int, int]) -> bytes:
    """A part of a file, for any number of threads.

    Args:
        known: the file's size and time of change, in ns, when it was looked at.

    Raises:
        UserError: if the file changed since, or can't be read.
    """
    if buckets.is_address(path):
        return _read_object(path, offset, size)
    try:
        file = _opened(path, known)
        if file.stamp() != known:
            raise UserError(f"'{path}' changed since the run began: start it again")
        data = os.pread(file.number, size, offset)
        while 0 < len(data) < size:  # Linux reads at most 2 GiB at once
            more = os.pread(file.number, size - len(data), offset + len(data))
            if not more:
                break
            data += more
    except OSError as error:
        raise UserError(f"'{path}' was good when the run began, and can't be read now ({error.strerror})") from error
    if len(data) != size:
        raise UserError(f"'{path}' ends before byte {offset + size:,}: it changed since the run began")
    return data


def _read_object(path: Path, offset: int, size: int) -> bytes:
    try:
        data = buckets.place(path, "config.data.path").read(offset, offset + size)
    except FileNotFoundError as error:
        raise UserError(f"'{path}' was there when the run began, and is gone now") from error
    if len(data) != size:
        raise UserError(f"'{path}' ends before byte {offset + size:,}: it changed since the run began")
    return data
