"""The words of the captions of `shapes`: which there are, how alt text damages them, and what else they may be called.

`alt_text` makes of a whole caption what is often scraped beside a picture: words are missing, and others are wrong.
`in_other_words` says the same with words that no training caption has, and `in_plain_words` takes that back.
"""

import itertools
import re
from collections.abc import Iterable, Sequence

SKILLS = ("single object", "two objects", "counting", "colours", "position", "colour attribution")
SHAPES = ("circle", "square", "triangle", "cross")
PLURALS = ("circles", "squares", "triangles", "crosses")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (225, 30, 35),
    "orange": (245, 140, 20),
    "yellow": (245, 230, 50),
    "green": (40, 170, 60),
    "cyan": (60, 215, 225),
    "blue": (40, 75, 220),
    "purple": (140, 50, 175),
    "white": (250, 250, 250),
}
NUMBERS = {2: "two", 3: "three", 4: "four"}
RELATIONS = ("left of", "right of", "above", "below")
KINDS = (RELATIONS, PLURALS, SHAPES, tuple(COLOURS), tuple(NUMBERS.values()))  # of words that say what is shown

LOST = 2 / 3  # of the damaged words; the others are wrong
DRAWS = 8  # random fractions of a caption: two for each of its words of KINDS, of which it has four at most
NOTHING = "image"  # what is written where no word is left

# Each stands for one word only; "of" and "a" aside, no word of it is in a training caption.
OTHER_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("scarlet", "crimson"),
    "orange": ("tangerine", "amber"),
    "yellow": ("lemon", "golden"),
    "green": ("emerald", "olive"),
    "cyan": ("turquoise", "aqua"),
    "blue": ("navy", "azure"),
    "purple": ("violet", "lavender"),
    "white": ("ivory", "snowy"),
    "circle": ("disc", "ball"),
    "square": ("box", "cube"),
    "triangle": ("pyramid", "wedge"),
    "cross": ("plus sign", "crucifix"),
    "circles": ("discs", "balls"),
    "squares": ("boxes", "cubes"),
    "triangles": ("pyramids", "wedges"),
    "crosses": ("plus signs", "crucifixes"),
    "two": ("2", "a pair of"),
    "three": ("3", "a trio of"),
    "four": ("4", "a quartet of"),
    "left of": ("leftwards of", "west of"),
    "right of": ("rightwards of", "east of"),
    "above": ("over", "on top of"),
    "below": ("under", "beneath"),
}
_MEANINGS = {other: word for word, others in OTHER_WORDS.items() for other in others}


def _any_of(words: Iterable[str]) -> re.Pattern[str]:
    """A pattern for these words, the longest first."""
    return re.compile(rf"\b({'|'.join(map(re.escape, sorted(words, key=len, reverse=True)))})\b")


_PLAIN, _OTHER = _any_of(OTHER_WORDS), _any_of(_MEANINGS)


def article(word: str) -> str:
    """The indefinite article before a word."""
    return "an" if word[0] in "aeiou" else "a"


def alt_text(caption: str, draws: Sequence[float], share: float) -> str:
    """A caption as if scraped from a page: each word that says what is shown is damaged with the probability `share`.

    Args:
        caption: a whole one.
        draws: DRAWS uniform numbers in 0..1.
        share: of the words; LOST of them are left out, the others are another word of their kind.
    """
    place = itertools.count()

    def damaged(match: re.Match[str]) -> str:
        word, at = match[0], 2 * next(place)
        if draws[at] >= share:
            return word
        if draws[at] < share * LOST:
            return ""
        others = [other for kind in KINDS if word in kind for other in kind if other != word]
        return others[int(draws[at + 1] * len(others))]

    words = _PLAIN.sub(damaged, caption).split()
    return _tidied(words) or NOTHING


def _tidied(words: Sequence[str]) -> str:
    """The words with articles only before colours and shapes, and "and" only between others."""
    kept = []
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        if word not in ("a", "an"):
            kept.append(word)
        elif following in COLOURS or following in SHAPES:
            kept.append(article(following))
    while kept and kept[-1] == "and":
        kept.pop()
    return " ".join(kept[1:] if kept[:1] == ["and"] else kept)


def in_other_words(caption: str, draws: Sequence[float]) -> str:
    """A whole caption with each word that says what is shown replaced by one of OTHER_WORDS.

    Args:
        draws: DRAWS uniform numbers in 0..1, which choose among several.
    """
    place = itertools.count()

    def replaced(match: re.Match[str]) -> str:
        choices = OTHER_WORDS[match[0]]
        return choices[int(draws[next(place)] * len(choices))]

    text = _PLAIN.sub(replaced, caption)
    return re.sub(r"\ban? (?=(\w))", lambda match: f"{article(match[1])} ", text)


def in_plain_words(caption: str) -> str:
    """The caption that `in_other_words` was given; others are left as they are."""
    text = _OTHER.sub(lambda match: _MEANINGS[match[0]], caption)
    return re.sub(r"\ban? (?=(\w))", lambda match: f"{article(match[1])} ", text)
