"""What saves leave behind, and what it costs to wait for the disk.

python -m benchmarks.saves [SAVES=2000]      descriptors and threads after 10 saves and after all; about two minutes
python -m benchmarks.saves --lasting         milliseconds of a small file, of a line, of a checkpoint's files
"""

import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from rfjax import files
from rfjax.training.checkpoints import Checkpoints, Progress
from rfjax.training.state import State

ROUNDS = 30


def small(step: int) -> State:
    """A state of three weights."""
    w = {"w": jnp.arange(3.0)}
    return State(jnp.int32(step), w, {}, w, {}, {"loss": jnp.float32(0)}, {})


def counts() -> tuple[int, int]:
    """Descriptors and threads of this process."""
    return len(os.listdir("/proc/self/fd")), threading.active_count()


def leaks(saves: int) -> None:
    """Saves again and again, as a run does; prints the counts."""
    with tempfile.TemporaryDirectory() as temporary:
        saved = Checkpoints(Path(temporary) / "checkpoints", 2)
        for step in range(1, saves + 1):
            saved.save(small(step), Progress(1.0))
            if step in (10, saves):
                saved.wait()
                print("after {:,} saves: {} descriptors, {} threads".format(step, *counts()), flush=True)
        saved.close()


def milliseconds(act: Callable[[], object]) -> str:
    """The median and the range of ROUNDS calls."""
    found = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        act()
        found.append(1000 * (time.perf_counter() - began))
    return f"{statistics.median(found):.2f} ms ({min(found):.2f} to {max(found):.2f})"


def lasting() -> None:
    """Files and lines with and without waiting for the disk, in the working folder's file system."""
    with tempfile.TemporaryDirectory(dir=".") as temporary:
        folder = Path(temporary)
        for wait in (False, True):
            said = milliseconds(lambda wait=wait: files.write(folder / "x.json", "x" * 4000, lasting=wait))
            print(f"a file of 4 kB{', lasting' * wait}: {said}")
        lines = files.Growing(folder / "lines")
        print(f"a line of 400 bytes: {milliseconds(lambda: lines.append('x' * 399 + chr(10)))}")
        print(f"a line, and sync: {milliseconds(lambda: (lines.append('x' * 399 + chr(10)), lines.sync()))}")
        lines.close()
        saved, step = Checkpoints(folder / "checkpoints", 2), iter(range(1, 10 * ROUNDS))
        state = jax.block_until_ready(small(0))

        def save() -> None:
            saved.save(state.replace(step=jnp.int32(next(step))), Progress(1.0))
            saved.wait()

        print(f"a save of a tiny state, waited for, with its files synced: {milliseconds(save)}")
        newest = folder / "checkpoints" / str(saved.latest)
        print(f"of which syncing its files, here again: {milliseconds(lambda: files.sync_tree(newest))}")
        saved.close()


if __name__ == "__main__":
    if "--lasting" in sys.argv:
        lasting()
    else:
        leaks(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
