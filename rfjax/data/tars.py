"""An index of a tar file: where each member lies, so that any one is read at once.

Making it takes one pass over the headers. The user's cache folder ($XDG_CACHE_HOME or ~/.cache, then rfjax/tars/) keeps
it, an .npz file for each tar file, because a folder of data may be read-only. It holds the tar file's size and time of
change: if they are others now, the index is made again. Machines that share a file system may share one, if they set
XDG_CACHE_HOME to the same folder.
"""

import contextlib
import hashlib
import os
import tarfile
import zipfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int32, Int64

from rfjax import files, untrusted
from rfjax.buckets import is_address
from rfjax.data import shards, verified
from rfjax.data.captions import point
from rfjax.errors import UserError

VERSION = 1
_LARGEST = 2**32  # bytes of an index; a sample takes about a hundred
_ARRAYS = ("points", "first", "field", "offset", "size")
_ZIPPED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}


@dataclass(frozen=True)
class Index:
    """The samples of one tar file: adjacent members that share their name up to the first dot of the last part.

    Attributes:
        stamp: the tar file's size in bytes and time of change in ns.
        names: the shared name of each sample, such as "0001/000010001", a line each; as bytes, which take less memory.
        points: a hash of each key, 0..100, which divides samples into splits.
        fields: the rest of the members' names, such as "jpg" and "txt", each once, in lower case.
        first: the first member of each sample, and the number of all.
        field, offset, size: of each member: its place in `fields`, and where its bytes are.
        cut: why the file ends before its end; "" for a whole one.
    """

    stamp: tuple[int, int]
    names: bytes
    points: Float64[np.ndarray, " n"]
    fields: tuple[str, ...]
    first: Int64[np.ndarray, " n+1"]
    field: Int32[np.ndarray, " m"]
    offset: Int64[np.ndarray, " m"]
    size: Int64[np.ndarray, " m"]
    cut: str

    def __len__(self) -> int:
        return len(self.points)

    def members(self, field: str) -> Int64[np.ndarray, " n"]:
        """The member of each sample that is this field; -1 where there is none."""
        found = np.full(len(self), -1)
        if field in self.fields:
            which = np.flatnonzero(self.field == self.fields.index(field))[::-1]  # of two, the first
            found[np.searchsorted(self.first, which, side="right") - 1] = which
        return found


def name_of(names: bytes, row: int) -> str:
    """A line of `Index.names`, as can be printed."""
    return names.split(b"\n")[row].decode("utf-8", "backslashreplace")


def indices(folder: Path, names: Sequence[str]) -> list[Index]:
    """The index of each tar file, from the cache or made now, several at once."""
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda name: _index(folder / name), names)
        return list(verified.progress(found, len(names), "Reading the names in the tar files"))


def _index(path: Path) -> Index:
    try:
        stamp = shards.stamp(path)
        cache = _cache_file(path)
        known = cache and _load(cache, stamp)
        if known:
            return known
        made = build(path, stamp)
    except OSError as error:
        raise UserError(f"'{path}' can't be read ({error.strerror})") from error
    if cache:
        with contextlib.suppress(OSError, UserError):  # without a place to write, each start reads the headers
            _save(cache, made)
    return made


def build(path: Path, stamp: tuple[int, int]) -> Index:
    """Reads all headers of a tar file; refuses, with a UserError, a compressed one or no tar file at all."""
    keys: list[str] = []
    first: list[int] = []
    members: list[tuple[int, int, int]] = []
    fields: dict[str, int] = {}
    with shards.opened(path) as file:
        start = file.read(2)
        file.seek(0)
        if kind := _ZIPPED.get(start):
            raise UserError(f"'{path}' is compressed ({kind}), and has no random access: unpack it to a plain .tar")
        walk = _Walk(file, stamp[0])
        for name, offset, size in walk:
            folder, _, base = name.rpartition("/")
            stem, dot, field = base.partition(".")
            if not (stem and dot):  # hidden, or without a field
                continue
            key = (f"{folder}/{stem}" if folder else stem).replace("\n", " ")
            if not keys or key != keys[-1]:
                keys.append(key)
                first.append(len(members))
            members.append((fields.setdefault(field.lower(), len(fields)), offset, size))
    if not walk.count and walk.cut:
        raise UserError(f"'{path}' is not a tar file ({walk.cut})")
    table = np.array(members, np.int64).reshape(-1, 3)
    points = np.array([point(key) for key in keys])
    ends = np.array([*first, len(members)], np.int64)
    names = "\n".join(keys).encode("utf-8", "surrogateescape")
    return Index(
        stamp, names, points, tuple(fields), ends, table[:, 0].astype(np.int32), table[:, 1], table[:, 2], walk.cut
    )


class _Walk:
    """Iterates over a tar file's regular members: (name, offset, size); then `cut` says if it ended before its end."""

    def __init__(self, file: object, length: int) -> None:
        self._file, self._length = file, length
        self.count, self.cut = 0, ""

    def __iter__(self) -> Iterable[tuple[str, int, int]]:
        try:
            with tarfile.open(fileobj=self._file, mode="r:", errors="surrogateescape") as tar:
                yield from self._members(tar)
                self._file.seek(tar.offset)
                if not self.cut and any(self._file.read(tarfile.BLOCKSIZE)):
                    self.cut = f"a damaged header at byte {tar.offset:,}"
        except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
            self.cut = self.cut or f"{str(error) or type(error).__name__}"

    def _members(self, tar: tarfile.TarFile) -> Iterable[tuple[str, int, int]]:
        before = -1
        while (member := tar.next()) is not None:
            tar.members = []  # tarfile keeps them all, and a shard has thousands
            if member.offset <= before or member.size < 0:
                raise tarfile.ReadError(f"a damaged header at byte {member.offset:,}")
            before = member.offset
            self.count += 1
            if member.offset_data + member.size > self._length:
                self.cut = f"it ends in the middle of {member.name.encode(errors='backslashreplace').decode()}"
                return
            if member.isreg() and not member.issparse():
                yield member.name, member.offset_data, member.size


def _cache_file(path: Path) -> Path | None:
    root = verified.cache_folder("each start reads the names in all tar files")
    name = hashlib.sha256(os.fsencode(path if is_address(path) else path.resolve())).hexdigest()[:24]
    return root and root / "tars" / name[:2] / f"{name}.npz"


def _save(cache: Path, index: Index) -> None:
    arrays = {name: getattr(index, name) for name in _ARRAYS}
    texts = {"names": index.names, "fields": "\n".join(index.fields).encode("utf-8", "surrogateescape")}
    texts["cut"] = index.cut.encode("utf-8", "backslashreplace")
    plain = {name: np.frombuffer(value, np.uint8) for name, value in texts.items()}
    with files.atomic(cache) as partial, partial.open("wb") as file:
        np.savez(file, version=VERSION, stamp=np.array(index.stamp), **arrays, **plain)


def _load(cache: Path, stamp: tuple[int, int]) -> Index | None:
    """The index in the cache; None if it is missing, damaged, or of another state of the tar file."""
    try:
        with untrusted.regular(cache, _LARGEST) as file, np.load(file, allow_pickle=False) as kept:
            if int(kept["version"]) != VERSION or tuple(kept["stamp"].tolist()) != stamp:
                return None
            names, fields, cut = (kept[name].tobytes() for name in ("names", "fields", "cut"))
            said = tuple(fields.decode("utf-8", "surrogateescape").split("\n")) if fields else ()
            arrays = {name: kept[name] for name in _ARRAYS}
            index = Index(stamp, names, fields=said, cut=cut.decode(), **arrays)
    except (OSError, ValueError, KeyError, TypeError, EOFError, UserError, zipfile.BadZipFile):
        return None
    count, members = len(index), len(index.offset)
    whole = index.first.shape == (count + 1,) and index.first[-1] == members == len(index.field) == len(index.size)
    return index if whole else None
