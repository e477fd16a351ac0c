"""What is compared, and what each rater sees in which order: a function of the rater's name and a seed alone.

All draws are digests of what they are about. So they are the same on every machine and with every version of a library,
and a set that comes later leaves the order of the others as it was.
"""

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass

from rfjax.errors import UserError, one_line
from rfjax.preferences.samples import Key, Picture, SampleSet

GAP = 10  # pairs between a pair and its repeat, at least where there are as many


@dataclass(frozen=True)
class Question:
    """One pass over the pairs: a question and what to look at."""

    title: str
    hint: str


# The three questions of SD3's Fig. 7, in our own words.
QUESTIONS = {
    "quality": Question(
        "Which picture is of higher quality and more pleasing?",
        "Both were drawn for one text. Judge beauty and craft: light, composition, sharpness, no broken parts.",
    ),
    "following": Question(
        "Which picture shows better what the text says?",
        "Things, numbers, colours, places and actions that are there, missing or wrong. Beauty does not count.",
    ),
    "typography": Question(
        "Which picture writes the words of the text more correctly?",
        "Spelling first; all else does not count. Where the text asks for no words, it is a tie.",
    ),
}


@dataclass(frozen=True)
class Pair:
    """Two pictures of one prompt; id: of names, prompt and the pictures' bytes; models: in alphabetical order."""

    id: str
    prompt: str
    models: tuple[str, str]
    pictures: tuple[Picture, Picture]


@dataclass(frozen=True)
class Showing:
    """A pair as a rater sees it: one question, one model left; repeat: whether its second time, with sides swapped."""

    pair: Pair
    question: str
    left: str
    repeat: bool

    @property
    def right(self) -> str:
        first, second = self.pair.models
        return second if self.left == first else first

    def picture(self, model: str) -> Picture:
        return self.pair.pictures[self.pair.models.index(model)]


def make_pairs(sets: Sequence[SampleSet], common: bool = False, size: int = 0) -> tuple[Pair, ...]:
    """All pairs of sets on all their prompts.

    Args:
        common: whether to compare the prompts that all sets have, where some sets have more.
        size: pixels to which the longer side of each picture will be brought; 0 leaves pictures as they are.

    Raises:
        UserError: if there are fewer than two sets, or prompts or sizes differ.
    """
    if len(sets) < 2:
        raise UserError("a comparison needs two sets of samples or more: --samples ONE=FOLDER OTHER=FOLDER")
    kept = _shared(sets, common)
    pairs = []
    for one, other in itertools.combinations(sorted(sets, key=lambda found: found.name), 2):
        for key in kept:
            pictures = (one.pictures[key], other.pictures[key])
            _check_sizes((one.name, other.name), key, pictures, size)
            about = [one.name, other.name, *key, *(picture.digest for picture in pictures)]
            pairs.append(Pair(_digest(*about).hex()[:16], key[0], (one.name, other.name), pictures))
    return tuple(pairs)


def _shared(sets: Sequence[SampleSet], common: bool) -> list[Key]:
    first = list(sets[0].pictures)
    shared = [key for key in first if all(key in one.pictures for one in sets)]
    if not shared:
        raise UserError(f"{sets[0].name} and {sets[1].name} have no prompt in common: draw the same prompts with each")
    for one in sets if not common else ():
        extra = [key for key in one.pictures if any(key not in other.pictures for other in sets)]
        if extra:
            (prompt, number), lacking = extra[0], next(s.name for s in sets if extra[0] not in s.pictures)
            which = f"picture {number + 1} of " if number else ""
            raise UserError(
                f"the sets differ: {which}'{one_line(prompt)}' is in {one.name} and not in {lacking}; draw what is "
                f"missing, or compare the {len(shared)} pictures that all sets have with --common"
            )
    return shared


def _check_sizes(names: tuple[str, str], key: Key, pictures: tuple[Picture, Picture], size: int) -> None:
    shown = [shown_size(picture, size) for picture in pictures]
    if shown[0] != shown[1]:
        said = " and ".join(f"{w} x {h} in {name}" for name, (w, h) in zip(names, shown, strict=True))
        fix = "crop them to one shape" if size else "bring all to one size with --size, such as --size 512"
        raise UserError(f"the picture of '{one_line(key[0])}' is {said}, which tells the sets apart: {fix}")


def shown_size(picture: Picture, size: int) -> tuple[int, int]:
    """Width and height as shown, the longer side being `size` pixels unless that is 0."""
    if not size:
        return picture.size
    factor = size / max(picture.size)
    return max(round(factor * picture.size[0]), 1), max(round(factor * picture.size[1]), 1)


def showings(
    pairs: Sequence[Pair], question: str, rater: str, *, seed: int = 0, repeats: float = 0.0, limit: int = 0
) -> tuple[Showing, ...]:
    """One rater's pass: every pair once in an order of the rater's own, some again later with their sides swapped.

    Args:
        repeats: share of the pairs that are shown twice, at least GAP pairs later where there are as many.
        limit: the number of pairs, without repeats; 0 for all.
    """

    def draw(what: str, pair: Pair) -> float:
        return int.from_bytes(_digest(seed, rater, question, what, pair.id)[:7]) / 2**56

    order = sorted(pairs, key=lambda pair: draw("order", pair))[: limit or None]
    shown = []
    again = {pair.id for pair in sorted(order, key=lambda pair: draw("repeat", pair))[: round(repeats * len(order))]}
    for place, pair in enumerate(order):
        sides = pair.models if draw("side", pair) < 0.5 else pair.models[::-1]
        shown.append((place, Showing(pair, question, sides[0], False)))
        if pair.id in again:
            earliest = min(place + GAP, len(order))
            later = earliest + draw("place", pair) * (len(order) - earliest)
            shown.append((later + 0.5, Showing(pair, question, sides[1], True)))
    return tuple(showing for _, showing in sorted(shown, key=lambda item: item[0]))


def _digest(*words: object) -> bytes:
    return hashlib.sha256(json.dumps(words).encode()).digest()
