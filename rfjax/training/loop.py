"""One run from its config: trains, measures, saves, and goes on where it was stopped."""

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import jax
import numpy as np

from rfjax import data
from rfjax.buckets import mirror
from rfjax.jsonl import write_json
from rfjax.training import branching, recovery
from rfjax.training import mesh as meshes
from rfjax.training import weights as stored
from rfjax.training.checkpoints import Checkpoints, Progress
from rfjax.training.context import RunContext, open_context
from rfjax.training.log import Display, Metrics, TrainingLog
from rfjax.training.measurements import LAST, SELECTED, At, Line, Scheduled, make_measurements
from rfjax.training.measurements.validation import averaged_loss
from rfjax.training.processes import check_ours
from rfjax.training.recovery import Diverged, Skip
from rfjax.training.run import RESULT, Run
from rfjax.training.state import State, abstract_state, initial_state
from rfjax.training.step import shared_update
from rfjax.training.stop import Interrupted, Stop


def train(run: Run, display: Display, stop: Stop) -> dict[str, Any]:
    """Trains a run to its end, from its newest checkpoint if it has one, and returns its result.

    Raises:
        UserError: for what the user can mend, a full disk among it.
        Interrupted: after a checkpoint, if the run was asked to stop.
        Diverged: if the loss is not finite or explodes, and no more batches may be skipped.
        NotFinite: if the validation loss of the finished run is not finite.
        FolderTaken: if another job has taken the run.
    """
    with open_context(run, display, stop) as context, contextlib.closing(_Training(context)) as training:
        state = training.begin()
        sample_noise, update = context.noise(), shared_update(training.spec, context.mesh)
        with context.clock("training"):
            while training.step < run.config.training.steps:
                if training.enter_phase():
                    update = shared_update(training.spec, context.mesh)
                batch = training.next_batch(state)
                with training.compiling(), jax.transfer_guard("disallow"):
                    noise = sample_noise(state.step, batch["slot"])
                training.measure(state, batch, noise)
                with training.compiling(), jax.transfer_guard("disallow"):
                    state, metrics = update(state, batch, noise)
                try:
                    training.after_update(state, metrics)
                except Diverged as trouble:
                    state = training.go_back(trouble)
        result = training.finish(state)
        if (cuts := getattr(context.spec.text, "cuts", None)) and (said := cuts.sentence()):
            display.warn(f"{run.name}: {said}")
    result["split_seconds"] = context.clock.total()
    check_ours(run.folder)
    if jax.process_index() == 0:
        write_json(run.folder / RESULT, result)
    return result


class _Training:
    """What changes around the state while a run trains: its place in the data, its log, its checkpoints."""

    def __init__(self, context: RunContext) -> None:
        """Opens the checkpoints; `begin` opens the log."""
        config, folder = context.config, context.run.folder
        every = config.training.validate_every if config.training.select == "best" else 0
        self.context, self.step, self.progress = context, 0, Progress()
        self.saved = Checkpoints(folder / "checkpoints", config.training.keep_checkpoints, every, kept=context.run.kept)
        self.measurements = make_measurements(config)
        self.skips: tuple[Skip, ...] = branching.skips(context.run)
        self._seed = context.everywhere(np.uint32(config.training.seed))
        self._compiled = False
        self.spec = context.spec
        self._metrics: Metrics | None = None

    def close(self) -> None:
        """Closes the log and the checkpoints."""
        self._close_log()
        with self.context.clock("checkpoints"):
            self.saved.close()

    def begin(self) -> State:
        """Returns the newest checkpoint's state or fresh weights, and opens data and log there."""
        context, config = self.context, self.context.config
        with context.clock("setup"):
            state, self.progress = self._state()
            self.step = int(state.step)
            self._close_log()
            self._metrics = Metrics(context.run.folder, active=jax.process_index() == 0, start=self.step)
            self.log = TrainingLog(self._metrics, config, context.size, context.clock, context.display)
            self.log.start(self.step, self.progress.seconds)
            self._metrics.write("start", self.step, **context.description())
            rows = meshes.rows_here(config.training.batch, context.mesh)
            skipped = tuple(skip.batch for skip in self.skips)
            settings = config.data
            self._order = data.Order(
                config.training.batch, config.training.seed, settings.flip, skipped, settings.synthetic_share
            )
            source, encode = context.sources["train"], context.encode_features
            names = encode.names(source)
            self._batches: Iterator[data.Batch] = data.batches(
                source, encode.prepare, self._order, rows, self.step, names=names
            )
        return state

    def _close_log(self) -> None:
        if self._metrics:
            self._metrics.close()

    def _state(self) -> tuple[State, Progress]:
        context, config = self.context, self.context.config
        if self.saved.begun():
            context.doing("reading the newest checkpoint")
            warn = lambda sentence: context.display.warn(f"{context.run.name}: {sentence}")  # noqa: E731
            if found := self.saved.newest(abstract_state(context.spec, context.mesh), warn):
                return found
        if context.run.trunk:
            context.doing("reading its trunk's checkpoint")
            return branching.begin(context.run, abstract_state(context.spec, context.mesh))
        context.doing("drawing the initial weights")
        state = initial_state(context.spec, context.mesh, config.training.seed)
        start = config.training.start_from
        if start:
            state = stored.start_from(mirror.reading(start, "config.training.start_from"), state, context.spec, config)
        return state, Progress()

    def enter_phase(self) -> bool:
        """Takes the spec of the next update; returns whether it is another one than before."""
        before, self.spec = self.spec, self.context.spec.at(self.step)
        changed = self.spec is not before
        self._compiled = self._compiled and not changed
        return changed

    def next_batch(self, state: State) -> dict[str, Any]:
        """The encoded batch of the next update, on the devices."""
        context = self.context
        context.watchdog.beat(f"waiting for the batch of step {self.step + 1}")
        before = context.clock.spent("data")
        with context.clock("data"):
            batch = meshes.put_rows(next(self._batches), context.config.training.batch, context.mesh)
        if not state.step.is_ready():  # the last update has not ended, so the devices did not wait
            context.clock.move(context.clock.spent("data") - before, "data", "training")
        with self.compiling():
            stage = context.encode_features if self.spec.features else context.encode
            return stage(batch, self._seed, state.step)

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """Charges what the first step calls to compilation."""
        if self._compiled:
            self.context.watchdog.beat(f"at training step {self.step + 1}")
            yield
            return
        self.context.doing("compiling the training step")
        with self.context.clock("compilation"):
            yield

    def measure(self, state: State, batch: Any, noise: Any) -> None:
        """Measures what is due before the next update, unless that was done before the run was stopped.

        Raises:
            Interrupted: after a checkpoint, if the run should stop.
        """
        due = [one for one in self.measurements if one.due(self.step)]
        if not due or self.progress.measured == self.step:
            return
        jax.block_until_ready(state)
        at = At(self.step, self.log.progress(self.step), False, batch, noise)
        try:
            for scheduled in due:
                self._offer(self._write(scheduled, state, at))
        except Interrupted:
            if self.saved.latest != self.step:
                self.save(state)
            raise
        self.progress = self.progress._replace(measured=self.step)

    def _write(self, scheduled: Scheduled, state: State, at: At) -> list[Line]:
        """Runs one measurement and writes its lines as they come."""
        lines = []
        for kind, values in scheduled.measurement.run(self.context, state, at):
            self._metrics.write(kind, at.step, **values)
            lines.append((kind, values))
        return lines

    def _offer(self, lines: list[Line]) -> None:
        """Notes the step if its averaged weights are the best so far (SD3 App. B.3)."""
        if (loss := averaged_loss(lines)) < self.progress.best_loss:
            self.progress = self.progress._replace(best_step=self.step, best_loss=loss)

    def after_update(self, state: State, metrics: dict[str, jax.Array]) -> None:
        """Counts the step, writes a line, saves, and stops if the run was asked to.

        Raises:
            Diverged: if a loss went wrong since the last line.
            Interrupted: after a checkpoint, if the run should stop.
        """
        training, stop, self._compiled = self.context.config.training, self.context.stop, True
        self.step += 1
        stopping = stop.granted() and self.step < training.steps
        kept = self.step in self.context.run.kept
        saving = self.step % training.checkpoint_every == 0 or self.step == training.steps or stopping or kept
        self.log.look(self.step, metrics, saving)
        if saving:
            self._metrics.sync()
            self.save(state)
        if stopping:
            raise Interrupted(f"stopped at step {self.step} of {training.steps}", stop.code)

    def save(self, state: State) -> None:
        """Starts a checkpoint in the background."""
        self.context.watchdog.beat("saving a checkpoint")
        jax.block_until_ready(state)
        with self.context.clock("checkpoints"):
            self.saved.save(state, self.progress._replace(seconds=self.log.spent()))

    def go_back(self, trouble: Diverged) -> State:
        """Returns to the last checkpoint, to go on without the batch of a loss that went wrong.

        Raises:
            Diverged: if no more batches may be skipped.
        """
        run, settings = self.context.run, self.context.config.recovery
        self.saved.wait()
        good = self.saved.latest or run.first
        if len(self.skips) >= settings.skips:
            where = f"the checkpoint of step {good}" if good else "no checkpoint"
            sentence = recovery.give_up(trouble, where, settings, len(self.skips))
            raise Diverged(trouble.step, trouble.loss, sentence) from None
        batch = self._order.number(trouble.step - 1)
        self.skips = (*self.skips, Skip(trouble.step, batch, f"{trouble.loss:.4g}", good))
        self.context.display.warn(f"{run.name}: {trouble}: goes back to step {good} and skips batch {batch}")
        check_ours(run.folder)
        if jax.process_index() == 0:
            recovery.write(run.folder, self.skips)
        return self.begin()

    def finish(self, state: State) -> dict[str, Any]:
        """Measures the final weights, then the selected ones, and returns the run's result.

        Raises:
            NotFinite: if a validation loss is not finite.
        """
        context, training = self.context, self.context.config.training
        at = At(self.step, self.log.progress(self.step), True)
        found = self._measure_at_end(LAST, state, at)
        if training.select == "best" and self.progress.best_step not in (-1, self.step):
            state = self.saved.restore(abstract_state(context.spec, context.mesh), self.progress.best_step)[0]
        selected = int(state.step)
        found |= self._measure_at_end(SELECTED, state, At(selected, at.progress, True))
        return {
            "name": context.run.name,
            "status": "complete",
            "step": self.step,
            "depth": context.config.model.depth,
            "size": asdict(context.size) | {"train_flops": context.size.train_flops},
            **at.progress,
            **found,
            "selected_step": selected,
        }

    def _measure_at_end(self, which: str, state: State, at: At) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for scheduled in self.measurements:
            if scheduled.measurement.at_end == which:
                self.context.doing(f"measuring: {scheduled.name}")
                lines = self._write(scheduled, state, at)
                self._offer(lines)
                found |= scheduled.measurement.result(lines)
        return found
