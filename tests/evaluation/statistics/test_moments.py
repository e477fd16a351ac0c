import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfjax.errors import UserError
from rfjax.evaluation.statistics import moments


@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(1, 6), st.lists(st.integers(0, 60), max_size=4))
def test_batches_merge_to_the_moments_of_the_whole(seed, n, size, cuts):
    """With a mean that is a million deviations away: 1e-16 of its square is 1e-4 of a variance, if sums were raw."""
    features = np.random.default_rng(seed).normal(1e6, 1, (n, size))
    ends = sorted(min(cut, n) for cut in cuts)
    found = moments.empty(size)
    for start, end in zip((0, *ends), (*ends, n), strict=True):
        found = moments.add(found, features[start:end])
    assert found.count == n
    np.testing.assert_allclose(found.mean, features.mean(axis=0), rtol=1e-14)
    expected = np.cov(features - 1e6, rowvar=False, ddof=1).reshape(size, size)
    np.testing.assert_allclose(found.covariance, expected, atol=1e-8)


def test_blocks_of_rows_change_nothing_and_sets_merge(monkeypatch):
    features = np.random.default_rng(0).normal(3, 2, (50, 4)).astype(np.float32)
    whole = moments.of(features)
    monkeypatch.setattr(moments, "BLOCK", 28)  # seven rows
    parts = moments.of(features)
    both = moments.merge(moments.of(features[:20]), moments.of(features[20:]))
    for other in (parts, both):
        assert other.count == 50
        np.testing.assert_allclose(other.mean, whole.mean, rtol=1e-13)
        np.testing.assert_allclose(other.scatter, whole.scatter, rtol=1e-12, atol=1e-12)
    assert moments.merge(moments.empty(4), whole) is whole is moments.merge(whole, moments.empty(4))


def test_what_has_no_mean_is_refused():
    with pytest.raises(UserError, match="1 of 2 feature vectors hold NaN"):
        moments.of(np.array([[0.0, np.inf], [1, 2]]))
    with pytest.raises(UserError, match="different features: 2 and 3"):
        moments.add(moments.empty(2), np.zeros((1, 3)))
    with pytest.raises(UserError, match="different features: 2 and 3"):
        moments.merge(moments.empty(2), moments.empty(3))
