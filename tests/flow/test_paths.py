import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flow import closed_forms
from hypothesis import given
from hypothesis import strategies as st

from rfjax.errors import UserError
from rfjax.flow import paths

ULP = 2.0**-24  # half a float32 step, relative: one rounding
ENDS = [0, 1e-12, 1e-7, 1e-5, 1e-3, 0.01, 0.1]
TIMES = np.array([*ENDS, 0.25, 0.4, 0.5, 0.6, 0.75, *(1 - t for t in ENDS[::-1]), 1 - 6e-8, 1 - 1e-6], np.float32)
FIELDS = ("a", "b", "da", "db", "log_snr")


def check(path, times, expected):
    """Holds each function of a path to float64 within eight roundings times their condition.

    A value that is the exponential of something inherits the absolute error of that: |log value| roundings. A
    logarithm has the absolute error of its argument's relative one: at least a rounding of 1.
    """
    for denoiser, whole in zip(FIELDS, expected, strict=True):
        found = np.asarray(getattr(path, denoiser)(jnp.asarray(times)), float)
        finite = np.isfinite(whole)
        np.testing.assert_array_equal(found[~finite], whole[~finite], err_msg=f"{denoiser} at an end")
        found, reference, where = found[finite], whole[finite], times[finite]
        size = np.abs(reference)
        tiny = np.finfo(np.float32).tiny
        scale = np.maximum(size, 1) if denoiser == "log_snr" else size * (1 + np.abs(np.log(size + tiny)))
        error = np.abs(found - reference) / (scale + tiny) / ULP
        assert error.max() < 8, f"{denoiser}: {error.max():.1f} roundings at t = {where[error.argmax()]!r}"


@pytest.mark.parametrize("name", paths.PATHS)
def test_a_path_is_its_closed_form_up_to_both_ends(name):
    times = TIMES
    if name in ("linear", "ddpm"):  # beta jumps at multiples of 1/1000, which float32 does not have: see below
        times = times[np.abs(times * 1000 - np.round(times * 1000)) > 1e-2]
        times = np.append(times, np.float32([0, 5e-4, 0.0105, 0.5005, 0.9995]))
    check(paths.PATHS[name](), times, closed_forms.PATHS[name](times.astype(float)))


@pytest.mark.parametrize(("mean", "std"), [(1.2, 0.6), (0.0, 1.8), (-1.2, 1.8)])
def test_edm_is_its_closed_form_for_other_sigmas(mean, std):
    check(paths.edm(mean, std), TIMES, closed_forms.edm(TIMES.astype(float), mean, std))


@pytest.mark.parametrize("name", ["rf", "cosine"])
def test_the_ends_are_exactly_data_and_noise(name):
    path, ends = paths.PATHS[name](), jnp.array([0.0, 1.0])
    np.testing.assert_array_equal(path.a(ends), [1, 0])
    np.testing.assert_array_equal(path.b(ends), [0, 1])
    np.testing.assert_array_equal(path.log_snr(ends), [np.inf, -np.inf])
    np.testing.assert_array_equal(path.time(jnp.array([np.inf, -np.inf])), [0, 1])


@pytest.mark.parametrize("name", paths.PATHS)
def test_derivatives_are_those_of_automatic_differentiation(name):
    path = paths.PATHS[name]()
    times = jnp.asarray(np.linspace(0.0205, 0.9805, 49), jnp.float32)  # between LDM's steps
    # The chain rule's own rounding: it multiplies exp(L) - 1 + 1 by a slope of up to 10 where VP's b is flat.
    for value, slope in ((path.a, path.da), (path.b, path.db)):
        np.testing.assert_allclose(jax.vmap(jax.grad(value))(times), slope(times), rtol=3e-6, atol=10 * ULP)
    for rate, slope in ((path.da_ds, path.da), (path.db_ds, path.db)):
        if rate is not None:
            # Half way between LDM's steps three slopes are averaged: a quarter of their second difference off.
            exact = jax.vmap(jax.grad(path.s))(times)
            np.testing.assert_allclose(rate(times) * exact, slope(times), rtol=3e-6 if name[:3] == "edm" else 1e-5)
    slope = 2 * (path.da(times) / path.a(times) - path.db(times) / path.b(times))
    np.testing.assert_allclose(jax.vmap(jax.grad(path.log_snr))(times), slope, rtol=2e-5)
    assert (slope < 0).all()


@pytest.mark.parametrize("name", paths.PATHS)
def test_time_is_the_inverse_of_the_log_snr(name):
    """Within what rounding lambda to float32 does to t: |dt| = |dlambda| / |lambda'|, plus the rounding of t."""
    path = paths.PATHS[name]()
    times = np.unique(np.concatenate([TIMES, np.linspace(0, 1, 1001, dtype=np.float32), 10.0 ** np.arange(-12, 0)]))
    times = times.astype(np.float32)
    a, b, da, db, log_snr = closed_forms.PATHS[name](times.astype(float))
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = 2 * np.abs(da / a - db / b)
        rounding = np.maximum(np.abs(log_snr), 1) * ULP / slope
    back = np.asarray(path.time(path.log_snr(jnp.asarray(times))), float)
    allowed = 8 * (times * ULP + np.where(np.isfinite(rounding), rounding, 0)) + ULP * (times > 0.5)
    np.testing.assert_array_less(np.abs(back - times), allowed + 1e-30)


@given(t=st.floats(1e-6, 1 - 1e-6), step=st.floats(1e-4, 0.1), name=st.sampled_from(sorted(paths.PATHS)))
def test_the_log_snr_falls(t, step, name):
    path = paths.PATHS[name]()
    assert path.log_snr(jnp.float32(t)) > path.log_snr(jnp.float32(min(t * (1 + step), 1)))


def test_ldm_is_the_product_of_its_betas_at_every_step():
    path, times = paths.linear(), jnp.arange(1, 1001) / 1000
    found = np.asarray(path.a(times), float) ** 2
    # log abar is rounded to float32 (5.4 at most, so 5.4 ULP) and once more in the step: a dozen roundings of abar.
    np.testing.assert_allclose(found, closed_forms.ALPHA_BAR, rtol=16 * ULP)
    np.testing.assert_allclose(np.asarray(path.b(times), float) ** 2, 1 - closed_forms.ALPHA_BAR, rtol=16 * ULP)
    assert found[-1] == pytest.approx(0.0046601, abs=5e-8)
    assert float(path.a(jnp.float32(1))) == pytest.approx(0.068265, abs=5e-7)
    np.testing.assert_allclose(path.log_snr(times[jnp.array([0, -1])]), [7.069, -5.364], atol=5e-4)


def test_ddpm_ends_where_dit_s_schedule_does():
    """abar_999 = 4.0358e-5 for 1,000 betas from 0.0001 to 0.02 (Ho et al. 2020: "L_T is near 1e-5")."""
    path, times = paths.ddpm(), jnp.arange(1, 1001) / 1000
    np.testing.assert_allclose(
        np.asarray(path.a(times), float) ** 2, np.cumprod(1 - closed_forms.DDPM_BETAS), rtol=24 * ULP
    )
    assert float(path.a(jnp.float32(1))) ** 2 == pytest.approx(4.0358e-5, rel=1e-4)


def test_ldm_is_continuous_and_its_slope_one_of_its_betas_at_a_step():
    """Where beta jumps, either side's will do; inside a step beta is constant."""
    path = paths.linear()
    times = np.arange(1, 1000, dtype=np.float32) / np.float32(1000)
    slope = np.asarray(2 * path.da(jnp.asarray(times)) / path.a(jnp.asarray(times)), float)
    sides = 1000 * np.log1p(-closed_forms.LDM_BETAS)
    near = np.minimum(np.abs(slope / sides[:-1] - 1), np.abs(slope / sides[1:] - 1))
    assert near.max() < 16 * ULP
    before, after = np.nextafter(times, np.float32(0)), np.nextafter(times, np.float32(1))
    jump = np.asarray(path.a(jnp.asarray(before)) / path.a(jnp.asarray(after)), float) - 1
    assert np.abs(jump).max() < 32 * ULP  # 12 / 2 times the two float32 steps of t, and the rounding of a


def test_edm_paths_share_the_log_snr_of_their_models():
    times = jnp.asarray(TIMES)
    for exploding, model in (("edm/rf", "rf"), ("edm/cos", "cosine")):
        found, expected = (paths.PATHS[name]().log_snr(times) for name in (exploding, model))
        np.testing.assert_array_equal(found, expected)


def test_vp_is_sits_in_our_direction_of_time():
    """SiT: log mean coefficient -1/4 (1 - t)^2 (20 - 0.1) - 1/2 (1 - t) 0.1, t = 0 noise (facts of REPA, 1.1)."""
    for t in (0.0, 0.25, 0.5, 1.0):
        log_mean = -0.25 * (1 - t) ** 2 * (20 - 0.1) - 0.5 * (1 - t) * 0.1
        assert float(paths.vp().a(jnp.float32(1 - t))) == pytest.approx(np.exp(log_mean), rel=1e-6)


@pytest.mark.parametrize("std", [0.0, -1.0])
def test_edm_needs_a_positive_deviation(std):
    with pytest.raises(UserError, match=r"P_s must be above 0, not"):
        paths.edm(0.0, std)
