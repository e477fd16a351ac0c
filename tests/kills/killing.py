"""Kills a study at chosen moments, and says what each kill hit: a moment, a session that ends in it, its phase."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rfjax import files

ROOT = Path(__file__).parents[2]
PATIENCE = 900.0  # seconds for a session; the first compiles for minutes where the cache is empty
POLL = 0.001  # seconds between two looks at a folder
SAVING = re.compile(r"\d+\.orbax-checkpoint-tmp.*")
STEP = re.compile(r"\d+")


@dataclass(frozen=True)
class Moment:
    """When to kill: some seconds after the start, or after so many changes of certain files.

    Attributes:
        name: of the kind of moment. seconds: from the process's start, or from the change that was waited for.
        folders, pattern: the files watched, by a glob in the study's folder and by name; no folders: none.
        changes: how many of them. job: what runs.
        warned: seconds from a SIGTERM, sent at the moment, to the kill; None: there is none.
    """

    name: str
    seconds: float
    folders: str = ""
    pattern: str = ".*"
    changes: int = 1
    job: str = "study"
    warned: float | None = None


def choose(name: str, rng: random.Random) -> Moment:
    """A moment of a kind; its details are random."""

    def soon(limit: float) -> float:
        """Often at once, else within `limit` seconds."""
        return 0.0 if rng.random() < 0.3 else rng.uniform(0, limit)

    match name:
        case "any time":
            return Moment(name, rng.uniform(0.3, 22))
        case "any time, after SIGTERM":
            return Moment(name, rng.uniform(6, 18), warned=rng.uniform(0, 0.6))
        case "a save":
            return Moment(name, soon(0.2), "runs/*/checkpoints", SAVING.pattern, rng.randint(1, 5))
        case "the end of a save":
            return Moment(name, soon(0.01), "runs/*/checkpoints", STEP.pattern, rng.randint(2, 5))
        case "the end of a run's last save":
            return Moment(name, soon(0.012), "runs/*/checkpoints", "40")
        case "the pictures of the samples":
            return Moment(name, soon(0.02), "runs/*/samples", changes=rng.randint(1, 6))
        case "result.json":
            return Moment(name, soon(0.004), "runs/*", r"\.?result\.json.*")
        case "lock.json":
            return Moment(name, soon(0.004), "runs/*", r"\.?(lock\.json|clock).*", rng.randint(1, 2))
        case "study.json":
            return Moment(name, soon(0.004), ".", r"\.?study\.json.*")
        case "the report at a study's end" | "the report alone":
            job = "report" if name == "the report alone" else "study"
            if rng.random() < 0.5:
                return Moment(name, soon(0.1), "report", changes=rng.randint(1, 11), job=job)
            return Moment(name, soon(0.03), "report", r"\..*\.partial", changes=rng.randint(1, 5), job=job)
    raise ValueError(name)


@dataclass(frozen=True)
class Study:
    """A study's folder, and how it is started.

    Attributes:
        folder: of the study. cache: of compiled programs. log: what the sessions say.
    """

    folder: Path
    cache: Path
    log: Path

    def start(self, job: str = "study") -> subprocess.Popen:
        """Starts a session, in a process group of its own and on one device."""
        environ = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | {
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(self.cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        config = f"--config={Path(__file__).with_name('config.py')}"
        words = [sys.executable, "-m", "rfjax.main", config, f"--config.workdir={self.folder}", f"--config.job={job}"]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                words, cwd=ROOT, env=environ, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def finish(self) -> str:
        """Lets a session go on to its end; returns what it said."""
        before = self.log.stat().st_size if self.log.exists() else 0
        process = self.start()
        try:
            code = process.wait(timeout=PATIENCE)
        finally:
            _kill_group(process)
        said = self.log.read_bytes()[before:].decode()
        assert code == 0, f"exit code {code}\n{said[-3000:]}"
        return said

    def complete(self) -> bool:
        """Whether every run has its result."""
        runs = list((self.folder / "runs").glob("*"))
        return bool(runs) and all((run / "result.json").exists() for run in runs)


@dataclass(frozen=True)
class Kill:
    """What a kill hit.

    Attributes:
        moment: that was chosen. after: seconds from the process's start. phase: what was going on.
        unfinished: temporary names that this session left.
    """

    moment: Moment
    after: float
    phase: str
    unfinished: tuple[str, ...]


def kill(study: Study, moment: Moment) -> Kill | None:
    """Starts a session and kills its process group with signal 9 at a moment; None if it came to its end before.

    Raises:
        AssertionError: if the session ended in an error.
    """
    seen = dict(_changes(study, moment)) if moment.folders else {}
    begun, since = time.monotonic(), time.time_ns()
    process = study.start(moment.job)
    try:
        if _reached(study, moment, process, seen) and moment.warned is not None:
            process.terminate()
            _sleep(moment.warned, process)
    finally:
        code = _kill_group(process)
    if code == -signal.SIGKILL:
        phase, unfinished = hit(study.folder, since, moment.job)
        return Kill(moment, time.monotonic() - begun, phase, unfinished)
    # SIGTERM may end it before the kill: by JAX's or Python's own answer at start-up, else after a checkpoint.
    fine = (0,) if moment.warned is None else (0, 75, -signal.SIGTERM)
    assert code in fine, f"exit code {code}\n{study.log.read_text()[-3000:]}"
    return None


def _kill_group(process: subprocess.Popen) -> int:
    """Ends a session and all that it has started; returns its exit code."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def _reached(study: Study, moment: Moment, process: subprocess.Popen, seen: dict[Path, int]) -> bool:
    """Waits for a moment; returns False if the process has ended before, or lives for too long."""
    end, left = time.monotonic() + PATIENCE, moment.changes if moment.folders else 0
    while left > 0:
        if process.poll() is not None or time.monotonic() > end:
            return False
        for path, changed in _changes(study, moment):
            if seen.get(path) != changed:
                seen[path] = changed
                left -= 1
        time.sleep(POLL)
    return _sleep(moment.seconds, process)


def _sleep(seconds: float, process: subprocess.Popen) -> bool:
    """Sleeps; returns False as soon as the process has ended."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if process.poll() is not None:
            return False
        time.sleep(min(left, 0.02))
    return True


def _changes(study: Study, moment: Moment) -> Iterator[tuple[Path, int]]:
    """The watched files that there are, with what changes when they are written anew."""
    for folder in study.folder.glob(moment.folders) if moment.folders != "." else [study.folder]:
        try:
            for entry in os.scandir(folder):
                if re.fullmatch(moment.pattern, entry.name):
                    yield Path(entry.path), entry.stat(follow_symlinks=False).st_ino
        except OSError:  # it went away between two looks, or is not there yet
            continue


LINES = {
    "start": "compiling, or the first steps",
    "train": "training steps",
    "validation": "measuring the validation loss",
    "examples": "measuring the validation loss",
    "scores": "drawing samples",
    "samples": "finishing a run",
}


def hit(study: Path, since: int, job: str) -> tuple[str, tuple[str, ...]]:
    """What was going on when a session was killed, by the newest of the files that it had written: (phase, unfinished).

    Args:
        since: when the session was started, in ns.
    """
    changed = {}
    for path in study.rglob("*"):
        if "tensorboard" not in path.parts and (time_of_change := path.stat().st_mtime_ns) >= since:
            changed[path.relative_to(study)] = time_of_change
    unfinished = tuple(
        str(path) for path in changed if files.PARTIAL.fullmatch(path.name) or SAVING.fullmatch(path.name)
    )
    if any(SAVING.fullmatch(path.name) for path in changed):
        return "saving a checkpoint", unfinished
    plain = {
        path: when for path, when in changed.items() if (study / path).is_file() and "checkpoints" not in path.parts
    }
    if job == "report" or any(path.parts[0] in ("report", "sessions.jsonl") for path in plain):
        report = [path for path in plain if path.parts[0] == "report"]
        if not report:
            return "before the report's first file", unfinished
        return ("the report, in the midst of a file" if unfinished else "the report, between two files"), unfinished
    steps = {path for path in changed if path.parent.name == "checkpoints" and STEP.fullmatch(path.name)}
    if any(not (study / path / "commit_success.txt").exists() for path in steps):
        return "removing an old checkpoint", unfinished
    if not plain:
        return "start-up", unfinished
    newest = max(plain, key=plain.__getitem__)
    if newest.name == "metrics.jsonl":
        line = json.loads((study / newest).read_text().splitlines()[-1])
        return LINES[line["kind"]], unfinished
    if newest.parent.name == "samples":
        return "drawing samples", unfinished
    if "result.json" in newest.name or newest.name == "failure.txt":
        return "finishing a run", unfinished
    return "setting up a run", unfinished


def table(kills: list[Kill]) -> str:
    """Kills by phase, as Markdown."""
    rows = ["| phase that the kill hit | kills | of them in the midst of a file |", "|---|---|---|"]
    for phase in sorted({kill.phase for kill in kills}):
        found = [kill for kill in kills if kill.phase == phase]
        rows.append(f"| {phase} | {len(found)} | {sum(bool(kill.unfinished) for kill in found)} |")
    return "\n".join([*rows, f"| all | {len(kills)} | {sum(bool(kill.unfinished) for kill in kills)} |"])
