"""The compute multiplier at a target: known laws have known ones, and intervals of simulated ladders hold them."""

import numpy as np
import pytest
from scipy import stats

from rfjax.analysis import target_multiplier as multiplier
from rfjax.analysis.candidates import Candidate, Ground, Side, candidates, screen
from rfjax.analysis.design import simulate
from rfjax.analysis.truths import Truths

X, TARGET = 1e11 * np.arange(1.0, 8.0) ** 3.2, 2e14
MULTIPLIER, SIGMA = 1.4, 0.002


def law(amplitude: float, count: int = 1, offset: float = 0.3) -> Truths:
    full = lambda value: np.full(count, value)  # noqa: E731
    return Truths(full(offset), full(amplitude), full(0.35), full(SIGMA), 3e12)


def pair(count: int) -> tuple[Truths, Truths]:
    """Laws of which the second needs 1.4 times less at every size."""
    return law(0.15, count), law(0.15 * MULTIPLIER**-0.35, count)


def ground(count: int, shared: float = 0.0) -> Ground:
    size = lambda depth: 1e11 * depth**3.2  # noqa: E731
    sides = tuple(Side(one, size, lambda depth, examples: size(depth)) for one in pair(count))
    return Ground(sides, "power_offset", "log_squares", 0.0, 100, (1,), tuple(range(1, 8)), correlation=shared)


def ladder(seeds: tuple[int, ...]) -> Candidate:
    return Candidate(tuple(range(1, 8)), seeds, 100, tuple(X), 1.0)


def test_laws_that_are_known_have_a_known_multiplier():
    x = np.array([1e12, TARGET])
    np.testing.assert_allclose(multiplier.true_multiplier(*pair(2), x), MULTIPLIER, rtol=1e-9)
    lower = multiplier.true_multiplier(law(0.15), law(0.15, offset=0.2), x)[0]
    assert np.isfinite(lower[0]) and np.isinf(lower[1])  # there its loss is below the other's E


def test_ladders_without_noise_have_the_multiplier_itself():
    losses = tuple(one.loss(X)[..., None] for one in pair(2))
    found = multiplier.intervals("power_offset", (X, X), losses, np.ones(7), np.array([1e12, TARGET]))
    for end in found:  # to the grid of sizes: neighbours differ by a factor of 1.15, and lines between them by 1e-3
        np.testing.assert_allclose(end, MULTIPLIER, rtol=2e-3)


@pytest.mark.parametrize(("seeds", "shared"), [((3,) * 7, 0.6), ((6, 4, 3, 2, 1, 1, 1), 0.0), ((1,) * 7, 0.0)])
def test_intervals_hold_the_true_multiplier(seeds, shared):
    count = 300
    place = ground(count, shared)
    found = simulate(place, ladder(seeds), np.array([TARGET]), pair(count), np.random.default_rng(0))
    assert stats.binom.cdf(found.inside.sum(), count, 0.95) > 0.01
    assert found.inside.mean() < 0.99  # nor are they far too wide
    delta = screen(place, [ladder(seeds)], TARGET, 0.5)[0]
    assert 0.6 < found.width(0.5) / delta < 1.7  # of the delta method, which knows of no curvature


def test_seeds_that_both_share_narrow_the_interval():
    width = {
        shared: simulate(
            ground(200, shared), ladder((3,) * 7), np.array([TARGET]), pair(200), np.random.default_rng(0)
        ).width(0.5)
        for shared in (0.0, 0.8)
    }
    # both laws' errors are of nearly one size: their difference has 1 - 0.8 of the variance
    assert width[0.8] / width[0.0] == pytest.approx(np.sqrt(0.2), rel=0.25)


def test_a_ladder_of_two_designs_costs_both():
    place = ground(64)
    one = next(candidates(place, 1e15))
    assert one.cost == pytest.approx(2 * sum(n * x for n, x in zip(one.seeds, one.x, strict=True)))


def test_the_correlation_is_cautious_and_unknown_without_seeds():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2, 400, 7, 3))
    first, second = np.exp(0.01 * z[0]), np.exp(0.01 * (0.6 * z[0] + 0.8 * z[1]))
    found = multiplier.correlation(first, second, np.full(7, 3))
    error = (1 - 0.6**2) / np.sqrt(14)
    assert np.mean(found) == pytest.approx(0.6 - error, abs=0.05) and (found >= 0).all()
    assert (multiplier.correlation(first[..., :1], second[..., :1], np.ones(7, int)) == 0).all()
