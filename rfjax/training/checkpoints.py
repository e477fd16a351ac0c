"""Checkpoints of a run by Orbax, or in a bucket by `parts`: the state and the seconds spent, with a fingerprint.

Batch k is a function of the config and of k, so the state's step says all that there is to know about the data.
"""

import contextlib
import itertools
import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from rfjax import files, ownership
from rfjax.buckets import Unavailable, mirror
from rfjax.errors import UserError
from rfjax.training import parts
from rfjax.training.checkpoint_files import Progress, is_finished, load, small_whole
from rfjax.training.fingerprint import fingerprint
from rfjax.training.processes import all_agree, check_ours, from_first
from rfjax.training.state import State
from rfjax.trees import leaf_name

STEP = re.compile(r"0|[1-9][0-9]{0,8}")
LEFT = re.compile(r"[0-9]+\.(orbax-checkpoint-tmp.*|removed)")  # by a save or a removal that was killed
NONE = -1
ROOM = 1.1  # free space asked for before a save, over the size of the state


class Damaged(UserError):
    """A checkpoint that can't be read, or whose numbers are not those that were saved."""


class Checkpoints:
    """The checkpoints of one run, written in the background; a killed save leaves nothing that is taken for one.

    A checkpoint is a folder named after its step, which Orbax renames to that once it is whole. What else has a number
    for its name counts for nothing. Older ones are removed only when a newer one has been read or written whole.
    """

    def __init__(
        self, folder: Path, keep: int, every: int = 0, *, kept: tuple[int, ...] = (), writes: bool = True
    ) -> None:
        """Opens the folder, making it if need be.

        Args:
            keep: number of latest checkpoints to keep.
            every: keep those of multiples of this step too; 0: none.
            kept: keep those of these steps too.
            writes: whether the run itself opens them: a reader must not clean up what the run may be writing.

        Raises:
            UserError: if it is no folder.
        """
        self._folder, self._keep, self._every, self._kept, self._writes = folder, keep, every, kept, writes
        self._saving: tuple[int, Future[None]] | None = None
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._latest: int | None = None  # read whole, or written, by this process
        if writes and jax.process_index() == 0:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as error:
                raise UserError(f"{folder} is no folder, and checkpoints go there: move it away") from error
            for path in folder.iterdir():
                if LEFT.fullmatch(path.name):
                    _remove(path)
            parts.clean(folder)
        all_agree(True)

    @property
    def latest(self) -> int | None:
        """Step of the newest checkpoint that this process has read whole or written; None before."""
        return self._saving[0] if self._saving else self._latest

    def begun(self) -> bool:
        """Whether there is anything that has a checkpoint's name, whole or not; all processes get the same answer."""
        return bool(from_first(bool(self._numbered())))

    def _numbered(self) -> list[int]:
        """What has a checkpoint's name, by step."""
        names = (path.name for path in self._folder.iterdir()) if self._folder.is_dir() else ()
        return sorted(int(name) for name in names if STEP.fullmatch(name))

    def finished(self) -> list[int]:
        """What Orbax has finished, by step; only reading tells whether it is whole."""
        return [step for step in self._numbered() if is_finished(self._folder / str(step))]

    def save(self, state: State, progress: Progress) -> None:
        """Starts to save; returns once the arrays are copied, and waits first for the save before.

        All processes of a job come here. A process that has lost the run's lock saves nothing; one that loses it while
        Orbax writes in the background may still finish that one checkpoint, whose bits are those of any other job's.

        Raises:
            FullDisk: if there is no room for it; the checkpoints before stay. FolderTaken: if another job has the run.
        """
        self.wait()
        check_ours(self._folder)
        step, remote = int(state.step), mirror.place_of(self._folder)
        if not remote:
            self._check_room(state)
        if step == self._latest:
            return
        if jax.process_index() == 0 and _exists(self._folder / str(step)):
            self._put_aside(step)
        all_agree(True)
        tree = {"state": state, "progress": progress.arrays(), "fingerprint": fingerprint(state)}
        write = self._write_parts if remote else self._write_by_orbax
        self._saving = step, self._thread.submit(write(step, tree))

    def _check_room(self, state: State) -> None:
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        if (free := shutil.disk_usage(self._folder).free) < ROOM * size:
            raise files.FullDisk(
                f"a checkpoint takes {size / 1e6:,.1f} MB, and {self._folder} has {free / 1e6:,.1f} MB left: make "
                f"room, and the same command goes on from step {self.latest or 0}"
            )

    def _write_by_orbax(self, step: int, tree: dict[str, Any]) -> Callable[[], None]:
        """Copies the arrays; returns what the thread does: not until it is on the disk may others be removed."""
        with small_whole(), files.full_disk(self._folder):
            response = ocp.save_checkpointables_async(self._path(step), {"run": tree})

        def finish() -> None:
            response.result()  # if it were not asked for, Orbax would leave a thread and three descriptors
            if jax.process_index() == 0:
                files.sync_tree(self._folder / str(step))

        return finish

    def _write_parts(self, step: int, tree: dict[str, Any]) -> Callable[[], None]:
        token = from_first(int.from_bytes(os.urandom(3)))
        saved = parts.copy_out(tree, token)
        return lambda: parts.write(saved, self._folder / str(step))

    def wait(self) -> None:
        """Waits for what is being written, then removes the checkpoints that it makes superfluous."""
        if not self._saving:
            return
        (step, written), self._saving = self._saving, None
        with files.full_disk(self._folder):
            written.result()
        self._latest = step
        self._retire()

    def _retire(self) -> None:
        """Removes, on process 0 alone, the checkpoints before the latest that need not be kept."""
        if jax.process_index() != 0:
            return
        with contextlib.suppress(ownership.FolderTaken):  # the next save says so, on all processes
            ownership.check_ours(self._folder)
            for step in [step for step in self.finished() if step <= self._latest][: -self._keep]:
                if step not in self._kept and (not self._every or step % self._every):
                    removed = self._folder / f"{step}.removed"
                    parts.remove(self._folder / str(step))
                    (self._folder / str(step)).rename(removed)  # so that a kill leaves no half of a checkpoint
                    _remove(removed)

    def newest(self, abstract: State, say: Callable[[str], None]) -> tuple[State, Progress] | None:
        """Reads the newest checkpoint that is whole; None if there is none, nor anything that has one's name.

        What has a higher number and is not whole is told of and put aside in `checkpoints.damaged`, once a whole one
        has been read.

        Raises:
            UserError: if there are checkpoints, and none is whole: the run must not begin anew without a word.
        """
        self.wait()
        bad: dict[int, str] = {}
        while (step := from_first(max((s for s in self._numbered() if s not in bad), default=NONE))) != NONE:
            try:
                found = self.restore(abstract, step)
            except Damaged as error:
                bad[step] = str(error)
                continue
            for number, reason in bad.items():
                say(f"{reason}; it is put aside, and the one before it serves")
                if jax.process_index() == 0:
                    self._put_aside(number)
            all_agree(True)
            return found
        if bad:
            raise UserError(
                f"none of the {len(bad)} checkpoints in {self._folder} can be read ({bad[max(bad)]}): put back whole "
                f"ones, or train the run anew after moving {self._folder} away"
            )
        return None

    def _put_aside(self, step: int) -> None:
        aside = self._folder.with_name(f"{self._folder.name}.damaged")
        aside.mkdir(exist_ok=True)
        names = itertools.chain([str(step)], (f"{step}_{number}" for number in itertools.count(2)))
        target = next(aside / name for name in names if not _exists(aside / name))
        parts.move(self._folder / str(step), target)
        shutil.move(self._folder / str(step), target)

    def restore(self, abstract: State, step: int | None = None) -> tuple[State, Progress]:
        """Reads a checkpoint, the newest finished one by default, into the shardings of `abstract`.

        Raises:
            UserError: if there is none. Damaged: if it can't be read, or has changed since it was saved; then on all
            processes.
        """
        self.wait()
        if step is None and (step := from_first(max(self.finished(), default=NONE))) == NONE:
            raise UserError(f"{self._folder} has no checkpoint yet: train the run first")
        where, loaded, reason = f"the checkpoint {self._folder / str(step)}", None, ""
        away = None
        try:
            mirror.refresh(self._folder)  # what process 0 has written
            if is_finished(self._folder / str(step)):
                loaded = load(self._path(step), abstract)
            else:
                reason = "it is no folder that a save has finished"
        except Unavailable as error:
            away = error
        except Exception as error:  # Orbax, TensorStore and JSON each raise errors of their own
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        if mirror.place_of(self._folder) and not all_agree(away is None):  # nothing is known of the checkpoint
            raise away or Unavailable(f"{where} can't be read by another process of this job: it says why")
        if not all_agree(loaded is not None):
            raise Damaged(f"{where} can't be read ({reason or 'another process could not'})")
        same = np.asarray(fingerprint(loaded["state"])) == loaded["fingerprint"]
        if not same.all():
            paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(abstract)]
            name = leaf_name(paths[int(np.argmin(same))])
            raise Damaged(f"{where} has changed since it was saved ({name} is not what it was)")
        if int(loaded["state"].step) != step:
            raise Damaged(f"{where} is of step {int(loaded['state'].step)}, so its name is not its own")
        self._latest = max(step, self._latest or 0)
        return loaded["state"], loaded["progress"]

    def _path(self, step: int) -> Path:
        return (self._folder / str(step)).absolute()

    def close(self) -> None:
        """Waits for what is being written, and leaves only the checkpoints that are to be kept."""
        try:
            self.wait()
            if self._writes and self._latest is not None:
                self._retire()
        finally:
            self._thread.shutdown()


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _remove(path: Path) -> None:
    """Removes a folder with all that is in it, or a file, or a link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
