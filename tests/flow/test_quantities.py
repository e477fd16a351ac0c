import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flow import closed_forms
from hypothesis import given
from hypothesis import strategies as st

from rfjax.errors import UserError
from rfjax.flow.paths import PATHS
from rfjax.flow.quantities import QUANTITIES, convert, mix, path_values

ULP = 2.0**-24
TIMES = np.array([1e-3, 0.0105, 0.1005, 0.2505, 0.5005, 0.7505, 0.9005, 0.9895, 1 - 1e-3 / 2], np.float32)
SIGMA_DATA = closed_forms.SIGMA_DATA
NAMES = sorted(QUANTITIES)


def mixes(a, b, da, db):
    """(P, Q) of each quantity P x0 + Q eps, in float64, as the facts write them (sigma = b / a)."""
    one, sigma = np.ones_like(a), b / a
    norm = np.sqrt(sigma**2 + SIGMA_DATA**2)
    return {
        "x0": (one, 0 * one),
        "eps": (0 * one, one),
        "velocity": (da, db),
        "v": (-b, a),
        "score": (0 * one, -1 / b),
        "F": (sigma / (SIGMA_DATA * norm), -(SIGMA_DATA**2) / (SIGMA_DATA * norm)),
    }


def case(name, times, seed=0):
    """The path's coefficients, and data, noise and z in float64 for each time."""
    a, b, da, db, _ = closed_forms.PATHS[name](times.astype(float))
    x0, eps = np.random.default_rng(seed).normal(size=(2, *times.shape, 4)).astype(np.float32).astype(float)
    return (a, b, da, db), x0, eps, a[:, None] * x0 + b[:, None] * eps


def bound(at, source, target, z, value):
    """A bound of the rounding error of solving for x0 and eps: products and differences, each within 8 roundings.

    A coefficient c that is an exponential has 1 + |log c| of them (see test_paths).
    """
    (p, q), (p_target, q_target) = mixes(*at)[source], mixes(*at)[target]
    a, b = at[:2]
    determinant = np.abs(a * q - b * p)
    condition = (np.abs(a * q) + np.abs(b * p)) / determinant
    of_z = (np.abs(p_target * q) + np.abs(q_target * p)) / determinant * condition
    of_value = (np.abs(q_target * a) + np.abs(p_target * b)) / determinant * condition
    logarithms = [np.abs(np.log(np.maximum(np.abs(c), 1e-30))) for c in at]
    of_coefficients = 1 + np.max([np.where(c == 0, 0, x) for c, x in zip(at, logarithms, strict=True)], axis=0)
    return 8 * ULP * of_coefficients[:, None] * (of_z[:, None] * np.abs(z) + of_value[:, None] * np.abs(value))


@pytest.mark.parametrize("name", PATHS)
def test_every_quantity_becomes_every_other_and_back(name):
    at, x0, eps, z = case(name, TIMES)
    ours = path_values(PATHS[name](), jnp.asarray(TIMES))
    pairs = [(source, target) for source in NAMES for target in NAMES]

    @jax.jit
    def both_ways(values, z, ours):
        there = {pair: convert(values[pair[0]], z, ours, *pair) for pair in pairs}
        return there, {pair: convert(there[pair], z, ours, *pair[::-1]) for pair in pairs}

    values = {k: p[:, None] * x0 + q[:, None] * eps for k, (p, q) in mixes(*at).items()}
    as_float32 = {k: jnp.asarray(v, jnp.float32) for k, v in values.items()}
    there, back = both_ways(as_float32, jnp.asarray(z, jnp.float32), ours)
    for source, target in pairs:
        error = bound(at, source, target, z, values[source])
        np.testing.assert_array_less(np.abs(there[source, target] - values[target]), error + 1e-30)
        (p, q), (p_back, q_back) = mixes(*at)[target], mixes(*at)[source]
        grows = np.abs((q_back * at[0] - p_back * at[1]) / (at[0] * q - at[1] * p))[:, None]
        error = grows * error + bound(at, target, source, z, values[target])
        np.testing.assert_array_less(np.abs(back[source, target] - values[source]), error + 1e-30)


@pytest.mark.parametrize("name", PATHS)
def test_the_mixes_are_those_of_the_facts(name):
    at, *_ = case(name, TIMES)
    ours = path_values(PATHS[name](), jnp.asarray(TIMES))
    for quantity, (p, q) in mixes(*at).items():
        found = mix(quantity, ours)
        np.testing.assert_allclose(found[0], p, rtol=1e-5, err_msg=quantity)
        np.testing.assert_allclose(found[1], q, rtol=1e-5, err_msg=quantity)


@given(
    t=st.floats(1e-3, 1 - 1e-3),
    z=st.floats(-10, 10),
    value=st.floats(-10, 10),
    source=st.sampled_from(NAMES),
    target=st.sampled_from(NAMES),
    name=st.sampled_from(sorted(PATHS)),
)
def test_there_and_back_is_nothing(t, z, value, source, target, name):
    """For any value, not only those that some x0 and eps of moderate size have."""
    times = np.float32([t])
    at = tuple(np.asarray(x) for x in case(name, times)[0])
    ours = path_values(PATHS[name](), jnp.asarray(times))
    given_z, given_value = (jnp.full((1, 1), x, jnp.float32) for x in (z, value))
    there = convert(given_value, given_z, ours, source, target)
    back = convert(there, given_z, ours, target, source)
    (p, q), (p_back, q_back) = mixes(*at)[target], mixes(*at)[source]
    grows = np.abs((q_back * at[0] - p_back * at[1]) / (at[0] * q - at[1] * p))[:, None]
    error = grows * bound(at, source, target, np.array([[z]]), np.array([[value]]))
    error += bound(at, target, source, np.array([[z]]), np.asarray(there, float))
    # LDM's slope jumps at multiples of 1/1000, on whose sides ours and the reference may stand: a slope enters bounds
    # only, and by 1 %.
    assert abs(float(back[0, 0]) - value) <= 1.1 * float(error[0, 0]) + 1e-6


def test_rectified_flow_by_hand():
    """x0 = z - t v, eps = z + (1 - t) v, score = -(z + (1 - t) v) / t (facts of REPA, 1.3)."""
    _, x0, eps, z = case("rf", TIMES)
    at, t, v = path_values(PATHS["rf"](), jnp.asarray(TIMES)), TIMES[:, None], jnp.asarray(eps - x0, jnp.float32)
    z = jnp.asarray(z, jnp.float32)
    np.testing.assert_allclose(convert(v, z, at, "velocity", "x0"), z - t * v, atol=2e-6)
    np.testing.assert_allclose(convert(v, z, at, "velocity", "eps"), z + (1 - t) * v, atol=2e-6)
    np.testing.assert_allclose(convert(v, z, at, "velocity", "score"), -(z + (1 - t) * v) / t, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["rf", "cosine"])
def test_the_score_is_that_of_repas_code(name):
    """get_score_from_velocity: r = a / a', var = b^2 - r b' b, score = (r v - z) / var."""
    (a, b, da, db), x0, eps, z = case(name, TIMES)
    velocity = da[:, None] * x0 + db[:, None] * eps
    ratio = a / da
    expected = (ratio[:, None] * velocity - z) / (b**2 - ratio * db * b)[:, None]
    at = path_values(PATHS[name](), jnp.asarray(TIMES))
    found = convert(jnp.asarray(velocity, jnp.float32), jnp.asarray(z, jnp.float32), at, "velocity", "score")
    assert np.max(np.abs(found - expected) / bound((a, b, da, db), "velocity", "score", z, velocity)) < 1


def test_the_velocity_of_the_cosine_path_is_half_pi_times_v():
    _, x0, _, z = case("cosine", TIMES)
    at, v = path_values(PATHS["cosine"](), jnp.asarray(TIMES)), jnp.asarray(x0, jnp.float32)  # any numbers do
    np.testing.assert_allclose(
        convert(v, jnp.asarray(z, jnp.float32), at, "v", "velocity"), np.pi / 2 * v, rtol=4e-6, atol=1e-6
    )


@pytest.mark.parametrize("name", ["edm", "edm/rf", "edm/cos"])
def test_data_from_f_is_edms_preconditioning(name):
    """D = c_skip z + c_out F, for any F, and dz / dsigma = (z - D) / sigma (Karras et al. 2022)."""
    (_, sigma, _, dsigma), _, value, z = case(name, TIMES)
    sigma, dsigma = sigma[:, None], dsigma[:, None]
    skip = SIGMA_DATA**2 / (sigma**2 + SIGMA_DATA**2)
    out = sigma * SIGMA_DATA / np.sqrt(sigma**2 + SIGMA_DATA**2)
    denoised = skip * z + out * value
    at = path_values(PATHS[name](), jnp.asarray(TIMES))
    f, z32 = jnp.asarray(value, jnp.float32), jnp.asarray(z, jnp.float32)
    size = skip * np.abs(z) + out * np.abs(value)
    assert np.max(np.abs(convert(f, z32, at, "F", "x0") - denoised) / size) < 32 * ULP
    slope = (z - denoised) / sigma
    size = (np.abs(z) + size) / sigma * dsigma
    assert np.max(np.abs(convert(f, z32, at, "F", "velocity") - slope * dsigma) / size) < 1e-5  # dsigma: 8.8e-6 at most


def test_a_wrong_name_is_answered_with_the_nearest():
    at = path_values(PATHS["rf"](), jnp.float32(0.5))
    with pytest.raises(UserError, match=r"no quantity 'velocty' \(did you mean 'velocity'\?\)"):
        mix("velocty", at)
