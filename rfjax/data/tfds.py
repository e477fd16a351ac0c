"""Any prepared TensorFlow Datasets data set of captioned or labelled images, read without TensorFlow and offline.

A data set lies in a folder of prepared ones, at data_dir/name[/config]/version as `tfds` puts it. It must be stored as
ArrayRecord, `download_and_prepare(file_format="array_record")`, because TFRecord has no random access and the Parquet
reader of TFDS 4.9 ignores slices. Only its files are read: nothing here downloads or prepares.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float32

from rfjax import config as configs
from rfjax.data import images, prepared
from rfjax.data.broken import Broken
from rfjax.data.features import Features, find_features
from rfjax.data.prepared import first_line
from rfjax.data.types import Example, Memory, Problem, Split, check_index, check_split, fields_of
from rfjax.errors import UserError

_BLOCK = 32  # records


class Tfds:
    """A split of a prepared data set; a `Source`.

    The next good record replaces one that can't be decoded or has no caption, whenever it is read, so that an index
    always gives the same example. `problems` lists the bad ones. Reading raises UserError if they are more than the
    fraction `max_bad` of the records.

    Attributes:
        fields, readers: see `types.Source`.
    """

    def __init__(
        self,
        records: Sequence[Mapping[str, Any]],
        where: str,
        features: Features,
        decode: Callable[[Any], np.ndarray],
        *,
        files: Sequence[str],
        cache_mb: float,
        max_bad: float,
        readers: int = 0,
    ) -> None:
        """See `open_source`, which finds the arguments; `decode` raises ValueError for a bad image feature."""
        self._records, self._where, self._features = records, where, features
        self._decode_image, self._files = decode, files
        self._broken = Broken(len(records), max_bad, where)
        sample = self._read(0)
        self.fields = fields_of(sample)
        self._memory = Memory(len(records), sample, cache_mb)
        self.readers = 0 if self._memory.enabled or features.latent else readers

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The bad records among those that were read, by position."""
        return self._broken.problems

    def broken(self, index: int) -> str:
        """See `types.Lenient`."""
        return self._broken.reason(index)

    def found(self) -> dict[int, Problem]:
        """See `types.Lenient`."""
        return self._broken.found()

    def add(self, bad: Mapping[int, Problem]) -> None:
        """See `types.Lenient`."""
        self._broken.add(bad)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        index = check_index(index, len(self))
        if self._memory.enabled:
            return self._memory.get(index) or self._fill(index)
        return self._memory.put(self._read(index))

    def _fill(self, index: int) -> Example:
        """Puts the block around an index in memory: a record costs a tenth if a whole block is read at once."""
        start = index // _BLOCK * _BLOCK
        block = range(start, min(start + _BLOCK, len(self)))
        try:
            records: Sequence[Mapping[str, Any] | None] = self._records.__getitems__(block)
        except Exception:  # one of them can't be read: `_read` says which, and why
            records = [None] * len(block)
        examples = {at: self._memory.put(self._read(at, record)) for at, record in zip(block, records, strict=True)}
        return examples[index]

    def _read(self, index: int, record: Mapping[str, Any] | None = None) -> Example:
        """The example at `index`, whose record may have been read already, or the next good one."""

        def read(position: int) -> Example:
            known = record if position == index else None
            return self._decode(self._record(position) if known is None else known, index)

        return self._broken.first_good(index, read, lambda position: f"record {position}")

    def _record(self, position: int) -> Mapping[str, Any]:
        """Reads a record. A damaged one is a ValueError; one that can't be read now is a UserError."""
        try:
            return self._records[position]
        except Exception as error:  # the readers, in C++, raise RuntimeError and errors of their own
            if isinstance(error, RuntimeError) and not _damaged(error):
                raise _unreadable(self._where, position, error) from error
            raise ValueError(f"a damaged record ({first_line(error)})") from error

    def names(self) -> Iterator[str]:
        """See `types.Named`: each file's name, its size in bytes and its part of the split."""
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
        features = self._features
        example: Example = {"latent" if features.latent else "image": self._decode_image(record[features.image])}
        example |= {"caption": self._caption(record), "index": index}
        example |= {key: np.asarray(record[key], np.float32) for key in features.stored}
        if features.label:
            example["label"] = np.int64(record[features.label])
        return example

    def _caption(self, record: Mapping[str, Any]) -> str:
        features = self._features
        if features.text:
            text = record[features.text]
            text = text[features.text_part] if features.text_part else text
            if isinstance(text, np.ndarray | list | tuple):
                text = text[0] if len(text) else ""
            text = (text.decode() if isinstance(text, bytes) else str(text)).strip()
            if not text:
                raise ValueError(f"an empty {features.text}")
            return text
        if features.label:
            label = int(record[features.label])
            if label < 0:  # TFDS's way to say that a test set has no labels
                raise ValueError(f"no {features.label}")
            return features.captions[label]
        return ""


def open_source(config: configs.Data, split: Split) -> Tfds:
    """Opens a split of a prepared TFDS data set.

    Float features `latent` (H, W, C), `context` (L, E) and `pooled` (P,) become fields of these names, unscaled, as
    float32. A data set with stored encodings needs no caption: it is "".

    Args:
        config: dataset ("name", "name:1.2.0", "name/config" or "name/config:1.2.0"; the newest version if none is
            given), data_dir ("": $TFDS_DATA_DIR, else ~/tensorflow_datasets), train_split and validation_split (such as
            "train[:95%]" or "train[:100]+test"), image_size and channels (of a picture, or of a stored latent), resize,
            image_key, caption_key (without it, a text of CAPTION_KEYS, or none if label_key is given), label_key,
            caption_template, cache_mb, max_bad, outside and readers.
        split: "train", "validation" or "test".

    Raises:
        UserError: if the folder, the data set, the split, a file or a feature is missing, a feature is ambiguous, or
            too many records are bad.
    """
    check_split(split)
    if config.caption_template.count("{}") != 1:
        raise UserError(
            f"config.data.caption_template must hold {{}} once, where the label goes, not {config.caption_template!r}"
        )
    spec = {"train": config.train_split, "validation": config.validation_split, "test": "test"}[split]
    folder = prepared.dataset_folder(config.dataset, config.data_dir)
    what = f"data set {config.dataset!r} in {str(folder)!r}"
    builder = prepared.open_folder(folder, what, config.outside)
    kinds = dict(builder.info.features)
    keys = {"image": config.image_key, "text": config.caption_key, "label": config.label_key}
    features = find_features(kinds, **keys, template=config.caption_template, what=what)
    if not features.latent:
        images.check(config.image_size, config.channels, config.resize)
    records, files = prepared.open_records(builder, spec, kinds, what)
    decode: Callable[[Any], np.ndarray] = partial(
        images.read, size=config.image_size, channels=config.channels, mode=config.resize
    )
    if features.latent:
        shape = (config.image_size, config.image_size, config.channels)
        stored = tuple(kinds[features.image].shape)
        if None in stored:  # each record has a shape of its own
            stored = np.shape(records[0][features.image])
        if shape != stored:
            raise UserError(f"the {what} stores latents of shape {stored}, but image_size and channels say {shape}")
        decode = partial(_latent, shape=shape)
    where = f"{config.dataset} {spec}"
    limits = {"cache_mb": config.cache_mb, "max_bad": config.max_bad, "readers": config.readers}
    return Tfds(records, where, features, decode, files=files, **limits)


def _damaged(error: RuntimeError) -> bool:
    """Whether one record is damaged; otherwise, the whole file can't be read."""
    return str(error).startswith("Corrupted") and "Failed to read RiegeliPostscript" not in str(error)


def _unreadable(where: str, position: int, error: Exception) -> UserError:
    why = first_line(error)
    return UserError(f"{where}: record {position} can't be read ({why}): check the disk, or copy it again")


def _latent(value: np.ndarray, shape: tuple[int, int, int]) -> Float32[np.ndarray, "H W C"]:
    if value.shape != shape:
        raise ValueError(f"a latent of shape {value.shape}")
    return np.asarray(value, np.float32)
