"""Checkpoints in buckets: each process of a job writes its own arrays as one object, and reads those that it needs.

Why not Orbax here: it renames folders, which S3 lacks, and lets processes meet in a shared folder; it knows gs:// (by
other packages) and no s3://. Why not one local checkpoint that is sent up as a whole: the hosts of a pod share no disk.
So a checkpoint is a folder of

    TOKEN-00000-of-00004.part   the arrays whose first copy is on a device of process 0, one after the other
    parts.json                  for each part its size and the place of each array; written last, by process 0

and counts once it has parts.json. TOKEN is drawn anew for each save, so that parts of a killed save can't be mistaken
for those of the next. Nothing of a checkpoint touches the local disk; a region of an array is read by ranges, so that a
run may go on with another mesh or number of processes. A folder that was copied from a bucket is read alike.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np

from rfjax import files
from rfjax.buckets import Place, mirror
from rfjax.errors import UserError
from rfjax.trees import leaf_name
from rfjax.untrusted import read_json

MANIFEST = "parts.json"
THREADS = 16  # requests at the same time
AHEAD = 32  # arrays that are read before they are put on the devices
PATIENCE = 600.0  # seconds without a new part after which a save has failed
WAIT = 0.2  # seconds between two looks for the parts of other processes
BLOCK = 2**26  # bytes of a piece that is sent

Bounds = tuple[tuple[int, int], ...]  # start and stop along each axis
Read = Callable[[str, int, int], bytes]  # (name of a part, start, stop) -> bytes


class Piece(NamedTuple):
    """A region of an array, and where its bytes lie: in C order, without gaps."""

    array: str
    dtype: str
    bounds: Bounds
    part: str
    start: int

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(stop - start for start, stop in self.bounds)


class Saved(NamedTuple):
    """The arrays of this process, copied out of the devices."""

    name: str
    pieces: list[Piece]
    values: list[np.ndarray]


def copy_out(tree: Any, token: int) -> Saved:
    """Copies the arrays of which this process has the first copy; NumPy arrays count as process 0's."""
    name = f"{token:08x}-{jax.process_index():05d}-of-{jax.process_count():05d}{mirror.PARTS}"
    chosen: list[tuple[str, Bounds, Any]] = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = leaf_name(path)
        if isinstance(leaf, jax.Array):
            for shard in leaf.addressable_shards:
                if shard.replica_id == 0:
                    shard.data.copy_to_host_async()
                    chosen.append((array, _bounds(shard.index, leaf.shape), shard.data))
        elif jax.process_index() == 0:
            chosen.append((array, _bounds((slice(None),) * np.ndim(leaf), np.shape(leaf)), leaf))
    pieces, values, start = [], [], 0
    for array, bounds, value in chosen:
        # A CPU's array is the device's memory, which the update that follows reuses.
        copied = np.array(value, order="C") if jax.default_backend() == "cpu" else np.asarray(value, order="C")
        pieces.append(Piece(array, copied.dtype.name, bounds, name, start))
        values.append(copied)
        start += copied.nbytes
    return Saved(name, pieces, values)


def write(saved: Saved, folder: Path) -> None:
    """Writes this process's part; process 0 waits for the others' and for the mirror, and completes the checkpoint.

    Runs in a thread, so it calls nothing of JAX.

    Args:
        folder: of the checkpoint, in a folder that mirrors a bucket's.

    Raises:
        UserError: if the bucket can't be written, or another process writes no part.
    """
    place = mirror.place_of(folder)
    size = sum(value.nbytes for value in saved.values)
    table = json.dumps([[p.array, p.dtype, p.bounds, p.start] for p in saved.pieces]).encode()
    end = len(table).to_bytes(8, "little")
    (place / saved.name).write(
        _blocks([*saved.values, table, end])
        if size > BLOCK
        else b"".join([*(value.tobytes() for value in saved.values), table, end])
    )
    token, index, _, count = saved.name.removesuffix(mirror.PARTS).split("-")
    if int(index):
        return
    parts = _wait_for(place, token, int(count))
    mirror.publish(folder)
    manifest = {"version": 1, "parts": [_table(place, name, size) for name, size in sorted(parts.items())]}
    files.write(folder / MANIFEST, json.dumps(manifest))
    mirror.publish(folder)


def _blocks(values: list[Any]) -> Iterator[memoryview]:
    for value in values:
        data = memoryview(value if isinstance(value, bytes) else value.reshape(-1).view(np.uint8))
        for start in range(0, len(data), BLOCK):
            yield data[start : start + BLOCK]


def _wait_for(place: Place, token: str, count: int) -> dict[str, int]:
    """The sizes of all parts of a save, once they are there."""
    before, since = -1, time.monotonic()
    while True:
        found = {one.name: one.size for one in place.entries() if one.name.startswith(f"{token}-")}
        if len(found) == count:
            return found
        if len(found) != before:
            before, since = len(found), time.monotonic()
        if time.monotonic() - since > PATIENCE:
            raise UserError(
                f"{place}: {count - len(found)} of {count} processes have written no part of this checkpoint"
            )
        time.sleep(WAIT)


def _table(place: Place, name: str, size: int) -> dict[str, Any]:
    """What a part holds, from its end."""
    length = int.from_bytes((place / name).read(size - 8, size), "little")
    return {"name": name, "size": size, "arrays": json.loads((place / name).read(size - 8 - length, size - 8))}


def read(folder: Path, wanted: Any) -> Any:
    """Reads a checkpoint into the shardings of a tree of abstract arrays; NumPy arrays stay on the host.

    Args:
        folder: of the checkpoint, local or the mirror of a bucket's.

    Raises:
        UserError: if it is damaged or can't be read.
        ValueError: if it lacks an array, or one has another shape.
    """
    reader, place = _reader(folder), mirror.place_of(folder)
    pieces: dict[str, list[Piece]] = {}
    manifest = read_json(folder / MANIFEST, depth=8) or {}
    for part in manifest["parts"]:
        size = _size(folder, place, part["name"])
        if size != part["size"]:
            raise ValueError(f"its part {part['name']} has {size} bytes, not {part['size']}")
        for array, dtype, bounds, start in part["arrays"]:
            there = Piece(array, dtype, tuple((a, b) for a, b in bounds), part["name"], start)
            pieces.setdefault(array, []).append(there)
    leaves, structure = jax.tree_util.tree_flatten_with_path(wanted)
    named = [(leaf_name(path), leaf) for path, leaf in leaves]
    found = []
    with ThreadPoolExecutor(THREADS, "parts") as pool:
        waiting = []
        for number in range(len(named) + AHEAD):
            if number < len(named):
                name, leaf = named[number]
                waiting.append(pool.submit(_regions, name, leaf, pieces.get(name, []), reader))
            if number >= AHEAD:
                found.append(_placed(named[number - AHEAD][1], waiting[number - AHEAD].result()))
                waiting[number - AHEAD] = None
    return jax.tree_util.tree_unflatten(structure, found)


def _size(folder: Path, place: Place | None, name: str) -> int:
    if place:
        entry = (place / name).entry()
        return entry.size if entry else -1
    return (folder / name).stat().st_size


def _reader(folder: Path) -> Read:
    place = mirror.place_of(folder)
    if place:
        return lambda name, start, stop: (place / name).read(start, stop)

    def read_file(name: str, start: int, stop: int) -> bytes:
        with (folder / name).open("rb") as file:
            file.seek(start)
            return file.read(stop - start)

    return read_file


def _regions(name: str, leaf: Any, pieces: list[Piece], read_bytes: Read) -> dict[Bounds, np.ndarray]:
    """The regions of an array that this process needs."""
    sharding = getattr(leaf, "sharding", None)
    indices = (
        sharding.addressable_devices_indices_map(leaf.shape).values() if sharding else [(slice(None),) * leaf.ndim]
    )
    wanted = {_bounds(index, leaf.shape) for index in indices}
    loaded: dict[Piece, np.ndarray] = {}
    result = {}
    for bounds in wanted:
        region = np.empty([stop - start for start, stop in bounds], leaf.dtype)
        filled = 0
        for piece in pieces:
            both = [(max(a, c), min(b, d)) for (a, b), (c, d) in zip(bounds, piece.bounds, strict=True)]
            if any(start >= stop for start, stop in both):
                continue
            if piece not in loaded:
                loaded[piece] = _load(piece, read_bytes)
            into = tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(both, bounds, strict=True))
            out_of = tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(both, piece.bounds, strict=True))
            region[into] = loaded[piece][out_of]
            filled += math.prod(b - a for a, b in both)
        if filled != region.size:
            raise ValueError(f"it has {filled} of {region.size} numbers of {name}")
        result[bounds] = region
    return result


def _load(piece: Piece, read_bytes: Read) -> np.ndarray:
    dtype = np.dtype(getattr(ml_dtypes, piece.dtype, piece.dtype))
    size = math.prod(piece.shape) * dtype.itemsize
    data = read_bytes(piece.part, piece.start, piece.start + size)
    return np.frombuffer(data, dtype).reshape(piece.shape)


def _placed(leaf: Any, regions: dict[Bounds, np.ndarray]) -> Any:
    if not getattr(leaf, "sharding", None):
        (value,) = regions.values()
        return value
    read_region = lambda index: regions[_bounds(index, leaf.shape)]  # noqa: E731
    return jax.make_array_from_callback(leaf.shape, leaf.sharding, read_region)


def _bounds(index: tuple[slice, ...], shape: tuple[int, ...]) -> Bounds:
    return tuple(one.indices(length)[:2] for one, length in zip(index, shape, strict=True))


def remove(folder: Path) -> None:
    """Removes a checkpoint from the bucket: first what makes it one."""
    if place := mirror.place_of(folder):
        place.remove([MANIFEST])
        place.remove([one.name for one in place.entries()])


def move(folder: Path, target: Path) -> None:
    """Moves a checkpoint's arrays within the bucket; the mirror moves the rest."""
    place, other = mirror.place_of(folder), mirror.place_of(target)
    if place and other:
        names = [one.name for one in place.entries() if one.name.endswith(mirror.PARTS)]
        for name in names:
            (place / name).copy_to(other / name)
        place.remove([MANIFEST, *names])


def clean(folder: Path) -> None:
    """Removes the parts in a bucket that no `parts.json` below a folder names: those of killed saves."""
    if place := mirror.place_of(folder):
        entries, kept, unsure = place.entries(), set(), set()
        for entry in entries:
            step, _, name = entry.name.rpartition("/")
            if name == MANIFEST:
                try:
                    manifest = json.loads((place / entry.name).read(0, entry.size))
                    kept |= {f"{step}/{part['name']}" for part in manifest["parts"]}
                except (ValueError, KeyError, TypeError):  # damaged: reading it says so
                    unsure.add(step)
        left = [one.name for one in entries if one.name.endswith(mirror.PARTS) and one.name not in kept]
        place.remove([name for name in left if name.rpartition("/")[0] not in unsure])
