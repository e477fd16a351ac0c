"""DiT's objective: the noise's squared error on DDPM's steps, and the variational bound of a learned variance."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rfjax import config as configs
from rfjax import flow, names
from rfjax.errors import UserError
from rfjax.flow.paths import STEPS
from rfjax.flow.variational import BETAS, variational_bits
from rfjax.models import Inputs
from rfjax.models.backbone import Head
from rfjax.models.dit import SIGMA
from rfjax.objectives.flow_matching import FlowMatching, NoiseSample


@dataclass(frozen=True)
class DDPM:
    """Mean squared error of eps plus the bound's term at the same step, in bits, with weight 1 (DiT's training).

    The bound teaches the variance alone: its mean comes from a prediction that is frozen. DiT's option to rescale the
    bound multiplies it by T / 1000, which is 1 at its 1000 steps.

    Attributes:
        drop: the probability that an example loses its conditioning, for classifier-free guidance.
        kind: of the formulation.
    """

    drop: float
    kind: str

    terms: ClassVar[tuple[str, ...]] = ("loss", "mse", "bound")
    heads: ClassVar[tuple[Head, ...]] = ()

    def sample_noise(self, formulation: flow.FormulationArrays, key: Array, inputs: Inputs) -> NoiseSample:
        """Draws the step, the noise, and what is dropped, as flow matching does."""
        return FlowMatching(self.drop).sample_noise(formulation, key, inputs)

    def __call__(self, networks: Any, batch: Any, noise: NoiseSample) -> dict[str, Float[Array, " B"]]:
        """The loss of each example and its two parts."""
        shown, target = flow.noised(noise.at, batch["z"], noise.eps)
        prediction, more = networks.policy.with_heads(shown, noise.at.time, batch["cond"].drop(noise.keep))
        return self.parts(prediction, more[SIGMA], batch["z"], target, noise.at.t)

    def parts(
        self,
        prediction: Float[Array, "B *S"],
        sigma: Float[Array, "B *S"],
        x0: Float[Array, "B *S"],
        eps: Float[Array, "B *S"],
        t: Float[Array, " B"],
    ) -> dict[str, Float[Array, " B"]]:
        """The terms of a prediction and of the channels that say the variance."""
        mse = flow.squared_error(prediction, eps)
        step = jnp.round(t * STEPS).astype(jnp.int32) - 1
        error = jax.lax.stop_gradient(prediction.astype(jnp.float32)) - eps
        bound = variational_bits(self.kind, step, x0.astype(jnp.float32), error, sigma.astype(jnp.float32))
        return {"loss": mse + bound, "mse": mse, "bound": bound}


def make(config: configs.Config) -> DDPM:
    """The objective for a formulation with discrete steps and a network that learns a variance.

    Raises:
        UserError: for others.
    """
    kind, _ = names.split(config.flow.formulation)
    if kind not in BETAS or config.flow.shift != 1:
        raise UserError(
            "config.training.objective = 'ddpm' is for discrete steps: set config.flow.formulation = 'dit/eps' (or "
            f"'eps/linear') and config.flow.shift = 1, not '{config.flow.formulation}' and {config.flow.shift:g}"
        )
    if not config.model.learn_sigma:
        raise UserError(
            "config.training.objective = 'ddpm' trains a variance: set config.model.learn_sigma = True; without one, "
            "'flow_matching' has the same loss"
        )
    return DDPM(config.text.drop, kind)
