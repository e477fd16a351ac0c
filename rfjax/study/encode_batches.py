"""The batches that the job `encode` reads: in order, by threads, with the examples that can't be read left out."""

import collections
import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from rfjax import data
from rfjax.config import Config
from rfjax.data.types import Lenient
from rfjax.errors import UserError, one_line
from rfjax.evaluation.validation import gather
from rfjax.study.encode_shards import Shard
from rfjax.training import mesh as meshes
from rfjax.training.encode import EncodeStage

LABEL, SYNTHETIC = "label", "synthetic"  # arrays of a batch that are no encoder's
Clock = collections.Counter[str]  # seconds by activity


class Loaded(NamedTuple):
    """A batch on the host, this process's rows of it.

    Attributes:
        count: how many examples it has; its rows after them repeat the last that is read here.
        arrays: what goes to the devices, `good` included: whether each example could be read.
        captions: of each row.
        reasons: on examples that could not be read.
    """

    count: int
    arrays: dict[str, np.ndarray]
    captions: list[str]
    reasons: list[str]


@dataclass(frozen=True)
class Loader:
    """Reads batches.

    Attributes:
        config: of the job.
        mesh: that shares the rows of a batch.
        stage: the encoders, which prepare examples; their weights are not used.
        sources: the data set by split.
    """

    config: Config
    mesh: Mesh
    stage: EncodeStage
    sources: dict[str, data.Source]

    def batches(self, shard: Shard, clock: Clock) -> Iterator[Loaded]:
        """The batches of a shard in order, read ahead by threads."""
        starts, ahead = range(shard.start, shard.stop, self.config.encode.batch), data.batches_ready()
        with ThreadPoolExecutor(data.threads()) as pool:
            waiting = collections.deque(pool.submit(self._load, shard, start) for start in starts[:ahead])
            for start in [*starts[ahead:], *[None] * len(waiting)]:
                with timed(clock, "waiting for data"):
                    loaded = waiting.popleft().result()
                if start is not None:
                    waiting.append(pool.submit(self._load, shard, start))
                yield loaded

    def _load(self, shard: Shard, start: int) -> Loaded:
        size, source = self.config.encode.batch, self.sources[shard.split]
        count = min(size, shard.stop - start)
        rows = meshes.rows_here(size, self.mesh)
        indices = [start + row for row in rows if row < count] or [start]
        own = [LABEL] if LABEL in source.fields else []
        names = list(dict.fromkeys([*self.stage.names(source), *own]))
        examples, broken = _take(source, indices, names)
        broken |= {index: why for index in indices if isinstance(source, Lenient) and (why := source.broken(index))}
        order = data.Order(size, self.config.training.seed, synthetic=self.config.data.synthetic_share)
        drawn, synthetic = data.draw_captions(examples, order, indices)
        examples = drawn if shard.split == "train" else examples.plain()
        arrays = self.stage.prepare(examples)
        if own:
            arrays[LABEL] = examples.arrays[LABEL]
        good = np.array([index not in broken for index in indices])
        arrays[SYNTHETIC] = synthetic & (shard.split == "train")
        arrays |= {"slot": np.asarray(indices, np.int32), "good": good}
        filled = np.minimum(np.arange(len(rows)), len(indices) - 1)  # rows behind the last example repeat it
        arrays = {name: values[filled] for name, values in arrays.items()}
        captions = [examples.captions[i] for i in filled]
        return Loaded(count, arrays, captions, [f"example {i}: {why}" for i, why in broken.items()])


def _take(source: data.Source, indices: list[int], names: list[str]) -> tuple[data.Examples, dict[int, str]]:
    """The examples, where those that can't be read are replaced by others, and why they can't be."""
    try:
        return data.take_all(source, indices, names), {}
    except (UserError, OSError, ValueError):
        pass
    broken: dict[int, str] = {}
    for index in dict.fromkeys(indices):
        try:
            data.take(source, [index], names)
        except (UserError, OSError, ValueError) as error:
            broken[index] = one_line(str(error))
    usable = next((i for i in (*indices, *range(len(source))) if i not in broken), None)
    if usable is None:
        raise UserError(f"no example can be read: {next(iter(broken.values()))}")
    return data.take_all(source, [usable if index in broken else index for index in indices], names), broken


def everyones(captions: list[str], count: int, mesh: Mesh) -> list[str]:
    """The captions of all rows, from those of each process."""
    if jax.process_count() == 1:
        return captions
    own = [caption.encode("utf-8", "replace") for caption in captions]
    longest = int(gather(np.array([max(map(len, own), default=0)])).max())
    table = np.zeros((len(own), longest + 4), np.uint8)
    for row, text in zip(table, own, strict=True):
        row[:4] = np.frombuffer(np.uint32(len(text)).tobytes(), np.uint8)
        row[4 : 4 + len(text)] = np.frombuffer(text, np.uint8)
    whole = gather(meshes.put_rows(table, count, mesh))
    return [row[4 : 4 + int(row[:4].view(np.uint32)[0])].tobytes().decode() for row in whole]


@contextlib.contextmanager
def timed(clock: Clock, what: str) -> Iterator[None]:
    """Adds the seconds of a `with` to one entry."""
    began = time.monotonic()
    try:
        yield
    finally:
        clock[what] += time.monotonic() - began
