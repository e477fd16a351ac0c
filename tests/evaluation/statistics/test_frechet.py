import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from rfjax.errors import UserError
from rfjax.evaluation.statistics import moments
from rfjax.evaluation.statistics.frechet import (
    Gaussian,
    fit_gaussian,
    frechet,
    frechet_distance,
    frechet_error,
    influence,
    scarce,
)

seeds = st.integers(0, 2**32 - 1)


def gaussian(rng, size, rank=None):
    """A random Gaussian whose covariance has the rank asked for."""
    root = rng.normal(size=(size, rank or 2 * size))
    return Gaussian(rng.normal(size=size), root @ root.T / root.shape[1], 100)


def test_a_fit_is_the_mean_and_the_unbiased_covariance():
    features = np.random.default_rng(0).normal(3, 2, (50, 4)).astype(np.float32)
    found = fit_gaussian(features)
    np.testing.assert_allclose(found.mean, features.astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(features.astype(np.float64).T), rtol=1e-12)
    assert found.count == 50
    assert found.mean.dtype == found.covariance.dtype == np.float64


@given(st.floats(-100, 100), st.floats(-100, 100), st.floats(0, 50), st.floats(0, 50))
def test_in_one_dimension_it_is_the_distance_of_means_and_of_deviations(mu, nu, sigma, tau):
    a, b = (Gaussian(np.array([m]), np.array([[s**2]]), 9) for m, s in ((mu, sigma), (nu, tau)))
    expected = (mu - nu) ** 2 + (sigma - tau) ** 2
    assert frechet_distance(a, b) == pytest.approx(expected, abs=1e-11 * (sigma**2 + tau**2 + 1))


@given(seeds, st.integers(1, 12))
def test_equal_covariances_leave_the_distance_of_the_means(seed, size):
    rng = np.random.default_rng(seed)
    a = gaussian(rng, size)
    b = Gaussian(rng.normal(size=size), a.covariance, 100)
    assert frechet_distance(a, b) == pytest.approx(((a.mean - b.mean) ** 2).sum(), abs=1e-11)


@given(seeds, st.integers(1, 12), st.integers(0, 11))
def test_covariances_that_commute_have_a_closed_form_some_eigenvalues_being_zero(seed, size, zeros):
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(size, size)))[0]
    v, w = rng.uniform(0.1, 5, (2, size))
    v[: min(zeros, size)] = 0
    a, b = (Gaussian(rng.normal(size=size), (basis * x) @ basis.T, 100) for x in (v, w))
    expected = ((a.mean - b.mean) ** 2).sum() + ((np.sqrt(v) - np.sqrt(w)) ** 2).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, abs=1e-11)


@given(seeds, st.integers(1, 12))
def test_it_agrees_with_the_root_of_a_matrix(seed, size):
    rng = np.random.default_rng(seed)
    a, b = gaussian(rng, size, 4 * size), gaussian(rng, size, 4 * size)
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance).real
    expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9, abs=1e-9)


ranks = st.integers(1, 12)


@given(seeds, ranks, ranks)
def test_it_is_symmetric_zero_for_equals_never_negative_and_blind_to_rotations(seed, rank, other):
    rng = np.random.default_rng(seed)
    a, b = gaussian(rng, 8, rank), gaussian(rng, 8, other)
    distance = frechet_distance(a, b)
    assert distance >= 0
    assert frechet_distance(b, a) == pytest.approx(distance, rel=1e-9)
    assert frechet_distance(a, a) < 1e-12 * np.trace(a.covariance)
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    a, b = (Gaussian(turn @ g.mean, turn @ g.covariance @ turn.T, 100) for g in (a, b))
    assert frechet_distance(a, b) == pytest.approx(distance, rel=1e-9)


def test_fewer_vectors_than_features_and_constant_features_are_no_trouble():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(5, 30))
    features[:, :3] = 1
    found = fit_gaussian(features)
    assert frechet_distance(found, found) < 1e-12
    # Two sets in orthogonal subspaces: nothing overlaps.
    a, b = np.zeros((2, 6, 12))
    a[:, :6], b[:, 6:] = rng.normal(size=(2, 6, 6))
    a, b = fit_gaussian(a), fit_gaussian(b)
    expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_what_cannot_be_measured_is_said():
    with pytest.raises(UserError, match="at least 2"):
        fit_gaussian(np.zeros((1, 3)))
    with pytest.raises(UserError, match="1 of 4 feature vectors hold NaN"):
        fit_gaussian(np.array([[0.0, 1], [np.nan, 2], [1, 1], [2, 3]]))
    with pytest.raises(UserError, match="different features: 2 and 3"):
        frechet_distance(fit_gaussian(np.eye(2)), fit_gaussian(np.eye(3)))


def weighted(features, weights):
    """The Gaussian of a weighted sample (divisor 1), the weights summing to 1."""
    mean = weights @ features
    centred = features - mean
    return Gaussian(mean, (weights[:, None] * centred).T @ centred, len(features))


@given(seeds, st.integers(2, 8), st.sampled_from([4, 30]))
def test_influence_is_the_derivative_of_the_distance_by_a_picture_s_weight(seed, size, n):
    """Also for fewer pictures than features, whose covariance has no full rank."""
    rng = np.random.default_rng(seed)
    features, reference = rng.normal(1, 2, (n, size)), gaussian(rng, size)
    even = np.full(n, 1 / n)
    found = influence(features, weighted(features, even), reference)
    assert abs(found.mean()) < 1e-9
    step = 1e-5
    for i in (0, n - 1):
        toward = np.eye(n)[i] - even
        up, down = (frechet_distance(weighted(features, even + s * toward), reference) for s in (step, -step))
        # Differences of distances of order 10 to 100: 1e-13 / 1e-5; the influence itself is in float32.
        assert found[i] == pytest.approx((up - down) / (2 * step), rel=1e-4, abs=1e-4 * np.abs(found).max() + 1e-6)


def test_the_standard_error_is_the_bootstrap_s_and_what_other_pictures_would_change():
    rng = np.random.default_rng(0)
    root, shift = rng.normal(size=(6, 6)), rng.normal(size=6)
    reference = Gaussian(np.zeros(6), np.eye(6), 10**6)
    sets = [rng.normal(size=(400, 6)) @ root + shift for _ in range(100)]
    found = [frechet(one, reference) for one in sets]
    assert [one.value for one in found] == [frechet_distance(fit_gaussian(one), reference) for one in sets]
    spread = np.std([one.value for one in found], ddof=1)
    errors = np.array([one.stderr for one in found])
    assert errors.mean() == pytest.approx(spread, rel=0.21)  # a hundred sets know their spread to 7 %: 3 of these
    assert errors[0] == pytest.approx(frechet_error(sets[0], reference), rel=0.21)  # as do a hundred resamples
    assert found[0].extras["count"] == 400 and found[0].notes == ()


def test_the_reference_s_own_error_is_there_if_its_features_are():
    rng = np.random.default_rng(1)
    samples, true = rng.normal(size=(300, 4)) * [1, 2, 3, 4] + 1, rng.normal(size=(200, 4))
    found = frechet(samples, fit_gaussian(true), true)
    other = frechet(true, fit_gaussian(samples))
    assert found.value == pytest.approx(other.value, rel=1e-12)
    assert found.extras["reference_stderr"] == pytest.approx(other.stderr, rel=1e-5)
    assert found.extras["reference_count"] == 200


def test_few_pictures_are_said():
    rng = np.random.default_rng(2)
    reference = fit_gaussian(rng.normal(size=(50, 10)))
    (note,) = frechet(rng.normal(size=(10, 10)), reference).notes
    assert note.startswith("10 pictures for 10 features: their covariance has no full rank")
    assert frechet(rng.normal(size=(11, 10)), reference).notes == ()
    assert [note.split(" for")[0] for note in scarce(9, 10, 8)] == ["9 pictures", "8 reference pictures"]


def test_moments_have_the_same_distance():
    features = np.random.default_rng(3).normal(size=(40, 5))
    assert frechet_distance(fit_gaussian(features), fit_gaussian(moments.of(features))) < 1e-12
    with pytest.raises(UserError, match="at least 2 images of each kind, not 1"):
        fit_gaussian(moments.of(features[:1]))
    with pytest.raises(UserError, match="different features: 5 and 4"):
        frechet(features, fit_gaussian(features[:, :4]))
