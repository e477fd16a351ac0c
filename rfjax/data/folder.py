"""A user's own pictures: a folder of images with captions in a JSON-lines file.

    pictures/
      captions.jsonl        {"file": "cats/tom.jpg", "caption": "a grey cat on a wall"}
      cats/tom.jpg          one line for each picture; more than one line may name the same picture

Hugging Face's `metadata.jsonl` ({"file_name": ..., "text": ...}) is read as well. Every picture is decoded once before
training begins, so that nothing stumbles in the middle; what was found is kept in the user's cache folder
($XDG_CACHE_HOME or ~/.cache, then rfjax/), never in the folder itself, and a picture is looked at again only when its
size or time changes. Beyond about a million pictures, a TFDS data set (`rfjax.data.tfds`) starts faster.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from rfjax.config.paths import expanded
from rfjax.data import captions, images, paths, verified
from rfjax.data.captions import CAPTIONS_FILE, Record
from rfjax.data.types import Example, Memory, Problem, Split, check_index, check_problems, check_split
from rfjax.errors import UserError


class Folder:
    """The captioned pictures of one split, in the order of the captions file; a `Source`.

    problems: every picture or line of the whole folder, in any split, that is left out, and why.
    """

    def __init__(
        self,
        path: Path,
        records: tuple[Record, ...],
        problems: tuple[Problem, ...],
        read: Callable[[bytes], UInt8[np.ndarray, "H W C"]],
        cache_mb: float,
    ) -> None:
        """See `load`, which finds the records, at least one, and has decoded their pictures once."""
        self.problems = problems
        self._path, self._records, self._read_image = path, records, read
        self._memory = Memory(len(records), self._read(0), cache_mb)

    @property
    def files(self) -> tuple[str, ...]:
        """The file of each example, relative to the folder."""
        return tuple(record.file for record in self._records)

    @property
    def cached(self) -> bool:
        """Whether the split fits under cache_mb, and so is decoded once."""
        return self._memory.enabled

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        index = check_index(index, len(self))
        return self._memory.get(index) or self._memory.put(self._read(index))

    def _read(self, index: int) -> Example:
        record = self._records[index]
        file = self._path / record.file
        try:
            image = self._read_image(paths.read(file, verified.LARGEST))
        except (OSError, ValueError, UserError) as error:
            raise UserError(
                f"{file} was good when the run began and cannot be read now ({error}): put it back."
            ) from error
        return Example(image=image, caption=record.caption, index=index)

    def names(self) -> Iterator[str]:
        """See `types.Named`: each picture's file, its size in bytes and its caption."""
        for record in self._records:
            yield f"{captions.form(record.file)}\0{record.size}\0{record.caption}"

    def stored(self, index: int) -> bytes:
        """See `types.Stored`: the picture's file."""
        return paths.read(self._path / self._records[index].file, verified.LARGEST)


def load(
    *,
    path: str,
    split: Split,
    image_size: int,
    channels: int,
    captions_file: str = CAPTIONS_FILE,
    resize: images.Resize = "crop",
    validation_percent: float = 5.0,
    test_percent: float = 0.0,
    cache_mb: float = 512,
    max_bad: float = 0.05,
    outside: bool = False,
) -> Folder:
    """Returns one split of a folder of captioned pictures.

    path: the folder; it may be read-only.
    split: "train", "validation" or "test". A line's own "split" field decides, and where it has none a hash of the file
        name: validation_percent of the pictures, test_percent, and the rest for training. A picture never changes its
        split when others come or go, and raising test_percent moves pictures only from train.
    image_size, channels, resize: pixels a side, 1 or 3, and how a picture is fitted: see `images.fit`.
    captions_file: in the folder; where the default is not there, metadata.jsonl is.
    cache_mb: the split is kept decoded in memory (MiB) where it fits under this, each picture from its first read on.
    max_bad: the fraction of records, 0..1, that may be bad and left out. Bad is a broken or missing picture, a missing
        caption, a malformed line, and a picture that no line names; hidden files are passed over.
    outside: whether a line may name a picture outside of the folder, by its path or behind a link.

    Raises UserError where the folder or its captions file is missing, where a line names a picture outside, where more
    is bad than max_bad, and where the split is empty.
    """
    check_split(split)
    images.check(image_size, channels, resize)
    if not 0 <= validation_percent + test_percent <= 100 or min(validation_percent, test_percent) < 0:
        raise UserError(
            f"validation_percent = {validation_percent:g} and test_percent = {test_percent:g} leave no room."
        )
    folder = expanded(path, "config.data.path")
    file = captions.find(folder, captions_file)
    shares = {"validation": validation_percent, "test": test_percent}
    records, problems = captions.parse(file, shares)
    if not outside:
        paths.check_inside(folder, [os.path.relpath(file, folder)], "config.data.captions_file")
        paths.check_inside(folder, (record.file for record in records), file.name)
    there = _pictures(folder)
    records, unclear = captions.match(records, folder, there)
    problems += unclear
    named = {record.file for record in records} | {problem.file for problem in problems}
    problems += [Problem(name, f"no line in {file.name}") for name in sorted(there - named)]
    looks = verified.verify(folder, {record.file for record in records}, channels)
    problems += [Problem(record.file, reason) for record in records if (reason := looks[record.file].reason)]
    good = [record for record in records if not looks[record.file].reason]
    check_problems(problems, len(good) + len(problems), max_bad, f"Folder {str(folder)!r}")
    chosen = tuple(replace(record, size=looks[record.file].size) for record in good if record.split == split)
    if not chosen:
        raise UserError(
            f"Split {split!r} of the folder {str(folder)!r} is empty: of {len(good)} pictures, validation_percent = "
            f"{validation_percent:g} and test_percent = {test_percent:g} leave none to it; raise its percentage, or "
            f'add "split": "{split}" to lines of {file.name}.'
        )
    read = partial(images.read, size=image_size, channels=channels, mode=resize)
    return Folder(folder, chosen, tuple(problems), read, cache_mb)


def _pictures(folder: Path) -> set[str]:
    """Returns the pictures in a folder and below it, by their extensions, but for hidden ones."""
    found = set()
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = os.path.relpath(place, folder)
        for name in files:
            if os.path.splitext(name)[1].lower() in images.EXTENSIONS and not name.startswith("."):
                found.add(os.path.normpath(os.path.join(below, name)).replace(os.sep, "/"))
    return found
