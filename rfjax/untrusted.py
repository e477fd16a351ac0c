"""Reads small files that a kill, an editor or another program may have damaged: only regular files of limited size.

JSON has a limited depth, so that neither Python's parser nor a function that walks the result runs out of stack. This
module imports only the errors, so that all packages can use it.
"""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from rfjax.errors import UserError

LIMIT = 2**30  # largest file in bytes
DEPTH = 64  # most levels of nested lists and objects; a config has 4
FILE_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
KINDS = {list: "a list", str: "a text", int: "a whole number", float: "a number"}


class Unreadable(UserError):
    """A file that can't be read in the expected form."""


def regular(path: Path, limit: int = LIMIT, *, fix: str = "put the file itself there") -> BinaryIO:
    """Opens a regular file for reading bytes. Other kinds are refused: a FIFO would block, /dev/zero has no end.

    Args:
        path: of the file; links are followed.
        limit: largest size in bytes.
        fix: how the user can fix the mistake, for the end of the message.

    Raises:
        Unreadable: if it is a folder, a FIFO, a socket or a device, or too large.
        OSError: if it can't be opened.
    """
    # Non-blocking, because the opening of a FIFO without a writer blocks. It changes nothing for regular files.
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
    """The content of a regular file, or None if it does not exist.

    Args:
        limit: largest size in bytes.
        fix: how the user can fix the mistake, for the end of the message.

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
    """The text of a file, with U+FFFD in place of bytes that are not UTF-8; otherwise as `read_bytes`."""
    data = read_bytes(path, limit=limit, fix=fix)
    return None if data is None else data.decode(errors="replace")


def read_json(path: Path, *, limit: int = LIMIT, depth: int = DEPTH, fix: str = "") -> dict[str, Any] | None:
    """The object in a JSON file, or None if the file does not exist.

    Args:
        limit: largest size in bytes.
        depth: most levels of nested lists and objects.
        fix: how the user can fix the mistake, for the end of the message.

    Raises:
        Unreadable: if the file can't be read, is empty, is not JSON, is too deep, or holds no object.
    """
    data = read_bytes(path, limit=limit, fix=fix)
    return None if data is None else parse_json(data, str(path), depth=depth, fix=fix)


def parse_json(text: str | bytes, where: str, *, depth: int = DEPTH, fix: str = "") -> dict[str, Any]:
    """The object of a JSON text.

    Args:
        text: JSON; bytes are UTF-8.
        where: name of the text in messages.

    Raises:
        Unreadable: as in `read_json`.
    """
    if not text.strip():
        raise Unreadable(_sentence(where, "is empty", fix))
    try:
        text = text if isinstance(text, str) else text.decode("utf-8-sig")
        value = json.loads(text)
        deep = text.count("[") + text.count("{") > depth and _deeper(value, depth)
    except UnicodeDecodeError as error:
        raise Unreadable(_sentence(where, "is not UTF-8 text", fix)) from error
    except ValueError as error:
        raise Unreadable(_sentence(where, f"is not JSON ({error})", fix)) from error
    except RecursionError:
        deep = True
    if deep:
        raise Unreadable(_sentence(where, f"nests lists or objects more than {depth} deep", fix))
    if not isinstance(value, dict):
        name = next((name for kind, name in KINDS.items() if type(value) is kind), repr(value))
        raise Unreadable(_sentence(where, f"holds {name}, not an object", fix))
    return value


def json_lines(path: Path, *, fix: str = "") -> Iterator[dict[str, Any] | None]:
    """Yields the object of each line of a JSON-lines file, or None if the line holds no object; skips blank lines.

    Raises:
        Unreadable: as in `read_bytes`.
    """
    for line in (read_text(path, fix=fix) or "").split("\n"):  # splitlines would split at U+2028 too
        if line.strip():
            try:
                yield parse_json(line, str(path))
            except Unreadable:
                yield None


def _deeper(value: Any, depth: int) -> bool:
    """Whether lists and objects are nested more than `depth` deep."""
    level = [value]
    for _ in range(depth + 1):
        inner = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        if not inner:
            return False
        level = [item for items in inner for item in items]
    return True


def _sentence(where: object, what: str, fix: str) -> str:
    return f"{where} {what}{fix and f': {fix}'}"
