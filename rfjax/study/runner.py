"""Runs a study: every run of its grid that is not complete yet, then the report."""

import contextlib
import time
import traceback
from pathlib import Path

import jax

from rfjax import config as configs
from rfjax import data, flow, models
from rfjax.config import Config
from rfjax.errors import UserError, nearest
from rfjax.study.display import StudyDisplay
from rfjax.study.folder import Sitting, prepare_folder
from rfjax.training import loop
from rfjax.training import mesh as meshes
from rfjax.training.parts import make_parts
from rfjax.training.stop import Interrupted, Stop


def run_study(config: Config, started: float) -> int:
    """Trains what is missing, then writes the report; returns the exit code.

    A run that fails is reported and the others go on. The same command goes on where this one was stopped.

    Args:
        config: with `only`, one run is trained and no report written.
        started: `time.time()` at the start of the process, to account for imports.

    Raises:
        UserError: before anything is compiled, for what the user can mend. Interrupted: when stopped by a signal.
    """
    sitting = Sitting(started)
    runs = [loop.Run(name, run, Path(config.workdir) / "runs" / name) for name, run in configs.runs(config)]
    wanted = [run for run in runs if config.only in ("", run.name)]
    if not wanted:
        raise UserError(f"the study has no run '{config.only}'{nearest(config.only, (run.name for run in runs))}")
    flops = {run.name: check(run) for run in wanted}
    complete = {run.name for run in wanted if run.result()}
    for run in {repr(r.config.data) + repr(r.config.text): r for r in wanted if r.name not in complete}.values():
        check_data(run.config)
    prepare_folder(config, [run.name for run in runs])
    sitting.add({"start-up": time.time() - started})
    failures: dict[str, BaseException] = {}
    first = jax.process_index() == 0
    todo = sum(run.config.training.steps * flops[run.name] for run in wanted if run.name not in complete)
    display = StudyDisplay(todo, active=first)
    with Stop().on_signals() as stop, display.bars:
        for run in wanted:
            if run.name in complete:
                display.console.print(f"{run.name}: complete already")
                continue
            began = time.monotonic()
            try:
                with display.run(run.name, run.config.training.steps, flops[run.name]) as bar:
                    result = loop.train(run, bar, stop)
            except (Interrupted, KeyboardInterrupt):
                raise
            except Exception as error:  # one rung must not take the others down
                failures[run.name] = error
                sentence = str(error) or type(error).__name__
                (run.folder / "failure.txt").write_text(f"{sentence}\n\n{traceback.format_exc()}")
                display.console.print(f"{run.name}: failed: {sentence.splitlines()[0]}", style="red", markup=False)
                continue
            with contextlib.suppress(FileNotFoundError):
                (run.folder / "failure.txt").unlink()
            loss = result["validation"][config.study.weights]
            display.console.print(
                f"{run.name}: validation loss {loss['loss']:.4f} ± {loss['stderr']:.4f}, "
                f"{result['size']['parameters']:,} parameters, {time.monotonic() - began:.0f} s"
            )
            sitting.add(result["split_seconds"])
    if first and not config.only:
        display.console.print(sitting.close(config), markup=False)
    if failures:
        display.console.print(f"[red]failed: {', '.join(failures)}[/red]; the same command tries them again")
        return 2 if all(isinstance(error, UserError) for error in failures.values()) else 1
    return 0


def check(run: loop.Run) -> float:
    """Everything about a run that can be known before compiling it; returns the FLOPs of a step.

    Raises:
        UserError: for what the user can mend.
    """
    mesh = meshes.make_mesh(run.config.mesh)
    meshes.check_batch("training.batch", run.config.training.batch, mesh)
    meshes.check_batch("validation.batch", run.config.validation.batch, mesh)
    parts = make_parts(run.config)
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
