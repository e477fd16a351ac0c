"""One run from its config: trains, measures, draws, and writes everything down; goes on where it was stopped."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from clu import parameter_overview
from jax.experimental import multihost_utils

from rfjax import data, files, flow, models
from rfjax.config import Config
from rfjax.errors import UserError
from rfjax.models.counting import abstract_parameters
from rfjax.training import measuring, provenance, recovery
from rfjax.training import mesh as meshes
from rfjax.training import weights as stored
from rfjax.training.checkpoints import Checkpoints
from rfjax.training.lines import FILE, read_lines
from rfjax.training.logs import Clock, Metrics, write_json
from rfjax.training.measuring import Work
from rfjax.training.parts import Parts, make_parts
from rfjax.training.recovery import Diverged, Skip
from rfjax.training.run import Run
from rfjax.training.step import Draws, State, abstract_state, compile_update, initial_state, jit_draw, recipe
from rfjax.training.stop import Interrupted, Stop
from rfjax.training.watchdog import Watchdog


@runtime_checkable
class Display(Protocol):
    """What a run tells the person who waits."""

    def update(self, step: int, loss: float, examples_per_second: float, flops_per_second: float) -> None: ...

    def say(self, activity: str) -> None: ...

    def warn(self, sentence: str) -> None: ...


def train(run: Run, display: Display, stop: Stop) -> dict[str, Any]:
    """Trains a run to its end, from its newest checkpoint where there is one, and returns its result.

    Raises:
        UserError: for what the user can mend, a full disk among it. Interrupted: after a checkpoint, if `stop` is
            wished. Diverged: if the loss is not finite or explodes, and no batch may be skipped (any more).
    """
    clock, watchdog = Clock(), Watchdog(run.name, run.folder, run.config.recovery)
    with watchdog.watching(), clock("setup"):
        config = run.config
        mesh = meshes.make_mesh(config.mesh)
        parts = make_parts(config)
        check_mesh(config, parts, mesh)
        formulation = flow.formulation(config.flow.formulation, config.flow.shift)
        size = models.measure(parts.model, parts.inputs)
        work = Work(run, parts, formulation, mesh, clock, size, stop, watchdog)
        sources = provenance.open_and_admit(run, display.warn)
        check_shapes(sources["train"], config, parts)
        if jax.process_index() == 0:
            write_json(run.folder / "config.json", config.to_dict())
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
    if jax.process_index() == 0:
        write_json(run.folder / "result.json", result)
    return result


def check_mesh(config: Config, parts: Parts, mesh: jax.sharding.Mesh) -> None:
    """Raises UserError if the mesh can't divide the batches or the model, or the optimizer can't be spread over it."""
    meshes.check_batch("training.batch", config.training.batch, mesh, config.training.accumulate)
    meshes.check_batch("validation.batch", config.validation.batch, mesh)
    meshes.check_model(parts.model, abstract_parameters(parts.model, parts.inputs), mesh)
    if config.optimizer.flatten and mesh.size > mesh.shape[meshes.DATA]:
        raise UserError(
            "config.optimizer.flatten makes one vector of all weights, which config.mesh.fsdp and tensor can't share "
            "out: set config.optimizer.flatten = False"
        )


def check_shapes(source: data.Source, config: Config, parts: Parts) -> None:
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
                if jax.process_index() == 0:
                    recovery.write(run.folder, skips)

    def fit(self, skips: tuple[Skip, ...]) -> tuple[State, float]:
        """The loop; returns the final state and the seconds of training over all sittings.

        Raises:
            Diverged: at the line of metrics, or the checkpoint, after a loss that went wrong.
        """
        work, training, clock = self.work, self.work.config.training, self.work.clock
        with clock("setup"):
            state, earlier = self._begin()
        start = step = int(state.step)
        metrics = Metrics(work.run.folder, active=jax.process_index() == 0, start=start)
        metrics.write("start", start, **measuring.facts(work))
        lines = _Lines(work, metrics, self.display, start, earlier)
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
        return functools.partial(draw, work.everywhere(work.formulation.numbers), seed)

    def _compile(self, draw: Callable[..., Draws], state: State, batch: Any) -> Callable[..., Any]:
        self.display.say("compiling the training step")
        self.work.watchdog.beat("compiling the training step")
        with self.work.clock("compilation"):
            drawn = draw(state.step, batch["slot"])
            return compile_update(self.work.parts, self.work.mesh, state, batch, drawn)

    def _begin(self) -> tuple[State, float]:
        """The newest checkpoint's state and seconds, or fresh weights."""
        work, config = self.work, self.work.config
        if self.saved.latest is not None:
            self.display.say(f"reading the checkpoint of step {self.saved.latest}")
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
        """What is measured between steps. again: a sitting before this one may have done so already."""
        if again and self._measured(int(state.step)):
            return
        jax.block_until_ready(state)
        measuring.validate(self.work, state, seconds, self.sources["validation"], metrics)
        if self.work.config.samples.along:
            measuring.draw(self.work, state, self.sources["validation"], metrics, whole=False)

    def _measured(self, step: int) -> bool:
        lines, _ = read_lines(self.work.run.folder / FILE)
        found = {(line["kind"], line.get("weights")) for line in lines if line["step"] == step}
        wanted = {("validation", "raw"), ("validation", "ema")}
        if self.work.config.samples.along:
            wanted |= {("scores", "ema")}
        return bool(_from_first(found >= wanted))

    def finish(self, state: State, seconds: float) -> dict[str, Any]:
        """Validation of the final weights, samples of the selected ones, and the run's result."""
        work, source, step = self.work, self.sources["validation"], int(state.step)
        metrics = Metrics(work.run.folder, active=jax.process_index() == 0, start=step)
        try:
            self.display.say("measuring the validation loss")
            losses = measuring.validate(work, state, seconds, source, metrics, examples=True)
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
            if line["kind"] == "validation" and line["weights"] == "ema" and line["loss"] is not None
        } | {last: loss}
        return _from_first(min(losses, key=losses.__getitem__))


class _Lines:
    """The lines of metrics of a sitting, and the look for trouble that goes with them."""

    def __init__(self, work: Work, metrics: Metrics, display: Display, start: int, earlier: float) -> None:
        """start: step, and earlier: seconds of training, that the sitting goes on from."""
        self._work, self._metrics, self._display = work, metrics, display
        self._earlier = earlier - work.clock.spent("training", "data")
        self._last = (start, self.spent())

    def spent(self) -> float:
        """Seconds of training over all sittings."""
        return self._earlier + self._work.clock.spent("training", "data")

    def look(self, step: int, measured: dict[str, jax.Array], now: bool) -> None:
        """Every `log_every` steps, writes a line; then, and where asked to, looks for a loss that went wrong.

        Raises:
            Diverged: if there was one.
        """
        training = self._work.config.training
        line = step % training.log_every == 0 or step == training.steps
        if not (line or now):
            return
        values = {name: float(value) for name, value in jax.device_get(measured).items()}
        bad, loss = int(values.pop("bad_step")), values.pop("bad_loss")
        if line:
            before, spent = self._last, self.spent()
            rate = (step - before[0]) * training.batch / max(spent - before[1], 1e-9)
            progress = self._work.progress(step, spent)
            self._metrics.write("train", step, **progress, **values, examples_per_second=rate)
            self._display.update(step, values["loss"], rate, rate * self._work.size.train_flops)
            self._last = (step, self.spent())
        if bad:
            raise Diverged(bad, loss)


def _from_first(value: int) -> int:
    """What process 0 says: the others may not see its files yet."""
    return int(multihost_utils.broadcast_one_to_all(np.int32(value))) if jax.process_count() > 1 else int(value)
