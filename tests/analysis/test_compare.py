"""Two ladders compared: contrasts, their errors, and the multiplier at a target."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks.comparisons import CASES, Case, simulate
from rfjax.analysis.compare import compare, make_design
from rfjax.analysis.contrasts import Contrast, Place, errors_of, half_width

SIZES = np.geomspace(1e4, 1e6, 5)


def law(n, multiplier=1.0, offset=0.24):
    return offset + 20 * (multiplier * n) ** -0.45


def exact(name, multiplier=1.0, factor=1.0, power=1.0, sizes=SIZES, **more):
    """A design without noise."""
    losses = law(sizes, multiplier, **more)
    places = [
        Place(f"rung {j}", n, factor * n**power, {0: y}) for j, (n, y) in enumerate(zip(sizes, losses, strict=True))
    ]
    return make_design(name, places, "power_offset")


def noisy(name, luck, noise=0.005, multiplier=1.0, sizes=SIZES):
    places = [
        Place(f"rung {j}", n, n, dict(enumerate(law(n, multiplier) * np.exp(noise * luck[j]))))
        for j, n in enumerate(sizes)
    ]
    return make_design(name, places, "power_offset")


@given(st.floats(0.3, 3.0), st.floats(0.5, 2.0), st.floats(0.8, 1.3), st.floats(0.3, 30.0))
@settings(max_examples=10)
def test_without_noise_the_multiplier_is_that_of_the_laws(multiplier, factor, power, beyond):
    """law_A(x*) = law_B(target) at x* = multiplier x target, and compute as both designs' FLOPs."""
    target = SIZES[-1] * beyond
    found = compare(exact("a", power=power), exact("b", multiplier, factor, power), target).target
    assert found.size.value == pytest.approx(multiplier, rel=1e-3)
    assert found.compute.value == pytest.approx(multiplier**power / factor, rel=1e-3)
    assert found.loss == pytest.approx(law(target, multiplier), rel=1e-6)
    assert found.size.low <= multiplier * 1.001 and multiplier * 0.999 <= found.size.high < 1.01 * multiplier


def test_the_target_is_the_largest_rung_where_none_is_named():
    pair = compare(exact("a"), exact("b", 1.5), course=12)
    assert pair.target.x == SIZES[-1] and pair.target.beyond == 1
    assert len(pair.course) == 12 and pair.course[0].x == pytest.approx(SIZES[0])
    assert all(one.size.value == pytest.approx(1.5, rel=1e-3) for one in pair.course)


def test_a_loss_that_the_other_never_reaches_has_no_multiplier_but_a_bound():
    rng = np.random.default_rng(0)
    luck = rng.normal(size=(5, 3))
    a = noisy("a", luck, 0.001)
    b = dataclasses.replace(exact("b", offset=0.2), name="b")
    found = compare(a, b, 1e7).target
    assert found.x_a == found.compute.value == found.compute.high == np.inf
    assert found.compute.low == np.inf and found.clear  # with so little noise, not even the bound is finite
    noise = compare(noisy("a", luck, 0.02), b, 1e7).target.compute
    assert 1 < noise.low < noise.value == np.inf
    back = compare(b, a, 1e7).target
    assert 0 < back.compute.low < back.compute.value < back.compute.high < 1 / 3


def test_flops_are_those_of_the_rungs_and_go_straight_between_them():
    a = exact("a", factor=7.0, power=1.2)
    np.testing.assert_allclose(a.flops(SIZES), 7.0 * SIZES**1.2)
    at = np.array([1e2, 3e4, 1e9])
    np.testing.assert_allclose(a.flops(at), 7.0 * at**1.2)
    assert a.size(float(a.flops(12345.0))) == pytest.approx(12345.0)


def test_weights_are_the_derivatives_of_the_fitted_law():
    rng = np.random.default_rng(3)
    luck, step, at = rng.normal(size=(5, 2)), 1e-5, np.array([3e3, 1e5, 1e7])
    a = noisy("a", luck)
    for j in range(5):
        ends = []
        for sign in (1, -1):
            moved = [
                dataclasses.replace(r, losses={s: y * np.exp(sign * step * (i == j)) for s, y in r.losses.items()})
                for i, r in enumerate(a.rungs)
            ]
            ends.append(make_design("a", moved, "power_offset").log_loss(at))
        np.testing.assert_allclose((ends[0] - ends[1]) / (2 * step), a.weights(at)[:, j], atol=0.03)


def test_what_both_designs_share_cancels():
    """The same luck in both: no error is left of the difference; with luck of their own, that of the sum."""
    rng = np.random.default_rng(1)
    luck, other = rng.normal(size=(2, 5, 200))
    a, same, own = noisy("a", luck), noisy("b", luck, multiplier=1.2), noisy("b", other, multiplier=1.2)
    for b, variance in ((same, 0.0), (own, 2 * 0.005**2 / 200)):
        of = compare(a, b).rungs[2].difference
        assert of.runs == pytest.approx(variance, rel=0.1, abs=1e-12)
        assert of.freedom == 5 * 199


def test_triples_are_paired_and_stratified_by_level():
    """Levels differ by much, which is no error of the mean; what two runs share of a triple cancels."""
    rng = np.random.default_rng(2)
    level, shared, own = np.tile(np.arange(1.0, 9), 50), rng.normal(size=400), rng.normal(size=(2, 400))
    drawn = [level + 0.5 * shared + 0.1 * part for part in own]
    a, b = (Place("one", 1.0, 1.0, {0: x.mean()}, {0: x}) for x in drawn)
    found = errors_of([a], [b], None, 0, 8).triples
    difference = drawn[1] / drawn[1].mean() - drawn[0] / drawn[0].mean()
    strata = [difference[k::8] for k in range(8)]
    expected = sum(s.var(ddof=1) / len(s) for s in strata) / 64
    assert np.array([-1, 1]) @ found @ np.array([-1, 1]) == pytest.approx(expected)
    assert expected < 0.2 * found[0, 0]
    assert errors_of([a], [dataclasses.replace(b, triples={0: drawn[1][:-8]})], None, 0, 8).triples is None
    assert errors_of([a], [dataclasses.replace(b, triples={})], None, 0, 8).triples is None


def test_half_of_an_interval_is_student_s_with_the_error_of_triples_known():
    assert half_width(4.0, 0.0, 5) == pytest.approx(2 * stats.t.ppf(0.975, 5))
    assert half_width(0.0, 4.0, 5) == pytest.approx(2 * stats.norm.ppf(0.975), rel=1e-6)
    assert half_width(2.0, 2.0, 5) == pytest.approx(2 * stats.t.ppf(0.975, 20))
    assert Contrast(1.0, None, 1.0, 0).half == np.inf and not Contrast(1.0, None, 1.0, 0).clear


def test_misfit_beyond_the_seeds_counts_alone():
    rng = np.random.default_rng(4)
    luck = rng.normal(size=(5, 3))
    fits, bent = noisy("a", luck, 1e-3), noisy("b", rng.normal(size=(5, 3)), 1e-3)
    wrong = [dataclasses.replace(r, losses={s: y * (1 + 0.02 * (-1) ** j) for s, y in r.losses.items()})
             for j, r in enumerate(bent.rungs)]  # fmt: skip
    found = compare(fits, make_design("b", wrong, "power_offset")).target
    assert found.misfit < 0.05 and found.same.freedom == 2
    assert compare(fits, bent).target.same.freedom == 12


def test_the_seeds_that_would_tell_do():
    """As many seeds as are named shrink the error of a difference of the same size below it; one fewer does not."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(12):
        luck = rng.normal(size=(2, 5, 3))
        one = compare(noisy("a", luck[0], 0.02), noisy("b", luck[1], 0.02, 1.1)).target
        if one.seeds:
            found.append(one)
            halves = [
                half_width(one.same.runs * 3 / n, 0.0, one.same.freedom + 5 * (n - 3))
                for n in (one.seeds, one.seeds - 1)
            ]
            assert halves[0] < abs(one.same.value) and (one.seeds == 4 or halves[1] >= abs(one.same.value))
    assert len(found) > 2


def test_one_seed_says_nothing_at_a_rung_and_residuals_speak_at_the_target():
    rng = np.random.default_rng(6)
    pair = compare(noisy("a", rng.normal(size=(5, 1))), noisy("b", rng.normal(size=(5, 1))))
    assert all(rung.difference.runs is None and not rung.difference.clear for rung in pair.rungs)
    assert pair.target.misfit is None and pair.target.same.freedom == 2 and pair.target.compute.high < np.inf


def test_too_few_rungs_leave_the_rungs_alone():
    pair = compare(exact("a", sizes=SIZES[:3]), exact("b", sizes=SIZES[:3]))
    assert pair.target is None and "a has no law: the power_offset law has 3 parameters" in pair.reason
    assert [rung.name for rung in pair.rungs] == ["rung 0", "rung 1", "rung 2"]


@pytest.mark.parametrize(
    "case", ["3 seeds, 5 rungs, noise 0.5 %, half of it shared", "1 seed", "target 4 times beyond"]
)
def test_intervals_hold(case):
    """40 simulated comparisons: at least as many hold as 95 % do with probability 0.999; 1,000 are in docs/results."""
    rng = np.random.default_rng(0)
    found = [simulate(CASES[case], rng) for _ in range(40)]
    fewest = int(stats.binom.ppf(0.001, 40, 0.95))
    assert sum(one.holds for one in found) >= fewest
    if CASES[case].seeds > 1:
        assert sum(np.mean(one.rungs) for one in found) >= fewest


def test_pairing_narrows_the_interval():
    paired, apart = (
        simulate(Case(shared=shared), np.random.default_rng(7)).pair.target.compute for shared in (0.95, 0.0)
    )
    assert paired.high / paired.low < apart.high / apart.low
