"""Stopping between two steps, so that nothing is lost."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental import multihost_utils


class Interrupted(Exception):
    """The run was asked to stop, and did, after saving a checkpoint."""


@dataclass
class Stop:
    """A wish to stop, set by a signal and granted between two steps; a second Ctrl-C does not wait."""

    wished: bool = False

    @contextmanager
    def on_signals(self) -> Iterator["Stop"]:
        """Takes over SIGINT and SIGTERM (which clusters send before they take a machine away)."""

        def wish(number: int, frame: Any) -> None:
            if self.wished and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.wished = True

        old = {number: signal.signal(number, wish) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def granted(self, step: int) -> bool:
        """Whether to stop now; all processes of a cluster agree on the step."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self.wished
