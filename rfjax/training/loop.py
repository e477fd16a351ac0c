"""One run from its config: trains, measures, draws, and writes everything down; goes on where it was stopped."""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from clu import parameter_overview

from rfjax import data, files, flow, models
from rfjax.config import Config
from rfjax.errors import UserError
from rfjax.jsonl import FILE, read_lines, write_json
from rfjax.models.counting import abstract_parameters
from rfjax.training import measuring, provenance, recovery
from rfjax.training import mesh as meshes
from rfjax.training import weights as stored
from rfjax.training.checkpoints import Checkpoints
from rfjax.training.logs import Clock, Metrics
from rfjax.training.measuring import Work
from rfjax.training.processes import check_ours, from_first
from rfjax.training.progress import Display, Lines
from rfjax.training.recovery import Diverged, Skip
from rfjax.training.run import RESULT, Run, not_finite
from rfjax.training.spec import RunSpec, make_run_spec
from rfjax.training.step import Draws, State, abstract_state, compile_update, initial_state, jit_draw, recipe
from rfjax.training.stop import Interrupted, Stop
from rfjax.training.watchdog import Watchdog


class NotFinite(Exception):
    """A finished run's validation loss that is no number: the run has failed."""


def train(run: Run, display: Display, stop: Stop) -> dict[str, Any]:
    """Trains a run to its end, from its newest checkpoint where there is one, and returns its result.

    Raises:
        UserError: for what the user can mend, a full disk among it. Interrupted: after a checkpoint, if `stop` is
            wished. Diverged: if the loss is not finite or explodes, and no batch may be skipped (any more). NotFinite:
            if the validation loss of the finished run is not finite. FolderTaken: if another job has the run by now.
    """
    clock, watchdog = Clock(), Watchdog(run.name, run.folder, run.config.recovery)
    with watchdog.watching(), clock("setup"):
        config = run.config
        mesh = meshes.make_mesh(config.mesh)
        parts = make_run_spec(config)
        check_mesh(config, parts, mesh)
        formulation = flow.formulation(config.flow.formulation, config.flow.shift)
        size = models.measure(parts.model, parts.inputs)
        work = Work(run, parts, formulation, mesh, clock, size, stop, watchdog)
        sources = provenance.open_and_admit(run, display.warn)
        check_shapes(sources["train"], config, parts)
        if jax.process_index() == 0:
            run.write_config()
            shapes = abstract_parameters(parts.model, parts.inputs)
            table = parameter_overview.get_parameter_overview(shapes, include_stats=False)
            files.write(run.folder / "parameters.txt", f"{table}\n")
        every = config.training.validate_every if config.training.select == "best" else 0
        saved = Checkpoints(run.folder / "checkpoints", config.training.keep_checkpoints, every)
        trained = _Training(work, sources, saved, display)
        try:
            state, seconds = trained.fit_and_recover()
            result = trained.finish(state, seconds)
        finally:
            with clock("checkpoints"):
                saved.close()
    result["split_seconds"] = clock.total()
    check_ours(run.folder)
    if jax.process_index() == 0:
        write_json(run.folder / RESULT, result)
    return result


def check_mesh(config: Config, parts: RunSpec, mesh: jax.sharding.Mesh) -> None:
    """Raises UserError if the mesh can't divide the batches or the model, or the optimizer can't be spread over it."""
    meshes.check_batch("training.batch", config.training.batch, mesh, config.training.accumulate)
    meshes.check_batch("validation.batch", config.validation.batch, mesh)
    meshes.check_model(parts.model, abstract_parameters(parts.model, parts.inputs), mesh)
    if config.optimizer.flatten and mesh.size > mesh.shape[meshes.DATA]:
        raise UserError(
            "config.optimizer.flatten makes one vector of all weights, which config.mesh.fsdp and tensor can't share "
            "out: set config.optimizer.flatten = False"
        )


def check_shapes(source: data.Source, config: Config, parts: RunSpec) -> None:
    """Raises UserError if the data set's examples do not have the shapes that the config says."""
    batch, _ = data.load(source, parts.encoder, [0])
    for name, found, wanted in (
        ("image", batch["image"].shape[1:], parts.inputs.image),
        ("context", batch["context"].shape[1:], parts.inputs.text),
        ("pooled", batch["pooled"].shape[1:], (parts.inputs.pooled_width,)),
    ):
        if tuple(found) != tuple(wanted):
            raise UserError(f"'{name}' of the data set has shape {tuple(found)}, but the config says {tuple(wanted)}")


@dataclass(frozen=True)
class _Training:
    """A run at work."""

    work: Work
    sources: dict[str, data.Source]
    saved: Checkpoints
    display: Display

    def fit_and_recover(self) -> tuple[State, float]:
        """The loop, again without the batch after each loss that went wrong; returns the last state and the seconds.

        Raises:
            Diverged: if no batch may be skipped (any more).
        """
        run, settings = self.work.run, self.work.config.recovery
        skips = recovery.read(run.folder)
        while True:
            try:
                return self.fit(skips)
            except Diverged as trouble:
                self.saved.wait()
                good = self.saved.latest or 0
                if len(skips) >= settings.skips:
                    where = f"the checkpoint of step {good}" if good else "no checkpoint"
                    raise Diverged(
                        trouble.step, trouble.loss, recovery.give_up(trouble, where, settings, len(skips))
                    ) from None
                batch = self._order(skips).number(trouble.step - 1)
                skips = (*skips, Skip(trouble.step, batch, f"{trouble.loss:.4g}", good))
                self.display.warn(f"{run.name}: {trouble}: goes back to step {good} and skips batch {batch}")
                check_ours(run.folder)
                if jax.process_index() == 0:
                    recovery.write(run.folder, skips)

    def fit(self, skips: tuple[Skip, ...]) -> tuple[State, float]:
        """The loop; returns the final state and the seconds of training over all sessions.

        Raises:
            Diverged: at the line of metrics, or the checkpoint, after a loss that went wrong.
        """
        work, training, clock = self.work, self.work.config.training, self.work.clock
        with clock("setup"):
            state, earlier = self._begin()
        start = step = int(state.step)
        metrics = Metrics(work.run.folder, active=jax.process_index() == 0, start=start)
        metrics.write("start", start, **measuring.facts(work))
        lines = Lines(work, metrics, self.display, start, earlier)
        batches = self._batches(skips, start)
        draw, update = self._draw(), None
        try:
            with clock("training"):
                while step < training.steps:
                    if step and training.validate_every and step % training.validate_every == 0:
                        self._measure_along(state, lines.spent(), metrics, again=step == start)
                    work.watchdog.beat(f"waiting for the batch of step {step + 1}")
                    with clock("data"):
                        batch = meshes.put_rows(next(batches), training.batch, work.mesh)
                    update = update or self._compile(draw, state, batch)
                    with jax.transfer_guard("disallow"):
                        drawn = draw(state.step, batch["slot"])
                    if training.attention_every and step % training.attention_every == 0:
                        metrics.write("attention", step, **measuring.attention(work, state.params, batch, drawn))
                    work.watchdog.beat(f"at training step {step + 1}")
                    with jax.transfer_guard("disallow"):
                        state, measured = update(state, batch, drawn)
                    step += 1
                    stopping = work.stop.granted() and step < training.steps
                    saving = step % training.checkpoint_every == 0 or step == training.steps or stopping
                    lines.look(step, measured, saving)
                    if saving:
                        metrics.sync()
                        self._save(state, lines.spent())
                    if stopping:
                        raise Interrupted(f"stopped at step {step} of {training.steps}", work.stop.code)
        except Interrupted:
            if self.saved.latest != step:  # it came in the midst of a measurement
                self._save(state, lines.spent())
            raise
        finally:
            metrics.close()
        return state, lines.spent()

    def _draw(self) -> Callable[..., Draws]:
        """(step, slot) -> what is random in a step."""
        work = self.work
        draw = jit_draw(recipe(work.parts, work.config), work.mesh)
        seed = work.everywhere(np.uint32(work.config.training.seed))
        return functools.partial(draw, work.everywhere(work.formulation.arrays), seed)

    def _compile(self, draw: Callable[..., Draws], state: State, batch: Any) -> Callable[..., Any]:
        self.display.say("compiling the training step")
        self.work.watchdog.beat("compiling the training step")
        with self.work.clock("compilation"):
            drawn = draw(state.step, batch["slot"])
            return compile_update(self.work.parts, self.work.mesh, state, batch, drawn)

    def _begin(self) -> tuple[State, float]:
        """The newest checkpoint's state and seconds, or fresh weights."""
        work, config = self.work, self.work.config
        if self.saved.begun():
            self.display.say("reading the newest checkpoint")
            work.watchdog.beat("reading a checkpoint")
            warn = lambda sentence: self.display.warn(f"{work.run.name}: {sentence}")  # noqa: E731
            if found := self.saved.newest(abstract_state(work.parts, work.mesh), warn):
                return found
        self.display.say("drawing the initial weights")
        work.watchdog.beat("drawing the initial weights")
        state = initial_state(work.parts, work.mesh, config.training.seed)
        start = config.training.start_from
        return (stored.start_from(Path(start), state, config) if start else state), 0.0

    def _order(self, skips: tuple[Skip, ...]) -> data.Order:
        training = self.work.config.training
        skipped = tuple(skip.batch for skip in skips)
        return data.Order(training.batch, training.seed, self.work.config.data.flip, skipped)

    def _batches(self, skips: tuple[Skip, ...], start: int) -> Iterator[data.Batch]:
        rows = meshes.rows_here(self.work.config.training.batch, self.work.mesh)
        return data.batches(self.sources["train"], self.work.parts.encoder, self._order(skips), rows, start)

    def _save(self, state: State, seconds: float) -> None:
        self.work.watchdog.beat("saving a checkpoint")
        jax.block_until_ready(state)
        with self.work.clock("checkpoints"):
            self.saved.save(state, seconds)

    def _measure_along(self, state: State, seconds: float, metrics: Metrics, again: bool) -> None:
        """What is measured between steps. again: a session before this one may have done so already."""
        if again and self._measured(int(state.step)):
            return
        jax.block_until_ready(state)
        losses = measuring.validate(self.work, state, seconds, self.sources["validation"], metrics)
        if bad := _bad(losses, int(state.step)):
            self.display.warn(f"{self.work.run.name}: {bad}: it is left out of the run's curve")
        if self.work.config.sampling.along:
            measuring.draw(self.work, state, self.sources["validation"], metrics, whole=False)

    def _measured(self, step: int) -> bool:
        lines, _ = read_lines(self.work.run.folder / FILE)
        found = {(line["kind"], line.get("weights")) for line in lines if line["step"] == step}
        wanted = {("validation", "raw"), ("validation", "ema")}
        if self.work.config.sampling.along:
            wanted |= {("scores", "ema")}
        return bool(from_first(found >= wanted))

    def finish(self, state: State, seconds: float) -> dict[str, Any]:
        """Validation of the final weights, samples of the selected ones, and the run's result.

        Raises:
            NotFinite: if a validation loss is not finite.
        """
        work, source, step = self.work, self.sources["validation"], int(state.step)
        metrics = Metrics(work.run.folder, active=jax.process_index() == 0, start=step)
        try:
            self.display.say("measuring the validation loss")
            losses = measuring.validate(work, state, seconds, source, metrics, examples=True)
            if bad := _bad(losses, step):
                raise NotFinite(f"{bad}: lower config.optimizer.learning_rate, or look at the data")
            if work.config.training.select == "best":
                best = self._best_step(step, losses["ema"]["loss"])
                if best != step:
                    state = self.saved.restore(abstract_state(work.parts, work.mesh), best)[0]
            self.display.say("drawing samples")
            scores = measuring.draw(work, state, source, metrics)
        finally:
            metrics.close()
        return {
            "name": work.run.name,
            "status": "complete",
            "step": step,
            "depth": work.config.model.depth,
            "size": asdict(work.size) | {"train_flops": work.size.train_flops},
            **work.progress(step, seconds),
            "validation": losses,
            "selected_step": int(state.step),
            "scores": scores,
        }

    def _best_step(self, last: int, loss: float) -> int:
        """The step of the lowest validation loss of the averaged weights so far (SD3 App. B.3)."""
        lines, _ = read_lines(self.work.run.folder / FILE)
        losses = {
            line["step"]: line["loss"]
            for line in lines
            if line["kind"] == "validation" and line["weights"] == "ema" and math.isfinite(line["loss"])
        } | {last: loss}
        return from_first(min(losses, key=losses.__getitem__))


def _bad(losses: dict[str, dict[str, Any]], step: int) -> str:
    return not_finite({weights: measured["loss"] for weights, measured in losses.items()}, step)
