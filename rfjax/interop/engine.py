"""From another project's checkpoint to our parameters and back: `check`, `load`, `specs`, `dump`.

Their matrices are ours transposed. Each tensor is read in bands of rows that fit the processor's cache, and numpy
transposes each band from there into the leaf, in threads (reads and copies both let go of Python's lock). A leaf's
memory is aligned so that a CPU device takes it over as it is.
"""

import math
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import ml_dtypes
import numpy as np

from rfjax.errors import UserError
from rfjax.interop.layout import Layout, Piece, Rows, manifest
from rfjax.interop.stored import NARROW, Tensors, bands, shown

ALIGNMENT = 64  # bytes of a cache line; XLA copies what is aligned less
NAMED = 3  # tensors of each kind of mismatch that a message names
WIDER = np.dtype(ml_dtypes.bfloat16)  # what holds all values of the narrow types, in which no network computes
SAME: Mapping[str, Any] = {}  # no other dtypes than there are
THREADS = min(8, os.cpu_count() or 1)


def check(tensors: Tensors, layout: Layout, ignore: Sequence[str] = ()) -> None:
    """Raises UserError, without reading data, where names, shapes or types are not the layout's.

    ignore: regular expressions; tensors whose names begin with one may be there and are not read.
    """
    wanted, found = manifest(layout), set(tensors.names)
    missing = [name for name in wanted if name not in found]
    extra = [name for name in tensors.names if name not in wanted and not any(re.match(word, name) for word in ignore)]
    wrong = [
        f"{name} {tensors.shape(name)} where {shape} was expected"
        for name, shape in wanted.items()
        if name in found and tensors.shape(name) != shape
    ]
    strange = [f"{name} in {tensors.kind(name)}" for name in wanted if name in found and not tensors.readable(name)]
    kinds = (("missing", missing), ("not expected", extra), ("of another shape", wrong), ("of no known type", strange))
    faults = [f"{len(names)} {what} ({_some(names)})" for what, names in kinds if names]
    if faults:
        count = f"{len(wanted)} tensors were expected and {len(found)} found"
        raise UserError(f"{tensors.source} does not fit, {count}: {'; '.join(faults)}")


def _some(words: list[str]) -> str:
    return ", ".join(map(shown, words[:NAMED])) + (f" and {len(words) - NAMED} more" if len(words) > NAMED else "")


def load(
    tensors: Tensors,
    layout: Layout,
    target: Mapping[str, jax.ShapeDtypeStruct],
    dtype: Any = None,
    ignore: Sequence[str] = (),
) -> dict[str, jax.Array]:
    """Reads a checkpoint into arrays; on the host it holds one leaf at a time.

    target: each leaf's shape and sharding by its path; every device gets its own shard.
    dtype: of the arrays; None keeps the stored one, and makes bfloat16 of eight bits. ignore: as in `check`.
    Raises UserError where the checkpoint does not fit the layout (before data is read), where a copy differs from its
    original, and for 64-bit values that JAX would cut; ValueError where layout and target disagree.
    """
    if set(layout) != set(target):
        raise ValueError(
            f"the layout and the target have different leaves: {sorted(set(layout) ^ set(target))[:NAMED]}"
        )
    for path, pieces in layout.items():
        if sum(math.prod(piece.view) for piece in pieces) != math.prod(target[path].shape):
            raise ValueError(f"the pieces of {path} do not fill its shape {target[path].shape}")
    check(tensors, layout, ignore)
    kinds = {path: _dtype(tensors, path, pieces, dtype) for path, pieces in layout.items()}
    with ThreadPoolExecutor(THREADS) as pool:
        return {path: _load_leaf(pool, tensors, layout[path], target[path], kinds[path]) for path in layout}


def _dtype(tensors: Tensors, path: str, pieces: Sequence[Piece], dtype: Any) -> np.dtype:
    """The dtype that a leaf will have."""
    names = [name for piece in pieces for name in (piece.name, *piece.copies)]
    stored = {tensors.dtype(name): name for name in names}
    if len(stored) > 1:
        what = ", ".join(f"{name} in {kind}" for kind, name in stored.items())
        raise UserError(f"{tensors.source} stores what belongs together in different types: {what}")
    kind = kept(next(iter(stored))) if dtype is None else np.dtype(dtype)
    if jax.dtypes.canonicalize_dtype(kind) != kind:
        raise UserError(
            f"{tensors.where(names[0])} holds {names[0]} of {kind}, which JAX would cut: give another dtype"
        )
    return kind


def kept(stored: np.dtype) -> np.dtype:
    """The dtype that a tensor keeps where none is asked for: its own, or a wider one that can be computed with."""
    return WIDER if stored in map(np.dtype, NARROW.values()) else stored


def _load_leaf(
    pool: ThreadPoolExecutor, tensors: Tensors, pieces: Sequence[Piece], target: jax.ShapeDtypeStruct, dtype: np.dtype
) -> jax.Array:
    host = _aligned(target.shape, dtype)

    def fill(piece: Piece, band: Rows | None) -> None:
        values = tensors.read(piece.name, band, SCRATCH.read)
        for copy in piece.copies:
            if not np.array_equal(_bits(values), _bits(tensors.read(copy, band))):
                raise UserError(f"{tensors.where(copy)} has other values in {copy} than in {piece.name}, its original")
        _window(_bits(host), piece, band)[...] = _bits(_staged(values, dtype))

    tasks = [(piece, band) for piece in pieces for band in tensors.bands(piece.name, piece.rows)]
    for _ in pool.map(fill, *zip(*tasks, strict=True)) if tasks else ():
        pass
    return jax.block_until_ready(jax.make_array_from_callback(target.shape, target.sharding, lambda index: host[index]))


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array that a CPU device can take over without a copy; its values are yet to come."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


class Scratch(threading.local):
    """Memory that a thread uses for one band after the other: asking for it anew can take longer than to read."""

    def __init__(self) -> None:
        self._kept = {}

    def _take(self, name: str, count: int) -> np.ndarray:
        if name not in self._kept or len(self._kept[name]) < count:
            self._kept[name] = np.empty(count, np.uint8)
        return self._kept[name][:count]

    def read(self, count: int) -> np.ndarray:
        """For the bytes of a file."""
        return self._take("read", count)

    def stage(self, count: int) -> np.ndarray:
        """For a band on its way."""
        return self._take("stage", count)


SCRATCH = Scratch()


def _staged(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """A band in another dtype, whose rows are moved apart by a cache line, in this thread's scratch.

    Without that, a column's lines fall into few sets of the first-level cache where rows are 2^n x 3 bytes long, and a
    transpose takes half as long again.
    """
    if values.ndim < 2:
        return values.astype(dtype, copy=False)
    flat = values.reshape(len(values), math.prod(values.shape[1:]))
    width = flat.shape[1] + ALIGNMENT // dtype.itemsize
    room = SCRATCH.stage(len(flat) * width * dtype.itemsize).view(dtype)
    wide = room.reshape(len(flat), width)[:, : flat.shape[1]]
    if dtype == values.dtype:
        _bits(wide)[...] = _bits(flat)
    else:
        wide[...] = flat
    return wide.reshape(values.shape, copy=False)


def _bits(array: np.ndarray) -> np.ndarray:
    """The same memory as unsigned integers, which numpy copies fast and compares as they are (bfloat16, NaN)."""
    return array.view(f"u{array.dtype.itemsize}")


def _window(leaf: np.ndarray, piece: Piece, band: Rows | None) -> np.ndarray:
    """The region of a leaf that a band of a piece's tensor fills, in their orientation, as a view."""
    whole = leaf[(*piece.index, ...)].reshape(piece.view, copy=False).transpose(piece.order)
    start = piece.rows[0] if piece.rows else 0
    return whole if band is None else whole[band[0] - start : band[1] - start]


def _uses(layout: Layout) -> dict[str, list[tuple[str, Piece]]]:
    """Each tensor of theirs with the leaves and pieces that make it up, in the layout's order."""
    uses: dict[str, list[tuple[str, Piece]]] = {}
    for path, pieces in layout.items():
        for piece in pieces:
            uses.setdefault(piece.name, []).append((path, piece))
    return uses


def specs(
    leaves: Mapping[str, Any], layout: Layout, dtypes: Mapping[str, Any] = SAME
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of every tensor that `dump` yields, in its order: what the writers ask for in advance.

    leaves: arrays or jax.ShapeDtypeStruct. dtypes: as in `dump`. Raises ValueError where the leaves of one tensor have
    different dtypes.
    """
    found = {}
    for name, parts in _uses(layout).items():
        kinds = {np.dtype(dtypes.get(path) or leaves[path].dtype) for path, _ in parts}
        if len(kinds) > 1:
            raise ValueError(f"{name} is made of leaves of several types: {sorted(map(str, kinds))}")
        piece = parts[0][1]
        found |= dict.fromkeys((name, *piece.copies), jax.ShapeDtypeStruct(piece.shape, kinds.pop()))
    return found


def dump(
    leaves: Mapping[str, Any], layout: Layout, dtypes: Mapping[str, Any] = SAME
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields every tensor of theirs, copies behind their original, one at a time in the layout's order: load's inverse.

    leaves: our arrays by path (numpy's, or jax's where this process holds all shards); the host holds those that the
    tensor at hand is made of. dtypes: of the tensors, by the leaf's path; without one, the leaf's. Raises ValueError as
    `specs` does.
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
    """A row-major numpy array of a leaf; one of an accelerator leaves no copy behind in the leaf."""
    if isinstance(leaf, jax.Array):
        shards = [shard.data for shard in leaf.addressable_shards]
        leaf = jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, shards)
    return np.asarray(leaf, order="C")
