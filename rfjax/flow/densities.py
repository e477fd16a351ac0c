"""Densities of t in training (SD3 section 3.1): each is its quantile function and its pdf on (0, 1)."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Array, Float

from rfjax.errors import UserError

Times = Float[Array, "*B"]


@dataclass(frozen=True)
class Density:
    """A distribution of t on (0, 1).

    Attributes:
        quantile: u in (0, 1) -> t.
        pdf: t -> density.
    """

    quantile: Callable[[Times], Times]
    pdf: Callable[[Times], Times]

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> Times:
        """Draws t by inverting the distribution; u keeps a float32 step away from 0 and 1, so logit t is finite."""
        step = jnp.finfo(jnp.float32).epsneg
        return self.quantile(jax.random.uniform(key, shape, minval=step, maxval=1 - step))


def uniform() -> Density:
    """t ~ U(0, 1): the plain `rf`."""
    return Density(quantile=lambda u: u, pdf=jnp.ones_like)


def lognorm(mean: float, std: float) -> Density:
    """Logit-normal: logit t ~ N(mean, std^2) (SD3 section 3.1). A negative mean favours the data's end.

    Raises:
        UserError: if std is not positive.
    """
    if not std > 0:
        raise UserError(f"the logit-normal density needs a positive standard deviation, not {std}")

    def pdf(t: Times) -> Times:
        logit = jnp.log(t) - jnp.log1p(-t)
        return jnp.exp(-0.5 * ((logit - mean) / std) ** 2) / (std * jnp.sqrt(2 * jnp.pi) * t * (1 - t))

    return Density(quantile=lambda u: jax.nn.sigmoid(mean + std * ndtri(u)), pdf=pdf)


DENSITIES: dict[str, Callable[..., Density]] = {"uniform": uniform, "lognorm": lognorm}
