"""CKNNA beside a transcription of its definitions, and what it must not depend on."""

import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfjax import analysis
from rfjax.analysis import cknna as measure
from rfjax.analysis.cknna import BLOCK, compare, neighbours, normalised
from rfjax.errors import UserError

KINDS = ("reference", "formula")


def features(n, width, seed=0):
    return normalised(np.random.default_rng(seed).standard_normal((n, width)))


def masks(kernel, k):
    """1 where j is one of the k neighbours of i."""
    mask = np.zeros_like(kernel)
    for i, row in enumerate(kernel):
        others = [j for j in range(len(row)) if j != i]
        mask[i, sorted(others, key=lambda j, row=row: -row[j])[:k]] = 1
    return mask


def reference(a, b, k):
    """The public code's steps, with whole matrices."""

    def hsic(kernel, other):
        n = len(kernel)
        kernel, other = (x * (1 - np.eye(n)) for x in (kernel, other))
        first = (kernel * other.T).sum()
        second = kernel.sum() * other.sum() / ((n - 1) * (n - 2))
        return (first + second - 2 * (kernel @ other).sum() / (n - 2)) / (n * (n - 3))

    def similarity(kernel, other):
        mask = masks(kernel, k) * masks(other, k)
        return hsic(mask * kernel, mask * other)

    kernel, other = a @ a.T, b @ b.T
    below = similarity(kernel, kernel) * similarity(other, other)
    return similarity(kernel, other) / (math.sqrt(below) + 1e-6) if below >= 0 else math.nan


def formula(a, b, k):
    """Huh et al., the definition: sums over pairs of centred inner products of shared neighbours."""

    def align(x, y):
        alpha, total = masks(x @ x.T, k) * masks(y @ y.T, k), 0.0
        for i in range(len(x)):
            for j in range(len(x)):
                if alpha[i, j]:
                    centred = [z[i] @ z[j] - np.mean([z[i] @ z[other] for other in range(len(z))]) for z in (x, y)]
                    total += centred[0] * centred[1]
        return total / (len(x) - 1) ** 2

    return align(a, b) / math.sqrt(align(a, a) * align(b, b))


@pytest.mark.parametrize(("n", "k"), [(5, 2), (12, 3), (40, 10), (40, 39)])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_definition(kind, n, k):
    a, b = features(n, 6), np.tanh(features(n, 6) @ features(6, 9, seed=1))
    wanted = {"reference": reference, "formula": formula}[kind](a, b, k)
    assert measure(a, b, k, kind) == pytest.approx(wanted, rel=1e-9, nan_ok=True)
    if kind == "formula":
        assert measure(b, a, k, kind) == pytest.approx(wanted, rel=1e-9)


def test_the_order_of_the_two_matters_in_the_reference_alone():
    a, b = features(60, 6), features(60, 6) @ features(6, 9, seed=1)
    assert measure(a, b, 5) == pytest.approx(reference(a, b, 5), rel=1e-9)
    assert measure(b, a, 5) == pytest.approx(reference(b, a, 5), rel=1e-9)
    assert 1e-6 < abs(measure(a, b, 5) - measure(b, a, 5)) < 0.05
    assert measure(a, b, 5, "formula") == pytest.approx(measure(b, a, 5, "formula"), rel=1e-12)


def test_blocks_of_rows_change_nothing(monkeypatch):
    a, b = features(60, 8), features(60, 5, seed=1)
    whole = [measure(a, b, 5, kind) for kind in KINDS]
    monkeypatch.setattr(sys.modules["rfjax.analysis.cknna"], "BLOCK", 7 * 60)  # the package's name is the function
    assert BLOCK > 60 * 60
    assert [measure(a, b, 5, kind) for kind in KINDS] == pytest.approx(whole, rel=1e-12)


@given(st.integers(0, 10_000), st.integers(12, 40), st.integers(2, 8), st.sampled_from(KINDS))
def test_rotation_scale_and_order_of_the_examples_change_nothing(seed, n, k, kind):
    draw = np.random.default_rng(seed)
    a, b = draw.standard_normal((n, 7)), draw.standard_normal((n, 4))
    rotation, _ = np.linalg.qr(draw.standard_normal((7, 7)))
    order = draw.permutation(n)
    found = measure(normalised(a), normalised(b), k, kind)
    scale = draw.uniform(0.1, 10, (n, 1))
    other = measure(normalised(scale * a @ rotation)[order], normalised(b)[order], k, kind)
    assert other == pytest.approx(found, rel=1e-6, abs=1e-9, nan_ok=True)
    assert kind == "reference" or found <= 1 + 1e-9  # the formula is a cosine


def test_the_value_with_itself_is_1_in_the_formula_and_less_by_1e_6_in_the_reference():
    x = features(200, 32)
    found = neighbours(x, 10)
    assert compare(found, found, "formula") == pytest.approx(1, abs=1e-12)
    own = compare(found, found, "reference")
    assert own == pytest.approx(reference(x, x, 10), rel=1e-9)
    assert round(own, 4) == 0.9998  # 1 - 1e-6 / HSIC
    assert measure(30 * x, 30 * x, 10) == pytest.approx(1, abs=1e-8)  # of larger kernels 1e-6 takes away less


def test_what_has_nothing_to_do_with_each_other_is_near_0_and_what_is_alike_is_not():
    a, other = features(400, 16), features(400, 16, seed=1)
    noisy = normalised(a + 0.3 * other)
    for kind in KINDS:
        assert abs(measure(a, other, kind=kind)) < 0.05
        assert 0.3 < measure(a, noisy, kind=kind) < 1


def test_normalised_rows_have_norm_1_and_zeros_stay():
    rows = normalised(np.array([[3, 4], [0, 0]], np.float32))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0, 0]])
    assert analysis.normalised is normalised and analysis.cknna is measure


def test_constant_features_have_nothing_to_compare():
    same = np.ones((20, 3))
    assert math.isnan(measure(same, features(20, 3), kind="formula"))


@pytest.mark.parametrize(
    ("a", "b", "k", "kind", "words"),
    [
        (features(10, 3), features(10, 3), 10, "reference", "needs at least 11 examples, and got 10"),
        (features(3, 3), features(3, 3), 2, "reference", "needs at least 4 examples, and got 3"),
        (features(10, 3), features(12, 3), 3, "reference", "the same examples, and got 10 and 12"),
        (features(10, 3), np.full((10, 3), np.nan), 3, "reference", "NaN or infinite values"),
        (np.full((10, 3), np.inf), features(10, 3), 3, "formula", "NaN or infinite values"),
        (np.ones(10), np.ones(10), 3, "formula", "some of shape (10,)"),
        (features(10, 3), features(10, 3), 1, "reference", "at least 2 neighbours"),
        (features(10, 3), features(10, 3), 3, "biased", "no kind 'biased': take reference or formula"),
    ],
)
def test_what_can_t_be_compared_is_refused_in_a_sentence(a, b, k, kind, words):
    with pytest.raises(UserError) as error:
        measure(a, b, k, kind)
    assert words in str(error.value) and "\n" not in str(error.value)
