"""The words of a caption, in any script."""

import re
import unicodedata
from collections.abc import Iterator

# Scripts without spaces between words, by the Unicode names of their letters: each letter is a word.
_WITHOUT_SPACES = ("CJK", "HIRAGANA", "KATAKANA", "BOPOMOFO", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "JAVANESE")
_VARIATIONS = range(0xFE00, 0xFE10)  # variants of the sign before them, with the same meaning


def words(caption: str) -> list[str]:
    """The words in their order, without case and punctuation.

    A word is a run of letters, digits and the marks on them (accents, vowel signs). Two words are equal under Unicode's
    caseless matching (D146): one accent written in two ways is one, and so are "Straße" and "STRASSE". In a script
    without spaces, a letter with its marks is a word, and so is a picture sign such as an emoji. Signs that only direct
    the text, such as a right-to-left mark or a joiner, don't count.
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
