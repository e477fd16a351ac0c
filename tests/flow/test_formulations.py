import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flow import closed_forms
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rfjax import flow
from rfjax.errors import UserError
from rfjax.flow.formulations import KINDS
from rfjax.names import join

# SD3's Table 1 and Table 2 (facts, 2.4 and 2.5); mode(1.29) is the paper's 1.2917 in two decimals
PAPERS_TABLE_1 = (
    *("rf/lognorm(0.00, 1.00)", "rf/lognorm(1.00, 0.60)", "rf/lognorm(0.50, 0.60)", "rf/mode(1.29)"),
    *("rf/lognorm(0.50, 1.00)", "eps/linear", "rf/mode(1.75)", "rf/cosmap", "edm(0.00, 0.60)", "rf", "v/linear"),
    *("edm(0.60, 1.20)", "v/cos", "edm/cos", "edm/rf", "edm(-1.20, 1.20)"),
)
PAPERS_TABLE_2 = (
    *("rf", "edm(-1.20, 1.20)", "eps/linear", "v/cos", "v/linear", "rf/lognorm(0.50, 0.60)", "rf/mode(1.75)"),
    *("rf/lognorm(1.00, 0.60)", "rf/lognorm(-0.50, 1.00)", "rf/lognorm(0.00, 1.00)"),
)
EXAMPLES = {"rf/lognorm": (0.5, 0.6), "rf/mode": (1.29,), "edm": (-0.6, 1.8)}
SIGMA_DATA = closed_forms.SIGMA_DATA


@pytest.mark.parametrize(
    "name", ["rf/lognorm(0.00,1.00)", "rf/lognorm(0, 1)", " RF/LogNorm( 0.0 ,1 ) ", "rf/lognorm (0,1.)"]
)
def test_a_name_is_read_as_a_person_types_it(name):
    assert flow.formulation(name).name == "rf/lognorm(0.00,1.00)"


def test_the_two_decimals_are_the_papers_and_more_are_kept():
    assert flow.formulation("edm").name == "edm(-1.20,1.20)"
    assert flow.formulation("edm()").parameters == (-1.2, 1.2)
    assert flow.formulation("rf/mode(1.2917)").name == "rf/mode(1.2917)"
    assert flow.formulation("rf/mode(1e0)").name == "rf/mode(1.00)"


@given(m=st.floats(-5, 5), s=st.floats(0.1, 5))
def test_a_canonical_name_means_itself(m, s):
    made = flow.formulation(join("rf/lognorm", (m, s)))
    assert made.parameters == (m, s)
    assert flow.formulation(made.name).name == made.name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rf/lognrm(0,1)", "no formulation 'rf/lognrm\\(0,1\\)' \\(did you mean 'rf/lognorm'"),
        ("v/line", "did you mean 'v/linear'"),
        ("sit/lin", "did you mean 'sit/linear'"),
        ("rf/lognorm(0)", r"has 1 parameters, but the formulation is written rf/lognorm\(m, s\)"),
        ("rf/lognorm", r"has 0 parameters, but the formulation is written rf/lognorm\(m, s\)"),
        ("edm(1)", r"written edm\(P_m, P_s\)"),
        ("rf/lognorm(a,b)", "must be numbers"),
        ("rf/lognorm(0,)", "must be numbers"),
        ("rf/lognorm(nan,1)", "must be finite"),
        ("rf/lognorm(0,inf)", "must be finite"),
        ("rf/lognorm(0,-1)", "standard deviation s of the logit-normal density must be above 0"),
        ("rf/mode(2)", r"from -1 to 1\.7519"),
        ("edm(0,0)", "P_s must be above 0"),
        ("rf(1)", "written rf"),
        ("rf(", "no formulation"),
        ("", "write it like"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest_right_one(name, words):
    with pytest.raises(UserError, match=words):
        flow.formulation(name)


def test_a_shift_must_be_positive():
    with pytest.raises(UserError, match="shift alpha must be above 0"):
        flow.formulation("rf", shift=0.0)


def test_table_1_has_the_papers_61():
    assert len(flow.TABLE_1) == len(set(flow.TABLE_1)) == 61
    made = [flow.formulation(name) for name in flow.TABLE_1]
    assert tuple(one.name for one in made) == flow.TABLE_1
    families = {"diffusion": 0, "rf/mode": 0, "rf/lognorm": 0, "rf/cosmap": 0, "edm": 0, "edm/match": 0}
    for one in made:
        family = {"rf": "rf/mode", "edm/rf": "edm/match", "edm/cos": "edm/match"}.get(one.kind, one.kind)
        families["diffusion" if re.match("(eps|v)/", one.kind) else family] += 1
    assert list(families.values()) == [4, 9, 30, 1, 15, 2]
    for name in PAPERS_TABLE_1 + PAPERS_TABLE_2:
        assert flow.formulation(name).name in flow.TABLE_1


def test_presets_are_those_of_the_codes():
    t = jnp.array([0.25, 0.75])
    for preset, paper in {"sit/linear": "rf", "repa/linear": "rf", "repa/linear/lognormal": "rf/lognorm(0,1)"}.items():
        ours, theirs = flow.formulation(preset), flow.formulation(paper)
        assert ours.prediction == "velocity"
        for found, expected in zip(ours.coefficients(t), theirs.coefficients(t), strict=True):
            np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(ours.quantile(t), theirs.quantile(t), rtol=1e-6)
    for preset in ("sit/gvp", "repa/cosine", "repa/cosine/lognormal"):  # facts of REPA, 1.1 and 1.2
        made = flow.formulation(preset)
        assert made.prediction == "velocity"
        np.testing.assert_allclose(made.coefficients(t).p, -np.pi / 2 * np.sin(np.pi * t / 2), rtol=1e-6)
    scale = np.exp(stats.norm.ppf(np.asarray(t, float)))
    made = flow.formulation("repa/cosine/lognormal")
    np.testing.assert_allclose(made.quantile(t), 2 / np.pi * np.arctan(scale), rtol=1e-6)
    assert float(flow.formulation("sit/vp").coefficients(jnp.float32(0)).t) == np.float32(1e-5)


EDM_RF = lambda log_snr: np.exp(-log_snr / 2) / (1 + np.exp(-log_snr / 2)) ** 2 / 2  # noqa: E731  density of lambda
EDM_COS = lambda log_snr: 1 / np.cosh(log_snr / 2) / (2 * np.pi)  # noqa: E731


def closed_weight(name, t):
    """w_t up to a constant, from the facts' table in 1.1, in float64."""
    made = flow.formulation(name)
    kind, numbers = made.kind, made.parameters
    preconditioned = lambda log_snr: np.exp(-log_snr) + SIGMA_DATA**2  # noqa: E731
    if kind.endswith("linear"):
        a, b, da, db, _ = closed_forms.linear(t)
        slope = 2 * (da / a - db / b)
        return -2 / slope / (a**2 if kind.startswith("v/") else 1)
    if kind.endswith("/cos") and not kind.startswith("edm"):
        log_snr = closed_forms.cosine(t)[4]
        return 1 / np.cosh(log_snr / 2) if kind == "eps/cos" else np.exp(-log_snr / 2)
    if kind == "edm":
        log_snr = closed_forms.edm(t, *numbers)[4]
        return stats.norm.pdf(log_snr, -2 * numbers[0], 2 * numbers[1]) * preconditioned(log_snr)
    if kind in ("edm/rf", "edm/cos"):
        log_snr = closed_forms.PATHS[kind](t)[4]
        return (EDM_RF if kind == "edm/rf" else EDM_COS)(log_snr) * preconditioned(log_snr)
    pdf = {
        "rf": np.ones_like,
        "rf/lognorm": closed_forms.lognorm_pdf,
        "rf/mode": closed_forms.mode_pdf,
        "rf/cosmap": closed_forms.cosmap_pdf,
    }[kind]
    return t / (1 - t) * pdf(t, *numbers)


@pytest.mark.parametrize("name", flow.TABLE_1)
def test_the_loss_weight_is_the_papers(name):
    t = np.array([0.0105, 0.0505, 0.1005, 0.2505, 0.4005, 0.5505, 0.6305, 0.8005, 0.9305, 0.9895], np.float32)
    expected = closed_weight(name, t.astype(float))
    ratio = np.asarray(flow.formulation(name).weight(jnp.asarray(t)), float) / expected
    kept = expected > 1e-25  # a narrow logit-normal underflows in float32
    assert kept.sum() >= 5
    # mode(-1), the worst: its pdf has the relative error 2^-24 / (1 - t) of bisection. exp(-x) has |x| 2^-24.
    np.testing.assert_allclose(ratio[kept] / np.median(ratio[kept]), 1, rtol=3e-5)


@pytest.mark.parametrize(
    "name", ["rf", "rf/lognorm(0.50,0.60)", "edm(-1.20,1.20)", "eps/cos", "v/cos", "eps/linear", "v/linear"]
)
def test_the_loss_weight_is_what_an_error_in_eps_costs(name):
    """-1/2 w lambda' delta^2 = pdf * loss, for a network whose noise is off by delta at every z (SD3 section 3)."""
    made, delta = flow.formulation(name), 0.3
    t = jnp.array([0.1005, 0.3005, 0.5005, 0.8005])
    at = made.coefficients(t)
    x0, eps = (jax.random.normal(jax.random.key(k), (4, 6)) for k in (0, 1))

    def network(shown, time):
        """Says what is true of z for the noise eps + delta, and so for the data (z - b (eps + delta)) / a."""
        wrong = eps + delta
        z = shown / at.scale[:, None]
        return at.p[:, None] * (z - at.b[:, None] * wrong) / at.a[:, None] + at.q[:, None] * wrong

    loss = flow.cfm_loss(network, at, x0, eps)
    slope = jax.vmap(jax.grad(made.path.log_snr))(t)
    pdf = 1 / 1000 if name.endswith("linear") else made.density.pdf(t)
    np.testing.assert_allclose(-made.weight(t) * slope / 2 * delta**2, pdf * loss, rtol=2e-4)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_numbers_are_the_formulation_and_one_compilation_serves_all(shift):
    times = jnp.array([0.0105, 0.25, 0.5005, 0.9, 0.999])
    traces = []

    @jax.jit
    def ask(numbers, t):
        traces.append(1)
        return numbers.coefficients(t), numbers.quantile(t), numbers.time_of_sigma(80 * t)

    for kind in KINDS:
        made = flow.formulation(join(kind, EXAMPLES.get(kind, ())), shift)
        coefficients, quantile, time = ask(made.arrays, times)
        # XLA may fuse a product and a sum into one rounding; EDM's exponents reach 10.
        for denoiser, found, expected in zip(coefficients._fields, coefficients, made.coefficients(times), strict=True):
            np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-7, err_msg=f"{kind} {denoiser}")
        np.testing.assert_allclose(quantile, made.quantile(times), rtol=2e-6, err_msg=kind)
        np.testing.assert_allclose(time, made.time_of_sigma(80 * times), rtol=4e-6, err_msg=kind)
    assert len(traces) == 1


def test_the_kinds_examples_cover_all_that_have_numbers():
    assert {kind for kind, made in KINDS.items() if made.parameters} == set(EXAMPLES)


@pytest.mark.parametrize("kind", KINDS)
def test_every_draw_of_training_has_finite_coefficients(kind):
    """At the first and the last u that can be drawn, for both ends of the table's deviations."""
    u = jnp.array([2.0**-24, 1e-3, 0.5, 1 - 1e-3, 1 - 2.0**-24], jnp.float32)
    members = {"rf/lognorm": [(1.0, 2.2), (-1.0, 2.2)], "rf/mode": [(-1.0,), (1.75,)], "edm": [(1.2, 1.8), (-1.2, 1.8)]}
    for numbers in members.get(kind, [()]):
        made = flow.formulation(join(kind, numbers))
        at = made.coefficients(made.quantile(u))
        for denoiser in ("t", "a", "b", "p", "q", "scale", "time"):
            assert np.isfinite(getattr(at, denoiser)).all(), (kind, numbers, denoiser)


def test_edms_network_sees_what_edm_shows_it():
    """c_in z and c_noise = log(sigma) / 4 (Karras et al. 2022, Table 1)."""
    made = flow.formulation("edm")
    t = jnp.array([0.1, 0.5, 0.9])
    at, sigma = made.coefficients(t), np.exp(-1.2 + 1.2 * stats.norm.ppf(np.asarray(t, float)))
    np.testing.assert_allclose(at.scale, 1 / np.sqrt(sigma**2 + 0.25), rtol=2e-6)
    np.testing.assert_allclose(at.time, np.log(sigma) / 4, rtol=2e-6, atol=2e-7)
    np.testing.assert_allclose(made.time_of_sigma(jnp.asarray(sigma, jnp.float32)), t, rtol=2e-6)
    x0, eps = (jax.random.normal(jax.random.key(k), (3, 5)) for k in (0, 1))
    shown, target = flow.noised(at, x0, eps)
    z = x0 + sigma[:, None] * eps
    np.testing.assert_allclose(shown, z / np.sqrt(sigma**2 + 0.25)[:, None], rtol=1e-5, atol=1e-6)
    # EDM trains D = c_skip z + c_out F towards x0, so F is to be (x0 - c_skip z) / c_out
    skip, out = 0.25 / (sigma**2 + 0.25), sigma * 0.5 / np.sqrt(sigma**2 + 0.25)
    np.testing.assert_allclose(target, (x0 - skip[:, None] * z) / out[:, None], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["edm", "edm/rf", "edm/cos", "rf", "v/cos"])
def test_the_rate_is_the_slope_by_the_clock(name):
    """dz/dsigma = (z - D) / sigma = eps for EDM; dz/dt for the others."""
    at = flow.formulation(name).coefficients(jnp.array([0.01, 0.3, 0.9]))
    if name.startswith("edm"):
        np.testing.assert_allclose(at.da_ds, 0)
        np.testing.assert_allclose(at.db_ds, 1, rtol=1e-6)
        np.testing.assert_array_equal(at.s, at.b)
    else:
        _, _, da, db, _ = closed_forms.PATHS[{"v/cos": "cosine"}.get(name, name)](np.asarray(at.t, float))
        np.testing.assert_allclose(at.da_ds, da, rtol=1e-6)
        np.testing.assert_allclose(at.db_ds, db, rtol=1e-6)
        np.testing.assert_array_equal(at.s, at.t)


def test_sampling_starts_at_noise_or_where_sigma_is_80():
    for name in flow.TABLE_1:
        made = flow.formulation(name)
        at = made.coefficients(made.start)
        if not made.cut:
            assert float(made.start) == 1
        elif float(made.start) < 1 - 1e-5:
            assert float(at.b / at.a) == pytest.approx(80, rel=2e-2), name  # t has 2^-24 of 1 - t = 1e-5
        else:
            assert 1 < float(at.b / at.a) < 82, name


def test_times_outside_the_unit_interval_are_refused():
    made = flow.formulation("rf")
    for t, written in ((1.01, "1.01"), (-0.1, "-0.1"), (np.nan, "nan")):
        with pytest.raises(UserError, match=rf"times go from 0 \(data\) to 1 \(noise\), and {written} lies outside"):
            made.coefficients(jnp.array([0.5, t]))
