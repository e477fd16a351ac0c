"""Files of torch before 1.6, in which most published convolutional networks still lie: pickles, then the bytes.

The file begins with a magic number, a version, a description of the machine, the value, and the storages' keys, each a
pickle of its own. Then each storage follows in this order: eight bytes that say how many elements it has, and those.
"""

import io
import os
import pickle
import pickletools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from rfjax.errors import UserError, one_line
from rfjax.tensors import pickled
from rfjax.tensors.stored import itemsize, whole

MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2)[:-1]
HEAD = 4  # pickles before the storages' keys, of which the last is the value
COUNT = 8  # bytes in front of a storage
Entries = dict[str, tuple[int, int]]  # key of a storage -> its offset and length in the file


def records(file: BinaryIO, path: Path, kinds: Mapping[str, str], limit: int) -> tuple[bytes, Entries, int]:
    """The value's pickle, where the storages lie, and the file's length.

    Args:
        file: opened, anywhere.
        path: of it, for messages.
        kinds: full name of a storage's class -> name of its type.
        limit: bytes of all pickles together, at most.

    Raises:
        UserError: if the file is cut short, damaged, or of a machine with another order of bytes.
    """
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    head = file.read(limit)
    try:
        parts, place = _pickles(head, HEAD + 1)
        machine = pickled.load(parts[2], _nothing, _nothing)
        if not isinstance(machine, dict) or machine.get("little_endian") is not True:
            raise UserError(f"{path} is big-endian: save it again on a little-endian machine")
        wanted = _storages(parts[HEAD - 1], kinds, path)
        keys = pickled.load(parts[HEAD], _nothing, _nothing)
        if not isinstance(keys, list) or {type(key) for key in keys} - {str} or sorted(keys) != sorted(wanted):
            raise pickled.Damaged("its list of storages is not that of its tensors")
        entries: Entries = {}
        for key in keys:
            count, width = wanted[key]
            file.seek(place)
            if place + COUNT + count * width > size:
                raise UserError(
                    f"{path} is cut short or damaged: storage {one_line(key)} ends beyond the file's {size:,} bytes"
                )
            if int.from_bytes(file.read(COUNT), "little", signed=True) != count:
                raise pickled.Damaged(f"storage {one_line(key)} does not have the {count:,} elements of its tensors")
            entries[key] = (place + COUNT, count * width)
            place += COUNT + count * width
    except pickled.Damaged as error:
        raise UserError(f"{path} has torch's old format, and is cut short or damaged: {error}") from error
    return parts[HEAD - 1], entries, size


def _pickles(head: bytes, count: int) -> tuple[list[bytes], int]:
    """The first pickles, and the place behind them."""
    stream, found = io.BytesIO(head), []
    for _ in range(count):
        start = stream.tell()
        try:
            for _opcode in pickletools.genops(stream):
                pass
        except Exception as error:  # an unknown opcode, an argument that is cut short
            raise pickled.Damaged(f"{type(error).__name__}, {error}") from error
        found.append(head[start : stream.tell()])
    return found, stream.tell()


def _storages(value: bytes, kinds: Mapping[str, str], path: Path) -> dict[str, tuple[int, int]]:
    """Key of a storage -> its elements and the bytes of one, by the value's pickle, whose calls make empty records."""
    found: dict[str, tuple[int, int]] = {}

    def note(pid: Any) -> None:
        if isinstance(pid, tuple) and pid[:1] == ("module",):
            raise UserError(f"{path} holds a whole module with its code: save only its state_dict() with torch")
        _, kind, key, _, count, *view = pid
        width = itemsize(kind) if isinstance(kind, str) else 0
        if not (isinstance(key, str) and width) or any(part is not None for part in view):
            raise pickled.Damaged("a storage is a part of another, or of an unknown type")
        if whole(count) < 0 or found.setdefault(key, (count, width)) != (count, width):
            raise pickled.Damaged(f"storage {one_line(key)} has two sizes")

    def find(name: str) -> Any:
        return kinds[name] if name in kinds else pickled.Allowed(lambda *_: pickled.record())

    pickled.load(value, find, note)
    return found


def _nothing(name: Any) -> Any:
    raise pickled.Damaged(f"{one_line(str(name))} stands where a plain value should")
