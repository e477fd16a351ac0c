"""The exception for mistakes that a user can fix, the exit codes, and texts that are safe to show."""

import difflib
import enum
import re
from collections.abc import Iterable


class Exit(enum.IntEnum):
    """The exit codes of `rfjax.main`. Launch scripts start again after HUNG, PREEMPTED and signals."""

    DONE = 0
    FAILED = 1  # a run failed; the others continued
    MISTAKE = 2  # the message says how to fix it
    HUNG = 70  # no progress for config.recovery.hang_seconds, with config.recovery.hang_exits
    PREEMPTED = 75  # stopped by SIGTERM, after saving a checkpoint: start again (sysexits' EX_TEMPFAIL)
    INTERRUPTED = 130  # stopped by Ctrl-C, after saving a checkpoint


class UserError(Exception):
    """A mistake that the user can fix: one sentence that says what is wrong, where, and the nearest right thing.

    `rfjax.main` prints the sentence without a traceback and exits with code 2.
    """


MOST_CHOICES = 24  # choices that a sentence lists at most
LONGEST_NAME = 120  # characters of a name from a file that a message shows


def nearest(word: str, choices: Iterable[str]) -> str:
    """The end of a message about an unknown word: " (did you mean 'depth'?)", or a short list if no choice is close."""
    choices = sorted(choices)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    if close:
        return f" (did you mean '{close[0]}'?)"
    return f" (choose from: {', '.join(choices)})" if 0 < len(choices) <= MOST_CHOICES else ""


# Escape sequences of terminals (ECMA-48: CSI, OSC and the short ones); then other controls except tab and newline.
_ESCAPES = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_HALVES = re.compile(r"[\ud800-\udfff]")  # of a character beyond U+FFFF: no encoding takes one alone


def printable(text: str) -> str:
    """Makes a text safe for a terminal, a page and a picture.

    Captions, names and messages of libraries come from outside, and may move a terminal's cursor.

    Returns:
        The text without escape sequences and control characters, with U+FFFD in place of half a character.
    """
    return _HALVES.sub("\ufffd", _CONTROLS.sub("", _ESCAPES.sub("", text)))


def one_line(text: str) -> str:
    """A name from a file for a message: `printable`, on one line, and cut to LONGEST_NAME characters."""
    line = " ".join(printable(text).split())
    return line if len(line) <= LONGEST_NAME else f"{line[: LONGEST_NAME - 3]}..."
