"""Runs a study: every run of its grid that is not complete yet, then the report."""

import contextlib
import importlib.metadata
import json
import platform
import shlex
import subprocess
import sys
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from rfjax import config as configs
from rfjax import data, models
from rfjax.config import Config, differences
from rfjax.errors import UserError, nearest
from rfjax.study import report
from rfjax.study.display import StudyDisplay
from rfjax.training import loop
from rfjax.training import mesh as meshes
from rfjax.training.logs import write_json
from rfjax.training.parts import make_parts
from rfjax.training.stop import Interrupted, Stop

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "scipy")


def run_study(config: Config, started: float) -> int:
    """Trains what is missing, then writes the report; returns the exit code.

    A run that fails is reported and the others go on. The same command goes on where this one was stopped.

    Args:
        config: with `only`, one run is trained and no report written.
        started: `time.time()` at the start of the process, to account for imports.

    Raises:
        UserError: before anything is compiled, for what the user can mend. Interrupted: when stopped by a signal.
    """
    runs = [loop.Run(name, run, Path(config.workdir) / "runs" / name) for name, run in configs.runs(config)]
    wanted = [run for run in runs if config.only in ("", run.name)]
    if not wanted:
        raise UserError(f"the study has no run '{config.only}'{nearest(config.only, (run.name for run in runs))}")
    flops = {run.name: check(run) for run in wanted}
    complete = {run.name for run in wanted if run.result()}
    for run in {repr(r.config.data) + repr(r.config.text): r for r in wanted if r.name not in complete}.values():
        check_data(run.config)
    prepare_folder(config, [run.name for run in runs])
    sitting: dict[str, float] = {"start-up": time.time() - started}
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
            for activity, seconds in result["split_seconds"].items():
                sitting[activity] = sitting.get(activity, 0.0) + seconds
    if first and not config.only:
        began = time.time()
        drawn = report.draw(Path(config.workdir))
        sitting["report"] = time.time() - began
        note_sitting(config, time.time() - started, sitting)
        page = report.write(drawn)
        display.console.print(report.summary(drawn, page), markup=False)
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
    return models.measure(parts.model, parts.inputs).train_flops * run.config.training.batch


def check_data(config: Config) -> None:
    """Raises UserError if the data can't be opened, or is too small for the validation loss."""
    parts = make_parts(config)
    loop.check_shapes(data.open_source(config.data, "train"), config, parts)


def prepare_folder(config: Config, names: list[str]) -> None:
    """Makes the study's folder and its `study.json`.

    Raises:
        UserError: if it can't be written, or holds a study of another config.
    """
    folder = Path(config.workdir)
    path = folder / "study.json"
    try:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        known = json.loads(path.read_text()) if path.exists() else None
        if known and (found := differences(config.to_dict(), known["config"])):
            raise UserError(
                f"{folder} holds another study: {'; '.join(found[:3])}; choose another folder with --config.workdir"
            )
        if jax.process_index() == 0:
            for name in names:
                (folder / "runs" / name).mkdir(exist_ok=True)
            write_json(path, {"config": config.to_dict(), "runs": names, **facts()})
    except OSError as error:
        raise UserError(f"the work folder {folder} can't be written ({error.strerror}): set config.workdir") from error


def facts() -> dict[str, Any]:
    """What else a result depends on: command, commit, versions, machine."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    with contextlib.suppress(OSError):
        commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "command": f"python -m rfjax.main {shlex.join(sys.argv[1:])}",
        "commit": commit or "unknown",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "machine": f"{platform.system()} {platform.machine()}",
    }


def note_sitting(config: Config, seconds: float, split: dict[str, float]) -> None:
    """Appends one sitting's wall time and where it went."""
    line = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": seconds, "split": split}
    with (Path(config.workdir) / "sittings.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
