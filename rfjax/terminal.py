"""Printing on terminals of any encoding."""

import sys


def print_anything() -> None:
    """Makes this process print characters that its terminal lacks in an escaped form, such as ± as \\xb1.

    Otherwise a caption, or the ± of a standard error, would end a run whose terminal or log is not UTF-8.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a replaced stream may lack it
            stream.reconfigure(errors="backslashreplace")
