"""Folders that this process may write to only while it has their locks. Each write checks first.

`rfjax.files` checks its own writes; code that writes by other means (Orbax) calls `check_ours`.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from rfjax.errors import UserError


class FolderTaken(UserError):
    """Another process has taken the folder that this process was writing to."""


_owned: dict[Path, Callable[[], None]] = {}  # folder whose lock this process has -> check of the lock


@contextlib.contextmanager
def owned(folder: Path, check: Callable[[], None]) -> Iterator[None]:
    """Checks each write below a folder while the `with` lasts.

    A process that pauses between a check and its write, which are a few system calls apart, may still write after it
    has lost the folder. Its rename or its line is then complete all the same.

    Args:
        folder: that this process has locked.
        check: raises FolderTaken if another process has the folder now.
    """
    path = folder.absolute()
    _owned[path] = check
    try:
        yield
    finally:
        del _owned[path]


def check_ours(path: Path) -> None:
    """Checks that the `owned` folder above a path, if there is one, still belongs to this process.

    Raises:
        FolderTaken: if it does not.
    """
    absolute = path.absolute()
    for folder, check in list(_owned.items()):
        if absolute.is_relative_to(folder):
            check()
