"""Checkpoints of a run by Orbax: the state and the seconds spent, with a fingerprint that tells damage.

Batch k is a function of the config and of k, so the state's step says all that there is to know about the data.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, UInt32
from orbax.checkpoint import v1 as ocp

from rfjax import files
from rfjax.errors import UserError
from rfjax.training.step import State

ROOM = 1.1  # free space asked for before a save, over the size of the state


class Damaged(UserError):
    """A checkpoint that can't be read, or whose numbers are not those that were saved."""


def small_whole() -> ocp.Context:
    """Within it, arrays below a MiB for each device that has a copy are saved whole by one of them.

    Orbax would have each save a slice, and compile a program for each size and place of a slice.
    """
    context = ocp.Context()
    context.array.saving.min_slice_bytes_for_replica_parallel = 2**20
    return context


class Checkpoints:
    """The checkpoints of one run, written in the background; a killed save leaves nothing that is taken for one."""

    def __init__(self, folder: Path, keep: int, every: int = 0, *, writes: bool = True) -> None:
        """Opens the folder, making it if need be.

        Args:
            keep: number of latest checkpoints to keep. every: keep those of multiples of this step too; 0: none.
            writes: whether the run itself opens them: a reader must not clean up what the run may be writing.
        """
        self._folder = folder
        kept = ocp.training.preservation_policies
        latest = kept.LatestN(keep)
        self._orbax = ocp.training.Checkpointer(
            folder.absolute(),
            save_decision_policy=ocp.training.save_decision_policies.ContinuousCheckpointingPolicy(),
            preservation_policy=kept.AnyPreservationPolicy([latest, kept.EveryNSteps(every)]) if every else latest,
            cleanup_tmp_directories=writes,
        )
        if writes:
            self._remove_old(keep, every)

    def _remove_old(self, keep: int, every: int) -> None:
        """Removes what a killed process was about to remove, or had removed in part: Orbax does it only after a save.

        All processes of a job come here.
        """
        old = [c.step for c in self._orbax.checkpoints[:-keep] if not every or c.step % every]
        if jax.process_index() == 0:
            for step in old:
                shutil.rmtree(self._folder / str(step), ignore_errors=True)
        _all_agree(True)
        if old:
            self._orbax.reload()

    @property
    def latest(self) -> int | None:
        """Step of the newest whole checkpoint."""
        return self._orbax.latest.step if self._orbax.latest else None

    def save(self, state: State, seconds: float) -> None:
        """Starts to save; returns once the arrays are copied, and waits first for the save before.

        Raises:
            FullDisk: if there is no room for it; the checkpoints before stay.
        """
        self.wait()
        step = int(state.step)
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        if (free := shutil.disk_usage(self._folder).free) < ROOM * size:
            raise files.FullDisk(
                f"a checkpoint takes {size / 1e6:,.1f} MB, and {self._folder} has {free / 1e6:,.1f} MB left: make "
                f"room, and the same command goes on from step {self.latest or 0}"
            )
        tree = {"state": state, "seconds": np.asarray(seconds, np.float32), "fingerprint": fingerprint(state)}
        with small_whole(), files.full_disk(self._folder):
            self._orbax.save_checkpointables_async(step, {"run": tree}, force=True, overwrite=self.latest == step)

    def wait(self) -> None:
        """Waits for what is being written."""
        with files.full_disk(self._folder):
            self._orbax.wait()

    def newest(self, abstract: State, say: Callable[[str], None]) -> tuple[State, float] | None:
        """Reads the newest checkpoint that is whole; None if there is none.

        Damaged ones are told of, and put aside in `checkpoints.damaged`.
        """
        while (step := self.latest) is not None:
            try:
                return self.restore(abstract, step)
            except Damaged as error:
                say(f"{error}; it is put aside, and the one before it serves")
                if jax.process_index() == 0:
                    self._put_aside(step)
                _all_agree(True)
                self._orbax.reload()
        return None

    def _put_aside(self, step: int) -> None:
        aside = self._folder.with_name(f"{self._folder.name}.damaged")
        aside.mkdir(exist_ok=True)
        target = aside / str(step)
        shutil.rmtree(target, ignore_errors=True)
        (self._folder / str(step)).rename(target)

    def restore(self, abstract: State, step: int | None = None) -> tuple[State, float]:
        """Reads a checkpoint, the newest by default, into the shardings of `abstract`: (state, seconds).

        Raises:
            Damaged: if it can't be read, or has changed since it was saved; then on all processes.
        """
        self._orbax.wait()
        step = self.latest if step is None else step
        count = len(jax.tree.leaves(abstract))
        wanted = {"state": abstract, "seconds": np.zeros((), np.float32), "fingerprint": np.zeros(count, np.uint32)}
        where, loaded, reason = f"the checkpoint {self._folder / str(step)}", None, ""
        try:
            loaded = self._orbax.load_checkpointables(step, {"run": wanted})["run"]
        except Exception as error:  # Orbax, TensorStore and JSON each raise errors of their own
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        if not _all_agree(loaded is not None):
            raise Damaged(f"{where} can't be read ({reason or 'another process could not'})")
        same = np.asarray(fingerprint(loaded["state"])) == loaded["fingerprint"]
        if not same.all():
            paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(abstract)]
            name = jax.tree_util.keystr(paths[int(np.argmin(same))], simple=True, separator="/")
            raise Damaged(f"{where} has changed since it was saved ({name} is not what it was)")
        return loaded["state"], float(loaded["seconds"])

    def close(self) -> None:
        """Waits for what is being written."""
        with files.full_disk(self._folder):
            self._orbax.close()


def _all_agree(answer: bool) -> bool:
    """Whether all processes say yes."""
    if jax.process_count() == 1:
        return answer
    return bool(np.all(multihost_utils.process_allgather(np.asarray(answer))))


@jax.jit
def fingerprint(tree: Any) -> UInt32[Array, " n"]:
    """A number for each leaf: the sum of its bits as integers, each times an odd number that goes with its place.

    Sums of integers don't depend on their order, so it is the same on any mesh.
    """
    return jnp.stack([_mixed(leaf) for leaf in jax.tree.leaves(tree)])


def _mixed(leaf: Array) -> UInt32[Array, ""]:
    bits = jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{8 * leaf.dtype.itemsize}")).astype(jnp.uint32)
    place, stride = jnp.zeros(leaf.shape, jnp.uint32), 1
    for axis in reversed(range(leaf.ndim)):
        place += jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis) * jnp.uint32(stride % 2**32)
        stride *= leaf.shape[axis]
    return jnp.sum(bits * (place * jnp.uint32(2654435761) * 2 + 1), dtype=jnp.uint32)
