"""IsoFLOP parabolas and the envelope on a surface with alpha = beta, where approach 2 is unbiased."""

import numpy as np
import pytest

from rfjax.analysis import envelope, isoflop

K = 6.0
RUNGS = np.geomspace(1e5, 1e8, 13)


def loss(n, d):
    return 0.3 + 25 * n**-0.4 + 25 * d**-0.4  # the optimum is at n = d = sqrt(C / K)


def curves(rungs=RUNGS):
    compute = np.tile(np.geomspace(1e10, 1e18, 200), len(rungs))
    n = np.repeat(rungs, 200)
    d = compute / (K * n)
    return n, d, loss(n, d), compute


def near(budget):
    """Rungs within 4x of the optimum: a parabola in log N holds there."""
    return np.sqrt(budget / K) * np.geomspace(0.25, 4, 7)


def test_the_minimum_of_a_centred_grid():
    budget = 6e12
    [cut] = isoflop(*curves(near(budget)), [budget])
    assert cut.status == "minimum inside"
    np.testing.assert_allclose(cut.n_best, 1e6, rtol=1e-3)
    np.testing.assert_allclose(cut.d_best, 1e6, rtol=1e-3)
    np.testing.assert_allclose(cut.loss_best, loss(1e6, 1e6), rtol=2e-3)
    assert cut.n_interval[0] < 1e6 < cut.n_interval[1]
    np.testing.assert_allclose(cut.loss, loss(np.array(cut.n), budget / (K * np.array(cut.n))), rtol=1e-5)


def test_statuses():
    budget = 6e12
    left, right = RUNGS[RUNGS < 6e5], RUNGS[RUNGS > 3e6]
    assert isoflop(*curves(left), budget)[0].status == "minimum outside the grid"
    assert isoflop(*curves(right), budget)[0].d_best is None
    assert isoflop(*curves(RUNGS[:2]), budget)[0].status == "too few rungs"
    assert isoflop(*curves(), 1e19)[0].status == "too few rungs"  # no curve is extended
    n, d, y, compute = curves(near(budget))
    assert isoflop(n, d, 1 / y, compute, budget)[0].status == "no minimum"
    with pytest.raises(ValueError, match="two points with the same compute"):
        isoflop(np.ones(4), np.ones(4), np.ones(4), np.ones(4), budget)
    with pytest.raises(ValueError, match="different shapes"):
        isoflop(n, d, y[:-1], compute, budget)


def test_a_diverged_tail_only_shortens_its_curve():
    n, d, y, compute = curves(near(6e12))
    y[(n == n.max()) & (compute > 1e12)] = np.nan
    [cut] = isoflop(n, d, y, compute, 6e12)
    assert len(cut.n) == 6


def test_the_envelope_is_the_points_that_nothing_cheaper_beats():
    rng = np.random.default_rng(0)
    compute, y = rng.uniform(1, 10, 60), rng.uniform(1, 2, 60)
    y[0] = np.nan
    expected = [i for i in range(1, 60) if not any(compute[j] < compute[i] and y[j] <= y[i] for j in range(1, 60))]
    found = envelope(compute, y)
    assert sorted(found.tolist()) == expected
    assert (np.diff(compute[found]) > 0).all()
    assert (np.diff(y[found]) < 0).all()
    n, _, on_curves, flops = curves()
    inside = [i for i in envelope(flops, on_curves) if 1e13 < flops[i] < 1e15]
    np.testing.assert_allclose(np.log(n[inside]), np.log(np.sqrt(flops[inside] / K)), atol=0.3)  # half a rung's step
