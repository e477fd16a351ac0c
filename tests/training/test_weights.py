import json

import jax
import numpy as np
import pytest
from tiny import begun_run, tiny

from rfjax import config as configs
from rfjax.errors import UserError
from rfjax.jsonl import write_json
from rfjax.training import mesh as meshes
from rfjax.training import weights
from rfjax.training.spec import make_run_spec
from rfjax.training.step import initial_state

MESH = configs.Mesh(-1, 2)


@pytest.fixture(scope="module")
def made():
    """Weights of a tiny network."""
    c = tiny()
    c.model.depth = 1
    config = configs.parse(c)
    parts = make_run_spec(config)
    return weights.Weights(config, parts, initial_state(parts, meshes.make_mesh(MESH), 3).params, 0)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


def test_what_is_written_is_read_in_the_shards_of_the_mesh(made, tmp_path):
    given = made
    weights.write(tmp_path / "model", given)
    found = weights.read(tmp_path / "model", MESH)
    assert (found.config, found.parts, found.step) == (given.config, given.parts, 0)
    same(found.params, given.params)
    same(weights.read(tmp_path / "model", configs.Mesh()).params, given.params)
    wanted = meshes.shard_tree(given.params, meshes.make_mesh(MESH))
    assert all(jax.tree.leaves(jax.tree.map(lambda x, s: x.sharding == s, found.params, wanted)))
    assert any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(found.params))
    trained = found.trained((8, 16, 3))
    assert (trained.image, found.trained().image) == ((8, 16, 3), (16, 16, 3))
    assert trained.formulation.name == "rf/lognorm(0.00,1.00)"


def test_weights_are_not_written_over_anything(made, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty: choose another folder"):
        weights.write(tmp_path, made)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_newest_checkpoint_of_a_run_is_read_with_its_average_or_without(made, tmp_path):
    params = begun_run(tmp_path, made.config, (1, 2))
    unfinished = tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp"
    unfinished.mkdir()
    ema, raw = (weights.read(tmp_path, MESH, average) for average in (True, False))
    assert (ema.step, raw.step) == (2, 2)
    same(raw.params, params)
    same(ema.params, jax.tree.map(lambda x: np.asarray(x) + np.float32(0.02), params))
    assert unfinished.exists()  # the run may be writing it


def test_a_folder_without_weights_is_named(made, tmp_path):
    with pytest.raises(UserError, match=r"is not the folder of a run: it has no config\.json"):
        weights.read(tmp_path, MESH)
    plain = made.config.to_dict()
    write_json(tmp_path / "config.json", plain)
    with pytest.raises(UserError, match="has no checkpoint yet: train it first"):
        weights.read(tmp_path, MESH)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="has no checkpoint yet: train it first"):
        weights.read(tmp_path, MESH)
    for text, words in (("{", r"config\.json is not JSON"), (json.dumps(plain | {"old": 1}), "no key 'old'")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(UserError, match=words):
            weights.read(tmp_path, MESH)
