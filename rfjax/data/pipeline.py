"""From a source to batches: order, shuffling, sharding by process, and text, by Grain."""

import functools
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Float16, Float32, Int32, Int64, UInt8

from rfjax.data import images
from rfjax.data.text import Encoded, Labels, Stored, TextEncoder
from rfjax.data.types import Examples, Source, take
from rfjax.errors import UserError


class Batch(TypedDict):
    """One process's rows of a batch; `slot` is each example's place in the global batch."""

    image: UInt8[np.ndarray, "b H W C"] | Float32[np.ndarray, "b H W C"] | Float16[np.ndarray, "b H W C"]
    context: Float32[np.ndarray, "b L E"]
    pooled: Float32[np.ndarray, "b P"]
    slot: Int32[np.ndarray, " b"]


@dataclass(frozen=True)
class Order:
    """Which examples make up which batch: batch k is a function of these and k alone, so k is all that a run that goes
    on has to know.

    Attributes:
        batch: global batch size. seed: of the shuffling, new in each epoch, and of the flips.
        flip: mirror half of the examples. skip: numbers of batches that are left out.
    """

    batch: int
    seed: int
    flip: bool = False
    skip: tuple[int, ...] = ()

    def number(self, step: int) -> int:
        """The batch that a step sees, both counted from 0."""
        for skipped in sorted(self.skip):
            step += skipped <= step
        return step


def load(source: Source, encoder: TextEncoder, indices: Sequence[int]) -> tuple[Batch, list[str]]:
    """Reads the examples of these indices as one batch, and their captions; `slot` counts from 0.

    Raises:
        UserError: if the encoder is for class labels or stored encodings and the source has none.
    """
    found = take(source, indices, encodings=not isinstance(encoder, Labels))
    context, pooled = _text(found, encoder)
    slot = np.arange(len(found.captions), dtype=np.int32)
    return {"image": found.image, "context": context, "pooled": pooled, "slot": slot}, found.captions


def _text(found: Examples, encoder: TextEncoder) -> Encoded:
    if isinstance(encoder, Labels):
        if found.label is None:
            raise UserError("this data set has no class labels: choose another config.text.encoder than 'labels'")
        return encoder([str(label) for label in found.label.tolist()])
    if found.context is not None and found.pooled is not None:
        return Encoded(found.context.astype(np.float32, copy=False), found.pooled.astype(np.float32, copy=False))
    if isinstance(encoder, Stored):
        raise UserError("this data set stores no encodings: choose another config.text.encoder than 'stored'")
    return encoder(found.captions)


MOST_THREADS = 16  # that make batches; a batch of each lies ready
LISTED = 2**24  # examples, of which an epoch's order is kept as a list; Grain finds single places in longer ones


def threads() -> int:
    """How many make batches, by the cores that this process may use: Pillow decodes without the interpreter's lock."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(cores, 2), MOST_THREADS)


def batches_ready() -> int:
    """How many batches lie ready while a step works."""
    return max(threads(), 4)


@functools.lru_cache(maxsize=4)
def _epoch(count: int, seed: int, epoch: int) -> Int64[np.ndarray, " n"]:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(count)


@dataclass(frozen=True)
class _Rows:
    """(position, index) of each of some rows of each batch, for Grain; item i is of step start + i.

    Attributes:
        count: of examples. shuffled: anew in each epoch.
    """

    count: int
    shuffled: bool
    order: Order
    rows: Sequence[int]
    start: int

    def __len__(self) -> int:
        return sys.maxsize // self.order.batch - self.start

    def __getitem__(self, item: int) -> list[tuple[int, int]]:
        first = self.order.number(self.start + int(item)) * self.order.batch
        positions = [first + row for row in self.rows]
        return [(position, self._index(*divmod(position, self.count))) for position in positions]

    def _index(self, epoch: int, place: int) -> int:
        if not self.shuffled:
            return place
        if self.count <= LISTED:
            return int(_epoch(self.count, self.order.seed, epoch)[place])
        return self._by_place[epoch * self.count + place]

    @functools.cached_property
    def _by_place(self) -> Any:
        import grain

        return grain.MapDataset.range(self.count).shuffle(self.order.seed).repeat()


def batches(
    source: Source, encoder: TextEncoder, order: Order, rows: Sequence[int] | None = None, start: int = 0
) -> Iterator[Batch]:
    """An endless Grain iterator over one process's rows of training batches, from step `start` on.

    The global batch k holds the positions k batch ... (k + 1) batch - 1 of the shuffled, repeated source, whatever the
    number of processes, and an example's flip depends on (seed, position) alone.

    Args:
        source: examples. encoder: for captions that come without encodings.
        order: of the examples. rows: of each batch, that this process loads; by default all.
    """
    import grain  # it imports JAX, which preparing and reading data sets does not need

    def assemble(places: Sequence[tuple[int, int]]) -> Batch:
        positions, indices = zip(*places, strict=True)
        result, _ = load(source, encoder, indices)
        if order.flip:
            streams = [np.random.Generator(np.random.Philox(key=[order.seed, p])) for p in positions]
            result["image"] = np.stack(
                [images.random_flip(g, im) for g, im in zip(streams, result["image"], strict=True)]
            )
        result["slot"] = (np.asarray(positions) % order.batch).astype(np.int32)
        return result

    shuffled = getattr(source, "shuffles", True)
    chosen = _Rows(len(source), shuffled, order, range(order.batch) if rows is None else rows, start)
    ready = grain.MapDataset.source(chosen).map(assemble)
    options = grain.ReadOptions(num_threads=threads(), prefetch_buffer_size=batches_ready())
    return iter(ready.to_iter_dataset(options))
