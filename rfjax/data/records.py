"""Captioned pictures that are decoded when they are read, from records of any form: tar, Parquet, folders.

Decoding millions of pictures before training, as `rfjax.data.folder` does, would take hours. So what can be seen
without decoding (a record cut off, or without a caption) is left out when the source is opened, and a record that turns
out broken when it is read is replaced by the next good one, as in `rfjax.data.tfds`: an index always gives the same
example, in every process, whatever was read before. Both are named and counted, and reading stops with a UserError if
they are more than the fraction config.data.max_bad. A replaced record's neighbour comes twice in an epoch; a job that
must see each record once, such as one that encodes them, asks `broken` after reading.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import UInt8

from rfjax import config as configs
from rfjax.data import images
from rfjax.data.broken import Broken
from rfjax.data.types import Captions, Example, Memory, Problem, check_index, fields_of, written_out

Bytes = bytes | memoryview


class Record(NamedTuple):
    """A captioned picture as it lies in the files.

    Attributes:
        data: the picture's file. caption: one text, or several. label: the number of its class; None without.
    """

    data: Bytes
    caption: str | Captions
    label: int | None = None


class Records(Protocol):
    """Random access to the records of one split; deterministic, picklable, and safe to read from several threads."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Record:
        """The record at 0 <= index < len. A broken one is a ValueError; one that can't be read now, a UserError."""
        ...

    def name(self, index: int) -> str:
        """Where the record lies, for messages."""
        ...

    def names(self) -> Iterator[str]:
        """See `types.Named`."""
        ...


class Pictures:
    """The pictures of one split, decoded and fitted to a square; a `Source`.

    Attributes:
        fields: "image", and "label" if the records have one.
        readers: see `types.Source`.
    """

    def __init__(self, records: Records, where: str, config: configs.Data, problems: Sequence[Problem] = ()) -> None:
        """Checks the problems that are known, and reads the first record.

        Args:
            records: at least one.
            where: the data set, for messages.
            config: its image_size, channels, resize, cache_mb, max_bad and readers.
            problems: what was left out.
        """
        self._records = records
        self._broken = Broken(len(records), config.max_bad, where, problems)
        self._decode: Callable[[Bytes], UInt8[np.ndarray, "H W C"]] = partial(
            images.read, size=config.image_size, channels=config.channels, mode=config.resize
        )
        sample = self._read(0)
        self.fields = fields_of(sample)
        self._memory = Memory(len(records), sample, config.cache_mb)
        self.readers = 0 if self._memory.enabled else config.readers

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was left out, then the broken records among those that were read, by position."""
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
        return self._memory.get(index) or self._memory.put(self._read(index))

    def _read(self, index: int) -> Example:
        def read(position: int) -> Example:
            record = self._records.read(position)
            example: Example = {"image": self._decode(record.data), "caption": record.caption, "index": index}
            return example if record.label is None else example | {"label": np.int64(record.label)}

        return self._broken.first_good(index, read, self._records.name)

    def names(self) -> Iterator[str]:
        """See `types.Named`."""
        return self._records.names()

    def stored(self, index: int) -> bytes:
        """See `types.Stored`: the picture's file and the texts; nothing for a broken record."""
        try:
            record = self._records.read(index)
        except ValueError:
            return b""
        text = f"\0{written_out(record.caption)}\0{record.label}"
        return bytes(record.data) + text.encode("utf-8", "surrogatepass")
