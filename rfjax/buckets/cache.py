"""Data and weights in buckets, read through a local cache of limited size, or by ranges.

`local` is for what is read as files: weights, .npy, array_record. `opened` is for large archives of which a job needs
parts: tar shards, parquet. Both take local paths as they are, so that a reader need not know where its files lie.

RFJAX_CACHE is the cache's folder, RFJAX_CACHE_GB its largest size. Files that no living process of this machine uses
are dropped, those used longest ago first.
"""

import contextlib
import fcntl
import fnmatch
import io
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from rfjax import files
from rfjax.buckets.place import Entry, Place, is_address, place
from rfjax.errors import UserError

FOLDER, SIZE = "RFJAX_CACHE", "RFJAX_CACHE_GB"  # environment variables
DEFAULT_GB = 100.0
THREADS = 8  # files that are read at the same time
BUFFER = 2**20  # bytes that `opened` reads at once

_using: set[str] = set()  # files of the cache that this process uses
_lock = threading.RLock()


def cache_folder() -> Path:
    """The folder of everything that is kept on this machine for buckets."""
    return Path(os.environ.get(FOLDER) or "~/.cache/rfjax").expanduser().absolute()


def limit() -> int:
    """Largest size of the cache in bytes.

    Raises:
        UserError: if RFJAX_CACHE_GB is no number.
    """
    text = os.environ.get(SIZE, "") or str(DEFAULT_GB)
    try:
        value = float(text)
        if not 0 < value < 1e9:
            raise ValueError
    except ValueError:
        raise UserError(f"{SIZE} = '{text}' in the environment must be a number of gigabytes, such as 100") from None
    return int(value * 1e9)


def local(path: str | Path, key: str = "the path") -> Path:
    """A local path with the content of an address: a file, or a folder with all that is below it.

    The files stay in the cache until this process ends or calls `release`. What has changed in the bucket since an
    earlier call is read again.

    Args:
        path: an address, or a path of this machine, which is returned as it is.
        key: the config key that holds it, for messages.

    Raises:
        UserError: if there is nothing at the address, it can't be read, or it is larger than the cache.
    """
    if not is_address(path):
        return Path(path)
    source = whole = place(path, key)
    inner = "/".join(filter(None, (source.scheme, source.bucket, source.key)))
    entries = [one for one in source.entries() if not one.name.endswith("/")]
    if not entries:  # an object has nothing below it
        found = source.entry() if source.key else None
        if found is None:
            raise UserError(f"there is nothing at {key} = '{source}'")
        entries, source = [found], source.parent
    _bring(source, entries, f"{key} = '{whole}'")
    return cache_folder() / "data" / inner


def listed(path: str | Path, pattern: str) -> list[str]:
    """The files directly in a folder whose names match, as addresses or local paths, sorted by name.

    Args:
        pattern: such as "*.tar"; with a "/", as "train/*.parquet", of files below that subfolder.
    """
    if not is_address(path):
        return sorted(str(one) for one in Path(path).glob(pattern))
    folder, _, last = pattern.rpartition("/")
    source = place(path, "the path") / folder if folder else place(path, "the path")
    names = [entry.name for entry in source.entries() if "/" not in entry.name]
    return [str(source / name) for name in names if fnmatch.fnmatchcase(name, last)]


def opened(path: str | Path, key: str = "the path") -> BinaryIO:
    """A file opened for reading bytes at any place; of an address, only the ranges that are read are fetched.

    Raises:
        UserError: if there is no such object, or it can't be read.
        OSError: if a local file can't be opened.
    """
    if not is_address(path):
        return Path(path).open("rb")
    source = place(path, key)
    if (found := source.entry() if source.key else None) is None:
        raise UserError(f"there is no object at {key} = '{source}'")
    return io.BufferedReader(_Ranges(source, found.size), BUFFER)


class _Ranges(io.RawIOBase):
    """An object as a raw file: each read is one request."""

    def __init__(self, source: Place, size: int) -> None:
        self._source, self._size, self._at = source, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:
        data = self._source.read(self._at, min(self._at + len(buffer), self._size))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def release(path: Path) -> None:
    """Lets a file of the cache, or all below a folder of it, be dropped again."""
    with _lock, contextlib.suppress(ValueError):
        inner = path.relative_to(cache_folder() / "data").as_posix()
        _using.difference_update({name for name in _using if name == inner or name.startswith(f"{inner}/")})
        _say_using()


def fetch(source: Place, path: Path) -> None:
    """Writes an object to a local file, which readers see whole or not at all.

    Raises:
        FileNotFoundError: if there is no such object.
        UserError: if it can't be read, or the disk has no room.
    """
    with files.full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.beside(path) as partial:
            with partial.open("wb") as file:
                for piece in source.download():
                    file.write(piece)
            os.replace(partial, path)


def _bring(source: Place, entries: list[Entry], what: str) -> None:
    """Makes the cache hold the newest version of these objects, and room for them first."""
    data, tags = cache_folder() / "data", cache_folder() / "tags"
    prefix = "/".join(filter(None, (source.scheme, source.bucket, source.key)))
    names = {f"{prefix}/{one.name}": one for one in entries}
    with _lock, _exclusive():
        new = set(names) - _using
        _using.update(new)
        _say_using()
        missing = {}
        for name, one in names.items():
            if (data / name).is_file() and _tagged(tags / name, one.tag):
                os.utime(tags / name)
            else:
                missing[name] = one
        try:
            _make_room({name: one.size for name, one in missing.items()}, what)
            with ThreadPoolExecutor(THREADS, "cache") as pool:
                for _ in pool.map(lambda name: _bring_one(source, missing[name], name), missing):
                    pass
        except UserError:
            _using.difference_update(new)
            _say_using()
            raise


def _bring_one(source: Place, entry: Entry, name: str) -> None:
    try:
        fetch(source / entry.name, cache_folder() / "data" / name)
    except FileNotFoundError as error:
        raise UserError(f"{source / entry.name} was removed while it was read: repeat the command") from error
    files.write(cache_folder() / "tags" / name, entry.tag)


def _tagged(path: Path, tag: str) -> bool:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return path.read_text(encoding="utf-8") == tag
    return False


def _make_room(new: dict[str, int], what: str) -> None:
    """Drops files of the cache until new ones (name -> bytes) fit."""
    data, tags, most = cache_folder() / "data", cache_folder() / "tags", limit()
    sizes = {path.relative_to(data).as_posix(): path.stat().st_size for path in data.rglob("*") if path.is_file()}
    used = _used_by_any()
    total = sum(sizes.values()) + sum(size - sizes.get(name, 0) for name, size in new.items())
    age = lambda name: (tags / name).stat().st_mtime if (tags / name).exists() else 0.0  # noqa: E731
    for name in sorted(set(sizes) - used, key=age):
        if total <= most:
            break
        for tree in (tags, data):
            (tree / name).unlink(missing_ok=True)
        total -= sizes[name]
    if total > most:
        raise UserError(
            f"{what} needs {sum(new.values()) / 1e9:,.3g} GB more of the cache in {cache_folder()}, which then holds "
            f"{total / 1e9:,.3g} GB of files in use, and {SIZE} = {most / 1e9:g} is its limit: raise it"
        )


def _say_using() -> None:
    """Writes down which files this process uses, for the other processes of this machine."""
    ours = files.PARTIAL.fullmatch(files.partial_name(Path("x")).name)
    files.write(cache_folder() / "using" / f"{ours['place']}.{ours['pid']}", "".join(f"{one}\n" for one in _using))


def _used_by_any() -> set[str]:
    """The files that living processes use; the lists of ended ones are removed."""
    used = set(_using)
    ours = files.PARTIAL.fullmatch(files.partial_name(Path("x")).name)
    for path in (cache_folder() / "using").glob("*.*"):
        machine, _, pid = path.name.rpartition(".")
        if not pid.isdecimal():
            continue
        here = machine == ours["place"]
        if (here and files.started(int(pid)) is None) or time.time() - path.stat().st_mtime > 30 * 24 * 3600:
            path.unlink(missing_ok=True)
        else:
            with contextlib.suppress(FileNotFoundError):
                used.update(path.read_text(encoding="utf-8").split("\n"))
    return used


@contextlib.contextmanager
def _exclusive() -> Iterator[None]:
    """One process of this machine at a time fills the cache."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    opened_file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(opened_file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened_file)
