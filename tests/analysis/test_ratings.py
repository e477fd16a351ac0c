"""Bradley-Terry ratings, win rates and agreement against closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from rfjax.analysis import raters, ratings
from rfjax.analysis.ratings import Duel, bradley_terry, connection, points_matrix, rate


def games(beta, votes):
    """The expected points of models of these strengths, `votes` a pair."""
    p = 1 / (1 + np.exp(beta[None, :] - beta[:, None]))
    return votes * p * (1 - np.eye(len(beta)))


def drawn(rng, beta, prompts, judges=1):
    """Votes on all pairs of models m0, m1, ..., a pair of a prompt for each judge."""
    found = []
    for prompt in range(prompts):
        for i in range(len(beta)):
            for j in range(i):
                for judge in range(judges):
                    won = rng.random() < 1 / (1 + math.exp(beta[j] - beta[i]))
                    found.append(Duel(f"m{i}", f"m{j}", float(won), f"p{prompt}", f"r{judge}"))
    return found


def test_two_models_have_the_log_of_their_odds():
    beta = bradley_terry(np.array([[0, 30.0], [10, 0]]))
    assert np.diff(beta[::-1])[0] == pytest.approx(math.log(3), abs=1e-12)
    assert beta.sum() == pytest.approx(0, abs=1e-12)


def test_expected_points_give_the_strengths_back():
    beta = np.array([2.0, -1.5, 0.3, -0.8])
    assert bradley_terry(games(beta, 50)) == pytest.approx(beta, abs=1e-9)
    steep = np.array([9.0, 0.0, -9.0])  # a Newton step without a bound runs away from 0 here
    assert bradley_terry(games(steep, 50)) == pytest.approx(steep, abs=1e-6)


def test_the_scale_is_that_of_chess():
    for points, share in ((100, 0.640), (200, 0.760)):
        assert 1 / (1 + math.exp(-points / ratings.SPREAD)) == pytest.approx(share, abs=5e-4)
    duels = [Duel("a", "b", 1.0, str(i), "r") for i in range(64)] + [
        Duel("b", "a", 1.0, str(i), "r") for i in range(36)
    ]
    found = rate(duels, ["a", "b"])
    assert found.rating[0] - found.rating[1] == pytest.approx(ratings.SPREAD * math.log(64 / 36))
    assert found.rating.mean() == pytest.approx(1000)


@given(st.integers(2, 6), st.integers(0, 2**31))
def test_the_gradient_is_zero_whatever_the_order_of_the_models(m, seed):
    rng = np.random.default_rng(seed)
    points = rng.uniform(0.5, 20, (3, m, m)) * (1 - np.eye(m))
    beta, order = bradley_terry(points), rng.permutation(m)
    p = 1 / (1 + np.exp(beta[:, None, :] - beta[:, :, None]))
    assert (points - (points + points.transpose(0, 2, 1)) * p).sum(-1) == pytest.approx(0, abs=1e-6)
    assert bradley_terry(points[0]) == pytest.approx(beta[0], abs=1e-9)
    assert bradley_terry(points[:, order][:, :, order]) == pytest.approx(beta[:, order], abs=1e-8)


@pytest.mark.parametrize(
    ("points", "said", "blamed"),
    [
        ([[0, 4.0, 3], [0, 0, 2], [0, 1, 0]], "a took every point from the other models, so its rating has no", 1),
        ([[0, 4.0, 3], [1, 0, 2], [0, 0, 0]], "c took no point from the other models, so its rating has no lower", 1),
        ([[0, 4.0, 0], [1, 0, 0], [0, 0, 0]], "These were never compared with each other, not even through", 3),
        ([[0, 2.0, 1, 1], [1, 0, 4, 0], [0, 0, 0, 1], [0, 0, 1, 0]], "a and b took every point from the other", 4),
    ],
)  # fmt: skip
def test_what_makes_strengths_infinite_is_said(points, said, blamed):
    points = np.array(points)
    sentences, who = connection(points, "abcd"[: len(points)])
    assert sentences[0].startswith(said)
    assert who.sum() == blamed
    with pytest.raises(ValueError, match="infinite"):
        bradley_terry(points)
    assert np.isfinite(bradley_terry(points, prior=1.0)).all()


def test_an_unbeaten_model_has_the_rating_of_one_virtual_tie_and_no_interval():
    found = rate([Duel("a", "b", 1.0, str(i), "r") for i in range(30)], ["a", "b"])
    assert found.rating[0] - found.rating[1] == pytest.approx(ratings.SPREAD * math.log(30.5 / 0.5))
    assert np.isnan([found.low, found.high, found.ahead("a", "b")[1:]]).all()
    assert len(found.notes) == 3 and "virtual tie" in found.notes[2]
    assert (found.rate[0, 1], found.rate_high[0, 1]) == (1, 1)
    assert found.rate_low[0, 1] == pytest.approx(binomtest(30, 30).proportion_ci(0.95, "wilson").low)


def test_half_points_for_ties_and_wilson_s_interval():
    duels = [Duel("a", "b", x, "p", "r") for x in (1.0, 0.5, 0.5, 0.0)]
    assert points_matrix(duels, ["a", "b"]).tolist() == [[0, 2], [2, 0]]
    low, high = ratings.wilson(np.array([0.0, 3, 9, 0]), np.array([4.0, 9, 9, 0]))
    for count, of, at in ((0, 4, 0), (3, 9, 1), (9, 9, 2)):
        expected = binomtest(count, of).proportion_ci(0.95, "wilson")
        assert (low[at], high[at]) == pytest.approx((expected.low, expected.high))
    assert np.isnan([low[3], high[3]]).all()
    assert ratings.half_width(380) == pytest.approx(0.05, abs=2e-4)


def test_an_interval_of_independent_votes_is_as_wide_as_theory_says():
    """Two models at odds 2 : 1 over 600 prompts: the strength's variance is 1 / (n p (1 - p)); percentiles of 1000
    resamples err by some 5 % in width."""
    duels = [Duel("a", "b", float(i % 3 > 0), str(i), "r") for i in range(600)]
    _, low, high = rate(duels, ["a", "b"]).ahead("a", "b")
    width = 2 * ratings.Z * ratings.SPREAD / math.sqrt(600 * 2 / 9)
    assert high - low == pytest.approx(width, rel=0.15)


def test_more_raters_of_the_same_mind_tell_nothing_new():
    """A bootstrap over votes would make the interval half as wide with four times the votes."""
    once = drawn(np.random.default_rng(0), np.array([0.5, 0, -0.5]), 40)
    names = ["m0", "m1", "m2"]
    alone, four = rate(once, names), rate([d._replace(rater=f"r{i}") for d in once for i in range(4)], names)
    assert alone.resampled == four.resampled == "prompts"
    assert four.low == pytest.approx(alone.low) and four.high == pytest.approx(alone.high)
    several = rate([d._replace(rater=f"r{i}") for d in once for i in range(6)], names)
    assert several.resampled == "prompts and raters"
    assert several.rate_low[0, 2] <= alone.rate_low[0, 2] + 0.02  # Wilson's is narrower, the resamples' is not


def test_few_prompts_are_said():
    names = ["m0", "m1"]
    found = rate(drawn(np.random.default_rng(1), np.array([0.2, 0]), 3, judges=10), names)
    assert "Intervals over 3 prompts can't be given" in found.notes[-1] and np.isnan(found.low).all()
    found = rate(drawn(np.random.default_rng(1), np.array([0.2, 0]), 8, judges=4), names)
    assert "are too narrow" in found.notes[-1] and np.isfinite(found.low).all()


def test_krippendorff_s_alpha_of_a_table_worked_by_hand():
    """Units (a a), (a b), (b b), (b b c): n = 9; disagreeing coincidences 2 + 2; n_a = 3, n_b = 5, n_c = 1."""
    found = raters.agreement([["a", "a"], ["a", "b"], ["b", "b"], ["b", "b", "c"], ["c"], []])
    assert found.alpha == pytest.approx(1 - 8 * 4 / (81 - 9 - 25 - 1))
    assert (found.units, found.same) == (4, pytest.approx((2 + 0 + 2 + 2) / (2 + 2 + 2 + 6)))
    assert math.isnan(found.low)


def test_agreement_at_its_ends():
    rng = np.random.default_rng(0)
    same = raters.agreement([[x, x] for x in "abcabc"])
    assert (same.alpha, same.low, same.high, same.same) == (1, 1, 1, 1)
    chance = raters.agreement(rng.choice(list("abcd"), (400, 2)).tolist())
    assert chance.low < 0 < chance.high
    nothing = raters.agreement([["a"], ["b"]])
    assert math.isnan(nothing.alpha) and nothing.units == 0
    alike = raters.agreement([["a", "a"]] * 9)  # chance can't be told from agreement
    assert math.isnan(alike.alpha) and alike.same == 1
