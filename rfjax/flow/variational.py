"""The variational bound of a diffusion in discrete steps, with a learned variance (Nichol & Dhariwal 2021; DiT's code).

Step i of T goes from z at (i + 1) / T to z at i / T. Both q(z_i | z_(i+1), x0) and the network's p(z_i | z_(i+1)) are
Gaussian, and their means differ by `Posterior.slope` times the error of the predicted noise.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int

from rfjax.errors import UserError, nearest
from rfjax.flow import paths
from rfjax.flow.quantities import expand_to

BETAS = {"dit/eps": paths.ddpm_betas, "eps/linear": paths.ldm_betas}  # kinds of formulation with steps
BIN = 1 / 255  # half of a pixel's range, for pixels from -1 to 1
SMALLEST = 1e-12  # probability
LAST_BIN = 0.999  # beyond it, a pixel's range has no other end
Images = Float[Array, "B *S"]


class Posterior(NamedTuple):
    """What is known of each step before training, (T,) each.

    Attributes:
        slope: mean of q minus mean of p, per unit of (predicted noise - noise).
        low: log variance of q, the smallest that p can have; step 0, where it would be -inf, takes step 1's.
        high: log beta, the largest.
    """

    slope: Float64[np.ndarray, " T"]
    low: Float64[np.ndarray, " T"]
    high: Float64[np.ndarray, " T"]


@functools.cache
def posterior(kind: str) -> Posterior:
    """The steps of a formulation's kind.

    Raises:
        UserError: for a kind without discrete steps.
    """
    if kind not in BETAS:
        raise UserError(f"'{kind}' has no discrete steps, and so no variational bound{nearest(kind, BETAS)}")
    beta = BETAS[kind]()
    logs = np.append(0.0, np.cumsum(np.log1p(-beta)))  # log abar
    before, after = -np.expm1(logs[:-1]), -np.expm1(logs[1:])  # 1 - abar, at the step's end and at its beginning
    variance = beta * before / after
    of_x0 = beta * np.exp(logs[:-1] / 2) / after
    low = np.log(np.append(variance[1], variance[1:]))
    return Posterior(of_x0 * np.sqrt(after) / np.exp(logs[1:] / 2), low, np.log(beta))


def gaussian_kl(
    difference: Float[Array, "*#S"], log_variance: Float[Array, "*#S"], other: Float[Array, "*#S"]
) -> Float[Array, "*#S"]:
    """KL(N(m, exp log_variance) || N(m', exp other)) in nats for difference = m - m'."""
    return (other - log_variance + jnp.exp(log_variance - other) - 1 + difference**2 * jnp.exp(-other)) / 2


def _cdf(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """The normal distribution function as DiT's code approximates it, to 3e-4."""
    return (1 + jnp.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2


def discretised_nll(
    x: Float[Array, "*S"], difference: Float[Array, "*S"], log_variance: Float[Array, "*S"]
) -> Float[Array, "*S"]:
    """-log of the probability that a Gaussian gives to a pixel's range of width 2 / 255, in nats (Ho et al., Eq. 13).

    Args:
        x: pixels from -1 to 1. DiT's code treats latents alike.
        difference: x minus the mean.
        log_variance: of the Gaussian.
    """
    scale = jnp.exp(-log_variance / 2)
    above, below = _cdf(scale * (difference + BIN)), _cdf(scale * (difference - BIN))
    inside = jnp.where(x < -LAST_BIN, above, jnp.where(x > LAST_BIN, 1 - below, above - below))
    return -jnp.log(jnp.maximum(inside, SMALLEST))


def variational_bits(
    kind: str, step: Int[Array, " B"], x0: Images, error: Images, fraction: Images
) -> Float[Array, " B"]:
    """Each example's term of the bound at a step, in bits, a mean over all but the first axis.

    It is KL(q || p), and at step 0 the negative log likelihood of x0.

    Args:
        kind: of the formulation.
        step: 0 ... T - 1.
        x0: data.
        error: predicted noise minus noise.
        fraction: where log p's variance lies: -1 is q's, 1 is beta's, and the network may leave that range.
    """
    slope, low, high = (expand_to(jnp.asarray(table, jnp.float32)[step], x0) for table in posterior(kind))
    part = (fraction + 1) / 2
    learned = part * high + (1 - part) * low
    first = expand_to(step.astype(jnp.float32), x0) == 0
    nats = jnp.where(first, discretised_nll(x0, slope * error, learned), gaussian_kl(slope * error, low, learned))
    return nats.mean(tuple(range(1, x0.ndim))) / np.log(2)
