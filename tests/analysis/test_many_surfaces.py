"""Surfaces fitted all at once are what a study's own fit gives of each; draws recover the surface and its noise."""

import numpy as np
import pytest

from rfjax.analysis import TooFewPoints
from rfjax.analysis.laws import fit_surface
from rfjax.analysis.many_surfaces import fit_surfaces
from rfjax.analysis.surface_truths import SurfaceTruths, draw_surfaces

TARGET = np.array([[4e6, 3e4], [1e7, 2e5]])
CENTRE = (4e5, 4e3)
CASES = {
    "common": (0.2, 0.15, 0.1, 0.5, 0.5),
    "no offset": (0.0, 0.2, 0.2, 0.3, 0.3),
    "steep in size": (0.25, 0.1, 0.1, 0.9, 0.25),
    "steep in data": (0.1, 0.05, 0.4, 0.2, 1.2),
}


def truth(theta, between=0.004, within=0.002) -> SurfaceTruths:
    return SurfaceTruths(np.array([theta]), np.array([between]), np.array([within]), CENTRE)


def grid(depths, seeds: int, budgets: int) -> np.ndarray:
    """(n, d) of the branches of each trunk: shape (trunks, budgets, 2)."""
    n = np.array([1.4e4 * depth**3 for depth in depths for _ in range(seeds)])
    return np.stack(np.broadcast_arrays(n[:, None], np.geomspace(1500, 12000, budgets)), -1)


@pytest.mark.parametrize("noise", [1.0, 5.0])
@pytest.mark.parametrize(("seeds", "apart"), [(1, False), (2, False), (1, True)])
def test_each_study_has_the_interval_of_its_own_fit(seeds, apart, noise):
    rng, x = np.random.default_rng(0), grid((1, 2, 3, 4, 6), seeds, 4)
    groups = np.arange(x[..., 0].size) if apart else np.repeat(np.arange(len(x)), 4)
    for name, theta in CASES.items():
        luck = 0.003 * rng.normal(size=(5, len(x), 1)) + 0.002 * rng.normal(size=(5, *x.shape[:2]))
        losses = truth(theta).loss(x) * np.exp(noise * luck)
        shape = (-1, 1) if apart else x.shape[:2]
        found = fit_surfaces(x.reshape(*shape, 2), losses.reshape(5, *shape))
        ours = np.stack(found.new_run(TARGET))
        for i, row in enumerate(losses):
            fit = fit_surface(*x.reshape(-1, 2).T, row.ravel(), objective="log_squares", groups=groups.tolist())
            assert found.freedom == fit.degrees_of_freedom
            theirs = np.stack(fit.predict(*TARGET.T))
            # both stop where the squares fall no further, far below the noise of 2e-3
            np.testing.assert_allclose(np.log(ours[:, i]), np.log(theirs), atol=2e-6, rtol=1e-4, err_msg=name)


def test_draws_hold_the_surface_and_both_noises_as_often_as_they_say():
    """The share of draws below a true value is uniform over pilots: of 25, its mean is 0.5 +- 0.058."""
    rng, x, target = np.random.default_rng(0), grid((1, 2, 3, 4, 5), 2, 5).reshape(-1, 2), TARGET[1]
    true, groups = truth(CASES["common"]), np.repeat(np.arange(10), 5)
    below = []
    for _ in range(25):
        luck = 0.004 * rng.normal(size=10)[groups] + 0.002 * rng.normal(size=50)
        found = draw_surfaces(x, true.loss(x)[0] * np.exp(luck), groups.tolist(), 200, rng)
        shares = (found.loss(target) < true.loss(target), found.between < 0.004, found.within < 0.002)
        below.append([share.mean() for share in (*shares, *(found.theta[:, 3:] < true.theta[:, 3:]).T)])
    below = np.array(below)
    assert (np.abs(below.mean(0) - 0.5) < 3 * np.sqrt(1 / 12 / 25)).all()
    assert ((below > 0.025) & (below < 0.975)).mean() > 0.88  # 95 % of 125, of five of each pilot
    assert (found.theta >= 0).all()


def test_runs_trained_apart_share_nothing():
    rng, x = np.random.default_rng(0), grid((1, 2, 3, 4, 5), 1, 5).reshape(-1, 2)
    losses = truth(CASES["common"]).loss(x)[0] * np.exp(0.003 * rng.normal(size=25))
    found = draw_surfaces(x, losses, list(range(25)), 500, rng)
    assert not found.between.any() and np.median(found.sigma) == pytest.approx(0.003, rel=0.3)


@pytest.mark.parametrize(
    ("depths", "budgets", "message"),
    [
        ((1, 2), 5, "need 3 sizes or more, not 2"),
        ((1, 2, 3, 4, 5), 2, "need 3 budgets or more, not 2"),
        ((1, 2, 3, 4), 5, "need 5 independent runs or more, not 4"),
    ],
)
def test_too_few_sizes_budgets_or_trunks_are_counted(depths, budgets, message):
    x = grid(depths, 1, budgets)
    groups = np.repeat(np.arange(len(depths)), budgets).tolist()
    losses = truth(CASES["common"]).loss(x.reshape(-1, 2))[0]
    with pytest.raises(TooFewPoints, match=message):
        draw_surfaces(x.reshape(-1, 2), losses, groups, 10, np.random.default_rng(0))


def test_a_loss_that_rises_allows_no_surface():
    rng, x = np.random.default_rng(0), grid((1, 2, 3, 4, 5), 2, 5).reshape(-1, 2)
    rising = np.exp(0.001 * rng.normal(size=50)) / truth(CASES["common"]).loss(x)[0]
    assert draw_surfaces(x, rising, np.repeat(np.arange(10), 5).tolist(), 10, rng) is None
