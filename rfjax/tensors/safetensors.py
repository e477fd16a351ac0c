"""safetensors files: `read_header` lists the tensors of a file, `write_safetensors` writes one file or several."""

import contextlib
import functools
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rfjax import files, untrusted
from rfjax.errors import UserError, one_line
from rfjax.tensors.stored import (
    ANY_SIZE,
    DTYPE_NAMES,
    MOST_AXES,
    Entry,
    Spec,
    checked,
    itemsize,
    make_entry,
    nbytes,
    whole,
)

HEADER_LIMIT = 2**24  # bytes: a hundred thousand tensors; the format allows 100 MB, which would fill memory
STEM = "diffusion_pytorch_model"  # Hugging Face diffusers' name for a network's weights
INDEX = ".safetensors.index.json"
MAX_SHARD = 10_000_000_000  # bytes; the default of diffusers
METADATA = {"format": "pt"}  # required by transformers and diffusers


def read_header(path: Path) -> dict[str, Entry]:
    """Reads the entries of a safetensors file, whose tensors must cover its bytes without gaps or overlaps.

    Raises:
        UserError: if the file has another format, is damaged or is cut short.
    """
    with untrusted.regular(path, ANY_SIZE) as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if start == b"version ":
            raise UserError(f"{path} is a Git LFS pointer in place of the file: run `git lfs pull` where it came from")
        if HEADER_LIMIT < length <= size - 8:
            raise UserError(f"{path} has a header of {length:,} bytes, and at most {HEADER_LIMIT:,} are read")
        if len(start) < 8 or length > size - 8:
            found = f"a header of {length:,} bytes in a file of {size:,}" if len(start) == 8 else f"{size} bytes in all"
            raise UserError(f"{path} is cut short or no safetensors file: {found}")
        text = file.read(length)
    where = f"{path}'s header"
    untrusted.parse_json(text, where, depth=4)
    fields = json.loads(text, object_pairs_hook=functools.partial(_unique, where))
    described = {name: _described(where, name, value) for name, value in fields.items() if name != "__metadata__"}
    end = 0
    for name, (first, last, *_) in sorted(described.items(), key=lambda item: item[1][:2]):
        if first != end:
            how = "overlaps the tensor before it" if first < end else f"lies {first - end:,} bytes behind it"
            raise UserError(f"{where} is corrupt: {one_line(name)}, bytes {first:,} to {last:,}, {how}")
        end = last
    if 8 + length + end != size:
        raise UserError(
            f"{path} is cut short or damaged: its header says {8 + length + end:,} bytes, the file has {size:,}"
        )
    base = 8 + length
    return {name: make_entry(path, base + first, kind, shape) for name, (first, _, kind, shape) in described.items()}


def _unique(where: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose names differ; readers disagree on which of two equal names they take."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{where} is corrupt: it names {one_line(repeated)} more than once")
    return made


def _described(where: str, name: str, fields: Mapping[str, Any]) -> tuple[int, int, str, tuple[int, ...]]:
    """A tensor's first byte, the byte after its last, the file's name of its type, and its shape."""
    try:
        first, last = map(whole, fields["data_offsets"])
        shape, kind = tuple(map(whole, fields["shape"])), fields["dtype"]
        if not isinstance(kind, str) or len(shape) > MOST_AXES:
            raise ValueError(f"dtype {kind!r:.40}, {len(shape)} axes")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{where} is corrupt at {one_line(name)}: {type(error).__name__}, {error}") from error
    size = itemsize(kind)
    if not 0 <= first <= last or min((0, *shape)) or (size and last - first != math.prod(shape) * size):
        raise UserError(
            f"{where} is corrupt: it gives {one_line(name)}, {one_line(kind)} {shape}, bytes {first} to {last}"
        )
    return first, last, one_line(kind), shape


def write_safetensors(
    path: str | Path,
    tensors: Iterable[tuple[str, np.ndarray]],
    manifest: Mapping[str, Spec],
    metadata: Mapping[str, str] = METADATA,
    max_shard_bytes: int = MAX_SHARD,
) -> Path:
    """Writes tensors in any order, one in memory at a time. Files appear when they are complete, the index last.

    Args:
        path: a .safetensors file, or a folder for diffusion_pytorch_model.safetensors.
        tensors: (name, values).
        manifest: name -> shape and dtype of all tensors.
        metadata: texts to store in each file's header.
        max_shard_bytes: largest size of a folder's file; more tensors make several files and an index.

    Returns:
        The file, or the index of the shards.

    Raises:
        UserError: if the folder holds other weights, or the format has no such dtype.
        ValueError: if the tensors are not those of the manifest.
    """
    path, single = Path(path), Path(path).suffix == ".safetensors"
    folder, stem = (path.parent, path.stem) if single else (path, STEM)
    shards = [list(manifest)] if single else _shards(manifest, max_shard_bytes)
    count, index = len(shards), folder / f"{stem}{INDEX}"
    endings = [f"-{i:05d}-of-{count:05d}" for i in range(1, count + 1)] if count > 1 else [""]
    paths = [folder / f"{stem}{ending}.safetensors" for ending in endings]
    if not single:
        others = {*folder.glob("*.safetensors"), *folder.glob(f"*{INDEX}")} - {*paths, index} | (
            {index} if count == 1 else set()
        )
        if strange := sorted(file.name for file in others if file.exists()):
            raise UserError(f"{folder} holds other weights already ({strange[0]}): give an empty folder")
    with contextlib.ExitStack() as stack:
        places = {}
        for file, members in zip(paths, shards, strict=True):
            handle = stack.enter_context(stack.enter_context(files.atomic(file)).open("wb"))
            header, offsets = _make_header({name: manifest[name] for name in members}, metadata)
            handle.write(header)
            places |= {name: (handle, len(header) + offset) for name, offset in offsets.items()}
        for name, data in checked(tensors, manifest):
            handle, offset = places[name]
            handle.seek(offset)
            handle.write(data)
    if count == 1:
        return paths[0]
    names = {name: file.name for file, members in zip(paths, shards, strict=True) for name in members}
    total = {"total_size": sum(map(nbytes, manifest.values()))}
    files.write(index, json.dumps({"metadata": total, "weight_map": names}, indent=2) + "\n")
    return index


def _shards(manifest: Mapping[str, Spec], most: int) -> list[list[str]]:
    """Splits the manifest's names, in order, into shards of at most `most` bytes."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, spec in manifest.items():
        if shards[-1] and size + nbytes(spec) > most:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += nbytes(spec)
    return shards


def _make_header(manifest: Mapping[str, Spec], metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """A file's header, and name -> offset behind the header. Wide dtypes come first, which aligns all tensors."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offsets, end = {}, 0
    for name, spec in sorted(manifest.items(), key=lambda item: -np.dtype(item[1].dtype).itemsize):
        kind = DTYPE_NAMES.get(np.dtype(spec.dtype))
        if kind is None:
            raise UserError(
                f"{name} is {np.dtype(spec.dtype)}, which can't be written: use one of "
                f"{', '.join(map(str, DTYPE_NAMES))}"
            )
        offsets[name], first, end = end, end, end + nbytes(spec)
        header[name] = {"dtype": kind, "shape": list(spec.shape), "data_offsets": [first, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, offsets
