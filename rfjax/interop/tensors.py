"""Checkpoint files: `open_tensors` opens a safetensors file, a folder with one or with shards, and torch's files.

A folder of Hugging Face's may hold a network several times, in variants: `diffusion_pytorch_model.fp16.safetensors`
beside `diffusion_pytorch_model.safetensors`, each whole or in shards with an index.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rfjax import untrusted
from rfjax.errors import UserError, nearest
from rfjax.interop.pt import open_pt
from rfjax.interop.safetensors import HEADER_LIMIT, INDEX, read_header
from rfjax.interop.stored import Entry, Tensors, shown

TORCH = {".pt", ".pth", ".bin", ".ckpt"}
SHARD = r"(?:-(?P<shard>\d+)-of-(?P<count>\d+))?"
# Hugging Face's names of a network's weights; of another name, what stands between dots is no variant (sd3.5_medium).
STEM = r"(?P<stem>diffusion_pytorch_model|model)"
VARIANT = r"(?:\.(?P<{}>\w+))?"
FILE = re.compile(rf"{STEM}{VARIANT.format('before')}{SHARD}{VARIANT.format('after')}\.safetensors")
OTHER_FILE = re.compile(rf"(?P<stem>.+?){SHARD}\.safetensors", re.DOTALL)
INDEX_FILE = re.compile(rf"{STEM}{VARIANT.format('before')}\.safetensors\.index{VARIANT.format('after')}\.json")
OTHER_INDEX = re.compile(r"(?P<stem>.+)\.safetensors\.index(?:\.\w+)?\.json", re.DOTALL)


def open_tensors(path: str | Path, part: str | None = None, *, variant: str = "", outside: bool = False) -> Tensors:
    """Opens a .safetensors file, an index of shards, a folder that holds one of these (itself or in transformer/), or a
    torch file (.pt, .pth, .bin, .ckpt).

    Args:
        part: of a torch file: a state dict by its name, as in `pt.open_pt`.
        variant: of a folder: which of its copies of the network, such as fp16; empty: the one without a variant, which
            has full precision, or else the only one.
        outside: also read files that a folder or an index has outside of the folder.

    Raises:
        UserError: for a file that is missing, cut short, corrupt or of another kind, and for a folder with several.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(
            f"there is no {path}: give a .safetensors or .pt file, or a folder that holds .safetensors files"
        )
    if path.is_dir():
        if part is not None:
            raise UserError(f"{path} has no parts, so there is no '{part}' in it: only torch's files have parts")
        return _open_folder(path, variant, outside)
    if variant:
        raise UserError(f"{path} is a file: a variant is chosen among the files of a folder")
    if path.suffix in TORCH:
        return open_pt(path, part).tensors
    if part is not None:
        raise UserError(f"{path} has no parts, so there is no '{part}' in it: only torch's files have parts")
    if OTHER_INDEX.fullmatch(path.name):
        return Tensors(path, _indexed(path, outside))
    if path.suffix != ".safetensors":
        raise UserError(f"{path} should end in .safetensors, {INDEX}, .pt, .pth, .bin or .ckpt")
    found = _copies([path.name])[0]
    if found.count > 1:
        raise UserError(f"{path} is one of {found.count} shards: give their folder, or their index")
    return Tensors(path, read_header(path))


@dataclass
class Copy:
    """A network as a folder holds it: in an index, in one file, or in shards by their numbers without an index."""

    stem: str
    variant: str
    indices: list[str] = field(default_factory=list)
    single: list[str] = field(default_factory=list)
    shards: dict[int, str] = field(default_factory=dict)
    count: int = 0

    @property
    def names(self) -> list[str]:
        return self.indices + self.single + sorted(self.shards.values())

    @property
    def ways(self) -> int:
        """In how many ways it could be read."""
        return len(self.indices) + len(self.single) + bool(self.shards)


def _copies(names: Iterable[str]) -> list[Copy]:
    """What the names of files say, by stem and variant."""
    found: dict[tuple[str, str], Copy] = {}
    for name in sorted(names):
        index = INDEX_FILE.fullmatch(name) or OTHER_INDEX.fullmatch(name)
        match = index or FILE.fullmatch(name) or OTHER_FILE.fullmatch(name)
        if match is None:
            continue
        groups = match.groupdict()
        variant = groups.get("before") or groups.get("after") or ""
        copy = found.setdefault((match["stem"], variant), Copy(match["stem"], variant))
        if index:
            copy.indices.append(name)
        elif groups["shard"]:
            copy.shards[int(groups["shard"])] = name
            copy.count = max(copy.count, int(groups["count"]))
        else:
            copy.single.append(name)
    return list(found.values())


def _open_folder(folder: Path, variant: str, outside: bool) -> Tensors:
    names = {path.name for path in folder.iterdir()}
    indices = [name for name in names if OTHER_INDEX.fullmatch(name)]
    listed = {file for name in indices for file in _weight_map(member(folder, name, outside)).values()}
    copies = _copies(names - listed)
    inner = folder / "transformer"
    if not copies and inner.is_dir():
        return _open_folder(member(folder, inner.name, outside), variant, outside)
    copy = _chosen(folder, copies, variant, names)
    if copy.indices:
        path = folder / copy.indices[0]
        return Tensors(path, _indexed(path, outside, _others(copies, copy)))
    if copy.single:
        path = member(folder, copy.single[0], outside)
        return Tensors(path, read_header(path))
    if missing := sorted(set(range(1, copy.count + 1)) - set(copy.shards)):
        raise UserError(
            f"{folder} lacks {len(missing)} of the {copy.count} shards of {copy.stem}, the first of them number "
            f"{missing[0]}{_others(copies, copy)}"
        )
    entries: dict[str, Entry] = {}
    for name in copy.shards.values():
        path = member(folder, name, outside)
        header = read_header(path)
        if twice := sorted(set(header) & set(entries)):
            raise UserError(f"{path} holds {shown(twice[0])}, which another shard holds too")
        entries |= header
    return Tensors(folder / copy.shards[1], entries)


def _chosen(folder: Path, copies: list[Copy], variant: str, names: Iterable[str]) -> Copy:
    """The one to read."""
    variants = {copy.variant for copy in copies}
    if variant and variant not in variants:
        raise UserError(f"{folder} holds no variant '{variant}'{nearest(variant, variants - {''})}")
    wanted = variant or ("" if "" in variants or len(variants) != 1 else next(iter(variants)))
    found = [copy for copy in copies if copy.variant == wanted]
    if not copies:
        some = ", ".join(map(shown, sorted(names)[:3])) or "nothing"
        raise UserError(f"{folder} holds no .safetensors file, but {some}: give a file, or a folder with one")
    if not found:
        raise UserError(
            f"{folder} holds the variants {', '.join(sorted(variants))}, and none without: choose one by --variant of "
            "python -m rfjax.interop, or give its file or index"
        )
    if len(found) > 1 or found[0].ways > 1:
        several = ", ".join(shown(name) for copy in found for name in copy.names[:3])
        raise UserError(f"{folder} holds several checkpoints ({several}): give one of these files")
    return found[0]


def _others(copies: list[Copy], copy: Copy) -> str:
    """What else the folder offers, for the end of a sentence."""
    others = sorted({other.variant for other in copies} - {copy.variant, ""})
    return f" (it also holds the variants {', '.join(others)}: see --variant)" if others else ""


def _weight_map(index: Path) -> dict[str, str]:
    names = (untrusted.read_json(index, limit=HEADER_LIMIT, depth=4) or {}).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(file, str) for file in names.values()):
        raise UserError(f"{index} should be JSON with a weight_map from tensors to files, and has none")
    return names


def _indexed(index: Path, outside: bool, others: str = "") -> dict[str, Entry]:
    names = _weight_map(index)
    paths = {file: member(index.parent, file, outside, index) for file in sorted(set(names.values()))}
    missing = [file for file, path in paths.items() if not path.is_file()]
    if missing:
        some = ", ".join(map(shown, missing[:3]))
        raise UserError(f"{index} names {len(paths)} files, and {some} is missing beside it{others}")
    headers = {file: read_header(path) for file, path in paths.items()}
    for name, file in names.items():
        if name not in headers[file]:
            raise UserError(f"{index} says that {shown(name)} is in {shown(file)}, and it is not there")
    return {name: headers[file][name] for name, file in names.items()}


def member(folder: Path, name: str, outside: bool, by: Path | None = None) -> Path:
    """The path of a folder's file, which must lie in it.

    The links of Hugging Face's cache lead out of a model's folder, to its `blobs`, by their make; they are read.

    Args:
        name: of the file, beside or below others of the folder. outside: whether it may lie elsewhere.
        by: which file names it, for the message; None: it was found in the folder.

    Raises:
        UserError: if it is named by an absolute path or by "..", or is a link to another folder.
    """
    path = folder / name
    try:
        real, whole = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    except ValueError as error:  # no file can have this name
        raise UserError(f"{by or folder} names a file '{shown(name)}', which can't be") from error
    plain = not os.path.isabs(name) and ".." not in Path(name).parts
    cached = real.parent.name == "blobs" and real.parent.parent.name.startswith("models--")
    if outside or (plain and (cached or real.is_relative_to(whole))):
        return path
    raise UserError(
        f"{by or folder} has '{shown(name)}', which is {shown(str(real))}, outside of its folder: copy it "
        "there, or let python -m rfjax.interop read it by --allow-outside"
    )
