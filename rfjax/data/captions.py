"""The captions of a folder of pictures: a JSON line for each, with its file, its caption and perhaps its split."""

import codecs
import hashlib
import json
import os
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from rfjax import untrusted
from rfjax.data import paths
from rfjax.data.types import SPLITS, Captions, Problem, caption_of
from rfjax.errors import UserError, nearest

CAPTIONS_FILE, HUGGING_FACE_FILE = "captions.jsonl", "metadata.jsonl"
FILE_KEYS, CAPTION_KEYS = ("file", "file_name", "image"), ("caption", "text")
SYNTHETIC_KEY = "synthetic"

LONGEST = 2**20  # bytes of a line
EXPANSION = 5  # bytes of memory for a byte of the file, in records with captions of ten words
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Record:
    """A picture's line.

    Attributes:
        file: relative to the folder, with "/".
        caption: the text, or several.
        split: the line's own, or by the file's name as the line has it.
        size: of the file, in bytes, once `verified.verify` has looked at it.
    """

    file: str
    caption: str | Captions
    split: str
    size: int = 0


def captions_file(folder: Path, name: str) -> Path:
    """The captions file: if the default is missing, Hugging Face's; if both are missing, a UserError."""
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {str(folder)!r}: config.data.path must be a folder of pictures with a {CAPTIONS_FILE}"
        )
    names = (name, HUGGING_FACE_FILE) if name == CAPTIONS_FILE else (name,)
    for candidate in names:
        if (folder / candidate).exists():
            return folder / candidate
    others = sorted(entry.name for entry in folder.glob("*.jsonl"))
    hint = nearest(name, others) or ' (one line for each picture: {"file": "a.png", "caption": "a red kite"})'
    raise UserError(f"the folder {str(folder)!r} has no {' or '.join(names)}{hint}")


def parse(path: Path, percent: float, synthetic: str = SYNTHETIC_KEY) -> tuple[list[Record], list[Problem]]:
    """Reads the lines, and names the problems of those that can't be used.

    Args:
        path: of the captions file.
        percent: of the pictures in the validation split, 0..100.
        synthetic: the key of the synthetic captions.

    Raises:
        UserError: if the file can't be read, is UTF-16, or takes more memory than this machine has.
    """
    records, problems = [], []
    read = partial(_parse_line, percent=percent, synthetic=synthetic)
    try:
        with untrusted.regular(path, paths.ANY_SIZE) as file:
            lines = EXPANSION * os.fstat(file.fileno()).st_size
            paths.check_memory(f"'{path}', with all its lines,", lines, "prepare a TensorFlow Datasets data set of it")
            for number, line in enumerate(_lines(file, path), start=1):
                read(line, f"{path.name} line {number}", records, problems)
    except OSError as error:
        raise UserError(f"'{path}' can't be read ({error.strerror})") from error
    return records, problems


def _lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The lines, without a byte-order mark; of one longer than LONGEST, its beginning."""
    while line := file.readline(LONGEST):
        if file.tell() == len(line):
            if line.startswith(_UTF16):
                raise UserError(f"'{path}' is UTF-16: save it as UTF-8")
            line = line.removeprefix(codecs.BOM_UTF8)
        more = line
        while len(more) == LONGEST and not more.endswith(b"\n"):
            more = file.readline(LONGEST)
        yield from line.splitlines() if more is line else [line]


def _parse_line(
    line: bytes, place: str, records: list[Record], problems: list[Problem], *, percent: float, synthetic: str
) -> None:
    """Adds a line to the records or to the problems."""
    if not line.strip():
        return
    file = ""
    try:
        if len(line) >= LONGEST:
            raise ValueError(f"longer than {LONGEST:,} bytes")
        fields = json.loads(line)
        if not isinstance(fields, dict):
            raise ValueError("no JSON object")
        file = next(iter(_texts(fields, FILE_KEYS)), "")
        if not file:
            raise ValueError('no "file"')
        file = os.path.normpath(file.replace("\\", "/")).replace(os.sep, "/")
        original, made = _texts(fields, CAPTION_KEYS), _texts(fields, (synthetic,))
        if not original:
            raise ValueError("no caption")
        if any("\ud800" <= letter <= "\udfff" for letter in "".join((file, *original, *made))):
            raise ValueError("half of a surrogate pair, which is no character")
        split = fields.get("split") or split_of(file, percent)
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}{nearest(str(split), SPLITS)}")
        records.append(Record(file, caption_of(original, made), split))
    except RecursionError:
        problems.append(Problem(place, "nested too deeply"))
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are among them
        problems.append(Problem(file, f"{error} ({place})") if file else Problem(place, str(error)))


def _texts(fields: Mapping[str, Any], keys: Iterable[str]) -> tuple[str, ...]:
    """The text of the first of `keys` that the line has, or all of a list of texts, without empty ones."""
    value = next((fields[key] for key in keys if key in fields), ())
    found = value if isinstance(value, list) else [value]
    return tuple(text.strip() for text in found if isinstance(text, str) and text.strip())


def split_of(file: str, percent: float) -> str:
    """A picture's split: "validation" if its hash, a point in 0..100, is below `percent`, else "train"."""
    return "validation" if point(file) < percent else "train"


def point(name: str) -> float:
    """A name's hash, 0..100, evenly spread."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 * 100


def form(name: str) -> str:
    """A name in Unicode's form NFC, in which "é" is one letter; macOS stores some names in another form."""
    return unicodedata.normalize("NFC", name)


def match(records: Iterable[Record], folder: Path, pictures: Collection[str]) -> tuple[list[Record], list[Problem]]:
    """Gives each record its file's name in the folder's Unicode form; a name that fits several files is a problem."""
    forms: dict[str, list[str]] = {}
    matched, problems = [], []
    for record in records:
        if record.file in pictures or record.file.isascii() or os.path.lexists(folder / record.file):
            matched.append(record)
            continue
        if not forms:
            for name in sorted(pictures):
                forms.setdefault(form(name), []).append(name)
        names = forms.get(form(record.file), [record.file])
        if len(names) == 1:
            matched.append(replace(record, file=names[0]))
        else:
            problems.append(
                Problem(record.file, f"{len(names)} files have this name in other Unicode forms: keep one of them")
            )
    return matched, problems
