"""Successive rungs and the choice among laws: by hand, by closed forms, and by simulated coverage."""

import numpy as np
import pytest
from scipy import stats

from rfjax.analysis import choose_law, fit_law, score, successive
from rfjax.analysis.choice import _quantile, predictive_score, predictive_weights
from rfjax.analysis.successive import describe

X = np.geomspace(2e5, 1e7, 8)


def offset_law(x):
    return 0.4 + 0.1 * (np.asarray(x) / 1e6) ** -0.5


def power_law(x):
    return 0.4 * (np.asarray(x) / 1e6) ** -0.1


def noisy(law, noise=0.002, seed=0, x=X):
    return law(x) * np.exp(noise * np.random.default_rng(seed).normal(size=len(x)))


def test_each_rung_is_predicted_from_the_smaller_ones_alone():
    y, stderr = noisy(offset_law), 0.002 * np.linspace(1, 2, 8)
    found = successive(X, y, law="power_offset", y_stderr=stderr, labels=list("abcdefgh"))
    assert [(one.label, one.rungs) for one in found] == list(zip("efgh", (4, 5, 6, 7), strict=True))
    fit = fit_law(X[:5], y[:5], y_stderr=stderr[:5])
    assert (found[1].predicted, found[1].low, found[1].high) == fit.predict(X[5], y_stderr=stderr[5])
    assert found[1].error == pytest.approx(fit.predict(X[5]).value / y[5] - 1)
    assert found[1].times == pytest.approx(X[5] / X[4])
    assert (found[1].baseline, found[1].baseline_error) == (y[4], pytest.approx(y[4] / y[5] - 1))
    changed = y.copy()
    changed[6:] *= 2  # what comes later changes nothing before
    assert successive(X, changed, law="power_offset", y_stderr=stderr, labels=list("abcdefgh"))[:2] == found[:2]
    assert len(successive(X, y, law="power")) == 5
    assert successive(X[:3], y[:3], law="power_offset") == ()


def test_a_rung_without_a_loss_is_passed_over_and_order_does_not_matter():
    y = noisy(offset_law)
    lost = np.where(np.arange(8) == 3, np.nan, y)
    kept = np.arange(8) != 3
    assert successive(X, lost, law="power") == successive(X[kept], y[kept], law="power")
    assert successive(X[::-1], y[::-1], law="power") == successive(X, y, law="power")


def test_the_score_counts_hits_and_squares_errors():
    rows = successive(X, noisy(offset_law), law="power")
    found = score(rows)
    assert found.error == pytest.approx(np.sqrt(np.mean([one.error**2 for one in rows])))
    assert found.inside == sum(one.inside for one in rows)
    assert describe(found).startswith(f"power, from the smaller rungs alone, held {found.inside} of 5 rungs")
    assert score([]) is None


def test_weights_are_of_predictions_by_the_textbook():
    found = predictive_weights({"a": -10.0, "b": -8.0})
    assert found["b"] / found["a"] == pytest.approx(np.exp(2))
    assert sum(found.values()) == pytest.approx(1)
    y, u, total = noisy(power_law), np.log(X), 0.0
    for i in range(8):  # a straight line through the other logarithms predicts with Student's t
        rest = np.arange(8) != i
        line = stats.linregress(u[rest], np.log(y[rest]))
        s = np.sqrt(np.sum((np.log(y[rest]) - line.intercept - line.slope * u[rest]) ** 2) / 5)
        middle = u[rest].mean()
        s *= np.sqrt(1 + 1 / 7 + (u[i] - middle) ** 2 / np.sum((u[rest] - middle) ** 2))
        total += stats.t.logpdf((np.log(y[i]) - line.intercept - line.slope * u[i]) / s, 5) - np.log(s)
    assert predictive_score(X, y, law="power") == pytest.approx(total, rel=1e-5)
    assert predictive_score(X[:4], y[:4], law="power_offset") is None


def test_the_quantile_of_a_mixture_solves_its_distribution():
    weights, centre = np.array([[0.3], [0.7]]), np.array([[0.0], [2.0]])
    scale, freedom = np.array([[1.0], [0.5]]), np.array([[3], [9]])
    for p in (0.025, 0.5, 0.975):
        at = _quantile(p, weights, centre, scale, freedom)
        assert float(np.sum(weights * stats.t.cdf((at - centre) / scale, freedom))) == pytest.approx(p, abs=1e-9)


def test_clear_points_tell_the_law_that_made_them_and_the_mean_follows_it():
    found = choose_law(X, noisy(offset_law, 1e-4))
    assert (found.best, found.told) == ("power_offset", True)
    assert found.reason.startswith("The rungs tell the laws apart, for power_offset")
    assert found.average(4e7) == pytest.approx(found.fits["power_offset"].predict(4e7), rel=1e-3)


def test_losses_without_an_offset_never_show_that_there_is_none():
    found = choose_law(X, noisy(power_law))
    assert (found.best, found.told) == ("power_offset", False)
    assert "do not exclude one of up to" in found.reason or found.weights["power"] < 0.5


def test_where_the_points_cannot_tell_the_safe_law_stands_and_the_mean_is_wider():
    found = choose_law(X[:6], noisy(offset_law, 0.03, seed=1)[:6])
    assert (found.best, found.told) == ("power_offset", False)
    assert "can't tell the laws apart" in found.reason
    assert set(found.weights) == {"power", "power_offset", "broken_power"}
    value, low, high = found.average(np.array([2e7, 4e7]))
    each = [found.fits[law].predict(np.array([2e7, 4e7])) for law in found.weights]
    assert (low <= value).all() and (value <= high).all()
    assert (low >= np.min([one.low for one in each], 0) - 1e-12).all()
    assert (high <= np.max([one.high for one in each], 0) + 1e-12).all()


def test_too_few_rungs_have_no_mean_and_say_what_they_need():
    found = choose_law(X[:4], noisy(offset_law)[:4])
    assert found.average(4e7) is None
    assert found.best == "power_offset"
    assert "So few rungs can't compare the laws" in found.reason
    assert "the broken_power law has 4 parameters and needs 5 points or more" in found.reason
    none = choose_law(X[:2], noisy(offset_law)[:2])
    assert (none.fits, none.best, none.average(4e7)) == ({}, "", None)
