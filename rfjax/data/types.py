"""What every source shares: the contract, the record of a bad picture, and the memory for decoded examples."""

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, get_args, runtime_checkable

import numpy as np

from rfjax.data import paths
from rfjax.errors import UserError, nearest

Split = Literal["train", "validation", "test"]
SPLITS: tuple[str, ...] = get_args(Split)


class Captions(NamedTuple):
    """The captions of an example that has several, in place of one str.

    Training draws one for each position (`pipeline`), everything else takes the first original.

    Attributes:
        original: the captions that came with the picture, at least one.
        synthetic: those that a model wrote, or none.
    """

    original: tuple[str, ...]
    synthetic: tuple[str, ...] = ()


def caption_of(original: Sequence[str], synthetic: Sequence[str] = ()) -> str | Captions:
    """An example's "caption": the text itself if there is only one."""
    return original[0] if len(original) == 1 and not synthetic else Captions(tuple(original), tuple(synthetic))


def written_out(caption: str | Captions) -> str:
    """All texts of a "caption" as one, in which any change shows."""
    if isinstance(caption, str):
        return caption
    return "\0".join((*caption.original, "", *caption.synthetic))


# The arrays that a source declares, by name, then "caption" (str or Captions) and "index" (int): the position in the
# source, 0 <= index < len(source), which keys the example's randomness.
Example = dict[str, Any]


class Field(NamedTuple):
    """A named array that every example of a source has.

    The standard names are "image" (uint8 (H, W, C), C = 1 or 3), "latent" (float16 or float32 (H, W, C), unscaled, in
    place of "image"), "label" (the number of a class, from 0), "context" (L, E) and "pooled" (P,), the stored encodings
    of the text. A source may declare any other name.

    Attributes:
        shape: of one example's array.
        dtype: its name, such as "uint8".
        flips: a mirrored picture mirrors this array too, along axis -2: (..., W, C).
    """

    shape: tuple[int, ...]
    dtype: str
    flips: bool = False


class Examples(NamedTuple):
    """n examples.

    Attributes:
        arrays: the fields by name, each (n, *shape).
        captions: n texts, or all captions of each example; "" if the data set stores encodings and no text.
    """

    arrays: dict[str, np.ndarray]
    captions: list[Any]

    def plain(self) -> "Examples":
        """With one caption each: the first original."""
        return self._replace(captions=[one.original[0] if isinstance(one, Captions) else one for one in self.captions])


@runtime_checkable
class Source(Protocol):
    """Random access to captioned examples, which all have the same named arrays.

    A source is deterministic (an index always gives the same example), picklable, and safe to read from several
    threads. Reads may share their arrays, and these may be read-only: copy an array before you write into it. An index
    outside of 0 <= index < len(source) raises IndexError. A source whose neighbours are independent may set
    `shuffles = False`; then it is read in order. One whose reading takes long may set `readers`, the number of
    processes that read it for training; -1: one for each core (`rfjax.data.readers`).
    """

    @property
    def fields(self) -> Mapping[str, Field]:
        """The arrays of each example, by name."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


@runtime_checkable
class Batched(Source, Protocol):
    """A source that reads many examples at once, faster than one by one, with the same result."""

    def take(self, indices: Sequence[int], names: Sequence[str] | None = None) -> Examples:
        """Reads the examples of these indices, in their order; `names`: the fields to read, None for all."""
        ...


@runtime_checkable
class Named(Source, Protocol):
    """A source that can list its examples without reading them all; see `identity`."""

    def names(self) -> Iterator[str]:
        """Texts that change if an example comes, goes, moves or gets another name; quick for millions of examples."""
        ...


@runtime_checkable
class Stored(Source, Protocol):
    """A source whose files hold encoded examples, such as JPEGs."""

    def stored(self, index: int) -> bytes:
        """An example's bytes in the files, before they are decoded."""
        ...


def flipped(name: str) -> str:
    """The field that holds another field's arrays of the mirrored pictures, where a source has it."""
    return f"{name}_flipped"


@runtime_checkable
class Arranged(Source, Protocol):
    """A source that is read fast only in orders of its own, such as one whose rows lie in large groups."""

    def shuffled(self, seed: int, epoch: int, place: int) -> int:
        """The index of the example at a place of an epoch, 0 <= place < len: for each (seed, epoch) a permutation."""
        ...


@runtime_checkable
class Lenient(Source, Protocol):
    """A source that puts the next good record in the place of one that turns out broken when it is read."""

    def broken(self, index: int) -> str:
        """Why the record of an example that was read is broken, and another one stands in its place; "": it is good."""
        ...

    def found(self) -> dict[int, "Problem"]:
        """The broken records among those that were read, by index."""
        ...

    def add(self, bad: "Mapping[int, Problem]") -> None:
        """Counts records that another process found broken; UserError if they are too many."""
        ...


def take(source: Source, indices: Sequence[int], names: Sequence[str] | None = None) -> Examples:
    """Reads the examples of these indices of any source, in their order, with one caption each: the first original.

    Args, raises: see `take_all`.
    """
    return take_all(source, indices, names).plain()


def take_all(source: Source, indices: Sequence[int], names: Sequence[str] | None = None) -> Examples:
    """Reads the examples of these indices of any source, in their order, with all their captions.

    Args:
        names: the fields to read; None: all.

    Raises:
        UserError: if the source has no such field, or an example differs from the fields that the source declares.
    """
    fields = source.fields
    for name in names or ():
        if name not in fields:
            raise UserError(f"the data set has no field '{name}'; it has: {', '.join(fields)}")
    if isinstance(source, Batched):
        return source.take(indices, names)
    rows = [source[int(index)] for index in indices]
    arrays = {name: _column(name, fields[name], rows) for name in (fields if names is None else names)}
    return Examples(arrays, [row["caption"] for row in rows])


def _column(name: str, field: Field, rows: Sequence[Example]) -> np.ndarray:
    with contextlib.suppress(KeyError, ValueError):  # no rows; a row without the array, or with one of another shape
        column = np.stack([row[name] for row in rows])
        if column.shape[1:] == field.shape and column.dtype == field.dtype:
            return column
    for row in rows:
        value = np.asarray(row.get(name))
        if value.shape != field.shape or value.dtype != field.dtype:
            raise UserError(
                f"the source declares '{name}' as {field.dtype} of shape {field.shape}, and example {row['index']} has "
                + (f"{value.dtype} of shape {value.shape}" if name in row else "none")
            )
    return np.empty((0, *field.shape), field.dtype)


def fields_of(example: Example) -> dict[str, Field]:
    """The fields of a source, from one of its examples; pictures, latents and maps of features flip."""
    return {
        name: Field(value.shape, str(value.dtype), flips=name in ("image", "latent", "features"))
        for name, value in example.items()
        if isinstance(value, np.ndarray | np.generic)
    }


@dataclass(frozen=True, order=True)
class Problem:
    """A picture or a line of text that the source leaves out, and why."""

    file: str
    reason: str

    def __str__(self) -> str:
        # A name may hold what no terminal can print, such as half of a surrogate pair.
        return f"{self.file}: {self.reason}".encode(errors="backslashreplace").decode()


def check_split(split: str) -> None:
    """Refuses a split, with a UserError, that is not "train", "validation" or "test"."""
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}{nearest(split, SPLITS)}")


def check_problems(problems: Sequence[Problem], total: int, max_bad: float, where: str) -> None:
    """Warns about bad records of `where`; raises UserError if they are more than the fraction max_bad of `total`."""
    if not problems:
        return
    shown, count = "; ".join(map(str, problems[:3])), len(problems)
    more = f"; and {count - 3} more" if count > 3 else ""
    what = f"{where}: {count} of {total} records are bad"
    if count > max_bad * total:
        most = math.floor(max_bad * total)
        raise UserError(f"{what}, more than config.data.max_bad = {max_bad:g} allows ({most}): {shown}{more}")
    logging.getLogger(__name__).warning("%s and left out: %s%s", what, shown, more)


class Memory:
    """Decoded examples, kept in memory if all of them fit (`enabled`): a source adds each after its first read.

    Threads need no lock, because reading and writing an item of a list is atomic; two threads that miss one example
    both decode it. A pickled memory is empty (a worker process fills its own).
    """

    _OVERHEAD_BYTES = 600  # the Python objects of one example: a dict, one to three array headers, an int

    def __init__(self, count: int, sample: Example, limit_mb: float) -> None:
        """Prepares places for `count` examples of the size of `sample`, or none if they take more than limit_mb (MiB).

        Raises:
            UserError: if they take less than limit_mb, and more than this machine has.
        """
        arrays = (value for value in sample.values() if isinstance(value, np.ndarray))
        size = count * (self._OVERHEAD_BYTES + sum(array.nbytes for array in arrays))
        self.enabled = size <= limit_mb * 2**20
        if self.enabled:
            what = f"keeping all decoded examples, as config.data.cache_mb = {limit_mb:g} says,"
            paths.check_memory(what, size, "set it lower")
        self._slots: list[Example | None] = [None] * (count if self.enabled else 0)

    def get(self, index: int) -> Example | None:
        """The example at `index`; None if it is not in memory."""
        example = self._slots[index] if self._slots else None
        return example and example.copy()

    def put(self, example: Example) -> Example:
        """Makes the arrays of an example read-only and keeps it, if there is room; returns it."""
        for value in example.values():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
        if self._slots:
            self._slots[example["index"]] = example
        return example.copy()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_slots": [None] * len(self._slots)}


def check_index(index: int, count: int) -> int:
    """The index as an int; refuses it, with an IndexError, outside of 0 <= index < count."""
    index = index.__index__()
    if not 0 <= index < count:
        raise IndexError(f"index {index} is outside of 0 <= index < {count}")
    return index
