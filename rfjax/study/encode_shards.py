"""The files of the job `encode`: shards of a stored data set, a record of each, and the index of all.

WORKDIR/
  encoding.json                   the index, written when all shards are there (`rfjax.data.encoding`)
  train/latents_00000.npy ...     what the source `latents` reads
  shards/train_00000/result.json  the record of a shard: it is there if the shard's files are whole
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from rfjax import files
from rfjax.data.encoding import NAME
from rfjax.errors import UserError
from rfjax.jsonl import write_json
from rfjax.untrusted import Unreadable, read_json

RESULT, SHARDS = "result.json", "shards"
CAPTIONS = "captions"


@dataclass(frozen=True, order=True)
class Shard:
    """A range of a split's examples.

    Attributes:
        split: of the data set.
        number: of the shard, from 0.
        start, stop: the indices of its examples, start ... stop - 1.
    """

    split: str
    number: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """Of its folder among the records."""
        return f"{self.split}_{self.number:05d}"

    def folder(self, root: Path) -> Path:
        """Of its record and its lock."""
        return root / SHARDS / self.name

    def path(self, root: Path, kind: str) -> Path:
        """Of one of its files."""
        return root / self.split / f"{kind}_{self.number:05d}.{'txt' if kind == CAPTIONS else 'npy'}"


def divide(split: str, count: int, size: int) -> list[Shard]:
    """The shards of a split of `count` examples, the last one with what is left."""
    return [Shard(split, i, start, min(start + size, count)) for i, start in enumerate(range(0, count, size))]


def read_record(root: Path, shard: Shard) -> dict[str, Any] | None:
    """The record of a shard that is whole; None if it is not there, or of other examples."""
    try:
        record = read_json(shard.folder(root) / RESULT)
    except Unreadable:
        return None
    return record if record and record.get("range") == [shard.start, shard.stop] else None


class Writer:
    """Writes the files of one shard under temporary names, batch by batch; `finish` gives them their own.

    Attributes:
        rows: that were added.
        sizes: bytes of each finished file, by kind.
    """

    def __init__(self, root: Path, shard: Shard) -> None:
        self._root, self._shard, self._stack = root, shard, contextlib.ExitStack()
        self._files: dict[str, tuple[BinaryIO, tuple[int, ...], np.dtype]] = {}
        self.rows = 0
        self.sizes: dict[str, int] = {}

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def append(self, arrays: Mapping[str, np.ndarray], captions: list[str]) -> None:
        """Adds rows: arrays by kind of file, (b, ...) each, and b captions, whose line breaks become spaces."""
        for kind, values in arrays.items():
            if kind not in self._files:
                file = self._open(kind)
                self._files[kind] = (file, values.shape[1:], values.dtype)
                _write_header(file, (0, *values.shape[1:]), values.dtype)
            values.tofile(self._files[kind][0])
        if CAPTIONS not in self._files:
            self._files[CAPTIONS] = (self._open(CAPTIONS), (), np.dtype("u1"))
        lines = "".join(f"{' '.join(caption.split())}\n" for caption in captions)
        self._files[CAPTIONS][0].write(lines.encode("utf-8", "replace"))
        self.rows += len(captions)

    def finish(self) -> None:
        """Writes the number of rows into the headers and renames the files."""
        for kind, (file, shape, dtype) in self._files.items():
            if kind != CAPTIONS:
                end = file.tell()
                file.seek(0)
                _write_header(file, (self.rows, *shape), dtype)
                file.seek(end)
        self.sizes = {kind: file.tell() for kind, (file, _, _) in self._files.items()}
        self._stack.close()

    def _open(self, kind: str) -> BinaryIO:
        partial = self._stack.enter_context(files.atomic(self._shard.path(self._root, kind), lasting=True))
        return self._stack.enter_context(partial.open("wb"))


def _write_header(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """A header of .npy, which numpy pads so that the number of rows may grow in place."""
    about = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, about)


def write_record(root: Path, shard: Shard, record: Mapping[str, Any]) -> None:
    """Writes down that a shard is whole."""
    write_json(shard.folder(root) / RESULT, {"range": [shard.start, shard.stop], **record})


def write_index(root: Path, shards: list[Shard], about: Mapping[str, Any]) -> bool:
    """Writes the index if every shard is whole; says whether it did.

    Args:
        about: what the index says besides the shards: "encoders" and others.

    Raises:
        UserError: if a split has no example left.
    """
    records = {shard: read_record(root, shard) for shard in shards}
    if not all(records.values()):
        return False
    splits: dict[str, dict[str, Any]] = {}
    for shard, record in sorted(records.items()):
        split = splits.setdefault(shard.split, {"rows": [], "skipped": 0, "synthetic": 0, "cut": 0, "bytes": 0})
        split["rows"] += [record["rows"]] if record["rows"] else []
        split["bytes"] += sum(record["sizes"].values())
        for key in ("skipped", "synthetic", "cut"):
            split[key] += record[key]
    for name, split in splits.items():
        if not sum(split["rows"]):
            raise UserError(f"no example of the split '{name}' could be encoded: see the records in {root / SHARDS}")
    write_json(root / NAME, {**about, "splits": splits})
    return True
