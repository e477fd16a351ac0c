"""Training of an adapter's factors beside frozen weights, on several meshes; and of a part of the weights."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from networks import random_parameters
from tiny import tiny

from rfjax import config as configs
from rfjax import data, flow
from rfjax.compiling import quick_options
from rfjax.encoders.codec import to_network
from rfjax.models.shards import Adapter
from rfjax.training import mesh as meshes
from rfjax.training import step as steps
from rfjax.training.encode import EncodeStage
from rfjax.training.spec import make_run_spec
from rfjax.training.state import initial_state, joined, partition, weights_of

A, B = "kernel_a", "kernel_b"
MESHES = ((1, 1, 1), (2, 2, 1))


@dataclasses.dataclass(frozen=True)
class RankOne:
    """kernel + kernel_a kernel_b, for Linears from one axis to one; under the scan all three have one axis more."""

    scale: float = 0.5

    def _adapts(self, path: tuple[str, ...], leaf: Any) -> bool:
        return path[-1] == "kernel" and leaf.ndim - (path[0] in ("blocks", "dual_blocks")) == 2

    def init(self, params: Any, key: jax.Array) -> Any:
        factors = {}
        for i, (path, leaf) in enumerate(traverse_util.flatten_dict(params).items()):
            if self._adapts(path, leaf):
                shape = (*leaf.shape[:-1], 1)
                factors[*path[:-1], A] = 0.1 * jax.random.normal(jax.random.fold_in(key, i), shape)
                factors[*path[:-1], B] = jnp.zeros((*leaf.shape[:-2], 1, leaf.shape[-1]))
        return traverse_util.unflatten_dict(factors)

    def merge(self, params: Any) -> Any:
        leaves = traverse_util.flatten_dict(params)
        for path in [path for path in leaves if path[-1] == A]:
            a, b = leaves.pop(path), leaves.pop((*path[:-1], B))
            leaves[*path[:-1], "kernel"] = leaves[*path[:-1], "kernel"] + self.scale * (a @ b)
        return traverse_util.unflatten_dict(leaves)


def make(**training):
    c = tiny()
    c.model.update(depth=3, width=16, heads=2, qk_norm=True)
    c.optimizer.update(warmup=0, learning_rate=1e-2)
    c.training.update(training)
    config = configs.parse(c)
    return config, make_run_spec(config)


def devices(shape):
    return meshes.make_mesh(configs.Mesh(*shape), jax.devices()[: math.prod(shape)])


def rows(config, spec, mesh):
    """An encoded batch and its noise."""
    stage = EncodeStage.place(spec.encoders, mesh)
    batch, _ = data.load(data.open_source(config.data, "train"), range(8), stage.prepare)
    batch = stage(meshes.put_rows(batch, 8, mesh), np.uint32(0), np.int32(0))
    formulation = flow.formulation(config.flow.formulation).arrays
    sample = steps.jit_noise(spec.objective, spec.inputs, mesh)
    return batch, sample(formulation, np.uint32(0), np.int32(0), batch["slot"])


def begin(spec, mesh):
    """A state whose frozen weights are random: the initial ones hide most of the network behind zeros."""
    state = initial_state(spec, mesh, 0)
    base = random_parameters(spec.model, spec.inputs)
    return state.replace(frozen=jax.device_put(base, meshes.shard_tree(base, mesh)))


def paths(tree):
    return set(traverse_util.flatten_dict(tree, sep="/"))


def test_a_fresh_adapter_changes_nothing():
    _, plain = make()
    spec, mesh = dataclasses.replace(plain, adapter=RankOne()), devices((2, 2, 1))
    assert isinstance(spec.adapter, Adapter)
    state, base = initial_state(spec, mesh, 0), initial_state(plain, mesh, 0)
    jax.tree.map(np.testing.assert_array_equal, state.frozen, base.params)
    for ema in (False, True):
        jax.tree.map(np.testing.assert_array_equal, weights_of(spec, state, ema=ema), base.params)
    assert {path.rsplit("/", 1)[1] for path in paths(state.params)} == {A, B}
    assert paths(state.opt_state[1][0].mu) == paths(state.params)  # nothing is kept for frozen weights


@pytest.mark.job
def test_factors_learn_beside_weights_that_stay_on_every_mesh():
    config, spec = make()
    spec = dataclasses.replace(spec, adapter=RankOne())
    losses, ends = [], []
    for shape in MESHES:
        mesh = devices(shape)
        state = begin(spec, mesh)
        before, batch = jax.device_get((state.params, state.frozen)), rows(config, spec, mesh)
        losses.append([])
        for _ in range(3):
            state, metrics = steps.jit_update(spec, mesh)(state, *batch)
            losses[-1].append(float(metrics["loss"]))
        assert int(state.step) == 3
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.frozen), before[1])
        for path, leaf in traverse_util.flatten_dict(jax.device_get(state.params), sep="/").items():
            same = np.array_equal(leaf, traverse_util.flatten_dict(before[0], sep="/")[path])
            assert not same or "last_block/text" in path, path  # whose output no layer reads
        merged = weights_of(spec, state, ema=False)
        assert paths(merged) == paths(before[1])
        fc1 = merged["blocks"]["image"]["mlp"]["fc1"]["kernel"]
        own = state.params["blocks"]["image"]["mlp"]["fc1"]
        wanted = before[1]["blocks"]["image"]["mlp"]["fc1"]["kernel"] + 0.5 * np.asarray(own[A]) @ np.asarray(own[B])
        np.testing.assert_allclose(fc1, wanted, rtol=1e-6, atol=1e-6)
        ends.append(jax.device_get(merged))
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-5)
    assert losses[0][-1] < losses[0][0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), *ends)


@pytest.mark.job
@pytest.mark.parametrize(("shape", "remat"), zip(MESHES, ("none", "full"), strict=True), ids=str)
def test_gradients_are_those_of_the_merged_weights(shape, remat):
    """Without shards, remat or accumulation: the loss of what `weights_of` gives, differentiated by the factors."""
    config, spec = make()
    model, mesh = spec.model.clone(remat=remat), devices(shape)
    spec = dataclasses.replace(spec, adapter=RankOne(), accumulate=2, model=model)
    state, (batch, noise) = begin(spec, mesh), rows(config, spec, mesh)
    factors = jax.tree.map(lambda x: x + 0.1, state.params)
    gradients = jax.jit(steps.gradients(spec, mesh), compiler_options=quick_options())
    terms, found = gradients(factors, state.frozen, batch, noise)
    one = jax.devices()[0]
    factors, frozen, batch, noise = jax.device_put((factors, state.frozen, batch, noise), one)

    batch = batch | {"z": to_network(batch["z"])}

    def loss(factors):
        bound = steps.BoundNetwork(spec.model, spec.adapter.merge(joined(frozen, factors)))
        return spec.objective(steps.StepNetworks(spec.model, bound.params, {}), batch, noise)["loss"].mean()

    expected = jax.jit(jax.value_and_grad(loss), compiler_options=quick_options())(factors)
    assert float(terms["loss"]) == pytest.approx(float(expected[0]), rel=1e-5)
    scale = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(expected[1]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * scale), found, expected[1])


def test_the_reference_is_the_network_without_its_adapter():
    config, spec = make()
    spec, mesh = dataclasses.replace(spec, adapter=RankOne()), devices((1, 1, 1))
    state, (batch, noise) = begin(spec, mesh), rows(config, spec, mesh)
    model = spec.model.clone(shards=dataclasses.replace(spec.model.shards, adapter=spec.adapter))
    networks = steps.StepNetworks(model, jax.tree.map(lambda x: x + 0.1, state.params), state.frozen)
    given = to_network(batch["z"]), noise.at.time, batch["cond"]
    np.testing.assert_allclose(
        networks.reference(*given), spec.model.apply({"params": state.frozen}, *given), rtol=1e-5, atol=1e-5
    )
    assert float(jnp.abs(networks.policy(*given) - networks.reference(*given)).max()) > 1e-3


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_only_what_a_run_trains_changes(shape):
    """config.training.trainable: here, the layers that make the prediction."""
    config, spec = make(trainable="^final")
    mesh = devices(shape)
    state = initial_state(spec, mesh, 0)
    assert {path.split("/")[0] for path in paths(state.params)} == {"final", "final_modulation"}
    whole = weights_of(spec, state, ema=False)
    jax.tree.map(np.testing.assert_array_equal, joined(*partition(spec, whole)[::-1]), whole)
    before = jax.device_get(whole)
    state, _ = steps.jit_update(spec, mesh)(state, *rows(config, spec, mesh))
    after = jax.device_get(weights_of(spec, state, ema=False))
    changed = {
        path
        for path, leaf in traverse_util.flatten_dict(after, sep="/").items()
        if not np.array_equal(leaf, traverse_util.flatten_dict(before, sep="/")[path])
    }
    assert changed and {path.split("/")[0] for path in changed} <= {"final", "final_modulation"}
