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
from jaxtyping import Array, Bool, Float, Int

from rfjax import flow
from rfjax.config import Config
from rfjax.data import pixels
from rfjax.training import mesh as meshes
from rfjax.training.compiling import quick_options
from rfjax.training.parts import Parts, make_schedule


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
    shardings = jax.tree.map(lambda x: x.sharding, abstract_state(parts, mesh))
    init = jax.jit(lambda: _initial(parts, seed), out_shardings=shardings, compiler_options=quick_options())
    return init()


def _initial(parts: Parts, seed: int) -> State:
    example = [jnp.zeros(x.shape, x.dtype) for x in parts.inputs.abstract(1)]
    params = parts.model.init(jax.random.fold_in(jax.random.key(seed), 0), *example)["params"]
    average = jax.tree.map(jnp.copy, params)
    return State(jnp.int32(0), params, average, parts.optimizer.init(params), jnp.float32(0))


class Draws(NamedTuple):
    """What is random in a step: times, noise, and which encoders' outputs each example keeps."""

    t: Float[Array, " B"]
    eps: Float[Array, "B H W C"]
    keep: Bool[Array, "B G"]


@dataclass(frozen=True)
class Recipe:
    """All that draws depend on. No model is part of it, so the rungs of a ladder share one compiled function."""

    formulation: str
    image: tuple[int, int, int]
    encoders: int
    drop: float
    seed: int

    def draw(self, step: Int[Array, ""], slot: Int[Array, " B"]) -> Draws:
        """Draws for one step: keys are folded with (seed, step, slot in the global batch), whatever the mesh."""
        density = flow.formulation(self.formulation).density
        step_key = jax.random.fold_in(jax.random.fold_in(jax.random.key(self.seed), 1), step)
        keys = jax.vmap(lambda place: jax.random.split(jax.random.fold_in(step_key, place), 3))(slot)
        return Draws(
            t=jax.vmap(density.sample)(keys[:, 0]),
            eps=jax.vmap(lambda key: jax.random.normal(key, self.image))(keys[:, 1]),
            keep=jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.drop, (self.encoders,)))(keys[:, 2]),
        )


def recipe(parts: Parts, config: Config) -> Recipe:
    """The recipe of a run's draws."""
    encoders = len(parts.encoder.parts)
    return Recipe(parts.flow.name, parts.inputs.image, encoders, config.text.drop, config.training.seed)


@functools.cache
def jit_draw(recipe: Recipe, mesh: Mesh) -> Callable[..., Draws]:
    """`Recipe.draw`, jitted: (step, slot) -> Draws spread over the mesh."""
    return jax.jit(recipe.draw, out_shardings=NamedSharding(mesh, meshes.BATCH))


def update(parts: Parts, config: Config, state: State, batch: Any, draws: Draws) -> tuple[State, dict[str, Array]]:
    """One update of the weights: (state, batch, draws) -> (state, {loss, grad_norm, learning_rate}).

    The loss is the mean since the last multiple of `log_every`.
    """
    schedule = make_schedule(config.optimizer, config.model.depth, config.training.steps)
    x0 = pixels.to_network(batch["image"])
    context, pooled = flow.drop_text(draws.keep, batch["context"], batch["pooled"], parts.encoder.parts)

    def loss_of(params: Any) -> Float[Array, ""]:
        network = lambda z, t: parts.model.apply({"params": params}, z, t, context, pooled)  # noqa: E731
        return flow.cfm_loss(network, parts.flow, x0, draws.eps, draws.t).mean()

    loss, gradients = jax.value_and_grad(loss_of)(state.params)
    changes, moments = parts.optimizer.update(gradients, state.moments, state.params)
    params = optax.apply_updates(state.params, changes)
    step = state.step + 1
    since = state.step % config.training.log_every
    loss_sum = jnp.where(since == 0, 0.0, state.loss_sum) + loss
    metrics = {
        "loss": loss_sum / (since + 1),
        "grad_norm": optax.global_norm(gradients),
        "learning_rate": jnp.asarray(schedule(state.step)),
    }
    return State(step, params, _average(state.average, params, step, config), moments, loss_sum), metrics


def _average(average: Any, params: Any, step: Int[Array, ""], config: Config) -> Any:
    """Every `ema_every` steps, average <- decay average + (1 - decay) params, decay warmed up as (1 + n) / (10 + n).

    The warm-up forgets the initial weights, which would spoil a short run.
    """
    every = config.optimizer.ema_every
    n = (step // every).astype(jnp.float32)
    decay = jnp.minimum(config.optimizer.ema_decay, n / (9 + n))  # n counts from 1: (1 + (n - 1)) / (10 + (n - 1))
    take = jnp.where(step % every == 0, 1 - decay, 0.0)
    return optax.incremental_update(params, average, take)


def jit_update(parts: Parts, config: Config, mesh: Mesh) -> Callable[..., tuple[State, dict[str, Array]]]:
    """`update`, jitted: the state in its shardings, batch and draws spread over the mesh; the old state is donated."""
    shardings = jax.tree.map(lambda x: x.sharding, abstract_state(parts, mesh))
    spread = NamedSharding(mesh, meshes.BATCH)
    return jax.jit(
        functools.partial(update, parts, config),
        in_shardings=(shardings, spread, spread),
        out_shardings=(shardings, NamedSharding(mesh, PartitionSpec())),
        donate_argnums=0,
        compiler_options=quick_options(),
    )
