import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from orbax.checkpoint import v1 as ocp
from tiny import begun_run, tiny

from rfjax import config as configs
from rfjax.errors import UserError
from rfjax.jsonl import write_json
from rfjax.training import mesh as meshes
from rfjax.training import weights
from rfjax.training.checkpoints import Checkpoints, Progress, fingerprint
from rfjax.training.encode import EncodeStage
from rfjax.training.spec import make_run_spec
from rfjax.training.state import abstract_state, initial_state

MESH = configs.Mesh(-1, 2)


@pytest.fixture(scope="module")
def made():
    """Weights of a tiny network."""
    c = tiny()
    c.model.depth = 1
    config = configs.parse(c)
    spec = make_run_spec(config)
    return weights.Weights(config, spec, initial_state(spec, meshes.make_mesh(MESH), 3).params, 0)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


def test_what_is_written_is_read_in_the_shards_of_the_mesh(made, tmp_path):
    given = made
    weights.write(tmp_path / "model", given)
    found = weights.read_weights(tmp_path / "model", MESH)
    assert (found.config, found.spec, found.step) == (given.config, given.spec, 0)
    same(found.params, given.params)
    same(weights.read_weights(tmp_path / "model", configs.Mesh()).params, given.params)
    wanted = meshes.shard_tree(given.params, meshes.make_mesh(MESH))
    assert all(jax.tree.leaves(jax.tree.map(lambda x, s: x.sharding == s, found.params, wanted)))
    assert any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(found.params))
    stage = EncodeStage.place(found.spec.encoders, meshes.make_mesh(MESH))
    wide, plain = found.sampleable(stage, (8, 16, 3)), found.sampleable(stage)
    assert (wide.codec.shape, plain.codec.shape) == ((8, 16, 3), (16, 16, 3))
    assert wide.flops < plain.flops == found.spec.model.forward_flops(found.spec.inputs)
    assert wide.formulation.name == "rf/lognorm(0.00,1.00)"


def test_weights_are_not_written_over_anything(made, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty: choose another folder"):
        weights.write(tmp_path, made)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_newest_checkpoint_of_a_run_is_read_with_its_average_or_without(made, tmp_path):
    params = begun_run(tmp_path, made.config, (1, 2))
    unfinished = tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp"
    unfinished.mkdir()
    ema, raw = (weights.read_weights(tmp_path, MESH, average) for average in (True, False))
    assert (ema.step, raw.step) == (2, 2)
    same(raw.params, params)
    same(ema.params, jax.tree.map(lambda x: np.asarray(x) + np.float32(0.02), params))
    assert unfinished.exists()  # the run may be writing it


def test_a_folder_without_weights_is_named(made, tmp_path):
    with pytest.raises(UserError, match=r"is not the folder of a run: it has no config\.json"):
        weights.read_weights(tmp_path, MESH)
    plain = made.config.to_dict()
    write_json(tmp_path / "config.json", plain)
    with pytest.raises(UserError, match="has no checkpoint yet: train it first"):
        weights.read_weights(tmp_path, MESH)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="has no checkpoint yet: train it first"):
        weights.read_weights(tmp_path, MESH)
    for text, words in (("{", r"config\.json is not JSON"), (json.dumps(plain | {"old": 1}), "no key 'old'")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(UserError, match=words):
            weights.read_weights(tmp_path, MESH)


# Folders of older versions.


@pytest.mark.parametrize("projectors", [(), (6, 5)], ids=str)
def test_weights_with_projectors_beside_the_network_are_read_as_heads(projectors, tmp_path):
    """An older version wrote {"params": ..., "projectors": {"0": ...}}, the second empty where there were none."""
    c = tiny()
    c.model.update(depth=2, projectors=projectors, projector_width=16)
    config = configs.parse(c)
    spec = make_run_spec(config)
    params = initial_state(spec, meshes.make_mesh(MESH), 3).params
    heads = {f"projector_{i}" for i in range(len(projectors))}
    assert heads == {name for name in params if spec.model.is_head(name)}
    base = {name: tree for name, tree in params.items() if name not in heads}
    old = {"params": base, "projectors": {name.removeprefix("projector_"): params[name] for name in heads}}
    ocp.save_pytree(tmp_path / "model" / weights.FOLDER, old)
    write_json(tmp_path / "model" / "config.json", config.to_dict())
    found = weights.read_weights(tmp_path / "model", MESH)
    same(found.params, params)
    wanted = meshes.shard_tree(params, meshes.make_mesh(MESH))
    assert all(jax.tree.leaves(jax.tree.map(lambda x, s: x.sharding == s, found.params, wanted)))


class OldState(struct.PyTreeNode):
    """The state of a run as older versions saved it."""

    step: Any
    params: Any
    average: Any
    moments: Any
    loss_sum: Any
    health: Any


@pytest.mark.parametrize("mesh", [MESH, configs.Mesh()], ids=["fsdp", "data"])
def test_a_checkpoint_of_an_older_version_is_read(made, mesh, tmp_path):
    """Its state has other names, no frozen weights and one sum; beside it lie the seconds alone."""
    config, spec = made.config, made.spec
    state = initial_state(spec, meshes.make_mesh(MESH), 3)
    average = jax.tree.map(lambda x: x + 0.5, state.params)
    moments = jax.tree.map(lambda x: x + 1, state.opt_state)
    old = OldState(jnp.int32(6), state.params, average, moments, jnp.float32(0.25), state.health)
    tree = {"state": old, "seconds": np.asarray(12.5, np.float32), "fingerprint": fingerprint(old)}
    ocp.save_checkpointables(tmp_path / "checkpoints" / "6", {"run": tree})
    write_json(tmp_path / "config.json", config.to_dict())
    saved = Checkpoints(tmp_path / "checkpoints", 1, writes=False)
    found, progress = saved.restore(abstract_state(spec, meshes.make_mesh(mesh)))
    saved.close()
    assert progress == Progress(12.5)
    assert int(found.step) == 6
    assert {name: float(value) for name, value in found.sums.items()} == {"loss": 0.25}
    assert found.frozen == {}
    same((found.params, found.ema_params, found.opt_state), (state.params, average, moments))
    same(found.health, state.health)
    same(weights.read_weights(tmp_path, mesh).params, average)
    same(weights.read_weights(tmp_path, mesh, average=False).params, state.params)
    damaged = tree | {"state": old.replace(average=state.params), "seconds": np.asarray(13, np.float32)}
    ocp.save_checkpointables(tmp_path / "checkpoints" / "7", {"run": damaged})
    with pytest.raises(UserError, match=r"has changed since it was saved \(.*ema_params/.* is not what it was\)"):
        weights.read_weights(tmp_path, mesh)
