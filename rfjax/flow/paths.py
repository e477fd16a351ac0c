"""Paths z_t = a_t x0 + b_t eps from data (t = 0) to noise (t = 1). SD3 section 2, Eq. 2."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

Times = Float[Array, "*B"]


@dataclass(frozen=True)
class Path:
    """The coefficients of a path and their derivatives, each a function of t of any shape."""

    name: str
    a: Callable[[Times], Times]
    b: Callable[[Times], Times]
    da: Callable[[Times], Times]
    db: Callable[[Times], Times]

    def interpolate(
        self, x0: Float[Array, "B *S"], eps: Float[Array, "B *S"], t: Float[Array, " B"]
    ) -> Float[Array, "B *S"]:
        """z_t = a_t x0 + b_t eps (Eq. 2)."""
        return over(self.a(t), x0) * x0 + over(self.b(t), x0) * eps

    def velocity(
        self, x0: Float[Array, "B *S"], eps: Float[Array, "B *S"], t: Float[Array, " B"]
    ) -> Float[Array, "B *S"]:
        """dz_t/dt = a'_t x0 + b'_t eps, the target of conditional flow matching (Eq. 9)."""
        return over(self.da(t), x0) * x0 + over(self.db(t), x0) * eps

    def log_snr(self, t: Times) -> Times:
        """lambda_t = log(a_t^2 / b_t^2)."""
        return 2 * (jnp.log(self.a(t)) - jnp.log(self.b(t)))


def over(value: Float[Array, " B"], x: Float[Array, "B *S"]) -> Float[Array, "B *ones"]:
    """Shapes one value per example so that it broadcasts over x."""
    return value.reshape(value.shape + (1,) * (x.ndim - value.ndim))


PATHS: dict[str, Path] = {
    "rf": Path("rf", a=lambda t: 1 - t, b=lambda t: t, da=lambda t: -jnp.ones_like(t), db=jnp.ones_like),
}
