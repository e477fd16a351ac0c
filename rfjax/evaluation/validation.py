"""The validation loss: fixed (example, t, noise) triples, so that two models differ by their weights alone.

Triple i is example i of the validation split, the level of t with index i mod 8, and noise from key i. The loss of a
level is the mean over its triples, the validation loss the mean over levels (MLPerf's reading of SD3 section 5.3.3).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from rfjax import flow
from rfjax.data import pixels

LEVELS = 8
GRIDS: dict[str, tuple[float, ...]] = {
    "k/8": tuple(k / LEVELS for k in range(LEVELS)),
    "(k+0.5)/8": tuple((k + 0.5) / LEVELS for k in range(LEVELS)),
}
NOISE_SEED = 2403_03206  # of every study, so that losses of two studies are comparable too


@dataclass(frozen=True)
class ValidationLoss:
    """A validation loss and where it comes from.

    Attributes:
        grid: name of the levels of t. loss: mean over levels. stderr: its standard error over examples.
        levels: loss of each level. examples: loss of each triple, (n,).
    """

    grid: str
    loss: float
    stderr: float
    levels: tuple[float, ...]
    examples: Float[np.ndarray, " n"]

    def record(self) -> dict[str, Any]:
        """Plain values for a line of metrics, without the single examples."""
        return {"grid": self.grid, "loss": self.loss, "stderr": self.stderr, "levels": list(self.levels)}


def triple_losses(
    apply: Callable[..., Array], formulation: flow.Formulation, grid: str
) -> Callable[[Any, Any], Float[Array, " B"]]:
    """(params, batch) -> the loss of each triple, a pure function; `batch["slot"]` is the index i of the triple.

    Args:
        apply: (params, z, t, context, pooled) -> prediction.
    """

    def losses(params: Any, batch: Any) -> Float[Array, " B"]:
        index: Int[Array, " B"] = batch["slot"]
        x0 = pixels.to_network(batch["image"])
        t = jnp.asarray(GRIDS[grid], jnp.float32)[index % LEVELS]
        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(NOISE_SEED), i))(index)
        eps = jax.vmap(lambda key: jax.random.normal(key, x0.shape[1:]))(keys)
        network = lambda z, t: apply(params, z, t, batch["context"], batch["pooled"])  # noqa: E731
        return flow.cfm_loss(network, formulation, x0, eps, t)

    return losses


def summarise(losses: Float[np.ndarray, " n"], grid: str) -> ValidationLoss:
    """Means and the standard error of a stratified sample, in float64: sqrt(sum over levels of var / n) / 8."""
    by_level = [np.asarray(losses[k::LEVELS], np.float64) for k in range(LEVELS)]
    levels = tuple(float(level.mean()) for level in by_level)
    variance = sum(level.var(ddof=1) / len(level) if len(level) > 1 else np.nan for level in by_level)
    return ValidationLoss(grid, float(np.mean(levels)), float(np.sqrt(variance) / LEVELS), levels, losses)


def measure(
    step: Callable[[Any, Any], Float[Array, " B"]],
    params: Any,
    load: Callable[[list[int]], Any],
    *,
    examples: int,
    batch: int,
    grid: str,
) -> ValidationLoss:
    """Runs all triples. A last batch that is not full is filled up with triple 0, whose extra losses are dropped.

    Args:
        step: a jitted `triple_losses`, whose losses every process can read whole.
        load: indices of triples -> a batch on the devices.
        examples: number of triples. batch: triples per step; the result does not depend on it.
    """
    parts = []
    for start in range(0, examples, batch):
        indices = [i if i < examples else 0 for i in range(start, start + batch)]
        parts.append(np.asarray(jax.device_get(step(params, load(indices)))))
    return summarise(np.concatenate(parts)[:examples], grid)
