"""Correlations against scipy, their invariances, and the coverage of their intervals, of groups too."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rfjax.analysis import TooFewPoints, correlation, kendall, pearson, spearman

KINDS = {"pearson": pearson, "spearman": spearman, "kendall": kendall}
TRIALS = 120
ALLOWED = 0.95 - 3.5 * np.sqrt(0.95 * 0.05 / TRIALS)  # of TRIALS intervals that hold, by chance one table in a thousand


def pair(rho, shape, rng):
    x = rng.normal(size=shape)
    return x, rho * x + np.sqrt(1 - rho**2) * rng.normal(size=shape)


def truth(kind, rho):
    """The population's correlation, of a bivariate normal with rho."""
    return {
        "pearson": rho,
        "spearman": 6 / np.pi * np.arcsin(rho / 2),
        "kendall": 2 / np.pi * np.arcsin(rho),
    }[kind]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [9, 30])
def test_values_are_scipys(n, ties):
    x, y = pair(0.7, n, np.random.default_rng(n))
    if ties:
        x, y = np.round(x), np.round(y)
    for kind, expected in {"pearson": stats.pearsonr, "spearman": stats.spearmanr, "kendall": stats.kendalltau}.items():
        found = KINDS[kind](x, y)
        assert (found.kind, found.n, found.groups, found.note) == (kind, n, None, "")
        assert found.value == pytest.approx(expected(x, y).statistic, abs=1e-12)
        assert found.p_value == pytest.approx(expected(x, y).pvalue, rel=1e-9)
        assert found.low < found.value < found.high
    assert (pearson(x, y).low, pearson(x, y).high) == pytest.approx(stats.pearsonr(x, y).confidence_interval())


def test_spearmans_inner_end_is_bonett_and_wrights():
    x, y = pair(0.8, 30, np.random.default_rng(0))
    found = spearman(x, y)
    half = 1.959964 * np.sqrt((1 + found.value**2 / 2) / 27)
    low, high = np.tanh(np.arctanh(found.value) + np.array([-half, half]))
    assert found.low == pytest.approx(low)
    assert high < found.high < high + 0.02  # the bias is of order 1 / n


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.95])
def test_the_moments_behind_the_intervals(rho):
    """E[r_s] (Moran 1948) and the variance of tau (Esscher 1924) of small normal samples, at 4 standard errors."""
    n, draws = 8, 4000
    x, y = pair(rho, (draws, n), np.random.default_rng(1))
    i = np.argmin(np.abs(np.sin(correlation.ANGLE) - rho))
    ranks = [stats.rankdata(values, axis=1) - (n + 1) / 2 for values in (x, y)]
    r = np.sum(ranks[0] * ranks[1], axis=1) * 12 / (n * (n**2 - 1))
    mean = (3 * correlation.TAU[i] + (n - 2) * correlation.RHO[i]) / (n + 1)
    assert abs(r.mean() - mean) < 4 * stats.sem(r)
    upper = np.triu_indices(n, 1)
    signs = [np.sign(values[:, upper[0]] - values[:, upper[1]]) for values in (x, y)]
    t = np.mean(signs[0] * signs[1], axis=1)
    assert abs(t.mean() - correlation.TAU[i]) < 4 * stats.sem(t)
    assert correlation._tau_variance(n)[i] == pytest.approx(t.var(), rel=0.15)


@pytest.mark.parametrize("n", [4, 5, 6])
def test_spearmans_p_value_is_the_share_of_all_orders(n):
    x, y = pair(0.6, n, np.random.default_rng(n))
    value = spearman(x, y).value
    orders = [stats.spearmanr(np.arange(n), order).statistic for order in itertools.permutations(range(n))]
    tail = min(np.mean(np.array(orders) >= value - 1e-9), np.mean(np.array(orders) <= value + 1e-9))
    assert spearman(x, y).p_value == pytest.approx(min(1, 2 * tail))


@given(st.integers(0, 2**32 - 1), st.integers(5, 14), st.booleans())
def test_invariances(seed, n, grouped):
    rng = np.random.default_rng(seed)
    x, y = pair(0.5, n, rng)
    groups = [f"run {i % 5}" for i in range(n)] if grouped and n >= 10 else None
    order = rng.permutation(n)
    for function in KINDS.values():
        found = function(x, y, groups=groups)
        moved = function(y[order], x[order], groups=groups and [groups[i] for i in order])
        mirrored = function(-3 * x + 1, y, groups=groups)
        assert -1 <= found.low <= found.value <= found.high <= 1
        assert (moved.value, moved.low, moved.high) == pytest.approx((found.value, found.low, found.high), abs=1e-9)
        assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low), abs=1e-9)
    for function in (spearman, kendall):  # of the ranks alone
        assert function(np.exp(x), y**3, groups=groups) == function(x, y, groups=groups)


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.97])
@pytest.mark.parametrize("n", [8, 24])
def test_intervals_cover(n, rho):
    rng = np.random.default_rng(int(1000 * rho) + n)
    pairs = [pair(rho, n, rng) for _ in range(TRIALS)]
    for kind, function in KINDS.items():
        found = [interval(function, x, y) for x, y in pairs]
        assert np.mean([low <= truth(kind, rho) <= high for low, high in found]) > ALLOWED, kind


def interval(function, x, y, groups=None):
    found = function(x, y, groups=groups)
    return found.low, found.high


@pytest.mark.parametrize(("kind", "runs"), [("pearson", 5), ("pearson", 12), ("spearman", 5), ("kendall", 6)])
def test_intervals_of_grouped_points_cover(kind, runs):
    """Four fifths of the variance belong to the run: 4 checkpoints of a run are no 4 points."""
    rng, rho, checkpoints = np.random.default_rng(runs), 0.8, 4
    groups = np.repeat(np.arange(runs), checkpoints).tolist()
    held, naive = [], []
    for _ in range(TRIALS):
        (a, b), (u, v) = pair(rho, (runs, 1), rng), pair(rho, (runs, checkpoints), rng)
        x, y = (2 * a + u).ravel(), (2 * b + v).ravel()
        for hits, labels in ((held, groups), (naive, None)):
            low, high = interval(KINDS[kind], x, y, labels)
            hits.append(low <= truth(kind, rho) <= high)
    assert np.mean(held) > ALLOWED
    assert np.mean(naive) < np.mean(held) - 0.05


def test_groups():
    x, y = pair(0.5, 12, np.random.default_rng(0))
    alone = pearson(x, y)
    assert pearson(x, y, groups=range(12)) == alone  # a run for each point
    few = pearson(x, y, groups=["a", "b", "c", "d"] * 3)
    assert (few.low, few.high, few.p_value, few.groups) == (alone.low, alone.high, alone.p_value, None)
    assert "takes the 12 points for independent, though they come from 4 groups" in few.note
    assert "1 group:" in pearson(x, y, groups=["a"] * 12).note
    runs = np.repeat(np.arange(6), 2)  # an array of labels is as good as a list
    found = pearson(x, y, groups=runs)
    assert found.groups == 6
    assert found.low <= alone.low < alone.high <= found.high
    assert found.p_value >= alone.p_value
    assert (found.value, found.note) == (alone.value, "")


@pytest.mark.parametrize("groups", [None, np.repeat(np.arange(5), 2).tolist()])
def test_a_perfect_rank_correlation_is_no_certainty(groups):
    x = np.arange(10.0)
    for function in (spearman, kendall):
        for sign in (1, -1):
            found = function(x, sign * x**3, groups=groups)
            assert found.value == pytest.approx(sign)
            inner = found.low if sign > 0 else -found.high
            assert 0.5 < inner < 0.99
    assert spearman(x[:4], x[:4]).p_value == pytest.approx(2 / 24)


def test_refusals():
    with pytest.raises(TooFewPoints, match="needs 4 points or more, not 3"):
        spearman([1, 2, 3], [1, 3, 2])
    with pytest.raises(TooFewPoints, match="y has the same value at all 5 points"):
        pearson(range(5), [1] * 5)
    with pytest.raises(TooFewPoints, match="without group 4"):
        kendall(range(10), [0] * 8 + [1, 2], groups=[0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    with pytest.raises(ValueError, match=r"y\[1\] is nan"):
        pearson(range(5), [1, np.nan, 2, 3, 4])
    with pytest.raises(ValueError, match="one shape"):
        pearson(range(5), range(4))
    with pytest.raises(ValueError, match="3 groups"):
        pearson(range(5), range(5), groups="abc")
