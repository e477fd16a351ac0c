"""Who may vote on what, now: the state of a session, without HTTP.

A rater sees one pair at a time and votes on that one. Its ids are keyed digests of a secret of this process, so a page
learns neither models nor repeats, and nothing can be voted on that was not shown.
"""

import hmac
import io
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from PIL import Image

from rfjax.errors import UserError
from rfjax.preferences.pairs import QUESTIONS, Pair, Showing, showings, shown_size
from rfjax.preferences.samples import Picture
from rfjax.preferences.votes import CHOICES, UNDONE, Vote, VotesFile

LONGEST_RATER = 40  # characters
LONGEST_MS = 24 * 3600 * 1000  # a page that lay open for longer says a day
COMPRESSION = 1  # of zlib: a picture of 1024 x 1024 in tens of milliseconds


class Refused(Exception):
    """A request that is not granted, with the status and the sentence of the answer; nothing was written."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class Plan:
    """What raters are asked; see `pairs.showings`. questions: names in QUESTIONS, in the order of the passes."""

    pairs: Sequence[Pair]
    questions: Sequence[str]
    seed: int = 0
    repeats: float = 0.0
    limit: int = 0
    size: int = 0

    def of(self, rater: str) -> tuple[Showing, ...]:
        """All that a rater sees, pass by pass."""
        options = {"seed": self.seed, "repeats": self.repeats, "limit": self.limit}
        return tuple(showing for name in self.questions for showing in showings(self.pairs, name, rater, **options))


class Ballots:
    """The votes of all raters of this session; safe to use from several threads."""

    def __init__(self, plan: Plan, file: VotesFile, secret: bytes, say: Callable[[str], None] = print) -> None:
        """Goes on after the votes of the file.

        Args:
            secret: of this process, 16 bytes or more.
            say: gets sentences for whoever runs the server.
        """
        self._plan, self._file, self._secret, self._say = plan, file, secret, say
        self._lock = threading.Lock()
        self._votes: dict[str, dict[tuple[str, str, bool], Vote]] = {}
        for vote in file.votes.counted:
            self._votes.setdefault(vote.rater, {})[vote.key[1:]] = vote
        self._orders: dict[str, tuple[Showing, ...]] = {}
        self._now: dict[str, tuple[str, Showing]] = {}  # rater -> what is on the screen, and its id
        self._pictures: dict[str, tuple[Picture, str]] = {}  # id -> picture, and the pair that it is of
        self._broken: set[str] = set()  # pairs

    @property
    def count(self) -> int:
        """Of the votes that count."""
        return sum(map(len, self._votes.values()))

    def close(self) -> None:
        """Gives the file back once no vote is being written; later ones are refused."""
        with self._lock:
            self._file.close()

    def next(self, rater: object) -> dict[str, Any]:
        """What a rater's page shows now, as plain values.

        Raises:
            Refused: for a name that can't be one.
        """
        name = checked_rater(rater)
        with self._lock:
            return self._show(name)

    def vote(self, rater: object, item: object, choice: object, ms: object) -> dict[str, Any]:
        """Writes a vote down; returns what the page shows next.

        Args:
            item: the id of the pair on the rater's screen.
            choice: one of CHOICES.
            ms: milliseconds since both pictures were there.

        Raises:
            Refused: if it is no vote, is there already, or is on something else than what the rater was shown.
            UserError: if it can't be written.
        """
        name = checked_rater(rater)
        if choice not in CHOICES or not isinstance(ms, int) or isinstance(ms, bool) or ms < 0:
            raise Refused(HTTPStatus.BAD_REQUEST, f"a vote is one of {', '.join(CHOICES)}, with its milliseconds")
        with self._lock:
            current, showing = self._now.get(name, ("", None))
            if showing is None or item != current:
                self._refuse(name, item)
            own, key = self._votes.setdefault(name, {}), _key(showing)
            vote = self._vote(name, showing, str(choice), min(ms, LONGEST_MS))
            self._file.add(vote)
            own[key] = vote
            return self._show(name)

    def undo(self, rater: object) -> dict[str, Any]:
        """Takes the rater's last vote back, and shows that pair again.

        Raises:
            Refused: if there is none of this session's pairs.
            UserError: if it can't be written.
        """
        name = checked_rater(rater)
        with self._lock:
            order = {_key(showing): showing for showing in self._order(name)}
            last = next((key for key in reversed(self._votes.get(name, {})) if key in order), None)
            if last is None:
                raise Refused(HTTPStatus.CONFLICT, "there is no vote of yours to take back")
            self._file.add(self._vote(name, order[last], UNDONE, 0))
            del self._votes[name][last]
            return self._show(name, order[last])

    def picture(self, name: str) -> bytes:
        """The PNG file of an id: pixels alone.

        Raises:
            Refused: if there is none that was shown, or it can't be read; then its pair is left out from now on.
        """
        with self._lock:
            found, pair = self._pictures.get(name, (None, ""))
        if found is None:
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such picture")
        try:
            return encoded(found, self._plan.size)
        except UserError as error:
            with self._lock:
                if pair not in self._broken:
                    self._say(f"{error}; its pair is left out")
                self._broken.add(pair)
            raise Refused(HTTPStatus.NOT_FOUND, "this picture can't be read, so its pair is left out") from error

    def _order(self, rater: str) -> tuple[Showing, ...]:
        if rater not in self._orders:
            self._orders[rater] = self._plan.of(rater)
        return self._orders[rater]

    def _show(self, rater: str, wanted: Showing | None = None) -> dict[str, Any]:
        order, own = self._order(rater), self._votes.get(rater, {})
        left = [showing for showing in order if showing.pair.id not in self._broken]
        open_ = [showing for showing in left if _key(showing) not in own]
        done = len(left) - len(open_)
        shown = {"done": done, "total": len(left), "undo": any(_key(showing) in own for showing in order)}
        showing = wanted or next(iter(open_), None)
        if showing is None:
            self._now.pop(rater, None)
            return {**shown, "finished": True}
        item = self._id(rater, *_key(showing))
        self._now[rater] = (item, showing)
        sides = {}
        for side, model in (("left", showing.left), ("right", showing.right)):
            name = self._id(item, side)
            self._pictures[name] = (showing.picture(model), showing.pair.id)
            sides[side] = f"/picture/{name}"
        question = QUESTIONS[showing.question]
        number = self._plan.questions.index(showing.question) + 1
        asked = {"title": question.title, "hint": question.hint, "pass": number, "passes": len(self._plan.questions)}
        return {**shown, "finished": False, "item": item, "prompt": showing.pair.prompt, "question": asked, **sides}

    def _refuse(self, rater: str, item: object) -> None:
        if any(item == self._id(rater, *key) for key in self._votes.get(rater, {})):
            raise Refused(HTTPStatus.CONFLICT, "this vote is in the file already, and counts once")
        raise Refused(HTTPStatus.FORBIDDEN, "this pair is not on the screen of this rater: reload the page")

    def _vote(self, rater: str, showing: Showing, choice: str, ms: int) -> Vote:
        pair, sides = showing.pair, (showing.left, showing.right)
        about = (pair.id, pair.prompt, showing.question, rater, *sides, choice, ms, showing.repeat)
        return Vote(round(time.time(), 3), *about)

    def _id(self, *words: object) -> str:
        return hmac.digest(self._secret, json.dumps(words).encode(), "sha256").hex()[:32]


def checked_rater(name: object) -> str:
    """The name of a rater, without spaces around it.

    Raises:
        Refused: if it is none.
    """
    found = " ".join(name.split()) if isinstance(name, str) else ""
    if not 0 < len(found) <= LONGEST_RATER or not found.isprintable():
        raise Refused(HTTPStatus.BAD_REQUEST, f"a rater's name has 1 to {LONGEST_RATER} letters")
    return found


def encoded(picture: Picture, size: int) -> bytes:
    """A PNG file of the pixels alone, whatever the picture's own file says beside them."""
    pixels, memory = picture.decode(), io.BytesIO()
    shown = shown_size(picture, size)
    if shown != pixels.size:
        pixels = pixels.resize(shown, Image.Resampling.LANCZOS)
    pixels.save(memory, "PNG", compress_level=COMPRESSION)
    return memory.getvalue()


def summary(plan: Plan, models: Mapping[str, int]) -> str:
    """What raters are asked, in a sentence."""
    each = len(plan.of("anyone"))
    again = each - len(plan.questions) * min(len(plan.pairs), plan.limit or len(plan.pairs))
    sets = ", ".join(f"{name} ({count} pictures)" for name, count in models.items())
    return f"{sets}: {len(plan.pairs)} pairs; {each} votes for each rater, {again} of them on repeats"


def _key(showing: Showing) -> tuple[str, str, bool]:
    return showing.question, showing.pair.id, showing.repeat
