"""The job `encode`: stores a data set's latents, text encodings and features once, for the source `latents`.

A shard is a task: jobs share the work by the shards' locks, and a killed job begins its unfinished shard anew. What is
stored of an example depends on the seed and the example's index alone, so the same command gives the same bytes. The
text that SD3's training reads is encoded once as well (App. E), which costs 1.2 kB to 630 kB an example (Table 7).
"""

import collections
import contextlib
import functools
import hashlib
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from rfjax import data
from rfjax.config import Config
from rfjax.errors import UserError, one_line
from rfjax.evaluation.validation import gather
from rfjax.study import encode_programs, encode_shards
from rfjax.study.encode_programs import AUTOENCODER, Program
from rfjax.study.encode_shards import Shard, Writer
from rfjax.study.folder import Session, prepare_folder
from rfjax.study.jobs import Job, Task
from rfjax.tensors.fingerprint import DIGITS, fingerprint_of
from rfjax.training import mesh as meshes
from rfjax.training.encode import EncodeStage
from rfjax.training.log import Display
from rfjax.training.processes import check_ours
from rfjax.training.stop import Interrupted, Stop

NAMED_REASONS = 3  # of broken examples, in a record
LABEL = "label"  # a field that is stored as it is


def make_job(config: Config, started: float) -> Job:
    """Opens the data set and its encoders; the job encodes the shards that are missing in `config.workdir`.

    Args:
        config: of the job.
        started: `time.time()` at the start of the process.

    Raises:
        UserError: for what the user can mend, before anything is compiled.
    """
    session, root = Session(started), Path(config.workdir)
    programs = encode_programs.make_programs(config)
    sources = {split: data.open_source(config.data, split) for split in dict.fromkeys(config.encode.splits)}
    if not sources:
        raise UserError("config.encode.splits is empty: name the splits to encode")
    shards = [
        shard
        for split, source in sources.items()
        for shard in encode_shards.divide(
            split, min(len(source), config.encode.count or len(source)), config.encode.shard
        )
    ]
    mesh = meshes.make_mesh(config.mesh)
    meshes.check_batch("encode.batch", config.encode.batch, mesh)
    trouble = prepare_folder(config, [])
    about = {"encoders": fingerprints(programs), "encode": config.to_dict()["encode"]}
    missing = [shard for shard in shards if encode_shards.read_record(root, shard) is None]
    if jax.process_index() == 0:
        for shard in missing:
            shard.folder(root).mkdir(parents=True, exist_ok=True)
    encoding = Encoding(config, programs, sources, shards, about, sum(shard.stop - shard.start for shard in missing))
    if not missing and jax.process_index() == 0:
        encode_shards.write_index(root, shards, about)
    session.add({"start-up": time.time() - started})
    tasks = [
        Task(
            name=shard.name,
            folder=shard.folder(root),
            steps=shard.stop - shard.start,
            step_flops=1,
            complete=functools.partial(lambda shard: encode_shards.read_record(root, shard) is not None, shard),
            work=functools.partial(encoding.encode, shard),
            summary=_summary,
        )
        for shard in missing
    ]
    said = (
        f"{len(shards) - len(missing)} of {len(shards)} shards are there already" if len(missing) < len(shards) else ""
    )
    return Job(config, tasks, session, encoding.examples, warnings=[*filter(None, [trouble, said])])


def fingerprints(programs: Iterable[Program]) -> dict[str, dict[str, str]]:
    """Kind of encoder -> part -> the fingerprint of its weights; of an encoder without files, that of its settings."""
    found = {}
    for program in programs:
        files = getattr(program.encoder, "sources", {})
        marks = {part: fingerprint_of(path) for part, path in files.items()}
        plain = hashlib.sha256(repr(program.encoder).encode()).hexdigest()[:DIGITS]
        if marks or program.kind != AUTOENCODER:
            found[program.kind] = marks or {type(program.encoder).__name__: plain}
    return found


class Loaded(NamedTuple):
    """A batch on the host, this process's rows of it.

    Attributes:
        start: the index of its first example.
        count: how many examples it has; its rows after them repeat the first.
        arrays: what goes to the devices, `good` included: whether each example could be read.
        captions: of each row.
        reasons: on examples that could not be read.
    """

    start: int
    count: int
    arrays: dict[str, np.ndarray]
    captions: list[str]
    reasons: list[str]


@dataclass
class Pace:
    """How fast a job encodes, over all of its shards."""

    began: float = 0.0
    done: int = 0
    written: int = 0

    def note(self, whole: int) -> str:
        """Examples and bytes a second, and the time left for `whole` examples."""
        seconds = max(time.monotonic() - self.began, 1e-9)
        rate, left = self.done / seconds, max(whole - self.done, 0)
        minutes = left / rate / 60 if rate else 0
        return f"{rate:,.1f} examples/s  {self.written / seconds / 1e6:,.2f} MB/s  {minutes:,.0f} min left"


@dataclass(frozen=True)
class Encoding:
    """The work of one job.

    Attributes:
        config: of the job.
        programs: the encoders.
        sources: the data set by split.
        shards: all of them, those that are there included.
        about: what the index says of the encoders.
        examples: that are still to encode.
        pace: of this job.
    """

    config: Config
    programs: tuple[Program, ...]
    sources: dict[str, data.Source]
    shards: list[Shard]
    about: dict[str, Any]
    examples: int
    pace: Pace = field(default_factory=Pace)

    @functools.cached_property
    def stage(self) -> EncodeStage:
        """The encoders with their weights on the devices, read when the first shard needs them."""
        weights = encode_programs.place(self.programs, meshes.make_mesh(self.config.mesh))
        return EncodeStage(tuple(program.encoder for program in self.programs), weights)

    def encode(self, shard: Shard, display: Display, stop: Stop) -> dict[str, Any]:
        """Encodes one shard and writes its files, its record, and the index if it was the last.

        Raises:
            Interrupted: if the job was asked to stop; the shard is begun anew later.
            UserError: if more of its examples are broken than config.data.max_bad allows.
        """
        root, first, total = Path(self.config.workdir), jax.process_index() == 0, shard.stop - shard.start
        clock: collections.Counter[str] = collections.Counter()
        display.say("reading the weights and compiling")
        self.pace.began = self.pace.began or time.monotonic()
        rows, skipped, reasons, size = 0, 0, [], 0
        with Writer(root, shard) as writer:
            for batch in self._batches(shard, clock):
                if stop.granted():
                    raise Interrupted("stopped while encoding", stop.code)
                arrays, captions, good = self._run(batch, clock)
                reasons += batch.reasons
                rows, skipped = rows + int(good.sum()), skipped + int((~good).sum())
                if skipped > self.config.data.max_bad * total:
                    raise UserError(self._too_many(shard, skipped, reasons))
                if first and good.any():
                    with timed(clock, "writing"):
                        writer.append(
                            {kind: values[good] for kind, values in arrays.items()},
                            [text for text, kept in zip(captions, good, strict=True) if kept],
                        )
                self.pace.done += batch.count
                self.pace.written += sum(values.nbytes for values in arrays.values())
                display.advance(rows + skipped, self.pace.note(self.examples))
            check_ours(shard.folder(root))
            if first and rows:
                size = writer.finish()
        record = {"rows": rows, "skipped": skipped, "reasons": reasons[:NAMED_REASONS], "bytes": size}
        record |= {"sizes": writer.sizes, "memory": self._memory(), "seconds": dict(clock)}
        if first:
            encode_shards.write_record(root, shard, record)
            encode_shards.write_index(root, self.shards, self.about)
        return {**record, "name": shard.name, "split_seconds": dict(clock)}

    def _memory(self) -> dict[str, int]:
        """Bytes of each encoder's weights."""
        sizes = [sum(leaf.nbytes for leaf in jax.tree.leaves(weights)) for weights in self.stage.weights]
        return {program.kind: size for program, size in zip(self.programs, sizes, strict=True)}

    def _too_many(self, shard: Shard, skipped: int, reasons: list[str]) -> str:
        known = f": {'; '.join(reasons[:NAMED_REASONS])}" if reasons else ", whose encodings are not finite"
        return (
            f"{skipped} of the {shard.stop - shard.start} examples of {shard.name} can't be encoded, more than "
            f"config.data.max_bad = {self.config.data.max_bad:g} allows{known}"
        )

    def _batches(self, shard: Shard, clock: collections.Counter[str]) -> Iterator[Loaded]:
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
        rows = meshes.rows_here(size, meshes.make_mesh(self.config.mesh))
        indices = [start + (row if row < count else 0) for row in rows]
        encoders = tuple(program.encoder for program in self.programs)
        stage, own = EncodeStage(encoders, ()), LABEL if LABEL in source.fields else ""
        names = list(dict.fromkeys([*stage.names(source), *filter(None, [own])]))
        examples, broken = _take(source, indices, names)
        arrays = stage.prepare(examples)
        if own:
            arrays[LABEL] = examples.arrays[LABEL]
        good = np.array([index not in broken for index in indices])
        arrays |= {"slot": np.asarray(indices, np.int32), "good": good}
        return Loaded(start, count, arrays, examples.captions, [f"example {i}: {why}" for i, why in broken.items()])

    def _run(
        self, batch: Loaded, clock: collections.Counter[str]
    ) -> tuple[dict[str, np.ndarray], list[str], np.ndarray]:
        """Encodes a batch: its arrays by kind of file, its captions, and which of its examples are good."""
        size, dtype = self.config.encode.batch, np.dtype(self.config.encode.precision)
        mesh = meshes.make_mesh(self.config.mesh)
        put = meshes.put_rows(batch.arrays, size, mesh)
        good, found = gather(put["good"])[: batch.count].copy(), {}
        if LABEL in put:
            found["labels"] = gather(put[LABEL])[: batch.count]
        for program, weights in zip(self.programs, self.stage.weights, strict=True):
            with timed(clock, program.kind):
                made = program.run(weights, put, np.uint32(self.config.training.seed))
                for kind, values in made.items():
                    host = gather(values)[: batch.count]
                    found[kind] = host if host.dtype == np.uint8 else _stored(host, dtype)
        for values in found.values():
            if values.dtype == dtype:
                good &= np.isfinite(values).reshape(len(values), -1).all(axis=1)
        return found, _everyones(batch.captions, size, mesh)[: batch.count], good


def _stored(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    with np.errstate(over="ignore"):  # what overflows is infinite, and left out
        return values.astype(dtype)


def _take(source: data.Source, indices: list[int], names: list[str]) -> tuple[data.Examples, dict[int, str]]:
    """The examples, where those that can't be read are replaced by others, and why they can't be."""
    try:
        return data.take(source, indices, names), {}
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
    return data.take(source, [usable if index in broken else index for index in indices], names), broken


def _everyones(captions: list[str], count: int, mesh: Mesh) -> list[str]:
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
def timed(clock: collections.Counter[str], what: str) -> Iterator[None]:
    """Adds the seconds of a `with` to one entry."""
    began = time.monotonic()
    try:
        yield
    finally:
        clock[what] += time.monotonic() - began


def _summary(result: dict[str, Any], seconds: float) -> str:
    left_out = f", {result['skipped']} left out" if result["skipped"] else ""
    return f"{result['name']}: {result['rows']:,} examples{left_out}, {result['bytes'] / 1e6:,.1f} MB, {seconds:.0f} s"
