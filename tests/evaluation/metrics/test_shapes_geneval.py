import dataclasses

import numpy as np
import pytest
from tiny import tiny

from rfjax import config as configs
from rfjax.data import wording
from rfjax.data.shapes import Shapes
from rfjax.errors import UserError
from rfjax.evaluation.metrics import Metric, composition, shapes_geneval
from rfjax.evaluation.metrics.composition import Found, parse
from rfjax.evaluation.metrics.shapes_geneval import holds, wanted

RED = Found("circle", "red", 0.3, 0.3, 0.1, 0.9)
BLUE = Found("circle", "blue", 0.7, 0.3, 0.1, 0.8)
SQUARE = Found("square", "red", 0.7, 0.7, 0.1, 0.7)


def both(caption, *found):
    """By the rule of `shapes`, and by GenEval's."""
    claim = parse(caption)
    return composition.holds(claim, found), holds(claim, found)


@pytest.mark.parametrize(
    ("caption", "found", "lax", "official"),
    [
        ("a circle", (RED, BLUE), True, True),
        ("two circles", (RED, BLUE), True, True),
        ("two circles", (RED,), False, False),
        ("two circles", (RED, BLUE, RED), False, False),
        ("a square and a circle", (SQUARE, RED), True, True),
        ("a red circle", (RED, BLUE), True, True),
        ("a blue circle", (RED, BLUE), True, False),  # the red one is found with more confidence
        ("a blue circle", (dataclasses.replace(RED, confidence=0.5), BLUE), True, True),
        ("a blue circle and a red square", (RED, BLUE, SQUARE), True, False),
        # The red circle is left of the square: (.4 - .04) / .566 is over a half. The blue one is straight above it.
        ("a circle left of a square", (RED, SQUARE), True, True),
        ("a circle left of a square", (BLUE, RED, SQUARE), True, True),
        ("a circle left of a square", (dataclasses.replace(RED, confidence=0.1), BLUE, SQUARE), True, False),
        ("a square below a circle", (BLUE, RED, SQUARE), True, True),
        ("a square left of a circle", (RED, SQUARE), False, False),
        ("a circle left of a square", (RED,), False, False),
    ],
)
def test_both_rules(caption, found, lax, official):
    assert both(caption, *found) == (lax, official)


def test_captions_in_the_form_of_geneval():
    assert wanted(parse("three crosses")) == {
        "include": [{"class": "cross", "count": 3}], "exclude": [{"class": "cross", "count": 4}],
    }  # fmt: skip
    assert wanted(parse("a circle above a square"))["include"] == [
        {"class": "square", "count": 1}, {"class": "circle", "count": 1, "position": ["above", 0]},
    ]  # fmt: skip


def test_it_is_a_metric_that_is_never_above_the_lax_one():
    metric = shapes_geneval.make(configs.runs(configs.parse(tiny()))[0][1])
    assert isinstance(metric, Metric)
    images, captions = Shapes("validation", 16).read(range(300))
    state = metric.update(metric.init(), images[:200], captions[:200])
    true = metric.result(metric.update(state, images[200:], captions[200:]))
    assert true["geneval_score"] == 1 and set(true["geneval_parts"]) == set(composition.SKILLS)
    wrong = captions[1:] + captions[:1]
    lax, skills = composition.judge(images, wrong)
    strict, _ = composition.judge(images, wrong, holds)
    assert (strict <= lax).all()
    alike = np.isin(skills, ("single object", "two objects", "counting"))
    np.testing.assert_array_equal(strict[alike], lax[alike])
    # Of two circles in two colours, GenEval's rule knows the colour of the more confident one alone.
    pairs = [sorted(row, key=lambda one: one.confidence) for row in composition.read(images)]
    two = [n for n, row in enumerate(pairs) if len({one.kind for one in row}) == 1 < len({one.colour for one in row})]
    for of, right in ((0, False), (-1, True)):
        asked = [f"{wording.article(pairs[n][of].colour)} {pairs[n][of].colour} {pairs[n][of].kind}" for n in two]
        assert composition.judge(images[two], asked)[0].all()
        alone = [n for n, k in enumerate(two) if pairs[k][0].colour != pairs[k][-1].colour]
        assert len(alone) > 10 and (composition.judge(images[two], asked, holds)[0][alone] == right).all()
    with pytest.raises(UserError, match="expected pictures of shape"):
        metric.update([], images[:2, :, :12], captions[:2])
