"""The sampling study: generates with the finished models of another study, at several settings of the sampler."""

import contextlib
import functools
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax

from rfjax import config as configs
from rfjax import data, models
from rfjax.buckets import mirror
from rfjax.config import Config
from rfjax.data.identity import Identity
from rfjax.errors import UserError
from rfjax.evaluation import generation
from rfjax.evaluation.metrics import make_metrics
from rfjax.evaluation.sampler import SamplerSettings, all_settings
from rfjax.jsonl import FILE, read_lines, write_json
from rfjax.study import records
from rfjax.study.folder import Session, prepare_folder
from rfjax.study.jobs import Job, Task
from rfjax.training import mesh as meshes
from rfjax.training import provenance, weights
from rfjax.training.encode import EncodeStage
from rfjax.training.log import Display, Metrics
from rfjax.training.measurements.samples import save_pictures
from rfjax.training.processes import check_ours
from rfjax.training.run import CONFIG, RESULT
from rfjax.training.stop import Interrupted, Stop


def make_job(config: Config, started: float) -> Job:
    """Finds every complete run of `config.study.source`; the job samples them at the settings that are missing here.

    Raises:
        UserError: if the source is no study, has no complete run, or was trained on data that are not these.
    """
    session = Session(started)
    source = records.read(mirror.reading(config.study.source, "config.study.source"))
    wanted = records.first_seeds(source.runs, config.sampling.seeds)
    complete = [run for run in wanted if run.state == "complete"]
    if not complete:
        raise UserError(f"no run of {config.study.source} is complete: finish that study first")
    settings = all_settings(config.sampling)
    found = find_data(complete, config)
    repeats = {run.name for run in source.runs} - {run.name for run in wanted}
    trouble = prepare_folder(config, [name for name in source.study["runs"] if name not in repeats])
    warnings = [
        f"{run.name} is left out because it is not complete ({run.state})" for run in wanted if run not in complete
    ]
    tasks = [_task(run, found[run.name], config, settings) for run in complete]
    session.add({"start-up": time.time() - started})
    flops = sum(task.steps * task.step_flops for task in tasks)
    return Job(config, tasks, session, flops, warnings=[*warnings, *filter(None, [trouble])])


Record = tuple[Identity, provenance.Known, list[str], int | None]  # what `provenance.record` writes into a folder


def _task(run: records.RunRecord, found: Record, config: Config, settings: dict[str, SamplerSettings]) -> Task:
    folder = Path(config.workdir) / "runs" / run.name
    evaluations = sum(one.steps * (1 if one.guidance.none else 2) for one in settings.values())
    return Task(
        name=run.name,
        folder=folder,
        steps=len(settings),
        step_flops=run.size["forward_flops"] * evaluations / len(settings),
        complete=lambda: not missing(folder, settings),
        work=functools.partial(sample, run, found, config),
        summary=lambda result, seconds: f"{run.name}: {len(result['scores'])} settings drawn, {seconds:.0f} s",
    )


def find_data(runs: Iterable[records.RunRecord], config: Config) -> dict[str, Record]:
    """The record of the data whose captions are drawn and whose pictures are compared with, by the run's name.

    Raises:
        UserError: if they are not those that a run was trained and validated on, unless config.data.changed.
    """
    opened: dict[str, Identity] = {}
    found = {}
    for record in runs:
        run = configs.from_dict(record.config)
        run = replace(run, data=replace(run.data, changed=config.data.changed))
        key = repr((run.data, run.validation))
        if key not in opened:
            opened[key] = provenance.open_data(run)[1]
        changes = provenance.refuse_unless_allowed(run, {record.name: record.data}, opened[key])
        known, at = (record.data, record.steps) if changes else (provenance.Known(), None)
        found[record.name] = opened[key], known, changes, at
    return found


def missing(folder: Path, settings: dict[str, SamplerSettings]) -> list[str]:
    """The settings that a run's folder here lacks."""
    lines, _ = read_lines(folder / FILE)
    done = {line["setting"] for line in lines if line["kind"] == "scores"}
    return [name for name in settings if name not in done]


def sample(run: records.RunRecord, found: Record, config: Config, display: Display, stop: Stop) -> dict[str, Any]:
    """Samples one run at the settings that its folder here lacks, with averaged weights; returns the result.

    Raises:
        Interrupted: between two batches, if the job was asked to stop.
        FolderTaken: if another job has the run by now.
    """
    folder, first, began = Path(config.workdir) / "runs" / run.name, jax.process_index() == 0, time.monotonic()
    provenance.record(folder, *found)
    settings = all_settings(config.sampling)
    wanted = missing(folder, settings)
    mesh, read = meshes.make_mesh(config.mesh), weights.read_weights(run.folder, config.mesh)
    spec, stage = read.spec, EncodeStage.place(read.spec.encoders, mesh)
    prompts = generation.first_prompts(
        data.open_source(read.config.data, "validation"), spec.encoders, config.sampling.count
    )
    metrics = make_metrics(replace(read.config, sampling=config.sampling))
    if first:
        write_json(folder / CONFIG, read.config.to_dict())

    def place(values: Any) -> jax.Array:
        if stop.granted():
            raise Interrupted(f"stopped while drawing samples of {run.name}", stop.code)
        return meshes.place(values, mesh)

    scores: dict[str, Any] = {}
    with contextlib.closing(Metrics(folder, active=first, start=read.step)) as lines:
        size, quantities = models.measure(spec.model, spec.inputs), [q for metric in metrics for q in metric.quantities]
        about = {"name": run.name, "size": asdict(size) | {"train_flops": size.train_flops}}
        about |= {"steps": read.config.training.steps, "quantities": [one.to_plain() for one in quantities]}
        lines.write("start", read.step, **about)
        for number, (name, one) in enumerate(settings.items(), 1):
            if name not in wanted:
                continue
            display.say(f"drawing at {name}")
            made = generation.generate(
                read.sampleable(stage),
                prompts,
                one,
                config.sampling.batch,
                encode=stage.condition,
                place=place,
                metrics=metrics,
                keep=config.sampling.shown,
            )
            scores[name] = generation.record(made, config.sampling.count, one, metrics)
            lines.write("scores", read.step, weights="ema", setting=name, **scores[name])
            save_pictures(folder / "samples", name, made, prompts.texts)
            display.advance(number, f"{name} drawn")
    check_ours(folder)
    if first:
        write_json(folder / RESULT, {"name": run.name, "status": "complete", "scores": scores})
    return {"scores": scores, "split_seconds": {"samples": time.monotonic() - began}}
