"""One update of the weights, jitted over the mesh: noise, loss terms, gradients, optimizer."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, UInt32

from rfjax import flow
from rfjax.compiling import options, quick_options
from rfjax.data import SYNTHETIC
from rfjax.encoders.codec import to_network
from rfjax.models import Inputs
from rfjax.models.backbone import HEADS
from rfjax.models.blocks import STACKS
from rfjax.objectives import DENOISING, LOSS, Objective
from rfjax.training import mesh as meshes
from rfjax.training.optimizer import (
    AS_CONFIGURED,
    Numbers,
    ema_update,
    make_schedule,
    peak_rate,
    scheduled_optimizer,
    times,
)
from rfjax.training.spec import RunSpec
from rfjax.training.state import State, abstract_state, joined

Metrics = dict[str, Array]


@functools.cache
def jit_noise(objective: Objective, inputs: Inputs, mesh: Mesh) -> Callable[..., Any]:
    """(formulation, seed, step, slot) -> what is random in a step, spread over the mesh.

    Keys are folded with (seed, step, slot in the global batch), whatever the mesh. No model and no formulation is a
    part of the program, so all runs share it.
    """

    def sample(
        formulation: flow.FormulationArrays, seed: UInt32[Array, ""], step: Int[Array, ""], slot: Int[Array, " B"]
    ) -> Any:
        step_key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), step)
        keys = jax.vmap(lambda place: jax.random.fold_in(step_key, place))(slot)
        return jax.vmap(lambda key: objective.sample_noise(formulation, key, inputs))(keys)

    spread = NamedSharding(mesh, meshes.BATCH)
    return jax.jit(sample, out_shardings=spread, compiler_options=quick_options())


@dataclass(frozen=True)
class BoundNetwork:
    """A network with its weights; see `objectives.Network`.

    Attributes:
        model: the module.
        params: what `model.apply` takes; below the names of STACKS, as they are stored.
    """

    model: Any
    params: Any

    def __call__(self, z: Any, t: Any, cond: Any) -> Float[Array, "B *S"]:
        """The prediction."""
        return self.model.apply({"params": self.params}, z, t, cond)

    def with_heads(self, z: Any, t: Any, cond: Any) -> tuple[Float[Array, "B *S"], dict[str, Any]]:
        """The prediction, and the heads' outputs by name."""
        prediction, kept = self.model.apply({"params": self.params}, z, t, cond, mutable=[HEADS])
        return prediction, kept.get(HEADS, {})


@dataclass(frozen=True)
class StepNetworks:
    """What an objective may ask within a step; see `objectives.Networks`.

    Attributes:
        model: the module, with this device's shards.
        params: the trained weights.
        frozen: the others.
    """

    model: Any
    params: Any
    frozen: Any

    @property
    def policy(self) -> BoundNetwork:
        """The network that is trained."""
        return self._bound(self.model, joined(self.frozen, self.params))

    @property
    def reference(self) -> BoundNetwork:
        """The network without its adapter."""
        return self._bound(self.model.clone(shards=replace(self.model.shards, adapter=None)), self.frozen)

    @staticmethod
    def _bound(model: Any, weights: Any) -> BoundNetwork:
        ends = {name: tree for name, tree in weights.items() if name not in STACKS}
        return BoundNetwork(model, weights | model.shards.gather(ends))


def update(
    spec: RunSpec, mesh: Mesh, state: State, batch: Any, noise: Any, *, numbers: Numbers = AS_CONFIGURED
) -> tuple[State, Metrics]:
    """One update of the weights: (state, encoded batch, noise) -> (state, metrics).

    The metrics are the objective's terms (each the mean since the last multiple of `log_every`), grad_norm,
    learning_rate, bad_step and bad_loss of `Health`, and how many captions of either kind were taken since that
    multiple, if the batch says which are synthetic. The formulation enters by the noise alone, and what is in `numbers`
    enters by that alone.
    """
    schedule = make_schedule(spec.settings, spec.depth, spec.steps, numbers)
    optimizer = scheduled_optimizer(spec.settings, schedule, spec.scaling, numbers.factors)
    batch = dict(batch)
    chosen = batch.pop(SYNTHETIC, None)
    terms, grads = gradients(spec, mesh)(state.params, state.frozen, batch, noise)
    changes, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, changes)
    step, norm = state.step + 1, optax.global_norm(watched_gradient(spec, grads, numbers))
    watched = DENOISING if DENOISING in terms else LOSS
    loss = terms[watched]
    since = state.step % spec.log_every
    sums = {name: jnp.where(since == 0, 0.0, state.sums[name]) + value for name, value in terms.items()}
    means = {name: value / (since + 1) for name, value in sums.items()}
    counts = {}
    if chosen is not None:
        sums[SYNTHETIC] = jnp.where(since == 0, 0, state.sums[SYNTHETIC]) + chosen.sum(dtype=jnp.int32)
        counts["captions_synthetic"] = sums[SYNTHETIC]
        counts["captions_original"] = (since + 1) * chosen.size - sums[SYNTHETIC]
    health = state.health.after(loss, jnp.isfinite(loss) & jnp.isfinite(norm), step, spec.explosion)
    metrics = {
        **means,
        **counts,
        "grad_norm": norm,
        "learning_rate": jnp.asarray(schedule(state.step)),
        "bad_step": health.bad_step,
        "bad_loss": health.bad_loss,
    }
    pushed = jnp.concatenate([health.recent[1:], means[watched][None]])
    health = health.replace(recent=jnp.where(since == spec.log_every - 1, pushed, health.recent))
    average = ema_update(state.ema_params, params, step, spec.settings)
    return State(step, params, state.frozen, average, opt_state, sums, health), metrics


def watched_gradient(spec: RunSpec, grads: Any, numbers: Numbers) -> Any:
    """The gradient whose norm is clipped: in "standard" the weights' own, else that of the forward-multiplied ones.

    As one vector if the optimizer makes one, which it then shares with the norm: a sum for each leaf compiles slowly.
    """
    if spec.scaling is not None:
        factors = numbers.factors or spec.scaling.factors()
        grads = times(spec.scaling, factors.gradient).update(grads, optax.EmptyState())[0]
    if not spec.settings.flatten:
        return grads
    return jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(grads)])


def gradients(spec: RunSpec, mesh: Mesh) -> Callable[..., tuple[Metrics, Any]]:
    """(params, frozen, batch, noise) -> (means of the loss terms, the loss's gradient in the shardings of params).

    Each device works on its rows of the batch, in `accumulate` parts one after the other, with weights that it puts
    together block by block. This function and `models.shards` write all communication out.
    """
    state = abstract_state(spec, mesh)
    placed = jax.tree.map(lambda x: x.sharding, (state.params, state.frozen))
    shards = meshes.shards(joined(*placed[::-1]), mesh, spec.model.dtype)
    model = spec.model.clone(shards=replace(shards, adapter=spec.adapter))
    specs, frozen_specs = jax.tree.map(lambda s: s.spec, placed)
    sharing = tuple(axis for axis in meshes.SHARING if mesh.shape[axis] > 1)
    rows = PartitionSpec(sharing) if sharing else PartitionSpec()

    def unshared(spec: PartitionSpec) -> tuple[str, ...]:
        return tuple(axis for axis in sharing if axis not in spec)

    def loss_of(params: Any, frozen: Any, batch: Any, noise: Any) -> tuple[Float[Array, ""], Metrics]:
        batch = batch | {"z": to_network(batch["z"])}
        terms = spec.objective(StepNetworks(model, params, frozen), batch, noise)
        means = {name: terms[name].mean() for name in spec.objective.terms}
        return means[LOSS], means

    def copy(leaf: Array, spec: PartitionSpec) -> Array:
        return jax.lax.pcast(leaf, unshared(spec), to="varying") if unshared(spec) else leaf

    def local(params: Any, frozen: Any, batch: Any, noise: Any) -> tuple[Metrics, Any]:
        # As functions of this device's own copy, gradients are added up over the devices once, at the end.
        own, frozen = jax.tree.map(copy, params, specs), jax.tree.map(copy, frozen, frozen_specs)
        gradient = jax.value_and_grad(loss_of, has_aux=True)
        if spec.accumulate > 1:
            gradient = _accumulated(gradient, spec.accumulate)
        (_, terms), grads = gradient(own, frozen, batch, noise)
        count = meshes.sharing(mesh)
        add = lambda x, axes: (jax.lax.psum(x, axes) if axes else x) / count  # noqa: E731
        terms = {name: add(value, sharing) for name, value in terms.items()}
        return terms, jax.tree.map(lambda g, s: add(g, unshared(s)), grads, specs)

    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(specs, frozen_specs, rows, rows),
        out_specs=(PartitionSpec(), specs),
    )


def _accumulated(gradient: Callable[..., Any], parts: int) -> Callable[..., Any]:
    """The mean of loss terms and gradients over parts of the rows, one after the other."""

    def whole(params: Any, frozen: Any, *rows: Any) -> Any:
        split = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), rows)

        def add(total: Any, part: Any) -> tuple[Any, Any]:
            found, more = gradient(params, frozen, *part)
            return jax.tree.map(jnp.add, total, more), found

        # All parts in one loop: one of them outside would overlap with it, and be in memory at the same time.
        total, found = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), split)
        return jax.tree.map(lambda x: x.mean(0), found), jax.tree.map(lambda x: x / parts, total)

    return whole


@functools.cache
def jit_update(spec: RunSpec, mesh: Mesh) -> Callable[..., tuple[State, Metrics]]:
    """`update`, jitted: the state in its shardings, batch and noise spread over the mesh; the old state is donated."""
    return _jit(functools.partial(update, spec, mesh), spec, mesh)


def shared_update(spec: RunSpec, mesh: Mesh) -> Callable[..., tuple[State, Metrics]]:
    """`jit_update`, but runs that differ in their peak rate, in their parameterisation's ratios, or, with the schedule
    "wsd", in their number of steps share one program."""
    settings, whole = spec.settings, NamedSharding(mesh, PartitionSpec())
    start, peak = settings.decay_start(spec.steps), peak_rate(settings, spec.depth)
    numbers = Numbers(
        decay=np.array([start, spec.steps - start], np.int32) if settings.decay == "wsd" else None,
        peak=np.array([peak, peak / max(settings.warmup, 1) - peak], np.float32),
        factors=spec.scaling and spec.scaling.factors(),
    )
    steps = 1 if settings.decay == "wsd" else spec.steps
    shared, numbers = _jit_shared(replace(spec.shared, steps=steps), mesh), jax.device_put(numbers, whole)
    return lambda state, batch, noise: shared(state, batch, noise, numbers)


@functools.cache
def _jit_shared(spec: RunSpec, mesh: Mesh) -> Callable[..., tuple[State, Metrics]]:
    """(state, batch, noise, numbers) -> (state, metrics), for any numbers."""
    run = functools.partial(update, spec, mesh)

    def with_numbers(state: State, batch: Any, noise: Any, numbers: Numbers) -> tuple[State, Metrics]:
        return run(state, batch, noise, numbers=numbers)

    with_numbers.__name__ = update.__name__  # by which compilations are counted
    return _jit(with_numbers, spec, mesh, NamedSharding(mesh, PartitionSpec()))


def _jit(step: Callable[..., Any], spec: RunSpec, mesh: Mesh, *more: NamedSharding) -> Callable[..., Any]:
    """An update, jitted. more: the shardings of what it reads besides state, batch and noise."""
    shardings = jax.tree.map(lambda x: x.sharding, abstract_state(spec, mesh))
    spread = NamedSharding(mesh, meshes.BATCH)
    return jax.jit(
        step,
        in_shardings=(shardings, spread, spread, *more),
        out_shardings=(shardings, NamedSharding(mesh, PartitionSpec())),
        donate_argnums=0,
        compiler_options=options(spec.full_opt),
    )


@functools.cache
def jit_network(model: Any, full: bool = False) -> Callable[..., jax.Array]:
    """(variables, z, t, cond) -> prediction, jitted; `full`: with the compiler's full effort."""
    return jax.jit(model.apply, compiler_options=options(full))
