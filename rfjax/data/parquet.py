"""Parquet files with a column of pictures and one of texts or labels, as Hugging Face stores its data sets of images.

    data/train-00000-of-00002.parquet      image: struct<bytes: binary, path: string>, label: int64 or text: string
    data/validation-00000-of-00001.parquet

Names of files that say train, validation or test decide on the split; if none says validation, a hash of the file's
name and the row's number divides the training files. The order is that of the sorted files and, in them, of the rows.

A row is read with its whole row group, which may have 100 MB: only an order in which neighbours share their groups is
fast. So the source has its own (`types.Arranged`): in each epoch its row groups are shuffled, and then the rows of as
many groups at a time as fit in config.data.window_mb, by (seed, epoch) alone. Each row comes once an epoch; a run
starts at any step by reading the groups of one window; two windows lie in memory, in each process that reads. Each
process of a job reads all groups; for many machines, encode the data first, in order, which reads each group once.
"""

import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from rfjax import config as configs
from rfjax.data import classes, columns, hashing, images, shards, verified
from rfjax.data.groups import Arrangement, Group, Recent
from rfjax.data.records import Pictures, Record
from rfjax.data.types import Split, caption_of, check_split
from rfjax.errors import UserError


class Rows(NamedTuple):
    """The rows of a group, as far as they are read.

    Attributes:
        data: the pictures' files. paths: of those that are not stored in the group, or None.
        texts, synthetic, labels: of each row; empty if there are none.
    """

    data: Any
    paths: Any
    texts: list[Any]
    synthetic: list[Any]
    labels: list[Any]


class Table:
    """The rows of one split; `records.Records`."""

    def __init__(self, folder: Path, groups: list[Group], found: columns.Columns, namer: Any, window: float) -> None:
        """See `open_source`; namer: the caption of a class. window: bytes that are shuffled at once."""
        self._folder, self._groups, self._columns, self._namer = folder, groups, found, namer
        self._ends = np.cumsum([0, *(len(group) for group in groups)])
        self._recent: Recent[int, Rows | str] = Recent(2 * window)
        self.arrangement = Arrangement(np.diff(self._ends), np.array([group.size for group in groups]), window)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _find(self, index: int) -> tuple[int, int]:
        number = int(np.searchsorted(self._ends, index, side="right")) - 1
        return number, self._groups[number].row(index - int(self._ends[number]))

    def name(self, index: int) -> str:
        """See `records.Records`."""
        number, row = self._find(index)
        return f"{self._groups[number].file} row {self._groups[number].first + row}"

    def names(self) -> Iterator[str]:
        """See `types.Named`: each group's file, its size in bytes, and how many of its rows are used."""
        for group in self._groups:
            yield f"{group.file}\0{group.stamp[0]}\0{group.number}\0{len(group)}"

    def read(self, index: int) -> Record:
        """See `records.Records`."""
        number, row = self._find(index)
        group = self._groups[number]
        rows = self._recent.get(number, group.size, self._load)
        if isinstance(rows, str):
            raise ValueError(rows)
        data = rows.data[row].as_buffer()
        if data is None:
            path = rows.paths[row].as_py() if rows.paths is not None else None
            raise ValueError(f"no picture in the row, only the path {path!r}" if path else "no picture")
        if len(data) > verified.LARGEST:
            raise ValueError(f"{len(data):,} bytes, more than {verified.LARGEST:,}")
        original = _texts(rows.texts[row]) if rows.texts else ()
        synthetic = _texts(rows.synthetic[row]) if rows.synthetic else ()
        if rows.texts and not original:
            raise ValueError("no caption")
        label = rows.labels[row] if rows.labels else None
        if rows.labels and (label is None or label < 0):  # a test set whose labels are secret has -1
            raise ValueError("no label")
        if not rows.texts:
            original = (self._namer(label),)
        return Record(memoryview(data), caption_of(original, synthetic), label)

    def _load(self, number: int) -> Rows | str:
        """The rows of a group; of a damaged one, the reason."""
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet as pq

        group, found = self._groups[number], self._columns
        path = self._folder / group.file
        try:
            if shards.stamp(path) != group.stamp:
                raise UserError(f"'{path}' changed since the run began: start it again")
            with shards.opened(path) as raw, pq.ParquetFile(raw) as file:
                table = file.read_row_group(group.number, columns=found.read, use_threads=False).combine_chunks()
        except pyarrow.ArrowException as error:
            return f"a damaged row group ({_first_line(error)})"
        except OSError as error:  # what Parquet's own reader finds wrong is an OSError without a number
            if not error.errno:
                return f"a damaged row group ({_first_line(error)})"
            raise UserError(
                f"'{path}' was good when the run began, and can't be read now ({error.strerror})"
            ) from error
        column = lambda name: table.column(name).to_pylist() if name else []  # noqa: E731
        image, places = _whole(table.column(found.image)), None
        if pyarrow.types.is_struct(image.type):
            places = image.field("path") if image.type.get_field_index("path") >= 0 else None
            image = pyarrow.compute.struct_field(image, "bytes")  # null where the struct is
        return Rows(image, places, column(found.text), column(found.synthetic), column(found.label))


class Parquet(Pictures):
    """The pictures of one split; a `types.Arranged` source."""

    def shuffled(self, seed: int, epoch: int, place: int) -> int:
        """See `types.Arranged`."""
        return self._records.arrangement.index(seed, epoch, place)


def open_source(config: configs.Data, split: Split) -> Parquet:
    """Opens one split of a folder of Parquet files, or of one file.

    Args:
        config: path, image_size, channels, resize, image_key, caption_key, synthetic_key, label_key, classes_file
            (for labels whose names the files don't know), caption_template, validation_percent, window_mb, cache_mb,
            max_bad, outside and readers.
        split: "train", "validation" or "test".

    Raises:
        UserError: if there are no Parquet files, one is damaged or has other columns than the first, there is no column
            of images, it is not clear what the caption is, or too many rows are broken.
    """
    check_split(split)
    images.check(config.image_size, config.channels, config.resize)
    folder, files, mixed = shards.find(config.path, ".parquet", split, config.outside)
    where = f"Parquet files in '{folder}'"
    with ThreadPoolExecutor() as pool:
        opened = pool.map(lambda name: _footer(folder, name), files)
        footers = list(verified.progress(opened, len(files), "Reading the footers of the Parquet files"))
    schema = footers[0].schema
    found = columns.find(schema, config, where)
    groups = []
    for name, footer in zip(files, footers, strict=True):
        for column in found.read:
            place = footer.schema.get_field_index(column)
            if place < 0 or footer.schema.field(place).type != schema.field(column).type:
                raise UserError(
                    f"'{folder / name}' has no column '{column}' of type {schema.field(column).type}, as "
                    f"'{files[0]}' has"
                )
        groups += _groups(name, footer, found.read, config.validation_percent if mixed else None, split)
    namer = classes.naming(config.classes_file, folder, config.caption_template, found.names)
    table = Table(folder, [group for group in groups if len(group)], found, namer, config.window_mb * 2**20)
    if not len(table):
        why = f"config.data.validation_percent = {config.validation_percent:g} leaves none to it"
        raise UserError(f"split '{split}' of the {where} is empty: {why if mixed else 'the files have no rows'}")
    return Parquet(table, where, config)


class _Footer(NamedTuple):
    """What a file says of itself: the columns, and of each row group its rows and the bytes of each column."""

    stamp: tuple[int, int]
    schema: Any
    rows: list[int]
    sizes: list[dict[str, int]]


def _footer(folder: Path, name: str) -> _Footer:
    import pyarrow
    import pyarrow.parquet as pq

    path = folder / name
    try:
        stamp = shards.stamp(path)
        with shards.opened(path) as raw, pq.ParquetFile(raw) as file:
            about, schema = file.metadata, file.schema_arrow
            groups = [about.row_group(number) for number in range(about.num_row_groups)]
            sizes = []
            for group in groups:
                size: dict[str, int] = {}
                for one in (group.column(place) for place in range(group.num_columns)):
                    column = one.path_in_schema.split(".")[0]
                    size[column] = size.get(column, 0) + one.total_uncompressed_size
                sizes.append(size)
            return _Footer(stamp, schema, [group.num_rows for group in groups], sizes)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"'{path}' is not a whole Parquet file ({_first_line(error)}): copy it again") from error


def _groups(name: str, footer: _Footer, read: list[str], percent: float | None, split: Split) -> list[Group]:
    """The groups of a file, with the rows of the split; percent: of the validation split, None if it has all rows."""
    found, first = [], 0
    for number, (rows, sizes) in enumerate(zip(footer.rows, footer.sizes, strict=True)):
        chosen: Int64[np.ndarray, " n"] | None = None
        if percent is not None:
            points = hashing.fractions(np.arange(first, first + rows), zlib.crc32(name.encode()), 1)[:, 0] * 100
            chosen = np.flatnonzero((points < percent) == (split == "validation"))
        size = sum(sizes.get(column, 0) for column in read)
        found.append(Group(name, footer.stamp, number, first, rows, size, chosen))
        first += rows
    return found


def _whole(column: Any) -> Any:
    """A column as one array."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _texts(value: Any) -> tuple[str, ...]:
    found = value if isinstance(value, list) else [value]
    return tuple(text.strip() for text in found if isinstance(text, str) and text.strip())


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
