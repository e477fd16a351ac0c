"""A batch in parts: the same rows, whatever the batch, the parts and the mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from rfjax import config as configs
from rfjax.encoders.parts import in_parts
from rfjax.training import mesh as meshes

SEEN = []


def doubled(weights, batch, keys):
    """Depends on each row alone; notes how many rows it is given."""
    SEEN.append(len(batch["x"]))
    return {"twice": batch["x"] * weights, "index": batch["index"], "key": jax.random.key_data(keys)}


def given_rows(count):
    x = np.arange(2.0 * count, dtype=np.float32).reshape(count, 2)
    return {"x": jnp.asarray(x), "index": jnp.arange(count)}, jax.random.split(jax.random.key(1), count)


@settings(max_examples=10)
@given(st.integers(1, 17), st.integers(1, 20))
def test_any_parts_of_any_batch_give_the_same_rows(count, at_once):
    batch, keys = given_rows(count)
    expected = doubled(jnp.float32(2), batch, keys)
    SEEN.clear()
    found = in_parts(doubled, at_once)(jnp.float32(2), batch, keys)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    (size,) = set(SEEN)
    parts = -(-count // at_once)
    assert size <= at_once and size * parts - count < parts  # as equal as can be


def test_without_a_limit_the_function_is_itself():
    assert in_parts(doubled, 0) is doubled


@pytest.mark.parametrize(("count", "shape"), [(16, (8, 1, 1)), (16, (2, 2, 2)), (6, (8, 1, 1))])
def test_each_device_works_through_its_own_rows(count, shape):
    """Rows that the mesh can't divide lie on every device, each of which does all of them."""
    mesh = meshes.make_mesh(configs.Mesh(*shape))
    batch, keys = given_rows(count)
    expected = doubled(jnp.float32(2), batch, keys)
    batch, keys = jax.tree.map(lambda x: meshes.put_rows(x, count, mesh), (batch, keys))
    rows = batch["x"].sharding
    assert rows.is_fully_replicated == (count == 6)
    weights = jax.device_put(jnp.float32(2), NamedSharding(mesh, PartitionSpec()))
    SEEN.clear()
    found = jax.jit(in_parts(doubled, 2, rows), out_shardings=rows)(weights, batch, keys)
    assert set(SEEN) == {2}
    jax.tree.map(np.testing.assert_array_equal, found, expected)
