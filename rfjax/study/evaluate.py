"""The job `evaluate`: draws what is missing, measures it by the metrics of `config.sampling`, and reports.

`config.evaluate.source` is a study or a run (each checkpoint and each setting of the sampler is a set of pictures),
another project's checkpoint, an archive or a folder of pictures, or an autoencoder. A set is a task: it has a folder in
WORKDIR/sets, jobs share the sets by their locks, and a job that was killed draws the batches that are missing.

Each set's metrics.json has the numbers, their standard errors, and the protocol of each: the network, how it sees a
picture, the reference, the sampler, the number of pictures.
"""

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax

from rfjax import config as configs
from rfjax import data
from rfjax.buckets import mirror
from rfjax.config import Config
from rfjax.config.paths import expanded
from rfjax.data.images import EXTENSIONS
from rfjax.errors import UserError
from rfjax.evaluation import picture_sets
from rfjax.evaluation.metrics import OWN, make_metrics
from rfjax.study import archive, archive_parts, evaluate_reconstructions, records
from rfjax.study.evaluate_sets import Measured, measure, summary
from rfjax.study.folder import Session, prepare_folder
from rfjax.study.generate import preset_applied
from rfjax.study.jobs import Job, Task
from rfjax.study.model_source import is_run, label_of, open_network
from rfjax.study.reports.evaluate import RESULT, SETS
from rfjax.training import mesh as meshes
from rfjax.training import weights
from rfjax.training.log import Display
from rfjax.training.stop import Interrupted, Stop
from rfjax.untrusted import Unreadable, read_json

AUTOENCODER = "autoencoder"  # of config.evaluate.source
LABELLED = 10_000  # examples among which captions of labels are looked for


@dataclass(frozen=True)
class Subject:
    """A set of pictures to measure.

    Attributes:
        name: of its folder.
        source: a run, a checkpoint, an archive or a folder.
        drawn: whether a model draws them first.
        step: of the checkpoint; 0: the newest.
        weights: "ema" or "raw".
        setting: of the sampler; None of pictures that are there.
    """

    name: str
    source: Path
    drawn: bool
    step: int = 0
    weights: str = "ema"
    setting: configs.Setting | None = None


def make_job(config: Config, started: float) -> Job:
    """Finds the sets of pictures; the job measures those that are missing in `config.workdir`.

    Raises:
        UserError: for what the user can mend, before anything is drawn.
    """
    session, root = Session(started), Path(config.workdir)
    if config.evaluate.source == AUTOENCODER:
        return evaluate_reconstructions.make_job(config, session)
    subjects = find(config)
    trouble = prepare_folder(config, [])
    tasks = []
    for subject in subjects:
        folder = root / SETS / subject.name
        if jax.process_index() == 0:
            folder.mkdir(parents=True, exist_ok=True)
        one = Evaluation(config, subject, folder)
        tasks.append(Task(subject.name, folder, one.batches, 1, one.complete, one.run, summary))
    session.add({"start-up": time.time() - started})
    return Job(config, tasks, session, sum(task.steps for task in tasks), warnings=[*filter(None, [trouble])])


def find(config: Config) -> list[Subject]:
    """The sets of `config.evaluate.source`.

    Raises:
        UserError: if it holds nothing to measure.
    """
    named = config.evaluate.source
    if not named:
        raise UserError(
            "config.evaluate.source is empty: name a study, a run, a checkpoint, an archive (.npz), a folder of "
            f"pictures, or {AUTOENCODER}"
        )
    source = mirror.reading(expanded(named, "config.evaluate.source"), "config.evaluate.source")
    if not source.exists():
        raise UserError(f"there is no {source}: config.evaluate.source must be a study, a run, an archive or a folder")
    if (source / "study.json").is_file():
        runs = [run.folder for run in records.first_seeds(records.read(source).runs, config.sampling.seeds)]
        found = [subject for folder in runs for subject in _of_run(folder, config)]
        if not found:
            raise UserError(f"no run of {source} has a checkpoint yet: train them first")
        return found
    if is_run(source):
        return _of_run(source, config)
    if source.suffix.lower() in EXTENSIONS:
        raise UserError(f"{source} is one picture, and metrics measure sets: let config.evaluate.source be its folder")
    if (source / archive_parts.NAME).is_file():  # the folder of the job `archive`
        return [Subject(label_of(source), source / archive_parts.NAME, drawn=False)]
    if source.suffix == ".npz" or (source.is_dir() and not _is_model(source)):
        return [Subject(label_of(source), source, drawn=False)]
    return _settings(label_of(source), source, 0, ("ema",), config)


def _is_model(folder: Path) -> bool:
    """Whether a folder is another project's model, and not one of pictures."""
    return any(folder.glob("*.json")) or any(folder.glob("*.safetensors"))


def _of_run(folder: Path, config: Config) -> list[Subject]:
    steps = weights.kept_steps(folder)
    if config.evaluate.checkpoints == "last":
        steps = steps[-1:]
    kinds = ("raw", "ema") if config.sampling.weights == "both" else (config.sampling.weights,)
    return [
        subject
        for step in steps
        for subject in _settings(f"{folder.name}_step{step}" if step else folder.name, folder, step, kinds, config)
    ]


def _settings(name: str, source: Path, step: int, kinds: Sequence[str], config: Config) -> list[Subject]:
    return [
        Subject(f"{name}_{kind}_{one.name}", source, drawn=True, step=step, weights=kind, setting=one)
        for kind in kinds
        for one in map(configs.setting, config.sampling.settings)
    ]


def by_label(config: Config, owner: Config | None) -> tuple[str, ...]:
    """Captions of class labels: of the names in `config.evaluate.classes_file`, or as a model's own data write them.

    Args:
        config: of the job.
        owner: the config of a model of class labels; None of other pictures.

    Raises:
        UserError: if the file can't be read.
    """
    if config.evaluate.classes_file:
        path = Path(expanded(config.evaluate.classes_file, "config.evaluate.classes_file"))
        try:
            names = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"config.evaluate.classes_file: {path} can't be read ({error})") from error
        return tuple(f"a photo of a {name.strip()}" for name in names if name.strip())
    if owner is None or owner.data.name == "none":
        return ()
    source = data.open_source(owner.data, "validation")
    if "label" not in source.fields:
        return ()
    found = data.take(source, range(min(len(source), LABELLED)), ["label"])
    captions = dict(zip(found.arrays["label"].tolist(), found.captions, strict=True))
    return tuple(captions.get(label, "") for label in range(max(captions) + 1))


@dataclass(frozen=True)
class Evaluation:
    """One set's part of the job.

    Attributes:
        config: of the job.
        folder: of the set.
    """

    config: Config
    subject: Subject
    folder: Path

    @property
    def batches(self) -> int:
        """To draw and to measure, about."""
        return 2 * -(-self.config.generate.count // self.config.generate.batch)

    def complete(self) -> bool:
        """Whether the numbers are there, of as many pictures and of the seed that are asked for.

        Drawing others into the same folder is then refused by what the folder says of its archive.
        """
        try:
            record = read_json(self.folder / RESULT)
        except Unreadable:
            return False
        if record is None or not self.subject.drawn:
            return record is not None
        about, request = record.get("about") or {}, self.config.generate
        return (about.get("count"), about.get("seed")) == (request.count, request.seed)

    def run(self, display: Display, stop: Stop) -> dict[str, Any]:
        """Draws the pictures if need be, measures them, and writes the numbers."""
        began, subject = time.monotonic(), self.subject
        drawn = self._opened() if subject.drawn else None
        path = self.folder / archive_parts.NAME if subject.drawn else subject.source
        owner = drawn.model.config if drawn else self.config
        labelled = drawn is not None and drawn.model.spec.text.classes
        captions = by_label(self.config, owner if labelled else None)
        metrics = make_metrics(self._measuring(owner))  # a wrong name or file is refused before hours of drawing
        if drawn:
            drawn.make(display, stop)
        seconds = {"samples": time.monotonic() - began}
        pictures = picture_sets.open_set(path, captions)
        began = time.monotonic()
        found = measure(metrics, pictures, self.config, functools.partial(self._place, stop), display)
        seconds["metrics"] = time.monotonic() - began
        about = {"source": str(subject.source)}
        if drawn:
            about = drawn.about | {"aligned": owner.alignment.active}
        made = Measured(subject.name, about, owner.to_dict()["model"] if drawn else {}, len(pictures), found)
        result = made.write(self.folder, seconds)
        if drawn and jax.process_index() == 0 and not self.config.evaluate.keep:
            (self.folder / archive_parts.NAME).unlink(missing_ok=True)
        return result | {"split_seconds": seconds}

    def _measuring(self, owner: Config) -> Config:
        """The config that metrics are made by: the model's data, the job's metrics and files."""
        sampling, known = self.config.sampling, self.subject.drawn
        names = tuple(name for name in sampling.metrics if known or name != OWN)
        if not names:
            raise UserError(
                "config.sampling.metrics names no metric for pictures that are there already: add fid, clip_score or "
                "others"
            )
        made = replace(owner, sampling=replace(sampling, metrics=names), evaluate=self.config.evaluate)
        return replace(made, workdir=self.config.workdir)

    def _opened(self) -> archive.Archive:
        """The model, and what of it is to be drawn; nothing is drawn yet."""
        subject, one, config = self.subject, self.subject.setting, self.config
        assert one is not None
        request = replace(
            config.generate,
            source=str(subject.source),
            step=subject.step,
            weights=subject.weights,
            steps=one.steps,
            guidance=one.guidance,
            preset=one.preset,
        )
        asked = preset_applied(replace(config, generate=request, workdir=str(self.folder)))
        model, stage, network = open_network(asked)
        if not model.spec.text.classes:
            asked = replace(asked, archive=replace(asked.archive, labels="captions"))
        network = replace(network, codec=archive.rounded(network.codec, asked.archive.rounding))
        if not network.codec.pictures:
            raise UserError(
                f"{subject.source} makes latents, and metrics measure pictures: name its autoencoder in "
                "config.autoencoder.path"
            )
        opened = archive.Archive(asked, model, network, stage, archive.find_captions(asked, model))
        archive.claim(self.folder, opened.about)
        return opened

    def _place(self, stop: Stop, values: Any) -> jax.Array:
        if stop.granted():
            raise Interrupted(f"stopped while measuring {self.subject.name}", stop.code)
        return meshes.place(values, meshes.make_mesh(self.config.mesh))
