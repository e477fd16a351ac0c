import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfjax import flow
from rfjax.errors import UserError
from rfjax.flow.schedules import of_times

RF = flow.formulation("rf")


def test_the_uniform_grid_goes_from_noise_to_data():
    schedule = flow.schedule("uniform", 4, RF)
    np.testing.assert_array_equal(schedule.times, [1, 0.75, 0.5, 0.25, 0])
    assert schedule.steps == 4


def test_a_shift_composes_with_the_schedule():
    """SD3's Eq. 23 on linspace(1, 0, N + 1): the last step goes from 0.0577 (N = 50) or 0.1 (N = 28) (facts, 6)."""
    t, inside = np.linspace(1, 0, 51), np.linspace(1, 0, 51)[1:-1]
    schedule = flow.schedule("uniform", 50, RF, shift=3.0)
    np.testing.assert_allclose(schedule.times, 3 * t / (1 + 2 * t), rtol=1e-6)
    assert float(schedule.times[-2]) == pytest.approx(0.0577, abs=5e-5)
    assert float(flow.schedule("uniform", 28, RF, shift=3.0).times[-2]) == pytest.approx(0.1, abs=1e-6)
    np.testing.assert_allclose(
        RF.path.log_snr(schedule.times[1:-1]), 2 * np.log((1 - inside) / inside) - 2 * np.log(3), atol=1e-5
    )


def test_the_discrete_grid_has_multiples_of_a_thousandth():
    """LDM's trailing steps: 1000 / N apart from the last one, 999 of 0 ... 999 or t = 1 here."""
    flow_ = flow.formulation("eps/linear")
    for steps in (1, 7, 50, 1000):
        times = np.asarray(flow.schedule("discrete", steps, flow_).times, float) * 1000
        np.testing.assert_allclose(times, np.round(times), atol=1e-4)
        np.testing.assert_array_equal(np.round(times), np.ceil(1000 - np.arange(steps + 1) * 1000 / steps - 1e-9))
    with pytest.raises(UserError, match="the discrete schedule has 1000 times: 1001 steps"):
        flow.schedule("discrete", 1001, flow_)


@pytest.mark.parametrize("name", ["rf", "edm", "edm/rf", "edm/cos", "sit/vp", "v/linear"])
def test_the_karras_grid_is_edms(name):
    """sigma_i = (80^(1/7) + i / (N - 1) (0.002^(1/7) - 80^(1/7)))^7, then 0 (Karras et al. 2022, Eq. 5)."""
    made, steps = flow.formulation(name), 18
    end = made.coefficients(jnp.float32(made.start))
    top = min(80.0, float(end.b / end.a))
    sigma = (top ** (1 / 7) + np.arange(steps) / (steps - 1) * (0.002 ** (1 / 7) - top ** (1 / 7))) ** 7
    schedule = flow.schedule("karras", steps, made)
    at = made.coefficients(schedule.times[:-1])
    # t near 1 has steps of 2^-24: at 1 - t = 1e-6, where edm(-1.2, 1.2) has sigma = 80, that is 1 % of sigma.
    np.testing.assert_allclose(at.b / at.a, sigma, rtol=2e-2 if name == "edm" else 2e-5)
    np.testing.assert_allclose((at.b / at.a)[sigma < 2], sigma[sigma < 2], rtol=2e-5)
    assert float(schedule.times[-1]) == 0


def test_repas_schedule():
    """concat(linspace(1, 0.04, N), [0]) (facts of REPA, 1.5)."""
    schedule = flow.schedule("repa", 250, RF)
    np.testing.assert_allclose(schedule.times, [*np.linspace(1, 0.04, 250), 0], rtol=1e-6)
    assert schedule.steps == 250


def test_the_reference_codes_grid_has_its_tiny_last_step():
    schedule = flow.schedule("sd3-ref", 50, RF, shift=3.0)
    assert float(schedule.times[-2]) == pytest.approx(0.008929, abs=5e-7)
    first = 3 * 0.001 / 1.002
    t = np.linspace(1, first, 50)
    np.testing.assert_allclose(schedule.times[:-1], 3 * t / (1 + 2 * t), rtol=1e-6)
    assert float(flow.schedule("sd3-ref", 50, RF).times[-2]) == pytest.approx(0.001, rel=1e-5)


MEMBERS = ("rf", "v/linear", "eps/cos", "edm", "edm(1.2,1.8)", "edm(-1.2,1.8)", "edm(0,0.6)", "edm/rf", "sit/vp")


@settings(max_examples=30)
@given(
    name=st.sampled_from(sorted(flow.SCHEDULES)),
    formulation=st.sampled_from(MEMBERS),
    steps=st.sampled_from([1, 2, 18, 100]),
    shift=st.sampled_from([0.5, 1.0, 3.0]),
)
def test_every_grid_falls_from_the_start_to_data(name, formulation, steps, shift):
    made = flow.formulation(formulation)
    schedule = flow.schedule(name, steps, made, shift=shift)
    assert schedule.times.shape == (steps + 1,)
    assert schedule.steps == steps
    assert (np.diff(schedule.times) < 0).all()
    assert float(schedule.times[-1]) == 0
    assert np.isfinite(made.coefficients(schedule.times[0]).b)


@pytest.mark.parametrize("name", ["uniform", "discrete"])
@pytest.mark.parametrize("formulation", MEMBERS)
def test_a_shift_moves_what_lies_between_the_ends_only(name, formulation):
    """Eq. 23 keeps t = 1; where sampling starts at sigma = 80 instead, that end stays where it is."""
    made = flow.formulation(formulation)
    plain, shifted = flow.schedule(name, 10, made), flow.schedule(name, 10, made, shift=3.0)
    assert float(shifted.times[0]) == pytest.approx(float(plain.times[0]), rel=1e-3 if name == "discrete" else 1e-6)
    assert (shifted.times[1:-1] > plain.times[1:-1]).all()


@pytest.mark.parametrize("formulation", ["edm(-1.2,0.6)", "edm(0,0.6)", "edm(1.2,0.6)", "edm(-0.6,0.6)"])
def test_karras_grid_is_fine_where_float32_times_are_coarse(formulation):
    """Narrow densities of sigma end in 1 - t = 2^-24, where 250 steps in sigma are finer than t's."""
    schedule = flow.schedule("karras", 250, flow.formulation(formulation))
    assert (np.diff(schedule.times[: schedule.steps + 1]) < 0).all()


@pytest.mark.parametrize("name", flow.SCHEDULES)
@pytest.mark.parametrize("formulation", ["rf", "edm"])
def test_a_grid_may_be_made_inside_of_a_jitted_function(name, formulation):
    made = flow.formulation(formulation)
    within = jax.jit(lambda: flow.schedule(name, 5, made).times)()
    np.testing.assert_array_equal(within, flow.schedule(name, 5, made).times)


def test_room_is_spare():
    schedule, bare = flow.schedule("uniform", 4, RF, room=9), flow.schedule("uniform", 4, RF)
    assert schedule.times.shape == (10,)
    assert schedule.steps == 4
    np.testing.assert_array_equal(schedule.times[:5], bare.times)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: flow.schedule("uniform", 0, RF), "at least one step, not 0"),
        (lambda: flow.schedule("uniform", -3, RF), "at least one step, not -3"),
        (lambda: flow.schedule("karass", 5, RF), r"no schedule of times 'karass' \(did you mean 'karras'\?\)"),
        (lambda: flow.schedule("uniform", 5, RF, shift=0.0), "shift of a schedule must be positive, not 0"),
        (lambda: flow.schedule("uniform", 5, RF, shift=np.nan), "shift of a schedule must be positive, not nan"),
        (lambda: of_times(np.array([1.2, 0.5, 0.0])), "must fall, from at most 1"),
        (lambda: of_times(np.array([1.0, 0.5, -0.1])), "must fall, from at most 1"),
        (lambda: of_times(np.array([0.5, 1.0, 0.0])), "must fall, from at most 1"),
        (lambda: of_times(np.array([1.0, np.nan, 0.0])), "must fall, from at most 1"),
        (lambda: of_times(np.array([1.0])), "must fall, from at most 1"),
    ],
)
def test_grids_that_are_none_are_refused(make, words):
    with pytest.raises(UserError, match=words):
        make()


def test_a_table_holds_what_the_formulation_says_of_each_time_to_the_bit():
    """So a sampler that reads the table makes the pictures of one that computes the coefficients itself."""
    one = jax.jit(lambda arrays, t: arrays.coefficients(t))
    for name in ("rf", "edm(-1.2,1.2)", "edm/cos", "sit/vp", "dit/eps"):
        made = flow.formulation(name)
        schedule = flow.tabulated(flow.schedule("own", 5, made, room=7), made.arrays)
        for i in range(6):
            for inside, alone in zip(schedule.at(i, made), one(made.arrays, schedule.times[i]), strict=True):
                np.testing.assert_array_equal(inside, alone)
