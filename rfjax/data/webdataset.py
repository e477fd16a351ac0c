"""WebDataset: pictures and texts in tar files, as img2dataset writes them.

    shards/00000.tar      000000000.jpg, 000000000.txt, 000000000.json, 000000001.jpg, ...
    shards/00001.tar      or train-00000.tar, validation-00000.tar, ...

The members of one sample are adjacent and share their name up to the first dot; what follows the dot is the field. An
index of each tar file, made once (`rfjax.data.tars`), says where each member lies, so the order is free and nothing is
read but what is used. Names of files that say train, val or test decide on the split; otherwise, a hash of the
sample's name does. The order is that of the sorted files and, in them, of the members.

A caption is the field .txt, a key of .json, or made of the label in .cls. A sample without its picture or its caption
is left out; one that turns out broken when it is read is replaced: see `rfjax.data.records`. Of a tar file that was cut
off, what is whole is used.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from rfjax import config as configs
from rfjax import untrusted
from rfjax.data import classes, images, shards, tars, verified
from rfjax.data.records import Pictures, Record
from rfjax.data.types import Problem, Split, caption_of, check_split
from rfjax.errors import UserError, nearest

PICTURES = (
    "jpg",
    "jpeg",
    "png",
    "webp",
    *sorted(one[1:] for one in images.EXTENSIONS - {".jpg", ".jpeg", ".png", ".webp"}),
)
TEXT, JSON, CLASS = "txt", "json", "cls"
CAPTION_KEYS = ("caption", "text", "prompt")  # of .json, known without caption_key


@dataclass(frozen=True)
class Place:
    """Where a text or number lies: the field of a sample, and the key in its JSON; "" for the whole field."""

    field: str
    key: str = ""


@dataclass(frozen=True)
class Places:
    """Where the parts of an example lie; None for those that there are not."""

    picture: tuple[str, ...]
    caption: Place | None
    synthetic: Place | None
    label: Place | None

    def texts(self) -> list[Place]:
        """All but the picture's."""
        return [place for place in (self.caption, self.synthetic, self.label) if place]


class Shard(NamedTuple):
    """The samples of one tar file that belong to the split.

    Attributes:
        file: its path in the folder. stamp: see `tars.Index`.
        names: of all its samples, a line each. rows: which of them are used.
        parts: where each of these has its fields, (offset, size) by the field's name, the picture's as "".
    """

    file: str
    stamp: tuple[int, int]
    names: bytes
    rows: Int64[np.ndarray, " n"]
    parts: dict[str, tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]]


class Tars:
    """The samples of one split; `records.Records`."""

    def __init__(self, folder: Path, found: list[Shard], places: Places, caption: Callable[[int], str]) -> None:
        """See `open_source`; caption: of a class."""
        self._folder, self._shards, self._places, self._caption = folder, found, places, caption
        self._ends = np.cumsum([0, *(len(shard.rows) for shard in found)])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _find(self, index: int) -> tuple[Shard, int]:
        number = int(np.searchsorted(self._ends, index, side="right")) - 1
        return self._shards[number], index - int(self._ends[number])

    def name(self, index: int) -> str:
        """See `records.Records`."""
        shard, row = self._find(index)
        return f"{shard.file}/{tars.name_of(shard.names, int(shard.rows[row]))}"

    def names(self) -> Iterator[str]:
        """See `types.Named`: each file's name, its size in bytes, and how many of its samples are used."""
        for shard in self._shards:
            yield f"{shard.file}\0{shard.stamp[0]}\0{len(shard.rows)}"

    def read(self, index: int) -> Record:
        """See `records.Records`."""
        shard, row = self._find(index)
        read: dict[str, bytes] = {}
        parsed: dict[str, dict[str, Any]] = {}

        def value(place: Place) -> Any:
            """The text of a field, or the value of a key of its JSON; None without it."""
            field = place.field
            if field not in read:
                read[field] = self._bytes(shard, row, field)
            if not place.key:
                return read[field].decode("utf-8-sig")
            if field not in parsed:
                parsed[field] = untrusted.parse_json(read[field], f".{field}") if read[field].strip() else {}
            return parsed[field].get(place.key)

        places = self._places
        try:
            original, synthetic = (
                _texts(value(place)) if place else () for place in (places.caption, places.synthetic)
            )
            label = _number(value(places.label), places.label) if places.label else None
        except untrusted.Unreadable as error:
            raise ValueError(str(error)) from error
        if places.caption and not original:
            raise ValueError("no caption")
        if label is not None and not places.caption:
            original = (self._caption(label),)
        return Record(self._bytes(shard, row, ""), caption_of(original, synthetic), label)

    def _bytes(self, shard: Shard, row: int, field: str) -> bytes:
        offset, size = (int(numbers[row]) for numbers in shard.parts[field])
        if size > verified.LARGEST:
            raise ValueError(f"{size:,} bytes, more than {verified.LARGEST:,}")
        return shards.read_at(self._folder / shard.file, offset, size, shard.stamp) if size else b""


def open_source(config: configs.Data, split: Split) -> Pictures:
    """Opens one split of a folder of tar files, or of one tar file.

    Args:
        config: path, image_size, channels, resize, image_key (the field of the picture, such as "jpg"), caption_key and
            synthetic_key (a field, such as "txt", or a .json key), label_key (the same; .cls if there is no caption),
            classes_file, caption_template, validation_percent, cache_mb, max_bad, outside and readers.
        split: "train", "validation" or "test".

    Raises:
        UserError: if the folder has no tar files, one is compressed or none at all, no sample has a picture, it is not
            clear what the caption is, or too many samples are broken.
    """
    check_split(split)
    images.check(config.image_size, config.channels, config.resize)
    folder, files, mixed = shards.find(config.path, ".tar", split, config.outside)
    found = tars.indices(folder, files)
    where = f"tar files in '{folder}'"
    places = _places(folder, files, found, config, where)
    caption = classes.naming(config.classes_file, folder, config.caption_template)
    chosen, problems = [], []
    for file, index in zip(files, found, strict=True):
        if index.cut:
            problems.append(Problem(file, index.cut))
        whole, left_out = _whole(file, index, places)
        problems += left_out
        if mixed:
            whole &= (index.points < config.validation_percent) == (split == "validation")
        chosen.append(_shard(file, index, places, np.flatnonzero(whole)))
    records = Tars(folder, chosen, places, caption)
    if not len(records):
        why = f"config.data.validation_percent = {config.validation_percent:g} leaves none to it"
        raise UserError(f"split '{split}' of the {where} is empty: {why if mixed else 'no sample is whole'}")
    return Pictures(records, where, config, problems)


def _shard(file: str, index: tars.Index, places: Places, rows: Int64[np.ndarray, " n"]) -> Shard:
    members = {place.field: index.members(place.field) for place in places.texts()}
    parts = {}
    for field, member in (members | {"": _pictures(index, places.picture)}).items():
        which = member[rows]
        there = which >= 0
        parts[field] = np.where(there, index.offset[which], 0), np.where(there, index.size[which], 0)
    return Shard(file, index.stamp, index.names, rows, parts)


def _pictures(index: tars.Index, kinds: tuple[str, ...]) -> Int64[np.ndarray, " n"]:
    """The member of each sample that is its picture: of the first of these kinds that it has."""
    found = np.full(len(index), -1)
    for kind in kinds:
        members = index.members(kind)
        found = np.where(found < 0, members, found)
    return found


def _whole(file: str, index: tars.Index, places: Places) -> tuple[np.ndarray, list[Problem]]:
    """Which samples have all fields, and what the others lack."""
    needed = {f"no .{place.field}": index.members(place.field) for place in (places.caption, places.label) if place}
    lacks = np.full(len(index), "", object)
    for reason, members in (needed | {"no picture": _pictures(index, places.picture)}).items():
        lacks[members < 0] = reason
    bad = np.flatnonzero(lacks != "")
    return lacks == "", [Problem(f"{file}/{tars.name_of(index.names, row)}", lacks[row]) for row in bad]


def _places(folder: Path, files: list[str], found: list[tars.Index], config: configs.Data, where: str) -> Places:
    fields = {field for index in found for field in index.fields}
    listed = ", ".join(sorted(fields)) or "nothing"
    kinds = (config.image_key.lower().removeprefix("."),) if config.image_key else PICTURES
    if not fields & set(kinds):
        named = (
            f"the field '{config.image_key}', which config.data.image_key names" if config.image_key else "a picture"
        )
        raise UserError(f"the {where} have no sample with {named}; they have: {listed}")
    keys, texts = _first_keys(folder, files, found) if JSON in fields else {}, fields - {JSON, *PICTURES}

    def place(name: str, setting: str) -> Place | None:
        if not name:
            return None
        if (field := name.lower().removeprefix(".")) in texts:
            return Place(field)
        if name in keys:
            return Place(JSON, name)
        raise UserError(
            f"the {where} have no field and no key of .json '{name}', which config.data.{setting} names"
            f"{nearest(name, [*texts, *keys])}"
        )

    caption = place(config.caption_key, "caption_key")
    label = place(config.label_key, "label_key")
    if not (caption or label):
        key = next((key for key in CAPTION_KEYS if isinstance(keys.get(key), str | list)), "")
        caption = Place(TEXT) if TEXT in fields else Place(JSON, key) if key else None
    if not caption and not label and CLASS in fields:
        label = Place(CLASS)
    if not (caption or label):
        raise UserError(f"the {where} have no clear caption: set config.data.caption_key; they have: {listed}")
    return Places(kinds, caption, place(config.synthetic_key, "synthetic_key"), label)


def _first_keys(folder: Path, files: list[str], found: list[tars.Index]) -> dict[str, Any]:
    """The object in the first readable .json."""
    for file, index in zip(files, found, strict=True):
        for member in index.members(JSON)[:16].tolist():
            if member >= 0 and index.size[member] < untrusted.LIMIT:
                data = shards.read_at(folder / file, int(index.offset[member]), int(index.size[member]), index.stamp)
                try:
                    return untrusted.parse_json(data, file)
                except untrusted.Unreadable:
                    continue
    return {}


def _texts(value: Any) -> tuple[str, ...]:
    """The texts of a value of JSON, without empty ones."""
    found = value if isinstance(value, list) else [value]
    return tuple(text.strip() for text in found if isinstance(text, str) and text.strip())


def _number(value: Any, place: Place) -> int:
    try:
        label = int(value)
    except (TypeError, ValueError):
        label = -1
    if label < 0:
        raise ValueError(f"no class number in .{place.field}")
    return label
