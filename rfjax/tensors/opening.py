"""Opens checkpoint files: a safetensors file, a folder of one file or of shards, or a torch file.

A folder of Hugging Face may hold several variants of a network, such as `diffusion_pytorch_model.fp16.safetensors`
beside `diffusion_pytorch_model.safetensors`, each as one file or as shards with an index.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rfjax import untrusted
from rfjax.errors import UserError, nearest, one_line
from rfjax.tensors.pt import open_pt
from rfjax.tensors.safetensors import HEADER_LIMIT, INDEX, read_header
from rfjax.tensors.stored import Entry, Tensors

TORCH = {".pt", ".pth", ".bin", ".ckpt"}
SHARD = r"(?:-(?P<shard>\d+)-of-(?P<count>\d+))?"
# Hugging Face's names of a network's weights. In other names, a word between dots is not a variant (sd3.5_medium).
STEM = r"(?P<stem>diffusion_pytorch_model|model)"
VARIANT = r"(?:\.(?P<{}>\w+))?"
FILE = re.compile(rf"{STEM}{VARIANT.format('before')}{SHARD}{VARIANT.format('after')}\.safetensors")
OTHER_FILE = re.compile(rf"(?P<stem>.+?){SHARD}\.safetensors", re.DOTALL)
INDEX_FILE = re.compile(rf"{STEM}{VARIANT.format('before')}\.safetensors\.index{VARIANT.format('after')}\.json")
OTHER_INDEX = re.compile(r"(?P<stem>.+)\.safetensors\.index(?:\.\w+)?\.json", re.DOTALL)


def open_tensors(path: str | Path, part: str | None = None, *, variant: str = "", outside: bool = False) -> Tensors:
    """Opens a checkpoint.

    Args:
        path: a .safetensors file, an index of shards, a folder with one of these (directly or in transformer/), or a
            torch file (.pt, .pth, .bin, .ckpt).
        part: name of a torch file's state dict, as in `pt.open_pt`.
        variant: which of a folder's copies of the network to open, such as fp16. Empty takes the copy without a
            variant, which has full precision, or else the only copy.
        outside: whether to read files outside the folder that the folder or an index refers to.

    Raises:
        UserError: if the file is missing, cut short, corrupt or of another kind, or the folder has several checkpoints.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(
            f"there is no {path}: give a .safetensors or .pt file, or a folder that holds .safetensors files"
        )
    if path.is_dir():
        if part is not None:
            raise UserError(f"{path} has no part '{part}': only torch files have parts")
        return _open_folder(path, variant, outside)
    if variant:
        raise UserError(f"{path} is a file, but only folders have variants")
    if path.suffix in TORCH:
        return open_pt(path, part).tensors
    if part is not None:
        raise UserError(f"{path} has no part '{part}': only torch files have parts")
    if OTHER_INDEX.fullmatch(path.name):
        return Tensors(path, _indexed(path, outside))
    if path.suffix != ".safetensors":
        raise UserError(f"{path} must end in .safetensors, {INDEX}, .pt, .pth, .bin or .ckpt")
    copy = _copies([path.name])[0]
    if copy.count > 1:
        raise UserError(f"{path} is one of {copy.count} shards: give their folder, or their index")
    return Tensors(path, read_header(path))


@dataclass
class Copy:
    """One copy of a network in a folder.

    Attributes:
        stem: beginning of its files' names.
        variant: such as fp16; "" for full precision.
        indices: names of index files.
        single: names of files that hold all tensors.
        shards: number -> name, of shards without an index.
        count: number of shards by their names.
    """

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
        """Number of ways to read it, which must be 1."""
        return len(self.indices) + len(self.single) + bool(self.shards)


def _copies(names: Iterable[str]) -> list[Copy]:
    """Groups the names of files by stem and variant."""
    copies: dict[tuple[str, str], Copy] = {}
    for name in sorted(names):
        index = INDEX_FILE.fullmatch(name) or OTHER_INDEX.fullmatch(name)
        match = index or FILE.fullmatch(name) or OTHER_FILE.fullmatch(name)
        if match is None:
            continue
        groups = match.groupdict()
        variant = groups.get("before") or groups.get("after") or ""
        copy = copies.setdefault((match["stem"], variant), Copy(match["stem"], variant))
        if index:
            copy.indices.append(name)
        elif groups["shard"]:
            copy.shards[int(groups["shard"])] = name
            copy.count = max(copy.count, int(groups["count"]))
        else:
            copy.single.append(name)
    return list(copies.values())


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
            f"{folder} lacks {len(missing)} of the {copy.count} shards of {copy.stem}, first number {missing[0]}"
            f"{_others(copies, copy)}"
        )
    entries: dict[str, Entry] = {}
    for name in copy.shards.values():
        path = member(folder, name, outside)
        header = read_header(path)
        if twice := sorted(set(header) & set(entries)):
            raise UserError(f"{path} holds {one_line(twice[0])}, which another shard holds too")
        entries |= header
    return Tensors(folder / copy.shards[1], entries)


def _chosen(folder: Path, copies: list[Copy], variant: str, names: Iterable[str]) -> Copy:
    """Chooses the copy to read."""
    variants = {copy.variant for copy in copies}
    if variant and variant not in variants:
        raise UserError(f"{folder} holds no variant '{variant}'{nearest(variant, variants - {''})}")
    wanted = variant or ("" if "" in variants or len(variants) != 1 else next(iter(variants)))
    found = [copy for copy in copies if copy.variant == wanted]
    if not copies:
        some = ", ".join(map(one_line, sorted(names)[:3])) or "nothing"
        raise UserError(f"{folder} holds no .safetensors file, only {some}: give a file, or a folder with one")
    if not found:
        raise UserError(
            f"{folder} holds only the variants {', '.join(sorted(variants))}: choose one with --variant of python -m "
            "rfjax.interop, or give its file or index"
        )
    if len(found) > 1 or found[0].ways > 1:
        several = ", ".join(one_line(name) for copy in found for name in copy.names[:3])
        raise UserError(f"{folder} holds several checkpoints ({several}): give one of these files")
    return found[0]


def _others(copies: list[Copy], copy: Copy) -> str:
    """The folder's other variants, for the end of a message."""
    others = sorted({other.variant for other in copies} - {copy.variant, ""})
    return f" (it also holds the variants {', '.join(others)}: see --variant)" if others else ""


def _weight_map(index: Path) -> dict[str, str]:
    names = (untrusted.read_json(index, limit=HEADER_LIMIT, depth=4) or {}).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(file, str) for file in names.values()):
        raise UserError(f"{index} must be JSON with a weight_map from tensors to files")
    return names


def _indexed(index: Path, outside: bool, others: str = "") -> dict[str, Entry]:
    names = _weight_map(index)
    paths = {file: member(index.parent, file, outside, index) for file in sorted(set(names.values()))}
    missing = [file for file, path in paths.items() if not path.is_file()]
    if missing:
        some = ", ".join(map(one_line, missing[:3]))
        raise UserError(f"{index} names {len(paths)} files, and {some} is missing beside it{others}")
    headers = {file: read_header(path) for file, path in paths.items()}
    for name, file in names.items():
        if name not in headers[file]:
            raise UserError(f"{index} names {one_line(file)} as the file of {one_line(name)}, which it does not hold")
    return {name: headers[file][name] for name, file in names.items()}


def member(folder: Path, name: str, outside: bool, by: Path | None = None) -> Path:
    """The path of a folder's file, which must lie in the folder.

    Links of Hugging Face's cache are allowed: they lead out of a model's folder to the folder `blobs`.

    Args:
        name: of the file, relative to the folder.
        outside: whether the file may lie elsewhere.
        by: the file that names it, for the message; None if it was found in the folder.

    Raises:
        UserError: if the name is an absolute path or has "..", or the file is a link to another folder.
    """
    path = folder / name
    try:
        real, whole = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    except ValueError as error:  # no file can have this name
        raise UserError(
            f"{by or folder} names a file '{one_line(name)}' with a character that no file name can have"
        ) from error
    plain = not os.path.isabs(name) and ".." not in Path(name).parts
    cached = real.parent.name == "blobs" and real.parent.parent.name.startswith("models--")
    if outside or (plain and (cached or real.is_relative_to(whole))):
        return path
    raise UserError(
        f"{by or folder} has '{one_line(name)}', which is {one_line(str(real))}, outside its folder: copy the file "
        "into the folder, or read it by python -m rfjax.interop with --allow-outside"
    )
