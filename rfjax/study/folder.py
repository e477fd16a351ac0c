"""The study's folder: study.json, the jobs that work on its runs, the time of each session, and the report."""

import contextlib
import enum
import importlib.metadata
import json
import os
import platform
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from rfjax import files, installed, ownership
from rfjax.buckets import mirror
from rfjax.compiling import Compilations
from rfjax.config import Config, differences
from rfjax.errors import UserError
from rfjax.jsonl import plain, write_json
from rfjax.study import bucket_locks, locks, records, reports
from rfjax.training.processes import from_first
from rfjax.training.stop import Interrupted, Stop
from rfjax.untrusted import Unreadable

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "diffrax", "numpy", "scipy")


@dataclass
class Session:
    """The work of one process on a study since `started`, a `time.time()`; split: activity -> seconds."""

    started: float
    split: dict[str, float] = field(default_factory=dict)
    compilations: Compilations = field(default_factory=Compilations)

    def add(self, split: dict[str, float]) -> None:
        for activity, seconds in split.items():
            self.split[activity] = self.split.get(activity, 0.0) + seconds

    def close(self, config: Config) -> str:
        """Writes the report and this session's line, and returns the summary for the terminal."""
        began = time.time()
        mirror.refresh(Path(config.workdir))  # what other jobs have done
        drawn = reports.build_report(Path(config.workdir))
        self.add({"report": time.time() - began})
        line = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": time.time() - self.started}
        line |= {"split": self.split, "compilations": self.compilations.record()}
        try:
            files.append_line(Path(config.workdir) / records.SESSIONS, json.dumps(plain(line)))
            trouble = ""
        except UserError as error:
            trouble = f"\nthis session's time can't be recorded: {error}"
        return reports.summary(drawn, reports.write_page(drawn)) + trouble


def prepare_folder(config: Config, names: list[str]) -> str:
    """Makes the study's folder and its `study.json`.

    Returns:
        A warning about a `study.json` that could not be read, or "".

    Raises:
        UserError: if the folder can't be written, or holds a study of another config.
    """
    folder, warning = Path(config.workdir), ""
    path = folder / "study.json"
    try:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        try:
            known = records.read_study(folder)
        except Unreadable as error:
            known, warning = None, f"{error}; it is written again"
        if known and (changes := differences(config.to_dict(), known["config"])):
            raise UserError(
                f"{folder} holds another study: {'; '.join(changes[:3])}; choose another folder with --config.workdir"
            )
        if jax.process_index() == 0:
            for name in names:
                (folder / "runs" / name).mkdir(exist_ok=True)
            files.clean(folder)
            written = config.to_dict() | {"workdir": mirror.named(config.workdir)}
            write_json(path, {"config": written, "runs": names, **describe_environment()})
    except OSError as error:
        raise UserError(f"the work folder {folder} can't be written ({error.strerror}): set config.workdir") from error
    return warning


class Turn(enum.IntEnum):
    """The state of a run when a job reaches it."""

    OURS = 0  # this job has the run's lock
    COMPLETE = 1  # the run is complete
    HELD = 2  # another job works on the run
    WAIT = 3  # another job has the lock, but may be dead
    FAILED = 4  # process 0 could not find out


@dataclass(frozen=True)
class Claim:
    """The result of an attempt to lock a run; on process 0 with this job's lock, or the other job that has it."""

    turn: Turn
    lock: locks.Lock | bucket_locks.BucketLock | None = None
    held: locks.Held | None = None


@contextlib.contextmanager
def claim(
    folder: Path, config: Config, complete: Callable[[], bool], stop: Stop, say: Callable[[str], None]
) -> Iterator[Claim]:
    """Holds a run's lock while the `with` lasts, unless the run is complete or another job has the lock.

    Process 0 decides for all. If another job may be dead, this job waits until that one gives a sign of life or its
    lock is void. A lost lock requests `stop`. Each write below the folder checks that this job still has the lock.

    Args:
        complete: whether the run is complete. It is called again after the lock is taken, because another job may
            have finished the run.

    Raises:
        UserError: if the lock can neither be taken nor read, or the folder can't be written.
        Interrupted: if a stop is requested while the job waits.
    """
    claimed = _wait_for(folder, config.cluster.stale_minutes, complete, stop, say)
    if not claimed.lock:
        yield claimed
        return

    def check() -> None:
        if not claimed.lock.ours():
            raise ownership.FolderTaken(
                f"{folder.name}: this job gave no sign of life for {config.cluster.stale_minutes:g} minutes, and "
                "another job has taken the run: nothing is lost, the other job continues it"
            )

    with claimed.lock, ownership.owned(folder, check), mirror.published(folder):
        if claimed.lock.note:
            say(f"{folder.name}: {claimed.lock.note}")
        files.clean(folder, folder / "samples")
        yield claimed


def _wait_for(
    folder: Path, minutes: float, complete: Callable[[], bool], stop: Stop, say: Callable[[str], None]
) -> Claim:
    before: locks.Held | None = None
    while True:
        claimed, error = Claim(Turn.FAILED), None
        if jax.process_index() == 0:
            try:
                claimed = _decide(folder, minutes, complete, stop, before)
            except Exception as raised:  # the other processes must learn of it first
                error = raised
        turn = Turn(from_first(claimed.turn))
        if isinstance(error, OSError):
            raise UserError(f"the lock of {folder} can't be taken ({error.strerror or error})") from error
        if error:
            raise error
        if turn == Turn.FAILED:
            raise UserError(f"process 0 of this job could not take the lock of {folder}: see its message")
        if turn != Turn.WAIT:
            if jax.process_index() != 0:
                mirror.refresh(folder)
            return Claim(turn, claimed.lock, claimed.held)
        if stop.granted():
            raise Interrupted(f"stopped while waiting for {folder.name}", stop.code)
        if before is None and claimed.held:
            say(f"{folder.name}: {claimed.held}; it may be dead: waiting for a sign of life, or until its lock expires")
        before = claimed.held
        time.sleep(min(1.0, 60 * minutes / locks.SIGNS))


def _decide(folder: Path, minutes: float, complete: Callable[[], bool], stop: Stop, before: locks.Held | None) -> Claim:
    """One attempt of process 0; `before` is the other job's state at the attempt before."""

    def alarm() -> None:
        stop.requested = True
        if jax.process_count() > 1:  # JAX receives this signal and informs the other processes
            os.kill(os.getpid(), signal.SIGTERM)

    place = mirror.place_of(folder)
    mirror.refresh(folder)
    held = bucket_locks.is_held(place / locks.NAME) if place else (folder / locks.NAME).exists()
    if complete() and not held:
        return Claim(Turn.COMPLETE)
    lock = bucket_locks.take(place / locks.NAME, minutes, alarm) if place else locks.take(folder, minutes, alarm)
    mirror.refresh(folder)
    if isinstance(lock, locks.Held):
        if complete():
            return Claim(Turn.COMPLETE)
        alive = before is not None and before.sign != lock.sign
        return Claim(Turn.WAIT if lock.doubtful and not alive else Turn.HELD, held=lock)
    if complete():  # another job has just finished the run, or was killed between its result and its lock's release
        files.clean(folder, folder / "samples")
        lock.release()
        return Claim(Turn.COMPLETE)
    return Claim(Turn.OURS, lock=lock)


def describe_environment() -> dict[str, Any]:
    """What a result depends on besides the config: command, commit, versions, machine."""
    return {
        "command": f"python -m rfjax.main {shlex.join(sys.argv[1:])}",
        "commit": installed.commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "machine": f"{platform.system()} {platform.machine()}",
    }
