"""A checkpoint's tensors in files of any format: `Entry` locates a tensor, `Tensors` reads tensors on demand, and
`checked` compares what a writer receives with the manifest.

Tensors are read by positioned reads, not memory-mapped, so that a file's pages don't count as this process's memory.
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import ml_dtypes
import numpy as np

from rfjax import untrusted
from rfjax.errors import UserError, one_line

FLOATS = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
INTEGERS = {"I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_}
UNSIGNED = {"U64": np.uint64, "U32": np.uint32, "U16": np.uint16}
DTYPES = {name: np.dtype(kind) for name, kind in (FLOATS | INTEGERS | UNSIGNED).items()}
NARROW = {"F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2}  # can be read, not written
READABLE = DTYPES | {name: np.dtype(kind) for name, kind in NARROW.items()}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
BAND, BAND_ROWS = 400_000, 128  # bytes, or rows if that is more, that stay in the cache: benchmarks/loading.py
Rows = tuple[int, int]  # [start, stop)
ANY_SIZE = 2**62  # bytes: no limit for a file that is not read whole
LARGEST_AXIS, MOST_AXES = 2**48, 32  # of a tensor: numpy's own limits are 2^63 and 64


class Spec(Protocol):
    """What a writer must know of a tensor in advance; arrays and jax.ShapeDtypeStruct fit."""

    shape: tuple[int, ...]
    dtype: Any


class Entry(NamedTuple):
    """Where a tensor lies.

    Attributes:
        path: the file.
        offset: of the first byte in the file.
        dtype: None if numpy has no such type; then the tensor can't be read.
        shape: of the tensor.
        strides: in elements; None if row-major.
        kind: the file's name of the type.
    """

    path: Path
    offset: int
    dtype: np.dtype | None
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    kind: str = ""

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * (self.dtype.itemsize if self.dtype else 1)


def itemsize(kind: str) -> int:
    """Bytes of an element; 0 for an unknown kind, whose size can't be checked."""
    return READABLE[kind].itemsize if kind in READABLE else 0


def whole(number: Any) -> int:
    """Checks that a size or an offset in a file is a whole number of reasonable size; bool and float are refused.

    Raises:
        ValueError: if it is not.
    """
    if type(number) is not int or abs(number) > LARGEST_AXIS:
        raise ValueError(f"a {type(number).__name__} stands in place of a size or an offset")
    return number


def make_entry(
    path: Path, offset: int, kind: str, shape: tuple[int, ...], strides: tuple[int, ...] | None = None
) -> Entry:
    """Makes an entry; `kind` is the file's name of the type."""
    return Entry(path, offset, READABLE.get(kind), shape, strides, kind)


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a row-major array, in elements."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def bands(shape: tuple[int, ...], itemsize: int, rows: Rows | None = None) -> list[Rows | None]:
    """Ranges of rows, one BAND each, that cover `rows` (None: all rows); [None] for a tensor without axes."""
    if not shape:
        return [None]
    start, stop = rows or (0, shape[0])
    step = max(BAND_ROWS, BAND // max(1, math.prod(shape[1:]) * itemsize))
    return [(first, min(first + step, stop)) for first in range(start, stop, step)]


Allocate = Callable[[int], np.ndarray]  # number of bytes -> memory


def allocate(count: int) -> np.ndarray:
    """New memory of `count` bytes."""
    return np.empty(count, np.uint8)


class Tensors:
    """Tensors that stay in their files until they are read. A context manager; threads may read at the same time."""

    def __init__(self, source: Path, entries: Mapping[str, Entry]) -> None:
        self.source, self._entries = source, dict(entries)
        with contextlib.ExitStack() as stack:
            paths = {entry.path for entry in self._entries.values()}
            self._files = {path: stack.enter_context(untrusted.regular(path, ANY_SIZE)) for path in paths}
            self._close = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._close.close()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._entries)

    @property
    def entries(self) -> dict[str, Entry]:
        """name -> where the tensor lies."""
        return dict(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._entries[name].shape

    def dtype(self, name: str) -> np.dtype:
        """The tensor's type.

        Raises:
            UserError: if numpy has no such type.
        """
        entry = self._entries[name]
        if entry.dtype is None:
            known = ", ".join(map(str, READABLE.values()))
            raise UserError(f"{entry.path} stores {one_line(name)} as {entry.kind}: expected one of {known}")
        return entry.dtype

    def readable(self, name: str) -> bool:
        """Whether numpy has the tensor's type."""
        return self._entries[name].dtype is not None

    def kind(self, name: str) -> str:
        """The name of the tensor's type, even if numpy has no such type."""
        entry = self._entries[name]
        return entry.kind if entry.dtype is None else entry.dtype.name

    def where(self, name: str) -> Path:
        """The file that holds a tensor, for messages."""
        return self._entries[name].path

    def read(self, name: str, rows: Rows | None = None, memory: Allocate = allocate) -> np.ndarray:
        """Reads a tensor, or only some of its rows, as a row-major array.

        Args:
            rows: the range [start, stop); None for all rows.
            memory: number of bytes -> memory to read into.

        Raises:
            UserError: if the file ends too early.
        """
        entry, size = self._entries[name], self.dtype(name).itemsize
        strides = row_major(entry.shape) if entry.strides is None else entry.strides
        start, shape = (rows[0], (rows[1] - rows[0], *entry.shape[1:])) if rows else (0, entry.shape)
        skip = start * strides[0] if rows else 0
        reach = 0 if 0 in shape else 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        flat = self._fill(memory(reach * size), entry.path, entry.offset + skip * size).view(entry.dtype)
        if entry.strides is None:
            return flat.reshape(shape)
        return np.array(np.lib.stride_tricks.as_strided(flat, shape, [step * size for step in strides]), order="C")

    def bands(self, name: str, rows: Rows | None = None) -> list[Rows | None]:
        """Ranges of rows to read one by one; a single range if the tensor's rows are not contiguous."""
        entry = self._entries[name]
        if entry.strides is None:
            return bands(entry.shape, self.dtype(name).itemsize, rows)
        return [rows]

    def _fill(self, out: np.ndarray, path: Path, offset: int) -> np.ndarray:
        count, done = len(out), 0
        while done < count:
            got = os.preadv(self._files[path].fileno(), [out[done:]], offset + done)
            if not got:
                raise UserError(f"{path} was cut short while it was read: {count - done:,} bytes are missing")
            done += got
        return out


def nbytes(spec: Spec) -> int:
    """Bytes of a tensor."""
    return math.prod(spec.shape) * np.dtype(spec.dtype).itemsize


def checked(
    tensors: Iterable[tuple[str, np.ndarray]], manifest: Mapping[str, Spec]
) -> Iterator[tuple[str, np.ndarray]]:
    """Checks that tensors are those of the manifest, each once.

    Yields:
        The name and the flat bytes of each tensor.

    Raises:
        ValueError: if a tensor is unexpected, missing or repeated.
    """
    left = dict(manifest)
    for name, array in tensors:
        spec = left.pop(name, None)
        if spec is None or array.shape != tuple(spec.shape) or array.dtype != spec.dtype:
            raise ValueError(f"{name}, {array.dtype} {array.shape}, came where the manifest has {spec}")
        yield name, np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    if left:
        raise ValueError(f"{len(left)} tensors of the manifest are missing, such as {next(iter(left))}")
