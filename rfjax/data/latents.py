"""Latents that an autoencoder made before: folders of NumPy files, memory-mapped and read a batch at a time.

    latents/
      train/
        latents.npy       (n, H, W, C), or PyTorch's (n, C, H, W); float16 or float32
        moments.npy       in their place, (n, H, W, 2 C): mean, then deviation, for the codec `moments`
        images.npy        or (n, H, W, C) uint8: pictures whose text or features are encoded, for the codec `pixels`
        flipped.npy       latents or moments of the mirrored pictures, which config.data.flip then takes
        labels.npy        (n,), the number of each one's class, from 0
        context.npy       (n, L, E) and
        pooled.npy        (n, P): the stored encodings of the text, float16 or float32
        features.npy      (n, rows, columns, Z): patch tokens of a vision encoder, for alignment
        captions.txt      n lines of UTF-8; without it, a label's number is its caption
      validation/         likewise; without it, config.data.validation_percent of the training latents

Latents come with labels, with context and pooled, with captions, or with more than one of them. A large set lies in
shards, latents_00000.npy with labels_00000.npy and so on, which follow each other in the order of their names. Nothing
is scaled, and every array keeps its stored dtype. The job `encode` writes such a folder, with `encoding.json` beside
train/, which says with which weights (`rfjax.data.encoding`). `np.lib.format.open_memmap(file, mode="w+", ...)`
writes a file that is larger than memory.

Without a folder validation, a hash of a latent's file name and row decides on its split. An example never changes its
split when shards come or go.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from rfjax import config as configs
from rfjax.config.paths import expanded
from rfjax.data import paths
from rfjax.data.arrays import (
    CONTEXT,
    FEATURES,
    FLIPPED,
    IMAGES,
    LABELS,
    LATENTS,
    MOMENTS,
    POOLED,
    Arrays,
    Lines,
    Part,
)
from rfjax.data.encoding import Encoding, read_encoding
from rfjax.data.hashing import fractions
from rfjax.data.types import Example, Examples, Field, Split, check_index, check_split, flipped
from rfjax.errors import UserError, nearest

CAPTIONS = "captions"
MAIN = {LATENTS: "latent", MOMENTS: "moments", IMAGES: "image"}  # a folder has one of these files; file -> field
FIELDS = {**MAIN, LABELS: "label", CONTEXT: "context", POOLED: "pooled", FEATURES: "features"}
LAYOUTS = ("nhwc", "nchw")

_ROWS = 2**20  # whose split is computed at once
_BYTES_OF_A_ROW = 9  # of memory, to divide the rows into splits: the row's number, and whether it is chosen
_FILE = re.compile(rf"({'|'.join([*FIELDS, FLIPPED])})(|_\d+)\.npy|({CAPTIONS})(|_\d+)\.txt")


@dataclass(frozen=True)
class Latents:
    """The latents of one split, read from their files at each access; a `Batched` source.

    Attributes:
        arrays: by field.
        main: the field of what the network generates: "latent", "moments" or "image".
        lines: the captions, or None.
        channels_first: whether the files hold (n, C, H, W).
        chosen: this split's rows of the folder, counted over all shards; None: all of them.
        encoding: what made the folder; None if it was not the job `encode`.
    """

    arrays: dict[str, Arrays]
    main: str
    lines: Lines | None
    channels_first: bool
    chosen: Int64[np.ndarray, " k"] | None
    encoding: Encoding | None = None

    @property
    def fields(self) -> dict[str, Field]:
        """See `types.Source`."""
        fields = {name: Field(array.shape, str(array.dtype)) for name, array in self.arrays.items()}
        shape = self.arrays[self.main].shape
        shape = (*shape[1:], shape[0]) if self.channels_first else shape
        turned = {name: fields[name]._replace(flips=True) for name in ("features",) if name in fields}
        same = {name: fields[name]._replace(shape=shape) for name in (flipped(self.main),) if name in fields}
        return fields | turned | same | {self.main: fields[self.main]._replace(shape=shape, flips=True)}

    def __len__(self) -> int:
        return sum(self.arrays[self.main].counts) if self.chosen is None else len(self.chosen)

    def __getitem__(self, index: int) -> Example:
        index = check_index(index, len(self))
        arrays, captions = self.take([index])
        return {name: array[0] for name, array in arrays.items()} | {"caption": captions[0], "index": index}

    def names(self) -> Iterator[str]:
        """See `types.Named`: each file's name, its rows and its size in bytes."""
        for field in (*self.arrays.values(), *([self.lines] if self.lines else [])):
            for file, rows in zip(field.files, field.counts, strict=True):
                yield f"{file.name}\0{rows}\0{file.stat().st_size}"
        if self.encoding:
            yield from self.encoding.fingerprints

    def take(self, indices: Sequence[int], names: Sequence[str] | None = None) -> Examples:
        """See `types.Batched`; refuses, with a UserError, numbers that are not finite."""
        rows = np.asarray(indices, np.int64)
        for wrong in rows[(rows < 0) | (rows >= len(self))]:
            check_index(int(wrong), len(self))
        places = rows if self.chosen is None else self.chosen[rows]
        parts, back = _parts(places, self.arrays[self.main].counts)
        arrays = {name: self.arrays[name].take(parts)[back] for name in (self.arrays if names is None else names)}
        for name in {self.main, flipped(self.main)} & set(arrays) if self.channels_first else ():
            arrays[name] = _channels_last(arrays[name])
        if self.lines:
            captions = self.lines.take(parts)
            captions = captions if back is ... else [captions[place] for place in back]
        elif "label" in self.arrays:
            labels = arrays["label"] if "label" in arrays else self.arrays["label"].take(parts)[back]
            captions = [str(number) for number in labels.tolist()]
        else:
            captions = [""] * len(rows)
        return Examples(arrays, captions)


def _parts(places: Int64[np.ndarray, " m"], counts: Sequence[int]) -> tuple[list[Part], Any]:
    """The rows to read from each shard, and the index that restores the order of `places`."""
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


def open_source(config: configs.Data, split: Split) -> Latents:
    """Opens one split of a folder of latents, and reads no latent yet.

    Args:
        config: its path, validation_path, image_size and channels (of a latent), layout, validation_percent, outside.
        split: "train", "validation" or "test": the folder within.

    Raises:
        UserError: if a folder or a file is missing, damaged, or disagrees with the others or with the config.
    """
    check_split(split)
    key = "validation_path" if split == "validation" and config.validation_path else "path"
    root = expanded(getattr(config, key), f"config.data.{key}")
    divided = split != "test" and not config.validation_path and not (root / "validation").is_dir()
    folder = root / ("train" if divided else split)
    _check_folder(root, folder)
    files = _files(folder)
    if not config.outside:
        names = (str(file.relative_to(root)) for shards in files.values() for file in shards)
        paths.check_inside(root, names, f"'{folder}'")
    main = next(name for name in MAIN if name in files)
    names = FIELDS | {FLIPPED: flipped(MAIN[main])}
    arrays = {names[name]: Arrays(name, shards) for name, shards in files.items() if name != CAPTIONS}
    lines = Lines(files[CAPTIONS]) if CAPTIONS in files else None
    latents = arrays[MAIN[main]]
    for other in (*arrays.values(), *([lines] if lines else [])):
        for file, rows, ours, wanted in zip(other.files, other.counts, latents.files, latents.counts, strict=True):
            if rows != wanted:
                raise UserError(
                    f"'{file}' has {rows} rows, and '{ours.name}' has {wanted}: they must be of the same examples"
                )
    if not sum(latents.counts):
        raise UserError(f"'{folder}' holds no latents: its files have no rows")
    channels = config.channels * (2 if main == MOMENTS else 1)
    encoding = read_encoding(root, "train" if divided else split, latents.counts)
    layout = config.layout or ("nhwc" if encoding else "")  # as the job writes it
    first = _channels_first(latents, config.image_size, channels, layout)
    mirrored = arrays.get(names[FLIPPED])
    if mirrored and (mirrored.shape, mirrored.dtype) != (latents.shape, latents.dtype):
        raise UserError(
            f"'{mirrored.files[0]}' holds {mirrored.dtype} of shape {mirrored.shape}, and '{latents.files[0].name}' "
            f"{latents.dtype} of shape {latents.shape}: they must be of the same pictures"
        )
    chosen = _share(root, latents, split, config.validation_percent) if divided else None
    return Latents(arrays, MAIN[main], lines, first, chosen, encoding)


def _share(root: Path, latents: Arrays, split: Split, percent: float) -> Int64[np.ndarray, " k"]:
    """The rows of a folder without validation that are the split's."""
    count, advice = sum(latents.counts), "make a folder 'validation' beside 'train'"
    paths.check_memory(f"the list of the rows of '{root}'", _BYTES_OF_A_ROW * count, advice)
    chosen = np.flatnonzero(_held_out(latents, percent) == (split == "validation"))
    if not len(chosen):
        raise UserError(
            f"split '{split}' of '{root}' is empty: of {count} latents, validation_percent = {percent:g} leaves none "
            f"to it; change it, or {advice}"
        )
    return chosen


def _check_folder(root: Path, folder: Path) -> None:
    if not root.is_dir():
        raise UserError(f"there is no folder '{root}': config.data.path must be a folder with train/latents.npy")
    if not folder.is_dir():
        folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
        loose = any(_FILE.fullmatch(entry.name) for entry in root.iterdir())
        hint = f": move its files into '{folder}'" if loose else nearest(folder.name, folders)
        raise UserError(f"'{root}' has no folder '{folder.name}'{hint}")


def _files(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The files of each kind in the order of the shards; refuses, with a UserError, an incomplete set."""
    kinds: dict[str, dict[str, Path]] = {}
    entries = sorted(folder.iterdir())
    for entry in entries:
        if matched := _FILE.fullmatch(entry.name):
            name, shard = matched[1] or matched[3], matched[2] or matched[4] or ""
            kinds.setdefault(name, {})[shard] = entry
    mains = [name for name in MAIN if name in kinds]
    if not mains:
        names = [entry.name for entry in entries]
        raise UserError(f"'{folder}' has no latents.npy, and no latents_00000.npy{nearest('latents.npy', names)}")
    if len(mains) > 1:
        raise UserError(f"'{folder}' has both {' and '.join(mains)}: keep the one that the network should read")
    main, shards = mains[0], kinds[mains[0]]
    if "" in shards and len(shards) > 1:
        raise UserError(f"'{folder}' has {main}.npy and {max(shards.values()).name}: keep the whole or its shards")
    for name, files in kinds.items():
        for shard in sorted(shards.keys() ^ files.keys()):
            has, other = (main, name) if shard in shards else (name, main)
            lacking = f"{other}{shard}.{'txt' if other == CAPTIONS else 'npy'}"
            raise UserError(f"'{folder}' has {kinds[has][shard].name} and no {lacking}: each needs the other")
    for one, other in ((CONTEXT, POOLED), (POOLED, CONTEXT)):
        if one in kinds and other not in kinds:
            raise UserError(f"'{folder}' has {one} and no {other}: the network reads both")
    if kinds.keys() <= {main, FLIPPED, FEATURES}:
        raise UserError(
            f"'{folder}' says nothing about its {main}: put labels.npy, context.npy with pooled.npy, or captions.txt "
            f"there{'' if '' in shards else ', in the same shards'}"
        )
    return {name: tuple(files.values()) for name, files in kinds.items()}


def _channels_first(latents: Arrays, size: int, channels: int, layout: str) -> bool:
    """Whether the files hold (n, C, H, W); refuses, with a UserError, another shape, and one that doesn't show it."""
    shape, wanted = latents.shape, {"nhwc": (size, size, channels), "nchw": (channels, size, size)}
    possible = [name for name in LAYOUTS if shape == wanted[name] and layout in ("", name)]
    settings = f"config.data.image_size = {size} and config.data.channels = {channels}"
    if not possible:
        side, rest = (shape[0], shape[2]) if shape[0] == shape[1] else (shape[2], shape[0])
        hint = f": set them to {side} and {rest}" if side == shape[1] and not layout else ""
        raise UserError(
            f"'{latents.files[0]}' holds latents of shape {shape}, but {settings} say {wanted[layout or 'nhwc']}{hint}"
        )
    if len(possible) > 1:
        raise UserError(
            f"'{latents.files[0]}' holds latents of shape {shape}, and nothing shows which axis is the channels: set "
            "config.data.layout = 'nchw' for PyTorch's order, else 'nhwc'"
        )
    return possible == ["nchw"]


def _held_out(latents: Arrays, percent: float) -> Bool[np.ndarray, " n"]:
    """Which examples are the validation's, over all shards: by a hash of the file's name, then one of the row."""
    parts = []
    for file, count in zip(latents.files, latents.counts, strict=True):
        seed = int.from_bytes(hashlib.sha256(file.name.encode()).digest()[:4], "big")
        for start in range(0, count, _ROWS):
            rows = np.arange(start, min(start + _ROWS, count))
            parts.append(fractions(rows, seed, 1)[:, 0] * 100 < percent)
    return np.concatenate(parts)
