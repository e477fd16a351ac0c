"""The process that has a lock, as the lock file names it."""

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from rfjax import files
from rfjax.errors import printable

SIGNS = 15  # signs of life until a lock expires: every 20 s for 5 minutes
MISSED = 3  # missed signs of life after which a process may be dead
SHORTEST = 0.2  # seconds between signs of life
JOBS = {"SLURM_JOB_ID": "Slurm job", "JOBSET_NAME": "Kubernetes job set", "JOB_NAME": "job"}


def seconds_of_doubt(stale: float) -> float:
    """Seconds without a sign of life after which a process may be dead, for a lock that expires after `stale`."""
    return MISSED * max(stale / SIGNS, SHORTEST)


@dataclass(frozen=True)
class Holder:
    """The process that has a lock.

    Attributes:
        host: of its machine, see `files.Machine`.
        boot: likewise.
        space: likewise.
        pid: number of the process on its machine.
        started: see `files.started`.
        job: of a cluster, in words.
        start: how often the cluster has restarted that job.
        since: when the process took the lock, by its own clock.
        token: unique for this lock.
    """

    host: str
    boot: str
    space: str
    pid: int
    started: str
    job: str
    start: str
    since: str
    token: str

    def __str__(self) -> str:
        return printable(f"{self.host}, process {self.pid}{', ' if self.job else ''}{self.job}")

    def void(self, silent: float, stale: float) -> str:
        """Why the lock is void, or "" if it is valid.

        Args:
            silent: seconds since the last sign of life.
            stale: seconds without a sign of life after which a lock expires.
        """
        if self._here() and files.started(self.pid) != self.started:
            return "that process is gone"
        limit = seconds_of_doubt(stale) if self.replaced() else stale
        return f"no sign of life for {silent:.0f} s" if silent > limit else ""

    def replaced(self) -> bool:
        """Whether this process seems to replace that one, after a reboot or the restart of a container or a job.

        It may not be so: two machines may have the same name, and a cluster may restart a job that still runs.
        """
        now = holder()
        again = self.job == now.job != "" and self.start != now.start
        return again or (self.host == now.host and not self._here())

    def _here(self) -> bool:
        return (self.host, self.boot, self.space) == files.machine()


def holder(environ: Mapping[str, str] = os.environ) -> Holder:
    """This process as the holder of a new lock."""
    known = [f"{words} {environ[name]}" for name, words in JOBS.items() if environ.get(name)]
    job, start = (known or [""])[0], environ.get("SLURM_RESTART_COUNT", "")
    since = datetime.now(UTC).isoformat(timespec="seconds")
    pid = os.getpid()
    return Holder(*files.machine(), pid, files.started(pid) or "", job, start, since, uuid.uuid4().hex)
