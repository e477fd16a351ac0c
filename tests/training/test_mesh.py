import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P
from networks import SMALL

from rfjax.config import Mesh
from rfjax.errors import UserError
from rfjax.models import build
from rfjax.models.counting import abstract_parameters
from rfjax.training import mesh as meshes


@pytest.mark.parametrize(
    ("shape", "made"),
    [
        ((-1, 1, 1), (8, 1, 1)),
        ((-1, 4, 1), (2, 4, 1)),
        ((1, -1, 1), (1, 8, 1)),
        ((2, -1, 2), (2, 2, 2)),
        ((1, 2, -1), (1, 2, 4)),
        ((2, 4, 1), (2, 4, 1)),
    ],
)
def test_one_axis_may_take_what_is_left(shape, made):
    assert meshes.make_mesh(Mesh(*shape)).devices.shape == made


@pytest.mark.parametrize(
    ("shape", "near"),
    [
        ((3, 1, 1), ""),
        ((-1, 3, 1), ": take fsdp = 2"),
        ((-1, 64, 1), ": take fsdp = 8"),
        ((-1, 3, 2), ": take fsdp = 2"),
        ((-1, -1, 1), ""),
        ((0, 8, 1), ""),
        ((16, 1, 1), ""),
    ],
)
def test_axes_that_do_not_make_up_the_devices_are_named(shape, near):
    asked = " x ".join(map(str, shape))
    with pytest.raises(UserError, match=rf"config.mesh = {asked} \(data x fsdp x tensor\) .* the 8 devices{near}$"):
        meshes.make_mesh(Mesh(*shape))


def test_a_batch_that_the_mesh_cannot_divide_is_answered_with_those_that_it_can():
    mesh = meshes.make_mesh(Mesh())
    meshes.check_batch("training.batch", 16, mesh, parts=2)
    with pytest.raises(UserError, match=r"training.batch = 12 can't be divided over 8 devices: take 8 or 16"):
        meshes.check_batch("training.batch", 12, mesh)
    with pytest.raises(UserError, match=r"= 24 can't be divided over 8 devices, 2 parts each: take 16 or 32"):
        meshes.check_batch("training.batch", 24, mesh, parts=2)
    meshes.check_batch("training.batch", 4, meshes.make_mesh(Mesh(2, 2, 2)))


def test_a_model_that_the_mesh_cannot_share_out_is_answered_with_what_can():
    inputs = SMALL
    model = build("mmdit", 3, 20)  # width 60, three heads
    shapes = abstract_parameters(model, inputs)
    with pytest.raises(UserError, match=r"mesh.tensor = 2 can't share out 3 attention heads: take a divisor of 3"):
        meshes.check_model(model, shapes, meshes.make_mesh(Mesh(-1, 1, 2)))
    with pytest.raises(UserError, match=r"fsdp = 8 does not divide the width 60, so 9\d% of the weights .*: take 4"):
        meshes.check_model(model, shapes, meshes.make_mesh(Mesh(1, -1, 1)))
    meshes.check_model(model, shapes, meshes.make_mesh(Mesh(2, 4, 1)))


def test_the_rules_say_what_is_spread():
    mesh = meshes.make_mesh(Mesh(data=1, fsdp=4, tensor=2))
    model = build("mmdit", 4, 8, qk_norm=True)
    tree = {
        "opt_state": {"mu": abstract_parameters(model, SMALL)},
        "step": jnp.zeros(()),
    }
    specs = jax.tree.map(lambda s: s.spec, meshes.shard_tree(tree, mesh))
    image, ends = specs["opt_state"]["mu"]["blocks"]["image"], specs["opt_state"]["mu"]
    assert image["qkv"]["linear"]["kernel"] == P(None, "fsdp", None, "tensor", None)
    assert image["qkv"]["linear"]["bias"] == P(None, None, "tensor", None)
    assert image["qkv"]["q_norm"]["scale"] == P(None, None)
    assert image["out"]["kernel"] == P(None, "tensor", "fsdp")
    assert image["out"]["bias"] == P(None, None)
    assert image["mlp"]["fc1"]["kernel"] == P(None, "fsdp", "tensor")
    assert image["mlp"]["fc1"]["bias"] == P(None, "tensor")
    assert image["mlp"]["fc2"]["kernel"] == P(None, "tensor", "fsdp")
    assert image["modulation"]["linear"]["kernel"] == P(None, "fsdp", None)
    assert ends["patch_embed"]["kernel"] == P("fsdp", None)
    assert ends["pooled_embed"]["fc1"]["kernel"] == P("fsdp", None)
    assert specs["step"] == P()
    bare = jax.eval_shape(build("mmdit", 2, 16, modulation="token").init, jax.random.key(0), *SMALL.abstract(1))
    for path, sharding in jax.tree_util.tree_leaves_with_path(meshes.shard_tree(bare["params"], mesh)):
        if "norms" in jax.tree_util.keystr(path, simple=True, separator="/"):
            assert set(sharding.spec) == {None}  # vectors of one weight a channel are whole
    odd = meshes.shard_tree({"odd": {"kernel": jnp.zeros((6, 8))}}, mesh)
    assert odd["odd"]["kernel"].spec == P(None, None)  # 6 rows over 4 devices: whole


def test_every_rule_is_used_by_some_backbone():
    inputs, used = SMALL, set()
    for name, more in (("mmdit", {"dual_blocks": 1}), ("crossdit", {}), ("dit", {"classes": 24})):
        shapes = abstract_parameters(build(name, 2, 16, **more), inputs)
        for path, _ in jax.tree_util.tree_leaves_with_path(shapes):
            used.add(meshes.rule(jax.tree_util.keystr(path, simple=True, separator="/")).name)
    assert used == {rule.name for rule in meshes.RULES}


@given(st.sampled_from([(8, 1, 1), (2, 4, 1), (2, 2, 2), (1, 2, 4)]), st.integers(1, 24))
@settings(max_examples=15)
def test_rows_lie_where_they_are_said_to(shape, count):
    mesh = meshes.make_mesh(Mesh(*shape))
    values = np.arange(2.0 * count).reshape(count, 2)
    assert meshes.rows_here(count, mesh) == list(range(count))  # one process holds all
    batch = meshes.put_rows({"image": values}, count, mesh)["image"]
    whole = count % (shape[0] * shape[1])
    assert batch.addressable_shards[0].data.shape[0] == (count if whole else count // (shape[0] * shape[1]))
    np.testing.assert_array_equal(batch, values)
    np.testing.assert_array_equal(meshes.place(jnp.asarray(values), mesh), values)
