import numpy as np
import pytest

from rfjax.errors import UserError
from rfjax.evaluation.statistics.extrapolation import frechet_infinity
from rfjax.evaluation.statistics.frechet import Gaussian, fit_gaussian, frechet_distance


def test_it_is_the_intercept_of_the_line_through_fifteen_sizes():
    """dgm-eval's steps, with its own generator seeded as ours."""
    features = np.random.default_rng(0).normal(size=(300, 3))
    reference = Gaussian(np.ones(3), 2 * np.eye(3), 0)
    found = frechet_infinity(features, reference, seed=7)
    rng, sizes = np.random.default_rng(7), np.linspace(30, 300, 15).astype(int)
    values = [frechet_distance(fit_gaussian(rng.choice(features, n, replace=False)), reference) for n in sizes]
    slope, intercept = np.polyfit(1 / sizes, values, 1)
    assert found.value == pytest.approx(intercept, rel=1e-9)
    assert found.extras["slope"] == pytest.approx(slope, rel=1e-9)
    assert found.extras["at_count"] == pytest.approx(frechet_distance(fit_gaussian(features), reference), rel=1e-9)


def test_the_bias_of_small_samples_is_gone_and_the_error_is_the_spread():
    """The distance of the distributions is 4.5: the shift's 3 and 6 of (2 - sqrt 2.25)^2."""
    rng, reference = np.random.default_rng(1), Gaussian(np.zeros(6), 2.25 * np.eye(6), 0)
    true = 3 + 6 * (2 - 1.5) ** 2
    sets = [rng.normal(np.sqrt(0.5), 2, (200, 6)) for _ in range(60)]
    found = [frechet_infinity(one, reference, seed=place) for place, one in enumerate(sets)]
    values = np.array([one.value for one in found])
    plain = np.array([one.extras["at_count"] for one in found])
    assert abs(values.mean() - true) < 3 * values.std(ddof=1) / np.sqrt(60) + 0.02
    assert plain.mean() - true > 0.1
    # Sixty sets know their spread to 9 %.
    assert np.mean([one.stderr for one in found]) == pytest.approx(values.std(ddof=1), rel=0.3)


def test_few_pictures_are_refused_or_said():
    reference = Gaussian(np.zeros(4), np.eye(4), 0)
    with pytest.raises(UserError, match="at least 20"):
        frechet_infinity(np.zeros((19, 4)), reference)
    (note,) = frechet_infinity(np.random.default_rng(0).normal(size=(40, 4)), reference).notes
    assert note.startswith("4 pictures for 4 features")
