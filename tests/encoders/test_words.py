"""What a word is, in English and elsewhere."""

import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfjax.encoders.text import WordVectors
from rfjax.encoders.words import words


@given(st.text(st.characters(max_codepoint=127), max_size=60))
def test_ascii_captions_are_what_they_always_were(caption):
    assert words(caption) == re.findall(r"\w+", caption.lower())


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("Ein größerer Hund, ein CAFÉ", ["ein", "grösserer", "hund", "ein", "café"]),
        ("красный круг над синим квадратом", ["красный", "круг", "над", "синим", "квадратом"]),
        ("一只红猫", ["一", "只", "红", "猫"]),
        ("STRASSE, straße, Σίσυφος ΣΊΣΥΦΟΣ", ["strasse", "strasse", "σίσυφοσ", "σίσυφοσ"]),
        ("iPhone手机", ["iphone", "手", "机"]),
        ("ﾈｺと猫", ["ネ", "コ", "と", "猫"]),
        ("แมวน้ำ", ["แ", "ม", "ว", "น้ํ", "า"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("한국어 고양이", ["한국어", "고양이"]),
        ("\u202bקטה\u200f חתול\u202c", ["קטה", "חתול"]),
        ("می\u200cخواهم", ["میخواهم"]),
        ("a cat 🐱❤\ufe0f", ["a", "cat", "🐱", "❤"]),
        ("half \ud83d an emoji", ["half", "an", "emoji"]),
        ("\u0301 alone", ["alone"]),
    ],
)
def test_words_of_other_scripts(caption, expected):
    assert words(caption) == expected


@given(st.text(max_size=40))
def test_one_text_has_the_same_words_in_every_form(caption):
    expected = words(caption + "é")
    for form in ("NFC", "NFD"):
        assert words(unicodedata.normalize(form, caption + "é")) == expected


def test_captions_without_spaces_are_told_apart_by_their_letters():
    context = WordVectors(4, 64, 16).prompts(["红猫", "红狗", "红猫"])["context"]
    np.testing.assert_array_equal(context[0], context[2])
    np.testing.assert_array_equal(context[0, 0], context[1, 0])
    assert np.abs(context[0, 1] - context[1, 1]).max() > 1
