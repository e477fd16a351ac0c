"""Representation alignment (REPA): hidden tokens of a block are pulled towards a frozen encoder's tokens.

The encoder sees the clean picture. Alignment is added to any objective, and reads the hidden state of that objective's
own forward pass.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rfjax import config as configs
from rfjax.encoders.features import FeatureEncoder
from rfjax.errors import UserError
from rfjax.models import Backbone, Inputs
from rfjax.models.backbone import Head
from rfjax.models.projector import ConvProjector, Projector
from rfjax.objectives import DENOISING, LOSS, Network, Networks, Objective

ALIGNMENT = "alignment"
SHORTEST = 1e-12  # the length below which a vector has no direction


@dataclass(frozen=True)
class Target:
    """The features of one encoder.

    Attributes:
        name: of the encoder and of its features in the batch.
        head: name of the projector's output.
        grid: rows and columns of the encoder's tokens.
    """

    name: str
    head: str
    grid: tuple[int, int]


@dataclass(frozen=True)
class Aligned:
    """An objective with the alignment loss beside it: loss = denoising + weight alignment.

    Attributes:
        base: the denoising objective.
        settings: of the alignment.
        targets: what is aligned with; the alignment is their mean.
        heads: of the base objective, then a projector for each target.
        grid: rows and columns of the network's tokens.
        active: whether the alignment is computed; otherwise its term is 0, and the batch needs no features.
    """

    base: Objective
    settings: configs.Alignment
    targets: tuple[Target, ...]
    heads: tuple[Head, ...]
    grid: tuple[int, int]
    active: bool = True

    @property
    def terms(self) -> tuple[str, ...]:
        """The loss, the base objective's loss, its other terms, and the alignment's."""
        return (LOSS, DENOISING, *self.base.terms[1:], ALIGNMENT)

    def sample_noise(self, formulation: Any, key: Array, inputs: Inputs) -> Any:
        """What the base objective draws."""
        return self.base.sample_noise(formulation, key, inputs)

    def __call__(self, networks: Networks, batch: Any, noise: Any) -> dict[str, Float[Array, " B"]]:
        """The terms of each example; `batch` holds each target's features under its name."""
        policy = _Recording(networks.policy) if self.active else networks.policy
        terms = self.base(_Replaced(policy, networks), batch, noise)
        denoising = terms.pop(LOSS)
        alignment = jnp.zeros_like(denoising)
        if self.active:
            each = [self.distance(policy.heads[one.head], batch[one.name], one.grid) for one in self.targets]
            alignment = jnp.stack(each).mean(0)
        loss = denoising + self.settings.weight * alignment if self.active else denoising
        return {LOSS: loss, DENOISING: denoising, **terms, ALIGNMENT: alignment}

    def distance(
        self, hidden: Float[Array, "B N Z"], features: Float[Array, "B M Z"], grid: tuple[int, int]
    ) -> Float[Array, " B"]:
        """The alignment loss of each example.

        Args:
            hidden: projected tokens of the network.
            features: tokens of the encoder.
            grid: rows and columns of the features.
        """
        if grid != self.grid:
            features = resample(features, grid, self.grid)
        if self.settings.normalize == "spatial":
            features = spatially_normalized(features, self.settings.mean_removed)
        if self.settings.loss == "nt-xent":
            return nt_xent(hidden, features, self.settings.temperature)
        return -cosine(hidden, features).mean(-1)


class _Recording:
    """A network that keeps what its heads said at the first call."""

    def __init__(self, network: Network) -> None:
        self.network, self.heads = network, None

    def __call__(self, z: Any, t: Any, cond: Any) -> Any:
        return self.with_heads(z, t, cond)[0]

    def with_heads(self, z: Any, t: Any, cond: Any) -> tuple[Any, dict[str, Any]]:
        prediction, heads = self.network.with_heads(z, t, cond)
        self.heads = self.heads or heads
        return prediction, heads


class _Replaced:
    """Networks with another policy; the reference is made only if it is asked for."""

    def __init__(self, policy: Network, networks: Networks) -> None:
        self.policy, self._networks = policy, networks

    @property
    def reference(self) -> Network:
        return self._networks.reference


def unit(x: Float[Array, "*B Z"]) -> Float[Array, "*B Z"]:
    """Vectors of length 1 in float32; a vector without a direction becomes 0, with a gradient of 0."""
    x = x.astype(jnp.float32)
    square = jnp.sum(x * x, -1, keepdims=True)
    directed = square > SHORTEST**2
    return jnp.where(directed, x * jax.lax.rsqrt(jnp.where(directed, square, 1.0)), 0.0)


def cosine(a: Float[Array, "*B Z"], b: Float[Array, "*B Z"]) -> Float[Array, "*B"]:
    """The cosine similarity in float32, 0 for a zero vector."""
    return jnp.sum(unit(a) * unit(b), -1)


def nt_xent(hidden: Float[Array, "B N Z"], features: Float[Array, "B N Z"], temperature: float) -> Float[Array, " B"]:
    """The normalised temperature-scaled cross entropy of each token among the tokens of its picture.

    -1/N sum_n log(exp(sim(h_n, y_n) / temperature) / sum_m exp(sim(h_n, y_m) / temperature)). The paper names the loss
    and not its negatives: tokens of the same picture keep it a function of one example, whatever batch and mesh are.
    """
    logits = jnp.einsum("bnz,bmz->bnm", unit(hidden), unit(features), precision="highest") / temperature
    return -jnp.diagonal(jax.nn.log_softmax(logits, -1), axis1=1, axis2=2).mean(-1)


def spatially_normalized(features: Float[Array, "B N Z"], mean_removed: float) -> Float[Array, "B N Z"]:
    """(y - mean_removed mean) / (std + 1e-6), each channel over the tokens of its picture (iREPA)."""
    features = features.astype(jnp.float32)
    mean, std = features.mean(1, keepdims=True), features.std(1, keepdims=True, ddof=1)
    return (features - mean_removed * mean) / (std + 1e-6)


def resample(features: Float[Array, "B M Z"], grid: tuple[int, int], wanted: tuple[int, int]) -> Float[Array, "B N Z"]:
    """Tokens of one grid interpolated linearly to another, with antialiasing."""
    count, _, width = features.shape
    images = features.reshape(count, *grid, width)
    return jax.image.resize(images, (count, *wanted, width), "linear").reshape(count, -1, width)


def align(
    base: Objective, encoders: tuple[FeatureEncoder, ...], config: configs.Config, model: Backbone, inputs: Inputs
) -> Aligned:
    """Adds alignment to an objective.

    Args:
        base: the denoising objective.
        encoders: what is aligned with.
        config: of the run.
        model: the network, without the projectors.
        inputs: the shapes of an example.

    Raises:
        UserError: if the grids of tokens don't fit.
    """
    settings, grid = config.alignment, model.grid(inputs.shape)
    block = settings.block or max(1, round(model.depth / 3))
    for one in encoders:
        if one.grid != grid and (settings.tokens == "refuse" or len(grid) != len(one.grid)):
            raise UserError(
                f"the encoder '{one.name}' has {_product(one.grid)} tokens and the network {_product(grid)}: choose "
                "config.model.patch or the encoder's picture to match, or set config.alignment.tokens = 'resample'"
            )
    targets = tuple(Target(one.name, f"projector_{i}", one.grid) for i, one in enumerate(encoders))
    if len({one.name for one in targets}) < len(targets):
        raise UserError(f"config.alignment.encoders names an encoder twice: {', '.join(settings.encoders)}")
    projectors = tuple(
        Head(target.head, block, _projector(settings, one.width, grid, model.dtype))
        for target, one in zip(targets, encoders, strict=True)
    )
    return Aligned(base, settings, targets, (*base.heads, *projectors), grid)


def _projector(settings: configs.Alignment, width: int, grid: tuple[int, ...], dtype: Any) -> Any:
    if settings.projector == "conv":
        return ConvProjector(width, grid, dtype)
    return Projector(width, settings.projector_width, dtype)


def _product(grid: tuple[int, ...]) -> str:
    return " x ".join(map(str, grid))


def stopped(objective: Objective) -> Objective:
    """The objective after the end of its alignment: the same terms and heads, and no features."""
    return replace(objective, active=False) if isinstance(objective, Aligned) else objective
