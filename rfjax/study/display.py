"""The progress display of a study: live bars on a terminal, a few plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from rfjax.buckets import mirror
from rfjax.errors import printable

QUIET_SECONDS = 60.0  # between lines if there is no terminal


class StudyDisplay:
    """The progress of a study. The bar of the whole study moves by FLOPs, so that its remaining time is meaningful."""

    def __init__(self, flops: float, *, active: bool = True, whole: bool = True) -> None:
        """Makes the display.

        Args:
            flops: of all remaining training.
            active: whether this process shows anything.
            whole: whether to show a bar of the whole study above the bar of a run.
        """
        self.console = Console(highlight=False, soft_wrap=True, quiet=not active)
        self.bars = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            disable=not (active and self.console.is_terminal),
            transient=True,
        )
        self.whole = self.bars.add_task("study", total=flops, note="", visible=whole)

    def say(self, text: str, style: str | None = None) -> None:
        """Prints one or more lines that stay, without characters that move the cursor."""
        self.console.print(printable(mirror.named(text)), style=style, markup=False)

    @contextmanager
    def run(self, name: str, steps: int, step_flops: float, first: int = 0) -> Iterator["RunDisplay"]:
        """Shows the bar of one run, whose steps begin after `first`, while the `with` lasts."""
        task = self.bars.add_task(name, total=steps, completed=first, note="")
        try:
            yield RunDisplay(self, task, name, step_flops, first)
        finally:
            self.bars.remove_task(task)


class RunDisplay:
    """The bar of one run: step, remaining time, loss, examples per second, FLOP/s."""

    def __init__(self, study: StudyDisplay, task: TaskID, name: str, step_flops: float, first: int = 0) -> None:
        self._study, self._task, self._name, self._step_flops = study, task, name, step_flops
        self._step, self._spoken = first, time.monotonic()

    def update(self, step: int, loss: float, examples_per_second: float, flops_per_second: float) -> None:
        self.advance(
            step, f"loss {loss:.4f}  {examples_per_second:,.0f} examples/s  {flops_per_second / 1e9:,.1f} GFLOP/s"
        )

    def advance(self, step: int, note: str) -> None:
        """Moves the bar to a step, and shows a note."""
        bars = self._study.bars
        bars.update(self._task, completed=step, note=note)
        bars.advance(self._study.whole, (step - self._step) * self._step_flops)
        self._step = step
        if bars.disable and time.monotonic() - self._spoken > QUIET_SECONDS:
            self._spoken = time.monotonic()
            self._study.say(f"  {self._name}: step {step}  {note}")

    def warn(self, sentence: str) -> None:
        self._study.say(sentence, style="yellow")

    def say(self, activity: str) -> None:
        """Shows an activity other than training."""
        self._study.bars.update(self._task, note=activity)
