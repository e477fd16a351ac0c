"""A user's own pictures: a folder of images with captions in a JSON-lines file.

    pictures/
      captions.jsonl        {"file": "cats/tom.jpg", "caption": "a grey cat on a wall"}
      cats/tom.jpg          one line for each picture; more than one line may name the same picture

Hugging Face's `metadata.jsonl` ({"file_name": ..., "text": ...}) is read as well. Every picture is decoded once before
training begins, so that nothing stumbles in the middle; what was found is kept in the user's cache folder
($XDG_CACHE_HOME or ~/.cache, then rfjax/), never in the folder itself, and a picture is looked at again only when its
size or time changes. Beyond about a million pictures, a TFDS data set (`rfjax.data.tfds`) starts faster.
"""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from rfjax.data import images
from rfjax.data.types import SPLITS, Example, Memory, Problem, Split, check_index, check_problems, check_split
from rfjax.errors import UserError, nearest

CAPTIONS_FILE, HUGGING_FACE_FILE = "captions.jsonl", "metadata.jsonl"
FILE_KEYS, CAPTION_KEYS = ("file", "file_name", "image"), ("caption", "text")

_PROGRESS_FROM = 1000  # pictures to look at before a progress bar is worth its lines


@dataclass(frozen=True)
class _Record:
    file: str  # relative to the folder, with "/"
    caption: str
    split: str


class Folder:
    """The captioned pictures of one split, in the order of the captions file; a `Source`.

    problems: every picture or line of the whole folder, in any split, that is left out, and why.
    """

    def __init__(
        self,
        path: Path,
        records: tuple[_Record, ...],
        problems: tuple[Problem, ...],
        read: Callable[[bytes], UInt8[np.ndarray, "H W C"]],
        cache_mb: float,
    ) -> None:
        """See `load`, which finds the records; there is at least one, and their pictures have been decoded once."""
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
            image = self._read_image(file.read_bytes())
        except (OSError, ValueError) as error:
            raise UserError(
                f"{file} was good when the run began and cannot be read now ({error}): put it back."
            ) from error
        return Example(image=image, caption=record.caption, index=index)


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

    Raises UserError where the folder or its captions file is missing, where more is bad than max_bad, and where the
    split is empty.
    """
    check_split(split)
    images.check(image_size, channels, resize)
    if not 0 <= validation_percent + test_percent <= 100 or min(validation_percent, test_percent) < 0:
        raise UserError(
            f"validation_percent = {validation_percent:g} and test_percent = {test_percent:g} leave no room."
        )
    folder = Path(path).expanduser()
    captions = _find_captions(folder, captions_file)
    shares = {"validation": validation_percent, "test": test_percent}
    records, problems = _parse(captions, shares)
    named = {record.file for record in records} | {problem.file for problem in problems}
    problems += [Problem(file, f"no line in {captions.name}") for file in sorted(_pictures(folder) - named)]
    reasons = _verify(folder, {record.file for record in records})
    problems += [Problem(record.file, reasons[record.file]) for record in records if reasons[record.file]]
    good = [record for record in records if not reasons[record.file]]
    check_problems(problems, len(good) + len(problems), max_bad, f"Folder {str(folder)!r}")
    chosen = tuple(record for record in good if record.split == split)
    if not chosen:
        raise UserError(
            f"Split {split!r} of the folder {str(folder)!r} is empty: of {len(good)} pictures, validation_percent = "
            f"{validation_percent:g} and test_percent = {test_percent:g} leave none to it; raise its percentage, or "
            f'add "split": "{split}" to lines of {captions.name}.'
        )
    read = partial(images.read, size=image_size, channels=channels, mode=resize)
    return Folder(folder, chosen, tuple(problems), read, cache_mb)


def _find_captions(folder: Path, name: str) -> Path:
    if not folder.is_dir():
        raise UserError(
            f"There is no folder {str(folder)!r}: path must be a folder of pictures with a {CAPTIONS_FILE}."
        )
    names = (name, HUGGING_FACE_FILE) if name == CAPTIONS_FILE else (name,)
    for candidate in names:
        if (folder / candidate).is_file():
            return folder / candidate
    others = sorted(entry.name for entry in folder.glob("*.jsonl"))
    hint = nearest(name, others) or ' (one line for each picture: {"file": "a.png", "caption": "a red kite"})'
    raise UserError(f"The folder {str(folder)!r} has no {' or '.join(names)}{hint}.")


def _parse(captions: Path, shares: Mapping[str, float]) -> tuple[list[_Record], list[Problem]]:
    """Returns the lines that can be used and those that cannot; shares: percent of the pictures in each small split."""
    records, problems = [], []
    for number, line in enumerate(captions.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        if not line.strip():
            continue
        file, place = "", f"{captions.name} line {number}"
        try:
            fields = json.loads(line)
            if not isinstance(fields, dict):
                raise ValueError("no JSON object")
            file = _first_text(fields, FILE_KEYS)
            if not file:
                raise ValueError('no "file"')
            file = os.path.normpath(file.replace("\\", "/")).replace(os.sep, "/")
            caption = _first_text(fields, CAPTION_KEYS)
            if not caption:
                raise ValueError("no caption")
            split = fields.get("split") or _split_of(file, shares)
            if split not in SPLITS:
                raise ValueError(f"unknown split {split!r}{nearest(str(split), SPLITS)}")
            records.append(_Record(file, caption, split))
        except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are among them
            problems.append(Problem(file, f"{error} ({place})") if file else Problem(place, str(error)))
    return records, problems


def _first_text(fields: Mapping[str, Any], keys: Iterable[str]) -> str:
    """Returns the text of the first of `keys` that is there (the first of a list of texts), or ""."""
    value = next((fields[key] for key in keys if key in fields), "")
    value = value[0] if isinstance(value, list) and value else value
    return value.strip() if isinstance(value, str) else ""


def _split_of(file: str, shares: Mapping[str, float]) -> str:
    """Returns a picture's split: its hash is a point in 0..100, validation takes the low end and test the next part."""
    point = int.from_bytes(hashlib.sha256(file.encode()).digest()[:8], "big") / 2**64 * 100
    for split, percent in shares.items():
        if point < percent:
            return split
        point -= percent
    return "train"


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


def _verify(folder: Path, files: set[str]) -> dict[str, str]:
    """Returns why each file is no whole picture, "" for a good one, decoding only those that the cache does not know.

    The cache knows good pictures: a bad one is looked at each time, for the reader may have learnt its format since.
    A JPEG is decoded at its smallest scale, where the decoder still reads every byte.
    """
    cache = _cache_file(folder)
    known = _read_cache(cache)

    def stamp(file: str) -> list[int]:
        try:
            status = (folder / file).stat()
        except (OSError, ValueError):  # ValueError: a name that no file can have
            return []
        return [status.st_size, status.st_mtime_ns]

    def check(file: str) -> str:
        try:
            images.decode((folder / file).read_bytes(), channels=3, at_least=1)
        except FileNotFoundError:
            return "no such file"
        except (OSError, ValueError) as error:
            return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return ""

    stamps = {file: stamp(file) for file in sorted(files)}
    new = [file for file, mark in stamps.items() if not mark or known.get(file) != mark]
    found = dict.fromkeys(stamps.keys() - set(new), "")
    try:
        with ThreadPoolExecutor() as pool:
            for file, reason in zip(new, _progress(pool.map(check, new), len(new)), strict=True):
                found[file] = reason
    finally:  # an interrupted look at a large folder goes on where it was
        if new:
            _write_cache(cache, {file: stamps[file] for file, reason in found.items() if not reason})
    return found


def _progress(results: Iterable[str], count: int) -> Iterable[str]:
    if count < _PROGRESS_FROM or not sys.stderr.isatty():
        return results
    from rich.console import Console
    from rich.progress import track

    return track(results, "Checking the pictures", total=count, console=Console(stderr=True))


def _cache_file(folder: Path) -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return root / "rfjax" / f"folder-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]}.json"


def _read_cache(cache: Path) -> dict[str, list[int]]:
    """Returns {good file: [size in bytes, time in ns]}; nothing where there is no cache, or a damaged one."""
    try:
        known = json.loads(cache.read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write_cache(cache: Path, known: Mapping[str, list[int]]) -> None:
    """Replaces the cache atomically; without a place to write, the next run looks at the pictures again."""
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=cache.parent, suffix=".tmp", delete=False) as file:
            json.dump(known, file)
        os.replace(file.name, cache)
    except OSError:
        pass
