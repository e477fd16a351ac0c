"""Examples a second of each data source, beside torch's DataLoader on the same files; and whether a step waits.

    python -m benchmarks.data [sources] [stored] [step] [--record]       by default all: 8 minutes on two cores

Writes small data sets into a temporary folder: 2,048 pictures of 96 x 96 and 256 of 384 x 384, half of them JPEG and
half PNG, as files, in tar files and in Parquet, the small ones also as a TFDS data set in ArrayRecord files, and 20,000
latents of 32 x 32 x 4 in float16 with labels (164 MB). All of it lies in the page cache.

- sources: rfjax's own pipeline, `data.batches`, shuffled, with text encoded and batches assembled, against a DataLoader
  that is shuffled too, with a Dataset as one would write it: Pillow's decoding and resizing for pictures, the reader of
  `webdataset` for tar files and of Hugging Face's `datasets` for Parquet, a row of `np.load(mmap_mode="r")` for
  latents, and the default collation; the better of 0 and 2 workers, which stay alive. For each source, prints medians
  of ROUNDS of examples a second with the smallest and the largest, each in turn for SECONDS once the batches that lay
  ready are gone, and the ratio of each round. shapes, digits and what rfjax keeps in memory have no peer; a DataLoader
  decodes again in every epoch. Expect ratios of at least 1, and over 20,000 latents a second.
- stored: encodings of SD3's size, latents of 32 x 32 x 16 and text of 154 x 4096 and 2048 in float16 (1.3 MB an
  example), in examples and bytes a second of what lies in the files, up to the arrays that go to the devices.
- step: seconds a step of MM-DiT, d = 4, batch 64, as the loop runs it, fed by the pipeline with latents and stored
  encodings, over the same step with one batch that lies ready; the two in turn, STEPS steps each. Expect at most 1.03.
  Also prints how long each step took for its batch, until it was on its way to the device.
"""

import contextlib
import dataclasses
import functools
import gc
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import data_files as files
from benchmarks import data_peers as peers
from benchmarks import page
from benchmarks.data_files import LARGE, SMALL
from benchmarks.data_peers import Batches
from benchmarks.race import say, spread
from rfjax import memory
from rfjax.data import pipeline

ROUNDS, SECONDS = 5, 1.0
READY = 3 + max(4, pipeline.threads())  # batches: more than lie in rfjax's buffer, or for two workers of a DataLoader
BATCHES = {LARGE: 16, SMALL: 64}  # pictures
LATENTS, LATENT, CLASSES, LATENT_BATCH = 20_000, (32, 32, 4), 1000, 256
STORED, STORED_LATENT, STORED_TEXT, STORED_POOLED, STORED_BATCH = 512, (32, 32, 16), (154, 4096), 2048, 32
WORKERS = (0, 2)
DEPTH, STEP_BATCH, STEP_ROUNDS, STEPS = 4, 64, 9, 6


@dataclasses.dataclass
class Contender:
    """A source, read by rfjax or by its peer.

    Attributes:
        batch: examples. batches: without an end. rates: examples a second of each round.
    """

    batch: int
    batches: Batches
    rates: list[float] = dataclasses.field(default_factory=list)

    def run(self) -> None:
        """One turn."""
        for _ in range(READY):
            next(self.batches)
        began, count = time.perf_counter(), 0
        while (spent := time.perf_counter() - began) < SECONDS:
            next(self.batches)
            count += self.batch
        self.rates.append(count / spent)


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        source: its name. batch: examples. text: the encoder. data: of config.data.
        peer: the batches of so many workers of a DataLoader; None without a peer.
    """

    source: str
    batch: int
    text: Any
    data: Mapping[str, Any]
    peer: Callable[[int], Batches] | None = None


def our_batches(text: Any, batch: int, **settings: Any) -> Batches:
    """Batches of rfjax's pipeline; settings: of config.data."""
    from rfjax import config as configs
    from rfjax import data
    from rfjax.encoders import make_codec
    from rfjax.training.encode import EncodeStage

    config = configs.Data(**settings)
    source, stage = data.open_source(config, "train"), EncodeStage((make_codec(configs.Config(data=config)), text), ())
    return data.batches(source, stage.prepare, data.Order(batch, 0), names=stage.names(source))


def written(root: Path) -> None:
    """Writes all files into a new folder."""
    for name, pictures in (("small", SMALL), ("large", LARGE)):
        files.write_pictures(root / name, pictures)
        files.write_tars(root / f"{name}-tars", root / name)
        files.write_parquet(root / f"{name}-parquet", root / name)
    files.write_records(root / "records", root / "small")
    numbers = np.random.default_rng(0).integers(0, CLASSES, LATENTS)
    files.write_latents(root / "latents", LATENTS, LATENT, labels=numbers)


def rows(root: Path) -> list[Row]:
    """All lines, with their files in this folder."""
    from rfjax.encoders.text import Labels, WordVectors

    words, decoded, kept, found = WordVectors(8, 64, 64), {"cache_mb": 0.0}, "the same, kept in memory", []
    torch = lambda batch, dataset, *given: functools.partial(_torch, dataset, given, batch)  # noqa: E731
    for name, pictures in (("large", LARGE), ("small", SMALL)):
        batch, what = BATCHES[pictures], f"{pictures.stored} x {pictures.stored} pictures"
        size = {"image_size": pictures.side, "channels": 3}
        folder, tars, parquet = root / name, root / f"{name}-tars", root / f"{name}-parquet"
        found += [
            Row(f"{kind}: {what}", batch, words, size | decoded | {"name": kind, "path": str(path)}, peer)
            for kind, path, peer in (
                ("folder", folder, torch(batch, peers.PictureFiles, folder, pictures.side)),
                ("webdataset", tars, functools.partial(peers.webdataset_batches, tars, pictures.side, batch)),
                ("parquet", parquet, torch(batch, peers.datasets_of, parquet, pictures.side)),
            )
        ]
    records = {"name": "tfds", "dataset": "pictures", "data_dir": str(root / "records"), "train_split": "train"} | size
    stored = {"name": "latents", "path": str(root / "latents"), "image_size": LATENT[0], "channels": LATENT[-1]}
    in_arrays = torch(LATENT_BATCH, peers.LatentFiles, root / "latents", LATENTS)
    return [
        Row("shapes, drawn at 16 x 16", batch, words, {"image_size": 16}),
        Row("digits, 8 x 8", batch, words, {"name": "digits", "image_size": 8, "channels": 1}),
        *found,
        Row(f"folder: {kept}", batch, words, size | {"name": "folder", "path": str(folder)}),
        Row(f"tfds: {what}", batch, words, records | decoded, torch(batch, peers.Records, root / "records")),
        Row(f"tfds: {kept}", batch, words, records),
        Row("latents, 32 x 32 x 4, float16", LATENT_BATCH, Labels(CLASSES), stored, in_arrays),
    ]


def _torch(dataset: Callable[..., Any], given: Sequence[Any], batch: int, workers: int) -> Batches:
    return peers.torch_batches(dataset(*given), batch, workers)


def measured(row: Row) -> tuple[str, ...]:
    """A line of the table: rfjax and its peers in turn."""
    from statistics import median

    ours = Contender(row.batch, our_batches(row.text, row.batch, **row.data))
    others = {}
    if row.peer and importlib.util.find_spec("torch"):
        others = {workers: Contender(row.batch, row.peer(workers)) for workers in WORKERS}
    taking_part = [ours, *others.values()]
    for one in taking_part:
        for _ in range(
            SMALL.count // row.batch if row.batch == BATCHES[SMALL] else READY
        ):  # an epoch of small pictures
            next(one.batches)
    for number in range(ROUNDS):
        for one in taking_part if number % 2 else taking_part[::-1]:
            one.run()
    say(row.source)
    peer, ratio = ("" if not row.peer or others else "torch is not installed"), ""
    if others:
        workers, best = max(others.items(), key=lambda item: median(item[1].rates))
        peer = f"{spread(best.rates, 1, 0)}, {workers} workers"
        ratio = spread([a / b for a, b in zip(ours.rates, best.rates, strict=True)])
    return row.source, str(row.batch), spread(ours.rates, 1, 0), peer, ratio


@contextlib.contextmanager
def _folder() -> Any:
    """A temporary folder, which is also that of the cache where `data.folder` keeps what it found."""
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["XDG_CACHE_HOME"] = temporary
        yield Path(temporary)


def sources() -> list[str]:
    """Reads them all, and makes the table."""
    lines = []
    with _folder() as root:
        say("writes the data sets")
        written(root)
        for row in rows(root):
            lines.append(measured(row))
            gc.collect()  # ends the processes of this line
    return page.table(("source", "batch", "rfjax, examples/s", "DataLoader, examples/s", "ratio"), lines)


def stored() -> list[str]:
    """Reads encodings of SD3's size, and makes the table."""
    from rfjax.encoders.text import Stored

    rng = np.random.default_rng(1)
    text = {"context": rng.normal(size=(STORED, *STORED_TEXT)).astype(np.float16)}
    text["pooled"] = rng.normal(size=(STORED, STORED_POOLED)).astype(np.float16)
    side, _, channels = STORED_LATENT
    with _folder() as root:
        files.write_latents(root / "latents", STORED, STORED_LATENT, **text)
        settings = {"name": "latents", "path": str(root / "latents"), "image_size": side, "channels": channels}
        one = Contender(STORED_BATCH, our_batches(Stored(*STORED_TEXT, STORED_POOLED), STORED_BATCH, **settings))
        for _ in range(ROUNDS):
            one.run()
        size = 2 * (np.prod(STORED_LATENT) + np.prod(STORED_TEXT) + STORED_POOLED)
        figures = spread(one.rates, 1, 0), spread([rate * size / 1e9 for rate in one.rates], 1, 2)
        del one
    return page.table(
        ("stored encodings", "batch", "examples/s", "GB/s"), [("SD3's size", str(STORED_BATCH), *figures)]
    )


def step() -> list[str]:
    """The step with data from the pipeline and with a batch that lies ready, in turn."""
    import jax

    from benchmarks import networks, overheads
    from rfjax.training import mesh as meshes
    from rfjax.training.state import initial_state
    from rfjax.training.step import jit_update

    shape = networks.mmdit(DEPTH, STEP_BATCH)
    rng = np.random.default_rng(1)
    text = {
        "context": rng.normal(size=(1024, *shape.text)).astype(np.float16),
        "pooled": rng.normal(size=(1024, shape.pooled)).astype(np.float16),
    }
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        files.write_latents(folder / "latents", 1024, (shape.side, shape.side, shape.channels), **text)
        run = networks.config(shape)
        facts = dataclasses.replace(run.data, name="latents", path=str(folder / "latents"))
        context = stack.enter_context(overheads.prepared(dataclasses.replace(run, data=facts), folder))
        batches, seed = overheads.stream(context), context.everywhere(np.uint32(run.training.seed))
        waits: list[float] = []

        def put() -> Any:
            began = time.perf_counter()
            batch = meshes.put_rows(next(batches), STEP_BATCH, context.mesh)
            waits.append(time.perf_counter() - began)
            return batch

        ready, sample_noise = put(), context.noise()
        state, update = initial_state(context.spec, context.mesh, 0), jit_update(context.spec, context.mesh)

        def turn(batch_of: Callable[[], Any]) -> float:
            nonlocal state
            began = time.perf_counter()
            for _ in range(STEPS):
                batch = context.encode(batch_of(), seed, state.step)
                state, _ = update(state, batch, sample_noise(state.step, batch["slot"]))
            jax.block_until_ready(state)
            return (time.perf_counter() - began) / STEPS

        ways = {"ready": lambda: ready, "fed": put}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(-1, STEP_ROUNDS):  # the first is not counted
            for name in sorted(ways, reverse=number % 2 == 0):  # whoever comes second may find the machine busier
                times[name].append(turn(ways[name]))
            say(f"step, round {number + 1} of {STEP_ROUNDS}")
        ready_times, fed_times = (times[name][1:] for name in ("ready", "fed"))
    ratio = spread([fed / still for fed, still in zip(fed_times, ready_times, strict=True)], 1, 3)
    row = [spread(found, 1, 3) for found in (ready_times, fed_times)] + [ratio, spread(waits[1 + STEPS :], 1e-3, 1)]
    head = ("with a batch that lies ready, s", "fed by the pipeline, s", "ratio", "of it for the batch, ms")
    return page.table(("step", *head), [(f"MM-DiT, d = {DEPTH}, batch {STEP_BATCH}", *row)])


def main(words: Sequence[str]) -> None:
    """Runs the parts that the words name, and shows their tables."""
    memory.keep()  # as `rfjax.main` does
    parts = {"sources": sources, "stored": stored, "step": step}
    asked = [word for word in words if not word.startswith("--")] or list(parts)
    lines: list[str] = []
    for word in asked:
        lines += [*([""] if lines else []), *parts[word]()]
    page.show("data", lines)


if __name__ == "__main__":
    main(sys.argv[1:])
