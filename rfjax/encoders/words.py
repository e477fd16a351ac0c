"""The words of a caption, in any script."""

import re
import unicodedata
from collections.abc import Iterator

# Scripts that put no space between words, by how Unicode names their letters: there, each letter is a word.
_WITHOUT_SPACES = ("CJK", "HIRAGANA", "KATAKANA", "BOPOMOFO", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "JAVANESE")
_VARIATIONS = range(0xFE00, 0xFE10)  # how the sign before is to look: no part of what it says


def words(caption: str) -> list[str]:
    """Returns the words in their order, without case and punctuation.

    A word is a run of letters, digits and the marks on them (accents, vowel signs), compared as Unicode does without
    case (D146): one accent written in two ways is one, so are "Straße" and "STRASSE". Where a script has no spaces, a
    letter with its marks is a word, and so is a picture sign such as an emoji. What only directs the text, such as a
    right-to-left mark or a joiner, is passed over.
    """
    if caption.isascii():
        return re.findall(r"\w+", caption.lower())
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFD", caption).casefold()).casefold()
    return list(_split(unicodedata.normalize("NFKC", folded)))


def _split(text: str) -> Iterator[str]:
    word, alone = "", False  # alone: the word takes no more letters
    for letter in text:
        kind = unicodedata.category(letter)
        if kind == "Cf" or ord(letter) in _VARIATIONS:
            continue
        if kind[0] == "M":
            word += letter if word else ""
            continue
        starts = kind == "So" or unicodedata.name(letter, "").startswith(_WITHOUT_SPACES)
        belongs = letter.isalnum() or letter == "_"
        if word and (alone or starts or not belongs):
            yield word
            word = ""
        if starts or belongs:
            word, alone = word + letter, starts
    if word:
        yield word
