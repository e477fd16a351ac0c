"""The one exception that means "the user can mend this", the exit codes, the nearest right word, texts for people."""

import difflib
import enum
import re
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


MOST_CHOICES = 24  # that a sentence lists


def nearest(word: str, choices: Iterable[str]) -> str:
    """Returns " (did you mean 'depth'?)" for the closest of `choices`, or a short list where none is close."""
    choices = sorted(choices)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    if close:
        return f" (did you mean '{close[0]}'?)"
    return f" (choose from: {', '.join(choices)})" if 0 < len(choices) <= MOST_CHOICES else ""


# A terminal's escape sequences (ECMA-48: CSI, OSC and the short ones), then the other controls but for tab and newline.
_ESCAPES = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_HALVES = re.compile(r"[\ud800-\udfff]")  # of a character beyond U+FFFF: no encoding takes one alone


def printable(text: str) -> str:
    """A text that a terminal, a page and a picture can show: without control characters, U+FFFD for half a character.

    Captions, names and messages of libraries come from outside, and may hold what moves a terminal's cursor.
    """
    return _HALVES.sub("\ufffd", _CONTROLS.sub("", _ESCAPES.sub("", text)))
