"""Comparisons over seeds: closed forms, coverage by simulation with fixed seeds, and what is unknown stays unknown."""

import numpy as np
import pytest
from scipy import stats

from rfjax.analysis import change, fit_law, late_fall, noise_trend, pooled_spread

LEVELS = 8


def test_the_spread_is_pooled_with_its_degrees_of_freedom():
    models = [[0.4, 0.42, 0.41], [0.3], [0.2, 0.21]]
    logs = [np.log(m) for m in models]
    spread = pooled_spread(models)
    assert spread.degrees_of_freedom == 3
    assert spread.models == 2
    expected = (2 * np.var(logs[0], ddof=1) + np.var(logs[2], ddof=1)) / 3
    assert spread.relative == pytest.approx(np.sqrt(expected))
    assert spread.stderr(0.3, 4, 1e6) == pytest.approx(spread.relative * 0.15)
    assert pooled_spread([[0.4], [0.3]]) is None


def test_with_seeds_alone_the_interval_is_student_s():
    """No error over examples: the difference of two means with a pooled variance, as in every textbook."""
    a, b = np.array([0.30, 0.31, 0.305]), np.array([0.29, 0.285, 0.295])
    spread = pooled_spread([a, b])
    found = change(a, b, np.full(64, b.mean() - a.mean()), LEVELS, spread)
    half = stats.t.ppf(0.975, 4) * spread.relative * np.sqrt((a.mean() ** 2 + b.mean() ** 2) / 3)
    assert found.degrees_of_freedom == pytest.approx(4)
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half))


def test_one_seed_leaves_it_unknown_whether_the_loss_falls():
    difference = -0.01 + 1e-4 * np.random.default_rng(0).normal(size=64)
    found = change([0.3], [0.29], difference, LEVELS, None)
    assert found.example_error < 1e-4
    assert found.seed_error is None
    assert found.falls is None
    with_seeds = change([0.3], [0.29], difference, LEVELS, pooled_spread([[0.4, 0.4001, 0.3999]]))
    assert with_seeds.falls is True
    assert change([0.3], [0.31], -difference, LEVELS, pooled_spread([[0.4, 0.4001, 0.3999]])).falls is False


@pytest.mark.parametrize(("seeds", "models"), [(2, 4), (3, 2)])
def test_the_interval_of_a_change_holds_it_over_seeds_and_examples(seeds, models):
    """1,500 studies, with noise of seeds, of examples and of both together, which is counted twice: 95 % or more."""
    rng, hits, trials = np.random.default_rng(1), 0, 1500
    for _ in range(trials):
        runs = [
            0.3 - 0.002 * k + 0.3 * 0.01 * rng.normal(size=(seeds, 1)) + 0.05 * rng.normal(size=64) * 0.2
            + 0.01 * rng.normal(size=(seeds, 64))
            for k in range(models)
        ]  # fmt: skip
        losses = [run.mean(1) for run in runs]
        found = change(losses[0], losses[1], (runs[1] - runs[0].mean(0)).mean(0), LEVELS, pooled_spread(losses))
        hits += found.low <= -0.002 <= found.high
    assert stats.binom.ppf(2.5e-4, trials, 0.95) <= hits <= 0.985 * trials


def test_the_change_is_the_mean_over_levels_when_their_counts_differ():
    difference = np.where(np.arange(9) % 8 == 0, 1.0, 0.0)  # two triples of level 0, one of each other
    found = change([1.0], [1.125], difference, LEVELS, None)
    assert found.value == pytest.approx(1 / 8)
    assert found.example_error is None


def test_identical_runs_and_unknown_examples_give_no_interval():
    none = change([0.3, 0.3], [0.3, 0.3], np.zeros(64), LEVELS, pooled_spread([[0.3, 0.3], [0.3, 0.3]]))
    assert (none.value, none.example_error, none.seed_error, none.falls) == (0, 0, 0, None)
    apart = change([0.3, 0.31], [0.2, 0.21], None, LEVELS, pooled_spread([[0.3, 0.31], [0.2, 0.21]]))
    assert apart.value == pytest.approx(-0.1)
    assert apart.low is None


def test_noise_that_grows_with_size_is_seen_and_equal_noise_is_not():
    rng, sizes = np.random.default_rng(2), np.geomspace(1, 100, 5)
    alarms = [noise_trend(sizes, 0.3 * np.exp(0.01 * rng.normal(size=(5, 3)))).p < 0.05 for _ in range(800)]
    assert 0.03 < np.mean(alarms) < 0.07
    growing = [
        noise_trend(sizes, 0.3 * np.exp(0.003 * (sizes**0.5)[:, None] * rng.normal(size=(5, 4)))) for _ in range(200)
    ]
    assert np.mean([trend.slope for trend in growing]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([trend.p < 0.05 for trend in growing]) > 0.8
    assert noise_trend([1, 2], [[1, 2], [1, 2]]) is None
    assert noise_trend([1, 2, 3], [[1.0, 1.0], [1, 2], [1, 2]]) is None  # no spread has no logarithm


def test_a_curve_that_only_scatters_does_not_fall_clearly():
    rng = np.random.default_rng(3)
    clear = [late_fall(1 + 0.05 * rng.normal(size=36))[1] > 0 for _ in range(800)]
    assert 0.01 < np.mean(clear) < 0.04  # one side of 95 %
    line = np.linspace(2, 1, 40)
    fall, low = late_fall(line)
    assert fall == pytest.approx(1 - line[-10:].mean() / line[-20:-10].mean())
    assert low == pytest.approx(fall)
    assert late_fall(np.ones(15)) is None


def test_a_spread_that_goes_with_size_is_a_power_of_it():
    rng, sizes = np.random.default_rng(2), 1e4 * np.arange(1, 7) ** 3.0
    true = 0.02 * (sizes / sizes[0]) ** -0.4
    spread = pooled_spread([0.3 * np.exp(s * rng.normal(size=200)) for s in true], sizes)
    assert spread.degrees_of_freedom == 6 * 199 - 1
    assert [spread.at(x) for x in sizes] == pytest.approx(true, rel=0.1)
    assert spread.at(100 * sizes[-1]) == spread.at(sizes[-1])  # it is not taken to go on shrinking
    assert spread.stderr(0.3, 4, sizes[2]) == pytest.approx(spread.at(sizes[2]) * 0.15)
    growing = pooled_spread([0.3 * np.exp(s * rng.normal(size=200)) for s in true[::-1]], sizes)
    assert growing.at(8 * sizes[-1]) > 1.5 * growing.at(sizes[-1])
    few = pooled_spread([0.3 * np.exp(0.01 * rng.normal(size=2)) for _ in sizes[:4]], sizes[:4])
    assert few.trend is None
    assert few.at(1.0) == few.relative


@pytest.mark.parametrize("slope", [-0.4, 0.0, 0.3])
def test_intervals_hold_where_the_noise_goes_with_size(slope):
    """A new run 1.7 times beyond five rungs with 4, 4, 4, 3 and 2 seeds, as a study's ladder is fitted: 80 ladders."""
    rng, sizes, trials, hits = np.random.default_rng(3), 1e4 * np.arange(1, 7) ** 3.0, 80, 0
    law, noise = 0.25 + 30 * sizes**-0.5, 0.01 * (sizes / sizes[2]) ** slope
    for _ in range(trials):
        losses = [y * np.exp(s * rng.normal(size=n)) for y, s, n in zip(law, noise, (4, 4, 4, 3, 2), strict=False)]
        spread = pooled_spread(losses, sizes[:5])
        errors = [spread.stderr(row.mean(), len(row), x) for row, x in zip(losses, sizes, strict=False)]
        fit = fit_law(sizes[:5], [row.mean() for row in losses], y_stderr=errors, least_scatter=True)
        value = fit.predict(sizes[5]).value
        found = fit.predict(sizes[5], y_stderr=spread.stderr(value, 1, sizes[5]))
        hits += found.low <= law[5] * np.exp(noise[5] * rng.normal()) <= found.high
    assert hits >= stats.binom.ppf(2.5e-4, trials, 0.95)
