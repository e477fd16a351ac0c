"""What is printed, on terminals of any kind."""

import sys


def print_anything() -> None:
    """Lets this process print what its terminal has no letters for, in an escaped form: ± as \\xb1 where all is ASCII.

    Otherwise a caption, or the sign of a standard error, ends a run whose terminal or log is not UTF-8.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what replaces a stream need not be able to
            stream.reconfigure(errors="backslashreplace")
