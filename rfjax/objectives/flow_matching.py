"""Conditional flow matching: the mean squared error of the network's prediction at a random time (SD3 Eq. 8)."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
from jaxtyping import Array, Bool, Float

from rfjax import config as configs
from rfjax import flow
from rfjax.flow.densities import uniform_inside
from rfjax.models import Inputs
from rfjax.models.backbone import Head


class NoiseSample(NamedTuple):
    """What is random for an example; with a batch, each has B rows.

    Attributes:
        at: its time, as what the formulation says about it.
        eps: standard normal noise of the shape of z.
        keep: which groups of the conditioning it keeps.
    """

    at: flow.Coefficients
    eps: Float[Array, "*S"]
    keep: Bool[Array, "*G"]


@dataclass(frozen=True)
class FlowMatching:
    """The objective of SD3.

    Attributes:
        drop: the probability that an example loses a group of its conditioning, for classifier-free guidance.
    """

    drop: float

    terms: ClassVar[tuple[str, ...]] = ("loss",)
    heads: ClassVar[tuple[Head, ...]] = ()

    def sample_noise(self, formulation: flow.FormulationArrays, key: Array, inputs: Inputs) -> NoiseSample:
        """Draws the time, the noise, and what is dropped."""
        time, noise, drop = jax.random.split(key, 3)
        return NoiseSample(
            at=formulation.coefficients(formulation.quantile(uniform_inside(time))),
            eps=jax.random.normal(noise, inputs.shape),
            keep=jax.random.bernoulli(drop, 1 - self.drop, (inputs.cond.groups,)),
        )

    def __call__(self, networks: Any, batch: Any, noise: NoiseSample) -> dict[str, Float[Array, " B"]]:
        """The loss of each example."""
        cond = batch["cond"].drop(noise.keep)
        network = lambda z, time: networks.policy(z, time, cond)  # noqa: E731
        return {"loss": flow.cfm_loss(network, noise.at, batch["z"], noise.eps)}


def make(config: configs.Config) -> FlowMatching:
    """Flow matching with the config's probability of dropping text."""
    return FlowMatching(config.text.drop)
