"""Promises judged, and what would narrow an interval, on ladders whose law is known."""

import numpy as np
import pytest

from rfjax.analysis.allocation import distance
from rfjax.analysis.ladder import Ladder, Rung
from rfjax.analysis.laws import fit_law, fit_surface
from rfjax.analysis.promise import Promise, answer, narrower
from rfjax.analysis.seeds import pooled_spread

SIZES = 1e4 * np.arange(1, 8) ** 3.0
SEEDS = (3, 3, 3, 2, 2, 1, 1)


def ladder(noise=0.003, sizes=SIZES, seeds=SEEDS, seed=0):
    rng = np.random.default_rng(seed)
    law = 0.25 + 30 * sizes**-0.5
    losses = [tuple(y * np.exp(noise * rng.normal(size=n))) for y, n in zip(law, seeds, strict=True)]
    spread = pooled_spread(losses)
    errors = [spread.stderr(float(np.mean(row)), len(row), x) for x, row in zip(sizes, losses, strict=True)]
    rungs = [
        Rung(f"d{i}", float(x), row, None, (), error)
        for i, (x, row, error) in enumerate(zip(sizes, losses, errors, strict=True), 1)
    ]
    return Ladder(tuple(rungs), (), spread, ())


def fits(made):
    return [fit_law(law="power_offset", hold_out=n, **made.fitted) for n in (1, 0)]


def test_the_held_out_rung_is_asked_of_the_law_that_has_not_seen_it():
    made = ladder()
    judged, whole = fits(made)
    found = answer(Promise(made.rungs[-1].x, 0.05), made, judged, whole)
    assert (found.rung, found.measured) == ("d7", made.rungs[-1].loss)
    held = judged.held_out
    assert found.value == pytest.approx(held.predicted[0])
    assert (found.low, found.high) == pytest.approx((held.low[0], held.high[0]))  # one seed: one new run
    assert found.beyond == pytest.approx((7 / 6) ** 3)
    assert found.kept == (found.width <= 0.05)
    assert found.inside
    assert found.error == pytest.approx(held.error[0])


def test_a_size_beyond_all_rungs_is_asked_of_the_whole_law_and_nothing_is_measured():
    made = ladder()
    found = answer(Promise(4 * SIZES[-1]), made, *fits(made))
    assert (found.rung, found.measured, found.inside, found.error, found.kept) == ("", None, None, None, None)
    assert found.beyond == pytest.approx(4)


def test_added_seeds_narrow_the_interval_as_foretold():
    made, factor = ladder(), 4
    judged, whole = fits(made)
    found = answer(Promise(factor * SIZES[-1]), made, judged, whole)
    more = narrower(found, made, whole, costs=list(SIZES))
    assert more.runs
    assert more.cost == pytest.approx(sum(n * SIZES[int(name[1:]) - 1] for name, n in more.runs))
    assert more.least < more.width <= (more.least + found.width) / 2
    counts = np.array(SEEDS)
    for name, n in more.runs:
        counts[int(name[1:]) - 1] += n
    widths = {}  # of many ladders, with these seeds and with those of before
    for label, seeds in (("before", SEEDS), ("after", counts)):
        drawn = [ladder(seeds=seeds, seed=i) for i in range(40)]
        widths[label] = np.mean([answer(Promise(factor * SIZES[-1]), one, *fits(one)).width for one in drawn])
    assert widths["after"] / widths["before"] == pytest.approx(more.width / found.width, rel=0.15)


def test_what_seeds_cannot_do_is_said_with_the_least_width():
    made = ladder()
    judged, whole = fits(made)
    found = answer(Promise(4 * SIZES[-1], 1e-4), made, judged, whole)
    more = narrower(found, made, whole, costs=list(SIZES))
    assert not found.kept
    assert (more.runs, more.cost) == ((), 0.0)
    assert 1e-4 < more.least < found.width
    assert narrower(found, made, whole, costs=[0.0] * len(SIZES)) is None


def test_distances_from_the_optimum_are_those_of_the_surface():
    n, d = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e5, 1e7, 5), np.geomspace(1e4, 1e6, 5)))
    fit = fit_surface(n, d, 0.2 + 20 * n**-0.4 + 30 * d**-0.5, objective="log_squares")
    suits = (0.5 * 30 / (0.4 * 20) * 1e6**0.4) ** (1 / 0.5)  # alpha A n^-alpha = beta B d^-beta
    at = distance(fit, "best", 1e6, suits, 6 * 1e6 * suits)
    assert at.training == pytest.approx(1, rel=1e-3)
    assert (at.n_best, at.d_best) == pytest.approx((1e6, suits), rel=1e-3)
    assert at.excess == pytest.approx(0, abs=1e-6)
    short = distance(fit, "short", 1e6, suits / 10, 6 * 1e6 * suits / 10)
    assert short.training == pytest.approx(0.1, rel=1e-3)
    assert short.n_best < 1e6
    assert short.excess > 0.01
