import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from rfjax.config import Mesh
from rfjax.errors import UserError
from rfjax.training import mesh as meshes


@pytest.mark.parametrize(
    ("data", "fsdp", "shape"), [(-1, 1, (8, 1)), (-1, 4, (2, 4)), (1, -1, (1, 8)), (2, 4, (2, 4)), (8, 1, (8, 1))]
)
def test_one_axis_may_take_what_is_left(data, fsdp, shape):
    assert meshes.make_mesh(Mesh(data=data, fsdp=fsdp)).devices.shape == shape


@pytest.mark.parametrize(("data", "fsdp"), [(3, 1), (-1, 3), (-1, -1), (0, 8), (16, 1)])
def test_axes_that_do_not_make_up_the_devices_are_named(data, fsdp):
    with pytest.raises(UserError, match=f"config.mesh = {data} x {fsdp}"):
        meshes.make_mesh(Mesh(data=data, fsdp=fsdp))


def test_a_batch_that_the_mesh_cannot_divide_is_answered_with_those_that_it_can():
    mesh = meshes.make_mesh(Mesh())
    meshes.check_batch("training.batch", 16, mesh)
    with pytest.raises(UserError, match=r"training.batch = 12 can't be divided over 8 devices: take 8 or 16"):
        meshes.check_batch("training.batch", 12, mesh)


def test_matrices_are_spread_over_fsdp_and_the_rest_is_whole():
    mesh = meshes.make_mesh(Mesh(data=2, fsdp=4))
    tree = {
        "blocks": {"fc1": {"kernel": jnp.zeros((3, 8, 6)), "bias": jnp.zeros((3, 8))}},
        "odd": {"kernel": jnp.zeros((6, 8))},
        "step": jnp.zeros(()),
    }
    specs = jax.tree.map(lambda s: s.spec, meshes.shard_tree(tree, mesh))
    assert specs["blocks"]["fc1"]["kernel"] == P(None, "fsdp", None)
    assert specs["blocks"]["fc1"]["bias"] == P(None, None) or specs["blocks"]["fc1"]["bias"] == P()
    assert specs["odd"]["kernel"] == P(None, None)  # 6 rows over 4 devices: whole
    assert specs["step"] == P()


def test_a_batch_is_spread_over_both_axes():
    mesh = meshes.make_mesh(Mesh(data=2, fsdp=4))
    batch = meshes.put_batch({"image": np.arange(16.0).reshape(8, 2)}, mesh)
    assert batch["image"].addressable_shards[0].data.shape == (1, 2)
    np.testing.assert_array_equal(batch["image"], np.arange(16.0).reshape(8, 2))
