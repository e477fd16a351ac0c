"""Densities of t in training (SD3 section 3.1): each is its quantile function and its pdf on (0, 1)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jaxtyping import Array, Float

from rfjax.flow.paths import STEPS, Number, Path, Times, require

MODE_MAX = 2 / (np.pi - 2)  # above it the mode density's map is not monotone
BISECTIONS = 26  # to the resolution of float32


@dataclass(frozen=True)
class Density:
    """A distribution of t on (0, 1).

    Attributes:
        quantile: u in (0, 1) -> t.
        pdf: t -> density, or the probability of t where the distribution is discrete.
        atoms: the number of times 1/n, 2/n, ..., 1 of a discrete distribution; 0 where it is continuous.
    """

    quantile: Callable[[Times], Times]
    pdf: Callable[[Times], Times]
    atoms: int = 0

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> Float[Array, "*shape"]:
        """Draws t by inverting the distribution."""
        return self.quantile(uniform_inside(key, shape))


def uniform_inside(key: jax.Array, shape: tuple[int, ...] = ()) -> Float[Array, "*shape"]:
    """Uniform numbers that keep a float32 step away from 0 and 1, so that their logit is finite."""
    step = jnp.finfo(jnp.float32).epsneg
    return jax.random.uniform(key, shape, minval=step, maxval=1 - step)


def uniform() -> Density:
    """t ~ U(0, 1): the plain `rf`."""
    return Density(quantile=lambda u: u, pdf=jnp.ones_like)


def lognorm(mean: Number, std: Number) -> Density:
    """Logit-normal: logit t ~ N(mean, std^2) (SD3 section 3.1). A negative mean favours the data's end.

    Raises:
        UserError: if std is not positive.
    """
    require("the standard deviation s of the logit-normal density", std, low=0.0, open_low=True)

    def pdf(t: Times) -> Times:
        logit = jnp.log(t) - jnp.log1p(-t)
        return jnp.exp(-0.5 * ((logit - mean) / std) ** 2) / (std * jnp.sqrt(2 * jnp.pi) * t * (1 - t))

    return Density(quantile=lambda u: jax.nn.sigmoid(mean + std * ndtri(u)), pdf=pdf)


def mode(scale: Number) -> Density:
    """Mode with heavy tails: t = 1 - u - s (cos^2(pi u / 2) - 1 + u) for uniform u (SD3 section 3.1).

    s > 0 favours the middle, s < 0 the ends; s = 0 is uniform. The pdf has no closed form: u is found by bisection.

    Raises:
        UserError: unless -1 <= s <= 2 / (pi - 2) = 1.7519, where the map is monotone.
    """
    require("the scale s of the mode density", scale, low=-1.0, high=MODE_MAX)
    # The paper's map falls with u, and f(1 - u) = 1 - f(u): turned round, it is the quantile function.
    quantile = lambda u: u + scale * (u - jnp.sin(jnp.pi / 2 * u) ** 2)  # noqa: E731

    def pdf(t: Times) -> Times:
        low, high = jnp.zeros_like(t), jnp.ones_like(t)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            below = quantile(middle) < t
            low, high = jnp.where(below, middle, low), jnp.where(below, high, middle)
        return 1 / (1 + scale - scale * (jnp.pi / 2) * jnp.sin(jnp.pi * (low + high) / 2))

    return Density(quantile, pdf)


def cosmap() -> Density:
    """Gives rf the log-SNR law of the cosine schedule: pdf 2 / (pi - 2 pi t + 2 pi t^2) (SD3 section 3.1)."""

    def quantile(u: Times) -> Times:
        sine, cosine = jnp.sin(jnp.pi / 2 * u), jnp.cos(jnp.pi / 2 * u)
        return sine / (sine + cosine)

    return Density(quantile, pdf=lambda t: 2 / (jnp.pi * (1 - 2 * t + 2 * t**2)))


def log_normal(path: Path, mean: Number, std: Number) -> Density:
    """EDM's: log(b / a) ~ N(P_m, P_s^2), as a density of t on any path (Karras et al. 2022; REPA's "lognormal").

    On the rectified flow it is lognorm(P_m, P_s), on its own path edm(P_m, P_s) uniform.

    Raises:
        UserError: if std is not positive.
    """
    require("EDM's P_s", std, low=0.0, open_low=True)

    def pdf(t: Times) -> Times:
        z = (-path.log_snr(t) / 2 - mean) / std
        slope = path.db(t) / path.b(t) - path.da(t) / path.a(t)
        return jnp.exp(-0.5 * z**2) / (std * jnp.sqrt(2 * jnp.pi)) * slope

    return Density(quantile=lambda u: path.time(-2 * (mean + std * ndtri(u))), pdf=pdf)


def steps(count: int = STEPS) -> Density:
    """The discrete steps 1/n, 2/n, ..., 1, equally likely: DDPM's and LDM's training."""
    require("the number of discrete steps", count, low=1)
    return Density(
        quantile=lambda u: (jnp.floor(u * count) + 1) / count, pdf=lambda t: jnp.full_like(t, 1 / count), atoms=count
    )


def shift_time(t: Any, alpha: Number) -> Any:
    """alpha t / (1 + (alpha - 1) t), which lowers the log-SNR of rf by 2 log alpha (SD3 Eq. 23); numpy or JAX alike."""
    return alpha * t / (1 + (alpha - 1) * t)


def shifted(density: Density, alpha: Number) -> Density:
    """The density of the shifted time (SD3 section 5.3.2); shifted(lognorm(m, s), alpha) is lognorm(m + log alpha, s).

    Raises:
        UserError: if alpha is not positive.
    """
    require("the shift alpha", alpha, low=0.0, open_low=True)

    def pdf(t: Times) -> Times:
        before = shift_time(t, 1 / alpha)
        jacobian = (1 + (alpha - 1) * before) ** 2 / alpha
        return density.pdf(before) * (1 if density.atoms else jacobian)

    return Density(lambda u: shift_time(density.quantile(u), alpha), pdf, density.atoms)
