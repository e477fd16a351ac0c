"""The job `suite`: draws all pictures of a prompt suite in its own layout, and reads its scorer's files into tables.

All processes draw each batch together, and process 0 writes the pictures of a prompt as soon as it has them all. A job
that was killed goes on with the prompts that lack a file, in the same batches, and ends in the same bytes. When all are
there, the same command makes the report anew, with what the official scorer has written meanwhile.
"""

import functools
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rfjax import config as configs
from rfjax.buckets import is_address
from rfjax.config import Config
from rfjax.config.paths import expanded
from rfjax.errors import UserError
from rfjax.evaluation import suites
from rfjax.evaluation.sampler import Sampleable, SamplerSettings, make_settings, sample_batch
from rfjax.evaluation.suites import Files, Prompt, Suite
from rfjax.evaluation.validation import gather
from rfjax.jsonl import write_json
from rfjax.study import suite_files
from rfjax.study.folder import Session, describe_environment, prepare_folder
from rfjax.study.generate import preset_applied
from rfjax.study.jobs import Job, Task
from rfjax.study.model_source import Found, check_guided, find_model
from rfjax.study.pictures import describe_sampling
from rfjax.training import mesh as meshes
from rfjax.training.encode import EncodeStage
from rfjax.training.fingerprint import fingerprint
from rfjax.training.log import Display
from rfjax.training.processes import all_from_first, check_ours
from rfjax.training.stop import Interrupted, Stop
from rfjax.training.weights import Weights

REPORT = "suites"


def make_job(config: Config, started: float) -> Job:
    """Reads the prompts of `config.suite`, and finds the model if there is anything left to draw.

    Args:
        config: of the job.
        started: `time.time()` at the start of the process.

    Raises:
        UserError: for what the user can mend, before anything is compiled: also for results of other prompts.
    """
    config = preset_applied(replace(config, study=replace(config.study, report=REPORT)))
    if config.suite.results and not is_address(config.suite.results):  # for the report, wherever it is made again
        config = replace(config, suite=replace(config.suite, results=str(Path(config.suite.results).absolute())))
    session, root, first = Session(started), Path(config.workdir), jax.process_index() == 0
    suite, prompts, count = read(config)
    placed = suite.files(prompts, count)
    done = all_from_first([first and suite_files.complete(root, one) for one in placed])
    about = {
        "suite": config.suite.name,
        "prompts": len(prompts),
        "texts": suite_files.fingerprint(prompts),
        "per_prompt": count,
    }
    if config.generate.source:
        about |= asked(config)
    suite_files.check_about(root, about)
    if config.suite.results:
        if suite.results is None:
            raise UserError(f"config.suite.results: {suite.title} has no scorer; {suite.scoring}")
        suite.results(expanded(config.suite.results, "config.suite.results"), prompts, count)
    drawn = not all(done) and bool(config.generate.source)
    if not all(done) and not drawn and not config.suite.results:
        raise UserError("config.generate.source must name the folder of a run, or a checkpoint of another project")
    drawing = Drawing(config, suite, prompts, count, placed, *(open_model(config) if drawn else (None, ())))
    trouble = prepare_folder(config, [])
    if first:
        suite_files.write_prompts(root, prompts)
        if not suite_files.read_about(root):
            write_json(root / suite_files.ABOUT, {"settings": about, **describe_environment()})
    tasks = []
    if drawn:
        complete = lambda: all(suite_files.complete(root, one) for one in placed)  # noqa: E731
        make = functools.partial(drawing.make, about)
        tasks = [Task(config.suite.name, root, drawing.batches, 1, complete, make, drawing.summary)]
    session.add({"start-up": time.time() - started})
    said = [trouble, *suite.warnings(prompts), "" if drawn else f"{sum(done):,} of {len(done):,} prompts are drawn"]
    return Job(config, tasks, session, drawing.batches, warnings=[*filter(None, said)])


def read(config: Config) -> tuple[Suite, tuple[Prompt, ...], int]:
    """The suite, its prompts, and how many pictures of each to draw.

    Raises:
        UserError: if there is no such suite, its prompts can't be read, or it has no room for so many pictures.
    """
    request, suite = config.suite, suites.find_suite(config.suite.name)
    if not request.prompts:
        raise UserError(f"config.suite.prompts must name {suite.asks}")
    if config.generate.prompts or config.generate.encodings:
        raise UserError(
            "config.generate.prompts and config.generate.encodings are for the job 'generate': the job 'suite' takes "
            "the prompts that config.suite.prompts names"
        )
    count = suite.count(request.per_prompt)
    return suite, suite.read(expanded(request.prompts, "config.suite.prompts")), count


def open_model(config: Config) -> tuple[Found, tuple[int, ...]]:
    """The model, of which no weight is read yet, and the shape of z.

    Raises:
        UserError: if there is none, or it can't draw pictures of prompts.
    """
    found = find_model(config)
    shape = found.size(config.generate)
    check_guided(config, shape[-1])
    if found.spec.text.classes:
        raise UserError("this model takes class labels, and a suite has prompts: name a model of text")
    if found.config.text.encoder == "stored":
        raise UserError("this model needs text encoders to read prompts: name their folder in config.text.path")
    if not found.spec.codec.pictures:
        raise UserError("this model makes latents: name the folder of their autoencoder in config.autoencoder.path")
    return found, shape


@dataclass(frozen=True)
class Drawing:
    """Pictures to draw.

    Attributes:
        config: of the job.
        suite: their suite.
        prompts: what they show.
        count: pictures of each prompt.
        placed: the files of each prompt.
        found: the model; None if there is nothing to draw.
        shape: of z.
    """

    config: Config
    suite: Suite
    prompts: tuple[Prompt, ...]
    count: int
    placed: tuple[Files, ...]
    found: Found | None
    shape: tuple[int, ...]

    @property
    def total(self) -> int:
        """Pictures of all prompts."""
        return len(self.prompts) * self.count

    @property
    def batch(self) -> int:
        """Pictures at once."""
        return min(self.config.generate.batch, self.total)

    @property
    def batches(self) -> int:
        """How many there are; the last may be filled up with pictures that are thrown away."""
        return -(-self.total // self.batch)

    def make(self, about: dict[str, Any], display: Display, stop: Stop) -> dict[str, Any]:
        """Draws the prompts that lack a file.

        Args:
            about: what is known of the pictures before the model is read.
        """
        root, first, began = Path(self.config.workdir), jax.process_index() == 0, time.monotonic()
        display.say("reading the weights and compiling the sampler")
        mesh = meshes.make_mesh(self.config.mesh)
        model = self.found.load()
        stage = EncodeStage.place(model.spec.encoders, mesh)
        about = about | describe(self.config, model, self.shape)
        suite_files.check_about(root, about)
        if first:
            write_json(root / suite_files.ABOUT, {"settings": about, **describe_environment()})
        done = all_from_first([first and suite_files.complete(root, one) for one in self.placed])
        drawn, kept = 0, {}
        for number in self._needed(done):
            index, images = self._draw(number, model.sampleable(stage, self.shape), stage, stop)
            for i, picture in zip(index.tolist(), images, strict=True):
                if not done[i // self.count]:
                    kept.setdefault(i // self.count, []).append(picture)
            check_ours(root)
            for prompt in [prompt for prompt, pictures in kept.items() if len(pictures) == self.count]:
                pictures = kept.pop(prompt)
                drawn += len(pictures)
                if first:
                    suite_files.write(root, self.placed[prompt], np.stack(pictures))
            display.advance(number + 1, f"{drawn:,} pictures")
        return {"drawn": drawn, "split_seconds": {"samples": time.monotonic() - began}}

    def _needed(self, done: list[bool]) -> Iterator[int]:
        """The batches with a picture of a prompt that is not done."""
        for number in range(self.batches):
            start, stop = number * self.batch, min((number + 1) * self.batch, self.total)
            if not all(done[start // self.count : -(-stop // self.count)]):
                yield number

    def _draw(self, number: int, network: Sampleable, stage: EncodeStage, stop: Stop) -> tuple[np.ndarray, np.ndarray]:
        """The indices and the pictures of a batch, on all processes.

        Raises:
            Interrupted: if the job was asked to stop.
            UserError: for a picture that is not finite.
        """
        mesh = meshes.make_mesh(self.config.mesh)

        def place(values: Any) -> jax.Array:
            if stop.granted():
                raise Interrupted("stopped while drawing", stop.code)
            return meshes.place(values, mesh)

        index = np.arange(number * self.batch, (number + 1) * self.batch)
        valid = int(min(self.batch, self.total - index[0]))
        index[valid:] = 0
        arrays = self.found.spec.text.prompts([self.prompts[i // self.count].text for i in index.tolist()])
        cond = stage.condition({name: place(array) for name, array in arrays.items()})
        made = sample_batch(network, index.astype(np.int32), cond, self._settings, place)
        finite = gather(made.finite)[:valid]
        if not finite.all():
            broken = self.prompts[index[:valid][~finite][0] // self.count]
            raise UserError(
                f"{(~finite).sum()} pictures of batch {number} are not finite, the first is of '{broken.text}': the "
                "weights or the sampler's settings are no good, and nothing of the batch is written"
            )
        return index[:valid], gather(made.images)[:valid]

    @functools.cached_property
    def _settings(self) -> SamplerSettings:
        request = self.config.generate
        one = configs.Setting(request.steps, request.guidance)
        return make_settings(self.config.sampling, one, seed=request.seed)

    def summary(self, result: dict[str, Any], seconds: float) -> str:
        """What the terminal shows when the pictures are there."""
        cuts = getattr(self.found.spec.text, "cuts", None)
        images = Path(self.config.workdir) / suite_files.IMAGES
        lines = [f"{result['drawn']:,} pictures of {self.suite.title} are drawn in {seconds:.1f} s: {images}"]
        return "\n".join([*lines, *filter(None, [cuts.sentence() if cuts else ""])])


def asked(config: Config) -> dict[str, Any]:
    """What the config alone says of the pictures, as `describe` names it."""
    request = config.generate
    source = request.source if is_address(request.source) else str(Path(request.source).resolve())
    names = ("steps", "guidance", "seed", "weights")
    return {"source": source, "sampler": config.sampling.sampler} | {name: getattr(request, name) for name in names}


def describe(config: Config, model: Weights, shape: tuple[int, ...]) -> dict[str, Any]:
    """What the pictures depend on besides their prompts."""
    marks = np.asarray(fingerprint(model.params)).tobytes()
    return describe_sampling(config, model, shape) | {"fingerprint": hashlib.sha256(marks).hexdigest()[:16]}
