"""The pictures of an archive, an .npz file as ADM's evaluator reads it, a batch at a time."""

import contextlib
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from rfjax.errors import UserError

IMAGES, LABELS, CAPTIONS = "arr_0", "arr_1", "captions"  # members of an archive, as ADM names them, and our own


@dataclass(frozen=True)
class ArchiveSet:
    """The pictures of an .npz file, which are never in memory together.

    Attributes:
        path: of the file.
        count: of pictures.
        captions: of each; None without any.
    """

    path: Path
    count: int
    shape: tuple[int, int, int]
    captions: tuple[str, ...] | None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def captioned(self) -> bool:
        return self.captions is not None

    def __len__(self) -> int:
        return self.count

    def batches(self, size: int) -> Iterator[tuple[UInt8[np.ndarray, "B H W C"], list[str]]]:
        each = int(np.prod(self.shape))
        with _member(self.path, IMAGES) as file:
            _header(self.path, file)
            for start in range(0, self.count, size):
                count = min(size, self.count - start)
                found = _read(self.path, file, count * each)
                texts = self.captions[start : start + count] if self.captions else [""] * count
                yield np.frombuffer(found, np.uint8).reshape(count, *self.shape), list(texts)


def open_archive(path: Path, by_label: Sequence[str] = ()) -> ArchiveSet:
    """Opens an archive, ADM's or ours; only the header of its pictures is read.

    Args:
        by_label: as of `open_set`.

    Raises:
        UserError: if it is none, or holds latents.
    """
    if not path.is_file():
        raise UserError(f"there is no {path}: give an archive (.npz), or a folder of pictures")
    with _member(path, IMAGES) as file:
        shape, dtype = _header(path, file)
    if dtype != np.uint8 and len(shape) == 4 and shape[3] in (1, 3):
        raise UserError(f"{path}: {IMAGES} holds {dtype} values, and pictures are uint8: save them as 0 to 255")
    if dtype != np.uint8:
        raise UserError(
            f"{path}: {IMAGES} holds {dtype} values of shape {shape}, and pictures are uint8: latents must be decoded "
            "first (name their autoencoder when the archive is drawn)"
        )
    if len(shape) != 4 or shape[3] not in (1, 3) or min(shape) < 1:
        raise UserError(f"{path}: {IMAGES} has the shape {shape}, and pictures are (N, H, W, 1 or 3)")
    captions = _captions(path, shape[0], by_label)
    return ArchiveSet(path, shape[0], shape[1:], captions)


def members(path: Path) -> set[str]:
    """The arrays of an .npz file; empty if it is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return set()


def _captions(path: Path, count: int, by_label: Sequence[str]) -> tuple[str, ...] | None:
    there = members(path)
    if CAPTIONS in there:
        found = [str(text) for text in _array(path, CAPTIONS)]
    elif LABELS in there and by_label:
        labels = _array(path, LABELS).astype(np.int64).ravel()
        if len(labels) and (labels.min() < 0 or labels.max() >= len(by_label)):
            raise UserError(f"{path}: its labels go to {labels.max()}, and {len(by_label)} names of classes were given")
        found = [by_label[label] for label in labels]
    else:
        return None
    if len(found) != count:
        raise UserError(f"{path} has {count} pictures and {len(found)} captions: it is not one archive")
    return tuple(found)


def _array(path: Path, name: str) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[name]
    except Exception as error:  # of a damaged file, numpy and zipfile raise nearly anything
        raise UserError(f"{path}: the member {name} can't be read ({error})") from error


@contextlib.contextmanager
def _member(path: Path, name: str) -> Iterator[zipfile.ZipExtFile]:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} can't be read as an archive ({error}): it must be an .npz file") from error
    with archive:
        try:
            file = archive.open(f"{name}.npy")
        except KeyError:
            raise UserError(
                f"{path} has no member {name}: pictures of an archive are {name}, uint8 (N, H, W, C)"
            ) from None
        except Exception as error:
            raise UserError(f"{path}: the member {name} can't be read ({error})") from error
        with file:
            yield file


def _header(path: Path, file: zipfile.ZipExtFile) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except Exception as error:
        raise UserError(f"{path}: the member {IMAGES} is no array ({error})") from error
    if fortran:
        raise UserError(f"{path}: {IMAGES} is stored in Fortran's order, save it in C order")
    return shape, dtype


def _read(path: Path, file: zipfile.ZipExtFile, size: int) -> bytes:
    try:
        found = file.read(size)
    except Exception as error:  # a wrong checksum
        raise UserError(f"{path} is damaged ({error}): draw it again") from error
    if len(found) != size:
        raise UserError(f"{path} ends too early: draw it again")
    return found
