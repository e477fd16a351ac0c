"""Any prepared TensorFlow Datasets data set of captioned or labelled images, read without TensorFlow and offline.

A data set is found by its name in a folder of prepared ones, as `tfds` lays them out (data_dir/name[/config]/version).
It must be stored as ArrayRecord, `download_and_prepare(file_format="array_record")`: TFRecord has no random access, and
the Parquet reader of TFDS 4.9 passes over slices. It is read as `tfds.data_source` reads it, but from its files alone:
nothing here ever downloads or prepares.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from rfjax.data import images
from rfjax.data.types import Example, Memory, Problem, check_index, check_problems
from rfjax.errors import UserError, nearest

if TYPE_CHECKING:
    from tensorflow_datasets.core.features import FeatureConnector

CAPTION_KEYS = ("caption", "captions", "text", "texts", "prompt", "description")  # found without caption_key
ARRAY_RECORD = "array_record"
LATENT, CONTEXT, POOLED = "latent", "context", "pooled"  # float features that are passed on as they are

_NAME = re.compile(r"(\w+(?:/[^:/]+)?)(?::(\d+\.\d+\.\d+))?")
_BLOCK = 32  # records
_VERSION = re.compile(r"\d+\.\d+\.\d+")  # one that is half written is called incomplete.XXXXXX_1.0.0


@dataclass(frozen=True)
class _Fields:
    """Where an example lies in a record: the features' names, and what each label is called in words."""

    image: str
    latent: bool
    text: str  # "" without one
    text_part: str  # of a list of records such as COCO's {"id", "text"}, the one with the words
    label: str  # "" without one
    captions: tuple[str, ...]  # of each label
    stored: tuple[str, ...]  # which of context, pooled


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
        fields: _Fields,
        read: Callable[[Any], np.ndarray],
        *,
        cache_mb: float,
        max_bad: float,
    ) -> None:
        """See `load`, which finds the arguments; where: the data set and its split, for messages; read: the image of
        a record's image feature, which raises ValueError where it is bad."""
        self._records, self._where, self._fields, self._max_bad = records, where, fields, max_bad
        self._read_image = read
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
        for position, record in zip(block, self._records.__getitems__(block), strict=True):
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
                return self._decode(record if known else self._records[position], index)
            except ValueError as error:
                self._bad[position] = Problem(f"record {position}", str(error))
                check_problems(self.problems, len(self), self._max_bad, self._where)
        raise UserError(f"{self._where}: none of its {len(self)} records is good.")

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

    Float features `latent` (H, W, C), `context` (L, E) and `pooled` (P,) are passed on unscaled as float32: an image
    already encoded, and the stored encodings of its caption (with them, a caption may be missing altogether: "").

    Raises UserError where the folder, the data set, the split or a feature is missing or ambiguous, listing what is
    there, where a file of the split is missing, and where too many records are bad.
    """
    if caption_template.count("{}") != 1:
        raise UserError(f"caption_template must hold {{}} once, where the label goes, not {caption_template!r}.")
    folder = find(dataset, data_dir)
    import tensorflow_datasets as tfds  # most of a second: only where it is asked for

    builder = tfds.builder_from_directory(folder)
    features, what = dict(builder.info.features), f"data set {dataset!r} in {str(folder)!r}"
    fields = _find_fields(
        features, image=image_key, text=caption_key, label=label_key, template=caption_template, what=what
    )
    if not fields.latent:
        images.check(image_size, channels, resize)
    if ARRAY_RECORD not in {form.value for form in builder.info.available_file_formats()}:
        raise UserError(
            f"The {what} is stored as {builder.info.file_format.value}, not {ARRAY_RECORD}: prepare it again with "
            f'download_and_prepare(file_format="{ARRAY_RECORD}").'
        )
    try:
        count = builder.info.splits[split_spec].num_examples
    except (ValueError, KeyError, AssertionError) as error:
        sizes = {name: split.num_examples for name, split in builder.info.splits.items()}
        word = re.split(r"\W", split_spec)[0]
        hint = ' (slices are written "train[:95%]")' if word in sizes else nearest(word, sizes)
        there = ", ".join(f"{name} ({size})" for name, size in sizes.items())
        raise UserError(f"The {what} has no split {split_spec!r}{hint}; it has: {there}.") from error
    if not count:
        raise UserError(f"The {what} has no record in split {split_spec!r}.")
    files_kept = {key: tfds.decode.SkipDecoding() for key, feature in features.items() if _kind(feature) == "image"}
    records = builder.as_data_source(split_spec, decoders=files_kept, file_format=ARRAY_RECORD)
    paths = [Path(part.filename) for part in builder.info.splits[split_spec].file_instructions]
    if missing := [path for path in paths if not path.is_file()]:
        raise UserError(f"The {what} lacks {len(missing)} of its files, such as {missing[0].name}: copy it again.")
    read: Callable[[Any], np.ndarray] = partial(images.read, size=image_size, channels=channels, mode=resize)
    if fields.latent:
        shape, stored = (image_size, image_size, channels), np.shape(records[0][fields.image])
        if shape != stored:
            raise UserError(f"The {what} stores latents of shape {stored}, but image_size and channels say {shape}.")
        read = partial(_latent, shape=shape)
    return Tfds(records, f"{dataset} {split_spec}", fields, read, cache_mb=cache_mb, max_bad=max_bad)


def _latent(value: np.ndarray, shape: tuple[int, int, int]) -> Float32[np.ndarray, "H W C"]:
    if value.shape != shape:
        raise ValueError(f"a latent of shape {value.shape}")
    return np.asarray(value, np.float32)


def find(dataset: str, data_dir: str) -> Path:
    """Returns the folder of a prepared data set, data_dir/name[/config]/version; arguments as in `load`.

    Quick, and without importing tfds. Raises UserError where it is not there, with what is.
    """
    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    matched = _NAME.fullmatch(dataset)
    if not matched:
        raise UserError(f"The data set's name must be like 'name', 'name/config' or 'name:1.0.0', not {dataset!r}.")
    name, version = matched.groups()
    hint = f"; `python -m rfjax.data.fashion_mnist --data_dir {root}` prepares it" if name == "fashion_mnist" else ""
    if not root.is_dir():
        raise UserError(f"There is no data set {dataset!r}: its data_dir {str(root)!r} is not a folder{hint}.")
    there = prepared(root)
    if not there:
        raise UserError(f"There is no prepared TFDS data set in the data_dir {str(root)!r}{hint}.")
    if name not in there:
        configs = [other for other in there if other.startswith(f"{name}/")]
        if len(configs) > 1:
            raise UserError(f"Data set {name!r} needs a config: choose from {', '.join(sorted(configs))}.")
        if not configs:
            raise UserError(f"No data set {dataset!r} is prepared in {str(root)!r}{nearest(name, there)}{hint}.")
        name = configs[0]
    versions = there[name]
    version = version or max(versions, key=lambda text: tuple(map(int, text.split("."))))
    if version not in versions:
        raise UserError(f"Data set {name!r} has no version {version}{nearest(version, versions)}.")
    return root / name / version


def prepared(root: Path) -> dict[str, list[str]]:
    """Returns the complete data sets in a folder: {"name" or "name/config": versions}."""
    there: dict[str, list[str]] = {}
    for pattern in ("*/*/dataset_info.json", "*/*/*/dataset_info.json"):
        for folder in (path.parent for path in sorted(root.glob(pattern))):
            if _VERSION.fullmatch(folder.name) and (folder / "features.json").is_file():
                there.setdefault(folder.parent.relative_to(root).as_posix(), []).append(folder.name)
    return there


def _kind(feature: "FeatureConnector") -> str:
    """Returns "image", "latent", "label", "text" or "": what a feature can serve as."""
    from tensorflow_datasets.core import features as kinds

    if isinstance(feature, kinds.Image):
        return "image"
    if isinstance(feature, kinds.ClassLabel):
        return "label"
    if _text_part(feature) is not None:
        return "text"
    if isinstance(feature, kinds.Tensor) and len(feature.shape) == 3 and np.dtype(feature.np_dtype).kind == "f":
        return "latent"
    return ""


def _text_part(feature: "FeatureConnector") -> str | None:
    """Returns "" for a text or a list of texts, "text" for a list of {"id", "text"}, None without one clear text."""
    from tensorflow_datasets.core import features as kinds

    if isinstance(feature, kinds.Sequence):
        feature = feature.feature
    if isinstance(feature, kinds.FeaturesDict):
        parts = [key for key, part in feature.items() if _text_part(part) == ""]
        named = [key for key in parts if key in CAPTION_KEYS] or parts
        return named[0] if len(named) == 1 else None
    return (
        ""
        if isinstance(feature, kinds.Tensor) and feature.shape == () and np.dtype(feature.np_dtype).kind == "O"
        else None
    )


def _find_fields(
    features: Mapping[str, "FeatureConnector"], *, image: str, text: str, label: str, template: str, what: str
) -> _Fields:
    """Settles which feature is what; "" asks for it to be found. Raises UserError, listing the features."""
    features = dict(sorted(features.items()))  # TFDS gives them in an order that changes from process to process
    kinds = {key: _kind(feature) for key, feature in features.items()}
    there = ", ".join(f"{key} ({kinds[key] or type(feature).__name__})" for key, feature in features.items())

    def check(setting: str, key: str, allowed: tuple[str, ...]) -> str:
        if key not in kinds:
            raise UserError(f"The {what} has no feature {key!r}, asked for by {setting}; it has: {there}.")
        if kinds[key] not in allowed:
            raise UserError(f"Feature {key!r} of the {what} cannot be the {setting}; it has: {there}.")
        return key

    def choose(setting: str, kind: str, among: list[str], usual: str) -> str:
        if len(among) > 1 and usual not in among:
            raise UserError(f"The {what} has more than one {kind}: set {setting} to one of {', '.join(among)}.")
        return usual if usual in among else "".join(among)

    if image:
        check("image_key", image, ("image", "latent"))
    elif kinds.get(LATENT) == "latent":
        image = LATENT
    else:
        image = choose("image_key", "image", [key for key, kind in kinds.items() if kind == "image"], "image")
    if not image:
        raise UserError(f"The {what} has no image; it has: {there}.")
    if kinds[image] == "image" and np.dtype(features[image].np_dtype).kind == "f":
        raise UserError(f"Feature {image!r} of the {what} holds a picture of floats, whose range is not known.")
    if text:
        check("caption_key", text, ("text",))
    elif not label:
        texts = [key for key in CAPTION_KEYS if kinds.get(key) == "text"]
        text = choose("caption_key", "text", texts, usual="")
    if label:
        check("label_key", label, ("label",))
    elif not text:
        label = choose("label_key", "label", [key for key, kind in kinds.items() if kind == "label"], "label")
    stored = tuple(key for key, rank in ((CONTEXT, 2), (POOLED, 1)) if _is_float(features.get(key), rank))
    if not (text or label or stored):
        raise UserError(f"The {what} has no caption or label that shows itself: set caption_key; it has: {there}.")
    names = features[label].names if label and not text else ()
    captions = tuple(template.replace("{}", name.lower().replace("_", " ")) for name in names)
    part = (_text_part(features[text]) if text else "") or ""
    return _Fields(image, kinds[image] == "latent", text, part, "" if text else label, captions, stored)


def _is_float(feature: "FeatureConnector | None", rank: int) -> bool:
    shape = getattr(feature, "shape", None)
    return isinstance(shape, tuple) and len(shape) == rank and np.dtype(feature.np_dtype).kind == "f"
