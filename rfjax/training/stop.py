"""Stopping between two steps, so that nothing is lost."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental import multihost_utils

from rfjax.errors import Exit


class Interrupted(Exception):
    """The run was asked to stop, and did, after saving a checkpoint.

    Attributes:
        code: PREEMPTED after SIGTERM, which a launcher answers by starting again, or INTERRUPTED after Ctrl-C.
    """

    def __init__(self, message: str, code: Exit = Exit.INTERRUPTED) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Stop:
    """A request to stop, made by a signal and granted between two steps; a second Ctrl-C does not wait.

    Attributes:
        requested: whether this process was asked.
        code: what the process should end with.
    """

    requested: bool = False
    code: Exit = Exit.PREEMPTED
    _asked: int = 0

    @contextmanager
    def on_signals(self) -> Iterator["Stop"]:
        """Takes over SIGINT and SIGTERM (which clusters send before they take a machine away).

        Of several processes, JAX takes SIGTERM itself, tells the others, and finds a step at which all can stop.
        """
        together = jax.process_count() > 1

        def request(number: int, frame: Any) -> None:
            if number == signal.SIGINT:
                if self.requested:
                    raise KeyboardInterrupt
                self.code = Exit.INTERRUPTED
                if together:
                    os.kill(os.getpid(), signal.SIGTERM)
            self.requested = True

        numbers = (signal.SIGINT,) if together else (signal.SIGINT, signal.SIGTERM)
        old = {number: signal.signal(number, request) for number in numbers}
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def granted(self) -> bool:
        """Whether to stop now; all processes of a job ask equally often, and get the same answers."""
        self._asked += 1
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(self._asked)
        return self.requested
