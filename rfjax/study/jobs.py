"""The one loop behind every job: tasks that are not done yet, each with its lock, its bar and its failures."""

import contextlib
import itertools
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from rfjax import files, ownership
from rfjax.config import Config
from rfjax.errors import Exit, UserError, printable
from rfjax.ownership import FolderTaken
from rfjax.study.display import StudyDisplay
from rfjax.study.folder import Session, Turn, claim
from rfjax.training.log import Display
from rfjax.training.stop import Interrupted, Stop

FAILURE = "failure.txt"  # of a task's folder: why it failed


@dataclass(frozen=True)
class Task:
    """One thing to do, such as training one run.

    Attributes:
        steps: of its bar.
        step_flops: floating-point operations of a step, which move the bar of the whole job.
        complete: whether there is nothing to do.
        work: (display, stop) -> its result, with `split_seconds` by activity.
        summary: (result, seconds) -> what the terminal shows in the end. A result with a "problem" fails the job.
        waits: why it can't begin yet, a part of a sentence; "" where it can. All processes get the same answer.
        first: the step that its bar begins with.
    """

    name: str
    folder: Path
    steps: int
    step_flops: float
    complete: Callable[[], bool]
    work: Callable[[Display, Stop], dict[str, Any]]
    summary: Callable[[dict[str, Any], float], str]
    waits: Callable[[], str] = str
    first: int = 0


@dataclass(frozen=True)
class Job:
    """Tasks, and what goes with them.

    Attributes:
        session: this process's share of the study.
        shared: several jobs may work on the same folders, so each task takes its folder's lock, and a task that fails
            does not stop the others. Otherwise there is one task, whose failure is the job's.
        flops: of all that is still to do.
        warnings: sentences to show before the first task.
    """

    config: Config
    tasks: list[Task]
    session: Session
    flops: float
    shared: bool = True
    warnings: list[str] = field(default_factory=list)


def run(job: Job) -> int:
    """Does every task that is not complete and that no other job has, then writes the report; returns the exit code.

    A task that fails is reported and the others go on. A task that another job has, or that waits for another task, is
    looked at again in the end, for that job may have died, or come further.

    Raises:
        UserError: if the disk is full, if another job has the only task that is asked for, or takes one away because
            this job stood still, or if that only task waits for another.
        Interrupted: when stopped by a signal.
    """
    display = StudyDisplay(job.flops, active=jax.process_index() == 0, whole=job.shared)
    failures: dict[str, Exception] = {}
    broken = False
    for warning in job.warnings:
        display.say(warning, style="yellow")
    with Stop().on_signals() as stop, display.bars:
        later: list[Task] = []
        left: list[str] = []
        for task in _in_turn(job, later, left):
            lock = contextlib.nullcontext()
            if job.shared:
                lock = claim(task.folder, job.config, task.complete, stop, display.say)
            with lock as claimed:
                if claimed and claimed.turn == Turn.COMPLETE:
                    display.say(f"{task.name}: complete already")
                elif claimed and claimed.turn != Turn.OURS:
                    said = f"{task.name}: {claimed.held or 'another job has it'}"
                    if job.config.only:
                        raise UserError(f"{said}: wait for it, or stop it first")
                    if task in later:
                        left.append(task.name)
                    else:
                        display.say(said)
                        later.append(task)
                else:
                    with _failing(task, failures, display, job.shared):
                        began = time.monotonic()
                        with display.run(task.name, task.steps, task.step_flops, task.first) as bar:
                            result = task.work(bar, stop)
                        job.session.add(result["split_seconds"])
                        display.say(task.summary(result, time.monotonic() - began))
                        broken = broken or bool(result.get("problem"))
    if left:
        display.say(f"left to other jobs: {', '.join(left)}")
    if jax.process_index() == 0 and job.shared and not job.config.only:
        display.say(job.session.close(job.config))
    if failures:
        display.say(f"failed: {', '.join(failures)}; the same command tries them again", style="red")
    mendable = all(isinstance(error, UserError) for error in failures.values())
    return Exit.FAILED if broken or not mendable else Exit.MISTAKE if failures else Exit.DONE


def _in_turn(job: Job, later: list[Task], left: list[str]) -> Iterator[Task]:
    """The tasks, then those for `later`; one that must wait comes `later` the first time, and is `left` the second."""
    for task in itertools.chain(job.tasks, later):
        if not (reason := task.waits()):
            yield task
        elif job.config.only:
            raise UserError(f"{task.name} {reason}: train that run first")
        elif task in later:
            left.append(f"{task.name} ({reason})")
        else:
            later.append(task)


@contextlib.contextmanager
def _failing(task: Task, failures: dict[str, Exception], display: StudyDisplay, shared: bool) -> Any:
    """Keeps a task's failure from stopping the others, and process 0 writes it down; a full disk stops them all."""
    path = task.folder / FAILURE
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as stopped:
        try:
            ownership.check_ours(task.folder)  # a lost lock stops a task too, and says why
        except FolderTaken as taken:
            raise taken from stopped
        raise
    except (files.FullDisk, FolderTaken):
        raise
    except Exception as error:
        if not shared:
            raise
        ownership.check_ours(task.folder)
        sentence = printable(str(error)).strip() or type(error).__name__
        if jax.process_index() == 0:
            try:
                files.write(path, f"{sentence}\n\n{printable(traceback.format_exc())}")
            except (OSError, UserError) as trouble:
                display.say(f"why it failed can't be written down: {trouble}", style="yellow")
        display.say(f"{task.name}: failed: {sentence.splitlines()[0]}", style="red")
        failures[task.name] = error
    else:
        if shared and jax.process_index() == 0:
            with contextlib.suppress(OSError):  # the result counts, whatever this file says
                path.unlink(missing_ok=True)
