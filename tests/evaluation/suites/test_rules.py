"""GenEval's rules on boxes whose relations are computed by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfjax.evaluation.suites.rules import Box, relations, shows


def square(x, y, side=10, colour=None):
    """A box by its centre."""
    return Box(x - side / 2, y - side / 2, x + side / 2, y + side / 2, colour)


HERE = square(100, 100)


@pytest.mark.parametrize(
    ("box", "found"),
    [
        # Both are 10 wide, so an axis loses .1 x 20 = 2 pixels; what is left must exceed half of the centres' distance.
        (square(104, 100), set()),  # (4 - 2) / 4 is a half, and not more
        (square(104.1, 100), {"right of"}),  # 2.1 / 4.1 = .51
        (square(95.9, 100), {"left of"}),
        (square(100, 104.1), {"below"}),
        (square(100, 95.9), {"above"}),
        (square(110, 110), {"right of", "below"}),  # (10 - 2) / 14.14 = .57 on both axes
        (square(107, 107), {"right of", "below"}),  # (7 - 2) / 9.90 = .505
        (square(106, 106), set()),  # (6 - 2) / 8.49 = .47: left of neither
        (square(120, 112), {"right of"}),  # 18 / 23.3 = .77 and 10 / 23.3 = .43
        (square(101, 99), set()),  # within the margin on both axes
        (square(100, 100), set()),
        (square(130, 100, side=90), {"right of"}),  # (30 - .1 x 100) / 30 = .67
        (square(115, 100, side=90), set()),  # (15 - 10) / 15 = .33
        (Box(90, 95, 110, 145), {"below"}),  # 20 x 50 at (100, 120): (20 - .1 x 60) / 20 = .7
    ],
)
def test_relations_of_boxes(box, found):
    assert relations(box, HERE) == found


@given(*[st.floats(-100, 100)] * 2, *[st.floats(0.5, 50)] * 2)
def test_the_other_way_round_it_is_the_opposite(x, y, first, second):
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    a, b = square(x, y, first), square(0, 0, second)
    assert relations(b, a) == {opposite[name] for name in relations(a, b)}
    # The definition, in other words: an axis counts if it is more than a half and the margin.
    most = math.hypot(x, y) / 2 + 0.1 * (first + second)
    if abs(abs(x) - most) > 1e-9 and abs(x) > 0.01 + 0.1 * (first + second):
        assert ("right of" in relations(a, b)) == (x > most)


POSITION = {"include": [{"class": "cup", "count": 1}, {"class": "dog", "count": 1, "position": ["left of", 0]}]}
COLOUR = {"include": [{"class": "cup", "count": 1, "color": "red"}]}
COUNT = {"include": [{"class": "cup", "count": 2}], "exclude": [{"class": "cup", "count": 3}]}


def test_position_and_colour_look_at_the_most_confident_box_alone():
    cup, left, right = square(100, 100), square(50, 100), square(150, 100)
    assert shows(POSITION, {"cup": [cup], "dog": [left]})
    assert not shows(POSITION, {"cup": [cup], "dog": [right]})
    assert shows(POSITION, {"cup": [cup], "dog": [left, right]})
    assert not shows(POSITION, {"cup": [cup], "dog": [right, left]})  # the second dog would be right
    assert not shows(POSITION, {"cup": [left, cup], "dog": [left]})  # so would be the second cup
    assert not shows(POSITION, {"dog": [left]})
    red, blue = square(0, 0, colour="red"), square(50, 0, colour="blue")
    assert shows(COLOUR, {"cup": [red, blue]})
    assert not shows(COLOUR, {"cup": [blue, red]})
    assert not shows({"include": [{"class": "cup", "count": 2, "color": "red"}]}, {"cup": [red, blue, red]})


def test_counts_are_exact_where_more_are_excluded():
    one = square(0, 0)
    assert [shows(COUNT, {"cup": [one] * n}) for n in range(5)] == [False, False, True, False, False]
    del_exclude = {"include": COUNT["include"]}
    assert [shows(del_exclude, {"cup": [one] * n}) for n in range(5)] == [False, False, True, True, True]
    assert shows(COUNT, {"cup": [one] * 2, "dog": [one]})


def test_a_relation_holds_between_all_boxes_of_both_counts():
    two = {"include": [{"class": "cup", "count": 1}, {"class": "dog", "count": 2, "position": ["left of", 0]}]}
    cup, left, right = square(100, 100), square(50, 100), square(150, 100)
    assert shows(two, {"cup": [cup], "dog": [left, left, right]})
    assert not shows(two, {"cup": [cup], "dog": [left, right, left]})
