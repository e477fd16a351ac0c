import dataclasses

import numpy as np
import pytest

from rfjax.analysis.multipliers import multiplier, over_seeds

X = np.arange(60.0, 601, 60)  # as the checkpoints of configs/architectures.py


def power(m=1.0, offset=0.0, x=X, a=0.5):
    return x, offset + 20.0 * (m * x) ** -a


def test_power_laws_without_an_offset_give_their_factor_back_exactly():
    for m in (1 / 7, 0.5, 1.0, 1.37, 6.0):
        found = multiplier({0: power()}, {0: power(m)})
        assert found.at_end.value == pytest.approx(m, rel=1e-12)
        assert found.overall.value == pytest.approx(m, rel=1e-12)
        assert found.losses[0] == pytest.approx(max(power()[1][-1], power(m)[1][-1]))
        assert (found.at_end.low, found.at_end.high, found.note) == (None, None, "one seed: no interval")


@pytest.mark.parametrize(("offset", "m"), [(0.25, 1.5), (1.0, 3.0), (5.0, 0.4)])
def test_power_laws_with_an_offset_give_it_back_within_the_error_of_interpolation(offset, m):
    """f(u) = log(E + P), P = 20 (m e^u)^-a: f' = -a P / L, f'' = a^2 P E / L^2; a line misses u by h^2/8 f'' / f'."""
    a, x = 0.5, np.geomspace(60, 600, 30)
    found = multiplier({0: power(1.0, offset, x)}, {0: power(m, offset, x)})
    terms = 20.0 * (min(m, 1.0) * np.geomspace(60, 600 * max(m, 1 / m), 2000)) ** -a  # all that either curve passes
    losses = terms + offset
    step = np.log(x[1] / x[0])
    bound = step**2 / 8 * (a**2 * terms * offset / losses**2).max() / (a * terms / losses).min()
    assert abs(np.log(found.at_end.value / m)) <= bound
    assert abs(np.log(found.overall.value / m)) <= 2 * bound  # either curve may lie between two measurements
    assert bound < 0.01


def test_swapping_gives_the_reciprocal_exactly():
    rng = np.random.default_rng(0)
    a, b = ({s: (X, power(m, 0.3)[1] * np.exp(0.05 * rng.normal(size=X.size))) for s in range(3)} for m in (1.0, 2.0))
    forth, back = multiplier(a, b), multiplier(b, a)
    assert back.logs == tuple(-log for log in forth.logs)
    assert back.losses == forth.losses
    for one, other in ((forth.at_end, back.at_end), (forth.overall, back.overall)):
        assert one.value * other.value == pytest.approx(1, rel=4e-16)
        assert one.low * other.high == pytest.approx(1, rel=1e-15)
        assert one.high * other.low == pytest.approx(1, rel=1e-15)
    assert multiplier(a, a).logs == (0.0, 0.0, 0.0)
    assert multiplier(a, a).overall == (1.0, 1.0, 1.0)


def test_units_of_x_are_a_factor_and_those_of_the_loss_are_none():
    rng = np.random.default_rng(1)
    (x, one), (_, two) = power(1.0, 0.2), power(1.7, 0.2)
    one, two = (loss * np.exp(0.03 * rng.normal(size=x.size)) for loss in (one, two))
    plain = multiplier({0: (x, one)}, {0: (x, two)})
    flops = multiplier({0: (3e9 * x, one)}, {0: (4e9 * x, two)})  # the second model costs 4/3 a step
    assert flops.at_end.value == pytest.approx(plain.at_end.value * 3 / 4)
    assert flops.overall.value == pytest.approx(plain.overall.value * 3 / 4)
    scaled = multiplier({0: (x, 9 * one)}, {0: (x, 9 * two)})
    assert scaled.at_end.value == pytest.approx(plain.at_end.value)


def test_it_grows_with_the_lead():
    values = [multiplier({0: power(1.0, 0.5)}, {0: power(m, 0.5)}).at_end.value for m in np.linspace(0.2, 5, 25)]
    assert (np.diff(values) > 0).all()


def test_only_the_running_minimum_counts():
    x, loss = power()
    spiked = loss.copy()
    spiked[[2, 3, 6]] *= 3
    for one, other in ((spiked, loss), (loss, spiked)):
        assert multiplier({0: (x, one)}, {0: (x, other)}).at_end.value == pytest.approx(1)  # both end at the last
    # The first reaches its best, 2, at x = 2 and never falls below; the second passes 2 on the way from 4 to 1.
    found = multiplier({0: ([1, 2, 8], [4, 2, 3])}, {0: ([1, 16], [4, 1])})
    assert found.losses == pytest.approx((2.0,))
    assert found.at_end.value == pytest.approx(2 / 4)
    # From 4 to 2: log x_a = u log 2, log x_b = u log 4 for u from 0 to 1.
    assert found.overall.value == pytest.approx(2**-0.5)
    # A plateau: the loss 2 is first reached at 2, and what is below it only after 8.
    flat = multiplier({0: ([1, 2, 8, 16], [4, 2, 2, 1])}, {0: ([1, 4], [4, 1])})
    first, second = (0 + np.log(2)) / 2, (np.log(8) + np.log(16)) / 2  # mean log x on each half of the losses
    assert np.log(flat.overall.value) == pytest.approx((first + second) / 2 - np.log(4) / 2)


def test_without_a_loss_in_common_there_is_no_number():
    x = [1.0, 2.0]
    found = multiplier({0: (x, [4, 3]), 1: (x, [4, 3])}, {0: (x, [2, 1]), 1: (x, [2, 1])})
    assert (found.at_end, found.overall, found.seeds) == (None, None, ())
    assert found.note.startswith("no common loss")
    touching = multiplier({0: (x, [4, 3])}, {0: (x, [3, 1])})  # one loss: the first's end is the second's beginning
    assert touching.at_end.value == touching.overall.value == 2
    some = multiplier({0: (x, [4, 3]), 1: (x, [4, 3])}, {0: (x, [2, 1]), 1: (x, [4, 2])})
    assert some.seeds == (1,)
    assert "1 of 2 seeds left out" in some.note
    assert "no interval" in some.note
    assert multiplier({0: (x, [4, 3])}, {1: (x, [4, 3])}).note == "no seed in common"


def test_seeds_are_paired_and_the_interval_is_students():
    factors = {3: 1.2, 5: 2.0, 8: 1.5}
    luck = {3: 1.0, 5: 1.6, 8: 0.7, 9: 1.0}  # of the data's order, shared by both models
    found = multiplier({s: power(luck[s]) for s in luck}, {s: power(luck[s] * m) for s, m in factors.items()})
    assert found.seeds == (3, 5, 8)
    logs = np.log(list(factors.values()))
    assert found.logs == pytest.approx(logs)
    half = 4.302652729911275 * logs.std(ddof=1) / np.sqrt(3)  # t of 2 degrees of freedom
    assert found.at_end == pytest.approx(np.exp([logs.mean(), logs.mean() - half, logs.mean() + half]))
    narrow = multiplier({s: power(luck[s]) for s in luck}, {s: power(luck[s] * m) for s, m in factors.items()}, 0.5)
    assert found.at_end.low < narrow.at_end.low < narrow.at_end.high < found.at_end.high
    assert over_seeds([2.0]) == (2.0, None, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.note = ""


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_covers(seeds):
    """Curves of factor 1.5, each with luck of its own (15 % of x) and noise in each loss (0.1 %).

    Of n simulations a share within 3 sqrt(0.95 x 0.05 / n) of 0.95 is what 95 % looks like: 0.021 for n = 1000.
    """
    rng, n, m = np.random.default_rng(seeds), 1000, 1.5

    def curves(factor):
        luck, noise = np.exp(0.15 * rng.normal(size=seeds)), np.exp(0.001 * rng.normal(size=(seeds, X.size)))
        return {s: (X, power(factor * luck[s], 0.1)[1] * noise[s]) for s in range(seeds)}

    found = [multiplier(curves(1.0), curves(m)) for _ in range(n)]
    tolerance = 3 * np.sqrt(0.95 * 0.05 / n)
    for name in ("at_end", "overall"):
        inside = [getattr(f, name).low <= m <= getattr(f, name).high for f in found]
        assert abs(np.mean(inside) - 0.95) <= tolerance


@pytest.mark.parametrize(
    ("curve", "message"),
    [
        (([1, 2], [1.0, np.nan]), r"curves_b\[7\]: loss\[1\] is nan"),
        (([0, 2], [1.0, 1.0]), r"curves_b\[7\]: x\[0\] is 0"),
        (([1, 2], [1.0, -1.0]), r"loss\[1\] is -1"),
        (([1, 3, 2], [1.0, 1.0, 1.0]), r"x does not increase after x\[1\]"),
        (([], []), "need one shape"),
        (([1, 2], [1.0]), "need one shape"),
    ],
)
def test_what_is_no_curve_is_refused(curve, message):
    with pytest.raises(ValueError, match=message):
        multiplier({7: power()}, {7: curve})
    with pytest.raises(ValueError, match="confidence"):
        multiplier({7: power()}, {7: power()}, confidence=95)
