"""A user's paths: which lie outside of the folder that the config names, and the bytes of a file."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from rfjax import memory, untrusted
from rfjax.errors import UserError

ANY_SIZE = 2**62  # bytes of a file that is not read as a whole


def _outside(root: Path, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(name, real path) of the files outside of a folder: by an absolute path, by "..", or behind a link."""
    whole, folders = os.path.realpath(root), {}
    for name in names:
        path = os.path.join(root, name)
        folder, file = os.path.split(path)
        try:
            if os.path.islink(path):
                real = os.path.realpath(path)
            else:  # most files share a few folders, and a folder's look-up costs more than the file's
                if folder not in folders:
                    folders[folder] = os.path.realpath(folder)
                real = os.path.normpath(os.path.join(folders[folder], file))
        except ValueError:  # a name that no file can have: its reader says that it is missing
            continue
        if os.path.commonpath([whole, real]) != whole:
            yield name, real


def check_inside(root: Path, names: Iterable[str], named_by: str) -> None:
    """Refuses files outside of the folder that the config names.

    Args:
        root: the folder, itself perhaps behind a link.
        names: of files, relative to it, without "a/../b".
        named_by: the file or key that names them, for the message.

    Raises:
        UserError: with their number and the first of them.
    """
    if files := list(_outside(root, names)):
        name, real = files[0]
        many = f"{len(files)} files" if len(files) > 1 else "a file"
        raise UserError(
            f"{named_by} names {many} outside of '{root}', such as '{_printable(name)}', which is {_printable(real)}: "
            f"copy them into the folder, or set config.data.outside = True to read them where they are"
        )


def read(path: Path, limit: int) -> bytes:
    """The bytes of a regular file; errors as of `untrusted.regular`."""
    with untrusted.regular(path, limit) as file:
        return file.read()


def check_memory(what: str, needed: int, advice: str) -> None:
    """Refuses, with a UserError that ends in `advice`, what takes more memory (bytes) than this machine has."""
    size = memory.installed()
    if needed > size:
        raise UserError(
            f"{what} takes about {needed / 2**30:,.1f} GiB of memory, and there are {size / 2**30:,.1f} GiB: {advice}"
        )


def _printable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
