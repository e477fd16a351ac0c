"""The state of training: which weights are trained, which are frozen, and what goes with them."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct, traverse_util
from jax.sharding import Mesh

from rfjax import data
from rfjax.compiling import once_options
from rfjax.models.parameterisation import Scaling
from rfjax.training import mesh as meshes
from rfjax.training.spec import RunSpec
from rfjax.trees import leaf_name

RECENT = 16  # lines of metrics; at least half of them must be there before a loss can explode


class State(struct.PyTreeNode):
    """Everything that an update changes, and the weights that it leaves alone, as arrays or as their shapes.

    Attributes:
        step: number of updates done, int32.
        params: the trained weights, a nested dict of float32.
        frozen: the weights that are not trained, likewise; together with `params` they make the network's tree.
        ema_params: the moving average of `params`.
        sums: of each loss term since the last line of metrics, so that a resumed run writes the same line, and the
            number of synthetic captions, int32, if they are counted.
    """

    step: Any
    params: Any
    frozen: Any
    ema_params: Any
    opt_state: Any
    sums: Any
    health: Any


class Health(struct.PyTreeNode):
    """What tells that a loss is bad. It stays on the devices, so that no step waits for it.

    Attributes:
        recent: losses of the last lines of metrics, infinite where there were fewer.
        bad_step: the first update since the last line whose loss or gradient was not finite, or whose loss exploded,
            with `bad_loss`; 0: none.
    """

    recent: Any
    bad_step: Any
    bad_loss: Any

    def after(self, loss: Any, finite: Any, step: Any, explosion: float) -> "Health":
        """With one more loss: `explosion` times the median of the recent ones is too much, 0: nothing is."""
        limit = explosion * jnp.sort(self.recent)[RECENT // 2 - 1] if explosion else jnp.inf
        bad = (self.bad_step == 0) & ~(finite & (loss <= limit))
        return self.replace(bad_step=jnp.where(bad, step, self.bad_step), bad_loss=jnp.where(bad, loss, self.bad_loss))


@functools.cache
def abstract_state(spec: RunSpec, mesh: Mesh) -> State:
    """The state as shapes, dtypes and shardings."""
    return meshes.with_shardings(jax.eval_shape(lambda: _initial(spec, 0)), mesh)


def initial_state(spec: RunSpec, mesh: Mesh, seed: int) -> State:
    """Draws the weights, each shard on its own device, and scales them as the parameterisation says."""
    # Runs of a sweep over learning rates and parameterisations share the program that draws.
    state = _jit_initial(spec.shared, mesh)(jnp.uint32(seed))
    if spec.scaling is None:
        return state
    params, frozen = (scaled_start(spec.scaling, tree) for tree in (state.params, state.frozen))
    return state.replace(params=params, frozen=frozen, ema_params=jax.tree.map(jnp.copy, params))


def scaled_start(scaling: Scaling, weights: Any) -> Any:
    """Weights that were drawn as in "standard", scaled as a parameterisation says."""

    def scale(path: Any, leaf: Any) -> Any:
        factor = scaling.initial(leaf_name(path), leaf.shape)
        return leaf if factor == 1 else leaf * factor

    return jax.tree_util.tree_map_with_path(scale, weights)


@functools.cache
def _jit_initial(spec: RunSpec, mesh: Mesh) -> Callable[..., State]:
    shardings = jax.tree.map(lambda x: x.sharding, abstract_state(spec, mesh))
    return jax.jit(functools.partial(_initial, spec), out_shardings=shardings, compiler_options=once_options())


def _initial(spec: RunSpec, seed: Any) -> State:
    example = [jnp.zeros(x.shape, x.dtype) for x in jax.tree.leaves(spec.inputs.abstract(1))]
    inputs = jax.tree.unflatten(jax.tree.structure(spec.inputs.abstract(1)), example)
    key = jax.random.key(seed)
    weights = spec.model.init(jax.random.fold_in(key, 0), *inputs)["params"]
    params, frozen = partition(spec, weights)
    if spec.adapter:
        params = spec.adapter.init(weights, jax.random.fold_in(key, 3))
    health = Health(jnp.full(RECENT, jnp.inf, jnp.float32), jnp.int32(0), jnp.float32(0))
    sums = {term: jnp.float32(0) for term in spec.objective.terms}
    sums |= {data.SYNTHETIC: jnp.int32(0)} if spec.synthetic else {}
    average = jax.tree.map(jnp.copy, params)
    return State(jnp.int32(0), params, frozen, average, spec.optimizer.init(params), sums, health)


def partition(spec: RunSpec, weights: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The network's tree as (trained, frozen); with an adapter all base weights are frozen."""
    leaves = traverse_util.flatten_dict(weights, sep="/")
    parts = [{path: leaf for path, leaf in leaves.items() if spec.trains(path) == trained} for trained in (True, False)]
    trained, frozen = (traverse_util.unflatten_dict(part, sep="/") for part in parts)
    return trained, frozen


def joined(frozen: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """The network's tree of frozen weights and of trained ones, which may be factors beside them."""
    leaves = traverse_util.flatten_dict(frozen, sep="/") | traverse_util.flatten_dict(params, sep="/")
    return traverse_util.unflatten_dict(leaves, sep="/") if frozen else dict(params)


def weights_of(spec: RunSpec, state: State, *, ema: bool) -> dict[str, Any]:
    """The weights that the network reads, with the adapter merged: `model.apply({"params": ...})` takes them.

    Args:
        ema: the average, rather than the last.
    """
    tree = joined(state.frozen, state.ema_params if ema else state.params)
    return jax.jit(spec.adapter.merge)(tree) if spec.adapter else tree
