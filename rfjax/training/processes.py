"""What the processes of a job tell each other, so that all act alike; with one process, nothing is sent."""

from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from rfjax import ownership


def all_agree(answer: bool) -> bool:
    """Whether all processes say yes."""
    if jax.process_count() == 1:
        return answer
    return bool(np.all(multihost_utils.process_allgather(np.asarray(answer))))


def from_first(value: int) -> int:
    """What process 0 says: the others may not see its files yet."""
    return int(multihost_utils.broadcast_one_to_all(np.int32(value))) if jax.process_count() > 1 else int(value)


def all_from_first(values: list[bool]) -> list[bool]:
    """What process 0 says of each of several things."""
    if jax.process_count() == 1:
        return values
    return np.asarray(multihost_utils.broadcast_one_to_all(np.asarray(values, bool))).tolist()


def check_ours(folder: Path) -> None:
    """Asks process 0, which has the run's lock, whether it still has it; all processes come here before a write.

    Raises:
        FolderTaken: on all of them, if another job has taken the run.
    """
    trouble = None
    try:
        ownership.check_ours(folder)
    except ownership.FolderTaken as error:
        trouble = error
    if not all_agree(trouble is None):
        raise trouble or ownership.FolderTaken(f"{folder.name}: another job has taken the run: process 0 says more")
