"""Checkpoint files: `open_tensors` for safetensors files, folders of them and torch's files (read by pt.py), and
`write_safetensors` for safetensors files, in shards where they are large."""

import contextlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rfjax.errors import UserError
from rfjax.interop.pt import open_pt
from rfjax.interop.stored import DTYPE_NAMES, DTYPES, Entry, Spec, Tensors, checked, nbytes, replacing

HEADER_LIMIT = 100_000_000  # bytes, of the format's definition
STEM = "diffusion_pytorch_model"  # Hugging Face diffusers' name for a network's weights
INDEX = ".safetensors.index.json"
MAX_SHARD = 10_000_000_000  # bytes; diffusers' own
METADATA = {"format": "pt"}  # what transformers and diffusers ask for


def open_tensors(path: str | Path, part: str | None = None) -> Tensors:
    """Opens a .safetensors file, an index of shards, a folder that holds one of these (itself or in transformer/), or a
    torch file (.pt, .pth, .bin, .ckpt), of which `part` names a state dict as in `pt.open_pt`.

    Raises UserError for a file that is missing, cut short, corrupt or of another kind, and for a folder with several.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(
            f"there is no {path}: give a .safetensors or .pt file, or a folder that holds .safetensors files"
        )
    if path.is_dir():
        path = _candidate(path)
    if path.suffix in {".pt", ".pth", ".bin", ".ckpt"}:
        return open_pt(path, part).tensors
    if part is not None:
        raise UserError(f"{path} has no parts, so there is no '{part}' in it: only torch's files have parts")
    if path.name.endswith(".index.json"):
        return Tensors(path, _indexed(path))
    if path.suffix == ".safetensors":
        return Tensors(path, _header(path))
    raise UserError(f"{path} should end in .safetensors, {INDEX}, .pt, .pth, .bin or .ckpt")


def _candidate(folder: Path) -> Path:
    """The one file or index in a folder, or in its transformer/, that holds weights."""
    indices = sorted(folder.glob(f"*{INDEX}"))
    shards = {name for index in indices for name in _weight_map(index).values()}
    found = indices + sorted(file for file in folder.glob("*.safetensors") if file.name not in shards)
    if not found and (folder / "transformer").is_dir():
        return _candidate(folder / "transformer")
    if len(found) != 1:
        names = ", ".join(file.name for file in found)
        raise UserError(
            f"{folder} holds several checkpoints ({names}): give one of these files"
            if found
            else f"{folder} holds no .safetensors file: give a file, or a folder with one"
        )
    return found[0]


def _weight_map(index: Path) -> dict[str, str]:
    try:
        names = json.loads(index.read_bytes())["weight_map"]
        return {str(name): str(file) for name, file in names.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{index} should be JSON with a weight_map from tensors to files, and is not ({error})"
        ) from error


def _indexed(index: Path) -> dict[str, Entry]:
    names = _weight_map(index)
    files = sorted(set(names.values()))
    missing = [file for file in files if not (index.parent / file).is_file()]
    if missing:
        raise UserError(f"{index} names {len(files)} files, and {', '.join(missing[:3])} is missing beside it")
    headers = {file: _header(index.parent / file) for file in files}
    for name, file in names.items():
        if name not in headers[file]:
            raise UserError(f"{index} says that {name} is in {file}, and it is not there")
    return {name: headers[file][name] for name, file in names.items()}


def _header(path: Path) -> dict[str, Entry]:
    """The entries of a safetensors file, whose sizes are checked against the file's."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if start == b"version ":
            raise UserError(f"{path} is a Git LFS pointer in place of the file: run `git lfs pull` where it came from")
        if len(start) < 8 or length > min(HEADER_LIMIT, size - 8):
            found = f"a header of {length:,} bytes in a file of {size:,}" if len(start) == 8 else f"{size} bytes in all"
            raise UserError(f"{path} is cut short or no safetensors file: {found}")
        text = file.read(length)
    entries, end = {}, 0
    try:
        for name, value in json.loads(text).items():
            if name != "__metadata__":
                first, last = (int(place) for place in value["data_offsets"])
                shape, kind = tuple(int(n) for n in value["shape"]), str(value["dtype"])
                if kind not in DTYPES:
                    raise UserError(f"{path} stores {name} as {kind}: expected one of {', '.join(DTYPES)}")
                if (
                    not 0 <= first <= last
                    or last - first != math.prod(shape) * DTYPES[kind].itemsize
                    or min((0, *shape))
                ):
                    raise UserError(
                        f"{path} is corrupt: its header gives {name}, {kind} {shape}, bytes {first} to {last}"
                    )
                entries[name] = Entry(path, 8 + length + first, DTYPES[kind], shape)
                end = max(end, last)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} has a corrupt header, which should be JSON of tensors: {error}") from error
    if 8 + length + end != size:
        raise UserError(
            f"{path} is cut short or damaged: its header says {8 + length + end:,} bytes, the file has {size:,}"
        )
    return entries


def write_safetensors(
    path: str | Path,
    tensors: Iterable[tuple[str, np.ndarray]],
    manifest: Mapping[str, Spec],
    metadata: Mapping[str, str] = METADATA,
    max_shard_bytes: int = MAX_SHARD,
) -> Path:
    """Writes tensors as they come, in any order, one in memory at a time; returns the file, or the index of the shards.

    path: a .safetensors file, or a folder for diffusion_pytorch_model.safetensors, in shards beyond max_shard_bytes.
    manifest: every tensor's shape and dtype. A file gets its name when it is complete; the index comes last.
    Raises UserError where the folder holds other weights or a dtype can't be stored, ValueError for other tensors.
    """
    path, single = Path(path), Path(path).suffix == ".safetensors"
    folder, stem = (path.parent, path.stem) if single else (path, STEM)
    shards = [list(manifest)] if single else _shards(manifest, max_shard_bytes)
    count, index = len(shards), folder / f"{stem}{INDEX}"
    endings = [f"-{i:05d}-of-{count:05d}" for i in range(1, count + 1)] if count > 1 else [""]
    files = [folder / f"{stem}{ending}.safetensors" for ending in endings]
    if not single:
        others = {*folder.glob("*.safetensors"), *folder.glob(f"*{INDEX}")} - {*files, index} | (
            {index} if count == 1 else set()
        )
        if strange := sorted(file.name for file in others if file.exists()):
            raise UserError(f"{folder} holds other weights already ({strange[0]}): give an empty folder")
    with contextlib.ExitStack() as stack:
        places = {}
        for file, members in zip(files, shards, strict=True):
            handle = stack.enter_context(stack.enter_context(replacing(file)).open("wb"))
            header, offsets = _make_header({name: manifest[name] for name in members}, metadata)
            handle.write(header)
            places |= {name: (handle, len(header) + offset) for name, offset in offsets.items()}
        for name, data in checked(tensors, manifest):
            handle, offset = places[name]
            handle.seek(offset)
            handle.write(data)
    if count == 1:
        return files[0]
    names = {name: file.name for file, members in zip(files, shards, strict=True) for name in members}
    total = {"total_size": sum(map(nbytes, manifest.values()))}
    with replacing(index) as partial:
        partial.write_text(json.dumps({"metadata": total, "weight_map": names}, indent=2) + "\n", encoding="utf-8")
    return index


def _shards(manifest: Mapping[str, Spec], most: int) -> list[list[str]]:
    """Names in the manifest's order, cut where the next tensor would go beyond `most` bytes."""
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
    """A file's header and where each tensor begins behind it; wide dtypes come first, which aligns all of them."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offsets, end = {}, 0
    for name, spec in sorted(manifest.items(), key=lambda item: -np.dtype(item[1].dtype).itemsize):
        kind = DTYPE_NAMES.get(np.dtype(spec.dtype))
        if kind is None:
            raise UserError(
                f"{name} is {np.dtype(spec.dtype)}, which is not written: use one of {', '.join(map(str, DTYPE_NAMES))}"
            )
        offsets[name], first, end = end, end, end + nbytes(spec)
        header[name] = {"dtype": kind, "shape": list(spec.shape), "data_offsets": [first, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, offsets
