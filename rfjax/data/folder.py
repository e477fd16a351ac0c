"""A user's own pictures: a folder of images with captions in a JSON-lines file.

    pictures/
      captions.jsonl        {"file": "cats/tom.jpg", "caption": "a grey cat on a wall"}
      cats/tom.jpg          one line for each picture; more than one line may name the same picture

A caption may be a list of texts, and a line may have others as "synthetic", which a model wrote: see `types.Captions`.
Hugging Face's `metadata.jsonl` ({"file_name": ..., "text": ...}) is read as well. Every picture is decoded once before
training begins, so that a bad one can't stop the training later. The user's cache folder ($XDG_CACHE_HOME or ~/.cache,
then rfjax/) records the good ones, and a picture is decoded again only if its size or time changes. Nothing is written
to the folder itself. Beyond about a million pictures, a TFDS data set (`rfjax.data.tfds`) starts faster.

A line's own "split" field decides on the picture's split. If there is none, a hash of the file name does, so that a
picture never changes its split when others come or go. A record is bad if its picture is broken or missing, its caption
is missing or its line is malformed, or if no line names the picture; hidden files don't count.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from rfjax import config as configs
from rfjax.config.paths import expanded
from rfjax.data import captions, images, paths, verified
from rfjax.data.captions import Record
from rfjax.data.types import (
    Example,
    Memory,
    Problem,
    Split,
    check_index,
    check_problems,
    check_split,
    fields_of,
    written_out,
)
from rfjax.errors import UserError


class Folder:
    """The captioned pictures of one split, in the order of the captions file; a `Source`.

    Attributes:
        fields: see `types.Source`.
        files: of each example, relative to the folder.
        readers: see `types.Source`.
        problems: every picture or line of the whole folder, in any split, that is left out, and why.
    """

    def __init__(
        self,
        path: Path,
        records: tuple[Record, ...],
        problems: tuple[Problem, ...],
        decode: Callable[[bytes], UInt8[np.ndarray, "H W C"]],
        *,
        cache_mb: float,
        readers: int,
    ) -> None:
        """See `open_source`, which finds the records, at least one, and has decoded their pictures once."""
        self.files, self.problems = tuple(record.file for record in records), problems
        self._path, self._records, self._decode = path, records, decode
        sample = self._read(0)
        self.fields = fields_of(sample)
        self._memory = Memory(len(records), sample, cache_mb)
        self.readers = 0 if self._memory.enabled else readers

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        index = check_index(index, len(self))
        return self._memory.get(index) or self._memory.put(self._read(index))

    def _read(self, index: int) -> Example:
        record = self._records[index]
        file = self._path / record.file
        try:
            image = self._decode(paths.read(file, verified.LARGEST))
        except (OSError, ValueError, UserError) as error:
            what = f"{file} was good when the run began, and can't be read now ({error}): put it back"
            raise UserError(what) from error
        return Example(image=image, caption=record.caption, index=index)

    def names(self) -> Iterator[str]:
        """See `types.Named`: each picture's file, its size in bytes and its captions."""
        for record in self._records:
            yield f"{captions.form(record.file)}\0{record.size}\0{written_out(record.caption)}"

    def stored(self, index: int) -> bytes:
        """See `types.Stored`: the picture's file."""
        return paths.read(self._path / self._records[index].file, verified.LARGEST)


def open_source(config: configs.Data, split: Split) -> Folder:
    """Opens one split of a folder of captioned pictures.

    Args:
        config: its path, image_size, channels, resize, captions_file, synthetic_key, validation_percent, cache_mb,
            max_bad, outside and readers.
        split: "train", "validation" or "test".

    Raises:
        UserError: if the folder or its captions file is missing, a line names a picture outside of the folder, more
            records are bad than max_bad allows, or the split is empty.
    """
    check_split(split)
    images.check(config.image_size, config.channels, config.resize)
    folder = expanded(config.path, "config.data.path")
    file = captions.captions_file(folder, config.captions_file)
    records, problems = captions.parse(file, config.validation_percent, config.synthetic_key or captions.SYNTHETIC_KEY)
    if not config.outside:
        paths.check_inside(folder, [os.path.relpath(file, folder)], "config.data.captions_file")
        paths.check_inside(folder, (record.file for record in records), file.name)
    pictures = _pictures(folder)
    records, ambiguous = captions.match(records, folder, pictures)
    problems += ambiguous
    named = {record.file for record in records} | {problem.file for problem in problems}
    problems += [Problem(name, f"no line in {file.name}") for name in sorted(pictures - named)]
    looks = verified.verify(folder, {record.file for record in records}, config.channels)
    problems += [Problem(record.file, reason) for record in records if (reason := looks[record.file].reason)]
    good = [record for record in records if not looks[record.file].reason]
    check_problems(problems, len(good) + len(problems), config.max_bad, f"folder {str(folder)!r}")
    chosen = tuple(replace(record, size=looks[record.file].size) for record in good if record.split == split)
    if not chosen:
        raise UserError(
            f"split {split!r} of the folder {str(folder)!r} is empty: of {len(good)} pictures, "
            f"config.data.validation_percent = {config.validation_percent:g} leaves none to it; change it, or add "
            f'"split": "{split}" to lines of {file.name}'
        )
    decode = partial(images.read, size=config.image_size, channels=config.channels, mode=config.resize)
    return Folder(folder, chosen, tuple(problems), decode, cache_mb=config.cache_mb, readers=config.readers)


def _pictures(folder: Path) -> set[str]:
    """The pictures in a folder and below it, by their extensions, except hidden ones."""
    pictures = set()
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(place).relative_to(folder)
        suited = (name for name in files if os.path.splitext(name)[1].lower() in images.EXTENSIONS)
        pictures |= {(below / name).as_posix() for name in suited if not name.startswith(".")}
    return pictures
