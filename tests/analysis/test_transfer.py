"""The best learning rate against size: on curves whose lowest point is known."""

import math

import numpy as np
import pytest
from scipy import stats

from rfjax.analysis.transfer import best_rate, compared, loss_at, over_seeds, transfer

RATES = [2.0**k for k in range(-9, -1)]


def curves(slope, seeds=(0, 1, 2), noise=0.0, sizes=(1, 2, 4, 8)):
    """Parabolas in log2 of the rate whose lowest point is 2^(-4 + slope log2(size)) and a shift of each seed."""
    shifts = noise * np.random.default_rng(0).standard_normal((len(sizes), len(seeds)))
    low = lambda i, j: -4.3 + slope * math.log2(sizes[i]) + shifts[i, j]  # noqa: E731
    return {
        size: {
            rate: {seed: 0.3 + 0.01 * (math.log2(rate) - low(i, j)) ** 2 for j, seed in enumerate(seeds)}
            for rate in RATES
        }
        for i, size in enumerate(sizes)
    }


@pytest.mark.parametrize("slope", [-0.6, 0.0, 0.35])
def test_parabolas_give_their_own_slope(slope):
    found = transfer(curves(slope))
    np.testing.assert_allclose(found.slope.value, slope, atol=1e-9)
    np.testing.assert_allclose(found.total.value, 3 * slope, atol=1e-9)
    np.testing.assert_allclose([one.rate for one in found.best[1].values()], 2**-4.3)
    assert not found.edges and not found.diverged


def test_intervals_are_over_seeds():
    found = transfer(curves(-0.5, noise=0.2))
    slopes = list(found.slopes.values())
    half = stats.t.ppf(0.975, 2) * np.std(slopes, ddof=1) / math.sqrt(3)
    np.testing.assert_allclose([found.slope.low, found.slope.high], [np.mean(slopes) - half, np.mean(slopes) + half])
    flat = transfer(curves(0.0, noise=0.2))
    assert compared(flat, found).value == pytest.approx(
        np.mean([abs(found.slopes[s]) - abs(flat.slopes[s]) for s in (0, 1, 2)])
    )
    assert over_seeds([1.5]).low is None and over_seeds([]) is None


def test_the_penalty_is_of_the_largest_at_the_smallest_ones_best_rate():
    losses = curves(-1.0)
    found = transfer(losses)
    sweep = {rate: by_seed[0] for rate, by_seed in losses[8].items()}
    np.testing.assert_allclose(loss_at(sweep, 2**-4.3), 0.3 + 0.01 * 3**2)
    np.testing.assert_allclose(found.penalty.value, 0.39 / 0.3 - 1)
    np.testing.assert_allclose(transfer(curves(0.0)).penalty.value, 0, atol=1e-9)


def test_edges_gaps_and_diverged_runs():
    assert best_rate({0.1: 1.0, 0.2: 2.0, 0.4: 3.0}).at_edge
    assert best_rate({0.1: 1.0, 0.2: 2.0, 0.4: math.nan}) is None
    edge = best_rate({0.1: 3.0, 0.2: 2.0, 0.3: 1.0, 0.4: math.nan})
    assert edge.at_edge and edge.rate == 0.3  # beyond it the loss is not finite
    assert math.isnan(loss_at({0.1: 1.0, 0.2: 2.0, 0.25: 1.0}, 0.3))
    assert math.isnan(loss_at({0.1: 1.0, 0.2: 2.0, 0.4: math.nan}, 0.3))
    losses = curves(0.0)
    losses[8][RATES[-1]][0] = math.nan
    del losses[4][RATES[0]][1]
    found = transfer(losses, wanted=4 * 3 * len(RATES))
    assert (found.diverged, found.missing) == (1, 1)
    assert math.isnan(found.means[8][RATES[-1]])
    assert found.slope.seeds == 3


def test_a_seed_without_all_sizes_is_left_out_of_the_slope():
    losses = curves(-0.5)
    for by_seed in losses[8].values():
        del by_seed[2]
    assert transfer(losses).slope.seeds == 2
    assert transfer({2: curves(0.0)[2]}).slope is None
