"""Which pictures of a folder are whole: each is decoded once, and the user's cache folder records the good ones."""

import contextlib
import hashlib
import json
import logging
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

from rfjax import files, untrusted
from rfjax.data import images, paths
from rfjax.errors import UserError

LARGEST = 2**30  # bytes of a picture's file

_PROGRESS_FROM = 1000  # files that get a progress bar

T = TypeVar("T")


class Look(NamedTuple):
    """A file's state.

    Attributes:
        size: in bytes.
        reason: why it is no whole picture; "" for a good one.
    """

    size: int
    reason: str


def verify(folder: Path, names: set[str], channels: int) -> dict[str, Look]:
    """Decodes each file that the cache does not have as a good picture.

    A bad picture is decoded at each start, because a newer Pillow may read it. A JPEG is decoded at its smallest scale,
    at which the decoder still reads every byte.
    """
    cache = cache_file(folder, channels)
    known = _read_cache(cache)

    def stamp(file: str) -> list[int]:
        try:
            status = (folder / file).stat()
        except (OSError, ValueError):  # ValueError: a name that no file can have
            return []
        return [status.st_size, status.st_mtime_ns]

    def check(file: str) -> str:
        path = folder / file
        try:
            images.decode(paths.read(path, LARGEST), channels=channels, at_least=1)
        except FileNotFoundError:
            return "no such file"
        except UserError as error:
            return str(error).removeprefix(f"{path} ")
        except (OSError, ValueError) as error:
            return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        except MemoryError:
            return "a picture that takes more memory than this machine has"
        return ""

    stamps = {file: stamp(file) for file in sorted(names)}
    new = [file for file, mark in stamps.items() if not mark or known.get(file) != mark]
    reasons = dict.fromkeys(stamps.keys() - set(new), "")
    try:
        with ThreadPoolExecutor() as pool:
            for file, reason in zip(
                new, progress(pool.map(check, new), len(new), "Checking the pictures"), strict=True
            ):
                reasons[file] = reason
    finally:  # the next start continues an interrupted look at a large folder
        if new and cache:
            good = {file: stamps[file] for file, reason in reasons.items() if not reason}
            with contextlib.suppress(OSError, UserError):  # without a place to write, it looks at them all again
                files.write(cache, json.dumps(good))
    return {file: Look(stamps[file][0] if stamps[file] else 0, reason) for file, reason in reasons.items()}


def progress(results: Iterable[T], count: int, what: str) -> Iterable[T]:
    """The results, with a bar for many of them at a terminal."""
    if count < _PROGRESS_FROM or not sys.stderr.isatty():
        return results
    from rich.console import Console
    from rich.progress import track

    return track(results, what, total=count, console=Console(stderr=True))


def cache_file(folder: Path, channels: int) -> Path | None:
    """The cache of a folder for these channels; None for a user without a home folder."""
    root = cache_folder("each start decodes every picture")
    grey = "-grey" if channels == 1 else ""
    return root and root / f"folder-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]}{grey}.json"


def cache_folder(otherwise: str) -> Path | None:
    """Where rfjax keeps what it found out about files; None, with a warning, for a user without a home folder."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(root).expanduser() / "rfjax"
    except RuntimeError:  # neither $HOME nor an entry among the system's users, as in some containers
        logging.getLogger(__name__).warning(
            "this user has no home folder, so %s: set XDG_CACHE_HOME to a folder", otherwise
        )
        return None


def _read_cache(cache: Path | None) -> dict[str, list[int]]:
    """{good file: [size in bytes, time in ns]}; empty without a cache, or with a damaged one."""
    with contextlib.suppress(UserError):
        return (cache and untrusted.read_json(cache)) or {}
    return {}
