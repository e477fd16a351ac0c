"""Samplers: from noise at t = 1 to data at t = 0. Each is one compiled loop over a schedule of times.

All have one signature, (denoiser, z, schedule, noise) -> Sampled. They ask the network for x0 and eps at z and t,
whatever it predicts, so every model can be sampled by every sampler.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rfjax.errors import UserError, nearest
from rfjax.flow.denoiser import AnyFormulation, Denoiser, Images, Noise, Sampled, Sampler
from rfjax.flow.formulations import Coefficients
from rfjax.flow.paths import SIGMA_MIN, Times
from rfjax.flow.schedules import Schedule


def _norm(difference: Images) -> Float[Array, " B"]:
    return jnp.sqrt(jnp.sum(difference**2, axis=tuple(range(1, difference.ndim))))


def _march(
    step: Callable[..., tuple[Images, Any]],
    flow: AnyFormulation,
    z: Images,
    schedule: Schedule,
    memory: Images | None = None,
) -> Sampled:
    """Adds up step(i, now, then, z, memory) -> (change of z, memory) over the schedule in one compiled loop.

    Rounding errors of the sums are carried along and given back (Kahan), so that many small steps stay accurate.
    """

    def body(i: Int[Array, ""], state: tuple) -> tuple:
        z, error, length, memory = state
        now, then = schedule.at(i, flow), schedule.at(i + 1, flow)
        moved, memory = step(i, now, then, z, memory)
        change = moved - error
        total = z + change
        error = (total - z) - change
        return total, error, length + _norm(change), memory

    state = (z, jnp.zeros_like(z), jnp.zeros(z.shape[:1]), memory)
    z, _, length, _ = jax.lax.fori_loop(0, schedule.steps, body, state)
    return Sampled(z, length, jnp.asarray(schedule.steps))


def _drift(x0: Images, eps: Images, at: Coefficients) -> Images:
    """dz / ds."""
    return at.da_ds * x0 + at.db_ds * eps


def euler(denoiser: Denoiser, z: Images, schedule: Schedule, noise: Noise | None = None) -> Sampled:
    """Euler's method on dz/dt = v, order 1, one evaluation a step (SD3 Eq. 1); for EDM on dz/dsigma = eps.

    Args:
        denoiser: the network and its formulation.
        z: noise at the schedule's first time, b eps.
        schedule: times.
        noise: not used; samplers share a signature.
    """

    def step(i: Array, now: Coefficients, then: Coefficients, z: Images, _: None) -> tuple[Images, None]:
        return (then.s - now.s) * _drift(*denoiser.predict(z, now), now), None

    return _march(step, denoiser.flow, z, schedule)


def heun(denoiser: Denoiser, z: Images, schedule: Schedule, noise: Noise | None = None) -> Sampled:
    """Heun's method, order 2, two evaluations a step but one in the last, which is Euler's (EDM; REPA's option).

    Arguments as in `euler`. Guidance in the second evaluation is on where it is in the first.
    """

    def step(i: Array, now: Coefficients, then: Coefficients, z: Images, _: None) -> tuple[Images, None]:
        move = then.s - now.s
        first = _drift(*denoiser.predict(z, now), now)

        def correct() -> Images:
            second = _drift(*denoiser.predict(z + move * first, then, now.t), then)
            return move * (first + second) / 2

        return jax.lax.cond(i + 1 < schedule.steps, correct, lambda: move * first), None

    sampled = _march(step, denoiser.flow, z, schedule)
    return sampled._replace(evaluations=2 * sampled.evaluations - 1)


def ddim(denoiser: Denoiser, z: Images, schedule: Schedule, noise: Noise | None = None) -> Sampled:
    """DDIM without noise: z' = a' x0 + b' eps, order 1, one evaluation a step (Song et al. 2021, Eq. 12).

    It is Euler's method in z / a against b / a: the same as `euler` for rf and for EDM, not for curved paths.
    """

    def step(i: Array, now: Coefficients, then: Coefficients, z: Images, _: None) -> tuple[Images, None]:
        x0, eps = denoiser.predict(z, now)
        return (then.a - now.a) * x0 + (then.b - now.b) * eps, None

    return _march(step, denoiser.flow, z, schedule)


def dpm_solver(denoiser: Denoiser, z: Images, schedule: Schedule, noise: Noise | None = None) -> Sampled:
    """DPM-Solver++(2M): second-order multistep in log(a / b), one evaluation a step (Lu et al. 2022, Algorithm 2).

    The first step, and the last, where log(a / b) is infinite, are DDIM's.
    """

    def half_log_snr(at: Coefficients) -> Float[Array, ""]:
        return jnp.log(at.a / at.b)

    def step(i: Array, now: Coefficients, then: Coefficients, z: Images, memory: Images) -> tuple[Images, Images]:
        x0, _ = denoiser.predict(z, now)
        before = schedule.at(jnp.maximum(i - 1, 0), denoiser.flow)
        h, h_before = half_log_snr(then) - half_log_snr(now), half_log_snr(now) - half_log_snr(before)
        second = (i > 0) & jnp.isfinite(h) & jnp.isfinite(h_before)
        ahead = jnp.where(second, h / (2 * jnp.where(second, h_before, 1.0)), 0.0)
        data = x0 + ahead * (x0 - memory)
        return (then.b / now.b - 1) * z - then.a * jnp.expm1(-h) * data, x0

    return _march(step, denoiser.flow, z, schedule, jnp.zeros_like(z))


ADAPTIVE_END = SIGMA_MIN  # b / a where the adaptive solver stops and one step of DDIM takes over
RTOL, ATOL = 1e-3, 1e-6  # SiT's
MOST_STEPS = 4096


def dopri5(
    denoiser: Denoiser,
    z: Images,
    schedule: Schedule,
    noise: Noise | None = None,
    *,
    rtol: float = RTOL,
    atol: float = ATOL,
) -> Sampled:
    """Dormand and Prince's adaptive method of order 5, by diffrax, from the schedule's first time to its last.

    It solves for y = z / sqrt(a^2 + b^2) against the angle atan(b / a), in which every path is the cosine path and no
    end is singular; the times between the ends do not matter. One step size serves the whole batch. Its `length` is the
    distance between the ends.

    Args:
        rtol, atol: tolerances of a step (SiT's by default).
    """
    import diffrax  # a second to import: only for those who ask for it

    flow = denoiser.flow

    def at_angle(angle: Array) -> Coefficients:
        # float32 has no pi / 2: its nearest number lies beyond, where the cosine is negative.
        return flow.coefficients(flow.time_of_sigma(jnp.sin(angle) / jnp.maximum(jnp.cos(angle), 1e-8)))

    def derivative(angle: Array, y: Images, _: None) -> Images:
        at = at_angle(angle)
        x0, eps = denoiser.predict(y * jnp.hypot(at.a, at.b), at)
        return jnp.cos(angle) * eps - jnp.sin(angle) * x0

    begin, end = schedule.at(0, flow), schedule.at(schedule.steps, flow)
    angle = jnp.arctan2(begin.b, begin.a)
    stop = jnp.maximum(jnp.arctan2(end.b, end.a), ADAPTIVE_END)
    found = diffrax.diffeqsolve(
        diffrax.ODETerm(derivative),
        diffrax.Dopri5(),
        t0=angle,
        t1=stop,
        dt0=None,
        y0=z / jnp.hypot(begin.a, begin.b),
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
        max_steps=MOST_STEPS,
        saveat=diffrax.SaveAt(t1=True),
    )
    at = at_angle(stop)
    near = found.ys[0] * jnp.hypot(at.a, at.b)
    x0, eps = denoiser.predict(near, at)
    last = end.a * x0 + end.b * eps
    stages = 6  # of a step of Dormand and Prince's method, whose seventh is the next one's first
    return Sampled(last, _norm(last - z), found.stats["num_steps"] * stages + 2)


def _sbdm(at: Coefficients) -> Times:
    return 2 * (at.db_ds * at.b - at.da_ds * at.b**2 / at.a)


# w of dX = v dt - w / 2 score dt + sqrt(w) dW by the names of SiT's code, whose own coefficient is w / 2. "linear" is
# REPA's choice on all its paths; "sbdm" turns the forward SDE round (w^KL of SiT's paper) and is infinite where a = 0.
DIFFUSIONS: dict[str, Callable[[Coefficients], Times]] = {
    "constant": lambda at: jnp.full_like(at.t, 2.0),
    "sbdm": _sbdm,
    "sigma": lambda at: 2 * at.b,
    "linear": lambda at: 2 * at.s,
    "decreasing": lambda at: (1 - jnp.cos(jnp.pi * at.t)) ** 2 / 2,
    "increasing-decreasing": lambda at: 2 * jnp.sin(jnp.pi * at.t) ** 2,
}


def euler_maruyama(
    denoiser: Denoiser, z: Images, schedule: Schedule, noise: Noise | None = None, *, diffusion: str = "linear"
) -> Sampled:
    """Euler-Maruyama's method on the reverse SDE, no noise in the last step (SiT; REPA's with the schedule "repa").

    Order 1 in the mean and the variance. EDM's paths need the schedule "karras": even steps of their t are too long.

    Args:
        noise: step -> standard normal in the shape of z.
        diffusion: the coefficient w, a name of DIFFUSIONS.

    Raises:
        UserError: for an unknown name, without noise, or where w is known to be infinite at the schedule's first time.
    """
    if diffusion not in DIFFUSIONS:
        raise UserError(f"there is no diffusion coefficient '{diffusion}'{nearest(diffusion, DIFFUSIONS)}")
    if noise is None:
        raise UserError("euler_maruyama draws noise in every step: give it a function from the step to noise")
    coefficient = DIFFUSIONS[diffusion]
    with jax.ensure_compile_time_eval():  # also inside of a jitted function, where the schedule's times are known
        first = coefficient(schedule.at(0, denoiser.flow))
    if not isinstance(first, jax.core.Tracer) and not math.isfinite(first):
        raise UserError(
            f"the diffusion coefficient '{diffusion}' is infinite at t = {schedule.times[0]:g}: start later"
        )

    def step(i: Array, now: Coefficients, then: Coefficients, z: Images, _: None) -> tuple[Images, None]:
        move, w = then.s - now.s, coefficient(now)
        x0, eps = denoiser.predict(z, now)
        drift = _drift(x0, eps, now) + w / (2 * now.b) * eps  # the score is -eps / b
        kick = jnp.where(i + 1 < schedule.steps, jnp.sqrt(w * jnp.abs(move)), 0.0)
        return move * drift + kick * noise(i), None

    return _march(step, denoiser.flow, z, schedule)


def ddpm(denoiser: Denoiser, z: Images, schedule: Schedule, noise: Noise | None = None) -> Sampled:
    """DDPM's sampler: draws the next z from its posterior given z and the predicted x0 (Ho et al. 2020, Eq. 7).

    The variance is the posterior's, b'^2 (1 - r) with r = (b' a / a' b)^2. A network that has learned a variance says
    where its logarithm lies between that (-1) and log(1 - a^2 / a'^2) (1), as in DiT (Nichol & Dhariwal 2021, Eq. 15).
    The last step has no noise. Order 1, one evaluation a step.

    Args:
        noise: step -> standard normal in the shape of z.

    Raises:
        UserError: without noise.
    """
    if noise is None:
        raise UserError("ddpm draws noise in every step: give it a function from the step to noise")

    def step(i: Array, now: Coefficients, then: Coefficients, z: Images, _: None) -> tuple[Images, None]:
        x0, _, fraction = denoiser.predict_with_variance(z, now)
        kept = (then.b * now.a / (then.a * now.b)) ** 2
        variance = then.b**2 * (1 - kept)
        if fraction is not None:
            part = (fraction + 1) / 2
            variance = jnp.exp(part * jnp.log(1 - (now.a / then.a) ** 2) + (1 - part) * jnp.log(variance))
        kick = jnp.where(i + 1 < schedule.steps, jnp.sqrt(variance), 0.0)
        of_z = then.b**2 * now.a / (then.a * now.b**2)
        return then.a * (1 - kept) * x0 + (of_z - 1) * z + kick * noise(i), None

    return _march(step, denoiser.flow, z, schedule)


SAMPLERS: dict[str, Sampler] = {
    "euler": euler,
    "heun": heun,
    "dpm++2m": dpm_solver,
    "ddim": ddim,
    "dopri5": dopri5,
    "euler_maruyama": euler_maruyama,
    "ddpm": ddpm,
}


def sampler(name: str, diffusion: str = "linear") -> Sampler:
    """Looks a sampler up.

    Raises:
        UserError: for a name that is none of SAMPLERS.
    """
    if name not in SAMPLERS:
        raise UserError(f"there is no sampler '{name}'{nearest(name, SAMPLERS)}")
    if name == "euler_maruyama":
        return functools.partial(euler_maruyama, diffusion=diffusion)
    return SAMPLERS[name]
