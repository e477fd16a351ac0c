"""Runs a study: every run of its grid that is not complete yet, then the report."""

import contextlib
import time
import traceback
from collections.abc import Iterable
from pathlib import Path

import jax

from rfjax import config as configs
from rfjax import data, files, flow, models
from rfjax.config import Config
from rfjax.errors import Exit, UserError, nearest, printable
from rfjax.ownership import Taken, check_ours
from rfjax.study.display import StudyDisplay
from rfjax.study.folder import Sitting, prepare_folder, take_turns
from rfjax.training import loop
from rfjax.training import mesh as meshes
from rfjax.training.parts import make_parts
from rfjax.training.run import Run
from rfjax.training.stop import Interrupted, Stop


def run_study(config: Config, started: float) -> int:
    """Trains what is missing, then writes the report; returns the exit code.

    A run that fails is reported and the others go on. The same command goes on where this one was stopped. Several jobs
    may work on one study: a run that another has is left to it.

    Args:
        config: with `only`, one run is trained and no report written.
        started: `time.time()` at the start of the process, to account for imports.

    Raises:
        UserError: before anything is compiled, for what the user can mend; later, if the disk is full, if another job
            has the only run, or takes one away because this job stood still. Interrupted: when stopped by a signal.
    """
    sitting = Sitting(started)
    runs = [Run(name, run, Path(config.workdir) / "runs" / name) for name, run in configs.runs(config)]
    wanted = [run for run in runs if config.only in ("", run.name)]
    if not wanted:
        raise UserError(f"the study has no run '{config.only}'{nearest(config.only, (run.name for run in runs))}")
    flops = {run.name: check(run) for run in wanted}
    complete = {run.name for run in wanted if run.complete()}
    for run in {repr(r.config.data) + repr(r.config.text): r for r in wanted if r.name not in complete}.values():
        check_data(run.config)
    troubles = [prepare_folder(config, [run.name for run in runs]), *(said for r in wanted for said in r.troubles())]
    for run in wanted if jax.process_index() == 0 else ():
        run.mend()
    sitting.add({"start-up": time.time() - started})
    todo = sum(run.config.training.steps * flops[run.name] for run in wanted if run.name not in complete)
    display = StudyDisplay(todo, active=jax.process_index() == 0)
    for trouble in filter(None, troubles):
        display.warn(trouble)
    by_folder, failures = {run.folder: run for run in wanted}, {}

    def train(folder: Path) -> None:
        run = by_folder[folder]
        failed, split = _train(run, display, flops[run.name], stop)
        failures.update(failed)
        sitting.add(split)

    with Stop().on_signals() as stop, display.bars:
        done = lambda folder: by_folder[folder].complete()  # noqa: E731
        take_turns(by_folder, config, done, train, stop=stop, say=display.say)
    if jax.process_index() == 0 and not config.only:
        display.say(sitting.close(config))
    if failures:
        display.say(f"failed: {', '.join(failures)}; the same command tries them again", style="red")
    return _code(failures.values())


def _code(failures: Iterable[Exception]) -> Exit:
    """DONE without failures, MISTAKE where the user can mend them all."""
    kinds = {isinstance(error, UserError) for error in failures}
    return Exit.FAILED if False in kinds else Exit.MISTAKE if kinds else Exit.DONE


def _train(
    run: Run, display: StudyDisplay, step_flops: float, stop: Stop
) -> tuple[dict[str, Exception], dict[str, float]]:
    """Trains a run that is ours; returns its failure by name, which process 0 writes down, and its seconds by activity.

    Raises:
        UserError: if the disk is full, or if another job has taken the run. Interrupted: when stopped by a signal.
    """
    first, began, path = jax.process_index() == 0, time.monotonic(), run.folder / "failure.txt"
    try:
        with display.run(run.name, run.config.training.steps, step_flops) as bar:
            result = loop.train(run, bar, stop)
    except (files.FullDisk, Taken, Interrupted):
        raise  # the other runs would meet a full disk too; what is another's is left to it
    except Exception as error:  # one rung must not take the others down
        check_ours(run.folder)
        sentence = printable(str(error)).strip() or type(error).__name__
        if first:
            _write_down(path, f"{sentence}\n\n{printable(traceback.format_exc())}", display)
        display.say(f"{run.name}: failed: {sentence.splitlines()[0]}", style="red")
        return {run.name: error}, {}
    if first:
        with contextlib.suppress(OSError):  # the result outdoes it
            path.unlink(missing_ok=True)
    loss = result["validation"][run.config.study.weights]
    display.say(
        f"{run.name}: validation loss {loss['loss']:.4f} ± {loss['stderr']:.4f}, "
        f"{result['size']['parameters']:,} parameters, {time.monotonic() - began:.0f} s"
    )
    return {}, result["split_seconds"]


def _write_down(path: Path, text: str, display: StudyDisplay) -> None:
    """Writes why a run failed, where that can be written; a result that could not be read must not outdo it."""
    try:
        files.write(path, text)
    except (OSError, UserError) as error:
        display.warn(f"why it failed can't be written down: {error}")


def check(run: Run) -> float:
    """Everything about a run that can be known before compiling it; returns the FLOPs of a step.

    Raises:
        UserError: for what the user can mend.
    """
    parts = make_parts(run.config)
    loop.check_mesh(run.config, parts, meshes.make_mesh(run.config.mesh))
    flow.formulation(run.config.flow.formulation, run.config.flow.shift)
    return models.measure(parts.model, parts.inputs).train_flops * run.config.training.batch


def check_data(config: Config) -> None:
    """Raises UserError if the data can't be opened, or is too small for the validation loss."""
    parts = make_parts(config)
    loop.check_shapes(data.open_source(config.data, "train"), config, parts)
    if (found := len(data.open_source(config.data, "validation"))) < config.validation.examples:
        raise UserError(
            f"the validation split of '{config.data.dataset or config.data.name}' has {found:,} examples, fewer than "
            f"config.validation.examples = {config.validation.examples:,}: set it to {found - found % 8:,} or less"
        )
