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
from rfjax.compiling import options, quick_options
from rfjax.config import Config, Optimizer
from rfjax.data import pixels
from rfjax.flow.densities import uniform_inside
from rfjax.models.blocks import STACKS
from rfjax.models.counting import abstract_parameters
from rfjax.training import mesh as meshes
from rfjax.training.spec import RunSpec


class State(struct.PyTreeNode):
    """Everything that an update changes, as arrays or as their shapes; the data iterator is kept beside it.

    Attributes:
        step: number of updates done, int32. params: a tree of weights, float32.
        average: their moving average. moments: the optimizer's.
        loss_sum: of the losses since the last line of metrics, so that a resumed run writes the same line.
        health: whether training goes well.
    """

    step: Any
    params: Any
    average: Any
    moments: Any
    loss_sum: Any
    health: Any


class Health(struct.PyTreeNode):
    """What tells that a loss is bad, on the devices, so that nobody waits for it.

    Attributes:
        recent: losses of the last lines of metrics, infinite where there were fewer.
        bad_step: the first update since the last line whose loss or gradient was not finite, or whose loss exploded;
            0: none. bad_loss: that loss.
    """

    recent: Any
    bad_step: Any
    bad_loss: Any

    def after(self, loss: Any, finite: Any, step: Any, explosion: float) -> "Health":
        """With one more loss: `explosion` times the median of the recent ones is too much, 0: nothing is."""
        limit = explosion * jnp.sort(self.recent)[RECENT // 2 - 1] if explosion else jnp.inf
        bad = (self.bad_step == 0) & ~(finite & (loss <= limit))
        return self.replace(bad_step=jnp.where(bad, step, self.bad_step), bad_loss=jnp.where(bad, loss, self.bad_loss))


RECENT = 16  # lines of metrics; at least half of them must be there before a loss can explode


def abstract_state(parts: RunSpec, mesh: Mesh) -> State:
    """The state as shapes, dtypes and shardings."""
    shapes = jax.eval_shape(lambda: _initial(parts, 0))
    shardings = meshes.shard_tree(shapes, mesh)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)


def initial_state(parts: RunSpec, mesh: Mesh, seed: int) -> State:
    """Draws the weights, each shard on its own device."""
    return _jit_initial(parts, mesh)(jnp.uint32(seed))


@functools.cache
def _jit_initial(parts: RunSpec, mesh: Mesh) -> Callable[..., State]:
    shardings = jax.tree.map(lambda x: x.sharding, abstract_state(parts, mesh))
    return jax.jit(functools.partial(_initial, parts), out_shardings=shardings, compiler_options=quick_options())


def _initial(parts: RunSpec, seed: Any) -> State:
    example = [jnp.zeros(x.shape, x.dtype) for x in parts.inputs.abstract(1)]
    params = parts.model.init(jax.random.fold_in(jax.random.key(seed), 0), *example)["params"]
    average = jax.tree.map(jnp.copy, params)
    health = Health(jnp.full(RECENT, jnp.inf, jnp.float32), jnp.int32(0), jnp.float32(0))
    return State(jnp.int32(0), params, average, parts.optimizer.init(params), jnp.float32(0), health)


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
        self, formulation: flow.FormulationArrays, seed: UInt32[Array, ""], step: Int[Array, ""], slot: Int[Array, " B"]
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


def recipe(parts: RunSpec, config: Config) -> Recipe:
    """The recipe of a run's draws."""
    return Recipe(parts.inputs.image, len(parts.encoder.parts), config.text.drop)


@functools.cache
def jit_draw(recipe: Recipe, mesh: Mesh) -> Callable[..., Draws]:
    """`Recipe.draw`, jitted: (formulation, seed, step, slot) -> Draws spread over the mesh."""
    return jax.jit(recipe.draw, out_shardings=NamedSharding(mesh, meshes.BATCH))


def update(parts: RunSpec, mesh: Mesh, state: State, batch: Any, draws: Draws) -> tuple[State, dict[str, Array]]:
    """One update of the weights: (state, batch, draws) -> (state, metrics).

    The metrics are loss (the mean since the last multiple of `log_every`), grad_norm, learning_rate, and bad_step and
    bad_loss of `Health`. The formulation enters by the draws alone.
    """
    loss, gradients = sharded_gradients(parts, mesh)(state.params, batch, draws)
    changes, moments = parts.optimizer.update(gradients, state.moments, state.params)
    params = optax.apply_updates(state.params, changes)
    step, norm = state.step + 1, optax.global_norm(gradients)
    since = state.step % parts.log_every
    loss_sum = jnp.where(since == 0, 0.0, state.loss_sum) + loss
    mean = loss_sum / (since + 1)
    health = state.health.after(loss, jnp.isfinite(loss) & jnp.isfinite(norm), step, parts.explosion)
    metrics = {
        "loss": mean,
        "grad_norm": norm,
        "learning_rate": jnp.asarray(parts.schedule(state.step)),
        "bad_step": health.bad_step,
        "bad_loss": health.bad_loss,
    }
    pushed = jnp.concatenate([health.recent[1:], mean[None]])
    health = health.replace(recent=jnp.where(since == parts.log_every - 1, pushed, health.recent))
    average = _average(state.average, params, step, parts.settings)
    return State(step, params, average, moments, loss_sum, health), metrics


def sharded_gradients(parts: RunSpec, mesh: Mesh) -> Callable[..., tuple[Array, Any]]:
    """(params, batch, draws) -> (mean loss, its gradient in the weights' shardings).

    Each device works on its rows of the batch, in `accumulate` parts one after the other, with weights that it puts
    together block by block; what it communicates is written here and in `models.shards`, and nothing else is.
    """
    shapes = abstract_parameters(parts.model, parts.inputs)
    shardings = meshes.shard_tree(shapes, mesh)
    shards = meshes.shards(shardings, mesh, parts.model.dtype)
    model = parts.model.clone(shards=shards)
    specs = jax.tree.map(lambda s: s.spec, shardings)
    sharing = tuple(axis for axis in meshes.SHARING if mesh.shape[axis] > 1)
    rows = PartitionSpec(sharing) if sharing else PartitionSpec()

    def unshared(spec: PartitionSpec) -> tuple[str, ...]:
        return tuple(axis for axis in sharing if axis not in spec)

    def loss_of(params: Any, batch: Any, draws: Draws) -> Float[Array, ""]:
        x0 = pixels.to_network(batch["image"])
        context, pooled = flow.drop_text(draws.keep, batch["context"], batch["pooled"], parts.encoder.parts)
        ends = {name: tree for name, tree in params.items() if name not in STACKS}
        whole = params | shards.gather(ends)
        network = lambda z, time: model.apply({"params": whole}, z, time, context, pooled)  # noqa: E731
        return flow.cfm_loss(network, draws.at, x0, draws.eps).mean()

    def local(params: Any, batch: Any, draws: Draws) -> tuple[Array, Any]:
        # As functions of this device's own copy, gradients are added up over the devices once, at the end.
        own = jax.tree.map(
            lambda x, s: jax.lax.pcast(x, unshared(s), to="varying") if unshared(s) else x, params, specs
        )
        loss, gradients = _accumulated(jax.value_and_grad(loss_of), parts.accumulate, own, batch, draws)
        count = meshes.sharing(mesh)
        add = lambda x, axes: (jax.lax.psum(x, axes) if axes else x) / count  # noqa: E731
        return add(loss, sharing), jax.tree.map(lambda g, s: add(g, unshared(s)), gradients, specs)

    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(specs, rows, rows),
        out_specs=(PartitionSpec(), specs),
    )


def _accumulated(gradient: Callable[..., Any], parts: int, params: Any, *rows: Any) -> tuple[Array, Any]:
    """The mean of losses and gradients over parts of the rows, one after the other."""
    if parts == 1:
        return gradient(params, *rows)
    split = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), rows)

    def add(total: Any, part: Any) -> tuple[Any, Array]:
        loss, more = gradient(params, *part)
        return jax.tree.map(jnp.add, total, more), loss

    # All parts in one loop: one of them outside would overlap with it, and be in memory at the same time.
    total, losses = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), split)
    return losses.mean(), jax.tree.map(lambda x: x / parts, total)


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
def jit_update(parts: RunSpec, mesh: Mesh) -> Callable[..., tuple[State, dict[str, Array]]]:
    """`update`, jitted: the state in its shardings, batch and draws spread over the mesh; the old state is donated."""
    shardings = jax.tree.map(lambda x: x.sharding, abstract_state(parts, mesh))
    spread = NamedSharding(mesh, meshes.BATCH)
    return jax.jit(
        functools.partial(update, parts, mesh),
        in_shardings=(shardings, spread, spread),
        out_shardings=(shardings, NamedSharding(mesh, PartitionSpec())),
        donate_argnums=0,
        compiler_options=options(parts.full_opt),
    )


_COMPILED: dict[Any, Callable[..., tuple[State, dict[str, Array]]]] = {}


def compile_update(parts: RunSpec, mesh: Mesh, state: State, batch: Any, draws: Draws) -> Callable[..., Any]:
    """`jit_update`, compiled for these shapes: once in a process, however many runs share it."""
    shapes = tuple((name, value.shape, value.dtype.name) for name, value in sorted(batch.items()))
    if (parts, mesh, shapes) not in _COMPILED:
        _COMPILED[parts, mesh, shapes] = jit_update(parts, mesh).lower(state, batch, draws).compile()
    return _COMPILED[parts, mesh, shapes]


@functools.cache
def jit_network(model: Any, full: bool = False) -> Callable[..., jax.Array]:
    """(variables, z, time, context, pooled) -> prediction, jitted; `full`: with the compiler's full effort."""
    return jax.jit(model.apply, compiler_options=options(full))
