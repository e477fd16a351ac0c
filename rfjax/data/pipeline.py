"""From a source to batches, by Grain: order, shuffling, flips, and each process's share."""

import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from rfjax.data import readers
from rfjax.data.types import Arranged, Captions, Examples, Source, flipped, take, take_all
from rfjax.errors import UserError

# One process's rows of a batch, (b, ...) each. "slot", int32 (b,), is each example's place in the global batch;
# SYNTHETIC, bool (b,), which batches of an order with a share of synthetic captions have, says where one was drawn.
Batch = dict[str, np.ndarray]
# Turns the named arrays and captions of examples into the arrays of a batch, on the host.
Prepare = Callable[[Examples], dict[str, np.ndarray]]
SYNTHETIC = "synthetic"
_CAPTIONS = (0, 0, 0, 1)  # Philox's counter where the draws of captions begin; those of flips begin at 0


@dataclass(frozen=True)
class Order:
    """The order of the examples: batch k is a function of these values and k, so that a run can continue at any k.

    Attributes:
        batch: global batch size.
        seed: of the shuffling, new in each epoch, of the flips, and of the choice of captions.
        flip: mirror half of the examples.
        skip: numbers of batches to leave out.
        synthetic: probability of a synthetic caption, for an example that has one, 0..1.
    """

    batch: int
    seed: int
    flip: bool = False
    skip: tuple[int, ...] = ()
    synthetic: float = 0.0

    def number(self, step: int) -> int:
        """The number of a step's batch, both counted from 0."""
        for skipped in sorted(self.skip):
            step += skipped <= step
        return step


def load(
    source: Source, indices: Sequence[int], prepare: Prepare, names: Sequence[str] | None = None
) -> tuple[Batch, list[str]]:
    """Reads one batch, whose `slot` counts from 0, and its captions; arguments as of `take`."""
    examples = take(source, indices, names)
    return prepare(examples) | {"slot": np.arange(len(examples.captions), dtype=np.int32)}, examples.captions


MOST_THREADS = 16  # that make batches
LISTED = 2**24  # examples: an epoch's order is a list up to this length; Grain computes single places of longer ones


def threads() -> int:
    """How many threads make batches: one for each core of this process, as Pillow decodes without Python's lock."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(cores, 2), MOST_THREADS)


def batches_ready() -> int:
    """How many batches are prepared ahead while a step works."""
    return max(threads(), 4)


@functools.lru_cache(maxsize=4)
def _epoch(count: int, seed: int, epoch: int) -> Int64[np.ndarray, " n"]:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(count)


@dataclass(frozen=True)
class _Rows:
    """For Grain: item i is the (position, index) of each of `rows` in the batch of step `start` + i.

    Attributes:
        count: of examples.
        shuffled: anew in each epoch; by these orders of the source's own, if it has any.
    """

    count: int
    shuffled: bool | Callable[[int, int, int], int]
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
        if callable(self.shuffled):
            return self.shuffled(self.order.seed, epoch, place)
        if self.count <= LISTED:
            return int(_epoch(self.count, self.order.seed, epoch)[place])
        return self._by_place[epoch * self.count + place]

    @functools.cached_property
    def _by_place(self) -> Any:
        import grain

        return grain.MapDataset.range(self.count).shuffle(self.order.seed).repeat()


def reading(source: Source, rows: int) -> tuple[Callable[..., Examples], int]:
    """What reads examples as `take_all` does, in other processes if the source asks for them, and in how many threads.

    Args:
        rows: how many are read at once.
    """
    count = getattr(source, "readers", 0)
    count = threads() if count < 0 else count
    if not count:
        return functools.partial(take_all, source), threads()
    return readers.of(source, count, rows).take, count + 1  # one prepares while the others wait for the processes


def batches(
    source: Source,
    prepare: Prepare,
    order: Order,
    rows: Sequence[int] | None = None,
    start: int = 0,
    *,
    names: Sequence[str] | None = None,
) -> Iterator[Batch]:
    """An endless Grain iterator over one process's rows of training batches.

    The global batch k holds the positions k batch ... (k + 1) batch - 1 of the shuffled, repeated source, whatever the
    number of processes. An example's flip and its caption, if it has several, depend on (seed, position) alone.

    Args:
        source, names: as of `take`.
        prepare: makes a batch's arrays, in several threads at once.
        order: of the examples.
        rows: of each batch, that this process loads; None: all.
        start: the first batch's step.
    """
    import grain  # it imports JAX, which other users of data sets don't need

    def assemble(places: Sequence[tuple[int, int]]) -> Batch:
        positions, indices = zip(*places, strict=True)
        examples, synthetic = draw_captions(read(indices, names), order, positions)
        if order.flip:
            examples = _flipped(examples, source, order.seed, positions, indices)
        batch = prepare(examples) | {"slot": (np.asarray(positions) % order.batch).astype(np.int32)}
        return batch | {SYNTHETIC: synthetic} if order.synthetic else batch

    own = range(order.batch) if rows is None else rows
    read, count = reading(source, len(own))
    shuffled = source.shuffled if isinstance(source, Arranged) else getattr(source, "shuffles", True)
    chosen = _Rows(len(source), shuffled, order, own, start)
    ready = grain.MapDataset.source(chosen).map(assemble)
    options = grain.ReadOptions(num_threads=count, prefetch_buffer_size=batches_ready())
    return iter(ready.to_iter_dataset(options))


LOOKED_AT = 64  # examples, spread evenly


def check_synthetic(source: Source, share: float) -> None:
    """Refuses, with a UserError, a share of synthetic captions of data that have none."""
    count = min(LOOKED_AT, len(source)) if share else 0
    found = take_all(source, [place * len(source) // count for place in range(count)], ()).captions
    if count and not any(isinstance(one, Captions) and one.synthetic for one in found):
        raise UserError(
            f"config.data.synthetic_share = {share:g}, but none of the {count} training examples that were looked at "
            "has a synthetic caption: set it to 0, or name data with both kinds"
        )


def draw_captions(
    examples: Examples, order: Order, positions: Sequence[int]
) -> tuple[Examples, Bool[np.ndarray, " n"]]:
    """Draws one of each example's captions; also returns which of them are synthetic.

    A synthetic one is drawn with probability `order.synthetic`, then one of the kind, each equally often.
    """
    captions, synthetic = list(examples.captions), np.zeros(len(positions), bool)
    for row, (position, every) in enumerate(zip(positions, examples.captions, strict=True)):
        if isinstance(every, Captions):
            draws = np.random.Generator(np.random.Philox(key=[order.seed, position], counter=_CAPTIONS))
            kind, which = draws.random(2)
            synthetic[row] = bool(every.synthetic) and kind < order.synthetic
            texts = every.synthetic if synthetic[row] else every.original
            captions[row] = texts[int(which * len(texts))]
    return examples._replace(captions=captions), synthetic


def _flipped(
    examples: Examples, source: Source, seed: int, positions: Sequence[int], indices: Sequence[int]
) -> Examples:
    """Mirrors half of the examples left to right, each in all fields that flip: (n, ..., W, C).

    Where the source stores what an encoder made of the mirrored picture, that is taken in its place.
    """
    draws = [np.random.Generator(np.random.Philox(key=[seed, place])).random() for place in positions]
    mirrored, arrays, fields = np.asarray(draws) < 0.5, dict(examples.arrays), source.fields
    for name in [name for name in arrays if fields[name].flips]:
        arrays[name] = arrays[name].copy()
        if (stored := flipped(name)) in fields and mirrored.any():
            arrays[name][mirrored] = take(source, np.asarray(indices)[mirrored].tolist(), [stored]).arrays[stored]
        else:
            arrays[name][mirrored] = arrays[name][mirrored][..., ::-1, :]
    return examples._replace(arrays=arrays)
