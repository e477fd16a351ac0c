"""The sampling study: draws from the finished models of another study, at several settings of the sampler."""

import contextlib
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax

from rfjax import config as configs
from rfjax import data, models
from rfjax.config import Config
from rfjax.data.identity import Identity
from rfjax.errors import Exit, UserError
from rfjax.evaluation import pictures, sampling, scorers
from rfjax.jsonl import FILE, read_lines, write_json
from rfjax.study import records
from rfjax.study.display import StudyDisplay
from rfjax.study.folder import Session, prepare_folder, take_turns
from rfjax.training import mesh as meshes
from rfjax.training import provenance, weights
from rfjax.training.logs import Metrics
from rfjax.training.processes import check_ours
from rfjax.training.run import CONFIG, RESULT
from rfjax.training.stop import Interrupted, Stop


def run_study(config: Config, started: float) -> int:
    """Samples every complete run of `config.study.source`, then writes the report; returns the exit code.

    Settings that are done already are skipped, so the same command goes on where this one was stopped.

    Raises:
        UserError: if the source is no study, has no complete run, or was trained on data that are not these; later, if
            another job takes a run away because this one stood still. Interrupted: when stopped by a signal.
    """
    session = Session(started)
    source = records.read(Path(config.study.source))
    complete = [record for record in source.runs if record.state == "complete"]
    if not complete:
        raise UserError(f"no run of {config.study.source} is complete: finish that study first")
    settings = sampling.settings(config.sampling)
    found = find_data(complete, config)
    trouble = prepare_folder(config, list(source.study["runs"]))
    display = StudyDisplay(sum(_cost(record, settings) for record in complete), active=jax.process_index() == 0)
    for record in source.runs:
        if record not in complete:
            display.warn(f"{record.name} is left out, for it is not complete ({record.state})")
    display.warn(trouble) if trouble else None
    session.add({"start-up": time.time() - started})
    by_folder = {Path(config.workdir) / "runs" / record.name: record for record in complete}

    def work(folder: Path) -> None:
        began, record = time.time(), by_folder[folder]
        found[record.name].write(folder)
        drawn = sample(record, folder, config, display, stop)
        session.add({"samples": time.time() - began})
        display.say(f"{record.name}: {drawn} settings drawn, {time.time() - began:.0f} s")

    with Stop().on_signals() as stop, display.bars:
        done = lambda folder: not missing(folder, settings)  # noqa: E731
        take_turns(by_folder, config, done, work, stop=stop, say=display.say)
    if jax.process_index() == 0:
        display.say(session.close(config))
    return Exit.DONE


@dataclass(frozen=True)
class Found:
    """The data that a run is sampled with: what they are, what the run recorded, and what changed since, in words."""

    data: Identity
    known: provenance.Known
    changes: list[str]
    steps: int

    def write(self, folder: Path) -> None:
        """Records them with the pictures."""
        known, at = (self.known, self.steps) if self.changes else (provenance.Known(), None)
        provenance.record(folder, self.data, known, self.changes, at)


def find_data(runs: Iterable[records.RunRecord], config: Config) -> dict[str, Found]:
    """The data whose captions are drawn and whose pictures are compared with, by the run's name.

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
        found[record.name] = Found(opened[key], record.data, changes, record.steps)
    return found


def missing(folder: Path, settings: dict[str, pictures.Settings]) -> list[str]:
    """The settings that a run's folder here lacks."""
    lines, _ = read_lines(folder / FILE)
    done = {line["setting"] for line in lines if line["kind"] == "scores"}
    return [name for name in settings if name not in done]


def _cost(record: records.RunRecord, settings: dict[str, pictures.Settings]) -> float:
    return record.size["forward_flops"] * sum(one.steps * (1 if one.guidance.none else 2) for one in settings.values())


def sample(record: records.RunRecord, folder: Path, config: Config, display: StudyDisplay, stop: Stop) -> int:
    """Draws one run's settings that its folder here lacks, with averaged weights; returns how many those were.

    Raises:
        Interrupted: between two batches, if `stop` is wished. Taken: if another job has the run by now.
    """
    settings = sampling.settings(config.sampling)
    wanted, first = missing(folder, settings), jax.process_index() == 0
    mesh, read = meshes.make_mesh(config.mesh), weights.read(record.folder, config.mesh)
    run, parts = read.config, read.parts
    asked = sampling.captions(data.open_source(run.data, "validation"), parts.encoder, config.sampling.count)
    scorer = scorers.scorer(run.data.name, run.data.image_size, run.data.channels)
    size = models.measure(parts.model, parts.inputs)
    if first:
        write_json(folder / CONFIG, run.to_dict())
    facts = {"name": record.name, "size": asdict(size) | {"train_flops": size.train_flops}, "steps": run.training.steps}
    found: dict[str, Any] = {}

    def place(values: Any) -> jax.Array:
        if stop.granted():
            raise Interrupted(f"stopped while drawing samples of {record.name}", stop.code)
        return meshes.place(values, mesh)

    metrics = Metrics(folder, active=first, start=read.step)
    bars = display.run(record.name, len(settings), _cost(record, settings) / len(settings))
    with contextlib.closing(metrics), bars as bar:
        metrics.write("start", read.step, **facts)
        for number, (name, chosen) in enumerate(settings.items(), 1):
            if name not in wanted:
                continue
            bar.say(f"drawing at {name}")
            drawn = sampling.draw(read.trained(), asked, chosen, config.sampling.batch, place)
            found[name] = sampling.record(drawn, asked.texts, chosen, scorer)
            metrics.write("scores", read.step, weights="ema", setting=name, **found[name])
            shown = config.sampling.shown
            if first and shown and parts.inputs.image[-1] in pictures.PIXELS:
                pictures.save(folder / "samples", name, pictures.to_show(drawn.images[:shown]), asked.texts[:shown])
            score = found[name].get("score")
            bar.advance(number, f"{name} drawn" if score is None else f"score {score:.3f} at {name}")
    check_ours(folder)
    if first:
        write_json(folder / RESULT, {"name": record.name, "status": "complete", "scores": found})
    return len(found)
