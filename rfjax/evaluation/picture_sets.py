"""Sets of pictures to measure, read a batch at a time: an archive (.npz), a folder of files, a data set.

All pictures of a set have one size, and nothing resizes them here: the networks of metrics do that by their protocol.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from rfjax import config as configs
from rfjax import data
from rfjax.data import images
from rfjax.errors import UserError
from rfjax.evaluation.archives import IMAGES, open_archive

JPEG = {".jpg", ".jpeg"}


@runtime_checkable
class PictureSet(Protocol):
    """The contract.

    Attributes:
        name: for people and for records: a path, or a split of a data set.
        shape: (H, W, C) of each picture, C = 1 or 3.
        notes: sentences that a reader of the numbers must know.
    """

    name: str
    shape: tuple[int, int, int]
    notes: tuple[str, ...]

    def __len__(self) -> int: ...

    @property
    def captioned(self) -> bool:
        """Whether each picture says what it was drawn for."""
        ...

    def batches(self, size: int) -> Iterator[tuple[UInt8[np.ndarray, "B H W C"], list[str]]]:
        """All pictures with their captions in order, `size` at a time, the last batch perhaps fewer.

        Raises:
            UserError: for a picture that is broken or of another size.
        """
        ...


def open_set(path: Path, by_label: Sequence[str] = ()) -> PictureSet:
    """Opens an archive or a folder.

    Args:
        path: an .npz file with `arr_0`, or a folder of pictures.
        by_label: captions of the labels 0, 1, ... of an archive's `arr_1`.

    Raises:
        UserError: if it is neither, or holds no pictures.
    """
    if path.is_dir():
        return open_folder(path)
    if path.suffix != ".npz":
        raise UserError(f"{path} is neither a folder of pictures nor an archive (.npz with {IMAGES})")
    return open_archive(path, by_label)


@dataclass(frozen=True)
class FolderSet:
    """The pictures of a folder, in the order of their names.

    Attributes:
        path: of the folder.
        files: of the pictures, relative to it.
    """

    path: Path
    files: tuple[Path, ...]
    shape: tuple[int, int, int]
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def captioned(self) -> bool:
        return (self.path / self.files[0]).with_suffix(".txt").is_file()

    def __len__(self) -> int:
        return len(self.files)

    def batches(self, size: int) -> Iterator[tuple[UInt8[np.ndarray, "B H W C"], list[str]]]:
        for start in range(0, len(self.files), size):
            part = self.files[start : start + size]
            yield np.stack([self._picture(file) for file in part]), [self._caption(file) for file in part]

    def _picture(self, file: Path) -> UInt8[np.ndarray, "H W 3"]:
        found = _decoded(self.path / file)
        if found.shape != self.shape:
            sizes = " and ".join(f"{height} x {width}" for height, width, _ in (self.shape, found.shape))
            raise UserError(
                f"{self.path}: {self.files[0]} and {file} have different sizes, {sizes}: all pictures of a set "
                "must have one (how they are resized is a part of what is measured)"
            )
        return found

    def _caption(self, file: Path) -> str:
        if not self.captioned:
            return ""
        path = (self.path / file).with_suffix(".txt")
        try:
            return path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: the caption can't be read ({error})") from error


def open_folder(path: Path) -> FolderSet:
    """Opens a folder of pictures of one size; a caption is NAME.txt beside NAME.png. Only the first is decoded here.

    Raises:
        UserError: if there is no picture.
    """
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in images.EXTENSIONS and file.is_file())
    found = [file for file in found if not file.name.startswith(".")]
    if not found:
        raise UserError(f"{path} holds no pictures: give a folder of PNG files, or an archive (.npz)")
    notes = []
    if count := sum(file.suffix.lower() in JPEG for file in found):
        notes.append(
            f"{count:,} of {len(found):,} pictures in {path} are JPEG files, whose losses alone move a Fréchet "
            "distance: compare only with other JPEG files of that quality."
        )
    files = tuple(file.relative_to(path) for file in found)
    return FolderSet(path, files, _decoded(found[0]).shape, tuple(notes))


def _decoded(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """A picture in three channels: grey ones become three equal ones."""
    try:
        return images.decode(path.read_bytes(), 3)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} can't be read as a picture ({error}): repair it, or take it out of the folder"
        ) from error


@dataclass(frozen=True)
class SourceSet:
    """The first pictures of a split of a data set, as training sees them.

    Attributes:
        source: opened.
        split: its name.
        about: the data set's name.
        count: of pictures.
    """

    source: data.Source
    split: str
    about: str
    count: int
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.about}, {self.split}, {self.count:,} pictures"

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.source.fields["image"].shape

    @property
    def captioned(self) -> bool:
        return True

    def __len__(self) -> int:
        return self.count

    def batches(self, size: int) -> Iterator[tuple[UInt8[np.ndarray, "B H W C"], list[str]]]:
        for start in range(0, self.count, size):
            found = data.take(self.source, range(start, min(start + size, self.count)), ["image"])
            yield np.asarray(found.arrays["image"], np.uint8), list(found.captions)


def open_split(config: configs.Data, split: data.Split, most: int) -> SourceSet:
    """The first `most` pictures of a split, or all.

    Raises:
        UserError: if the data set has no pictures.
    """
    source = data.open_source(config, split)
    field = source.fields.get("image")
    if field is None or np.dtype(field.dtype) != np.uint8:
        raise UserError(
            f"config.evaluate.reference = '{split}': the data set {config.name} has no pictures (uint8 images) to "
            "compare with: name a folder of pictures, an archive, or a file of statistics"
        )
    count = min(len(source), most)
    return SourceSet(source, split, config.path or config.name, count)
