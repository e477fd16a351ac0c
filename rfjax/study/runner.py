"""The job `study`: trains every run of the study's grid that is not complete yet."""

import functools
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax

from rfjax import config as configs
from rfjax import data, flow, models
from rfjax.buckets import mirror
from rfjax.config import Config
from rfjax.data import paths
from rfjax.errors import UserError, nearest
from rfjax.evaluation.metrics import make_metrics
from rfjax.study.folder import Session, prepare_folder
from rfjax.study.jobs import Job, Task
from rfjax.training import branching, loop, provenance, weights
from rfjax.training import mesh as meshes
from rfjax.training.context import check_mesh, check_shapes
from rfjax.training.encodings import check_encodings
from rfjax.training.measurements import make_measurements
from rfjax.training.run import Run
from rfjax.training.spec import make_run_spec


def make_job(config: Config, started: float) -> Job:
    """Checks all runs of a study and makes its folder; the job trains what is missing.

    Args:
        config: of the study. With `only`, one run is trained and no report written.
        started: `time.time()` at the start of the process, to account for imports.

    Raises:
        UserError: for what the user can mend.
    """
    session = Session(started)
    runs = make_runs(config)
    wanted = [run for run in runs if config.only in ("", run.name)]
    if not wanted:
        raise UserError(f"the study has no run '{config.only}'{nearest(config.only, (run.name for run in runs))}")
    complete = {run.name for run in wanted if run.complete()}
    for trunk in {run.trunk.name for run in wanted if run.trunk}:
        next(run for run in runs if run.name == trunk).complete()  # refuses one of another config
    flops = {run.name: check(run, new=run.name not in complete) for run in wanted}
    unlike = {_asked_of_data(r.config): r for r in wanted if r.name not in complete}
    for run in unlike.values():
        check_data(run.config, runs)
    troubles = [prepare_folder(config, [run.name for run in runs]), *(text for r in wanted for text in r.troubles())]
    for run in wanted if jax.process_index() == 0 else ():
        run.restore_config()
    session.add({"start-up": time.time() - started})
    own_steps = {run.name: run.config.training.steps - run.first for run in wanted}
    todo = sum(own_steps[run.name] * flops[run.name] for run in wanted if run.name not in complete)
    trunks_first = sorted(wanted, key=lambda run: run.trunk is not None)
    tasks = [_task(run, flops[run.name]) for run in trunks_first]
    return Job(config, tasks, session, todo, warnings=[*filter(None, troubles)])


def make_runs(config: Config) -> list[Run]:
    """A study's runs, with their folders; a branch knows its trunk, and a trunk the steps of its branches."""
    made, folder = configs.runs(config), Path(config.workdir) / "runs"
    branches = configs.branches(made)
    kept: dict[str, set[int]] = {}
    for branch in branches.values():
        kept.setdefault(branch.trunk, set()).add(branch.step)
    trunks = {name: folder / branch.trunk for name, branch in branches.items()}
    return [Run(name, run, folder / name, trunks.get(name), tuple(sorted(kept.get(name, ())))) for name, run in made]


def _asked_of_data(config: Config) -> str:
    """What `check_data` depends on."""
    c = config
    return repr((c.data, c.text, c.validation, c.training.measurements, c.representations, c.alignment.encoders))


def _task(run: Run, step_flops: float) -> Task:
    def summary(result: dict[str, Any], seconds: float) -> str:
        said = f"{result['size']['parameters']:,} parameters"
        if loss := result.get("validation", {}).get(run.config.study.weights):
            said = f"validation loss {loss['loss']:.4f} ± {loss['stderr']:.4f}, {said}"
        return f"{run.name}: {said}, {seconds:.0f} s"

    return Task(
        name=run.name,
        folder=run.folder,
        steps=run.config.training.steps,
        step_flops=step_flops,
        complete=run.complete,
        work=functools.partial(loop.train, run),
        summary=summary,
        waits=functools.partial(branching.waits, run),
        first=run.first,
    )


def check(run: Run, *, new: bool = True) -> float:
    """Checks all of a run that can be checked before it is compiled.

    Args:
        run: what is checked.
        new: whether it may begin with the weights that it is to start from.

    Raises:
        UserError: if something is wrong.
    """
    mesh = meshes.make_mesh(run.config.mesh)
    meshes.check_attention(run.config.model.attention, mesh)
    spec = make_run_spec(run.config)
    check_mesh(run.config, spec, mesh)
    make_measurements(run.config)
    make_metrics(run.config)
    flow.formulation(run.config.flow.formulation, run.config.flow.shift)
    if new and run.config.training.start_from and not run.trunk:
        start = mirror.reading(run.config.training.start_from, "config.training.start_from")
        weights.check_start(start, run.config, spec)
    return models.measure(spec.model, spec.inputs).train_flops * run.config.training.batch


def check_data(config: Config, runs: Iterable[Run]) -> None:
    """Raises UserError if the data can't be opened, are too small for the validation loss or a batch of them too large
    for memory, or are not those that these runs of the study recorded."""
    spec, ready, rows = make_run_spec(config), data.batches_ready(), -(-config.training.batch // jax.process_count())
    paths.check_memory(  # a process prepares several batches, with a byte for each value
        f"preparing {ready} batches of {rows} images of config.data.image_size = {config.data.image_size}",
        ready * rows * config.data.image_size**2 * config.data.channels,
        "set a smaller config.training.batch",
    )
    sources, identity = provenance.open_data(config)
    check_shapes(sources["train"], spec)
    for source in sources.values():
        check_encodings(config, source)
    if (count := len(sources["validation"])) < config.validation.examples:
        raise UserError(
            f"the validation split of '{config.data.dataset or config.data.name}' has {count:,} examples, fewer than "
            f"config.validation.examples = {config.validation.examples:,}: set it to {count - count % 8:,} or less"
        )
    for scheduled in make_measurements(config):
        if check := getattr(scheduled.measurement, "check", None):
            check(config, sources)
    provenance.refuse_unless_allowed(config, provenance.of_other_runs(runs, config), identity)
