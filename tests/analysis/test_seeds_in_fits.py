"""Seeds in a fit: their weights, and intervals that hold with seeds on the small rungs only, by simulation."""

import numpy as np
import pytest
from scipy import stats

from rfjax.analysis import fit_law, lack_of_fit, pooled_spread
from rfjax.analysis.ladder import Ladder, Rung

SIGMA, NEW = 0.003, 4e7


def power(x):
    return 0.4 * (np.asarray(x) / 1e6) ** -0.1


def ladder(seeds, rng, misfit=0.0, law=power):
    """Rungs of so many seeds each, with noise between seeds and, with misfit, between rungs."""
    x = np.geomspace(2e5, 1e7, len(seeds))
    rows = [
        tuple(law(n) * np.exp(misfit * rng.normal() + SIGMA * rng.normal(size=k)))
        for n, k in zip(x.tolist(), seeds, strict=True)
    ]
    spread = pooled_spread(rows)
    errors = [spread.stderr(np.mean(row), len(row), n) for n, row in zip(x.tolist(), rows, strict=True)]
    rungs = [Rung(str(n), n, row, None, (), error) for n, row, error in zip(x.tolist(), rows, errors, strict=True)]
    return Ladder(tuple(rungs), (), spread, ())


def test_a_rung_of_three_seeds_weighs_as_its_three_runs_do():
    """A power law in log squares is a straight line: the fit to weighted means is that to the runs themselves.

    Up to the logarithm of a mean, which lies above the mean of logarithms by half the noise squared.
    """
    found = ladder((3, 3, 2, 1, 1), np.random.default_rng(0))
    fit = fit_law(law="power", **found.fitted)
    runs = [(np.log(rung.x), np.log(y)) for rung in found.rungs for y in rung.losses]
    line = stats.linregress(*np.array(runs).T)
    assert fit.parameters["alpha"] == pytest.approx(-line.slope, abs=5e-5)
    assert [point.stderr**-2 * rung.loss**2 for point, rung in zip(fit.points, found.rungs, strict=True)] == (
        pytest.approx([rung.seeds / found.spread.relative**2 for rung in found.rungs])
    )


def test_where_both_agree_scatter_and_degrees_of_freedom_are_those_of_the_runs():
    found = ladder((3, 3, 2, 1, 1), np.random.default_rng(1))
    fit = fit_law(law="power", **found.fitted)
    u, v = np.array([(np.log(rung.x), np.log(y)) for rung in found.rungs for y in rung.losses]).T
    line = stats.linregress(u, v)
    scatter = np.sqrt(np.sum((v - line.intercept - line.slope * u) ** 2) / (v.size - 2))
    assert fit.degrees_of_freedom == v.size - 2 == 8
    one = fit.scatter * found.spread.relative / fit.typical_stderr  # at a point with the error of one run
    assert one == pytest.approx(scatter, rel=1e-3)
    half = stats.t.ppf(0.975, v.size - 2) * line.stderr
    assert np.ptp(fit.intervals["alpha"]) / 2 == pytest.approx(half, rel=1e-3)
    alone = fit_law(law="power", **found.fitted | {"stderr_freedom": None})
    assert alone.degrees_of_freedom == 3
    assert alone.parameters == fit.parameters
    assert lack_of_fit(fit, 5).statistic == pytest.approx(lack_of_fit(alone, 5).statistic)


def test_where_rungs_scatter_by_more_than_seeds_their_own_scatter_and_freedom_count():
    found = ladder((3, 3, 2, 1, 1), np.random.default_rng(2), misfit=0.05)
    fit = fit_law(law="power", **found.fitted)
    assert fit.degrees_of_freedom == 3
    assert fit.scatter > 5 * fit.typical_stderr
    assert lack_of_fit(fit, found.spread.degrees_of_freedom).p < 0.01


@pytest.mark.parametrize(("misfit", "least"), [(0.0, 0.95), (SIGMA, 0.94)])
def test_intervals_hold_with_seeds_on_the_small_rungs_only(misfit, least):
    """160 ladders of 3, 3, 2, 1, 1 seeds; no fewer hits than a true coverage of `least` gives but once in 1,000."""
    rng, trials, hits = np.random.default_rng(3), 160, 0
    for _ in range(trials):
        found = ladder((3, 3, 2, 1, 1), rng, misfit)
        measured = power(NEW) * np.exp(misfit * rng.normal() + SIGMA * rng.normal())
        one = found.spread.relative * power(NEW)
        _, low, high = fit_law(law="power", **found.fitted).predict(NEW, y_stderr=one)
        hits += low <= measured <= high
    assert hits >= stats.binom.ppf(1e-3, trials, least)


def test_seeds_narrow_the_intervals_of_a_ladder_with_one_degree_of_freedom():
    """Student's quantile is 12.7 with one degree of freedom and 2.3 with nine."""
    offset = lambda x: 0.4 + 0.1 * (np.asarray(x) / 1e6) ** -0.5  # noqa: E731
    found = ladder((3, 3, 3, 3), np.random.default_rng(5), law=offset)
    ours, alone = (np.ptp(fit_law(**found.fitted | more).predict(NEW)) for more in ({}, {"stderr_freedom": None}))
    assert ours < alone / 4
