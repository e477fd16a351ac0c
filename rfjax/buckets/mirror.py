"""The folders of this process that mirror folders of buckets; for paths of this machine all of this does nothing."""

import atexit
import contextlib
import functools
import hashlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from rfjax import files
from rfjax.buckets.cache import cache_folder, local
from rfjax.buckets.place import Place, check_writable, is_address, place
from rfjax.buckets.sync import PARTS, Mirror

ABANDONED = 7 * 24 * 3600.0  # seconds after which another machine's folder in a shared cache counts as abandoned

_mirrors: list[Mirror] = []


def mirror_of(path: Path) -> Mirror | None:
    """The mirror that a local path belongs to, if there is one."""
    absolute = path.absolute()
    return next((one for one in _mirrors if absolute.is_relative_to(one.folder)), None)


def place_of(path: Path) -> Place | None:
    """What a local path stands for in a bucket, or None for a path of this machine."""
    found = mirror_of(path)
    return found and found.place_of(path)


def refresh(path: Path) -> None:
    """Reads a folder again if it stands for one in a bucket; see `Mirror.refresh`."""
    if found := mirror_of(path):
        found.refresh(path)


def publish(path: Path) -> None:
    """Waits until the bucket has all changes, if the path stands for one in a bucket; see `Mirror.publish`."""
    if found := mirror_of(path):
        found.publish()


@contextlib.contextmanager
def published(path: Path) -> Iterator[None]:
    """Publishes at the end of the `with`, however it ends."""
    try:
        yield
    finally:
        publish(path)


def named(text: str) -> str:
    """A text with the addresses of buckets in place of the folders that mirror them."""
    for one in _mirrors:
        text = text.replace(str(one.folder), str(one.source))
    return text


@contextlib.contextmanager
def opened(path: str, key: str, *, writes: bool) -> Iterator[str]:
    """Mirrors a folder of a bucket while the `with` lasts.

    Args:
        path: an address or a local path.
        key: the config key that holds it, for messages.
        writes: whether it is written to; then that is tried first.

    Yields:
        The local folder; a local path as it is.

    Raises:
        UserError: if the address is wrong, there is no such bucket, or it can't be written; then nothing is left there.
    """
    if not is_address(path):
        yield path
        return
    source = place(path, key)
    if writes:
        check_writable(source, key)
    mirror = Mirror(source, _own_folder(source), writes=writes)
    _mirrors.append(mirror)
    try:
        yield str(mirror.folder)
    finally:
        try:
            mirror.close()
        finally:
            _mirrors.remove(mirror)


@functools.cache
def reading(path: str, key: str) -> Path:
    """A folder that is only read, such as that of another run, as a local one until this process ends.

    Of a run's checkpoints in a bucket the arrays stay there until they are read; anything else comes into the cache.

    Raises:
        UserError: if there is nothing at the address, or it can't be read.
    """
    if not is_address(path):
        return Path(path)
    source = place(path, key)
    if not any(entry.name.endswith(PARTS) for entry in source.entries()):
        return local(path, key)
    mirror = Mirror(source, _own_folder(source), writes=False)
    _mirrors.append(mirror)
    atexit.register(mirror.close)
    return mirror.folder


def _own_folder(source: Place) -> Path:
    """A new folder of this process, after those of ended processes have been removed."""
    folder = cache_folder() / "work" / f"{source.name or source.bucket}-{_short(str(source))}"
    ours = files.PARTIAL.fullmatch(files.partial_name(folder / "x").name)
    with files.full_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for other in folder.iterdir():
            machine, _, pid = other.name.partition(".")
            gone = machine == ours["place"] and pid.isdecimal() and files.started(int(pid)) is None
            if gone or time.time() - other.stat().st_mtime > ABANDONED:
                shutil.rmtree(other, ignore_errors=True)
        number = 0
        while True:
            number += 1
            made = folder / f"{ours['place']}.{ours['pid']}" / str(number)
            try:
                made.mkdir(parents=True)
            except FileExistsError:
                continue
            return made


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
