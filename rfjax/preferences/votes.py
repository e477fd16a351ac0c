"""The file of votes: a JSON object a line, appended and never rewritten.

    {"version": 1, "time": 1790000000.0, "pair": "8f0c...", "prompt": "a red cup", "question": "quality",
     "rater": "ann", "left": "d6", "right": "d3", "choice": "left", "ms": 2140, "repeat": false}

`choice` is left, right, tie, bad (both are), or undone, which takes the rater's vote on that pair back. A vote is one
write to a file opened for appending, and then a wait for the disk; a kill leaves a vote or none, or half a line at the
end, which counts as none and is cut off before the next vote. One process at a time writes to a file.
"""

import fcntl
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rfjax.errors import UserError, one_line
from rfjax.files import Growing
from rfjax.untrusted import Unreadable, parse_json, read_bytes

VERSION = 1
CHOICES = ("left", "right", "tie", "bad")
UNDONE = "undone"
START = f'{{"version": {VERSION}'.encode()  # of each line


@dataclass(frozen=True)
class Vote:
    """A line of the file.

    Attributes:
        time: seconds since 1970.
        pair: the id of two pictures.
        left, right: the models whose pictures were shown there.
        choice: one of CHOICES, or UNDONE.
        ms: from the moment when both pictures were on the screen.
        repeat: whether the rater saw the pair for the second time, with sides swapped.
    """

    time: float
    pair: str
    prompt: str
    question: str
    rater: str
    left: str
    right: str
    choice: str
    ms: int
    repeat: bool

    @property
    def key(self) -> tuple[str, str, str, bool]:
        """What there is one vote of."""
        return self.rater, self.question, self.pair, self.repeat

    @property
    def chosen(self) -> str | None:
        """The model that won; None of a tie, and where both are bad."""
        return {"left": self.left, "right": self.right}.get(self.choice)

    def line(self) -> bytes:
        """As the file has it."""
        return json.dumps({"version": VERSION, **asdict(self)}).encode() + b"\n"


@dataclass(frozen=True)
class Votes:
    """What a file says.

    Attributes:
        counted: the votes that count, in order: those taken back are not among them.
        damaged: lines that are no votes.
        doubled: votes on what the rater had voted on before; the first counts.
    """

    counted: tuple[Vote, ...] = ()
    damaged: int = 0
    doubled: int = 0


def read_votes(paths: Iterable[Path]) -> Votes:
    """Reads files of votes, one after the other.

    Raises:
        UserError: if one is not there, holds no votes, or is of another version.
    """
    found, damaged = [], 0
    for path in paths:
        content = read_bytes(path, fix="name a file of votes")
        if content is None:
            raise UserError(f"{path} is not there: name the file that `serve --votes` wrote")
        votes, bad = _parse(content, path)
        found, damaged = found + votes, damaged + bad
    counted: dict[tuple[str, str, str, bool], Vote] = {}
    doubled = 0
    for vote in found:
        if vote.choice == UNDONE:
            counted.pop(vote.key, None)
        elif vote.key in counted:
            doubled += 1
        else:
            counted[vote.key] = vote
    return Votes(tuple(counted.values()), damaged, doubled)


def parse_vote(record: dict[str, Any], where: str) -> Vote | None:
    """The vote of a line; None where it is none.

    Raises:
        UserError: if it is of another version.
    """
    version = record.get("version")
    if isinstance(version, int) and version != VERSION:
        raise UserError(
            f"{where} is a vote of version {version}, and this rfjax reads {VERSION}: use the one that wrote it"
        )
    if version != VERSION:
        return None
    found = {field.name: record.get(field.name) for field in fields(Vote)}
    kinds = {field.name: field.type for field in fields(Vote)} | {"time": int | float}
    if not all(isinstance(value, kinds[name]) for name, value in found.items()):
        return None
    counts = isinstance(found["ms"], bool) or isinstance(found["time"], bool) or found["ms"] < 0
    if counts or found["choice"] not in (*CHOICES, UNDONE) or found["left"] == found["right"]:
        return None
    return Vote(**found)


class VotesFile:
    """The file of votes while this process writes to it."""

    def __init__(self, path: Path) -> None:
        """Reads the votes that are there, takes the file for this process, and mends its end.

        Raises:
            UserError: if another process writes to it, it is no file of votes, or it can't be written.
        """
        self.path, self._file, self._held = path, None, None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
            self._lock()
            self.votes, end = self._inspect()
            self._file = Growing(path, lines=end == "cut")
            if end == "whole":  # an editor took the end of the last line away
                self._file.append(b"\n")
        except OSError as error:
            self.close()
            raise UserError(f"the votes can't be written to {path} ({error.strerror or error})") from error
        except BaseException:
            self.close()
            raise

    def add(self, vote: Vote) -> None:
        """Appends a vote and waits until the disk has it.

        Raises:
            UserError: if it can't be written; then nothing of it is in the file.
        """
        if self._file is None:
            raise UserError(f"the vote can't be written to {self.path}: the server stops")
        try:
            self._file.append(vote.line())
            self._file.sync()
        except OSError as error:
            raise UserError(f"the vote can't be written to {self.path} ({error.strerror or error})") from error

    def close(self) -> None:
        """Gives the file back."""
        if self._file is not None:
            self._file.close()
        if self._held is not None:
            os.close(self._held)
        self._file = self._held = None

    def _inspect(self) -> tuple[Votes, str]:
        """The votes, and what the file's last line is: "" where it has an end, "whole" or "cut"."""
        content = read_bytes(self.path, fix="name a file of votes")
        if not content:
            return Votes(), ""
        last = content.rpartition(b"\n")[2]
        if content == last and _vote_of(last, self.path, 1) is None and not START.startswith(last[: len(START)]):
            raise UserError(f"{self.path} is no file of votes: choose another name for it with --votes")
        votes = read_votes([self.path])
        return votes, "" if not last else "cut" if _vote_of(last, self.path, 0) is None else "whole"

    def _lock(self) -> None:
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another process writes to {self.path}: stop it, or choose another file") from error
        except OSError:  # a file system without locks
            pass


def _vote_of(line: bytes, path: Path, number: int) -> Vote | None:
    try:
        return parse_vote(parse_json(line, str(path)), f"{path}, line {number},")
    except Unreadable:
        return None


def _parse(content: bytes, path: Path) -> tuple[list[Vote], int]:
    """The votes of a file, and the number of whole lines that are none.

    Raises:
        UserError: if it has lines and none is a vote, or one is of another version.
    """
    lines = content.split(b"\n")
    read = [_vote_of(line, path, number) if line.strip() else None for number, line in enumerate(lines, start=1)]
    votes = [vote for vote in read if vote is not None]
    damaged = sum(vote is None and bool(line.strip()) for line, vote in zip(lines[:-1], read[:-1], strict=True))
    if damaged and not votes:
        raise UserError(f"{path} holds no votes: its first line is '{one_line(lines[0].decode(errors='replace'))}'")
    return votes, damaged
