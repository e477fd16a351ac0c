"""Paths z_t = a_t x0 + b_t eps from data (t = 0) to noise (t = 1). SD3 section 2, Eq. 2; SiT; EDM.

Every function takes t of any shape and is accurate in float32 up to both ends: near t = 1 they are written in 1 - t,
which is exact. Where a derivative has no finite value at an end (EDM at both, LDM and VP at 0) it is infinite there.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array, Float, Float64

from rfjax.errors import UserError

Times = Float[Array, "*B"]
Number = int | float | Float[Array, ""]  # of a config, or traced

SIGMA_MIN, SIGMA_MAX = 0.002, 80.0  # EDM's range of b / a (Karras et al. 2022, Table 1)
STEPS = 1000  # of DDPM's and LDM's schedules
LDM_BETAS = (0.00085, 0.012)  # CompVis' configs of latent diffusion
DDPM_BETAS = (0.0001, 0.02)  # Ho et al. 2020; ADM's and DiT's for 1000 steps
VP_BETAS = (0.1, 20.0)  # of the VP-SDE, as in SiT's code


@dataclass(frozen=True)
class Path:
    """The coefficients of a path, their derivatives by t, and its inverse.

    Attributes:
        a, b, da, db: t -> coefficient.
        log_snr: t -> lambda_t = log(a_t^2 / b_t^2), falling.
        time: lambda -> t, its inverse.
        s: t -> the variable that Euler's and Heun's methods step in: t itself, or b for EDM, whose db/dt is
            infinite at both ends.
        da_ds, db_ds: t -> da, db per unit of s, continuous in t, since those
            methods take a rate at the end of one step for the beginning of the next; None: da, db themselves.
    """

    a: Callable[[Times], Times]
    b: Callable[[Times], Times]
    da: Callable[[Times], Times]
    db: Callable[[Times], Times]
    log_snr: Callable[[Times], Times]
    time: Callable[[Times], Times]
    s: Callable[[Times], Times] = lambda t: t
    da_ds: Callable[[Times], Times] | None = None
    db_ds: Callable[[Times], Times] | None = None


def rf() -> Path:
    """Rectified flow, a = 1 - t, b = t (SiT's and REPA's "linear")."""
    return Path(
        a=lambda t: 1 - t,
        b=lambda t: t,
        da=lambda t: -jnp.ones_like(t),
        db=jnp.ones_like,
        log_snr=lambda t: 2 * jnp.log((1 - t) / t),
        time=lambda log_snr: jax.nn.sigmoid(-log_snr / 2),
    )


def _cos(t: Times) -> Times:
    """cos(pi t / 2), with a small relative error at t = 1 too."""
    half = jnp.pi / 2
    return jnp.where(t > 0.5, jnp.sin(half * (1 - t)), jnp.cos(half * t))


def _sin(t: Times) -> Times:
    return jnp.sin(jnp.pi / 2 * t)


def cosine() -> Path:
    """a = cos(pi t / 2), b = sin(pi t / 2) (SiT's GVP)."""
    half = jnp.pi / 2
    return Path(
        a=_cos,
        b=_sin,
        da=lambda t: -half * _sin(t),
        db=lambda t: half * _cos(t),
        log_snr=lambda t: 2 * jnp.log(_cos(t) / _sin(t)),
        time=lambda log_snr: jnp.arctan(jnp.exp(-log_snr / 2)) / half,
    )


def _variance_preserving(
    log_alpha: Callable[[Times], Times], slope: Callable[[Times], Times], time: Callable[[Times], Times]
) -> Path:
    """a = exp(L / 2), b = sqrt(1 - exp L), for L = log a^2; log_alpha: t -> L, slope: t -> dL/dt, time: L -> t."""
    a = lambda t: jnp.exp(log_alpha(t) / 2)  # noqa: E731
    b = lambda t: jnp.sqrt(jnp.abs(jnp.expm1(log_alpha(t))))  # noqa: E731
    return Path(
        a=a,
        b=b,
        da=lambda t: slope(t) / 2 * a(t),
        db=lambda t: -slope(t) / 2 * a(t) ** 2 / b(t),
        log_snr=lambda t: log_alpha(t) - jnp.log(jnp.abs(jnp.expm1(log_alpha(t)))),
        time=lambda log_snr: time(jax.nn.log_sigmoid(log_snr)),
    )


def ldm_betas() -> Float64[np.ndarray, " T"]:
    """LDM's 1000 beta_i, whose roots are evenly spaced."""
    first, last = np.sqrt(LDM_BETAS)
    return np.linspace(first, last, STEPS) ** 2


def ddpm_betas() -> Float64[np.ndarray, " T"]:
    """DDPM's 1000 beta_i, evenly spaced."""
    return np.linspace(*DDPM_BETAS, STEPS)


def linear() -> Path:
    """LDM's schedule, whose roots of beta_i are evenly spaced; it ends at a_1 = 0.068, not in pure noise (SD3 3.1)."""
    return _stepwise(ldm_betas())


def ddpm() -> Path:
    """DDPM's schedule, which DiT's published weights were trained with, of evenly spaced beta_i; a_1 = 0.0064."""
    return _stepwise(ddpm_betas())


def _stepwise(betas: Float64[np.ndarray, " T"]) -> Path:
    """Step i of 1000 is t = (i + 1) / 1000, and log abar is linear between steps, so beta is constant there.

    Its slope jumps at each step. A sampler whose times are steps too would see it from one side at both ends of an
    interval, half a step off the interval's mean, and its error would stop falling there. The rates of samplers
    therefore come from a slope that is linear between the means of both sides at the steps; between two steps its
    integral is the fall of log abar, to order 3.
    """
    knots = np.concatenate([[0.0], np.cumsum(np.log1p(-betas))])  # log abar at t = 0, 1/1000, ..., 1
    exact = np.diff(knots) * STEPS
    beyond = 2 * exact[[0, -1]] - exact[[1, -2]]  # the slopes before the first step and after the last, continued
    padded = np.concatenate([beyond[:1], exact, beyond[1:]])
    values, slopes, means = (jnp.asarray(x, jnp.float32) for x in (knots, exact, (padded[1:] + padded[:-1]) / 2))
    at = lambda t: jnp.clip((t * STEPS).astype(jnp.int32), 0, STEPS - 1)  # noqa: E731
    path = _variance_preserving(
        log_alpha=lambda t: values[at(t)] + slopes[at(t)] * (t - at(t) / STEPS),
        slope=lambda t: slopes[at(t)],
        time=lambda log_alpha: jnp.interp(-log_alpha, -values, jnp.arange(STEPS + 1) / STEPS),
    )
    rate = lambda t: means[at(t)] + (means[at(t) + 1] - means[at(t)]) * (t * STEPS - at(t))  # noqa: E731
    return dataclasses.replace(
        path, da_ds=lambda t: rate(t) / 2 * path.a(t), db_ds=lambda t: -rate(t) / 2 * path.a(t) ** 2 / path.b(t)
    )


def vp() -> Path:
    """The VP-SDE's: log a^2 = -t^2 (20 - 0.1) / 2 - 0.1 t (SiT's VP, in our direction of time)."""
    low, high = VP_BETAS
    curve = (high - low) / 2
    return _variance_preserving(
        log_alpha=lambda t: -t * (low + curve * t),
        slope=lambda t: -(low + 2 * curve * t),
        time=lambda log_alpha: -2 * log_alpha / (low + jnp.sqrt(low**2 - 4 * curve * log_alpha)),
    )


def _variance_exploding(
    b: Callable[[Times], Times],
    db: Callable[[Times], Times],
    time: Callable[[Times], Times],
    log_snr: Callable[[Times], Times],
) -> Path:
    """a = 1. time: log b -> t."""
    return Path(
        a=jnp.ones_like,
        b=b,
        da=jnp.zeros_like,
        db=db,
        log_snr=log_snr,
        time=lambda log_snr: time(-log_snr / 2),
        s=b,
        da_ds=jnp.zeros_like,
        db_ds=jnp.ones_like,
    )


def edm(mean: Number = -1.2, std: Number = 1.2) -> Path:
    """a = 1, log b_t the normal quantile of t: for uniform t, b is EDM's log-normal sigma (SD3 section 3.1).

    Raises:
        UserError: if std is not positive.
    """
    require("EDM's P_s", std, low=0.0, open_low=True)
    b = lambda t: jnp.exp(mean + std * ndtri(t))  # noqa: E731

    def db(t: Times) -> Times:
        z = ndtri(t)
        slope = std * jnp.sqrt(2 * jnp.pi) * jnp.exp(mean + std * z + z**2 / 2)
        return jnp.where(jnp.isfinite(z), slope, jnp.inf)

    return _variance_exploding(b, db, lambda log_b: ndtr((log_b - mean) / std), lambda t: -2 * (mean + std * ndtri(t)))


def edm_rf() -> Path:
    """a = 1, b = t / (1 - t): the log-SNR of rf (our reading of SD3's `edm/rf`; the paper gives no schedule)."""
    return _variance_exploding(lambda t: t / (1 - t), lambda t: (1 - t) ** -2, jax.nn.sigmoid, rf().log_snr)


def edm_cos() -> Path:
    """a = 1, b = tan(pi t / 2): the log-SNR of the cosine path (our reading of SD3's `edm/cos`)."""
    return _variance_exploding(
        lambda t: _sin(t) / _cos(t),
        lambda t: jnp.pi / 2 / _cos(t) ** 2,
        lambda log_b: jnp.arctan(jnp.exp(log_b)) * 2 / jnp.pi,
        cosine().log_snr,
    )


PATHS: dict[str, Callable[..., Path]] = {
    "rf": rf,
    "cosine": cosine,
    "linear": linear,
    "ddpm": ddpm,
    "vp": vp,
    "edm": edm,
    "edm/rf": edm_rf,
    "edm/cos": edm_cos,
}


def require(what: str, value: Number, *, low: Number, high: Number = np.inf, open_low: bool = False) -> None:
    """Raises UserError for a number out of its range; a traced one was checked when it was a number."""
    if isinstance(value, int | float) and not (low < value <= high if open_low else low <= value <= high):
        span = f"above {low:g}" if open_low else f"from {low:g}" if high == np.inf else f"from {low:g} to {high:.5g}"
        raise UserError(f"{what} must be {span}, not {value:g}")
