"""Files of many rows in shards, NumPy arrays and lines of text: memory-mapped and checked."""

import codecs
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float16, Float32, Int64, Shaped, UInt8

from rfjax import untrusted
from rfjax.data import paths
from rfjax.errors import UserError

LATENTS, LABELS, CONTEXT, POOLED, FEATURES = "latents", "labels", "context", "pooled", "features"
MOMENTS, IMAGES, FLIPPED = "moments", "images", "flipped"

_RANKS = {LATENTS: 4, MOMENTS: 4, FLIPPED: 4, IMAGES: 4, LABELS: 1, CONTEXT: 3, POOLED: 2, FEATURES: 4}
_TYPES = {LABELS: ("integers", "iu"), IMAGES: ("uint8", "u")}  # of the kinds that are not float16 or float32
_INFINITE = {2: ("i2", 0x7C00, "u2", 0xFC00), 4: ("i4", 0x7F80_0000, "u4", 0xFF80_0000)}  # +inf, and -inf, as bits
_LONGEST_HEADER = 2**16  # bytes that describe an array; numpy refuses more, but only after it has read them
_BLOCK = 2**24  # bytes of text that are searched at once


class Part(NamedTuple):
    """Some rows of one shard, and the slice of the result that they fill."""

    shard: int
    rows: Int64[np.ndarray, " m"]
    filled: slice


class Arrays:
    """One field of a data set: an array for each shard; the shards differ only in their number of rows."""

    def __init__(self, name: str, shards: tuple[Path, ...]) -> None:
        """Maps the files, of the kind `name` in _RANKS; refuses, with a UserError, one that can't be used."""
        self.name, self.files = name, shards
        self._maps = [_open(file, name) for file in shards]
        self.counts = tuple(len(array) for array in self._maps)
        self.shape, self.dtype = self._maps[0].shape[1:], self._maps[0].dtype
        for file, array in zip(shards, self._maps, strict=True):
            if (array.shape[1:], array.dtype) != (self.shape, self.dtype):
                raise UserError(
                    f"'{file}' holds {array.dtype} of shape {array.shape[1:]} in each row, and '{shards[0].name}' "
                    f"{self.dtype} of shape {self.shape}: write all shards alike"
                )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self.files)

    def take(self, parts: Sequence[Part]) -> Shaped[np.ndarray, "m *row"]:
        """Copies the rows of all parts, in the stored dtype; refuses, with a UserError, numbers that are not finite."""
        if self.shape:
            for part in parts:
                _read_ahead(self._maps[part.shard], part.rows)
        result = np.empty((parts[-1].filled.stop, *self.shape), self.dtype)
        for part in parts:
            # Indices are checked before; in mode "raise", numpy would copy twice.
            np.take(self._maps[part.shard], part.rows, axis=0, out=result[part.filled], mode="clip")
        if self.dtype.kind == "f" and not finite(result):
            self._refuse(parts, result)
        return result

    def _refuse(self, parts: Sequence[Part], values: np.ndarray) -> None:
        for part in parts:
            for row, numbers in zip(part.rows, values[part.filled], strict=True):
                if not np.isfinite(numbers).all():
                    raise UserError(
                        f"'{self.files[part.shard]}' holds numbers that are not finite in row {row} (the first is 0): "
                        "encode it again, or leave it out"
                    )


def _open(file: Path, name: str) -> np.memmap:
    try:
        _check_header(file)
        array = np.lib.format.open_memmap(file, mode="r")
    except UserError:
        raise
    except Exception as error:  # of a hostile header, numpy and Python's own parser raise nearly anything
        raise UserError(
            f"'{file}' is not a whole .npy file of plain numbers ({error}): write it again with np.save"
        ) from error
    wanted, kinds = _TYPES.get(name, ("float16 or float32", ""))
    fits = array.dtype.kind in kinds if kinds else array.dtype in (np.float16, np.float32)
    if not (fits and array.dtype.isnative) or (name == IMAGES and array.dtype != np.uint8):
        raise UserError(f"'{file}' holds {array.dtype}, and {name} must be {wanted}: convert it with .astype")
    if array.ndim != _RANKS[name]:
        raise UserError(f"'{file}' has shape {array.shape}, and {name} must be {_RANKS[name]}-dimensional")
    if not array.flags.c_contiguous:
        raise UserError(f"'{file}' is in Fortran order: save np.ascontiguousarray(x)")
    if name == LABELS and len(array) and array.min() < 0:
        raise UserError(f"'{file}' has label {array.min()} in row {array.argmin()}: labels are numbers from 0")
    return array


def _check_header(file: Path) -> None:
    """Refuses a header that is longer than any can be, with a ValueError, and what is no file, with a UserError."""
    with untrusted.regular(file, paths.ANY_SIZE) as opened:
        start = opened.read(12)  # six letters, two numbers of the version, then the header's length
    size = int.from_bytes(start[8:10] if start[6:7] == b"\1" else start[8:12], "little")
    if start.startswith(np.lib.format.MAGIC_PREFIX) and size > _LONGEST_HEADER:
        raise ValueError(f"a header of {size:,} bytes")


def _read_ahead(array: np.memmap, rows: Int64[np.ndarray, " m"]) -> None:
    """Asks the system to read rows ahead, all at once; otherwise, each waits for the one before it."""
    page, start = mmap.PAGESIZE, array.offset % mmap.ALLOCATIONGRANULARITY
    length = array.strides[0]
    first = start + rows * length
    begins = first // page * page
    for begin, size in zip(begins.tolist(), (first + length - begins).tolist(), strict=True):
        array.base.madvise(mmap.MADV_WILLNEED, begin, size)


def finite(values: Float16[np.ndarray, "*n"] | Float32[np.ndarray, "*n"]) -> bool:
    """Whether all numbers are finite, by their bits: twenty times faster for float16 than np.isfinite.

    As signed integers, the bits of +inf and NaN are the largest; as unsigned ones, those of -inf and NaN.
    """
    signed, above, unsigned, below = _INFINITE[values.dtype.itemsize]
    return not values.size or bool(values.view(signed).max() < above and values.view(unsigned).max() < below)


class Lines:
    """The captions of a data set, a text file for each shard."""

    def __init__(self, texts: tuple[Path, ...]) -> None:
        """Finds the lines, which stay in the files; refuses, with a UserError, a text that is no UTF-8."""
        self.files = texts
        self._texts = [_map(file) for file in texts]
        self._ends = [_ends(file, text) for file, text in zip(texts, self._texts, strict=True)]
        self.counts = tuple(len(ends) for ends in self._ends)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.files,)

    def take(self, parts: Sequence[Part]) -> list[str]:
        """The lines of all parts, without spaces around them."""
        return [self._line(part.shard, row) for part in parts for row in part.rows.tolist()]

    def _line(self, shard: int, row: int) -> str:
        ends = self._ends[shard]
        line = self._texts[shard][ends[row - 1] if row else 0 : ends[row]].tobytes()
        return line.decode("utf-8-sig").strip()


def _map(file: Path) -> UInt8[np.ndarray, " b"]:
    with untrusted.regular(file, paths.ANY_SIZE) as opened:
        return np.memmap(opened, np.uint8, "r") if os.fstat(opened.fileno()).st_size else np.empty(0, "B")


def _ends(file: Path, text: UInt8[np.ndarray, " b"]) -> Int64[np.ndarray, " n"]:
    """The end of each line. Refuses, with a UserError, a text that is no UTF-8 or has too many lines for the memory."""
    if text[:2].tobytes() in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise UserError(f"'{file}' is UTF-16: save it as UTF-8")
    decoder, blocks, lines = codecs.getincrementaldecoder("utf-8")(), [], 0
    for start in range(0, len(text), _BLOCK):
        block = text[start : start + _BLOCK]
        ends = np.flatnonzero(block == ord("\n")) + (start + 1)
        try:
            decoder.decode(block.tobytes(), final=start + _BLOCK >= len(text))
        except UnicodeDecodeError as error:
            before = np.searchsorted(ends, start + error.start, side="right")
            raise UserError(f"'{file}' line {lines + before + 1} is not UTF-8 ({error.reason})") from error
        blocks.append(ends)
        lines += len(ends)
        paths.check_memory(f"the list of the lines of '{file}'", 2 * ends.itemsize * lines, "divide it into shards")
    if len(text) and text[-1] != ord("\n"):
        blocks.append(np.array([len(text)]))
    return np.concatenate([np.empty(0, np.int64), *blocks])
