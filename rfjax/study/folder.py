"""The study's folder: what was asked for, who works on which run, what each session cost, and the report at its end."""

import contextlib
import enum
import functools
import importlib.metadata
import itertools
import json
import os
import platform
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from rfjax import files, installed, ownership
from rfjax.compiling import Compilations
from rfjax.config import Config, differences
from rfjax.errors import UserError
from rfjax.jsonl import plain, write_json
from rfjax.study import locks, records, reports
from rfjax.training.processes import from_first
from rfjax.training.stop import Interrupted, Stop
from rfjax.untrusted import Unreadable

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "diffrax", "numpy", "scipy")


@dataclass
class Session:
    """One process's share of a study: when it started, seconds by activity, programs compiled."""

    started: float
    split: dict[str, float] = field(default_factory=dict)
    compilations: Compilations = field(default_factory=Compilations)

    def add(self, split: dict[str, float]) -> None:
        """Adds seconds by activity."""
        for activity, seconds in split.items():
            self.split[activity] = self.split.get(activity, 0.0) + seconds

    def close(self, config: Config) -> str:
        """Writes the report and this session's line; returns what the terminal shows."""
        began = time.time()
        drawn = reports.build_report(Path(config.workdir))
        self.add({"report": time.time() - began})
        line = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": time.time() - self.started}
        line |= {"split": self.split, "compilations": self.compilations.record()}
        try:
            files.append_line(Path(config.workdir) / records.SESSIONS, json.dumps(plain(line)))
            trouble = ""
        except UserError as error:
            trouble = f"\nthis session's time can't be written down: {error}"
        return reports.summary(drawn, reports.write_page(drawn)) + trouble


def prepare_folder(config: Config, names: list[str]) -> str:
    """Makes the study's folder and its `study.json`; returns what there is to tell of one that could not be read.

    Raises:
        UserError: if it can't be written, or holds a study of another config.
    """
    folder, said = Path(config.workdir), ""
    path = folder / "study.json"
    try:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        try:
            known = records.read_study(folder)
        except Unreadable as error:
            known, said = None, f"{error}; it is made again"
        if known and (found := differences(config.to_dict(), known["config"])):
            raise UserError(
                f"{folder} holds another study: {'; '.join(found[:3])}; choose another folder with --config.workdir"
            )
        if jax.process_index() == 0:
            for name in names:
                (folder / "runs" / name).mkdir(exist_ok=True)
            files.clean(folder)
            write_json(path, {"config": config.to_dict(), "runs": names, **facts()})
    except OSError as error:
        raise UserError(f"the work folder {folder} can't be written ({error.strerror}): set config.workdir") from error
    return said


class Turn(enum.IntEnum):
    """What a job finds when it is a run's turn."""

    OURS = 0  # it has the run's lock
    COMPLETE = 1  # there is nothing to do
    HELD = 2  # another job works on it
    WAIT = 3  # another job had the lock, and may be dead
    FAILED = 4  # process 0 could not find out


@dataclass(frozen=True)
class Claim:
    """A run's turn, on every process alike.

    Attributes:
        turn: what there is to do. lock: if it is ours, on process 0. held: by whom, if it is another's, on process 0.
    """

    turn: Turn
    lock: locks.Lock | None = None
    held: locks.Held | None = None


@contextlib.contextmanager
def claim(
    folder: Path, config: Config, complete: Callable[[], bool], stop: Stop, say: Callable[[str], None]
) -> Iterator[Claim]:
    """Takes a run's lock for the time of a `with`, unless the run is complete or another job has it.

    Process 0 decides, and all processes of the job act alike. A job that may be dead is waited for, until it gives a
    sign of life or its lock is void. If the lock is lost, `stop` is wished.

    Within the `with`, each write below the folder asks whether the lock is still ours.

    Args:
        folder: of the run. complete: whether there is nothing to do; asked again once the lock is ours, for another
            job may have finished the run. say: tells the person who waits.

    Raises:
        UserError: if the lock can neither be taken nor read, or the folder can't be written.
        Interrupted: if `stop` is wished while it waits.
    """
    found = _wait_for(folder, config.cluster.stale_minutes, complete, stop, say)
    if not found.lock:
        yield found
        return
    check = functools.partial(_check, folder.name, found.lock, config.cluster.stale_minutes)
    with found.lock, ownership.owned(folder, check):
        if found.lock.note:
            say(f"{folder.name}: {found.lock.note}")
        files.clean(folder, folder / "samples")
        yield found


def _check(name: str, lock: locks.Lock, minutes: float) -> None:
    if not lock.ours():
        raise ownership.Taken(
            f"{name}: this job gave no sign of life for {minutes:g} minutes, and another has taken the run: nothing is "
            "lost, the other goes on with it"
        )


def take_turns(
    folders: Iterable[Path],
    config: Config,
    complete: Callable[[Path], bool],
    work: Callable[[Path], None],
    *,
    stop: Stop,
    say: Callable[[str], None],
) -> None:
    """Works on each run that is not complete and that no other job has; tells which are left to others.

    A run that another job has is looked at again in the end, for that job may have died.

    Args:
        folders: of the runs. complete: whether there is nothing to do in one. work: does what there is, with its lock.

    Raises:
        UserError: if another job has the only run that is asked for (`config.only`), or takes one away because this
            job stood still. Interrupted: when stopped.
    """
    later: list[Path] = []
    left: list[str] = []
    for folder in itertools.chain(folders, later):
        with claim(folder, config, functools.partial(complete, folder), stop, say) as claimed:
            if claimed.turn == Turn.COMPLETE:
                say(f"{folder.name}: complete already")
            elif claimed.turn == Turn.OURS:
                _work(work, folder)
            else:
                said = f"{folder.name}: {claimed.held or 'another job has it'}"
                if config.only:
                    raise UserError(f"{said}: wait for it, or stop it first")
                if folder in later:
                    left.append(folder.name)
                else:
                    say(said)
                    later.append(folder)
    if left:
        say(f"left to other jobs: {', '.join(left)}")


def _work(work: Callable[[Path], None], folder: Path) -> None:
    try:
        work(folder)
    except (Interrupted, KeyboardInterrupt) as stopped:
        try:
            ownership.check_ours(folder)  # a lost lock stops a run too, and says why
        except ownership.Taken as taken:
            raise taken from stopped
        raise


def _wait_for(
    folder: Path, minutes: float, complete: Callable[[], bool], stop: Stop, say: Callable[[str], None]
) -> Claim:
    before: locks.Held | None = None
    while True:
        found, error = Claim(Turn.FAILED), None
        if jax.process_index() == 0:
            try:
                found = _decide(folder, minutes, complete, stop, before)
            except Exception as raised:  # the others must hear of it before this process leaves them
                error = raised
        turn = Turn(from_first(found.turn))
        if isinstance(error, OSError):
            raise UserError(f"the lock of {folder} can't be taken ({error.strerror or error})") from error
        if error:
            raise error
        if turn == Turn.FAILED:
            raise UserError(f"process 0 of this job could not take the lock of {folder}: it says why")
        if turn != Turn.WAIT:
            return Claim(turn, found.lock, found.held)
        if stop.granted():
            raise Interrupted(f"stopped while waiting for {folder.name}", stop.code)
        if before is None and found.held:
            say(f"{folder.name}: {found.held}; it may be dead: waiting for a sign of life, or for its lock to be void")
        before = found.held
        time.sleep(min(1.0, 60 * minutes / locks.SIGNS))


def _decide(folder: Path, minutes: float, complete: Callable[[], bool], stop: Stop, before: locks.Held | None) -> Claim:
    """What process 0 finds at one look. before: what it found at the look before, if it waits."""

    def alarm() -> None:
        stop.wished = True
        if jax.process_count() > 1:  # JAX takes this signal, and tells the other processes
            os.kill(os.getpid(), signal.SIGTERM)

    if complete() and not (folder / locks.NAME).exists():
        return Claim(Turn.COMPLETE)
    found = locks.take(folder, minutes, alarm)
    if isinstance(found, locks.Held):
        if complete():
            return Claim(Turn.COMPLETE)
        alive = before is not None and before.sign != found.sign
        return Claim(Turn.WAIT if found.doubtful and not alive else Turn.HELD, held=found)
    if complete():  # another has just finished it, or was killed between its result and the end of its lock
        files.clean(folder, folder / "samples")
        found.release()
        return Claim(Turn.COMPLETE)
    return Claim(Turn.OURS, lock=found)


def facts() -> dict[str, Any]:
    """What else a result depends on: command, commit, versions, machine."""
    return {
        "command": f"python -m rfjax.main {shlex.join(sys.argv[1:])}",
        "commit": installed.commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "machine": f"{platform.system()} {platform.machine()}",
    }
