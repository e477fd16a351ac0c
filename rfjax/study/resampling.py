"""The sampling study: draws from the finished models of another study, at several settings of the sampler."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax

from rfjax import config as configs
from rfjax import data, flow, models
from rfjax.config import Config
from rfjax.data import pixels
from rfjax.errors import UserError
from rfjax.evaluation import pictures, sampling, scorers
from rfjax.study import records
from rfjax.study.display import StudyDisplay
from rfjax.study.folder import Sitting, prepare_folder
from rfjax.training import mesh as meshes
from rfjax.training.checkpoints import Checkpoints
from rfjax.training.logs import Metrics, read_lines, write_json
from rfjax.training.parts import make_parts
from rfjax.training.step import abstract_state


def run_study(config: Config, started: float) -> int:
    """Samples every complete run of `config.study.source`, then writes the report; returns the exit code.

    Settings that are done already are skipped, so the same command goes on where this one was stopped.

    Raises:
        UserError: if the source is no study, or has no complete run.
    """
    sitting = Sitting(started)
    source = records.read(Path(config.study.source))
    complete = [rung for rung in source.rungs if rung.state == "complete"]
    if not complete:
        raise UserError(f"no run of {config.study.source} is complete: finish that study first")
    settings = sampling.settings(config.samples)
    prepare_folder(config, list(source.study["runs"]))
    display = StudyDisplay(sum(_cost(rung, settings) for rung in complete), active=jax.process_index() == 0)
    sitting.add({"start-up": time.time() - started})
    with display.bars:
        for rung in complete:
            began = time.time()
            drawn = sample(rung, Path(config.workdir) / "runs" / rung.name, config, display)
            sitting.add({"samples": time.time() - began})
            display.console.print(f"{rung.name}: {drawn} settings drawn, {time.time() - began:.0f} s")
    display.console.print(sitting.close(config), markup=False)
    return 0


def _cost(rung: records.Rung, settings: dict[str, pictures.Settings]) -> float:
    return rung.size["forward_flops"] * sum(one.steps * (1 if one.guidance.none else 2) for one in settings.values())


def sample(rung: records.Rung, folder: Path, config: Config, display: StudyDisplay) -> int:
    """Draws one run's settings that its folder here lacks, with averaged weights; returns how many those were."""
    run = configs.from_dict(rung.config)
    settings = sampling.settings(config.samples)
    lines, _ = read_lines(folder / "metrics.jsonl")
    done = {line["setting"] for line in lines if line["kind"] == "scores"}
    if all(name in done for name in settings):
        return 0
    mesh, parts = meshes.make_mesh(config.mesh), make_parts(run)
    saved = Checkpoints(rung.folder / "checkpoints", run.training.keep_checkpoints)
    state, _ = saved.restore(abstract_state(parts, mesh), None)
    saved.close()
    formulation = flow.formulation(run.flow.formulation, run.flow.shift)
    trained = pictures.Trained(parts.model, state.average, formulation, parts.inputs.image)
    asked = sampling.captions(data.open_source(run.data, "validation"), parts.encoder, config.samples.count)
    scorer = scorers.scorer(run.data.name, run.data.image_size, run.data.channels)
    size = models.measure(parts.model, parts.inputs)
    write_json(folder / "config.json", run.to_dict())
    metrics = Metrics(folder, active=jax.process_index() == 0, start=int(state.step))
    facts = {"name": rung.name, "size": asdict(size) | {"train_flops": size.train_flops}, "steps": run.training.steps}
    metrics.write("start", int(state.step), **facts)
    found: dict[str, Any] = {}
    with display.run(rung.name, len(settings), _cost(rung, settings) / len(settings)) as bar:
        for number, (name, chosen) in enumerate(settings.items(), 1):
            if name in done:
                continue
            bar.say(f"drawing at {name}")
            drawn = sampling.draw(trained, asked, chosen, config.samples.batch)
            found[name] = sampling.record(drawn, asked.texts, chosen, scorer)
            metrics.write("scores", int(state.step), weights="ema", setting=name, **found[name])
            if config.samples.shown and parts.inputs.image[-1] in (1, 3):
                images, texts = pixels.to_pixels(drawn.images), asked.texts
                shown = config.samples.shown
                pictures.save(folder / "samples", name, images[:shown], texts[:shown])
            score = found[name].get("score")
            bar.advance(number, f"{name} drawn" if score is None else f"score {score:.3f} at {name}")
    metrics.close()
    write_json(folder / "result.json", {"name": rung.name, "status": "complete", "scores": found})
    return len(found)
