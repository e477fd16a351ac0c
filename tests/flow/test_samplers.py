"""Samplers on Gaussian data N(0, s^2), for which the best prediction is linear in z and known in closed form."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import config as configs
from rfjax import flow
from rfjax.conditioning import TextConditioning
from rfjax.errors import UserError
from rfjax.flow.formulations import KINDS
from rfjax.flow.samplers import dopri5, euler_maruyama
from rfjax.flow.schedules import of_times
from rfjax.names import join

ROOM = 256
EXAMPLES = {"rf/lognorm": (0.5, 0.6), "rf/mode": (1.29,), "edm": (-1.2, 1.2)}
SIGMA_DATA = 0.5
S = 0.5
STOCHASTIC = ("euler_maruyama", "ddpm")


def best(numbers, preconditioned, s):
    """E[prediction | z] = (p a s^2 + q b) / (a^2 s^2 + b^2) z, from what the network is told: z's scale and the time.

    EDM's time is log(sigma) / 4 on a path with a = 1, and its F is written out here once more.
    """

    def network(shown, time, t):
        at = numbers.coefficients(jnp.where(preconditioned, 0.5, time[0]))
        sigma = jnp.exp(4 * time[0])
        norm = jnp.hypot(sigma, SIGMA_DATA)
        a, b, p, q, scale = (
            jnp.where(preconditioned, of_edm, other)
            for of_edm, other in (
                (1.0, at.a),
                (sigma, at.b),
                (sigma / (SIGMA_DATA * norm), at.p),
                (-SIGMA_DATA / norm, at.q),
                (1 / norm, 1.0),
            )
        )
        return (p * a * s**2 + q * b) / (a**2 * s**2 + b**2) * shown / scale

    return network


@functools.cache
def program(sampler, diffusion="linear"):
    """One compiled function for all formulations, schedules of up to ROOM steps and s."""

    @jax.jit
    def run(numbers, preconditioned, z, schedule, s, rows):
        denoiser = flow.Denoiser(best(numbers, preconditioned, s), numbers)
        noise = lambda i: jnp.where(rows == i, 1.0, 0.0)[:, None]  # noqa: E731
        return flow.sampler(sampler, diffusion)(denoiser, z, schedule, noise)

    return run


def spread(sampler, name, schedule, s=S, diffusion="linear"):
    """Standard deviation of the samples, exactly: the sampler is linear in z and in each step's noise.

    Row i of ROOM starts at 0 and gets the noise 1 in step i only; the last row starts at the exact deviation.
    """
    made = flow.formulation(name)
    first = made.coefficients(schedule.times[0])
    start = jnp.hypot(first.a * s, first.b)
    stochastic = sampler in STOCHASTIC
    rows = jnp.arange(ROOM + 1 if stochastic else 1) if stochastic else jnp.full(1, -1)
    z = jnp.zeros((len(rows), 1)).at[-1].set(start)
    rows = rows.at[-1].set(-1)
    sampled = program(sampler, diffusion)(made.arrays, made.prediction == "F", z, schedule, s, rows)
    return float(np.sqrt(np.sum(np.asarray(sampled.z, float) ** 2)))


def example(kind):
    return join(kind, EXAMPLES.get(kind, ()))


# The facts of REPA, section 1.5: an exact variance recursion. (path, sampler, schedule, steps) -> s = 0.5, s = 1.
GOLDEN = {
    ("rf", "euler_maruyama", "repa", 10): (0.4848757457, 0.9451701798),
    ("rf", "euler_maruyama", "repa", 50): (0.4920546895, 0.9864248877),
    ("rf", "euler_maruyama", "repa", 250): (0.4943431060, 0.9952412927),
    ("repa/cosine", "euler_maruyama", "repa", 250): (0.4940463955, 0.9987673449),
    ("rf", "euler", "uniform", 50): (0.4853967383, 0.9746161920),
    ("rf", "euler", "uniform", 250): (0.4970452435, 0.9948715743),
    ("rf", "heun", "uniform", 50): (0.4996809050, 0.9997906063),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_the_golden_figures(case):
    name, sampler, schedule, steps = case
    for s, expected in zip((0.5, 1.0), GOLDEN[case], strict=True):
        found = spread(sampler, name, flow.schedule(schedule, steps, flow.formulation(name), room=ROOM), s)
        assert found == pytest.approx(expected, rel=1e-6), s


@pytest.mark.parametrize("case", GOLDEN)
def test_the_golden_figures_to_their_last_digit(case):
    """In double precision, with the schedule's own times, which compiled samplers round to single precision."""
    name, sampler, schedule, steps = case
    made = flow.formulation(name)
    times = flow.SCHEDULES[schedule](steps, 1.0, 1.0, made)
    for s, expected in zip((0.5, 1.0), GOLDEN[case], strict=True):
        assert spread_in_double(sampler, made, times, s) == pytest.approx(expected, abs=6e-11), s


def spread_in_double(sampler, made, times, s, diffusion="linear"):
    """As `spread`, of a formulation that is no array."""
    with jax.enable_x64(True):
        schedule = flow.Schedule(jnp.asarray(times), len(times) - 1)
        first = made.coefficients(schedule.times[0])
        stochastic = sampler in STOCHASTIC
        rows = jnp.arange(schedule.steps + 1) if stochastic else jnp.zeros(1)
        z = jnp.zeros((len(rows), 1)).at[-1].set(jnp.hypot(first.a * s, first.b))

        def network(shown, time, t):
            at = made.coefficients(time[0])  # Heun asks the second time at another t than guidance is decided at
            return (at.p * at.a * s**2 + at.q * at.b) / (at.a**2 * s**2 + at.b**2) * shown

        noise = lambda i: jnp.where(rows == i, 1.0, 0.0)[:, None]  # noqa: E731
        run = jax.jit(lambda z: flow.sampler(sampler, diffusion)(flow.Denoiser(network, made), z, schedule, noise).z)
        return float(np.sqrt(np.sum(np.asarray(run(z)) ** 2)))


def variance_recursion(w, times, s):
    """Euler-Maruyama by hand on the cosine path, where alpha^2 + sigma^2 = 1 (facts of REPA, 1.3 to 1.5)."""
    variance = 1.0
    for now, then in itertools.pairwise(times):
        a, b, half = np.cos(np.pi / 2 * now), np.sin(np.pi / 2 * now), np.pi / 2
        v, score = half * a * b * (1 - s**2) / (a**2 * s**2 + b**2), -1 / (a**2 * s**2 + b**2)
        factor = 1 + (v - w(now) / 2 * score) * (then - now)
        variance = factor**2 * variance + (w(now) * (now - then) if then else 0.0)
    return np.sqrt(variance)


@pytest.mark.parametrize("preset", ["repa-sde-250", "sit-sde-250"])
@pytest.mark.parametrize("s", [0.5, 1.0])
def test_the_presets_of_the_sde_differ_on_the_cosine_path(preset, s):
    """REPA takes w = 2 t on both paths, SiT w = 2 sigma_t; the last step has no noise."""
    one = configs.PRESETS[preset]
    made = flow.formulation("repa/cosine")
    times = flow.SCHEDULES[one.changes["schedule"]](one.steps, 1.0, 1.0, made)
    w = {"repa-sde-250": lambda t: 2 * t, "sit-sde-250": lambda t: 2 * np.sin(np.pi / 2 * t)}[preset]
    expected = variance_recursion(w, times, s)
    found = spread_in_double("euler_maruyama", made, times, s, one.changes["diffusion"])
    assert found == pytest.approx(expected, abs=1e-12)
    if preset == "repa-sde-250":
        assert expected == pytest.approx(GOLDEN["repa/cosine", "euler_maruyama", "repa", 250][s == 1.0], abs=6e-11)


@pytest.mark.parametrize("learned", [None, -1.0, 0.3, 1.0])
@pytest.mark.parametrize("steps", [20, 250, 1000])
def test_ddpm_is_dits_sampler(steps, learned):
    """By hand from DDPM's betas, respaced as in DiT's code: Ho et al. 2020, Eq. 7, without noise in the last step."""
    bar = np.append(1.0, np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))
    times = flow.SCHEDULES["dit"](steps, 1.0, 1.0, flow.formulation("dit/eps"))
    assert (times[0], times[-2], times[-1]) == (1.0, 0.001, 0.0)
    variance = bar[1000] * S**2 + 1 - bar[1000]
    for now, then in itertools.pairwise(bar[np.round(times * 1000).astype(int)]):
        alpha = now / then
        x0 = np.sqrt(now) * S**2 / (now * S**2 + 1 - now)  # the best prediction, per z
        mean = np.sqrt(then) * (1 - alpha) / (1 - now) * x0 + np.sqrt(alpha) * (1 - then) / (1 - now)
        low, high = (1 - then) / (1 - now) * (1 - alpha), 1 - alpha
        part = 0 if learned is None else (learned + 1) / 2
        noise = high**part * low ** (1 - part) if then < 1 else 0.0
        variance = mean**2 * variance + noise
    made = flow.formulation("dit/eps")
    rows = jnp.arange(steps + 1)
    z = jnp.zeros((steps + 1, 1)).at[-1].set(np.sqrt(bar[1000] * S**2 + 1 - bar[1000]))

    def network(shown, time, t):
        at = made.coefficients(t)
        prediction = at.b / (at.a**2 * S**2 + at.b**2) * shown
        return prediction if learned is None else jnp.concatenate([prediction, jnp.full_like(shown, learned)], -1)

    noise = lambda i: jnp.where(rows == i, 1.0, 0.0)[:, None]  # noqa: E731
    run = jax.jit(lambda z: flow.sampler("ddpm")(flow.Denoiser(network, made), z, flow.of_times(times), noise).z)
    assert float(np.sqrt(np.sum(np.asarray(run(z), float) ** 2))) == pytest.approx(np.sqrt(variance), rel=2e-5)


def test_the_respaced_steps_are_dits():
    """DiT's space_timesteps(1000, "250") starts 0, 4, 8, 12, 16, 20 and ends 991, 995, 999."""
    times = flow.SCHEDULES["dit"](250, 1.0, 1.0, flow.formulation("dit/eps"))
    steps = np.round(times[:-1] * 1000).astype(int) - 1
    assert steps[:3].tolist() == [999, 995, 991] and steps[-6:].tolist() == [20, 16, 12, 8, 4, 0]
    stride, place, expected = 999 / 249, 0.0, []
    for _ in range(250):
        expected.append(round(place))
        place += stride
    assert steps[::-1].tolist() == expected
    with pytest.raises(UserError, match="the schedule of DiT has 1000 times: 1001 steps"):
        flow.schedule("dit", 1001, flow.formulation("dit/eps"))


ORDERS = [
    *(("euler", name, "uniform", 1) for name in ("rf", "v/cos", "eps/cos", "sit/vp")),
    *(("ddim", name, "uniform", 1) for name in ("rf", "v/cos", "v/linear")),
    *(("heun", name, "uniform", 2) for name in ("rf", "v/cos", "eps/cos", "edm/rf")),
    # Multistep needs steps of log(a / b) that shrink everywhere, which a uniform schedule's first and last do not.
    *(("dpm++2m", name, "karras", 2) for name in ("rf", "v/cos", "eps/cos", "sit/vp")),
    *((sampler, name, "karras", 1) for sampler in ("euler", "ddim") for name in ("edm", "edm/rf", "edm/cos")),
    *((sampler, name, "karras", 2) for sampler in ("heun", "dpm++2m") for name in ("edm/rf", "edm/cos")),
    ("euler_maruyama", "rf", "uniform", 1),
    *(("ddpm", name, "uniform", 1) for name in ("rf", "v/cos", "dit/eps")),
]


@pytest.mark.parametrize(("sampler", "name", "schedule", "order"), ORDERS)
def test_a_sampler_converges_with_its_order(sampler, name, schedule, order):
    counts = (64, 128, 256)
    made = flow.formulation(name)
    errors = [abs(spread(sampler, name, flow.schedule(schedule, n, made, room=ROOM)) - S) for n in counts]
    found = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert found[-1] == pytest.approx(order, abs=0.15), errors


@pytest.mark.parametrize("schedule", ["uniform", "discrete", "karras", "sd3-ref"])  # repa's last step stays as long
@pytest.mark.parametrize("name", ["eps/linear", "dit/eps", "rf"])
def test_heun_keeps_order_2_also_where_beta_jumps_at_the_grids_times(name, schedule):
    """With the slope of one side at each of LDM's and DDPM's steps, the error stalled at 6e-4 and 1.4e-3 on `discrete`.

    50, 125 and 250 steps have times that are all steps of the schedule.
    """
    counts, made = (50, 125, 250), flow.formulation(name)
    errors = [abs(spread("heun", name, flow.schedule(schedule, n, made, room=ROOM)) - S) for n in counts]
    assert np.log(errors[0] / errors[2]) / np.log(5) == pytest.approx(2.1, abs=0.2), errors
    assert errors[2] < 1.1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_on_its_own_grid_every_formulation_is_near_the_truth(kind):
    """Even steps of t leave edm(-1.2,1.2) off by 5 % and 19 % after 128 steps of Heun's method."""
    made = flow.formulation(example(kind))
    for s in (0.5, 1.0):
        assert spread("heun", made.name, flow.schedule("own", 128, made, room=ROOM), s) == pytest.approx(s, rel=2e-3)
    if kind == "edm":
        assert abs(spread("heun", made.name, flow.schedule("uniform", 128, made, room=ROOM), 1.0) - 1) > 0.1


@pytest.mark.parametrize(("steps", "uniform", "own"), [(5, -0.253, -0.533), (50, -0.032, -0.056)])
def test_euler_s_method_is_farther_off_on_edm_s_own_schedule(steps, uniform, own):
    """What docs/results says of the contest, which draws with it: at s = .5, relative."""
    made = flow.formulation("edm(-1.20,1.20)")
    for name, off in (("uniform", uniform), ("own", own)):
        assert spread("euler", made.name, flow.schedule(name, steps, made, room=ROOM), 0.5) / 0.5 - 1 == pytest.approx(
            off, abs=1e-3
        )


@pytest.mark.parametrize("sampler", flow.SAMPLERS)
def test_a_grid_may_be_closed_over_or_traced(sampler):
    """Traced, not compiled: what a sampler asks of values that are not known there is asked while it is traced."""
    rf = flow.formulation("rf")
    denoiser = flow.Denoiser(lambda shown, time, t: shown, rf)
    schedule, z = flow.schedule("uniform", 3, rf), jax.ShapeDtypeStruct((1, 1), jnp.float32)
    run = lambda z, schedule: flow.sampler(sampler)(denoiser, z, schedule, lambda i: jnp.ones((1, 1)))  # noqa: E731
    assert jax.eval_shape(lambda z: run(z, schedule), z) == jax.eval_shape(run, z, schedule)


@pytest.mark.parametrize("diffusion", flow.DIFFUSIONS)
def test_euler_maruyama_converges_with_every_diffusion(diffusion):
    """sbdm is infinite at t = 1, and starts at 0.98 from the exact marginal there."""
    errors = []
    for n in (64, 128, 256):
        schedule = of_times(np.linspace(0.98 if diffusion == "sbdm" else 1.0, 0, n + 1), ROOM)
        errors.append(abs(spread("euler_maruyama", "rf", schedule, diffusion=diffusion) - S))
    found = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    # Where the leading term nearly cancels (sbdm, increasing-decreasing), the next one still shows: at least order 1.
    assert found.min() > 0.95, errors


@pytest.mark.parametrize("sampler", flow.SAMPLERS)
def test_every_formulation_is_sampled_by_every_sampler(sampler):
    for kind in KINDS:
        made = flow.formulation(example(kind))
        name = "karras" if made.prediction == "F" or sampler == "dpm++2m" else "uniform"
        schedule = flow.schedule(name, 128, made, room=ROOM)
        for s in (0.5, 1.0):
            found = spread(sampler, made.name, schedule, s)
            # The posterior's variance, which ddpm takes, is the smallest: 5 % too small a deviation on eps/linear.
            assert found == pytest.approx(s, rel=0.06 if sampler == "ddpm" else 0.03), (kind, s)
    assert program(sampler)._cache_size() <= 1 + (sampler in STOCHASTIC)


@pytest.mark.parametrize("diffusion", flow.DIFFUSIONS)
@pytest.mark.parametrize("name", ["v/cos", "v/linear", "sit/vp", "edm", "edm/cos"])
def test_every_diffusion_keeps_the_marginals_of_every_path(diffusion, name):
    made = flow.formulation(name)
    top = min(float(made.start), 0.98)
    schedule = of_times(np.append(np.linspace(top, 0.01, 255), 0.0), ROOM)
    found = spread("euler_maruyama", name, schedule, diffusion=diffusion)
    # 255 steps of order 1; edm with "constant" is the worst, 7.2 %: its drift w / (2 b^2) is stiff at small sigma.
    assert found == pytest.approx(S, rel=0.08)


def test_dopri5_keeps_its_tolerance():
    @functools.partial(jax.jit, static_argnames="rtol")
    def run(numbers, preconditioned, z, schedule, rtol):
        denoiser = flow.Denoiser(best(numbers, preconditioned, S), numbers)
        return dopri5(denoiser, z, schedule, rtol=rtol, atol=1e-3 * rtol)

    for name in ("rf", "v/cos", "eps/linear", "edm", "edm/cos", "sit/vp"):
        made = flow.formulation(name)
        schedule = flow.schedule("uniform", 1, made)
        first = made.coefficients(schedule.times[0])
        z = jnp.full((1, 1), jnp.hypot(first.a * S, first.b))
        # LDM's beta jumps 1000 times: its drift is not smooth, and a fine tolerance is missed (1.3e-4 was measured).
        for rtol in (1e-3,) if name == "eps/linear" else (1e-3, 1e-5):
            found = run(made.arrays, made.prediction == "F", z, schedule, rtol=rtol)
            steps = int(found.evaluations) // 6  # the tolerance is of a step's error: their sum is this many at most
            assert float(found.z[0, 0]) == pytest.approx(S, rel=steps * rtol), name


def test_ddim_is_euler_where_the_path_is_straight():
    for name in ("rf", "edm/rf", "edm"):
        schedule = flow.schedule("uniform", 16, flow.formulation(name), room=ROOM)
        assert spread("ddim", name, schedule) == pytest.approx(spread("euler", name, schedule), rel=1e-5)


@pytest.mark.parametrize("sampler", sorted(set(flow.SAMPLERS) - {"dopri5"}))  # which has no use for times between
def test_spare_room_changes_nothing(sampler):
    made = flow.formulation("v/cos")
    z, s = jax.random.normal(jax.random.key(0), (3, 2)), jnp.float32(S)
    rows = jnp.array([0, 3, -1])
    results = [
        program(sampler)(made.arrays, False, z, flow.schedule("repa", 7, made, room=room), s, rows)
        for room in (None, ROOM)
    ]
    for found, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_length_and_the_evaluations_by_hand():
    """Velocities 4 in the first step of 1/4 and -8 in the next of 3/4, in 9 dimensions: 3 (1 + 6), to 0 - 1 + 6."""

    def network(shown, time, t):
        return jnp.where(time > 0.9, 4.0, -8.0)[:, None] * jnp.ones_like(shown)

    rf = flow.formulation("rf")
    sampled = flow.sampler("euler")(
        flow.Denoiser(network, rf), jnp.zeros((2, 9)), of_times(np.array([1, 0.75, 0.0])), None
    )
    np.testing.assert_allclose(sampled.z, 5, rtol=1e-6)
    np.testing.assert_allclose(sampled.length, 21, rtol=1e-6)
    assert int(sampled.evaluations) == 2


@pytest.mark.parametrize("sampler", flow.SAMPLERS)
def test_the_evaluations_are_those_that_the_network_counts(sampler):
    asked = []
    made = flow.formulation("rf")

    def network(shown, time, t):
        jax.debug.callback(lambda: asked.append(1))
        return best(made.arrays, False, S)(shown, time, t)

    noise = lambda i: jnp.ones((1, 1))  # noqa: E731
    sampled = flow.sampler(sampler)(
        flow.Denoiser(network, made), jnp.ones((1, 1)), flow.schedule("uniform", 5, made), noise
    )
    jax.block_until_ready(sampled)
    jax.effects_barrier()
    assert int(sampled.evaluations) == len(asked)
    if sampler != "dopri5":
        assert len(asked) == (9 if sampler == "heun" else 5)


def test_heun_gates_guidance_by_its_first_evaluation():
    """REPA: the second evaluation is guided where the step's own time is (facts of REPA, 1.6)."""
    seen = []

    def network(shown, time, t):
        jax.debug.callback(lambda time, t: seen.append((float(time), float(t))), time[0], t)
        return jnp.zeros_like(shown)

    rf = flow.formulation("rf")
    sampled = flow.sampler("heun")(flow.Denoiser(network, rf), jnp.ones((1, 1)), flow.schedule("uniform", 2, rf), None)
    jax.block_until_ready(sampled)
    jax.effects_barrier()
    assert sorted(seen) == [(0.5, 0.5), (0.5, 1.0), (1.0, 1.0)]


def test_guided_sampling_is_sampling_with_the_guided_network():
    """Two halves with drifts u and c: outside the interval c, inside u + w (c - u)."""
    rf = flow.formulation("rf")
    network = lambda z, time, cond: jnp.ones_like(z) + cond.pooled  # noqa: E731  1 without text, 2 with
    text = TextConditioning(jnp.ones((2, 1, 1)), jnp.ones((2, 1)))
    guided = flow.guided(network, text, flow.Guidance(3.0, high=0.5))
    sampled = flow.sampler("euler")(flow.Denoiser(guided, rf), jnp.zeros((2, 1)), flow.schedule("uniform", 4, rf), None)
    np.testing.assert_allclose(sampled.z, -(2 + 2 + 4 + 4) / 4, rtol=1e-6)  # at t = 1, 0.75 | 0.5, 0.25


def run(sampler, noise, times=(1.0, 0.5, 0.0), **options):
    rf = flow.formulation("rf")
    denoiser = flow.Denoiser(best(rf.arrays, False, S), rf)
    return flow.sampler(sampler, **options)(denoiser, jnp.ones((1, 1)), of_times(np.array(times)), noise)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: flow.sampler("eular"), r"no sampler 'eular' \(did you mean 'euler'\?\)"),
        (lambda: run("euler_maruyama", None), "euler_maruyama draws noise in every step"),
        (lambda: run("ddpm", None), "ddpm draws noise in every step"),
        (lambda: run("euler_maruyama", jnp.ones, diffusion="sbdm"), "'sbdm' is infinite at t = 1: start later"),
        (lambda: run("euler_maruyama", jnp.ones, diffusion="sigmoid"), r"no diffusion coefficient 'sigmoid' \(did you"),
    ],
)
def test_what_cannot_be_sampled_is_refused(make, words):
    with pytest.raises(UserError, match=words):
        make()


def test_sbdm_may_start_later():
    noise = lambda i: jnp.zeros((1, 1))  # noqa: E731
    assert np.isfinite(run("euler_maruyama", noise, (0.9, 0.5, 0.0), diffusion="sbdm").z).all()


def test_the_diffusions_are_those_of_sit():
    """w = 2 w~ with w~ of SiT's code, in our direction of time (facts of REPA, 1.4)."""
    t = jnp.array([0.1, 0.4, 0.9])
    linear, cosine = flow.formulation("rf").coefficients(t), flow.formulation("v/cos").coefficients(t)
    expected = {
        "constant": 2 * np.ones(3),
        "sbdm": 2 * t / (1 - t),
        "sigma": 2 * t,
        "linear": 2 * t,
        "decreasing": (np.cos(np.pi * (1 - t)) + 1) ** 2 / 2,
        "increasing-decreasing": 2 * np.sin(np.pi * t) ** 2,
    }
    assert set(expected) == set(flow.DIFFUSIONS)
    for name, w in expected.items():
        np.testing.assert_allclose(flow.DIFFUSIONS[name](linear), w, rtol=1e-5, err_msg=name)  # 1 - cos cancels
    np.testing.assert_allclose(flow.DIFFUSIONS["sbdm"](cosine), np.pi * np.tan(np.pi * t / 2), rtol=2e-6)
    np.testing.assert_allclose(flow.DIFFUSIONS["linear"](cosine), 2 * t)  # REPA's 2 t on all paths
    vp = flow.formulation("sit/vp").coefficients(t)
    np.testing.assert_allclose(flow.DIFFUSIONS["sbdm"](vp), 0.1 + 19.9 * t, rtol=1e-5)  # the forward SDE's beta


def test_euler_maruyama_draws_no_noise_in_the_last_step():
    rf = flow.formulation("rf")
    denoiser = flow.Denoiser(best(rf.arrays, False, S), rf)
    schedule = of_times(np.array([1.0, 0.5, 0.0]))
    only = lambda step: lambda i: jnp.where(i == step, 1.0, 0.0) * jnp.ones((1, 1))  # noqa: E731
    first, last = (float(euler_maruyama(denoiser, jnp.zeros((1, 1)), schedule, only(step)).z[0, 0]) for step in (0, 1))
    assert first != 0
    assert last == 0
