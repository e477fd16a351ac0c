import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfjax.errors import UserError
from rfjax.evaluation.statistics import kernels
from rfjax.evaluation.statistics.kernels import cmmd, kid, kid_subsets

seeds = st.integers(0, 2**32 - 1)


def pair(seed, m, n, size=5):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1, (m, size)), rng.normal(0.4, 1.2, (n, size))


def cubic(x, y):
    return (x @ y.T / x.shape[1] + 1) ** 3


def unbiased(reference, samples):
    (m, n), off = (len(reference), len(samples)), lambda k: k.sum() - np.trace(k)
    own, other = off(cubic(samples, samples)), off(cubic(reference, reference))
    return own / (n * (n - 1)) + other / (m * (m - 1)) - 2 * cubic(samples, reference).mean()


def biased(reference, samples):
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (samples, reference))
    kernel = lambda a, b: np.exp(-((a[:, None] - b[None]) ** 2).sum(axis=-1) / 200).mean()  # noqa: E731
    return 1000 * (kernel(x, x) + kernel(y, y) - 2 * kernel(x, y))


def error(measure, reference, samples):
    without = [measure(reference, np.delete(samples, i, axis=0)) for i in range(len(samples))]
    return np.sqrt((len(samples) - 1) * np.var(without))


@pytest.mark.parametrize(("ours", "literal", "close"), [(kid, unbiased, 1e-5), (cmmd, biased, 1e-4)])
@given(seeds, st.integers(4, 20), st.integers(4, 20))
def test_it_is_the_definition_with_the_jackknife_s_errors(ours, literal, close, seed, m, n):
    reference, samples = pair(seed, m, n)
    found = ours(reference, samples)
    assert found.value == pytest.approx(literal(reference, samples), rel=close, abs=close)
    assert found.stderr == pytest.approx(error(literal, reference, samples), rel=1e-3, abs=close)
    swapped = error(literal, samples, reference)
    assert found.extras["reference_stderr"] == pytest.approx(swapped, rel=1e-3, abs=close)


def test_blocks_of_rows_change_nothing(monkeypatch):
    reference, samples = pair(0, 33, 50)
    whole = kid(reference, samples), cmmd(reference, samples)
    monkeypatch.setattr(kernels, "BLOCK", 200)
    for a, b in zip((kid(reference, samples), cmmd(reference, samples)), whole, strict=True):
        assert (a.value, a.stderr) == pytest.approx((b.value, b.stderr), rel=1e-4)


def test_true_pictures_have_no_distance_on_average():
    rng = np.random.default_rng(0)
    found = [kid(*rng.normal(size=(2, 60, 4))) for _ in range(100)]
    values = np.array([one.value for one in found])
    assert abs(values.mean()) < 3 * values.std() / 10
    assert values.min() < 0


def test_the_error_is_the_spread_over_other_pictures():
    rng = np.random.default_rng(1)
    reference = rng.normal(size=(300, 4))
    for measure in (kid, cmmd):
        found = [measure(reference, rng.normal(0.5, 1, (100, 4))) for _ in range(100)]
        spread = np.std([one.value for one in found], ddof=1)
        assert np.mean([one.stderr for one in found]) == pytest.approx(spread, rel=0.21)  # known to 7 %


def test_subsets_are_those_of_the_protocol():
    reference, samples = pair(2, 50, 40)
    found = kid_subsets(reference, samples, subsets=5, size=20, seed=3)
    rng, values = np.random.RandomState(3), []
    for _ in range(5):
        x = samples[rng.choice(40, 20, replace=False)]
        values.append(unbiased(reference[rng.choice(50, 20, replace=False)], x))
    assert found.value == pytest.approx(np.mean(values), rel=1e-5)
    assert found.extras["std"] == pytest.approx(np.std(values), rel=1e-5)
    assert np.isnan(found.stderr)
    with pytest.raises(UserError, match="KID over subsets of 1000 needs at least 1000 images of each kind, not 50"):
        kid_subsets(reference, samples)


def test_cmmd_is_nearly_ten_times_the_squared_distance_of_the_means():
    """Squared distances of unit vectors are at most 4, so 1 - exp(-d / 200) = d / 200 within 2 %."""
    reference, samples = pair(3, 400, 300, 32)
    means = [(x / np.linalg.norm(x, axis=1, keepdims=True)).mean(axis=0) for x in (reference, samples)]
    assert cmmd(reference, samples).value == pytest.approx(10 * ((means[0] - means[1]) ** 2).sum(), rel=0.02)
    assert cmmd(reference, 7 * samples).value == pytest.approx(cmmd(reference, samples).value, rel=1e-4)
    with pytest.raises(UserError, match="1 of 300 images have a vector of zeros"):
        cmmd(reference, samples * (np.arange(300) > 0)[:, None])
