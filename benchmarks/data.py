"""Examples a second of each data source, beside torch's DataLoader on the same files; and whether a step waits.

    python -m benchmarks.data [sources] [step] [--record]       by default both: 5 minutes on two cores

Writes small data sets into a temporary folder: 2,048 pictures of 96 x 96 and 256 of 384 x 384, half of them JPEG and
half PNG, the small ones also as a TFDS data set in ArrayRecord files, and 20,000 latents of 32 x 32 x 4 in float16 with
labels (164 MB). All of it lies in the page cache.

- sources: rfjax's own pipeline, `data.batches`, shuffled, with text encoded and batches assembled, against a DataLoader
  that is shuffled too, with a Dataset as one would write it: Pillow's decoding and resizing for pictures, a row of
  `np.load(mmap_mode="r")` for latents, and the default collation; the better of 0 and 2 workers, which stay alive.
  Prints medians of ROUNDS of examples a second with the smallest and the largest, each in turn for SECONDS once the
  batches that lay ready are gone, and the ratio of each round. shapes, digits and what rfjax keeps in memory have no
  peer; a DataLoader decodes again in every epoch. Expect over 20,000 latents a second.
- step: seconds a step of MM-DiT, d = 4, batch 64, as the loop runs it, fed by the pipeline with latents and stored
  encodings, over the same step with one batch that lies ready; the two in turn, STEPS steps each. Expect at most 1.03.
  Also prints how long each step took for its batch, until it was on its way to the device.
"""

import contextlib
import dataclasses
import importlib.util
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import page
from benchmarks.race import say, spread
from rfjax import memory
from rfjax.data import pipeline

ROUNDS, SECONDS = 5, 1.0
READY = 2 + max(4, pipeline.threads())  # batches: more than lie in rfjax's buffer, or for two workers of a DataLoader
PICTURE_BATCH = 64
LATENTS, LATENT, CLASSES, LATENT_BATCH = 20_000, (32, 32, 4), 1000, 256
WORKERS = (0, 2)
DEPTH, STEP_BATCH, STEP_ROUNDS, STEPS = 4, 64, 9, 6

Batches = Iterator[Any]


@dataclasses.dataclass(frozen=True)
class Pictures:
    """So many square pictures of `stored` pixels a side, half JPEG and half PNG, which are to be read at `side`."""

    count: int
    stored: int
    side: int


SMALL, LARGE = Pictures(2048, 96, 64), Pictures(256, 384, 256)


@dataclasses.dataclass
class Contender:
    """A source, read by rfjax or by its peer.

    Attributes:
        source: in the table. batch: examples. workers: of the DataLoader; -1: rfjax. batches: without an end.
        rates: examples a second of each round.
    """

    source: str
    batch: int
    workers: int
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


def picture(rng: np.random.Generator, side: int) -> Image.Image:
    """Soft patches of colour with some grain, about as large in a file as a photograph of this size."""
    patches = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((side, side), Image.BICUBIC)
    return Image.fromarray(np.clip(np.asarray(patches) + rng.normal(0, 4, (side, side, 3)), 0, 255).astype("u1"))


def encoded(image: Image.Image, kind: str) -> bytes:
    """The bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return file.getvalue()


def write_pictures(folder: Path, pictures: Pictures) -> None:
    """A folder as `data.folder` reads it."""
    rng, lines = np.random.default_rng(0), []
    folder.mkdir()
    for number in range(pictures.count):
        kind = ("JPEG", "PNG")[number % 2]
        name = f"{number}.{kind.lower()}"
        (folder / name).write_bytes(encoded(picture(rng, pictures.stored), kind))
        lines.append(f'{{"file": "{name}", "caption": "picture number {number}", "split": "train"}}\n')
    (folder / "captions.jsonl").write_text("".join(lines))


def write_records(folder: Path, pictures: Path) -> None:
    """The same pictures as a prepared TFDS data set."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    core = tfds.core

    class Builder(core.GeneratorBasedBuilder, skip_registration=True):
        name, VERSION = "pictures", core.Version("1.0.0")

        def _info(self) -> core.DatasetInfo:
            features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=10)}
            return core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True)

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
            for number, file in enumerate(files_of(pictures)):
                yield number, {"image": file.read_bytes(), "label": number % 10}

    with contextlib.redirect_stdout(sys.stderr):  # the table alone is printed
        Builder(data_dir=folder).download_and_prepare(file_format="array_record")


def files_of(folder: Path) -> list[Path]:
    """The pictures in a folder."""
    return sorted(file for file in folder.iterdir() if file.suffix in (".jpeg", ".png"))


def write_latents(folder: Path, count: int, shape: tuple[int, ...], **others: np.ndarray) -> None:
    """A folder as `data.latents` reads it; others: its other files."""
    (folder / "train").mkdir(parents=True)
    (folder / "validation").mkdir()
    array = np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float16)
    for name, values in {"latents": array, **others}.items():
        np.save(folder / "train" / f"{name}.npy", values)
        np.save(folder / "validation" / f"{name}.npy", values[:1])


def read_picture(data: bytes, side: int) -> np.ndarray:
    """A picture of side x side with the channels first, as torch has it."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB").resize((side, side), Image.BICUBIC)).transpose(2, 0, 1)


class PictureFiles:
    """A torch Dataset of picture files."""

    def __init__(self, folder: Path, side: int) -> None:
        self._files, self._side = files_of(folder), side

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
        return read_picture(self._files[index].read_bytes(), self._side), f"picture number {index}"


class Records:
    """A torch Dataset of TFDS's own random access, with the pictures decoded as above."""

    def __init__(self, folder: Path) -> None:
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(folder / "pictures" / "1.0.0")
        decoders = {"image": tfds.decode.SkipDecoding()}
        self._records = builder.as_data_source("train", decoders=decoders, file_format="array_record")

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        record = self._records[index]
        return read_picture(record["image"], SMALL.side), int(record["label"])


class LatentFiles:
    """A torch Dataset of latents, memory-mapped; each worker opens the files for itself."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._arrays = folder / "train", ()

    def __len__(self) -> int:
        return LATENTS

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        self._arrays = self._arrays or tuple(
            np.load(self._folder / f"{name}.npy", mmap_mode="r") for name in ("latents", "labels")
        )
        latents, labels = self._arrays
        return np.array(latents[index]), int(labels[index])


def torch_batches(dataset: Any, batch: int, workers: int) -> Batches:
    """Batches of a DataLoader, drawn with replacement so that no epoch ends."""
    from torch.utils.data import DataLoader, RandomSampler

    sampler = RandomSampler(dataset, replacement=True, num_samples=2**40)
    how: dict[str, Any] = {"persistent_workers": True, "multiprocessing_context": "spawn"} if workers else {}
    return iter(DataLoader(dataset, batch, sampler=sampler, num_workers=workers, **how))


def our_batches(text: Any, batch: int, **settings: Any) -> Batches:
    """Batches of rfjax's pipeline; settings: of config.data."""
    from rfjax import config as configs
    from rfjax import data
    from rfjax.encoders import make_codec
    from rfjax.training.encode import EncodeStage

    config = configs.Data(**settings)
    source, stage = data.open_source(config, "train"), EncodeStage((make_codec(configs.Config(data=config)), text), ())
    return data.batches(source, stage.prepare, data.Order(batch, 0), names=stage.names(source))


def contenders(root: Path) -> list[Contender]:
    """All of them, with their files in a new folder."""
    from rfjax.encoders.text import Labels, WordVectors

    words, labels = WordVectors(8, 64, 64), Labels(CLASSES)
    small, large, records, latents = (root / name for name in ("small", "large", "records", "latents"))
    write_pictures(small, SMALL)
    write_pictures(large, LARGE)
    write_records(records, small)
    numbers = np.random.default_rng(0).integers(0, CLASSES, LATENTS)
    write_latents(latents, LATENTS, LATENT, labels=numbers)
    size, larger = ({"image_size": pictures.side, "channels": 3} for pictures in (SMALL, LARGE))
    folder, photographs = size | {"name": "folder", "path": str(small)}, larger | {"name": "folder", "path": str(large)}
    tfds = size | {"name": "tfds", "dataset": "pictures", "data_dir": str(records), "train_split": "train"}
    side, _, channels = LATENT
    stored = {"name": "latents", "path": str(latents), "image_size": side, "channels": channels}
    decoded, kept = "decoded each time", "the same, kept in memory"
    of = {pictures: f"{pictures.stored} x {pictures.stored} pictures" for pictures in (SMALL, LARGE)}
    ours = [
        ("shapes, drawn at 16 x 16", PICTURE_BATCH, words, {"image_size": 16}),
        ("digits, 8 x 8", PICTURE_BATCH, words, {"name": "digits", "image_size": 8, "channels": 1}),
        (f"folder: {of[LARGE]}, {decoded}", PICTURE_BATCH, words, photographs | {"cache_mb": 0.0}),
        (f"folder: {of[SMALL]}, {decoded}", PICTURE_BATCH, words, folder | {"cache_mb": 0.0}),
        (f"folder: {kept}", PICTURE_BATCH, words, folder),
        (f"tfds: {of[SMALL]}, {decoded}", PICTURE_BATCH, words, tfds | {"cache_mb": 0.0}),
        (f"tfds: {kept}", PICTURE_BATCH, words, tfds),
        ("latents, 32 x 32 x 4, float16", LATENT_BATCH, labels, stored),
    ]
    found = [Contender(name, batch, -1, our_batches(text, batch, **data)) for name, batch, text, data in ours]
    if importlib.util.find_spec("torch"):
        peers: dict[int, Any] = {2: PictureFiles(large, LARGE.side), 3: PictureFiles(small, SMALL.side)}
        peers |= {5: Records(records), 7: LatentFiles(latents)}
        for place, dataset in peers.items():
            name, batch, *_ = ours[place]
            found += [Contender(name, batch, n, torch_batches(dataset, batch, n)) for n in WORKERS]
    return found


def sources() -> list[str]:
    """Reads them all in turn, and makes the table."""
    from statistics import median

    with tempfile.TemporaryDirectory() as temporary:
        os.environ["XDG_CACHE_HOME"] = temporary  # where `data.folder` keeps what it found
        say("writes the data sets, and starts the workers")
        taking_part = contenders(Path(temporary))
        for one in taking_part:
            for _ in range(SMALL.count // PICTURE_BATCH):  # an epoch, after which rfjax has the pictures in memory
                next(one.batches)
        for number in range(ROUNDS):
            for one in taking_part:
                one.run()
            say(f"round {number + 1} of {ROUNDS}")
        rows = []
        for ours in (one for one in taking_part if one.workers < 0):
            peers = [one for one in taking_part if one.source == ours.source and one.workers >= 0]
            peer, ratio = ("" if importlib.util.find_spec("torch") else "torch is not installed"), ""
            if peers:
                best = max(peers, key=lambda one: median(one.rates))
                peer = f"{spread(best.rates, 1, 0)}, {best.workers} workers"
                ratio = spread([a / b for a, b in zip(ours.rates, best.rates, strict=True)])
            rows.append((ours.source, str(ours.batch), spread(ours.rates, 1, 0), peer, ratio))
        del taking_part[:]
    return page.table(("source", "batch", "rfjax, examples/s", "DataLoader, examples/s", "ratio"), rows)


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
        write_latents(folder / "latents", 1024, (shape.side, shape.side, shape.channels), **text)
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
    parts = {"sources": sources, "step": step}
    asked = [word for word in words if not word.startswith("--")] or list(parts)
    lines: list[str] = []
    for word in asked:
        lines += [*([""] if lines else []), *parts[word]()]
    page.show("data", lines)


if __name__ == "__main__":
    main(sys.argv[1:])
