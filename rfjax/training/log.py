"""What a run writes down and tells as it goes: lines of metrics, TensorBoard, the bar of the person who waits."""

import json
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax

from rfjax import files
from rfjax.config import Config
from rfjax.jsonl import FILE, plain
from rfjax.models import Size
from rfjax.training.clock import Clock
from rfjax.training.processes import check_ours
from rfjax.training.recovery import Diverged
from rfjax.training.tensorboard import Board

ON_BOARD = ("train", "validation", "attention")  # kinds of lines whose numbers go to TensorBoard too


@runtime_checkable
class Display(Protocol):
    """What a run tells the person who waits."""

    def update(self, step: int, loss: float, examples_per_second: float, flops_per_second: float) -> None: ...

    def say(self, activity: str) -> None: ...

    def warn(self, sentence: str) -> None: ...


class Metrics:
    """Appends records to metrics.jsonl, and their numbers to TensorBoard; of several processes one alone writes."""

    def __init__(self, folder: Path, *, active: bool, start: int = 0) -> None:
        """Opens both, and cuts off what a killed process left unfinished at their ends.

        Args:
            folder: of the run.
            active: whether this process writes.
            start: step that the run goes on from.

        Raises:
            UserError: if there is no room, here and in `write`.
        """
        self._folder, self._lines, self._board = folder, None, None
        if active:
            self._lines = files.Growing(folder / FILE)
            self._board = Board(folder / "tensorboard", start)

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Writes a line {"kind": ..., "step": ..., ...}; all processes of a job come here.

        Raises:
            FolderTaken: on all of them, if another job has the run by now.
        """
        check_ours(self._folder)
        if self._lines is None:
            return
        self._lines.append(json.dumps(plain({"kind": kind, "step": step, **values})) + "\n")
        group = f"{kind}/{values['weights']}" if "weights" in values else kind
        if kind in ON_BOARD:
            numbers = {f"{group}/{name}": float(v) for name, v in values.items() if isinstance(v, int | float)}
            self._board.add(step, numbers)

    def sync(self) -> None:
        """Waits until the disk has all lines: none before a checkpoint is written again."""
        if self._lines is not None:
            self._lines.sync()

    def close(self) -> None:
        if self._lines is not None:
            self._lines.close()
            self._board.close()


class TrainingLog:
    """The lines of training, and the look for trouble that goes with them."""

    def __init__(self, metrics: Metrics, config: Config, size: Size, clock: Clock, display: Display) -> None:
        """Begins at step 0; `start` says where a resumed run goes on."""
        self.metrics, self._config, self._size, self._clock, self._display = metrics, config, size, clock, display
        self.start(0, 0.0)

    def start(self, step: int, seconds: float) -> None:
        """Goes on from a step, after so many seconds of training."""
        self._earlier = seconds - self._clock.spent("training", "data")
        self._last = (step, self.spent())

    def spent(self) -> float:
        """Seconds of training, those before an interruption included."""
        return self._earlier + self._clock.spent("training", "data")

    def progress(self, step: int) -> dict[str, Any]:
        """What each line says besides its own numbers: examples, FLOPs and seconds so far."""
        examples = step * self._config.training.batch
        return {"examples": examples, "flops": examples * self._size.train_flops, "seconds": self.spent()}

    def look(self, step: int, measured: dict[str, jax.Array], saving: bool) -> None:
        """Every `log_every` steps, writes a line; then, and before a checkpoint, looks for a loss that went wrong.

        Raises:
            Diverged: if there was one.
        """
        training = self._config.training
        line = step % training.log_every == 0 or step == training.steps
        if not (line or saving):
            return
        values = {name: value.item() for name, value in jax.device_get(measured).items()}
        bad, loss = int(values.pop("bad_step")), values.pop("bad_loss")
        if line:
            before, spent = self._last, self.spent()
            rate = (step - before[0]) * training.batch / max(spent - before[1], 1e-9)
            self.metrics.write("train", step, **self.progress(step), **values, examples_per_second=rate)
            self._display.update(step, values["loss"], rate, rate * self._size.train_flops)
            self._last = (step, self.spent())
        if bad:
            raise Diverged(bad, loss)
