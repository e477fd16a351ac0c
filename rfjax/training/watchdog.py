"""Says where a run hangs, when nothing has happened for long."""

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rfjax import files
from rfjax.buckets import mirror
from rfjax.config import Recovery
from rfjax.errors import Exit, UserError

PUBLISHING = 30.0  # seconds for a bucket to get the file before the process ends
LOOKS = 10  # as many times as this within the time that may pass


class Watchdog:
    """A thread that waits for signs of progress (`beat`), and writes down where each thread is when they stay away."""

    def __init__(self, name: str, folder: Path, settings: Recovery) -> None:
        """name: of the run. folder: where `hang.txt` goes."""
        self._name, self._folder, self._settings = name, folder, settings
        self._doing, self._since, self._reported = "starting", time.monotonic(), False
        self._over = threading.Event()

    def beat(self, doing: str) -> None:
        """Something was finished, and `doing` is what comes now."""
        self._doing, self._since, self._reported = doing, time.monotonic(), False

    @contextmanager
    def watching(self) -> Iterator["Watchdog"]:
        """Watches within it."""
        thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        if self._settings.hang_seconds:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()

    def _watch(self) -> None:
        limit = self._settings.hang_seconds
        while not self._over.wait(limit / LOOKS):
            silent = time.monotonic() - self._since
            if silent > limit and not self._reported:
                self._reported = True
                self._report(silent)

    def _report(self, silent: float) -> None:
        path = self._folder / f"hang.{os.getpid()}.txt"
        sentence = f"{self._name} hangs: no progress for {silent:.3g} s while {self._doing}"
        # No room, or a run that is another's by now: neither keeps it from ending.
        with contextlib.suppress(UserError), files.atomic(path) as partial, partial.open("w", encoding="utf-8") as file:
            print(f"{sentence}\n", file=file, flush=True)
            faulthandler.dump_traceback(file)
        print(f"\n{sentence}; {path} says where each thread is", file=sys.stderr, flush=True)
        if self._settings.hang_exits:
            ending = threading.Thread(target=mirror.publish, args=(self._folder,), daemon=True)
            ending.start()  # the store may be what the run waits for
            ending.join(PUBLISHING)
            print(f"ending with exit code {Exit.HUNG}, to be started again", file=sys.stderr, flush=True)
            os._exit(Exit.HUNG)
