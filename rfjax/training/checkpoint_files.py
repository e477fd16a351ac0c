"""What is in the folder of one checkpoint: written by Orbax, or in a bucket by `parts`."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from rfjax.training import parts
from rfjax.training.state import State


class Progress(NamedTuple):
    """What a run knows besides its state.

    Attributes:
        seconds: of training so far.
        measured: the step at which everything was measured last; -1: never.
        best_step: the step of the lowest validation loss of the averaged weights, which is `best_loss`; -1: none yet.
    """

    seconds: float = 0.0
    measured: int = -1
    best_step: int = -1
    best_loss: float = math.inf

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: np.asarray(value, PROGRESS[name]) for name, value in self._asdict().items()}


PROGRESS = {"seconds": np.float32, "measured": np.int32, "best_step": np.int32, "best_loss": np.float64}
# What fields of the state were called when `progress` was `seconds` alone: a checkpoint from then is read by this map.
BEFORE = {"ema_params": "average", "opt_state": "moments"}


def small_whole() -> ocp.Context:
    """Within it, arrays below a MiB for each device that has a copy are saved whole by one of them.

    Orbax would have each save a slice, and compile a program for each size and place of a slice.
    """
    context = ocp.Context()
    context.array.saving.min_slice_bytes_for_replica_parallel = 2**20
    return context


def load(path: Path, abstract: State) -> dict[str, Any]:
    """The state, the progress and the fingerprint in a finished checkpoint, of this version or of the one before."""
    fingerprint = np.zeros(len(jax.tree.leaves(abstract)), np.uint32)
    if (path / parts.MANIFEST).is_file():
        loaded = parts.read(path, {"state": abstract, "progress": Progress().arrays(), "fingerprint": fingerprint})
        return loaded | {"progress": Progress(**{name: value.item() for name, value in loaded["progress"].items()})}
    if "progress" in ocp.checkpointables_metadata(path).metadata["run"]:
        wanted = {"state": abstract, "progress": Progress().arrays(), "fingerprint": fingerprint}
        loaded = ocp.load_checkpointables(path, {"run": wanted})["run"]
        return loaded | {"progress": Progress(**{name: value.item() for name, value in loaded["progress"].items()})}
    named = {BEFORE.get(name, name): getattr(abstract, name) for name in ("step", "params", *BEFORE, "health")}
    older = {"state": named | {"loss_sum": abstract.sums["loss"]}, "seconds": np.float32(0), "fingerprint": fingerprint}
    loaded = ocp.load_checkpointables(path, {"run": jax.tree.map(lambda x: x, older)})["run"]
    old = loaded["state"]
    fields = {name: old[BEFORE.get(name, name)] for name in ("step", "params", *BEFORE, "health")}
    state = abstract.replace(**fields, sums={"loss": old["loss_sum"]})
    return loaded | {"state": state, "progress": Progress(float(loaded["seconds"]))}


def is_finished(path: Path) -> bool:
    """Whether a checkpoint is finished: what is written last is there, the list of parts or Orbax's metadata."""
    if (path / parts.MANIFEST).is_file():
        return True
    return (path / "_CHECKPOINT_METADATA").is_file() and (path / "run").is_dir()
