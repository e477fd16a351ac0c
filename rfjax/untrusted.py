"""Reads small files that a kill, an editor or another program may have spoilt: regular files only, of limited size.

JSON is read up to a limited depth, so that neither Python's parser nor a function that walks what it read runs out of
stack. Imports nothing but the errors, so that every package may use it.
"""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from rfjax.errors import UserError

LIMIT = 2**30  # bytes of a file that is read whole
DEPTH = 64  # of lists and objects within each other; a config has 4
FILE_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
KINDS = {dict: "an object", list: "a list", str: "a text", int: "a whole number", float: "a number"}


class Unreadable(UserError):
    """A file that can't be read as what it should be."""


def regular(path: Path, limit: int = LIMIT, *, fix: str = "put the file itself there") -> BinaryIO:
    """Opens a file to read, and nothing but a file: a FIFO would wait for ever, /dev/zero has no end.

    Args:
        path: of the file; links are followed.
        limit: bytes that it may have.
        fix: what to do about something else, for the end of the sentence.

    Returns:
        The file, open in binary mode; a read of all of it takes `limit` bytes at most, unless the file grows.

    Raises:
        Unreadable: if it is a folder, a FIFO, a socket or a device, or too large. OSError: if it can't be opened.
    """
    # Non-blocking: a FIFO without a writer would hold up the opening itself. Regular files don't know the difference.
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode):
            kind = FILE_KINDS.get(stat.S_IFMT(status.st_mode), "a device")
            raise Unreadable(_sentence(path, f"is {kind}, and must be a file", fix))
        if status.st_size > limit:
            raise Unreadable(_sentence(path, f"has {status.st_size:,} bytes, more than {limit:,}", fix))
        return os.fdopen(opened, "rb")
    except BaseException:
        os.close(opened)
        raise


def read_bytes(path: Path, *, limit: int = LIMIT, fix: str = "") -> bytes | None:
    """The content of a regular file; None where there is no file of this name.

    Args:
        limit: bytes that it may have. fix: what to do about a file that can't be read, for the end of the sentence.

    Raises:
        Unreadable: if it is a folder, a pipe or a device, too large, or can't be read.
    """
    try:
        with regular(path, limit, fix=fix) as file:
            return file.read(limit)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unreadable(_sentence(path, f"can't be read ({error.strerror})", fix)) from error


def read_text(path: Path, *, limit: int = LIMIT, fix: str = "") -> str | None:
    """The text of a file, with a mark in place of bytes that are no UTF-8; otherwise as `read_bytes`."""
    found = read_bytes(path, limit=limit, fix=fix)
    return None if found is None else found.decode(errors="replace")


def read_json(path: Path, *, kind: type = dict, limit: int = LIMIT, depth: int = DEPTH, fix: str = "") -> Any:
    """The value in a JSON file; None where there is no file of this name.

    Args:
        kind: of the value: dict, list, str, int or float. limit: bytes that the file may have.
        depth: of lists and objects within each other. fix: see `read_bytes`.

    Raises:
        Unreadable: if it can't be read, is empty, is no JSON, too deep, or of another kind.
    """
    found = read_bytes(path, limit=limit, fix=fix)
    return None if found is None else parse_json(found, str(path), kind=kind, depth=depth, fix=fix)


def parse_json(text: str | bytes, where: str, *, kind: type = dict, depth: int = DEPTH, fix: str = "") -> Any:
    """The value that a JSON text holds.

    Args:
        text: JSON; bytes are UTF-8. where: what to call it in the sentence. kind, depth, fix: see `read_json`.

    Raises:
        Unreadable: as `read_json`.
    """
    if not text.strip():
        raise Unreadable(_sentence(where, "is empty", fix))
    try:
        text = text if isinstance(text, str) else text.decode("utf-8-sig")
        value = json.loads(text)
        deep = text.count("[") + text.count("{") > depth and _deeper(value, depth)
    except UnicodeDecodeError as error:
        raise Unreadable(_sentence(where, "is no UTF-8 text", fix)) from error
    except ValueError as error:
        raise Unreadable(_sentence(where, f"is no JSON ({error})", fix)) from error
    except RecursionError:
        deep = True
    if deep:
        raise Unreadable(_sentence(where, f"has lists or objects within each other, more than {depth} deep", fix))
    if not isinstance(value, (int, float) if kind is float else kind) or (isinstance(value, bool) and kind is not bool):
        raise Unreadable(_sentence(where, f"holds {_named(value)}, not {KINDS.get(kind, kind.__name__)}", fix))
    return value


def json_lines(path: Path, *, limit: int = LIMIT, fix: str = "") -> Iterator[dict[str, Any] | None]:
    """Each line of a JSON-lines file that is not blank: its object, or None where the line can't be read as one.

    Raises:
        Unreadable: as `read_bytes`.
    """
    for line in (read_text(path, limit=limit, fix=fix) or "").split("\n"):  # splitlines would split at U+2028 too
        if line.strip():
            try:
                yield parse_json(line, str(path))
            except Unreadable:
                yield None


def _deeper(value: Any, depth: int) -> bool:
    """Whether lists and objects lie more than `depth` within each other."""
    level = [value]
    for _ in range(depth + 1):
        inner = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        if not inner:
            return False
        level = [item for items in inner for item in items]
    return True


def _named(value: Any) -> str:
    return next((name for kind, name in KINDS.items() if isinstance(value, kind) and value is not True), repr(value))


def _sentence(where: object, what: str, fix: str) -> str:
    return f"{where} {what}{fix and f': {fix}'}"
