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
import mmap
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float16, Float32, Float64, Int64, Shaped, UInt8

from rfjax.data.shapes import fractions
from rfjax.data.types import Example, Examples, Split, check_index, check_split
from rfjax.errors import UserError, nearest

LATENTS, LABELS, CONTEXT, POOLED, CAPTIONS = "latents", "labels", "context", "pooled", "captions"
LAYOUTS = ("nhwc", "nchw")

_FILE = re.compile(rf"({LATENTS}|{LABELS}|{CONTEXT}|{POOLED})(|_\d+)\.npy|({CAPTIONS})(|_\d+)\.txt")
_RANKS = {LATENTS: 4, LABELS: 1, CONTEXT: 3, POOLED: 2}
_INFINITE = {2: ("i2", 0x7C00, "u2", 0xFC00), 4: ("i4", 0x7F80_0000, "u4", 0xFF80_0000)}  # +inf, and -inf, as bits


class _Part(NamedTuple):
    """Rows of one shard: which of the shards, its rows, and the slice of the result that they fill."""

    shard: int
    rows: Int64[np.ndarray, " m"]
    filled: slice


class _Arrays:
    """One field of a data set, an array for each shard, which differ in their number of rows alone."""

    def __init__(self, name: str, files: tuple[Path, ...]) -> None:
        """name: of _RANKS. Raises UserError where a file can't be used."""
        self.name, self.files = name, files
        self._maps = [_open(file, name) for file in files]
        self.counts = tuple(len(array) for array in self._maps)
        self.shape, self.dtype = self._maps[0].shape[1:], self._maps[0].dtype
        for file, array in zip(files, self._maps, strict=True):
            if (array.shape[1:], array.dtype) != (self.shape, self.dtype):
                raise UserError(
                    f"'{file}' holds {array.dtype} of shape {array.shape[1:]} in each row, and '{files[0].name}' "
                    f"{self.dtype} of shape {self.shape}: write all shards alike."
                )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self.files)

    def take(self, parts: Sequence[_Part]) -> Shaped[np.ndarray, "m *row"]:
        """The rows of all parts, copied, in the stored dtype. Raises UserError for a number that is not finite."""
        if self.shape:
            for part in parts:
                _ask_for(self._maps[part.shard], part.rows)
        found = np.empty((parts[-1].filled.stop, *self.shape), self.dtype)
        for part in parts:
            # Indices are checked before; in mode "raise", numpy would copy twice.
            np.take(self._maps[part.shard], part.rows, axis=0, out=found[part.filled], mode="clip")
        if self.dtype.kind == "f" and not _finite(found):
            self._name_the_bad(parts, found)
        return found

    def _name_the_bad(self, parts: Sequence[_Part], found: np.ndarray) -> None:
        for part in parts:
            for row, values in zip(part.rows, found[part.filled], strict=True):
                if not np.isfinite(values).all():
                    raise UserError(
                        f"'{self.files[part.shard]}' holds numbers that are not finite in row {row} (the first is 0): "
                        "encode it again, or leave it out."
                    )


def _open(file: Path, name: str) -> np.memmap:
    try:
        array = np.lib.format.open_memmap(file, mode="r")
    except (OSError, ValueError) as error:
        raise UserError(
            f"'{file}' is not a whole .npy file of plain numbers ({error}): write it again with np.save."
        ) from error
    wanted = "integers" if name == LABELS else "float16 or float32"
    fits = array.dtype.kind in "iu" if name == LABELS else array.dtype in (np.float16, np.float32)
    if not (fits and array.dtype.isnative):
        raise UserError(f"'{file}' holds {array.dtype}, and {name} must be {wanted}: convert it with .astype.")
    if array.ndim != _RANKS[name]:
        raise UserError(f"'{file}' has shape {array.shape}, and {name} must be {_RANKS[name]}-dimensional.")
    if not array.flags.c_contiguous:
        raise UserError(f"'{file}' is in Fortran order: save np.ascontiguousarray(x).")
    if name == LABELS and len(array) and array.min() < 0:
        raise UserError(f"'{file}' has label {array.min()} in row {array.argmin()}: labels are numbers from 0.")
    return array


def _ask_for(array: np.memmap, rows: Int64[np.ndarray, " m"]) -> None:
    """Asks the system to read rows ahead, all at once: without this, each waits for the one before it."""
    page, start = mmap.PAGESIZE, array.offset % mmap.ALLOCATIONGRANULARITY
    length = array.strides[0]
    first = start + rows * length
    begins = first // page * page
    for begin, size in zip(begins.tolist(), (first + length - begins).tolist(), strict=True):
        array.base.madvise(mmap.MADV_WILLNEED, begin, size)


def _finite(values: Float16[np.ndarray, "*n"] | Float32[np.ndarray, "*n"]) -> bool:
    """Whether all numbers are finite: by their bits, twenty times faster for float16 than numpy's own way.

    As signed integers, the bits of +inf and NaN are the largest; as unsigned ones, those of -inf and NaN.
    """
    signed, above, unsigned, below = _INFINITE[values.dtype.itemsize]
    return not values.size or bool(values.view(signed).max() < above and values.view(unsigned).max() < below)


class _Lines:
    """The captions of a data set, a text file for each shard."""

    def __init__(self, files: tuple[Path, ...]) -> None:
        """Finds where the lines begin; the text stays in the files."""
        self.files = files
        self._texts = [np.memmap(file, np.uint8, "r") if file.stat().st_size else np.empty(0, "B") for file in files]
        self._ends = [_ends(text) for text in self._texts]
        self.counts = tuple(len(ends) for ends in self._ends)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.files,)

    def take(self, parts: Sequence[_Part]) -> list[str]:
        """The lines of all parts, without spaces around them. Raises UserError for what is not UTF-8."""
        return [self._line(part.shard, row) for part in parts for row in part.rows.tolist()]

    def _line(self, shard: int, row: int) -> str:
        ends = self._ends[shard]
        line = self._texts[shard][ends[row - 1] if row else 0 : ends[row]].tobytes()
        try:
            return line.decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise UserError(f"'{self.files[shard]}' line {row + 1} is not UTF-8 ({error.reason}).") from error


def _ends(text: UInt8[np.ndarray, " b"]) -> Int64[np.ndarray, " n"]:
    ends = np.flatnonzero(text == ord("\n")) + 1
    return ends if not len(text) or text[-1] == ord("\n") else np.append(ends, len(text))


@dataclass(frozen=True)
class Latents:
    """The latents of one split, read from their files at each access; a `Source` that gives batches whole.

    Attributes:
        arrays: by field. lines: the captions, where there are any. channels_first: the files hold (n, C, H, W).
        chosen: this split's rows of the folder, counted over all shards; None: all of them.
    """

    arrays: dict[str, _Arrays]
    lines: _Lines | None
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


def _parts(places: Int64[np.ndarray, " m"], counts: Sequence[int]) -> tuple[list[_Part], Any]:
    """What to read from each shard, and the index that brings the rows back into the order of `places`."""
    if len(counts) == 1 or not len(places):
        return [_Part(0, places, slice(0, len(places)))], ...
    order = np.argsort(places)
    bounds = np.cumsum([0, *counts])
    edges = np.searchsorted(places[order], bounds)
    used = np.flatnonzero(np.diff(edges)).tolist()
    parts = [_Part(i, places[order[edges[i] : edges[i + 1]]] - bounds[i], slice(edges[i], edges[i + 1])) for i in used]
    return parts, np.argsort(order)


def _channels_last(images: Shaped[np.ndarray, "n C H W"]) -> Shaped[np.ndarray, "n H W C"]:
    """(n, C, H, W) -> (n, H, W, C), copied a channel at a time: three times faster than numpy's own way."""
    count, channels, height, width = images.shape
    turned = np.empty((count, height, width, channels), images.dtype)
    for channel in range(channels):
        turned[..., channel] = images[:, channel]
    return turned


def load(
    *, path: str, split: Split, image_size: int, channels: int, layout: str = "", validation_percent: float = 5.0
) -> Latents:
    """Returns one split of a folder of latents; no latent is read yet.

    path: the folder; it may be read-only.
    split: "train", "validation" or "test": the folder within. Where there is no folder validation, a hash of an
        example's file name and row decides: validation_percent of them, 0..100, and the rest for training. An example
        never changes its split when shards come or go.
    image_size, channels: side in latent pixels, and channels, that the files must have.
    layout: "nhwc" or "nchw"; "": as their shape shows.

    Raises UserError where a folder or a file is missing, damaged, or disagrees with the others or with image_size and
    channels, and where the split is empty.
    """
    check_split(split)
    if not 0 <= validation_percent <= 100:
        raise UserError(f"validation_percent = {validation_percent:g} is a share: from 0 to 100.")
    root = Path(path).expanduser()
    divided = split != "test" and not (root / "validation").is_dir()
    folder = root / ("train" if divided else split)
    _check_folder(root, folder)
    files = _find(folder)
    arrays = {name: _Arrays(name, found) for name, found in files.items() if name != CAPTIONS}
    lines = _Lines(files[CAPTIONS]) if CAPTIONS in files else None
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


def _channels_first(latents: _Arrays, size: int, channels: int, layout: str) -> bool:
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


def _held_out(latents: _Arrays, percent: float) -> Bool[np.ndarray, " n"]:
    """Which examples the validation keeps, over all shards: by a hash of the file's name, then one of the row."""

    def points() -> Iterator[Float64[np.ndarray, " n"]]:
        for file, count in zip(latents.files, latents.counts, strict=True):
            seed = int.from_bytes(hashlib.sha256(file.name.encode()).digest()[:4], "big")
            yield fractions(np.arange(count), seed, 1)[:, 0]

    return np.concatenate(list(points())) * 100 < percent
