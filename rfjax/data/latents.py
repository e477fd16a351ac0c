"""Latents that an autoencoder made before: folders of NumPy files, memory-mapped and read a batch at a time.

    latents/
      train/
        latents.npy       (n, H, W, C), or PyTorch's (n, C, H, W); float16 or float32
        labels.npy        (n,), the number of each one's class, from 0
        context.npy       (n, L, E) and
        pooled.npy        (n, P): the stored encodings of the text, float16 or float32
        captions.txt      n lines of UTF-8; without it, a label's number is its caption
      validation/         likewise; without it, config.data.validation_percent of the training latents

Latents come with labels, with context and pooled, with captions, or with more than one of them. A large set lies in
shards, latents_00000.npy with labels_00000.npy and so on, which follow each other in the order of their names. Nothing
is scaled: the numbers are those that the network shall see. `np.lib.format.open_memmap(file, mode="w+", ...)` writes a
file that is larger than memory.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from rfjax.config.paths import expanded
from rfjax.data import paths
from rfjax.data.arrays import CONTEXT, LABELS, LATENTS, POOLED, Arrays, Lines, Part
from rfjax.data.shapes import fractions
from rfjax.data.types import Example, Examples, Split, check_index, check_split
from rfjax.errors import UserError, nearest

CAPTIONS = "captions"
LAYOUTS = ("nhwc", "nchw")

_ROWS = 2**20  # whose split is found at once
_BYTES_OF_A_ROW = 9  # of memory, where a part of the rows is kept for the validation: its number, and whether it is
_FILE = re.compile(rf"({LATENTS}|{LABELS}|{CONTEXT}|{POOLED})(|_\d+)\.npy|({CAPTIONS})(|_\d+)\.txt")


@dataclass(frozen=True)
class Latents:
    """The latents of one split, read from their files at each access; a `Source` that gives batches whole.

    Attributes:
        arrays: by field. lines: the captions, where there are any. channels_first: the files hold (n, C, H, W).
        chosen: this split's rows of the folder, counted over all shards; None: all of them.
    """

    arrays: dict[str, Arrays]
    lines: Lines | None
    channels_first: bool
    chosen: Int64[np.ndarray, " k"] | None

    def __len__(self) -> int:
        return sum(self.arrays[LATENTS].counts) if self.chosen is None else len(self.chosen)

    def __getitem__(self, index: int) -> Example:
        index = check_index(index, len(self))
        found = self.take([index])
        example = Example(image=found.image[0], caption=found.captions[0], index=index)
        if found.label is not None:
            example["label"] = int(found.label[0])
        if found.context is not None and found.pooled is not None:
            example |= {"context": found.context[0], "pooled": found.pooled[0]}
        return example

    def names(self) -> Iterator[str]:
        """See `types.Named`: each file's name, its rows and its size in bytes."""
        for field in (*self.arrays.values(), *([self.lines] if self.lines else [])):
            for file, rows in zip(field.files, field.counts, strict=True):
                yield f"{file.name}\0{rows}\0{file.stat().st_size}"

    def take(self, indices: Sequence[int], encodings: bool = True) -> Examples:
        """See `types.Batched`; images stay float16 where they are stored so.

        Raises:
            UserError: for numbers that are not finite, with file and row.
        """
        asked = np.asarray(indices, np.int64)
        for wrong in asked[(asked < 0) | (asked >= len(self))]:
            check_index(int(wrong), len(self))
        places = asked if self.chosen is None else self.chosen[asked]
        parts, back = _parts(places, self.arrays[LATENTS].counts)

        def column(name: str) -> np.ndarray | None:
            known = name in self.arrays and (encodings or name not in (CONTEXT, POOLED))
            return self.arrays[name].take(parts)[back] if known else None

        image, label = column(LATENTS), column(LABELS)
        if self.channels_first:
            image = _channels_last(image)
        if self.lines:
            captions = self.lines.take(parts)
            captions = captions if back is ... else [captions[place] for place in back]
        else:
            captions = [""] * len(asked) if label is None else [str(number) for number in label.tolist()]
        return Examples(image, captions, label, column(CONTEXT), column(POOLED))


def _parts(places: Int64[np.ndarray, " m"], counts: Sequence[int]) -> tuple[list[Part], Any]:
    """What to read from each shard, and the index that brings the rows back into the order of `places`."""
    if len(counts) == 1 or not len(places):
        return [Part(0, places, slice(0, len(places)))], ...
    order = np.argsort(places)
    bounds = np.cumsum([0, *counts])
    edges = np.searchsorted(places[order], bounds)
    used = np.flatnonzero(np.diff(edges)).tolist()
    parts = [Part(i, places[order[edges[i] : edges[i + 1]]] - bounds[i], slice(edges[i], edges[i + 1])) for i in used]
    return parts, np.argsort(order)


def _channels_last(images: Shaped[np.ndarray, "n C H W"]) -> Shaped[np.ndarray, "n H W C"]:
    """(n, C, H, W) -> (n, H, W, C), copied a channel at a time: three times faster than numpy's own way."""
    count, channels, height, width = images.shape
    turned = np.empty((count, height, width, channels), images.dtype)
    for channel in range(channels):
        turned[..., channel] = images[:, channel]
    return turned


def load(
    *,
    path: str,
    split: Split,
    image_size: int,
    channels: int,
    layout: str = "",
    validation_percent: float = 5.0,
    outside: bool = False,
) -> Latents:
    """Returns one split of a folder of latents; no latent is read yet.

    path: the folder; it may be read-only.
    split: "train", "validation" or "test": the folder within. Where there is no folder validation, a hash of an
        example's file name and row decides: validation_percent of them, 0..100, and the rest for training. An example
        never changes its split when shards come or go.
    image_size, channels: side in latent pixels, and channels, that the files must have.
    layout: "nhwc" or "nchw"; "": as their shape shows.
    outside: whether a file may be a link to one outside of the folder.

    Raises UserError where a folder or a file is missing, damaged, or disagrees with the others or with image_size and
    channels, and where the split is empty.
    """
    check_split(split)
    if not 0 <= validation_percent <= 100:
        raise UserError(f"validation_percent = {validation_percent:g} is a share: from 0 to 100.")
    root = expanded(path, "config.data.path")
    divided = split != "test" and not (root / "validation").is_dir()
    folder = root / ("train" if divided else split)
    _check_folder(root, folder)
    files = _find(folder)
    if not outside:
        every = (file for found in files.values() for file in found)
        paths.check_inside(root, (str(file.relative_to(root)) for file in every), f"'{folder}'")
    arrays = {name: Arrays(name, found) for name, found in files.items() if name != CAPTIONS}
    lines = Lines(files[CAPTIONS]) if CAPTIONS in files else None
    latents = arrays[LATENTS]
    for other in (*arrays.values(), *([lines] if lines else [])):
        for file, rows, ours, wanted in zip(other.files, other.counts, latents.files, latents.counts, strict=True):
            if rows != wanted:
                raise UserError(
                    f"'{file}' has {rows} rows, and '{ours.name}' has {wanted}: they must be of the same examples."
                )
    if not sum(latents.counts):
        raise UserError(f"'{folder}' holds no latents: its files have no rows.")
    first = _channels_first(latents, image_size, channels, layout)
    chosen = None
    if divided:
        needed = _BYTES_OF_A_ROW * sum(latents.counts)
        paths.check_memory(f"the list of the rows of '{root}'", needed, "make a folder 'validation' beside 'train'")
        chosen = np.flatnonzero(_held_out(latents, validation_percent) == (split == "validation"))
        if not len(chosen):
            raise UserError(
                f"Split '{split}' of '{root}' is empty: of {sum(latents.counts)} latents, validation_percent = "
                f"{validation_percent:g} leaves none to it; change it, or make a folder 'validation' beside 'train'."
            )
    return Latents(arrays, lines, first, chosen)


def _check_folder(root: Path, folder: Path) -> None:
    if not root.is_dir():
        raise UserError(f"There is no folder '{root}': path must be a folder with train/latents.npy.")
    if not folder.is_dir():
        there = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
        loose = any(_FILE.fullmatch(entry.name) for entry in root.iterdir())
        hint = f": move its files into '{folder}'" if loose else nearest(folder.name, there)
        raise UserError(f"'{root}' has no folder '{folder.name}'{hint}.")


def _find(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The files of each field in the order of the shards. Raises UserError where they are not complete."""
    found: dict[str, dict[str, Path]] = {}
    for entry in sorted(folder.iterdir()):
        if matched := _FILE.fullmatch(entry.name):
            name, shard = matched[1] or matched[3], matched[2] or matched[4] or ""
            found.setdefault(name, {})[shard] = entry
    names = sorted(entry.name for entry in folder.iterdir())
    if LATENTS not in found:
        raise UserError(f"'{folder}' has no latents.npy, and no latents_00000.npy{nearest('latents.npy', names)}.")
    shards = found[LATENTS]
    if "" in shards and len(shards) > 1:
        raise UserError(f"'{folder}' has latents.npy and {max(shards.values()).name}: keep the whole or its shards.")
    for name, files in found.items():
        for shard in sorted(shards.keys() ^ files.keys()):
            there, other = (LATENTS, name) if shard in shards else (name, LATENTS)
            lacking = f"{other}{shard}.{'txt' if other == CAPTIONS else 'npy'}"
            raise UserError(f"'{folder}' has {found[there][shard].name} and no {lacking}: each needs the other.")
    for one, other in ((CONTEXT, POOLED), (POOLED, CONTEXT)):
        if one in found and other not in found:
            raise UserError(f"'{folder}' has {one} and no {other}: the network reads both.")
    if len(found) == 1:
        raise UserError(
            f"'{folder}' says nothing about its latents: put labels.npy, context.npy with pooled.npy, or captions.txt "
            f"there{'' if '' in shards else ', in the same shards'}."
        )
    return {name: tuple(files.values()) for name, files in found.items()}


def _channels_first(latents: Arrays, size: int, channels: int, layout: str) -> bool:
    """Whether the files hold (n, C, H, W). Raises UserError where they can't be, or could be either."""
    shape, wanted = latents.shape, {"nhwc": (size, size, channels), "nchw": (channels, size, size)}
    possible = [name for name in LAYOUTS if shape == wanted[name] and layout in ("", name)]
    asked = f"config.data.image_size = {size} and config.data.channels = {channels}"
    if not possible:
        side, rest = (shape[0], shape[2]) if shape[0] == shape[1] else (shape[2], shape[0])
        hint = f": set them to {side} and {rest}" if side == shape[1] and not layout else ""
        raise UserError(
            f"'{latents.files[0]}' holds latents of shape {shape}, but {asked} say {wanted[layout or 'nhwc']}{hint}."
        )
    if len(possible) > 1:
        raise UserError(
            f"'{latents.files[0]}' holds latents of shape {shape}, and nothing shows which axis is the channels: set "
            "config.data.layout = 'nchw' for PyTorch's order, else 'nhwc'."
        )
    return possible == ["nchw"]


def _held_out(latents: Arrays, percent: float) -> Bool[np.ndarray, " n"]:
    """Which examples the validation keeps, over all shards: by a hash of the file's name, then one of the row."""

    def parts() -> Iterator[Bool[np.ndarray, " n"]]:
        for file, count in zip(latents.files, latents.counts, strict=True):
            seed = int.from_bytes(hashlib.sha256(file.name.encode()).digest()[:4], "big")
            for start in range(0, count, _ROWS):
                rows = np.arange(start, min(start + _ROWS, count))
                yield fractions(rows, seed, 1)[:, 0] * 100 < percent

    return np.concatenate(list(parts()))
