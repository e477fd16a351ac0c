"""A user's paths: what `~` means, what lies outside of the folder that the config names, and the bytes of a file."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from rfjax import memory, untrusted
from rfjax.errors import UserError

OUTSIDE = "config.data.outside"
ANY_SIZE = 2**62  # bytes: of files that are not read as a whole


def outside(root: Path, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Those of the files that lie elsewhere: by an absolute path, by "..", or behind a link.

    Args:
        root: folder, itself perhaps behind a link. names: of files, relative to it, without "a/../b".

    Returns:
        (name, where it is) of each, in order.
    """
    whole, folders = os.path.realpath(root), {}
    for name in names:
        path = os.path.join(root, name)
        folder, file = os.path.split(path)
        try:
            if os.path.islink(path):
                real = os.path.realpath(path)
            else:  # most files share a few folders, and looking up a folder costs more than the file's own look
                if folder not in folders:
                    folders[folder] = os.path.realpath(folder)
                real = os.path.normpath(os.path.join(folders[folder], file))
        except ValueError:  # a name that no file can have: it is not there, which its reader says
            continue
        if os.path.commonpath([whole, real]) != whole:
            yield name, real


def check_inside(root: Path, names: Iterable[str], named_by: str) -> None:
    """Refuses files outside of the folder that the config names; named_by: who names them, such as a file.

    Raises:
        UserError: with how many there are and the first of them.
    """
    found = list(outside(root, names))
    if found:
        name, real = found[0]
        many = f"{len(found)} files" if len(found) > 1 else "a file"
        raise UserError(
            f"{named_by} names {many} outside of '{root}', such as '{_printable(name)}', which is {_printable(real)}: "
            f"copy them into the folder, or set {OUTSIDE} = True to read them where they are"
        )


def read(path: Path, limit: int) -> bytes:
    """The bytes of a regular file; errors as of `untrusted.regular`."""
    with untrusted.regular(path, limit) as file:
        return file.read()


def check_memory(what: str, needed: int, advice: str) -> None:
    """Raises UserError if something takes more memory than this machine has; needed: bytes, advice: what to do."""
    there = memory.installed()
    if needed > there:
        raise UserError(
            f"{what} takes about {needed / 2**30:,.1f} GiB of memory, and there are {there / 2**30:,.1f} GiB: {advice}"
        )


def _printable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
