"""The validation loss: fixed (example, t, noise) triples, so that two models differ by their weights alone.

Triple i is example i of the validation split, the level of t with index i mod 8, and noise from key i. The loss of a
level is the mean over its triples, the validation loss the mean over levels (MLPerf's reading of SD3 section 5.3.3).

Known floors. The target is p x0 + q eps, and the network sees a x0 + b eps. Where b is exactly 0, as at t = 0 of nearly
every path, it sees nothing of eps, whose mean is 0 and whose variance is 1 whatever x0 and the text are: the best
prediction is p x0, and its expected loss is q^2 for each element. That is 1 for rectified flow, eps, v and F, and
(pi/2)^2 for the velocity of the cosine path. Nothing that a network may know of x0 lowers it, so it is a floor for
every data set. No other floor is known: where b > 0, as at VP's first t of 1e-5, separate data points can give eps
away; where a = 0, the best loss depends on the data. The loss has no weights, which would multiply its floor.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Float, Int, Shaped

from rfjax import flow
from rfjax.compiling import quick_options
from rfjax.encoders.codec import to_network

LEVELS = 8
LEVELS_OF_T: dict[str, tuple[float, ...]] = {
    "k/8": tuple(k / LEVELS for k in range(LEVELS)),
    "(k+0.5)/8": tuple((k + 0.5) / LEVELS for k in range(LEVELS)),
}
NOISES = 32  # that are drawn at a time where their mean square is wanted
NOISE_SEED = 2403_03206  # of every study, so that losses of two studies are comparable too

Floors = tuple[float | None, ...]


@dataclass(frozen=True)
class ValidationLoss:
    """A validation loss and where it comes from.

    Attributes:
        grid: name of the levels of t.
        loss: mean over levels.
        stderr: its standard error over examples.
        levels: loss of each level.
        examples: loss of each triple, (n,).
        floors: of each level, below which no network's expected loss can be; None where no floor is known.
        floors_drawn: the same for the noise that these triples drew, whose mean square is not exactly 1.
        first: of the first of these triples alone, where it was asked for.
    """

    grid: str
    loss: float
    stderr: float
    levels: tuple[float, ...]
    examples: Float[np.ndarray, " n"]
    floors: Floors = (None,) * LEVELS
    floors_drawn: Floors = (None,) * LEVELS
    first: "ValidationLoss | None" = None

    def record(self) -> dict[str, Any]:
        """Plain values for a line of metrics, without the single examples."""
        known = {"floors": list(self.floors), "floors_drawn": list(self.floors_drawn), "triples": len(self.examples)}
        known |= {"along": self.first.record()} if self.first else {}
        return {"grid": self.grid, "loss": self.loss, "stderr": self.stderr, "levels": list(self.levels)} | known


class Triples(NamedTuple):
    """What the network is shown at a batch of triples, and what it should say."""

    shown: Float[Array, "B *S"]
    time: Float[Array, " B"]
    target: Float[Array, "B *S"]


@functools.cache
def triple_functions(levels: str) -> tuple[Callable[..., Triples], Callable[..., Array]]:
    """Two jitted functions that depend on no model and no formulation, so that all runs share them.

    Returns:
        (formulation, encoded z, index) -> Triples, and (prediction, target) -> each triple's loss, (B,), in float32.
    """

    def prepare(formulation: flow.FormulationArrays, z: Shaped[Array, "B *S"], index: Int[Array, " B"]) -> Triples:
        x0 = to_network(z)
        t = jnp.asarray(LEVELS_OF_T[levels], jnp.float32)[index % LEVELS]
        eps = _noise(index, x0.shape[1:])
        at = formulation.coefficients(t)
        shown, target = flow.noised(at, x0, eps)
        return Triples(shown, at.time, target)

    return jax.jit(prepare, compiler_options=quick_options()), jax.jit(flow.squared_error)


def known_floors(formulation: flow.Formulation, levels: str) -> Floors:
    """Per level, q^2 where the network is shown nothing of the noise, else None: see the head of this file."""
    at = formulation.coefficients(jnp.asarray(LEVELS_OF_T[levels], jnp.float32))
    return tuple(float(q) ** 2 if b == 0 else None for b, q in zip(at.b.tolist(), at.q.tolist(), strict=True))


@functools.cache
def noise_power(level: int, examples: int, shape: tuple[int, ...]) -> float:
    """The mean square of the noise that the triples of one level drew: 1, but for chance.

    Args:
        level: its index.
        examples: number of triples in all.
        shape: of an example.
    """
    index = np.arange(level, examples, LEVELS)
    parts = [index[start : start + NOISES] for start in range(0, len(index), NOISES)]
    drawn = (np.asarray(_jit_mean_square(shape)(np.resize(part, NOISES)))[: len(part)] for part in parts)
    total = sum(power.sum(dtype=np.float64) for power in drawn)
    return float(total / len(index)) if len(index) else float("nan")


@functools.cache
def _jit_mean_square(shape: tuple[int, ...]) -> Callable[[Any], Array]:
    def mean_square(index: Int[Array, " B"]) -> Float[Array, " B"]:
        return jnp.mean(_noise(index, shape) ** 2, axis=tuple(range(1, len(shape) + 1)))

    return jax.jit(mean_square, compiler_options=quick_options())


def _noise(index: Int[Array, " B"], shape: tuple[int, ...]) -> Float[Array, "B *S"]:
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(NOISE_SEED), i))(index)
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def summarise(losses: Float[np.ndarray, " n"], grid: str) -> ValidationLoss:
    """Means and the standard error of a stratified sample, in float64: sqrt(sum over levels of var / n) / 8.

    The standard error is NaN, not known, where a level has one triple.
    """
    by_level = [np.asarray(losses[k::LEVELS], np.float64) for k in range(LEVELS)]
    levels = tuple(float(level.mean()) for level in by_level)
    variance = sum(level.var(ddof=1) / len(level) if len(level) > 1 else np.nan for level in by_level)
    return ValidationLoss(grid, float(np.mean(levels)), float(np.sqrt(variance) / LEVELS), levels, losses)


def measure(
    network: Callable[..., Array],
    load: Callable[[list[int]], Any],
    *,
    formulation: flow.FormulationArrays,
    levels: str,
    examples: int,
    batch: int,
    floors: Floors = (None,) * LEVELS,
    first: int = 0,
) -> ValidationLoss:
    """Runs all triples. A last batch that is not full is filled up with triple 0, whose extra losses are dropped.

    Args:
        network: (z, t, cond) -> prediction, jitted.
        load: indices of triples -> an encoded batch on the devices, whose `slot` holds the indices.
        formulation: as arrays.
        levels: a name of LEVELS_OF_T.
        examples: number of triples.
        batch: triples per step; the result does not depend on it.
        floors: of the formulation at these levels, as from `known_floors`.
        first: also sum up so many of the first triples alone, a multiple of LEVELS; 0: no.
    """
    prepare, error = triple_functions(levels)
    found = []
    for start in range(0, examples, batch):
        rows = load([i if i < examples else 0 for i in range(start, start + batch)])
        triples = prepare(formulation, rows["z"], rows["slot"])
        losses = error(network(triples.shown, triples.time, rows["cond"]), triples.target)
        found.append(gather(losses))
    shape = tuple(triples.target.shape[1:])
    losses = np.concatenate(found)

    def of_first(count: int) -> ValidationLoss:
        drawn = [None if floor is None else floor * noise_power(k, count, shape) for k, floor in enumerate(floors)]
        return dataclasses.replace(summarise(losses[:count], levels), floors=floors, floors_drawn=tuple(drawn))

    return dataclasses.replace(of_first(examples), first=of_first(first) if first else None)


def gather(values: Shaped[Array, "B *S"]) -> Shaped[np.ndarray, "B *S"]:
    """A global array, whole on the host of every process."""
    return np.asarray(multihost_utils.process_allgather(values, tiled=True) if jax.process_count() > 1 else values)
