"""The validation loss: fixed (example, t, noise) triples, so that two models differ by their weights alone.

Triple i is example i of the validation split, the level of t with index i mod 8, and noise from key i. The loss of a
level is the mean over its triples, the validation loss the mean over levels (MLPerf's reading of SD3 section 5.3.3).
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
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


class Triples(NamedTuple):
    """What the network is shown at a batch of triples, and what it should say."""

    shown: Float[Array, "B H W C"]
    time: Float[Array, " B"]
    target: Float[Array, "B H W C"]


@functools.cache
def triple_functions(grid: str) -> tuple[Callable[..., Triples], Callable[..., Array]]:
    """Two jitted functions that no model and no formulation is part of, so that all runs share them.

    Returns:
        (formulation, image, index) -> Triples, and (prediction, target) -> each triple's loss, (B,), in float32.
    """

    def prepare(formulation: flow.Numbers, image: Any, index: Int[Array, " B"]) -> Triples:
        x0 = pixels.to_network(image)
        t = jnp.asarray(GRIDS[grid], jnp.float32)[index % LEVELS]
        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(NOISE_SEED), i))(index)
        eps = jax.vmap(lambda key: jax.random.normal(key, x0.shape[1:]))(keys)
        at = formulation.coefficients(t)
        shown, target = flow.noised(at, x0, eps)
        return Triples(shown, at.time, target)

    return jax.jit(prepare), jax.jit(flow.squared_error)


def summarise(losses: Float[np.ndarray, " n"], grid: str) -> ValidationLoss:
    """Means and the standard error of a stratified sample, in float64: sqrt(sum over levels of var / n) / 8."""
    by_level = [np.asarray(losses[k::LEVELS], np.float64) for k in range(LEVELS)]
    levels = tuple(float(level.mean()) for level in by_level)
    variance = sum(level.var(ddof=1) / len(level) if len(level) > 1 else np.nan for level in by_level)
    return ValidationLoss(grid, float(np.mean(levels)), float(np.sqrt(variance) / LEVELS), levels, losses)


def measure(
    network: Callable[..., Array],
    load: Callable[[list[int]], Any],
    *,
    formulation: flow.Numbers,
    grid: str,
    examples: int,
    batch: int,
) -> ValidationLoss:
    """Runs all triples. A last batch that is not full is filled up with triple 0, whose extra losses are dropped.

    Args:
        network: (z, t, context, pooled) -> prediction, jitted.
        load: indices of triples -> a batch on the devices, whose `slot` holds the indices.
        formulation: as numbers. grid: of GRIDS.
        examples: number of triples. batch: triples per step; the result does not depend on it.
    """
    prepare, error = triple_functions(grid)
    found = []
    for start in range(0, examples, batch):
        rows = load([i if i < examples else 0 for i in range(start, start + batch)])
        triples = prepare(formulation, rows["image"], rows["slot"])
        losses = error(network(triples.shown, triples.time, rows["context"], rows["pooled"]), triples.target)
        found.append(gather(losses))
    return summarise(np.concatenate(found)[:examples], grid)


def gather(values: Float[Array, "B *S"]) -> Float[np.ndarray, "B *S"]:
    """A global array, whole on the host of every process."""
    return np.asarray(multihost_utils.process_allgather(values, tiled=True) if jax.process_count() > 1 else values)
