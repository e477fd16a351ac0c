"""The beginning of a branch: its trunk's state where its own decay starts, and what the trunk left out before."""

import jax

from rfjax.buckets import mirror
from rfjax.errors import UserError
from rfjax.training import recovery
from rfjax.training.checkpoint_files import Progress, is_finished
from rfjax.training.checkpoints import Checkpoints
from rfjax.training.processes import from_first
from rfjax.training.provenance import begun
from rfjax.training.recovery import Skip
from rfjax.training.run import Run, read_result
from rfjax.training.state import State


def begin(run: Run, abstract: State) -> tuple[State, Progress]:
    """The state that a branch begins with, in the shardings of `abstract`, and the seconds that it took.

    Raises:
        UserError: if its trunk has no whole checkpoint of that step.
    """
    saved = Checkpoints(run.trunk / "checkpoints", 1, writes=False)
    try:
        state, progress = saved.restore(abstract, run.first)
    except UserError as error:
        raise UserError(
            f"{run.name} begins with step {run.first} of {run.trunk.name}, but {error}: move {run.trunk} away to train "
            "it anew, or set config.study.branches = False"
        ) from error
    finally:
        saved.close()
    return state, Progress(seconds=progress.seconds)


def waits(run: Run) -> str:
    """Why a run can't begin yet: its trunk has not come to the step at which its decay starts; "" where it can.

    All processes get the same answer. The branches of a complete trunk begin in any case, and say what they miss.
    """
    if not run.trunk:
        return ""
    ready = False
    if jax.process_index() == 0:
        mirror.refresh(run.trunk)
        there = is_finished(run.trunk / "checkpoints" / str(run.first))
        ready = there or begun(run.folder) is not None or read_result(run.trunk).found is not None
    return "" if from_first(ready) else f"begins with step {run.first} of {run.trunk.name}, which is not trained yet"


def skips(run: Run) -> tuple[Skip, ...]:
    """The batches that a run has left out; a branch that begins takes over, and writes down, those before it.

    Raises:
        UserError: if the file that says so can't be read.
    """
    own = recovery.read(run.folder)
    if own or not run.trunk:
        return own
    before = tuple(skip for skip in recovery.read(run.trunk) if skip.step <= run.first)
    if before and jax.process_index() == 0:
        recovery.write(run.folder, before)
    return before
