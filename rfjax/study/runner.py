"""Runs a study: trains all runs that are not complete, then writes the report."""

import contextlib
import time
import traceback
from collections.abc import Iterable
from pathlib import Path

import jax

from rfjax import config as configs
from rfjax import data, files, flow, models
from rfjax.config import Config
from rfjax.data import paths
from rfjax.errors import Exit, UserError, nearest, printable
from rfjax.ownership import FolderTaken, check_ours
from rfjax.study.display import StudyDisplay
from rfjax.study.folder import Session, prepare_folder, take_turns
from rfjax.training import loop, provenance, weights
from rfjax.training import mesh as meshes
from rfjax.training.run import Run
from rfjax.training.spec import make_run_spec
from rfjax.training.stop import Interrupted, Stop


def run_study(config: Config, started: float) -> int:
    """Trains the runs that are not complete, then writes the report.

    If a run fails, the failure is reported and the others continue. The same command continues a stopped study. Several
    jobs may work on one study; each skips the runs that others have locked.

    Args:
        config: of the study. With `only`, one run is trained and no report written.
        started: `time.time()` at the start of the process, to account for imports.

    Returns:
        The exit code.

    Raises:
        UserError: for a mistake of the user, before anything is compiled; later, if the disk is full, or another job
            has the only run or takes a run while this job is suspended.
        Interrupted: if a signal stops the job.
    """
    session = Session(started)
    runs = [Run(name, run, Path(config.workdir) / "runs" / name) for name, run in configs.runs(config)]
    wanted = [run for run in runs if config.only in ("", run.name)]
    if not wanted:
        raise UserError(f"the study has no run '{config.only}'{nearest(config.only, (run.name for run in runs))}")
    complete = {run.name for run in wanted if run.complete()}
    flops = {run.name: check(run, new=run.name not in complete) for run in wanted}
    unlike = {repr((r.config.data, r.config.text, r.config.validation)): r for r in wanted if r.name not in complete}
    for run in unlike.values():
        check_data(run.config, runs)
    troubles = [prepare_folder(config, [run.name for run in runs]), *(text for r in wanted for text in r.troubles())]
    for run in wanted if jax.process_index() == 0 else ():
        run.mend()
    session.add({"start-up": time.time() - started})
    todo = sum(run.config.training.steps * flops[run.name] for run in wanted if run.name not in complete)
    display = StudyDisplay(todo, active=jax.process_index() == 0)
    for trouble in filter(None, troubles):
        display.warn(trouble)
    by_folder, failures = {run.folder: run for run in wanted}, {}

    def train(folder: Path) -> None:
        run = by_folder[folder]
        failed, split = _train(run, display, flops[run.name], stop)
        failures.update(failed)
        session.add(split)

    with Stop().on_signals() as stop, display.bars:
        done = lambda folder: by_folder[folder].complete()  # noqa: E731
        take_turns(by_folder, config, done, train, stop=stop, say=display.say)
    if jax.process_index() == 0 and not config.only:
        display.say(session.close(config))
    if failures:
        display.say(f"failed: {', '.join(failures)}; the same command tries these runs again", style="red")
    return _code(failures.values())


def _code(failures: Iterable[Exception]) -> Exit:
    """DONE without failures, MISTAKE if the user can fix all of them, else FAILED."""
    kinds = {isinstance(error, UserError) for error in failures}
    return Exit.FAILED if False in kinds else Exit.MISTAKE if kinds else Exit.DONE


def _train(
    run: Run, display: StudyDisplay, step_flops: float, stop: Stop
) -> tuple[dict[str, Exception], dict[str, float]]:
    """Trains a run whose lock this job has. Process 0 writes down a failure.

    Returns:
        Name of the run -> its failure, and activity -> seconds.

    Raises:
        UserError: if the disk is full, or another job has taken the run.
        Interrupted: if a signal stops the job.
    """
    first, began, path = jax.process_index() == 0, time.monotonic(), run.folder / "failure.txt"
    try:
        with display.run(run.name, run.config.training.steps, step_flops) as bar:
            result = loop.train(run, bar, stop)
    except (files.FullDisk, FolderTaken, Interrupted):
        raise  # a full disk affects all runs, and another job continues a run that it has taken
    except Exception as error:  # the failure of one run must not stop the others
        check_ours(run.folder)
        sentence = printable(str(error)).strip() or type(error).__name__
        if first:
            _write_down(path, f"{sentence}\n\n{printable(traceback.format_exc())}", display)
        display.say(f"{run.name}: failed: {sentence.splitlines()[0]}", style="red")
        return {run.name: error}, {}
    if first:
        with contextlib.suppress(OSError):  # a result takes precedence over this file
            path.unlink(missing_ok=True)
    loss = result["validation"][run.config.study.weights]
    display.say(
        f"{run.name}: validation loss {loss['loss']:.4f} ± {loss['stderr']:.4f}, "
        f"{result['size']['parameters']:,} parameters, {time.monotonic() - began:.0f} s"
    )
    return {}, result["split_seconds"]


def _write_down(path: Path, text: str, display: StudyDisplay) -> None:
    """Writes why a run failed, or prints a warning if that can't be written."""
    try:
        files.write(path, text)
    except (OSError, UserError) as error:
        display.warn(f"the reason for the failure can't be written down: {error}")


def check(run: Run, *, new: bool = True) -> float:
    """Checks all of a run that can be checked before it is compiled.

    Args:
        new: whether to check the weights of config.training.start_from too.

    Returns:
        The FLOPs of a training step.

    Raises:
        UserError: if something is wrong.
    """
    mesh = meshes.make_mesh(run.config.mesh)
    meshes.check_attention(run.config.model.attention, mesh)
    parts = make_run_spec(run.config)
    loop.check_mesh(run.config, parts, mesh)
    flow.formulation(run.config.flow.formulation, run.config.flow.shift)
    if new and run.config.training.start_from:
        weights.check_start(Path(run.config.training.start_from), run.config, parts)
    return models.measure(parts.model, parts.inputs).train_flops * run.config.training.batch


def check_data(config: Config, runs: Iterable[Run]) -> None:
    """Checks a run's data.

    Raises:
        UserError: if the data can't be opened, are too few for the validation loss, need too much memory per batch, or
            differ from the data that other runs of the study recorded.
    """
    parts = make_run_spec(config)
    _check_memory(config)
    sources, identity = provenance.open_data(config)
    loop.check_shapes(sources["train"], config, parts)
    if (count := len(sources["validation"])) < config.validation.examples:
        raise UserError(
            f"the validation split of '{config.data.dataset or config.data.name}' has {count:,} examples, fewer than "
            f"config.validation.examples = {config.validation.examples:,}: set it to {count - count % 8:,} or less"
        )
    provenance.refuse_unless_allowed(config, provenance.of_other_runs(runs, config), identity)


def _check_memory(config: Config) -> None:
    """Refuses batches that don't fit into memory: a process prepares several, with a byte for each value."""
    rows = -(-config.training.batch // jax.process_count())
    needed = data.batches_ready() * rows * config.data.image_size**2 * config.data.channels
    paths.check_memory(
        f"preparing {data.batches_ready()} batches of {rows} images of config.data.image_size = "
        f"{config.data.image_size}",
        needed,
        "set a smaller config.training.batch",
    )
