"""The state of training and one update of it, jitted over the mesh."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, UInt32

from rfjax import flow
from rfjax.compiling import quick_options
from rfjax.config import Config, Optimizer
from rfjax.data import pixels
from rfjax.flow.densities import uniform_inside
from rfjax.training import mesh as meshes
from rfjax.training.parts import Parts


class State(struct.PyTreeNode):
    """Everything that an update changes, as arrays or as their shapes; the data iterator is kept beside it.

    Attributes:
        step: number of updates done, int32. params: a tree of weights, float32.
        average: their moving average. moments: the optimizer's.
        loss_sum: of the losses since the last line of metrics, so that a resumed run writes the same line.
    """

    step: Any
    params: Any
    average: Any
    moments: Any
    loss_sum: Any


def abstract_state(parts: Parts, mesh: Mesh) -> State:
    """The state as shapes, dtypes and shardings."""
    shapes = jax.eval_shape(lambda: _initial(parts, 0))
    shardings = meshes.shard_tree(shapes, mesh)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)


def initial_state(parts: Parts, mesh: Mesh, seed: int) -> State:
    """Draws the weights, each shard on its own device."""
    return _jit_initial(parts, mesh)(jnp.uint32(seed))


@functools.cache
def _jit_initial(parts: Parts, mesh: Mesh) -> Callable[..., State]:
    shardings = jax.tree.map(lambda x: x.sharding, abstract_state(parts, mesh))
    return jax.jit(functools.partial(_initial, parts), out_shardings=shardings, compiler_options=quick_options())


def _initial(parts: Parts, seed: Any) -> State:
    example = [jnp.zeros(x.shape, x.dtype) for x in parts.inputs.abstract(1)]
    params = parts.model.init(jax.random.fold_in(jax.random.key(seed), 0), *example)["params"]
    average = jax.tree.map(jnp.copy, params)
    return State(jnp.int32(0), params, average, parts.optimizer.init(params), jnp.float32(0))


class Draws(NamedTuple):
    """What is random in a step: times, as what the formulation says about them, noise, and which encoders' outputs each
    example keeps."""

    at: flow.Coefficients
    eps: Float[Array, "B H W C"]
    keep: Bool[Array, "B G"]


@dataclass(frozen=True)
class Recipe:
    """All that draws depend on. No model and no formulation is part of it: all runs share one compiled function."""

    image: tuple[int, int, int]
    encoders: int
    drop: float

    def draw(
        self, formulation: flow.Numbers, seed: UInt32[Array, ""], step: Int[Array, ""], slot: Int[Array, " B"]
    ) -> Draws:
        """Draws for one step: keys are folded with (seed, step, slot in the global batch), whatever the mesh."""
        step_key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), step)
        keys = jax.vmap(lambda place: jax.random.split(jax.random.fold_in(step_key, place), 3))(slot)
        u = jax.vmap(uniform_inside)(keys[:, 0])
        return Draws(
            at=formulation.coefficients(formulation.quantile(u)),
            eps=jax.vmap(lambda key: jax.random.normal(key, self.image))(keys[:, 1]),
            keep=jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.drop, (self.encoders,)))(keys[:, 2]),
        )


def recipe(parts: Parts, config: Config) -> Recipe:
    """The recipe of a run's draws."""
    return Recipe(parts.inputs.image, len(parts.encoder.parts), config.text.drop)


@functools.cache
def jit_draw(recipe: Recipe, mesh: Mesh) -> Callable[..., Draws]:
    """`Recipe.draw`, jitted: (formulation, seed, step, slot) -> Draws spread over the mesh."""
    return jax.jit(recipe.draw, out_shardings=NamedSharding(mesh, meshes.BATCH))


def update(parts: Parts, state: State, batch: Any, draws: Draws) -> tuple[State, dict[str, Array]]:
    """One update of the weights: (state, batch, draws) -> (state, {loss, grad_norm, learning_rate}).

    The loss is the mean since the last multiple of `log_every`. The formulation enters by the draws alone.
    """
    x0 = pixels.to_network(batch["image"])
    context, pooled = flow.drop_text(draws.keep, batch["context"], batch["pooled"], parts.encoder.parts)

    def loss_of(params: Any) -> Float[Array, ""]:
        network = lambda z, time: parts.model.apply({"params": params}, z, time, context, pooled)  # noqa: E731
        return flow.cfm_loss(network, draws.at, x0, draws.eps).mean()

    loss, gradients = jax.value_and_grad(loss_of)(state.params)
    changes, moments = parts.optimizer.update(gradients, state.moments, state.params)
    params = optax.apply_updates(state.params, changes)
    step = state.step + 1
    since = state.step % parts.log_every
    loss_sum = jnp.where(since == 0, 0.0, state.loss_sum) + loss
    metrics = {
        "loss": loss_sum / (since + 1),
        "grad_norm": optax.global_norm(gradients),
        "learning_rate": jnp.asarray(parts.schedule(state.step)),
    }
    return State(step, params, _average(state.average, params, step, parts.settings), moments, loss_sum), metrics


def _average(average: Any, params: Any, step: Int[Array, ""], settings: Optimizer) -> Any:
    """Every `ema_every` steps, average <- decay average + (1 - decay) params, decay warmed up as (1 + n) / (10 + n).

    The warm-up forgets the initial weights, which would spoil a short run.
    """
    every = settings.ema_every
    n = (step // every).astype(jnp.float32)
    decay = jnp.minimum(settings.ema_decay, n / (9 + n))  # n counts from 1: (1 + (n - 1)) / (10 + (n - 1))
    take = jnp.where(step % every == 0, 1 - decay, 0.0)
    return optax.incremental_update(params, average, take)


@functools.cache
def jit_update(parts: Parts, mesh: Mesh) -> Callable[..., tuple[State, dict[str, Array]]]:
    """`update`, jitted: the state in its shardings, batch and draws spread over the mesh; the old state is donated."""
    shardings = jax.tree.map(lambda x: x.sharding, abstract_state(parts, mesh))
    spread = NamedSharding(mesh, meshes.BATCH)
    return jax.jit(
        functools.partial(update, parts),
        in_shardings=(shardings, spread, spread),
        out_shardings=(shardings, NamedSharding(mesh, PartitionSpec())),
        donate_argnums=0,
        compiler_options=quick_options(),
    )


_COMPILED: dict[Any, Callable[..., tuple[State, dict[str, Array]]]] = {}


def compile_update(parts: Parts, mesh: Mesh, state: State, batch: Any, draws: Draws) -> Callable[..., Any]:
    """`jit_update`, compiled for these shapes: once in a process, however many runs share it."""
    shapes = tuple((name, value.shape, value.dtype.name) for name, value in sorted(batch.items()))
    if (parts, mesh, shapes) not in _COMPILED:
        _COMPILED[parts, mesh, shapes] = jit_update(parts, mesh).lower(state, batch, draws).compile()
    return _COMPILED[parts, mesh, shapes]


@functools.cache
def jit_network(model: Any) -> Callable[..., jax.Array]:
    """(variables, z, time, context, pooled) -> prediction, jitted."""
    return jax.jit(model.apply, compiler_options=quick_options())
