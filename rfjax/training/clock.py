"""Seconds by activity."""

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Seconds by activity; an activity inside another pauses it, so the sum is the whole."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stack: list[str] = []
        self._since = time.perf_counter()

    def _charge(self) -> None:
        now = time.perf_counter()
        if self._stack:
            name = self._stack[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self._charge()
        self._stack.append(name)
        try:
            yield
        finally:
            self._charge()
            self._stack.pop()

    def move(self, seconds: float, source: str, target: str) -> None:
        """Charges to `target` what was charged to `source`."""
        for name, change in ((source, -seconds), (target, seconds)):
            self.seconds[name] = self.seconds.get(name, 0.0) + change

    def total(self) -> dict[str, float]:
        """What has been charged so far."""
        self._charge()
        return dict(self.seconds)

    def spent(self, *names: str) -> float:
        """What has been charged to these."""
        self._charge()
        return sum(self.seconds.get(name, 0.0) for name in names)
