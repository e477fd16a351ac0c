import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

from rfjax.errors import UserError
from rfjax.evaluation.statistics import inception_score as module
from rfjax.evaluation.statistics.inception_score import inception_score


def literally(logits, splits):
    classes = scipy.special.softmax(logits, axis=1)
    parts = [classes[rows] for rows in splits]
    return [np.exp((p * np.log(p / p.mean(axis=0))).sum(axis=1).mean()) for p in parts]


def logits(n, classes=7, seed=0, scale=2.0):
    return np.random.default_rng(seed).normal(0, scale, (n, classes))


def test_adm_s_splits_are_consecutive(monkeypatch):
    monkeypatch.setattr(module, "ADM_SPLIT", 20)
    x = logits(50)
    found, scores = inception_score(x), literally(x, [slice(0, 20), slice(20, 40), slice(40, 50)])
    assert found.value == pytest.approx(np.mean(scores), rel=1e-12)
    assert found.extras == {"std": pytest.approx(np.std(scores), rel=1e-9), "splits": 3, "count": 50}
    assert found.notes == ("The last of 3 splits has 10 images, and the same weight.",)
    assert inception_score(x[:40]).notes == ()


def test_torch_fidelity_s_are_shuffled():
    x = logits(57)
    order = np.random.RandomState(2020).permutation(57)
    splits = [order[i * 57 // 10 : (i + 1) * 57 // 10] for i in range(10)]
    assert inception_score(x, "torch-fidelity").value == pytest.approx(np.mean(literally(x, splits)), rel=1e-12)


@given(st.integers(0, 1000), st.integers(3, 30))
def test_it_lies_between_one_and_the_number_of_classes(seed, n):
    assert 1 - 1e-12 <= inception_score(logits(n, seed=seed, scale=5)).value <= 7 + 1e-9


def test_sure_and_even_classes_score_their_number_and_equal_pictures_one():
    sure = inception_score(np.tile(1000 * np.eye(5), (4, 1)))
    assert sure.value == pytest.approx(5, rel=1e-12)
    same = inception_score(np.tile(logits(1), (9, 1)))
    assert same.value == pytest.approx(1, rel=1e-12) and same.stderr == pytest.approx(0, abs=1e-12)


def test_the_error_is_the_jackknife_and_the_spread(monkeypatch):
    x = logits(30)
    without = [inception_score(np.delete(x, i, axis=0)).value for i in range(30)]
    assert inception_score(x).stderr == pytest.approx(np.sqrt(29 / 30 * ((without - np.mean(without)) ** 2).sum()))
    sets = [inception_score(logits(200, seed=seed), "torch-fidelity") for seed in range(100)]
    spread = np.std([one.value for one in sets], ddof=1)
    assert np.mean([one.stderr for one in sets]) == pytest.approx(spread, rel=0.3)


def test_what_has_no_score_is_refused():
    with pytest.raises(UserError, match="at least 3"):
        inception_score(logits(2))
    with pytest.raises(UserError, match="needs 3 images in each split, and 20 images give fewer"):
        inception_score(logits(20), "torch-fidelity")
    with pytest.raises(UserError, match="1 of 5 feature vectors hold NaN"):
        inception_score(np.where(np.eye(5, 7) * np.arange(7) == 2, np.nan, logits(5)))
