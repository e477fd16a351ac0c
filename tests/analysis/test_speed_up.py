"""The speed-up on curves whose answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfjax.analysis.speed_up import first_reached, speed_up

STEPS = np.array([10.0, 20, 40, 80, 160, 320])


def falls(factor=1.0, noise=0.0):
    """A curve that is straight in log x, `factor` times faster than another."""
    return STEPS, 5 - np.log(factor * STEPS) + noise


@given(st.floats(1.01, 15.9))
def test_a_curve_that_is_f_times_faster_has_the_factor_f(factor):
    found = speed_up({0: falls()}, {0: falls(factor)}, "lower")
    assert found.factor.value == pytest.approx(factor) and found.factor.low is None and not found.at_first
    higher = speed_up({0: (STEPS, -falls()[1])}, {0: (STEPS, -falls(factor)[1])}, "higher")
    assert higher.factor.value == pytest.approx(factor)


def test_what_is_not_reached_is_said_and_never_extrapolated():
    slower = speed_up({0: falls()}, {0: falls(0.9)}, "lower")
    assert slower.factor is None and slower.text() == "not reached"
    some = speed_up({0: falls(), 1: falls()}, {0: falls(0.9), 1: falls(2)}, "lower")
    assert some.factor is None and some.text() == "reached by 1 of 2 seeds"
    assert speed_up({0: falls()}, {1: falls(2)}, "lower").text() == "no seed in common"


def test_what_is_reached_at_once_is_a_lower_bound():
    found = speed_up({0: falls()}, {0: falls(100)}, "lower")
    assert found.at_first and found.text() == "at least 32.00"


def test_a_reference_without_progress_is_not_compared():
    flat = {0: (STEPS, np.zeros(6))}
    assert speed_up(flat, {0: falls()}, "higher").text() == "no progress to compare"


def test_seeds_give_the_interval_and_flops_may_be_counted_otherwise():
    factors = {0: 2.0, 1: 2.5, 2: 3.0}
    found = speed_up({s: falls() for s in factors}, {s: falls(f) for s, f in factors.items()}, "lower")
    logs = np.log(list(factors.values()))
    half = 4.302652729696142 * logs.std(ddof=1) / np.sqrt(3)  # Student's t, 2 degrees of freedom, 97.5 %
    assert found.factor == pytest.approx(tuple(np.exp([logs.mean(), logs.mean() - half, logs.mean() + half])))
    costly = {0: (1.25 * STEPS, falls(2.0)[1])}
    assert speed_up({0: falls()}, costly, "lower").factor.value == pytest.approx(2.0 / 1.25)


def test_a_bounce_does_not_undo_what_was_reached_and_nan_is_left_out():
    y = np.array([5.0, 3.0, 4.0, 2.0, np.nan, 1.0])
    assert first_reached((STEPS, y), 3.0, "lower") == (20.0, False)
    x, first = first_reached((STEPS, y), 1.5, "lower")
    assert not first and x == pytest.approx(np.sqrt(80 * 320))
    assert first_reached((STEPS, y), 0.5, "lower") is None
