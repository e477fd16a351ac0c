"""What every data source shares: the contract, the record of a bad picture, and the memory for decoded examples."""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, NotRequired, Protocol, TypedDict, get_args, runtime_checkable

import numpy as np

from rfjax.data import paths
from rfjax.errors import UserError, nearest

Split = Literal["train", "validation", "test"]
SPLITS: tuple[str, ...] = get_args(Split)


class Example(TypedDict):
    """One captioned image.

    image: uint8 (H, W, C), C = 1 or 3, values 0..255; or float32 or float16 (H, W, C) where the data set stores
        latents, unscaled.
    caption: the text; "" only where the data set stores text encodings and no text.
    index: the position in the source, 0 <= index < len(source); it keys the randomness of this example.
    label: optional, the number of its class, from 0.
    context: optional, float32 (L, E): the stored encoding of each text token.
    pooled: optional, float32 (P,): the stored encoding of the whole text.
    """

    image: np.ndarray
    caption: str
    index: int
    label: NotRequired[int]
    context: NotRequired[np.ndarray]
    pooled: NotRequired[np.ndarray]


class Examples(NamedTuple):
    """n examples, each field of `Example` as one array over all of them; None for what the data set lacks.

    image: (n, H, W, C). captions: n of them. label: integers (n,). context: (n, L, E) and pooled: (n, P), floats.
    """

    image: np.ndarray
    captions: list[str]
    label: np.ndarray | None = None
    context: np.ndarray | None = None
    pooled: np.ndarray | None = None


@runtime_checkable
class Source(Protocol):
    """Random access to captioned images of one size.

    Deterministic (an index gives the same example for ever), picklable, and safe to read from several threads. The
    arrays may be shared between reads and read-only: copy before writing into one. An index outside of
    0 <= index < len(source) raises IndexError.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


@runtime_checkable
class Batched(Source, Protocol):
    """A source that gives many examples at once, faster than one by one, and the same."""

    def take(self, indices: Sequence[int], encodings: bool = True) -> Examples:
        """The examples of these indices, in their order; encodings: with context and pooled, where it stores them."""
        ...


@runtime_checkable
class Named(Source, Protocol):
    """A source that tells its examples from others without reading them all; see `identity`."""

    def names(self) -> Iterator[str]:
        """Texts that change when an example comes, goes, moves or is renamed: cheap, also for millions of examples."""
        ...


@runtime_checkable
class Stored(Source, Protocol):
    """A source whose examples lie in files as something else than the arrays that they become."""

    def stored(self, index: int) -> bytes:
        """What the files hold of an example, before anything is decoded."""
        ...


def take(source: Source, indices: Sequence[int], encodings: bool = True) -> Examples:
    """The examples of these indices of any source; arguments as in `Batched.take`."""
    if isinstance(source, Batched):
        return source.take(indices, encodings)
    rows: list[Any] = [source[int(index)] for index in indices]

    def column(name: str) -> np.ndarray | None:
        return np.stack([row[name] for row in rows]) if all(name in row for row in rows) else None

    text = (column("context"), column("pooled")) if encodings else (None, None)
    return Examples(np.stack([row["image"] for row in rows]), [row["caption"] for row in rows], column("label"), *text)


@dataclass(frozen=True, order=True)
class Problem:
    """A picture or a line of text that is left out: where it is, and why."""

    file: str
    reason: str

    def __str__(self) -> str:
        # A name may hold what no terminal can print, such as half of a surrogate pair.
        return f"{self.file}: {self.reason}".encode(errors="backslashreplace").decode()


def check_split(split: str) -> None:
    """Raises UserError where `split` is none of "train", "validation", "test"."""
    if split not in SPLITS:
        raise UserError(f"Unknown split {split!r}{nearest(split, SPLITS)}.")


def check_problems(problems: Sequence[Problem], total: int, max_bad: float, where: str) -> None:
    """Names the first few of `problems`: in a warning, or in a UserError where more than `max_bad` of `total` are bad.

    total: the number of records, good and bad; max_bad: a fraction of it, 0..1; where: what was read, for the message.
    """
    if not problems:
        return
    shown, count = "; ".join(map(str, problems[:3])), len(problems)
    more = f"; and {count - 3} more" if count > 3 else ""
    what = f"{where}: {count} of {total} records are bad"
    if count > max_bad * total:
        raise UserError(
            f"{what}, more than max_bad = {max_bad:g} allows ({math.floor(max_bad * total)}): {shown}{more}."
        )
    logging.getLogger(__name__).warning("%s and left out: %s%s.", what, shown, more)


class Memory:
    """Decoded examples kept in memory, where all of them fit: a source puts them in as they are first read.

    Items of a list are read and written atomically, so threads need no lock; two that miss one example both decode it.
    A pickled memory arrives empty (a worker process fills its own).
    """

    _OVERHEAD_BYTES = 600  # the Python objects of one example: a dict, one to three array headers, an int

    def __init__(self, count: int, sample: Example, limit_mb: float) -> None:
        """count: examples in the source; sample: one of them, for its size; limit_mb: keep nothing above this (MiB).

        Raises UserError where they are fewer than limit_mb, and more than this machine has.
        """
        arrays = (value for value in sample.values() if isinstance(value, np.ndarray))
        self.size_mb = count * (self._OVERHEAD_BYTES + sum(array.nbytes for array in arrays)) / 2**20
        if self.size_mb <= limit_mb:
            what = f"keeping all decoded examples, as config.data.cache_mb = {limit_mb:g} says,"
            paths.check_memory(what, int(self.size_mb * 2**20), "set it lower")
        self._slots: list[Example | None] = [None] * (count if self.size_mb <= limit_mb else 0)

    @property
    def enabled(self) -> bool:
        """Whether the examples fit under the limit and are kept."""
        return bool(self._slots)

    def get(self, index: int) -> Example | None:
        """Returns the example at `index`, or None where it is not in memory."""
        example = self._slots[index] if self._slots else None
        return example and example.copy()

    def put(self, example: Example) -> Example:
        """Returns the example with its arrays made read-only, and keeps it where examples are kept."""
        for value in example.values():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
        if self._slots:
            self._slots[example["index"]] = example
        return example.copy()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_slots": [None] * len(self._slots)}


def check_index(index: int, count: int) -> int:
    """Returns `index` as an int; raises IndexError outside of 0 <= index < count."""
    index = index.__index__()
    if not 0 <= index < count:
        raise IndexError(f"index {index} is outside of 0 <= index < {count}")
    return index
