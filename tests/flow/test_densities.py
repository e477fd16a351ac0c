import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flow import closed_forms
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rfjax.errors import UserError
from rfjax.flow import densities, paths

cosine_log_snr = lambda t: closed_forms.cosine(t)[4]  # noqa: E731


def log_normal_pdf(t):
    """p(lambda) |lambda'| on the cosine path, lambda = -2 log tan(pi t / 2)."""
    return stats.norm.pdf(-cosine_log_snr(t) / 2, 0.3, 0.8) * np.pi / np.sin(np.pi * t)


def shifted_mode_pdf(t):
    before = t / (3 - 2 * t)  # the inverse of 3 t / (1 + 2 t)
    return closed_forms.mode_pdf(before, 1.29) * 3 / (3 - 2 * t) ** 2


# name -> (density, its pdf in float64 from the paper's formula)
CASES = {
    "uniform": (densities.uniform(), np.ones_like),
    "lognorm(0,1)": (densities.lognorm(0.0, 1.0), lambda t: closed_forms.lognorm_pdf(t, 0, 1)),
    "lognorm(1,0.6)": (densities.lognorm(1.0, 0.6), lambda t: closed_forms.lognorm_pdf(t, 1, 0.6)),
    "lognorm(-1,2.2)": (densities.lognorm(-1.0, 2.2), lambda t: closed_forms.lognorm_pdf(t, -1, 2.2)),
    "mode(-1)": (densities.mode(-1.0), lambda t: closed_forms.mode_pdf(t, -1)),
    "mode(0)": (densities.mode(0.0), np.ones_like),
    "mode(1.29)": (densities.mode(1.29), lambda t: closed_forms.mode_pdf(t, 1.29)),
    "mode(1.75)": (densities.mode(1.75), lambda t: closed_forms.mode_pdf(t, 1.75)),
    "cosmap": (densities.cosmap(), closed_forms.cosmap_pdf),
    "log_normal": (densities.log_normal(paths.cosine(), 0.3, 0.8), log_normal_pdf),
    "shifted": (densities.shifted(densities.mode(1.29), 3.0), shifted_mode_pdf),
}
SPIKE = {"mode(1.75)": 0.5}  # pdf(1/2) = 904: float32 resolves it, coarsely, on its flanks only


def quadrature(pdf, nodes=4000):
    """(t, cumulative integral), by the substitution t = sigmoid(y), which resolves the tails."""
    y = np.linspace(-30, 30, 2 * nodes + 1)
    t = 1 / (1 + np.exp(-y))
    mass = pdf(t) * t * (1 - t)
    return t, np.concatenate([[0], np.cumsum(np.diff(y) * (mass[1:] + mass[:-1]) / 2)])


@pytest.mark.parametrize("name", CASES)
def test_the_pdf_is_the_papers(name):
    density, pdf = CASES[name]
    t = np.concatenate([10.0 ** np.arange(-6, -1), np.linspace(0.03, 0.97, 95), 1 - 10.0 ** np.arange(-5.0, -1)])
    if name in SPIKE:
        t = t[np.abs(t - 0.5) > 0.02]
    t = t.astype(np.float32)
    t64 = t.astype(float)
    # mode(-1) goes like 1 / (2 sqrt(1 - t)) at 1: bisection finds t to 2^-24.
    rtol = 5e-5 + (2.0**-24 / (1 - t64) if name == "mode(-1)" else 0)
    error = np.abs(np.asarray(density.pdf(jnp.asarray(t)), float) - pdf(t64))
    np.testing.assert_array_less(error, rtol * pdf(t64) + 1e-33)  # float32 ends


@pytest.mark.parametrize("name", CASES)
def test_the_pdf_integrates_to_one_and_the_quantile_inverts_the_integral(name):
    density, pdf = CASES[name]
    if name.startswith("mode(1.7"):
        u = np.linspace(0, 1, 20_001)  # as an integral over u: the spike is smooth there
        t = closed_forms.mode_u(np.linspace(0, 1, 3), 1.75)  # the reference's inverse, at its ends
        np.testing.assert_allclose(t, [1, 0.5, 0], atol=1e-12)
        t = 1 - u - 1.75 * (np.cos(np.pi * u / 2) ** 2 - 1 + u)
        mass = -np.trapezoid(pdf(t[1:-1]), t[1:-1])
        np.testing.assert_allclose(density.quantile(jnp.asarray(1 - u, jnp.float32)), t, atol=3e-7)
    else:
        t, cumulative = quadrature(pdf)
        mass = cumulative[-1]
        u = np.linspace(0.01, 0.99, 99)
        found = np.asarray(density.quantile(jnp.asarray(u, jnp.float32)), float)
        np.testing.assert_allclose(np.interp(found, t, cumulative), u, atol=1e-4)  # of the quadrature's interpolation
    assert mass == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_the_pdf_is_the_derivative_of_the_distribution(name):
    density, _ = CASES[name]
    u = jnp.linspace(0.05, 0.95, 18)  # 1/2 is not among them
    slope = jax.vmap(jax.grad(density.quantile))(u)
    np.testing.assert_allclose(density.pdf(density.quantile(u)) * slope, 1, rtol=5e-4)


@pytest.mark.parametrize("name", CASES)
def test_samples_agree_with_the_pdf(name):
    density, pdf = CASES[name]
    samples = np.asarray(density.sample(jax.random.key(0), (20_000,)))
    assert ((samples >= 0) & (samples <= 1)).all()
    t, cumulative = quadrature(pdf)
    if name.startswith("mode(1.7"):
        u = np.linspace(0, 1, 20_001)
        t, cumulative = (1 - u - 1.75 * (np.cos(np.pi * u / 2) ** 2 - 1 + u))[::-1], u
    assert stats.kstest(samples, lambda x: np.interp(x, t, cumulative)).pvalue > 1e-3


def test_discrete_steps_are_equally_likely():
    density = densities.steps(50)
    atoms = jnp.arange(1, 51) / 50
    assert float(density.pdf(atoms).sum()) == pytest.approx(1, rel=1e-6)
    samples = np.asarray(density.sample(jax.random.key(0), (20_000,)))
    found, counts = np.unique(samples, return_counts=True)
    np.testing.assert_allclose(found, atoms, rtol=1e-7)
    assert stats.chisquare(counts).pvalue > 1e-3
    shifted = densities.shifted(density, 3.0)
    moved = 3 * atoms / (1 + 2 * atoms)
    np.testing.assert_allclose(shifted.pdf(moved), 1 / 50, rtol=1e-6)
    np.testing.assert_allclose(np.unique(shifted.quantile((jnp.arange(100) + 0.5) / 100)), moved, rtol=1e-6)


@given(u=st.floats(2.0**-24, 1 - 2.0**-24, width=32), count=st.integers(1, 1000))
def test_a_step_is_one_of_the_steps_and_the_right_one(u, count):
    step = float(densities.steps(count).quantile(jnp.float32(u))) * count
    assert round(step) == pytest.approx(step, abs=1e-4)
    assert 1 <= round(step) <= count
    assert round(step) - 1 - 1e-4 <= u * count <= round(step) + 1e-4


def test_ldms_steps_reach_both_ends():
    u = densities.uniform_inside(jax.random.key(0), (100,))
    assert ((u > 0) & (u < 1)).all()
    ends = densities.steps().quantile(jnp.array([2.0**-24, 1 - 2.0**-24], jnp.float32))
    np.testing.assert_array_equal(ends, np.float32([1 / 1000, 1]))


def test_the_mode_density_by_hand():
    """pi(0) = 1 / (1 + s), pi(1/2) = 1 / (1 + s - s pi / 2): 3.79 for s = 1.29, 904 for 1.75 (facts, 2.1)."""
    middle, end = jnp.float32(0.5), jnp.float32(0)
    assert float(densities.mode(1.29).pdf(middle)) == pytest.approx(3.79, abs=5e-3)
    assert float(densities.mode(1.75).pdf(middle)) == pytest.approx(904, rel=2e-3)
    for s in (-0.9, 0.375, 1.29):
        assert float(densities.mode(s).pdf(end)) == pytest.approx(1 / (1 + s), rel=1e-5)
        u = jnp.linspace(0, 1, 11)
        quantile = densities.mode(s).quantile
        np.testing.assert_allclose(quantile(1 - u), 1 - quantile(u), atol=3e-7)
    densities.mode(densities.MODE_MAX)
    assert pytest.approx(1.75194, abs=1e-5) == densities.MODE_MAX


def test_cosmap_by_hand():
    found = densities.cosmap().pdf(jnp.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(found, [2 / np.pi, 4 / np.pi, 2 / np.pi], rtol=1e-6)
    u = np.linspace(0.05, 0.95, 19)
    expected = 1 - 1 / (np.tan(np.pi * u / 2) + 1)
    np.testing.assert_allclose(densities.cosmap().quantile(jnp.asarray(u, jnp.float32)), expected, rtol=1e-6)


def test_log_normal_is_the_logit_normal_of_rectified_flow_and_uniform_on_its_own_path():
    t = jnp.linspace(0.02, 0.98, 49)
    flat = densities.log_normal(paths.edm(-1.2, 1.2), -1.2, 1.2)
    np.testing.assert_allclose(flat.pdf(t), 1, rtol=1e-5)
    np.testing.assert_allclose(flat.quantile(t), t, rtol=1e-5)
    ours, theirs = densities.log_normal(paths.rf(), 0.5, 0.6), densities.lognorm(0.5, 0.6)
    np.testing.assert_allclose(ours.pdf(t), theirs.pdf(t), rtol=1e-4)
    np.testing.assert_allclose(ours.quantile(t), theirs.quantile(t), rtol=1e-5)
    repas = densities.log_normal(paths.cosine(), 0.0, 1.0)  # (2 / pi) atan(s), s = exp N(0, 1)
    expected = 2 / np.pi * np.arctan(np.exp(stats.norm.ppf(np.asarray(t, float))))
    np.testing.assert_allclose(repas.quantile(t), expected, rtol=2e-6)


@pytest.mark.parametrize(("m", "s", "alpha"), [(0.0, 1.0, 3.0), (-0.5, 0.6, 0.5)])
def test_a_shift_moves_the_logit_normal(m, s, alpha):
    """shifted(lognorm(m, s), alpha) is lognorm(m + log alpha, s) (facts, section 4)."""
    moved, expected = densities.shifted(densities.lognorm(m, s), alpha), densities.lognorm(m + np.log(alpha), s)
    t = jnp.linspace(0.02, 0.98, 49)
    np.testing.assert_allclose(moved.pdf(t), expected.pdf(t), rtol=1e-4)
    np.testing.assert_allclose(moved.quantile(t), expected.quantile(t), rtol=2e-6)
    assert float(densities.shift_time(jnp.float32(1), alpha)) == 1
    np.testing.assert_allclose(densities.shift_time(densities.shift_time(t, alpha), 1 / alpha), t, rtol=1e-6)


def test_samples_stay_inside_where_the_tails_are_heavy():
    t = np.asarray(densities.lognorm(0.0, 2.2).sample(jax.random.key(1), (100_000,)))
    assert np.isfinite(t).all()
    assert ((t > 0) & (t <= 1)).all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: densities.mode(2.0), r"mode density must be from -1 to 1\.7519, not 2"),
        (lambda: densities.mode(-1.1), r"mode density must be from -1 to 1\.7519, not -1\.1"),
        (lambda: densities.lognorm(0.0, 0.0), r"standard deviation s of the logit-normal density must be above 0"),
        (lambda: densities.lognorm(0.0, -1), r"must be above 0, not -1"),
        (lambda: densities.log_normal(paths.rf(), 0.0, 0.0), r"P_s must be above 0, not 0"),
        (lambda: densities.shifted(densities.uniform(), 0), r"shift alpha must be above 0, not 0"),
        (lambda: densities.shifted(densities.uniform(), -3.0), r"shift alpha must be above 0, not -3"),
        (lambda: densities.steps(0), r"number of discrete steps must be from 1, not 0"),
    ],
)
def test_numbers_out_of_range_are_refused(make, words):
    with pytest.raises(UserError, match=words):
        make()
