"""Folders that this process may write to only as long as it has their locks: each write asks first.

`rfjax.files` asks for what it writes; what others write (Orbax) asks by `check_ours`.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from rfjax.errors import UserError


class Taken(UserError):
    """Another process has taken the folder that this one was writing to."""


_owned: dict[Path, Callable[[], None]] = {}  # folders whose lock this process has, and how to ask for it


@contextlib.contextmanager
def owned(folder: Path, check: Callable[[], None]) -> Iterator[None]:
    """Within it, each write below a folder calls `check` first, which raises Taken if another has the folder by now.

    A process that stood still may write what it had begun: between the check and the write lie a few system calls, and
    a pause right there can't be told. A rename and a line are whole all the same.
    """
    path = folder.absolute()
    _owned[path] = check
    try:
        yield
    finally:
        del _owned[path]


def check_ours(path: Path) -> None:
    """Asks whether the folder that a path lies in is still ours, where it is `owned`.

    Raises:
        Taken: if it is not.
    """
    absolute = path.absolute()
    for folder, check in list(_owned.items()):
        if absolute.is_relative_to(folder):
            check()
