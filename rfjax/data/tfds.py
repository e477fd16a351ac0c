"""Any prepared TensorFlow Datasets data set of captioned or labelled images, read without TensorFlow and offline.

A data set is found by its name in a folder of prepared ones, as `tfds` lays them out (data_dir/name[/config]/version).
It must be stored as ArrayRecord, `download_and_prepare(file_format="array_record")`: TFRecord has no random access, and
the Parquet reader of TFDS 4.9 passes over slices. It is read as `tfds.data_source` reads it, but from its files alone:
nothing here ever downloads or prepares.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Float32

from rfjax.data import images, prepared
from rfjax.data.fields import Fields, find_fields
from rfjax.data.prepared import first_line
from rfjax.data.types import Example, Memory, Problem, check_index, check_problems
from rfjax.errors import UserError

_BLOCK = 32  # records


class Tfds:
    """A split of a prepared data set; a `Source`.

    A record that cannot be decoded, or has no caption, is replaced by the next good one, wherever in the run it is
    read, and added to `problems`: its index always gives the same example. Reading raises UserError when the problems
    are more than the fraction `max_bad` of the records.
    """

    def __init__(
        self,
        records: Sequence[Mapping[str, Any]],
        where: str,
        fields: Fields,
        read: Callable[[Any], np.ndarray],
        *,
        files: Sequence[str],
        cache_mb: float,
        max_bad: float,
    ) -> None:
        """See `load`, which finds the arguments; where: the data set and its split, for messages; read: the image of
        a record's image feature, which raises ValueError where it is bad; files: what is read of which file."""
        self._records, self._where, self._fields, self._max_bad = records, where, fields, max_bad
        self._read_image, self._files = read, tuple(files)
        self._bad: dict[int, Problem] = {}
        self._memory = Memory(len(records), self._read(0), cache_mb)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The bad records met so far, by position."""
        return tuple(problem for _, problem in sorted(self._bad.items()))

    @property
    def cached(self) -> bool:
        """Whether the split fits under cache_mb, and so is decoded once."""
        return self._memory.enabled

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        index = check_index(index, len(self))
        return self._memory.get(index) or (self._fill(index) if self.cached else self._memory.put(self._read(index)))

    def _fill(self, index: int) -> Example:
        """Puts the whole block around an index in memory: records read together cost a tenth of single ones."""
        start = index // _BLOCK * _BLOCK
        block = range(start, min(start + _BLOCK, len(self)))
        try:
            records: Sequence[Mapping[str, Any] | None] = self._records.__getitems__(block)
        except Exception:  # one of them can't be read: `_read` says which, and why
            records = [None] * len(block)
        for position, record in zip(block, records, strict=True):
            example = self._memory.put(self._read(position, record))
            if position == index:
                found = example
        return found

    def _read(self, index: int, record: Mapping[str, Any] | None = None) -> Example:
        """Returns the example at `index`, whose record may have been read already, or the next good one."""
        for position in chain(range(index, len(self)), range(index)):
            if position in self._bad:
                continue
            try:
                known = record is not None and position == index
                return self._decode(record if known else self._record(position), index)
            except ValueError as error:
                self._bad[position] = Problem(f"record {position}", str(error))
                check_problems(self.problems, len(self), self._max_bad, self._where)
        raise UserError(f"{self._where}: none of its {len(self)} records is good.")

    def _record(self, position: int) -> Mapping[str, Any]:
        """Raises ValueError for a damaged record; UserError for one that can't be read, which may be there again."""
        try:
            return self._records[position]
        except Exception as error:  # the readers, in C++, raise RuntimeError and errors of their own
            if isinstance(error, RuntimeError) and not _damaged(error):
                raise _unreadable(self._where, position, error) from error
            raise ValueError(f"a damaged record ({first_line(error)})") from error

    def names(self) -> Iterator[str]:
        """See `types.Named`: what is read of which file, and the file's size in bytes."""
        yield from self._files

    def stored(self, index: int) -> bytes:
        """See `types.Stored`: the record, with all its features; nothing for a damaged one."""
        try:
            return self._records.data_source[index]
        except RuntimeError as error:
            if _damaged(error):
                return b""
            raise _unreadable(self._where, index, error) from error

    def _decode(self, record: Mapping[str, Any], index: int) -> Example:
        image = self._read_image(record[self._fields.image])
        example = Example(image=image, caption=self._caption(record), index=index)
        example.update({key: np.asarray(record[key], np.float32) for key in self._fields.stored})
        if self._fields.label:
            example["label"] = int(record[self._fields.label])
        return example

    def _caption(self, record: Mapping[str, Any]) -> str:
        fields = self._fields
        if fields.text:
            text = record[fields.text]
            text = text[fields.text_part] if fields.text_part else text
            if isinstance(text, np.ndarray | list | tuple):
                text = text[0] if len(text) else ""
            text = (text.decode() if isinstance(text, bytes) else str(text)).strip()
            if not text:
                raise ValueError(f"an empty {fields.text}")
            return text
        if fields.label:
            label = int(record[fields.label])
            if label < 0:  # TFDS's way to say that a test set has no labels
                raise ValueError(f"no {fields.label}")
            return fields.captions[label]
        return ""


def load(
    *,
    dataset: str,
    data_dir: str,
    split_spec: str,
    image_size: int,
    channels: int,
    caption_key: str = "",
    image_key: str = "",
    label_key: str = "",
    caption_template: str = "a photo of a {}",
    resize: images.Resize = "crop",
    cache_mb: float = 512,
    max_bad: float = 0.05,
    outside: bool = False,
) -> Tfds:
    """Returns a split of a prepared TFDS data set.

    dataset: "name", "name:1.2.0", "name/config" or "name/config:1.2.0"; the newest version where none is given.
    data_dir: the folder of prepared data sets; "" means $TFDS_DATA_DIR, else ~/tensorflow_datasets.
    split_spec: in TFDS's own words, such as "train", "train[:95%]" or "train[:100]+test".
    image_size, channels, resize: pixels a side, 1 or 3, and how a picture is fitted: see `images.fit`. Where the data
        set stores latents, image_size and channels must be those of a latent.
    image_key: the feature with the picture. "": `latent`, else the only image, else the one called "image".
    caption_key: the feature with the text; of a list of captions the first is taken. "": the only one of CAPTION_KEYS,
        unless label_key is given. A text goes before a label.
    label_key: the class label of which captions are made. "": the only label, else the one called "label".
    caption_template: "{}" stands for the label's own name in lower case, its underscores as spaces.
    cache_mb: the split is kept decoded in memory (MiB) where it fits under this. It is filled in blocks of 32 as they
        are first read, in the reader's threads while the model compiles, so loading stays quick.
    max_bad: the fraction of the split's records that may be bad, 0..1; see `Tfds`.
    outside: whether a file may be a link to one outside of the data set's folder.

    Float features `latent` (H, W, C), `context` (L, E) and `pooled` (P,) are passed on unscaled as float32: an image
    already encoded, and the stored encodings of its caption (with them, a caption may be missing altogether: "").

    Raises UserError where the folder, the data set, the split or a feature is missing or ambiguous, listing what is
    there, where a file of the split is missing, and where too many records are bad.
    """
    if caption_template.count("{}") != 1:
        raise UserError(f"caption_template must hold {{}} once, where the label goes, not {caption_template!r}.")
    folder = prepared.find(dataset, data_dir)
    what = f"data set {dataset!r} in {str(folder)!r}"
    builder = prepared.open_folder(folder, what, outside)
    features = dict(builder.info.features)
    fields = find_fields(
        features, image=image_key, text=caption_key, label=label_key, template=caption_template, what=what
    )
    if not fields.latent:
        images.check(image_size, channels, resize)
    records, files_read = prepared.open_records(builder, split_spec, features, what)
    read: Callable[[Any], np.ndarray] = partial(images.read, size=image_size, channels=channels, mode=resize)
    if fields.latent:
        shape = (image_size, image_size, channels)
        stored = tuple(features[fields.image].shape)
        if None in stored:  # each record has a shape of its own
            stored = np.shape(records[0][fields.image])
        if shape != stored:
            raise UserError(f"The {what} stores latents of shape {stored}, but image_size and channels say {shape}.")
        read = partial(_latent, shape=shape)
    where = f"{dataset} {split_spec}"
    return Tfds(records, where, fields, read, files=files_read, cache_mb=cache_mb, max_bad=max_bad)


def _damaged(error: RuntimeError) -> bool:
    """Whether a record is not what was written; otherwise, the whole file can't be read."""
    return str(error).startswith("Corrupted") and "Failed to read RiegeliPostscript" not in str(error)


def _unreadable(where: str, position: int, error: Exception) -> UserError:
    return UserError(
        f"{where}: record {position} can't be read ({first_line(error)}): look after the disk, or copy it again."
    )


def _latent(value: np.ndarray, shape: tuple[int, int, int]) -> Float32[np.ndarray, "H W C"]:
    if value.shape != shape:
        raise ValueError(f"a latent of shape {value.shape}")
    return np.asarray(value, np.float32)
