"""What a person sees while a study runs: live bars on a terminal, a few plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from rfjax.errors import printable

QUIET_SECONDS = 60.0  # between lines where there is no terminal


class StudyDisplay:
    """Progress over a study. The bar of the whole study moves by FLOPs, so that its time left means something."""

    def __init__(self, flops: float, *, active: bool = True, whole: bool = True) -> None:
        """flops: of all the training still to do. active: whether this process shows anything. whole: with a bar for
        the study besides those of its runs."""
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
        """A line, or several, that stay; what could move the cursor is left out of them."""
        self.console.print(printable(text), style=style, markup=False)

    def warn(self, sentence: str) -> None:
        """What should not go unnoticed."""
        self.say(sentence, style="yellow")

    @contextmanager
    def run(self, name: str, steps: int, step_flops: float) -> Iterator["RunDisplay"]:
        """The bar of one run."""
        task = self.bars.add_task(name, total=steps, note="")
        try:
            yield RunDisplay(self, task, name, step_flops)
        finally:
            self.bars.remove_task(task)


class RunDisplay:
    """One run's bar: step, time left, loss, examples a second, FLOP/s."""

    def __init__(self, study: StudyDisplay, task: TaskID, name: str, step_flops: float) -> None:
        self._study, self._task, self._name, self._step_flops = study, task, name, step_flops
        self._step, self._spoken = 0, time.monotonic()

    def update(self, step: int, loss: float, examples_per_second: float, flops_per_second: float) -> None:
        self.advance(
            step, f"loss {loss:.4f}  {examples_per_second:,.0f} examples/s  {flops_per_second / 1e9:,.1f} GFLOP/s"
        )

    def advance(self, step: int, note: str) -> None:
        """Moves the bar to a step, with what there is to say about it."""
        bars = self._study.bars
        bars.update(self._task, completed=step, note=note)
        bars.advance(self._study.whole, (step - self._step) * self._step_flops)
        self._step = step
        if bars.disable and time.monotonic() - self._spoken > QUIET_SECONDS:
            self._spoken = time.monotonic()
            self._study.say(f"  {self._name}: step {step}  {note}")

    def warn(self, sentence: str) -> None:
        """What should not go unnoticed: a line that stays."""
        self._study.warn(sentence)

    def say(self, activity: str) -> None:
        """What is being done besides training."""
        self._study.bars.update(self._task, note=activity)
