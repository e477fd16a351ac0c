"""Residuals, each rung from the others, curvature, lack of fit: closed forms, and false alarms by simulation."""

import numpy as np
import pytest
from scipy import stats

from rfjax.analysis import TooFewPoints, curvature, fit_law, lack_of_fit, leave_one_out, residuals

X = np.geomspace(2e5, 1e7, 7)


def offset_law(x):
    return 0.4 + 0.1 * (np.asarray(x) / 1e6) ** -0.5


def power_law(x):
    return 0.4 * (np.asarray(x) / 1e6) ** -0.1


def noisy(law, noise=0.003, seed=0, x=X):
    return law(x) * np.exp(noise * np.random.default_rng(seed).normal(size=len(x)))


def test_residuals_are_those_that_the_scatter_is_made_of():
    for objective in ("log_squares", "squares"):
        fit = fit_law(X, noisy(offset_law), objective=objective)
        assert np.sqrt(np.sum(residuals(fit) ** 2) / 4) == pytest.approx(fit.scatter, rel=1e-6)


def test_curvature_of_a_power_law_is_the_textbook_test_of_a_quadratic_term():
    y, u = noisy(power_law), np.log(X)
    line, parabola = (np.polyval(np.polyfit(u, np.log(y), k), u) - np.log(y) for k in (1, 2))
    freedom = X.size - 3
    f = (np.sum(line**2) - np.sum(parabola**2)) / (np.sum(parabola**2) / freedom)
    found = curvature(fit_law(X, y, law="power"))
    assert found.statistic == pytest.approx(f, rel=1e-6)
    assert found.degrees_of_freedom == (1, freedom)
    assert found.p == pytest.approx(stats.f.sf(f, 1, freedom), rel=1e-6)


@pytest.mark.parametrize(("law", "truth"), [("power", power_law), ("power_offset", offset_law)])
def test_a_sound_law_is_accused_of_bending_once_in_twenty(law, truth):
    """200 ladders: a true rate of 5 % gives 2 to 22 alarms but for once in 1,000."""
    alarms = [curvature(fit_law(X, noisy(truth, seed=seed), law=law)).p < 0.05 for seed in range(200)]
    assert 2 <= sum(alarms) <= 22


def test_a_bend_is_seen():
    assert curvature(fit_law(X, noisy(offset_law), law="power")).p < 1e-3  # a law without E on losses that have one
    faster = lambda x: power_law(x) * np.exp(-0.02 * np.log(x / X[0]) ** 2)  # noqa: E731  falls ever faster: no E helps
    assert curvature(fit_law(X, noisy(faster))).p < 0.01


def test_curvature_is_unknown_without_a_point_to_spare():
    assert curvature(fit_law(X[:4], noisy(offset_law)[:4])) is None
    assert curvature(fit_law(X, power_law(X), law="power")) is None  # perfect: the rest is rounding


def test_each_rung_is_predicted_from_the_others():
    y = noisy(offset_law)
    found = leave_one_out(X, y, law="power_offset", labels=list("abcdefg"))
    assert [one.label for one in found] == list("abcdefg")
    assert [one.outside for one in found] == [True, *[False] * 5, True]
    rest = np.arange(X.size) != 2
    fit = fit_law(X[rest], y[rest])
    assert (found[2].predicted, found[2].low, found[2].high) == fit.predict(X[2])
    assert found[2].parameters == fit.parameters
    assert found[2].error == pytest.approx(fit.predict(X[2]).value / y[2] - 1)
    y[3] = np.nan  # a rung without a loss is neither predicted nor used
    assert len(leave_one_out(X, y, law="power_offset")) == 6
    with pytest.raises(TooFewPoints):
        leave_one_out(X[:4], y[:4], law="power_offset")


def test_scatter_beyond_the_seeds_is_lack_of_fit_and_scatter_within_them_is_not():
    """200 ladders of 2 seeds a rung: a true rate of 5 % gives 2 to 22 alarms but for once in 1,000."""
    rng, alarms = np.random.default_rng(4), 0
    for _ in range(200):
        logs = np.log(power_law(X))[:, None] + 0.01 * rng.normal(size=(X.size, 2))
        spread = np.sqrt(np.mean(np.var(logs, axis=1, ddof=1)))
        means = np.exp(logs.mean(1))
        fit = fit_law(X, means, law="power", y_stderr=spread * means / np.sqrt(2))
        alarms += lack_of_fit(fit, X.size).p < 0.05
    assert 2 <= alarms <= 22
    wrong = fit_law(X, noisy(offset_law, 0.0), law="power", y_stderr=1e-4 * offset_law(X))
    assert lack_of_fit(wrong, 7).p < 1e-6
    assert lack_of_fit(fit_law(X, noisy(offset_law)), 7) is None


def test_the_scatter_is_never_below_that_of_the_seeds():
    y = noisy(offset_law, noise=1e-4)
    free, bound = (fit_law(X, y, y_stderr=0.005 * y, least_scatter=least) for least in (False, True))
    assert bound.parameters == free.parameters
    assert bound.scatter == pytest.approx(0.005)
    assert free.scatter < 2e-4
    times = 0.005 / free.scatter
    width = lambda fit: fit.intervals["alpha"][1] - fit.intervals["alpha"][0]  # noqa: E731
    assert width(bound) == pytest.approx(times * width(free), rel=1e-6)
    wide = fit_law(X, noisy(offset_law, noise=0.05), y_stderr=0.005 * y, least_scatter=True)
    assert wide.scatter > 0.01  # residuals that say more are believed


def test_noise_that_grows_with_size_untold_makes_intervals_too_narrow():
    """What reports say of their intervals: fivefold growth along six rungs leaves 95 % at about 75 %."""
    rng, x, hits = np.random.default_rng(5), np.geomspace(2e5, 1e7, 6), 0
    noise = lambda size: 0.001 * (size / 2e5) ** (np.log(5) / np.log(50))  # noqa: E731
    for _ in range(150):
        fit = fit_law(x, offset_law(x) * np.exp(noise(x) * rng.normal(size=6)))
        _, low, high = fit.predict(4e7)
        hits += low <= offset_law(4e7) * np.exp(noise(4e7) * rng.normal()) <= high
    assert 0.6 < hits / 150 < 0.88


def test_a_bend_inside_the_ladder_hides_e_and_spares_predictions():
    """What reports say of their intervals: above the bend the loss goes on to 0, which E's interval never holds."""
    bent = lambda x: np.where(x < 1.4e6, offset_law(x), offset_law(1.4e6) * (np.asarray(x) / 1.4e6) ** -0.02)  # noqa: E731
    rng, held, predicted = np.random.default_rng(6), 0, 0
    for _ in range(40):
        fit = fit_law(X, bent(X) * np.exp(0.003 * rng.normal(size=X.size)))
        _, low, high = fit.predict(2e7)
        held += fit.intervals["E"][0] <= 0
        predicted += low <= bent(2e7) * np.exp(0.003 * rng.normal()) <= high
    assert held == 0
    assert predicted >= 36
