"""Waiting for another process, and the signals that it hears."""

import signal
import time
from pathlib import Path


def wait_for(file: Path, seconds: float = 20) -> Path:
    """Returns once the file is there."""
    end = time.monotonic() + seconds
    while not file.exists():
        assert time.monotonic() < end, f"{file} did not appear"
        time.sleep(0.02)
    return file


def hear_signals() -> None:
    """Lets the processes that this one starts hear what a shell script has it ignore, as it does with `suite &`.

    An ignored signal stays ignored in every process that is started from here, and bash can't trap it there; a signal
    with a handler does not. The handler does nothing, so that this process still ignores it.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
