"""The files of the job `suite`: its prompts, its pictures, and what the pictures are. Imports no JAX.

WORKDIR/suite.json      the suite, and all that the pictures depend on
WORKDIR/prompts.jsonl   the prompts, so that the report needs no file from elsewhere
WORKDIR/images/         the pictures, in the layout of the suite's own scorer, and nothing else
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from rfjax import files
from rfjax.errors import UserError
from rfjax.evaluation.suites import Files, Prompt
from rfjax.ownership import check_ours
from rfjax.untrusted import json_lines, read_json

ABOUT, PROMPTS, IMAGES = "suite.json", "prompts.jsonl", "images"
CHANNELS = {1: "L", 3: "RGB"}  # of a picture -> as PNG names it


def fingerprint(prompts: Sequence[Prompt]) -> str:
    """A mark of the prompts."""
    return hashlib.sha256("\n".join(one.text for one in prompts).encode()).hexdigest()[:16]


def write_prompts(root: Path, prompts: Sequence[Prompt]) -> None:
    """Writes the prompts down."""
    rows = "".join(json.dumps(one.to_plain()) + "\n" for one in prompts)
    files.write(root / PROMPTS, rows, lasting=True)


def read_prompts(root: Path) -> tuple[Prompt, ...]:
    """The prompts that `write_prompts` wrote; none if there are none.

    Raises:
        UserError: if they can't be read.
    """
    found = []
    for row in json_lines(root / PROMPTS):
        try:
            texts = (row["text"], row["skill"])
            if row["number"] != len(found) or not all(isinstance(text, str) for text in texts):
                raise ValueError
            found.append(Prompt(len(found), *texts, dict(row["line"])))
        except (KeyError, TypeError, ValueError):
            said = "the job's command writes it again"
            raise UserError(f"{root / PROMPTS}, line {len(found) + 1} is damaged: {said}") from None
    return tuple(found)


def read_about(root: Path) -> dict[str, Any]:
    """What the pictures depend on; empty if it is not known."""
    found = read_json(root / ABOUT, fix="remove the folder, or choose another config.workdir") or {}
    return found["settings"] if isinstance(found.get("settings"), dict) else {}


def check_about(root: Path, about: Mapping[str, Any]) -> None:
    """Raises UserError if the folder has pictures of other settings, as far as both are known."""
    known, plain = read_about(root), json.loads(json.dumps(about))
    differing = [name for name in plain if name in known and known[name] != plain[name]]
    if differing:
        said = ", ".join(f"{name} is {known[name]!r} there and {plain[name]!r} here" for name in differing[:3])
        raise UserError(f"{root} holds other pictures: {said}; choose another folder with --config.workdir")


def complete(root: Path, one: Files) -> bool:
    """Whether all files of a prompt are there."""
    return all((root / IMAGES / path).is_file() for path in one.paths)


def missing(root: Path, everything: Iterable[Files]) -> int:
    """How many files of pictures are not there."""
    return sum(not (root / IMAGES / path).is_file() for one in everything for path in one.pictures)


def write(root: Path, one: Files, pictures: UInt8[np.ndarray, "n H W C"]) -> None:
    """Writes the files of a prompt, each whole and on the disk before the next.

    Their temporary names are short and outside of `images`: a scorer takes each file there for a picture, and a prompt
    that is a name may leave no room for another ending.

    Raises:
        UserError: if they can't be written, or such pictures are no PNG.
    """
    if pictures.shape[-1] not in CHANNELS:
        raise UserError(f"pictures of {pictures.shape[-1]} channels are no PNG: a suite needs a model of pictures")
    shown = [grid(pictures, one.columns)] if one.columns else list(pictures)
    if one.beside:
        path, content = one.beside
        _put(root, path, f"{content}\n".encode())
    for path, picture in zip(one.pictures, shown, strict=True):
        _put(root, path, picture)


def _put(root: Path, name: str, content: Any) -> None:
    target = root / IMAGES / name
    with files.full_disk(target), files.beside(root / "drawn") as partial:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                partial.write_bytes(content)
            else:
                plain = content[..., 0] if content.shape[-1] == 1 else content
                Image.fromarray(plain, CHANNELS[content.shape[-1]]).save(partial, format="PNG")
            files.sync(partial)
            check_ours(target)
            os.replace(partial, target)
            files.sync(target.parent)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise UserError(f"{target} can't be written ({error.strerror}): move away what is in its place") from error


def grid(pictures: UInt8[np.ndarray, "n H W C"], columns: int) -> UInt8[np.ndarray, "H2 W2 C"]:
    """Pictures in rows, without space between them; the last row is full."""
    rows = [np.concatenate(list(pictures[n : n + columns]), axis=1) for n in range(0, len(pictures), columns)]
    return np.concatenate(rows, axis=0)
