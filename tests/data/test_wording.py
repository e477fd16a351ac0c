"""The words of the captions of `shapes`: damaged as in scraped text, and other words for the same."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfjax.data import wording
from rfjax.data.shapes import Shapes
from rfjax.data.types import Captions, written_out
from rfjax.encoders.words import words
from rfjax.evaluation.metrics.composition import parse

COUNT = 6000
CONTENT = [word for kind in wording.KINDS for word in kind]
draws = st.lists(st.floats(0, 1, exclude_max=True), min_size=wording.DRAWS, max_size=wording.DRAWS)


def said(split, count=COUNT, **options):
    return Shapes(split, 16, **options).take(range(count), ()).captions


def content(caption):
    return re.findall("|".join(sorted(CONTENT, key=len, reverse=True)), caption)


@pytest.mark.parametrize(
    ("caption", "draws", "expected"),
    [
        ("an orange circle", [1, 0, 1, 0], "an orange circle"),
        ("an orange circle", [0.1, 0, 1, 0], "a circle"),
        ("an orange circle", [1, 0, 0.1, 0], "an orange"),
        ("a red circle", [0.4, 0.1, 1, 0], "an orange circle"),  # the first of the seven other colours
        ("a red circle", [1, 0, 0.4, 0.99], "a red cross"),
        ("a circle and a square", [0.1, 0, 1, 0], "a square"),
        ("a circle and a square", [1, 0, 0.1, 0], "a circle"),
        ("a circle left of a square", [1, 0, 0.1, 0, 1, 0], "a circle a square"),
        ("a circle left of a square", [1, 0, 0.4, 0.99, 0.1, 0], "a circle below"),
        ("three crosses", [0.1, 0, 1, 0], "crosses"),
        ("three crosses", [0.4, 0.6, 0.4, 0], "four circles"),
        ("a circle and a square", [0.1, 0, 0.1, 0], "image"),
    ],
)
def test_words_are_missing_or_wrong(caption, draws, expected):
    assert wording.alt_text(caption, [*draws, 1, 1, 1, 1], 0.5) == expected


def test_alt_text_has_the_rates_that_the_config_says():
    for share in (0.2, 0.5):
        found = said("train", alt_text=share)
        whole = said("train")
        assert [one.synthetic for one in found] == [(text,) for text in whole]
        words = sum(len(content(text)) for text in whole)
        missing = words - sum(len(content(one.original[0])) for one in found)
        deviation = 4 * np.sqrt(0.25 / words)
        assert abs(missing / words - share * wording.LOST) < deviation
        # Where no word is missing, a word is wrong with share (1 - LOST) of 1 - share LOST.
        kept = [(a, b) for one in found if len(a := content(one.original[0])) == len(b := content(one.synthetic[0]))]
        pairs = [pair for a, b in kept for pair in zip(a, b, strict=True)]
        wrong = np.mean([a != b for a, b in pairs])
        expected = share * (1 - wording.LOST) / (1 - share * wording.LOST)
        assert abs(wrong - expected) < 4 * np.sqrt(0.25 / len(pairs))
        assert all(any(a in kind and b in kind for kind in wording.KINDS) for a, b in pairs)


@given(st.integers(0, 500), draws, st.floats(0, 1))
def test_alt_text_reads_as_english(index, draws, share):
    (caption,) = Shapes("train", 16).take([index], ()).captions
    text = wording.alt_text(caption, draws, share)
    assert text and text == " ".join(text.split())
    assert not re.search(r"^and|and$|and and|\ban? (?!\w)|\ba [aeiou]|\ban [^aeiou]", text)
    assert share > 0 or text == caption


def test_only_training_has_alt_text_and_only_the_others_have_other_words():
    both = {"alt_text": 0.5, "other_words": True}
    assert said("train", 50, **both) == said("train", 50, alt_text=0.5)
    assert said("train", 50, other_words=True) == said("train", 50)
    assert said("validation", 50, alt_text=0.5) == said("validation", 50)
    assert said("validation", 50, **both) != said("validation", 50)
    first = Shapes("train", 16, alt_text=0.5)
    assert first[7]["caption"] == first.take([3, 7], ())[1][1] and isinstance(first[7]["caption"], Captions)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_the_names_say_what_an_identity_should_notice(split):
    named = {tuple(Shapes(split, 16, **options).names()) for options in ({}, {"alt_text": 0.5}, {"other_words": True})}
    assert len(named) == 2


def test_every_second_caption_is_said_in_other_words_that_mean_the_same():
    plain, other = said("validation"), said("validation", other_words=True)
    assert other[::2] == plain[::2]
    assert [wording.in_plain_words(text) for text in other] == plain
    assert all(text != meant for text, meant in zip(other[1::2], plain[1::2], strict=True))
    assert [parse(text) for text in other] == [parse(text) for text in plain]
    used = {name for text in other[1::2] for name in wording._OTHER.findall(text)}
    assert used == {name for names in wording.OTHER_WORDS.values() for name in names}


def test_training_never_has_a_word_of_the_other_words():
    trained = {word for one in said("train", alt_text=0.5) for word in words(written_out(one).replace("\0", " "))}
    assert set(wording.OTHER_WORDS) == set(CONTENT)
    new = {word for names in wording.OTHER_WORDS.values() for name in names for word in words(name)}
    assert new & trained == {"a", "of"}
    named = list(itertools.chain(*wording.OTHER_WORDS.values()))
    assert len(set(named)) == len(named)
