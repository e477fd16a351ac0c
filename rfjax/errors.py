"""The one exception that means "the user can mend this", the exit codes, and the search for the nearest right word."""

import difflib
import enum
from collections.abc import Iterable


class Exit(enum.IntEnum):
    """What the exit code of `rfjax.main` says; launch scripts start again after HUNG, PREEMPTED and signals."""

    DONE = 0
    FAILED = 1  # a run failed; the others went on
    MISTAKE = 2  # something that the message says how to mend
    HUNG = 70  # no progress for config.recovery.hang_seconds, with config.recovery.hang_exits
    PREEMPTED = 75  # stopped by SIGTERM, after saving a checkpoint: start again (sysexits' EX_TEMPFAIL)
    INTERRUPTED = 130  # stopped by Ctrl-C, after saving a checkpoint


class UserError(Exception):
    """A mistake that the user can mend: one sentence with what is wrong, where, and the nearest right thing.

    `rfjax.main` prints the sentence without a traceback and exits with code 2.
    """


def nearest(word: str, choices: Iterable[str]) -> str:
    """Returns " (did you mean 'depth'?)" for the closest of `choices`, or the whole list where none is close."""
    choices = sorted(choices)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    if close:
        return f" (did you mean '{close[0]}'?)"
    return f" (choose from: {', '.join(choices)})" if choices else ""
