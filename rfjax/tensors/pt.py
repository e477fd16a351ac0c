"""torch's files (.pt) without torch: `open_pt` reads a checkpoint's state dicts, `write_pt` writes one, a zip file.

A pickle is a program that may call anything. This reader knows the few names that tensors and plain records need, and
gives each a harmless meaning; pickled.py runs the rest. Any other name is an error before anything is called.
"""

import os
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from rfjax import files, untrusted
from rfjax.errors import UserError, nearest, one_line
from rfjax.tensors import legacy, pickled
from rfjax.tensors.stored import (
    ANY_SIZE,
    DTYPES,
    MOST_AXES,
    READABLE,
    Entry,
    Spec,
    Tensors,
    checked,
    itemsize,
    make_entry,
    nbytes,
    row_major,
    whole,
)

STORAGES = {"Double": "F64", "Float": "F32", "Half": "F16", "BFloat16": "BF16", "Long": "I64", "Int": "I32",
            "Short": "I16", "Char": "I8", "Byte": "U8", "Bool": "BOOL", "Untyped": "U8"}  # fmt: skip
STORAGE_NAMES = {DTYPES[kind]: name for name, kind in STORAGES.items() if name != "Untyped"}
PREFERRED = ("ema", "model", "state_dict", "delta")  # the order of DiT's and SiT's loaders, then of others
LARGEST_PICKLE = 2**24  # bytes; the pickle of a network with its optimizer's state has half a million
EXPANSION = 8  # tensors that share storage may take this many times the file's length
ALIGNMENT = 64  # bytes, as torch's own writer
ZIP64 = 0x7FFFFFFF  # bytes, beyond which an entry's size needs the zip format's extension
ZIP64_FIELD = 20  # bytes of that extension in an entry's local header
LOCAL_HEADER, LOCAL_LENGTHS = 30, 26  # bytes of a local header before its name; where its two variable lengths stand
PADDING_ID = b"FB"  # the extra field with which torch aligns


class Checkpoint(NamedTuple):
    """A torch file.

    Attributes:
        tensors: the chosen state dict.
        part: its name among `parts`; None for the top level.
        parts: names of the file's state dicts.
        rest: the other plain values.
    """

    tensors: Tensors
    part: str | None
    parts: tuple[str, ...]
    rest: dict[str, Any]


class _Storage(NamedTuple):
    offset: int
    size: int
    kind: str


class _Reader:
    """Gives a pickle's names and persistent ids their meanings. Tensors become entries; only these functions run."""

    def __init__(self, path: Path, entries: Mapping[str, tuple[int, int]]) -> None:
        self.path, self.entries = path, entries
        functions = {
            "torch._utils._rebuild_tensor_v2": lambda storage, start, shape, strides, *_: self.tensor(
                storage, start, shape, strides
            ),
            "torch._utils._rebuild_tensor_v3": lambda storage, start, shape, strides, _gradient, _hooks, kind, *_: (
                self.tensor(storage, start, shape, strides, kind)
            ),
            "torch._utils._rebuild_tensor": self.tensor,  # before 0.4
            "torch._utils._rebuild_parameter": lambda value, *_: value,
            "torch._utils._rebuild_parameter_with_state": lambda value, *_: value,
            "torch.Size": lambda items=(): tuple(items),
            "collections.OrderedDict": pickled.ordered,
            "argparse.Namespace": pickled.record,
        }
        self.meanings = {name: pickled.Allowed(function) for name, function in functions.items()} | KINDS

    def find(self, full: str) -> Any:
        if full in self.meanings:
            return self.meanings[full]
        raise UserError(
            f"{self.path} wants to call `{one_line(full)}`, but only tensors and plain values are read, and nothing "
            "was run: save only the model's state_dict() with torch"
        )

    def storage(self, pid: Any) -> _Storage:
        _, kind, key, _, count, *_ = pid
        if not (isinstance(kind, str) and isinstance(key, str)):
            raise pickled.Damaged("a storage has no name")
        if key not in self.entries:
            raise UserError(f"{self.path} is damaged: it has no entry data/{one_line(key)}, which its pickle names")
        offset, size = self.entries[key]
        expected = whole(count) * itemsize(kind)
        if expected > size:
            raise UserError(f"{self.path} is damaged: data/{key} should have {expected:,} bytes, and has {size:,}")
        return _Storage(offset, size, kind)

    def tensor(self, storage: _Storage, start: int, shape: tuple, strides: tuple, kind: str = "") -> Entry:
        if not (isinstance(storage, _Storage) and isinstance(kind, str)) or max(len(shape), len(strides)) > MOST_AXES:
            raise pickled.Damaged("it makes a tensor of something else")
        kind = kind or storage.kind
        size, shape, strides = itemsize(kind), tuple(map(whole, shape)), tuple(map(whole, strides))
        reach = 0 if 0 in shape else whole(start) + 1 + sum((n - 1) * a for n, a in zip(shape, strides, strict=True))
        if min((start, *shape, *strides)) < 0 or reach * size > storage.size:
            raise UserError(
                f"{self.path} is damaged: a tensor of shape {shape} reaches beyond its {storage.size:,} bytes"
            )
        plain = all(n == 1 or a == b for n, a, b in zip(shape, strides, row_major(shape), strict=True)) or 0 in shape
        return make_entry(self.path, storage.offset + start * size, kind, shape, None if plain else strides)


def _kinds() -> dict[str, str]:
    """torch's names of storages and dtypes -> safetensors' names, including types that can't be read."""
    storages = STORAGES | {"ComplexFloat": "complex64", "ComplexDouble": "complex128"}
    named = {f"{m}.{name}Storage": kind for m in ("torch", "torch.storage") for name, kind in storages.items()}
    strange = ("float8_e4m3fnuz", "float8_e5m2fnuz", "complex64", "complex128")
    return named | {f"torch.{dtype}": kind for kind, dtype in READABLE.items()} | {f"torch.{x}": x for x in strange}


KINDS = _kinds()


def open_pt(path: str | Path, part: str | None = None) -> Checkpoint:
    """Opens a torch file whose top level is a state dict, or a dict of state dicts (DiT: model, ema, opt, args).

    Args:
        part: the state dict to read. None takes "ema" if it exists (as DiT and SiT do), else "model", "state_dict",
            "delta", else the top level, else the only state dict.

    Returns:
        The checkpoint; in its `rest` a Namespace is a dict.

    Raises:
        UserError: if the file is of another kind or damaged, or its pickle names anything but tensors.
    """
    path = Path(path)
    data, entries, size = _opened(path)
    reader = _Reader(path, entries)
    try:
        top = pickled.load(data, reader.find, reader.storage)
    except pickled.Damaged as error:
        raise UserError(f"{path} holds a damaged pickle: {error}") from error
    if not isinstance(top, dict):
        raise UserError(f"{path} holds a {type(top).__name__}: expected a state dict, or a dict of state dicts")
    parts = tuple(key for key, value in top.items() if isinstance(key, str) and _holds_tensors(value))
    if part is None:
        part = next((name for name in PREFERRED if name in parts), None)
    elif part not in parts:
        raise UserError(f"{path} has no part '{part}'{nearest(part, parts)}")
    if part is None and not _holds_tensors(top):
        if len(parts) != 1:
            raise UserError(
                f"{path} holds {len(parts)} state dicts: expected one, or a choice of part{nearest('', parts)}"
            )
        part = parts[0]
    state = top if part is None else top[part]
    chosen = {str(name): value for name, value in state.items() if isinstance(value, Entry)}
    if (needed := sum(entry.nbytes for entry in chosen.values())) > EXPANSION * size:
        raise UserError(
            f"{path} has {size:,} bytes, but its tensors share storage and would take {needed:,}: save contiguous "
            "copies of them with torch"
        )
    tensors = Tensors(path, chosen)
    rest = {key: value for key, value in top.items() if key not in parts and not isinstance(value, Entry)}
    return Checkpoint(tensors, part, parts, rest)


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(item, Entry) for item in value.values())


def _opened(path: Path) -> tuple[bytes, dict[str, tuple[int, int]], int]:
    """A torch file's pickle, key of a storage -> its offset and length in the file, and the file's length."""
    with untrusted.regular(path, ANY_SIZE) as file:
        start = file.read(len(legacy.MAGIC))
        if start == legacy.MAGIC:
            return legacy.records(file, path, KINDS, LARGEST_PICKLE)
        try:
            with zipfile.ZipFile(file) as archive:
                return *_records(archive, file, path), os.fstat(file.fileno()).st_size
        except UserError:
            raise
        except Exception as error:  # zipfile raises many kinds for what is damaged
            what = "cut short or damaged" if start[:2] == b"PK" else "not a zip file such as torch.save writes"
            raise UserError(f"{path} is {what}: {error}") from error


def _records(archive: zipfile.ZipFile, file: BinaryIO, path: Path) -> tuple[bytes, dict[str, tuple[int, int]]]:
    listed, end = archive.infolist(), os.fstat(file.fileno()).st_size
    infos = {info.filename: info for info in listed}
    name = next((name for name in infos if name.split("/")[1:] == ["data.pkl"]), None)
    if name is None:
        raise UserError(f"{path} is a zip file without a data.pkl, so torch.save did not write it")
    if any(info.compress_type != zipfile.ZIP_STORED for info in listed):
        raise UserError(f"{path} was compressed after torch.save: unpack it, or save it again with torch")
    if len(infos) < len(listed):
        raise UserError(f"{path} is damaged: {len(listed) - len(infos)} of its entries have the name of another")
    if infos[name].file_size > LARGEST_PICKLE:
        raise UserError(
            f"{path} has a pickle of {infos[name].file_size:,} bytes, and at most {LARGEST_PICKLE:,} are read: save "
            "only the model's state_dict() with torch"
        )
    folder = name.removesuffix("data.pkl")
    byteorder = infos.get(f"{folder}byteorder")
    if byteorder and (byteorder.file_size > len("little") or archive.read(byteorder) != b"little"):
        raise UserError(f"{path} is big-endian: save it again on a little-endian machine")
    entries = {}
    for key, info in infos.items():
        if key.startswith(f"{folder}data/"):
            file.seek(info.header_offset + LOCAL_LENGTHS)
            lengths = file.read(4)
            gap = int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
            begin = info.header_offset + LOCAL_HEADER + gap
            if begin + info.file_size > end:
                raise UserError(f"{path} is cut short or damaged: {key} ends beyond the file's {end:,} bytes")
            entries[key.removeprefix(f"{folder}data/")] = (begin, info.file_size)
    return archive.read(name), entries


def write_pt(path: str | Path, tensors: Iterable[tuple[str, np.ndarray]], manifest: Mapping[str, Spec]) -> None:
    """Writes a dict of tensors that torch.load(path, weights_only=True) reads bit for bit, memory-mapped or not.

    Args:
        tensors: (name, values) in any order, one in memory at a time.
        manifest: name -> shape and dtype of all tensors.

    Raises:
        UserError: if torch has no such dtype.
        ValueError: if the tensors are not those of the manifest.
    """
    keys = {name: str(place) for place, name in enumerate(manifest)}
    pickled = _pickle(manifest, keys)
    with files.atomic(Path(path)) as partial, partial.open("wb") as file, zipfile.ZipFile(file, "w") as archive:

        def add(name: str, data: bytes | np.ndarray) -> None:
            info, long = zipfile.ZipInfo(f"archive/{name}"), len(data) > ZIP64
            begin = file.tell() + LOCAL_HEADER + len(info.filename) + len(PADDING_ID) + 2 + (ZIP64_FIELD if long else 0)
            padding = -begin % ALIGNMENT
            info.extra = PADDING_ID + padding.to_bytes(2, "little") + bytes(padding)
            with archive.open(info, "w", force_zip64=long) as entry:
                entry.write(data)

        add("data.pkl", pickled)
        add("byteorder", b"little")
        for name, data in checked(tensors, manifest):
            add(f"data/{keys[name]}", data)
        add("version", b"3\n")


def _pickle(manifest: Mapping[str, Spec], keys: Mapping[str, str]) -> bytes:
    """The pickle of {name: tensor}, by its opcodes, because a pickler would have to import torch."""

    def plain(value: Any) -> bytes:
        return pickle.dumps(value, 2)[2:-1]  # without the protocol in front and the stop behind

    out = [pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + pickle.MARK]
    for name, spec in manifest.items():
        storage, shape = STORAGE_NAMES.get(np.dtype(spec.dtype)), tuple(spec.shape)
        if storage is None:
            raise UserError(f"{name} is {np.dtype(spec.dtype)}: torch files hold {', '.join(map(str, STORAGE_NAMES))}")
        count = nbytes(spec) // np.dtype(spec.dtype).itemsize
        out += [
            plain(name),
            pickle.GLOBAL + b"torch._utils\n_rebuild_tensor_v2\n" + pickle.MARK,
            pickle.MARK + plain("storage") + pickle.GLOBAL + f"torch\n{storage}Storage\n".encode(),
            plain(keys[name]) + plain("cpu") + plain(count) + pickle.TUPLE + pickle.BINPERSID,
            plain(0) + plain(shape) + plain(row_major(shape)) + plain(False),
            pickle.GLOBAL + b"collections\nOrderedDict\n" + pickle.EMPTY_TUPLE + pickle.REDUCE,
            pickle.TUPLE + pickle.REDUCE,
        ]
    return b"".join([*out, pickle.SETITEMS, pickle.STOP])
