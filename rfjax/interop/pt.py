"""torch's zip files (.pt) without torch: `open_pt` reads a checkpoint's state dicts, `write_pt` writes one.

A pickle is a program that may call anything. The reader here knows the few names that tensors and plain records need,
and gives each a harmless meaning, made anew for every file; any other name is an error before anything is called.
"""

import pickle
import zipfile
from collections.abc import Callable, Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from rfjax.errors import UserError, nearest
from rfjax.interop.stored import DTYPES, Entry, Spec, Tensors, checked, nbytes, replacing, row_major

STORAGES = {"Double": "F64", "Float": "F32", "Half": "F16", "BFloat16": "BF16", "Long": "I64", "Int": "I32",
            "Short": "I16", "Char": "I8", "Byte": "U8", "Bool": "BOOL", "Untyped": "U8"}  # fmt: skip
STORAGE_NAMES = {DTYPES[kind]: name for name, kind in STORAGES.items() if name != "Untyped"}
PREFERRED = ("ema", "model", "state_dict", "delta")  # the order in which DiT's and SiT's loaders look, then others'
LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, 2)[:-1]  # torch.save before 1.6 begins with this number
ALIGNMENT = 64  # bytes, as torch's own writer
ZIP64 = 0x7FFFFFFF  # bytes, beyond which an entry's size needs the zip format's extension
ZIP64_FIELD = 20  # bytes of that extension in an entry's local header
LOCAL_HEADER, LOCAL_LENGTHS = 30, 26  # bytes of a local header before its name; where its two variable lengths stand
PADDING_ID = b"FB"  # the extra field with which torch aligns


class Checkpoint(NamedTuple):
    """A torch file: the chosen state dict, its name among `parts` (None: the top level), and the other plain values."""

    tensors: Tensors
    part: str | None
    parts: tuple[str, ...]
    rest: dict[str, Any]


class _Storage(NamedTuple):
    offset: int
    size: int
    dtype: np.dtype


class _Reader(pickle.Unpickler):
    """Reads tensors as entries; no name of the pickle stands for anything that isn't made here, for this file alone."""

    def __init__(self, data: bytes, path: Path, entries: Mapping[str, tuple[int, int]]) -> None:
        super().__init__(BytesIO(data), encoding="utf-8")
        self.path, self.entries = path, entries
        self.record, self.meanings = _meanings(self.tensor)

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in self.meanings:
            return self.meanings[full]
        raise UserError(
            f"{self.path} wants to call `{full}`, which is not a tensor: only tensors and plain values are read, and"
            " nothing was run (save the model's state_dict() alone with torch)"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        _, kind, key, _, count = pid
        if key not in self.entries:
            raise UserError(f"{self.path} is damaged: it has no entry data/{key}, which its pickle names")
        offset, size = self.entries[key]
        dtype = DTYPES[kind]
        if count * dtype.itemsize > size:
            expected = count * dtype.itemsize
            raise UserError(f"{self.path} is damaged: data/{key} should have {expected:,} bytes, and has {size:,}")
        return _Storage(offset, size, dtype)

    def tensor(self, storage: _Storage, start: int, shape: tuple, strides: tuple, kind: str | None = None) -> Entry:
        dtype = storage.dtype if kind is None else DTYPES.get(kind)
        if dtype is None:
            known = ", ".join(map(str, DTYPES.values()))
            raise UserError(f"{self.path} stores a tensor as {kind}: expected one of {known}")
        shape, strides = tuple(map(int, shape)), tuple(map(int, strides))
        reach = 0 if 0 in shape else start + 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if min((start, *shape, *strides)) < 0 or reach * dtype.itemsize > storage.size:
            raise UserError(
                f"{self.path} is damaged: a tensor of shape {shape} reaches beyond its {storage.size:,} bytes"
            )
        plain = all(n == 1 or a == b for n, a, b in zip(shape, strides, row_major(shape), strict=True)) or 0 in shape
        return Entry(self.path, storage.offset + start * dtype.itemsize, dtype, shape, None if plain else strides)


def _meanings(tensor: Callable[..., Entry]) -> tuple[type, dict[str, Any]]:
    """The type that stands for a record, and what each known name means.

    All is made anew, because a pickle can set attributes on what it names: they go when the file has been read.
    """

    class Record:
        pass

    class Ordered(dict):
        def __setstate__(self, state: Any) -> None:  # torch hangs version numbers on a state dict
            pass

    def version_2(storage: _Storage, start: int, shape: tuple, strides: tuple, *_: Any) -> Entry:
        return tensor(storage, start, shape, strides)

    def version_3(storage: _Storage, start: int, shape: tuple, strides: tuple, *rest: Any) -> Entry:
        _gradient, _hooks, kind, *_ = rest
        return tensor(storage, start, shape, strides, kind)

    functions = {
        "torch._utils._rebuild_tensor_v2": version_2,
        "torch._utils._rebuild_tensor_v3": version_3,
        "torch._utils._rebuild_parameter": lambda value, *_: value,
        "torch._utils._rebuild_parameter_with_state": lambda value, *_: value,
        "torch.Size": lambda items=(): tuple(items),
        "collections.OrderedDict": Ordered,
        "argparse.Namespace": Record,
    }
    modules = ("torch", "torch.storage")
    storages = {f"{module}.{name}Storage": kind for module in modules for name, kind in STORAGES.items()}
    kinds = {f"torch.{dtype}": kind for kind, dtype in DTYPES.items()}
    others = {f"torch.{name}": name for name in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")}
    return Record, functions | storages | kinds | others


def open_pt(path: str | Path, part: str | None = None) -> Checkpoint:
    """Opens a torch file whose top level is a state dict, or a dict that holds some (DiT: model, ema, opt, args).

    part: the state dict to read. None takes "ema" where there is one (as DiT and SiT do), else "model", "state_dict",
    "delta", else the top level, else the only one there is. `rest` holds the other values; a Namespace becomes a dict.
    Raises UserError for another kind of file, a damaged one, and a pickle that names what is no tensor.
    """
    path = Path(path)
    pickled, entries = _unzip(path)
    reader = _Reader(pickled, path, entries)
    try:
        top = _plain(reader.load(), reader.record)
    except UserError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        raise UserError(f"{path} holds a damaged pickle: {type(error).__name__}, {error}") from error
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
    tensors = Tensors(path, {str(name): value for name, value in state.items() if isinstance(value, Entry)})
    rest = {key: value for key, value in top.items() if key not in parts and not isinstance(value, Entry)}
    return Checkpoint(tensors, part, parts, rest)


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(item, Entry) for item in value.values())


def _plain(value: Any, record: type) -> Any:
    """Dicts, lists and tuples with each record made a dict."""
    if isinstance(value, record):
        value = vars(value)
    if isinstance(value, dict):
        return {key: _plain(item, record) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(item, record) for item in value)
    return value


def _unzip(path: Path) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """A torch file's pickle, and the place and length in the file of each storage by its key."""
    with path.open("rb") as file:
        start = file.read(len(LEGACY))
        if start == LEGACY:
            raise UserError(f"{path} has torch's old format: load it with a current torch and torch.save it again")
        try:
            with zipfile.ZipFile(file) as archive:
                return _records(archive, file, path)
        except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
            what = "cut short or damaged" if start[:2] == b"PK" else "not a zip file such as torch.save writes"
            raise UserError(f"{path} is {what}: {error}") from error


def _records(archive: zipfile.ZipFile, file: BinaryIO, path: Path) -> tuple[bytes, dict[str, tuple[int, int]]]:
    infos = {info.filename: info for info in archive.infolist()}
    name = next((name for name in infos if name.split("/")[1:] == ["data.pkl"]), None)
    if name is None:
        raise UserError(f"{path} is a zip file without a data.pkl, so torch.save did not write it")
    if any(info.compress_type != zipfile.ZIP_STORED for info in infos.values()):
        raise UserError(f"{path} was compressed after torch.save: unpack it, or save it again with torch")
    folder = name.removesuffix("data.pkl")
    if f"{folder}byteorder" in infos and archive.read(f"{folder}byteorder") != b"little":
        raise UserError(f"{path} is big-endian: save it again on a little-endian machine")
    entries = {}
    for key, info in infos.items():
        if key.startswith(f"{folder}data/"):
            file.seek(info.header_offset + LOCAL_LENGTHS)
            lengths = file.read(4)
            gap = int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
            entries[key.removeprefix(f"{folder}data/")] = (info.header_offset + LOCAL_HEADER + gap, info.file_size)
    return archive.read(name), entries


def write_pt(path: str | Path, tensors: Iterable[tuple[str, np.ndarray]], manifest: Mapping[str, Spec]) -> None:
    """Writes a dict of tensors that torch.load(path, weights_only=True) reads, mapped or not, bit for bit.

    tensors: in any order, one in memory at a time. manifest: every tensor's shape and dtype.
    Raises UserError for a dtype that torch's storages lack, ValueError for other tensors than the manifest's.
    """
    keys = {name: str(place) for place, name in enumerate(manifest)}
    pickled = _pickle(manifest, keys)
    with replacing(Path(path)) as partial, partial.open("wb") as file, zipfile.ZipFile(file, "w") as archive:

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
