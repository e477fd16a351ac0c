"""Fronts against brute force, the paper's Table 2 ranked by hand, averages, and what is left out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rfjax.analysis import agreement, average_ranks, fronts, kendall

GRID = st.integers(-3, 3).map(float)  # few values: many ties and equal points
POINTS = st.lists(st.tuples(GRID, GRID), min_size=1, max_size=25)

# SD3, Table 2: CLIP score and FID at 25 steps, and the fronts found by hand
TABLE_2 = {
    "rf": ((0.247, 49.70), (0.217, 94.90), 3, 4),
    "edm(-1.20, 1.20)": ((0.236, 63.12), (0.200, 116.60), 5, 6),
    "eps/linear": ((0.245, 48.42), (0.222, 90.34), 3, 2),
    "v/cos": ((0.244, 50.74), (0.209, 97.87), 4, 5),
    "v/linear": ((0.246, 51.68), (0.217, 100.76), 4, 5),
    "rf/lognorm(0.50, 0.60)": ((0.256, 80.41), (0.233, 120.84), 1, 1),
    "rf/mode(1.75)": ((0.253, 44.39), (0.218, 94.06), 1, 3),
    "rf/lognorm(1.00, 0.60)": ((0.254, 114.26), (0.234, 147.69), 2, 1),
    "rf/lognorm(-0.50, 1.00)": ((0.248, 45.64), (0.219, 89.70), 2, 1),
    "rf/lognorm(0.00, 1.00)": ((0.250, 45.78), (0.224, 89.91), 2, 1),
}
IMAGENET, CC12M = ("imagenet", 25), ("cc12m", 25)


def table_2():
    return {IMAGENET: {k: v[0] for k, v in TABLE_2.items()}, CC12M: {k: v[1] for k, v in TABLE_2.items()}}


def brute_force(points):
    """The definition, word by word."""

    def dominates(a, b):
        return a[0] >= b[0] and a[1] <= b[1] and (a[0] > b[0] or a[1] < b[1])

    ranks, rank = {}, 0
    while len(ranks) < len(points):
        rank += 1
        left = [i for i in range(len(points)) if i not in ranks]
        ranks |= {i: rank for i in left if not any(dominates(points[j], points[i]) for j in left)}
    return [ranks[i] for i in range(len(points))]


@given(POINTS)
def test_fronts_are_those_of_the_definition(points):
    assert fronts(*np.array(points).T).tolist() == brute_force(points)


@given(POINTS, st.randoms(use_true_random=False))
def test_order_and_units_do_not_matter(points, random):
    scores, distances = np.array(points).T
    found = fronts(scores, distances)
    order = list(range(len(points)))
    random.shuffle(order)
    np.testing.assert_array_equal(fronts(scores[order], distances[order]), found[order])
    np.testing.assert_array_equal(fronts(np.exp(scores), 5 + distances**3), found)
    np.testing.assert_array_equal(fronts(-distances, -scores), found)  # the two metrics change places


def test_small_cases():
    assert fronts([], []).tolist() == []
    assert fronts([1, 2, 3], [1, 2, 3]).tolist() == [1, 1, 1]  # every trade-off is on the front
    assert fronts([3, 2, 1], [1, 2, 3]).tolist() == [1, 2, 3]
    assert fronts([1, 1, 1], [2, 2, 3]).tolist() == [1, 1, 2]  # equal points share a front
    assert fronts([1, -np.inf, 0], [1, np.inf, 2]).tolist() == [1, 3, 2]


def test_table_2():
    ranking = average_ranks({0: table_2()})
    assert ranking.by_setting[IMAGENET] == {name: row[2] for name, row in TABLE_2.items()}
    assert ranking.by_setting[CC12M] == {name: row[3] for name, row in TABLE_2.items()}
    assert ranking.average == {name: (row[2] + row[3]) / 2 for name, row in TABLE_2.items()}
    assert list(ranking.average.values()) == sorted(ranking.average.values())
    assert next(iter(ranking.average)) == "rf/lognorm(0.50, 0.60)"
    only = ranking.restricted(lambda setting: setting[0] == "cc12m")
    assert only.average == ranking.by_setting[CC12M]
    assert set(only.spread.values()) == set(only.interval.values()) == {None}


def random_contest(rng, seeds):
    return {
        seed: {(steps, ema): dict(zip("abcdefgh", rng.normal(size=(8, 2)), strict=True))
               for steps in (5, 10, 25, 50) for ema in (False, True)}
        for seed in seeds
    }  # fmt: skip


def test_one_seed_has_a_spread_over_settings_and_no_interval():
    measured = random_contest(np.random.default_rng(0), (7,))
    ranking = average_ranks(measured)
    assert set(ranking.interval.values()) == {None}
    for name in "abcdefgh":
        ranks = [row[name] for row in ranking.by_setting.values()]
        assert ranking.average[name] == np.mean(ranks)
        assert ranking.spread[name] == pytest.approx(np.std(ranks, ddof=1))
    few = ranking.restricted(lambda setting: setting[0] == 5)
    assert set(few.by_setting) == {(5, False), (5, True)}
    assert average_ranks({7: {setting: measured[7][setting] for setting in few.by_setting}}) == few
    assert average_ranks({7: dict(reversed(measured[7].items()))}) == ranking


def test_intervals_are_those_of_a_mean_over_seeds():
    ranking = average_ranks(random_contest(np.random.default_rng(1), (0, 1, 2)))
    for name in "abcdefgh":
        means = [np.mean([ranks[name] for ranks in rows.values()]) for rows in ranking.by_seed.values()]
        expected = stats.ttest_1samp(means, 0).confidence_interval()
        assert ranking.average[name] == pytest.approx(np.mean(means))
        assert ranking.interval[name] == pytest.approx((max(expected.low, 1), expected.high))


def test_the_interval_covers_what_other_seeds_would_give():
    """Runs differ from seed to seed by as much as variants do; settings of a run are alike, and say nothing of it."""
    rng = np.random.default_rng(2)
    settings = [(k,) for k in range(24)]
    luck = rng.normal(size=(40, 4, 5))  # studies of 4 seeds and 5 variants, all equally good: average rank 3

    def contest(study):
        point = lambda value: (value, -value)  # noqa: E731
        return {seed: {s: dict(zip("abcde", map(point, row), strict=True)) for s in settings}
                for seed, row in enumerate(study)}  # fmt: skip

    found = [average_ranks(contest(study)).interval[name] for study in luck for name in "abcde"]
    assert np.mean([low <= 3 <= high for low, high in found]) > 0.9
    single = average_ranks({0: contest(luck[0])[0]})
    assert set(single.spread.values()) == {0.0}  # which as an interval would have been certainty


def test_only_names_measured_everywhere_are_ranked():
    measured = table_2()
    del measured[CC12M]["rf/mode(1.75)"]
    ranking = average_ranks({0: measured})
    assert ranking.missing == {"rf/mode(1.75)": ((0, CC12M),)}
    both = average_ranks({0: table_2(), 1: measured})
    assert both.missing == {"rf/mode(1.75)": ((1, CC12M),)}
    assert both.by_seed[0] == ranking.by_seed[0]  # not ranked with any seed
    assert "rf/mode(1.75)" not in ranking.by_setting[IMAGENET]
    assert ranking.by_setting[IMAGENET]["rf/lognorm(0.00, 1.00)"] == 1  # only mode(1.75) had dominated it
    assert ranking.restricted(lambda setting: setting == IMAGENET).missing == ranking.missing


def test_refusals():
    with pytest.raises(ValueError, match=r"columns\[0\]\[1\] is NaN"):
        fronts([1, np.nan], [1, 2])
    with pytest.raises(ValueError, match=r"columns\[1\]\[0\] is NaN"):
        fronts([1, 2], [np.nan, 2])
    with pytest.raises(ValueError, match="one shape"):
        fronts([1, 2], [1])
    measured = table_2()
    measured[CC12M]["rf"] = (0.2, np.nan)
    with pytest.raises(ValueError, match=r"'rf' in the setting \('cc12m', 25\)"):
        average_ranks({0: measured})
    with pytest.raises(ValueError, match="no setting was measured"):
        average_ranks({})
    with pytest.raises(ValueError, match="no name was measured in all 2 settings"):
        average_ranks({0: {(1,): {"a": (1, 1)}, (2,): {"b": (1, 1)}}})
    with pytest.raises(ValueError, match="none of the 2 settings is kept"):
        average_ranks({0: table_2()}).restricted(lambda setting: False)


def test_ties_share_their_place():
    assert agreement({"a": 1.0, "b": 1.0, "c": 2.0, "z": 0.0}, {"a": 3.0, "b": 1.0, "c": 2.0}).places == {
        "a": (1.5, 3.0),
        "b": (1.5, 1.0),
        "c": (3.0, 2.0),
    }


def test_chance_is_kendalls_own_p_value():
    """Of all orders the share with at least our number of pairs in order: half of the two-sided exact p-value."""
    ours = [2, 1, 3, 4, 5]
    good, whole = agreement(dict(enumerate(ours)), dict(enumerate(range(1, 6)))).orders_as_good
    assert 2 * good / whole == pytest.approx(kendall(ours, range(1, 6)).p_value)
