"""A trained network as samplers see it, and what they hand back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rfjax.flow.formulations import Coefficients, Formulation, FormulationArrays
from rfjax.flow.guidance import GuidedNetwork
from rfjax.flow.schedules import Schedule

Images = Float[Array, "B *S"]
AnyFormulation = Formulation | FormulationArrays
Noise = Callable[[Int[Array, ""]], Images]  # step -> standard normal


@dataclass(frozen=True)
class Denoiser:
    """A trained network as samplers see it.

    Attributes:
        network: (scaled z, time, t) -> prediction; see `guidance.guided`. Channels beyond z's are of the variance.
        flow: what the prediction is.
    """

    network: GuidedNetwork
    flow: AnyFormulation

    def predict(self, z: Images, at: Coefficients, now: Float[Array, ""] | None = None) -> tuple[Images, Images]:
        """The data and the noise that the network sees in z at one time.

        Args:
            z: where.
            at: the coefficients of that time, scalars.
            now: the time that decides about guidance, if it is another.
        """
        x0, eps, _ = self.predict_with_variance(z, at, now)
        return x0, eps

    def predict_with_variance(
        self, z: Images, at: Coefficients, now: Float[Array, ""] | None = None
    ) -> tuple[Images, Images, Images | None]:
        """As `predict`, with what the network says of the variance in as many channels again; None if it says none."""
        time = jnp.broadcast_to(at.time, z.shape[:1])
        value = self.network(at.scale * z, time, at.t if now is None else now).astype(z.dtype)
        value, fraction = value[..., : z.shape[-1]], value[..., z.shape[-1] :]
        determinant = at.a * at.q - at.b * at.p
        x0 = (at.q * z - at.b * value) / determinant
        eps = (at.a * value - at.p * z) / determinant
        return x0, eps, fraction if fraction.shape == z.shape else None


class Sampled(NamedTuple):
    """What a sampler hands back.

    Attributes:
        z: the samples.
        length: of each sample's path, the sum of |z_next - z| over steps, as a vector norm over all its values.
        evaluations: number of times the network was asked, a batch with guidance counting once.
    """

    z: Images
    length: Float[Array, " B"]
    evaluations: Int[Array, ""]


Sampler = Callable[[Denoiser, Images, Schedule, Noise | None], Sampled]
