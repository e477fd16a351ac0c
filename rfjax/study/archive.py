"""The job `archive`: exactly N pictures of one model in one .npz file, as ADM's evaluator and its kin read them.

WORKDIR/samples.npz has `arr_0`, uint8 (N, H, W, C), and `arr_1`, int64 (N,), the class labels; a model of text has
`captions` in their place. Where the model has no decoder `arr_0` holds its latents, float32, as the network makes them.
WORKDIR/archive.json has all that the pictures depend on.

All processes draw each batch together, and process 0 writes it to WORKDIR/parts. A job that was killed goes on with the
first batch that is missing, and ends in the same bytes; the parts become the archive one by one, so the pictures are
never in memory together.
"""

import functools
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int64, Shaped

from rfjax import config as configs
from rfjax import data
from rfjax.config import Config
from rfjax.data.hashing import fractions
from rfjax.errors import UserError
from rfjax.evaluation.archives import CAPTIONS, IMAGES, LABELS
from rfjax.evaluation.sampler import Sampleable, make_settings, sample_batch
from rfjax.evaluation.validation import gather
from rfjax.jsonl import write_json
from rfjax.study import archive_parts
from rfjax.study.archive_parts import NAME
from rfjax.study.folder import Session, describe_environment
from rfjax.study.generate import prepare_folder, preset_applied
from rfjax.study.jobs import Job, Task
from rfjax.study.model_source import label_of, open_network
from rfjax.study.pictures import describe_sampling
from rfjax.training import mesh as meshes
from rfjax.training.context import check_shapes
from rfjax.training.encode import EncodeStage
from rfjax.training.fingerprint import fingerprint
from rfjax.training.log import Display
from rfjax.training.processes import from_first
from rfjax.training.stop import Interrupted, Stop
from rfjax.training.weights import Weights
from rfjax.untrusted import read_json

ABOUT = "archive.json"


def make_job(config: Config, started: float) -> Job:
    """Finds the model of `config.generate.source`; the job writes the archive to `config.workdir`.

    Args:
        config: of the job.
        started: `time.time()` at the start of the process.

    Raises:
        UserError: for what the user can mend, before anything is compiled: also if the folder holds another archive.
    """
    config = preset_applied(config)
    request, folder = config.generate, Path(config.workdir)
    model, stage, network = open_network(config)
    network = replace(network, codec=rounded(network.codec, config.archive.rounding))
    asked = find_captions(config, model)
    archive = Archive(config, model, network, stage, asked)
    prepare_folder(folder)
    claim(folder, archive.about)
    task = Task(label_of(Path(request.source)), folder, archive.batches, 1, lambda: False, archive.make, _summary)
    return Job(config, [task], Session(started), archive.batches, shared=False)


class Asked(NamedTuple):
    """What the pictures of a batch show: the prepared text, and what the archive says of it (labels or captions)."""

    arrays: Mapping[str, np.ndarray]
    said: Shaped[np.ndarray, " b"]


@dataclass(frozen=True)
class Captions:
    """Class labels, or the captions of a data set, by the pictures' indices.

    Attributes:
        text: the model's encoder of them.
        labels: "random", "balanced" or "captions".
        seed: of random labels.
        source: the data set of captions; None for labels.
    """

    text: Any
    labels: str
    seed: int
    source: data.Source | None = None

    @property
    def member(self) -> str:
        """The archive's member that says them."""
        return LABELS if self.text.classes else CAPTIONS

    def __call__(self, index: Int64[np.ndarray, " b"]) -> Asked:
        """What these pictures show."""
        if self.source is None:
            labels = class_labels(index, self.text.classes, self.labels, self.seed)
            return Asked(self.text.prompts([str(label) for label in labels.tolist()]), labels)
        names = [name for name in self.text.reads if name in self.source.fields]
        found = data.take(self.source, [int(i) % len(self.source) for i in index], names)
        arrays = self.text.prepare(found.arrays, found.captions)
        said = arrays["label"].astype(np.int64) if self.text.classes else np.array(found.captions)
        return Asked(arrays, said)


def class_labels(index: Int64[np.ndarray, " b"], classes: int, kind: str, seed: int) -> Int64[np.ndarray, " b"]:
    """The class of each picture: uniform at random by (seed, index), or each class in turn ("balanced")."""
    if kind == "balanced":
        return index % classes
    return (fractions(index, seed, 1)[:, 0] * classes).astype(np.int64)


def find_captions(config: Config, model: Weights) -> Captions:
    """What to draw.

    Raises:
        UserError: if the model has no class labels, or its data are needed and can't be opened.
    """
    labels, text = config.archive.labels, model.spec.text
    if labels != "captions" and not text.classes:
        raise UserError(
            f"config.archive.labels = '{labels}' is for models of class labels, and this one reads text: set it to "
            "'captions' to draw the captions of its validation data"
        )
    source = None
    if labels == "captions":
        source = data.open_source(model.config.data, "validation")
        check_shapes(source, model.spec)
    return Captions(text, labels, config.generate.seed, source)


def rounded(codec: Any, rounding: str) -> Any:
    """The codec with this rounding of pixels.

    Raises:
        UserError: if its decoder has a rounding of its own.
    """
    if hasattr(codec, "rounding"):
        return replace(codec, rounding=rounding)
    if codec.pictures and rounding != "sit":
        raise UserError(
            f"config.archive.rounding = '{rounding}': this model's decoder rounds in its own way, set 'sit'"
        )
    return codec


@dataclass(frozen=True)
class Archive:
    """Pictures to make.

    Attributes:
        config: of the job.
        model: the weights and the run that they are of.
        network: the same, at the size of the pictures.
        stage: the encoders.
        asked: what the pictures show.
    """

    config: Config
    model: Weights
    network: Sampleable
    stage: EncodeStage
    asked: Captions

    @property
    def count(self) -> int:
        """Of the pictures."""
        return self.config.generate.count

    @property
    def batch(self) -> int:
        """Pictures at once."""
        return min(self.config.generate.batch, self.count)

    @property
    def batches(self) -> int:
        """How many there are; the last may be filled up with pictures that are thrown away."""
        return -(-self.count // self.batch)

    @functools.cached_property
    def about(self) -> dict[str, Any]:
        """All that the bytes of the archive depend on, as plain values."""
        codec, marks = self.network.codec, np.asarray(fingerprint(self.model.params)).tobytes()
        return describe_sampling(self.config, self.model, codec.shape) | {
            "count": self.count,
            "batch": self.batch,
            "labels": self.config.archive.labels,
            "content": "uint8 pictures" if codec.pictures else "float32 latents, as the network makes them",
            "rounding": self.config.archive.rounding if codec.pictures else None,
            "latent_scale": getattr(codec, "scale", None),
            "fingerprint": hashlib.sha256(marks).hexdigest()[:16],
        }

    def make(self, display: Display, stop: Stop) -> dict[str, Any]:
        """Draws the batches that are missing, then puts the archive together."""
        folder, began, first = Path(self.config.workdir), time.monotonic(), jax.process_index() == 0
        whole = from_first(first and (folder / NAME).exists())
        done = self.batches if whole else from_first(archive_parts.first_missing(folder, self.batches) if first else 0)
        display.say(f"{done} of {self.batches} batches are there" if done else "compiling the sampler and drawing")
        display.advance(done, "")
        for number in range(done, self.batches):
            self._draw(number, stop)
            display.advance(number + 1, f"{min((number + 1) * self.batch, self.count)} of {self.count}")
        if first and not whole:
            display.say("writing the archive")
            archive_parts.assemble(folder, self.count, self.batches, self.asked.member)
        if first:
            archive_parts.remove(folder)
        from_first(True)  # the other processes, which may read the archive, wait until it is there
        seconds = time.monotonic() - began
        return {
            "path": folder / NAME,
            "about": self.about,
            "drawn": self.batches - done,
            "split_seconds": {"samples": seconds},
        }

    def _draw(self, number: int, stop: Stop) -> None:
        """Draws a batch on all processes, and process 0 writes it.

        Raises:
            Interrupted: if the job was asked to stop.
            UserError: for a picture that is not finite.
        """
        request, mesh = self.config.generate, meshes.make_mesh(self.config.mesh)

        def place(values: Any) -> jax.Array:
            if stop.granted():
                raise Interrupted("stopped while drawing", stop.code)
            return meshes.place(values, mesh)

        index = np.arange(number * self.batch, (number + 1) * self.batch)
        valid = min(self.batch, self.count - index[0])
        index[valid:] = 0
        asked = self.asked(index)
        cond = self.stage.condition({name: place(array) for name, array in asked.arrays.items()})
        settings = make_settings(
            self.config.sampling, configs.Setting(request.steps, request.guidance), seed=request.seed
        )
        made = sample_batch(self.network, index.astype(np.int32), cond, settings, place)
        finite = gather(made.finite)[:valid]
        if not finite.all():
            raise UserError(
                f"{(~finite).sum()} pictures of batch {number} are not finite, the first is number "
                f"{index[:valid][~finite][0]}: the weights or the sampler's settings are no good, and nothing of the "
                "batch is written"
            )
        images = gather(made.z if made.images is None else made.images)[:valid]
        if jax.process_index() == 0:
            archive_parts.write(
                Path(self.config.workdir), number, {IMAGES: images, self.asked.member: asked.said[:valid]}
            )


def claim(folder: Path, about: dict[str, Any]) -> None:
    """Writes down what the folder's archive is, unless it holds another.

    Raises:
        UserError: if it does.
    """
    path = folder / ABOUT
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in about.items()}
    known = (read_json(path, fix="remove the folder, or choose another config.workdir") or {}).get("settings")
    if known is not None and known != plain:
        differing = [name for name in {**plain, **known} if known.get(name) != plain.get(name)]
        said = ", ".join(f"{name} is {known.get(name)!r} there and {plain.get(name)!r} here" for name in differing[:3])
        raise UserError(f"{folder} holds another archive: {said}; choose another folder with --config.workdir")
    if known is None and (folder / NAME).exists():
        raise UserError(f"{folder} has {NAME} and no {ABOUT}: choose another folder with --config.workdir")
    if known is None and jax.process_index() == 0:
        write_json(path, {"settings": plain, **describe_environment()})


def _summary(result: dict[str, Any], seconds: float) -> str:
    about = result["about"]
    lines = [
        f"{about['count']:,} {about['content']} are in {result['path']}; {result['drawn']} batches took {seconds:.1f} s"
    ]
    if about["content"].startswith("float32"):
        scale = f", divided by {about['latent_scale']:g}," if about["latent_scale"] else ""
        lines.append(f"the model has no decoder here: decode {IMAGES}{scale} before you evaluate it")
    return "\n".join(lines)
