"""Checkpoints of a whole run by Orbax: state, data iterator, and the seconds spent."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from rfjax.errors import UserError
from rfjax.training.step import State


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
            preservation_policy=kept.AnyPreservationPolicy([latest, kept.EveryNSteps(every)]) if every else latest,
            cleanup_tmp_directories=writes and jax.process_count() == 1,
        )

    @property
    def latest(self) -> int | None:
        """Step of the newest whole checkpoint."""
        return self._orbax.latest.step if self._orbax.latest else None

    def save(self, state: State, data: Any, seconds: float) -> None:
        """Starts to save; returns once the arrays are copied, and waits first for the save before."""
        tree = {"state": state, "seconds": np.asarray(seconds, np.float32)}
        self._orbax.wait()
        with small_whole():
            self._orbax.save_checkpointables_async(
                int(state.step), {"run": tree, "data": data}, force=True, overwrite=self.latest == int(state.step)
            )

    def restore(self, abstract: State, data: Any | None, step: int | None = None) -> tuple[State, float]:
        """Reads a checkpoint, the newest by default, into the shardings of `abstract`; sets the iterator to its place.

        Args:
            data: the iterator, or None to leave it out. step: of another checkpoint.

        Raises:
            UserError: if it can't be read, with what to do.
        """
        self._orbax.wait()
        step = self.latest if step is None else step
        wanted = {"run": {"state": abstract, "seconds": np.zeros((), np.float32)}}
        if data is not None:
            wanted["data"] = data
        try:
            loaded = self._orbax.load_checkpointables(step, wanted)
        except Exception as error:  # Orbax, TensorStore and JSON each raise errors of their own
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise UserError(
                f"the checkpoint {self._folder / str(step)} can't be read ({reason}): remove that folder to go on from "
                "the checkpoint before it, or from the start"
            ) from error
        return loaded["run"]["state"], float(loaded["run"]["seconds"])

    def close(self) -> None:
        """Waits for what is being written."""
        self._orbax.close()
