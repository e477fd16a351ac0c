"""Moves weights between another project's checkpoint and our parameters: `check`, `load`, `defer`, `specs`, `dump`.

Their matrices are the transposes of ours. Threads read each tensor in bands of rows that fit the processor's cache, and
numpy transposes each band into the leaf (reads and copies both release Python's lock). A leaf's memory is aligned so
that a CPU device uses it without a copy.
"""

import functools
import math
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import ml_dtypes
import numpy as np
from jax.sharding import Sharding

from rfjax.errors import UserError, one_line
from rfjax.tensors.layout import Layout, Piece, manifest
from rfjax.tensors.stored import NARROW, Rows, Tensors, bands

ALIGNMENT = 64  # bytes of a cache line; XLA copies arrays with a smaller alignment
NAMED = 3  # tensors of each kind of mismatch that a message names
WIDER = np.dtype(ml_dtypes.bfloat16)  # holds all values of the narrow types, in which networks can't compute
SAME: Mapping[str, Any] = {}  # all dtypes stay the same
THREADS = min(8, os.cpu_count() or 1)


def check(tensors: Tensors, layout: Layout, ignore: Sequence[str] = ()) -> None:
    """Compares the tensors' names, shapes and types with a layout, without reading values.

    Args:
        ignore: regular expressions for the beginnings of names of tensors that the layout may lack.

    Raises:
        UserError: if they differ.
    """
    wanted, stored = manifest(layout), set(tensors.names)
    missing = [name for name in wanted if name not in stored]
    extra = [name for name in tensors.names if name not in wanted and not any(re.match(word, name) for word in ignore)]
    wrong = [
        f"{name} {tensors.shape(name)} where {shape} was expected"
        for name, shape in wanted.items()
        if name in stored and tensors.shape(name) != shape
    ]
    strange = [f"{name} in {tensors.kind(name)}" for name in wanted if name in stored and not tensors.readable(name)]
    kinds = (("missing", missing), ("unexpected", extra), ("of another shape", wrong), ("of an unknown type", strange))
    faults = [f"{len(names)} {what} ({_some(names)})" for what, names in kinds if names]
    if faults:
        count = f"{len(wanted)} tensors were expected and {len(stored)} found"
        raise UserError(f"{tensors.source} does not fit its layout ({count}): {'; '.join(faults)}")


def _some(words: list[str]) -> str:
    return ", ".join(map(one_line, words[:NAMED])) + (f" and {len(words) - NAMED} more" if len(words) > NAMED else "")


def load(
    tensors: Tensors,
    layout: Layout,
    target: Mapping[str, jax.ShapeDtypeStruct],
    dtype: Any = None,
    ignore: Sequence[str] = (),
) -> dict[str, jax.Array]:
    """Reads a checkpoint into sharded arrays, by path, with one leaf at a time in the host's memory.

    Args:
        target: path of a leaf -> shape and sharding.
        dtype: of the arrays. None keeps the stored types, but turns eight-bit types into bfloat16.
        ignore: as in `check`.

    Raises:
        UserError: if the checkpoint does not fit the layout (before values are read), a copy differs from its original,
            or JAX would cut 64-bit values.
        ValueError: if the layout and the target disagree.
    """
    leaves = defer(tensors, layout, target, dtype, ignore)
    return {path: leaf.place(target[path].sharding) for path, leaf in leaves.items()}


@dataclass(frozen=True)
class Deferred:
    """A leaf that stays in its files until it is placed on devices.

    Attributes:
        shape: of the leaf.
        dtype: of the leaf.
        read: the whole leaf, row-major, from its files.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def place(self, sharding: Sharding) -> jax.Array:
        """Reads the leaf and spreads it over devices; the host's memory is free again afterwards."""
        host = self.read()
        placed = jax.make_array_from_callback(self.shape, sharding, lambda index: host[index])
        return jax.block_until_ready(placed)


def defer(
    tensors: Tensors, layout: Layout, target: Mapping[str, Any], dtype: Any = None, ignore: Sequence[str] = ()
) -> dict[str, Deferred]:
    """The leaves of a checkpoint by path, none of them read yet; `tensors` must stay open until they are.

    Args:
        target: path of a leaf -> anything with its shape.
        dtype, ignore: as in `load`.

    Raises:
        UserError, ValueError: as `load`, but for a copy that differs, which `read` finds.
    """
    if different := sorted(set(layout) ^ set(target)):
        raise ValueError(f"the layout and the target have different leaves: {different[:NAMED]}")
    for path, pieces in layout.items():
        if sum(math.prod(piece.view) for piece in pieces) != math.prod(target[path].shape):
            raise ValueError(f"the pieces of {path} do not fill its shape {target[path].shape}")
    check(tensors, layout, ignore)
    kinds = {path: _dtype(tensors, path, pieces, dtype) for path, pieces in layout.items()}

    def leaf(path: str) -> Deferred:
        shape = tuple(target[path].shape)
        return Deferred(shape, kinds[path], functools.partial(_read_leaf, tensors, layout[path], shape, kinds[path]))

    return {path: leaf(path) for path in layout}


def _dtype(tensors: Tensors, path: str, pieces: Sequence[Piece], dtype: Any) -> np.dtype:
    """The dtype that a leaf will have."""
    names = [name for piece in pieces for name in (piece.name, *piece.copies)]
    stored = {tensors.dtype(name): name for name in names}
    if len(stored) > 1:
        what = ", ".join(f"{name} in {kind}" for kind, name in stored.items())
        raise UserError(f"{tensors.source} stores the parts of {path} in different types: {what}")
    kind = default_dtype(next(iter(stored))) if dtype is None else np.dtype(dtype)
    if jax.dtypes.canonicalize_dtype(kind) != kind:
        what = f"{tensors.where(names[0])} holds {names[0]} of {kind}"
        raise UserError(f"{what}, which JAX would cut: give another dtype")
    return kind


def default_dtype(stored: np.dtype) -> np.dtype:
    """The dtype of a leaf if the caller gives none: the stored one, or bfloat16 for eight-bit types."""
    return WIDER if stored in map(np.dtype, NARROW.values()) else stored


def _read_leaf(tensors: Tensors, pieces: Sequence[Piece], shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    host = _aligned(shape, dtype)

    def fill(piece: Piece, band: Rows | None) -> None:
        values = tensors.read(piece.name, band, READ.take)
        for copy in piece.copies:
            if not np.array_equal(_bits(values), _bits(tensors.read(copy, band))):
                raise UserError(f"{tensors.where(copy)} has other values in {copy} than in {piece.name}, its original")
        _window(_bits(host), piece, band)[...] = _bits(_staged(values, dtype))

    tasks = [(piece, band) for piece in pieces for band in tensors.bands(piece.name, piece.rows)]
    list(_pool().map(lambda task: fill(*task), tasks))
    return host


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS)


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised array that a CPU device can use without a copy."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


class Scratch(threading.local):
    """A thread's memory for all bands, because a new allocation can take longer than the read."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def take(self, count: int) -> np.ndarray:
        if len(self._memory) < count:
            self._memory = np.empty(count, np.uint8)
        return self._memory[:count]


READ, STAGED = Scratch(), Scratch()  # for the bytes of a file, and for a band in its new dtype


def _staged(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """A copy of a band in another dtype, in this thread's scratch, with a cache line of padding between rows.

    Without padding, the lines of a column share few sets of the first-level cache if rows are 2^n x 3 bytes long, and
    a transpose takes half as long again.
    """
    if values.ndim < 2:
        return values.astype(dtype, copy=False)
    flat = values.reshape(len(values), math.prod(values.shape[1:]))
    width = flat.shape[1] + ALIGNMENT // dtype.itemsize
    memory = STAGED.take(len(flat) * width * dtype.itemsize).view(dtype)
    wide = memory.reshape(len(flat), width)[:, : flat.shape[1]]
    if dtype == values.dtype:
        _bits(wide)[...] = _bits(flat)
    else:
        wide[...] = flat
    return wide.reshape(values.shape, copy=False)


def _bits(array: np.ndarray) -> np.ndarray:
    """The same memory as unsigned integers, which numpy copies fast and compares bit by bit (bfloat16, NaN)."""
    return array.view(f"u{array.dtype.itemsize}")


def _window(leaf: np.ndarray, piece: Piece, band: Rows | None) -> np.ndarray:
    """A view of the region of a leaf that a band of a piece's tensor fills, with the tensor's order of axes."""
    whole = leaf[(*piece.index, ...)].reshape(piece.view, copy=False).transpose(piece.order)
    start = piece.rows[0] if piece.rows else 0
    return whole if band is None else whole[band[0] - start : band[1] - start]


def _uses(layout: Layout) -> dict[str, list[tuple[str, Piece]]]:
    """Their tensor -> the leaves and pieces that it consists of, in the layout's order."""
    uses: dict[str, list[tuple[str, Piece]]] = {}
    for path, pieces in layout.items():
        for piece in pieces:
            uses.setdefault(piece.name, []).append((path, piece))
    return uses


def specs(
    leaves: Mapping[str, Any], layout: Layout, dtypes: Mapping[str, Any] = SAME
) -> dict[str, jax.ShapeDtypeStruct]:
    """The manifest for a writer: shape and dtype of all tensors that `dump` yields, in its order.

    Args:
        leaves: path -> array or jax.ShapeDtypeStruct.
        dtypes: as in `dump`.

    Raises:
        ValueError: if the leaves of one tensor have different dtypes.
    """
    result = {}
    for name, parts in _uses(layout).items():
        kinds = {np.dtype(dtypes.get(path) or leaves[path].dtype) for path, _ in parts}
        if len(kinds) > 1:
            raise ValueError(f"{name} is made of leaves of several types: {sorted(map(str, kinds))}")
        piece = parts[0][1]
        result |= dict.fromkeys((name, *piece.copies), jax.ShapeDtypeStruct(piece.shape, kinds.pop()))
    return result


def dump(
    leaves: Mapping[str, Any], layout: Layout, dtypes: Mapping[str, Any] = SAME
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields their tensors one at a time in the layout's order, copies after their original; the inverse of `load`.

    The host's memory holds only the leaves of the current tensor.

    Args:
        leaves: path -> numpy array, or JAX array of which this process has all shards.
        dtypes: path of a leaf -> dtype of its tensors; the leaf's own dtype if it is missing.

    Raises:
        ValueError: if the leaves of one tensor have different dtypes.
    """
    shapes, uses = specs(leaves, layout, dtypes), _uses(layout)
    last = {path: name for name, parts in uses.items() for path, _ in parts}
    hosts: dict[str, np.ndarray] = {}
    for name, parts in uses.items():
        out = np.empty(shapes[name].shape, shapes[name].dtype)
        for path, piece in parts:
            if path not in hosts:
                hosts[path] = _host(leaves[path]).astype(dtypes.get(path) or leaves[path].dtype, copy=False)
            for band in bands(piece.shape, out.itemsize, piece.rows):
                rows = ... if band is None else slice(*band)
                _bits(out)[rows] = _window(_bits(hosts[path]), piece, band)
        for path in {path for path, _ in parts if last[path] == name}:
            del hosts[path]
        for each in (name, *parts[0][1].copies):
            yield each, out


def _host(leaf: Any) -> np.ndarray:
    """A row-major numpy array of a leaf, without a cached copy in a leaf on an accelerator."""
    if isinstance(leaf, jax.Array):
        shards = [shard.data for shard in leaf.addressable_shards]
        leaf = jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, shards)
    return np.asarray(leaf, order="C")
