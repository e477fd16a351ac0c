import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfjax.errors import UserError
from rfjax.evaluation.statistics.means import mean_cosine, mean_of


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=20))
def test_pictures_on_their_own_have_the_usual_error(values):
    found = mean_of(np.array(values))
    assert found.value == pytest.approx(np.mean(values), abs=1e-12)
    assert found.stderr == pytest.approx(np.std(values, ddof=1) / np.sqrt(len(values)), abs=1e-12)


def test_copies_of_a_picture_add_nothing():
    values = np.random.default_rng(0).normal(size=30)
    once, thrice = mean_of(values), mean_of(np.repeat(values, 3), [str(i) for i in np.repeat(np.arange(30), 3)])
    assert (thrice.value, thrice.stderr) == pytest.approx((once.value, once.stderr))
    assert thrice.extras["groups"] == 30 and thrice.extras["count"] == 90
    assert mean_of(np.repeat(values, 3)).stderr < 0.6 * once.stderr


def test_the_clustered_error_is_the_spread():
    rng = np.random.default_rng(1)
    sets, prompts = rng.normal(size=(200, 40, 1)) + rng.normal(size=(200, 40, 4)), np.repeat(np.arange(40), 4)
    found = [mean_of(one.ravel(), prompts.tolist()) for one in sets]
    spread = np.std([one.value for one in found], ddof=1)
    assert np.mean([one.stderr for one in found]) == pytest.approx(spread, rel=0.15)  # 200 sets know it to 5 %


def test_a_cosine_is_of_any_norm_and_may_be_scaled():
    images, texts = np.eye(3), np.array([[2.0, 0, 0], [0, -1, 0], [1, 0, 1]])
    found = mean_cosine(images, texts)
    assert found.value == pytest.approx((1 - 1 + math.sqrt(0.5)) / 3)
    assert mean_cosine(5 * images, texts, scale=100.0).value == pytest.approx(100 * found.value)
    clustered = mean_cosine(images, texts, ["a", "a", "b"])
    assert clustered.extras["groups"] == 2 and clustered.stderr != found.stderr


def test_what_has_no_mean_is_refused():
    assert math.isnan(mean_of(np.ones(3), "aaa").stderr)
    with pytest.raises(UserError, match="at least one"):
        mean_of(np.ones(0))
    with pytest.raises(UserError, match="1 of 2 images have no finite value"):
        mean_of(np.array([1, np.nan]))
    with pytest.raises(UserError, match="2 images and 1 prompts"):
        mean_of(np.ones(2), ["a"])
    with pytest.raises(UserError, match="3 images and 2 texts"):
        mean_cosine(np.eye(3), np.eye(3)[:2])
    with pytest.raises(UserError, match="1 of 3 images or texts have a vector of zeros"):
        mean_cosine(np.eye(3), np.diag([1.0, 1, 0]))
