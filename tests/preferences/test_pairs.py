"""What raters see: every pair once, in an order and on sides of their own, and some again with their sides swapped."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from preference_cases import picture, sets
from scipy.stats import binomtest, kstest

from rfjax.preferences.pairs import GAP, QUESTIONS, Pair, make_pairs, showings
from rfjax.preferences.samples import Picture

HERE = Picture(picture(0), (12, 10), "0", "here")


def some(count):
    return tuple(Pair(f"{i:04}", f"prompt {i}", ("a", "b"), (HERE, HERE)) for i in range(count))


@settings(max_examples=20)
@given(st.integers(1, 60), st.floats(0, 1), st.integers(0, 40), st.text(max_size=8), st.integers(0, 9))
def test_every_pair_comes_once_and_repeats_come_later_with_sides_swapped(count, repeats, limit, rater, seed):
    shown = showings(some(count), "quality", rater, seed=seed, repeats=repeats, limit=limit)
    assert shown == showings(some(count), "quality", rater, seed=seed, repeats=repeats, limit=limit)
    first = {showing.pair.id: (place, showing) for place, showing in enumerate(shown) if not showing.repeat}
    again = [(place, showing) for place, showing in enumerate(shown) if showing.repeat]
    asked = min(count, limit or count)
    assert len(first) == asked and len(again) == round(repeats * asked)
    assert len({showing.pair.id for _, showing in again}) == len(again)
    for place, showing in again:
        before, earlier = first[showing.pair.id]
        assert before < place and showing.left == earlier.right and showing.right == earlier.left
        rest = sum(not x.repeat for x in shown[before + 1 :])
        assert sum(not x.repeat for x in shown[before + 1 : place]) >= min(GAP, rest)


def test_orders_differ_by_rater_question_and_seed_and_sides_are_random():
    all_pairs = some(400)
    found = {
        (rater, name, seed): showings(all_pairs, name, rater, seed=seed)
        for rater in ("ann", "bob") for name in ("quality", "following") for seed in (0, 1)
    }  # fmt: skip
    assert len({tuple(x.pair.id for x in shown) for shown in found.values()}) == len(found)
    left = Counter(x.left for shown in found.values() for x in shown)
    assert binomtest(left["a"], left.total()).pvalue > 1e-3
    places = [place / 400 for shown in found.values() for place, x in enumerate(shown) if x.pair.id < "0040"]
    assert kstest(places, "uniform").pvalue > 1e-3


def test_a_set_that_comes_later_leaves_the_others_order(tmp_path):
    one, two, three = sets(tmp_path, ("one", "two", "three"), [f"prompt {i}" for i in range(12)])
    before = [x.pair.id for x in showings(make_pairs((one, two)), "quality", "ann")]
    after = [x.pair.id for x in showings(make_pairs((three, two, one)), "quality", "ann")]
    assert [x for x in after if x in before] == before and len(after) == 36


def test_ids_are_of_the_pictures_too(tmp_path):
    """So that votes on pictures that were drawn anew are not taken for votes on these."""
    one, two = sets(tmp_path)
    pictures = dict(two.pictures)
    pictures["two dogs", 0] = Picture(picture(7), (12, 10), "other bytes", "here")
    new = type(two)(two.name, two.path, pictures)
    before, after = make_pairs((one, two)), make_pairs((one, new))
    assert [a.id == b.id for a, b in zip(before, after, strict=True)] == [True, False, True]


def test_questions_are_the_papers_three():
    assert list(QUESTIONS) == ["quality", "following", "typography"]


def test_repeats_spread_over_the_rest():
    """They are not all at the end, where a rater would know them."""
    places = [place for place, x in enumerate(showings(some(300), "quality", "ann", repeats=0.2)) if x.repeat]
    assert len(places) == 60
    assert np.percentile(places, 25) < 250 and max(places) > 280
