"""The names of classes: a file that the user gives, and the captions made of them."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rfjax import untrusted
from rfjax.config.paths import expanded
from rfjax.errors import UserError

_LIMIT = 2**26  # bytes of a file of names
_FOLDER = re.compile(r"([^\s,]+)[\s,]*(.*)")  # "n01440764 tench, Tinca tinca", or with a comma or a tab between them
_SYNSET = re.compile(r"n\d{8}")


def lines(name: str, folder: Path, key: str) -> list[str]:
    """The lines of a file that config.data.<key> names, relative to the folder, without empty ones.

    Raises:
        UserError: if it can't be read.
    """
    path = expanded(folder / expanded(name, f"config.data.{key}"), f"config.data.{key}")  # both may be in a bucket
    content = untrusted.read_bytes(path, limit=_LIMIT)
    if content is None:
        raise UserError(f"there is no file '{path}', which config.data.{key} names")
    return [line.strip() for line in content.decode("utf-8-sig", errors="replace").splitlines() if line.strip()]


def split(line: str) -> tuple[str, str]:
    """The first word of a line, which is not empty, and the rest."""
    found = _FOLDER.fullmatch(line)
    return (found[1], found[2]) if found else ("", line)


def first_name(names: str) -> str:
    """The first of several names of a class, such as "tench" of "tench, Tinca tinca"."""
    return names.split(",", maxsplit=1)[0].strip()


def check_template(template: str) -> None:
    """Refuses, with a UserError, a template without its one place."""
    if template.count("{}") != 1:
        raise UserError(f"config.data.caption_template must hold {{}} once, where the label goes, not {template!r}")


def caption(label: int, names: tuple[str, ...], template: str) -> str:
    """The caption of a class: by its name, or by its number if there are no names. ValueError without this class."""
    if names and label >= len(names):
        raise ValueError(f"label {label}, and there are names for {len(names)} classes")
    name = names[label] if names else str(label)
    return template.replace("{}", name.lower().replace("_", " "))


def naming(file: str, folder: Path, template: str, known: tuple[str, ...] = ()) -> Callable[[int], str]:
    """What gives each class its caption.

    Args:
        file: of names, a class in each line; "" without.
        template: `{}` stands for the name.
        known: the names, without a file.

    Raises:
        UserError: as of `lines`.
    """
    check_template(template)
    names = known
    if file:
        words = [(line, *split(line)) for line in lines(file, folder, "classes_file")]
        names = tuple(first_name(rest if _SYNSET.fullmatch(word) else line) for line, word, rest in words)
    return partial(caption, names=names, template=template)
