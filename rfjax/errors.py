"""The one exception that means "the user can mend this", and the search for the nearest right word."""

import difflib
from collections.abc import Iterable


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
