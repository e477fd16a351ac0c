"""The job `encode`: stores a data set's latents, text encodings and features once, for the source `latents`.

A shard is a task: jobs share the work by the shards' locks, and a killed job begins its unfinished shard anew. What is
stored of an example depends on the seed and the example's index alone, so the same command gives the same bytes. SD3
encodes pictures and text once as well (App. E); Table 7 has what each encoder's outputs take on the disk.
"""

import collections
import functools
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from rfjax import data
from rfjax.buckets import mirror
from rfjax.config import Config
from rfjax.encoders.codec import Pixels
from rfjax.errors import UserError
from rfjax.evaluation.validation import gather
from rfjax.study import encode_programs, encode_shards
from rfjax.study.encode_batches import LABEL, SYNTHETIC, Clock, Loaded, Loader, everyones, timed
from rfjax.study.encode_programs import Program
from rfjax.study.encode_shards import Shard, Writer
from rfjax.study.folder import Session, prepare_folder
from rfjax.study.jobs import Job, Task
from rfjax.training import encodings
from rfjax.training import mesh as meshes
from rfjax.training.encode import EncodeStage
from rfjax.training.log import Display
from rfjax.training.processes import all_from_first, check_ours
from rfjax.training.stop import Interrupted, Stop

NAMED_REASONS = 3  # of broken examples, in a record


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
    if "train" in sources:
        data.check_synthetic(sources["train"], config.data.synthetic_share)
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
    first = jax.process_index() == 0  # which decides: another job may end a shard meanwhile
    there = [first and encode_shards.read_record(root, shard) is not None for shard in shards]
    missing = [shard for shard, done in zip(shards, all_from_first(there), strict=True) if not done]
    if first:
        for shard in missing:
            shard.folder(root).mkdir(parents=True, exist_ok=True)
    encoding = Encoding(config, programs, sources, shards, about, sum(shard.stop - shard.start for shard in missing))
    if not missing and first:
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
    """Kind of encoder -> part -> fingerprint, see `encodings.fingerprints`; pixels are not encoded."""
    return {one.kind: encodings.fingerprints(one.encoder) for one in programs if not isinstance(one.encoder, Pixels)}


class Encoded(NamedTuple):
    """An encoded batch on the host.

    Attributes:
        arrays: by kind of file, of all its examples.
        captions: of all.
        good: which of them could be read and encoded.
        synthetic: how many of the good ones have a synthetic caption.
    """

    arrays: dict[str, np.ndarray]
    captions: list[str]
    good: np.ndarray
    synthetic: int

    def kept(self) -> tuple[dict[str, np.ndarray], list[str]]:
        """Arrays and captions of the good ones."""
        texts = [text for text, good in zip(self.captions, self.good, strict=True) if good]
        return {kind: values[self.good] for kind, values in self.arrays.items()}, texts


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

    @functools.cached_property
    def loader(self) -> Loader:
        """What reads batches."""
        encoders = tuple(program.encoder for program in self.programs)
        return Loader(self.config, meshes.make_mesh(self.config.mesh), EncodeStage(encoders, ()), self.sources)

    def encode(self, shard: Shard, display: Display, stop: Stop) -> dict[str, Any]:
        """Encodes one shard and writes its files, its record, and the index if it was the last.

        Raises:
            Interrupted: if the job was asked to stop; the shard is begun anew later.
            UserError: if more of its examples are broken than config.data.max_bad allows.
        """
        root, first, total = Path(self.config.workdir), jax.process_index() == 0, shard.stop - shard.start
        clock: Clock = collections.Counter()
        display.say("reading the weights and compiling")
        self.pace.began = self.pace.began or time.monotonic()
        reasons, count, cut = [], collections.Counter(rows=0, skipped=0, synthetic=0), self._cut()
        with Writer(root, shard) as writer:
            for batch in self.loader.batches(shard, clock):
                if stop.granted():
                    raise Interrupted("stopped while encoding", stop.code)
                made = self._run(batch, clock)
                reasons += batch.reasons
                count.update(rows=int(made.good.sum()), skipped=int((~made.good).sum()), synthetic=made.synthetic)
                if count["skipped"] > self.config.data.max_bad * total:
                    raise UserError(self._too_many(shard, count["skipped"], reasons))
                if first and made.good.any():
                    with timed(clock, "writing"):
                        writer.append(*made.kept())
                self.pace.done += batch.count
                self.pace.written += sum(values.nbytes for values in made.arrays.values())
                display.advance(count["rows"] + count["skipped"], self.pace.note(self.examples))
            check_ours(shard.folder(root))
            if first and count["rows"]:
                writer.finish()
        record = {**count, "cut": self._cut() - cut, "reasons": reasons[:NAMED_REASONS], "sizes": writer.sizes}
        record |= {"memory": self._memory(), "seconds": dict(clock)}
        if first:
            encode_shards.write_record(root, shard, record)
            mirror.publish(root)  # first, so that of two jobs with the last shards one sees both
            mirror.refresh(root / encode_shards.SHARDS)
            encode_shards.write_index(root, self.shards, self.about)
        return {**record, "name": shard.name, "split_seconds": dict(clock)}

    def _cut(self) -> int:
        """How many texts were too long for an encoder until now."""
        counters = [getattr(program.encoder, "cuts", None) for program in self.programs]
        return sum(max(one.cut.values(), default=0) for one in counters if one)

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

    def _run(self, batch: Loaded, clock: Clock) -> "Encoded":
        """Encodes a batch."""
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
        synthetic = int((gather(put[SYNTHETIC])[: batch.count] & good).sum())
        return Encoded(found, everyones(batch.captions, size, mesh)[: batch.count], good, synthetic)


def _stored(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    with np.errstate(over="ignore"):  # what overflows is infinite, and left out
        return values.astype(dtype)


def _summary(result: dict[str, Any], seconds: float) -> str:
    left_out = f", {result['skipped']} left out" if result["skipped"] else ""
    size = sum(result["sizes"].values()) / 1e6
    return f"{result['name']}: {result['rows']:,} examples{left_out}, {size:,.1f} MB, {seconds:.0f} s"
