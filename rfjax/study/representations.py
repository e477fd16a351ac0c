"""The job `representations`: measures the hidden states of models that are there, at every checkpoint that was kept."""

import contextlib
import functools
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax

from rfjax import data, flow, models
from rfjax.buckets import mirror
from rfjax.config import Config
from rfjax.errors import UserError
from rfjax.jsonl import FILE, read_lines, write_json
from rfjax.study import records, resampling
from rfjax.study.folder import Session, prepare_folder
from rfjax.study.jobs import Job, Task
from rfjax.study.model_source import is_run, label_of
from rfjax.training import mesh as meshes
from rfjax.training import provenance, weights
from rfjax.training.clock import Clock
from rfjax.training.context import RunContext, check_fields
from rfjax.training.encode import EncodeStage
from rfjax.training.log import Display, Metrics
from rfjax.training.measurements.representations import KIND, Representations, kinds_of_weights, setting_of
from rfjax.training.processes import check_ours
from rfjax.training.run import CONFIG, RESULT, Run
from rfjax.training.spec import make_run_spec
from rfjax.training.stop import Stop
from rfjax.training.watchdog import Watchdog


@dataclass(frozen=True)
class Subject:
    """A model to measure.

    Attributes:
        run: its name, the config that it is measured by, and the folder of the lines.
        source: the folder of the run, or the checkpoint of another project.
        steps: of its checkpoints; 0 of weights alone.
        found: the data that it was trained on; None if it brought none.
    """

    run: Run
    source: Path
    steps: tuple[int, ...]
    found: resampling.Record | None

    def missing(self) -> list[tuple[int, str, float]]:
        """What is not measured yet: (step, kind of weights, noise level)."""
        lines, _ = read_lines(self.run.folder / FILE)
        done = {(line["step"], line["weights"], line["setting"]) for line in lines if line["kind"] == KIND}
        return [
            (step, kind, t)
            for step in self.steps
            for kind in kinds_of_weights(self.run.config)
            for t in self.run.config.representations.levels
            if (step, kind, setting_of(t)) not in done
        ]


def make_job(config: Config, started: float) -> Job:
    """Finds the models of `config.study.source`; the job measures what is missing in `config.workdir`.

    Raises:
        UserError: if the source holds no weights, was trained on data that are not these, or can't be measured so.
    """
    session = Session(started)
    subjects, warnings = find(config)
    for subject in subjects:
        opened, spec = sources(subject), make_run_spec(subject.run.config)
        check_fields(opened["validation"], spec.encoders[:1], spec)
        Representations().check(subject.run.config, opened)
    trouble = prepare_folder(config, [subject.run.name for subject in subjects])
    tasks = [_task(subject) for subject in subjects]
    session.add({"start-up": time.time() - started})
    flops = sum(task.steps * task.step_flops for task in tasks)
    return Job(config, tasks, session, flops, warnings=[*warnings, *filter(None, [trouble])])


def find(config: Config) -> tuple[list[Subject], list[str]]:
    """The models of `config.study.source`, and sentences on those that are left out.

    Raises:
        UserError: if there is none.
    """
    source = mirror.reading(config.study.source, "config.study.source")
    if not config.study.source or not source.exists():
        raise UserError(
            f"config.study.source = '{config.study.source}' must be the folder of a study or of a run, or a checkpoint"
        )
    if not (source / "study.json").is_file() and not is_run(source):
        return [_imported(source, config)], []
    if (source / "study.json").is_file():
        runs = records.first_seeds(records.read(source).runs, config.sampling.seeds)
    else:
        runs = tuple(filter(None, [records.read_run(source)]))
    if not runs:  # weights that were imported, and saw no data here
        return [_imported(source, config)], []
    found = resampling.find_data(runs, config)
    subjects = [_subject(run.name, run.folder, found[run.name], config) for run in runs]
    kept = [subject for subject in subjects if subject.steps]
    if not kept:
        raise UserError(f"no run of {source} has a checkpoint yet: train them first")
    lost = [subject.run.name for subject in subjects if not subject.steps]
    return kept, [f"{name} is left out because it has no checkpoint" for name in lost]


def _subject(name: str, source: Path, found: resampling.Record | None, config: Config) -> Subject:
    own = weights.read_config(source)
    return Subject(_run(name, own, config), source, weights.kept_steps(source), found)


def _imported(source: Path, config: Config) -> Subject:
    """Weights of another project, or imported ones, on the job's own data."""
    if is_run(source):
        return _subject(label_of(source), source, None, config)
    from rfjax import interop

    with interop.DEFAULTS.open(source) as tensors:
        own = interop.inspect(tensors, config.generate.layout).config
    return Subject(_run(label_of(source), own, config), source, (0,), None)


def _run(name: str, own: Config, config: Config) -> Run:
    """A run's config, with the job's own measurement and devices, and its data where the model came without."""
    asked = replace(
        own,
        job=config.job,
        workdir=config.workdir,
        mesh=config.mesh,
        recovery=config.recovery,
        representations=config.representations,
        data=config.data if own.data.name == "none" else own.data,
    )
    return Run(name, asked, Path(config.workdir) / "runs" / name)


def sources(subject: Subject) -> dict[str, data.Source]:
    """The data by split."""
    return {split: data.open_source(subject.run.config.data, split) for split in ("train", "validation")}


def _task(subject: Subject) -> Task:
    config, spec = subject.run.config, make_run_spec(subject.run.config)
    pictures = config.representations.examples + config.representations.probe_examples
    return Task(
        name=subject.run.name,
        folder=subject.run.folder,
        steps=max(len(subject.missing()), 1),
        step_flops=pictures * spec.model.forward_flops(spec.inputs),
        complete=lambda: not subject.missing(),
        work=functools.partial(measure, subject),
        summary=lambda result, seconds: f"{subject.run.name}: {result['lines']} lines, {seconds:.0f} s",
    )


def measure(subject: Subject, display: Display, stop: Stop) -> dict[str, Any]:
    """Measures what one model's folder here lacks; returns the result.

    Raises:
        Interrupted: between two batches, if the job was asked to stop.
        FolderTaken: if another job has the run by now.
    """
    run, first, done, measurement = subject.run, jax.process_index() == 0, 0, Representations()
    if subject.found:
        provenance.record(run.folder, *subject.found)
    if first:
        write_json(run.folder / CONFIG, run.config.to_dict())
    watchdog = Watchdog(run.name, run.folder, run.config.recovery)
    with watchdog.watching(), contextlib.closing(Metrics(run.folder, active=first)) as lines:
        context = _context(subject, display, stop, watchdog)
        lines.write("start", 0, **context.description() | {"steps": max(subject.steps)})
        wanted = subject.missing()
        for step, kind in dict.fromkeys((step, kind) for step, kind, _ in wanted):
            display.say(f"reading the {kind} weights of step {step}")
            params = _params(subject, step, kind)
            examples = step * run.config.training.batch
            progress = {"examples": examples, "flops": examples * context.size.train_flops}
            levels = [t for at, of, t in wanted if (at, of) == (step, kind)]
            for values in measurement.measure(context, params, levels):
                lines.write(KIND, step, **progress, weights=kind, **values)
                done += 1
                display.advance(done, f"step {step}, {values['setting']}")
    check_ours(run.folder)
    if first:
        write_json(run.folder / RESULT, {"name": run.name, "status": "complete", "size": asdict(context.size)})
    return {"lines": done, "split_seconds": context.clock.total()}


def _context(subject: Subject, display: Display, stop: Stop, watchdog: Watchdog) -> RunContext:
    config = subject.run.config
    mesh, spec = meshes.make_mesh(config.mesh), make_run_spec(config)
    codec = EncodeStage.place(spec.encoders[:1], mesh)
    return RunContext(
        run=subject.run,
        spec=spec,
        formulation=flow.formulation(config.flow.formulation, config.flow.shift),
        mesh=mesh,
        encode=codec,
        encode_features=codec,
        sources=sources(subject),
        size=models.measure(spec.model, spec.inputs),
        clock=Clock(),
        stop=stop,
        watchdog=watchdog,
        display=display,
    )


def _params(subject: Subject, step: int, kind: str) -> Any:
    mesh = subject.run.config.mesh
    if is_run(subject.source):
        return weights.read_weights(subject.source, mesh, kind == "ema", step or None).params
    from rfjax import interop

    return interop.read(subject.source, subject.run.config.generate.layout, mesh).params
