"""Reads single arrays of .npz files, however large the others are, and believes nothing that a file says of itself."""

import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rfjax import untrusted
from rfjax.errors import UserError, nearest, one_line

ANY_SIZE = 2**62  # bytes: a file of pictures is not read whole
LARGEST = 2**32  # bytes of an array; 10,000 x 2,048 features have 82 MB, the covariance 34
MOST_MEMBERS = 1000
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Member(NamedTuple):
    """An array of a file.

    Attributes:
        shape: its sizes.
        dtype: plain numbers.
    """

    shape: tuple[int, ...]
    dtype: np.dtype


def members(path: Path) -> Mapping[str, Member]:
    """The arrays of plain numbers in a file, by name, none of them read.

    Raises:
        UserError: if it is no .npz file, or cut short or damaged.
    """
    with _opened(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        if len(names) > MOST_MEMBERS:
            raise UserError(f"{path} holds {len(names):,} arrays, and statistics are a few")
        found = {name: _header(archive, path, name) for name in names}
    return {name: member for name, member in found.items() if member.dtype.kind in "fiub"}


def read(path: Path, name: str) -> np.ndarray:
    """One array.

    Raises:
        UserError: as of `members`, if there is no such array, or if it is larger than `LARGEST`.
    """
    with _opened(path) as archive:
        if f"{name}.npy" not in archive.namelist():
            known = [member.removesuffix(".npy") for member in archive.namelist()][:MOST_MEMBERS]
            raise UserError(f"{path} has no array '{name}'{nearest(name, known)}")
        member = _header(archive, path, name)
        size = math.prod(member.shape) * member.dtype.itemsize
        if member.dtype.kind not in "fiub" or size > LARGEST:
            raise UserError(f"{path} has an array '{one_line(name)}' of {size:,} bytes of {member.dtype}")
        with archive.open(f"{name}.npy") as file:
            return np.lib.format.read_array(file, allow_pickle=False)


def _header(archive: zipfile.ZipFile, path: Path, name: str) -> Member:
    """Shape and type, which must fit the member's size: else a header could ask for all memory."""
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise UserError(f"{path} has an array '{one_line(name)}' of a format that numbers don't need, {version}")
        shape, _, dtype = _HEADERS[version](file)
        if not dtype.hasobject and math.prod(shape) * dtype.itemsize != info.file_size - file.tell():
            raise ValueError(f"{one_line(name)} has another size than it says")
    return Member(shape, dtype)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with untrusted.regular(path, ANY_SIZE) as file, zipfile.ZipFile(file) as archive:
            yield archive
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except Exception as error:  # zipfile and numpy raise many kinds for what is damaged
        raise UserError(f"{path} can't be read as an .npz file: {one_line(str(error)) or 'it is damaged'}") from error
