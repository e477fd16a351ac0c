"""Grids of depths and token budgets: costs by hand, what they contain, widths by the delta method and simulated."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from rfjax.analysis.candidates import Candidate
from rfjax.analysis.design import Search, design
from rfjax.analysis.surface_candidates import APART, SurfaceGround, SurfaceSide, candidates, cost_of, least_width
from rfjax.analysis.surface_design import losses_of, simulate_surface
from rfjax.analysis.surface_screen import screen, screened
from rfjax.analysis.surface_truths import SurfaceTruths, draw_surfaces

DEPTHS, BUDGETS, BATCH = (1, 2, 3, 4, 5), (50, 100, 200), 10
TARGET = (8e6, 1e4)
THETA, BETWEEN, WITHIN = (0.2, 0.15, 0.1, 0.5, 0.5), 0.003, 0.002


def size(depth: float) -> float:
    return 1e4 * depth**3


def run(depth: float, steps: float, first: int) -> float:
    return depth * (steps - first) + 1  # one unit of validation


def decay_start(steps: int) -> int:
    return steps - steps // 5


def same(count: int, branched: bool = True) -> SurfaceTruths:
    """One surface, many times."""
    between, within = (BETWEEN, WITHIN) if branched else (0.0, np.hypot(BETWEEN, WITHIN))
    return SurfaceTruths(np.tile(THETA, (count, 1)), np.full(count, between), np.full(count, within), (3e5, 1e3))


def ground(truths: SurfaceTruths, done=None, branched: bool = True, **options) -> SurfaceGround:
    side = SurfaceSide(truths, size, run, decay_start if branched else None, done or {})
    return SurfaceGround((side,), BATCH, DEPTHS, BUDGETS, TARGET, 16, **options)


def pilot(seeds: int, branched: bool = True, seed: int = 0) -> dict[tuple[int, int], dict[int, float]]:
    """A pilot's losses on the surface."""
    rng, truth = np.random.default_rng(seed), same(1, branched)
    done = {}
    for name in [(depth, s) for depth in DEPTHS for s in range(seeds)]:
        luck = truth.between[0] * rng.normal() + truth.within[0] * rng.normal(size=len(BUDGETS))
        at = np.array([(size(name[0]), steps * BATCH) for steps in BUDGETS])
        done[name] = dict(zip(BUDGETS, truth.loss(at)[0] * np.exp(luck), strict=True))
    return done


def drawn(done, count: int, branched: bool = True) -> SurfaceTruths:
    runs = [(name, steps, loss) for name, row in done.items() for steps, loss in row.items()]
    at = np.array([(size(name[0]), steps * BATCH) for name, steps, _ in runs])
    groups = [name if branched else (name, steps) for name, steps, _ in runs]
    return draw_surfaces(at, np.array([loss for *_, loss in runs]), groups, count, np.random.default_rng(1))


def grid(depths=DEPTHS, seeds=(2, 2, 2, 2, 2), budgets=BUDGETS, reused: int = 0) -> Candidate:
    return Candidate(depths, seeds, 16, tuple(map(size, depths)), 1.0, reused, budgets)


def price(place: SurfaceGround, one: Candidate) -> tuple[float, int]:
    return cost_of(place, one.depths, one.seeds, one.budgets, run)


def test_a_trunk_is_paid_whole_and_its_branches_from_their_decay():
    """Depth 2, budgets 50, 100, 200: 2 x (200 + 10 + 20) and three validations; apart 2 x (200 + 50 + 100)."""
    one = grid((2,), (1,))
    assert price(ground(same(1)), one) == (2 * (200 + 10 + 20) + 3, 0)
    assert price(ground(same(1), branched=False), one) == (2 * (200 + 50 + 100) + 3, 0)


def test_what_the_pilot_has_costs_nothing():
    place = ground(same(1), pilot(2))
    assert price(place, grid()) == (0, 30)
    extended = grid((*DEPTHS, 6), (2, 2, 2, 2, 2, 1))
    assert price(place, extended) == (6 * 230 + 3, 30)
    # a longer budget needs a trunk of its own for each depth and seed; the pilot's runs stay, as its branches
    longer = grid((1,), (2,), (*BUDGETS, 400))
    assert price(place, longer) == (2 * (400 + 1), 6)
    # and a third seed the trunk and all branches
    assert price(place, replace(longer, seeds=(3,))) == (2 * 401 + (400 + 10 + 20 + 40 + 4), 6)


def test_a_finished_trunk_has_no_checkpoint_for_another_branch():
    place = ground(same(1), pilot(1))
    between = grid((1,), (1,), (50, 150, 200))
    assert price(place, between) == (200 + 10 + 30 + 3, 0)  # all anew, in a folder of its own
    assert price(replace(place, sides=(replace(place.sides[0], decay_start=None),)), between) == (151, 2)
    done = pilot(1)
    del done[1, 0][100]  # a branch of the pilot's own that failed: its checkpoint is there
    assert price(ground(same(1), done), grid((1,), (1,))) == (20 + 1, 2)
    assert price(replace(place, named=False), grid((1,), (2,)))[1] == 0


def test_grids_stay_below_the_target_and_have_what_they_contain():
    place = ground(same(12), pilot(2))
    tried = list(candidates(place))
    assert len({(one.depths, one.seeds, one.budgets) for one in tried}) == len(tried) > 100
    for one in tried:
        assert place.allows(one, 1.0)
        assert list(one.depths) == sorted(set(one.depths)) and len(one.depths) >= 3 <= len(one.budgets) <= 6
        ratios = np.array(one.budgets[1:]) / np.array(one.budgets[:-1])
        assert (ratios >= APART).all() and sum(one.seeds) >= 5
        if set(one.budgets) == set(BUDGETS):  # all of the pilot is free
            assert set(DEPTHS) <= set(one.depths) and one.reused == 30
    assert min(one.cost for one in tried) == 0
    assert max(one.budgets[-1] for one in tried) == TARGET[1] / BATCH
    assert max(one.depths[-1] for one in tried) == 7  # 2 x 1e4 x 7^3 < 8e6 < 2 x 1e4 x 8^3


@pytest.mark.parametrize("branched", [True, False])
def test_the_delta_method_comes_near_to_what_simulations_give(branched):
    place, count = ground(same(400, branched), branched=branched), 400
    for one in (grid(), grid((1, 2, 3, 4, 5, 7), (4, 3, 2, 2, 1, 1), (50, 100, 200, 400)), grid(seeds=(1,) * 5)):
        found = simulate_surface(place, one, np.array([1.0]), [same(count, branched)], np.random.default_rng(0))
        guess = screen(place, [one], 0.5)[0]
        assert np.median(found.widths[:, 0]) == pytest.approx(guess, rel=0.3)
        assert found.inside.mean() > 0.95 - 3.5 * np.sqrt(0.95 * 0.05 / count)


def test_runs_that_are_there_keep_their_losses_and_their_trunk_its_luck():
    done = pilot(2)
    place = ground(same(50), done)
    still = simulate_surface(place, grid(reused=30), np.array([1.0]), [same(50)], np.random.default_rng(0))
    assert np.ptp(still.widths) == 0
    # a trunk that is 3 % low by its three branches is low in its new, longest run too
    lucky = {name: {steps: loss * 0.97 for steps, loss in row.items()} for name, row in done.items()}

    one = grid(budgets=(*BUDGETS, 400), reused=30)
    off = [
        np.log(losses_of(ground(same(200), some), one, same(200), np.random.default_rng(0))[..., -1]).mean()
        for some in (done, lucky)
    ]
    share = 3 * BETWEEN**2 / (WITHIN**2 + 3 * BETWEEN**2)
    assert off[1] - off[0] == pytest.approx(share * np.log(0.97), rel=1e-6)


def test_a_design_keeps_its_width_for_less_than_the_target_and_names_what_is_not_too_far():
    done = pilot(1)
    place = ground(drawn(done, 80), done)
    limit = lambda share: run(9.28, place.at(share)[1] / BATCH, 0)  # noqa: E731
    options = {"probability": 0.8, "trials": 40}
    free = design(place, 1.0, limit, width=0.0, **options).curve[0].width(0.8)
    found = design(place, 1.0, limit, width=0.8 * free, **options).wanted
    assert 0 < found.candidate.cost <= limit(1.0) and found.kept(0.8 * free) >= 0.8
    least = least_width(place, 0.8)
    far = design(place, 1.0, lambda share: 50.0, width=max(0.7 * free, 1.05 * least), **options)
    assert far.wanted is None and (far.reach is None or 0 < far.reach[0] < 1)
    near, corner = place.at(0.5), place.at(0.0)
    assert near == pytest.approx(np.sqrt(corner * TARGET)) and corner == pytest.approx([size(5), 2000])


def test_promises_are_kept_on_truths_that_the_design_did_not_see():
    """The full count is by hand: python -m benchmarks.promises --surface."""
    kept, held = [], []
    for seed in range(5):
        done = pilot(1, seed=seed)
        place = ground(drawn(done, 100), done)
        best = screened(place, 2000.0, 0.8)
        width = 0.85 * simulate_surface(
            place, grid(seeds=(1,) * 5, reused=15), np.array([1.0]), [place.truths.some(slice(1))],
            np.random.default_rng(0),
        ).widths[0, 0]  # fmt: skip
        found = Search(place, np.array([1.0]), 0.8, 50).cheapest(best, width)
        if found is not None:
            true = ground(same(1), done)
            came = simulate_surface(true, found.candidate, np.array([1.0]), [same(1)], np.random.default_rng(seed))
            kept.append(came.widths[0, 0] <= width)
            held.append(came.inside[0])
    assert len(kept) >= 3
    assert stats.binom.cdf(sum(kept), len(kept), 0.8) > 0.01 and stats.binom.cdf(sum(held), len(held), 0.95) > 0.01
