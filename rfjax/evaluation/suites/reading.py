"""What the readers of all suites share: lines of the user's files, and the text of a prompt."""

import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rfjax.errors import UserError, one_line
from rfjax.untrusted import Unreadable, parse_json, read_text

LONGEST_PROMPT = 10_000  # characters; DPG-Bench's longest has 891
FIX = "take the file of the official repository"
SCORED = "name what the official scorer wrote of these pictures"  # the fix for its results


def found(path: Path, *names: str) -> Path:
    """The first of these files that is in a folder, or the path itself if it is no folder."""
    if not path.is_dir():
        return path
    return next((path / name for name in names if (path / name).exists()), path / names[0])


def lines(path: Path, fix: str = FIX) -> list[str]:
    """The lines of a text file, without their ends and without empty ones at the end.

    Raises:
        UserError: if there is no such file, or nothing in it.
    """
    text = read_text(path, fix=fix)
    if text is None:
        raise UserError(f"there is no {path}: {fix}")
    rows = [row.removesuffix("\r") for row in text.removeprefix("\ufeff").split("\n")]
    while rows and not rows[-1].strip():
        rows.pop()
    if not rows:
        raise UserError(f"{path} is empty: {fix}")
    return rows


def objects(path: Path, fix: str = FIX) -> Iterable[tuple[str, dict[str, Any]]]:
    """(where, the object) of each line of a JSON-lines file.

    Raises:
        UserError: for a line that holds no object.
    """
    for number, row in enumerate(lines(path, fix), start=1):
        where = f"{path}, line {number}"
        yield where, parse_json(row, where, fix=fix)


def list_of_objects(path: Path, fix: str = FIX) -> list[dict[str, Any]]:
    """The objects of a JSON file that is a list of them.

    Raises:
        UserError: for anything else.
    """
    text = read_text(path, fix=fix)
    if text is None:
        raise UserError(f"there is no {path}: {fix}")
    parsed = parse_json(f'{{"rows": {text}\n}}', str(path), fix=fix)  # which takes objects alone
    rows = parsed["rows"]
    if len(parsed) > 1 or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Unreadable(f"{path} is no list of objects, as the official scorer writes it: {fix}")
    return rows


def prompt(text: Any, where: str) -> str:
    """The text of a prompt.

    Raises:
        UserError: if it is no text, is empty or too long, or holds what neither a line nor a file name can.
    """
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{where} has no prompt: {FIX}")
    if len(text) > LONGEST_PROMPT:
        raise UserError(f"{where}: the prompt has {len(text):,} characters, more than {LONGEST_PROMPT:,}: {FIX}")
    if bad := next((sign for sign in text if unicodedata.category(sign) in ("Cc", "Cs")), ""):
        raise UserError(f"{where}: the prompt '{one_line(text)}' holds the character U+{ord(bad):04X}: {FIX}")
    return text
