"""From their tensors to our leaves and back: every permutation, stack, slice and copy, bit for bit, on many devices."""

import itertools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfjax.errors import UserError
from rfjax.tensors import transfer
from rfjax.tensors.layout import Piece, conv, linear, manifest, same
from rfjax.tensors.opening import open_tensors
from rfjax.tensors.safetensors import write_safetensors

KINDS = [np.dtype(kind) for kind in (np.float32, np.float16, ml_dtypes.bfloat16, np.int32, np.uint8, np.bool_)]
HERE = jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])
COPIES = ("copy.0", "copy.1")


def example(layers=3):
    """Our leaves, with a stack of layers, a fused matrix, one of their fused tensors, a patch kernel and copies."""
    rng = np.random.default_rng(0)
    shapes = {"qkv": (layers, 4, 9), "q": (4, 5), "k": (4, 5), "patch": (2 * 2 * 3, 6), "time": (7,), "scale": ()}
    layout = {
        "qkv": tuple(linear(f"blocks.{i}.{name}.weight", 4, 3, (i, slice(None), slice(3 * n, 3 * n + 3)))
                     for i in range(layers) for n, name in enumerate("qkv")),
        "q": (linear("in_proj", 4, 5, rows=(0, 5), total_rows=10),),
        "k": (linear("in_proj", 4, 5, rows=(5, 10), total_rows=10),),
        "patch": (conv("patch.weight", (2, 2), 3, 6),),
        "time": (same("time", (7,), copies=COPIES),),
        "scale": (same("scale", ()),),
    }  # fmt: skip
    return {path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes.items()}, layout


def structs(leaves, sharding=HERE):
    return {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding) for path, leaf in leaves.items()}


def save(path, leaves, layout, **changes):
    """A file of the leaves, with some tensors changed, or left out where the change is None."""
    tensors = {**dict(transfer.dump(leaves, layout)), **changes}
    tensors = {name: array for name, array in tensors.items() if array is not None}
    return open_tensors(write_safetensors(path / "x.safetensors", tensors.items(), tensors))


def assert_same(found, leaves):
    assert list(found) == list(leaves)
    for path, leaf in leaves.items():
        array = np.asarray(found[path])
        assert (array.dtype, array.shape, array.tobytes()) == (leaf.dtype, leaf.shape, leaf.tobytes()), path


def test_their_tensors_are_what_their_projects_hold():
    leaves, layout = example()
    theirs = dict(transfer.dump(leaves, layout))
    assert {name: array.shape for name, array in theirs.items()} == manifest(layout)
    assert list(theirs) == list(manifest(layout)) == list(transfer.specs(leaves, layout))
    np.testing.assert_array_equal(theirs["blocks.2.k.weight"], leaves["qkv"][2, :, 3:6].T)
    np.testing.assert_array_equal(theirs["in_proj"], np.concatenate([leaves["q"].T, leaves["k"].T]))
    np.testing.assert_array_equal(theirs["patch.weight"], leaves["patch"].reshape(2, 2, 3, 6).transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(theirs["copy.1"], leaves["time"])


@st.composite
def stacks(draw):
    """A leaf of any type whose layers, and then column ranges, go to tensors of any permutation."""
    layers, shape = draw(st.integers(1, 3)), tuple(draw(st.lists(st.integers(0, 4), min_size=1, max_size=3)))
    order = tuple(draw(st.permutations(range(len(shape)))))
    cut, copies = draw(st.integers(0, shape[-1])), draw(st.booleans())
    pieces = []
    for layer, (name, part) in itertools.product(range(layers), (("a", slice(0, cut)), ("b", slice(cut, shape[-1])))):
        index = (layer, *[slice(None)] * (len(shape) - 1), part)
        view = (*shape[:-1], part.stop - part.start)
        other = (f"{layer}.{name}.copy",) if copies else ()
        pieces.append(Piece(f"{layer}.{name}", index, view, order, copies=other))
    dtype = draw(st.sampled_from(KINDS))
    count = layers * int(np.prod(shape)) * dtype.itemsize
    raw = np.random.default_rng(0).integers(0, 2 if dtype.kind == "b" else 256, count, np.uint8)
    return {"leaf": raw.view(dtype).reshape(layers, *shape)}, {"leaf": tuple(pieces)}


@given(stacks())
def test_round_trips_are_exact(tmp_path_factory, case):
    leaves, layout = case
    with save(tmp_path_factory.mktemp("stack"), leaves, layout) as tensors:
        found = transfer.load(tensors, layout, structs(leaves))
    assert_same(found, leaves)
    again = dict(transfer.dump(found, layout))
    for name, array in transfer.dump(leaves, layout):
        assert again[name].tobytes() == array.tobytes()


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.booleans(), st.integers(0, 3))
def test_rows_of_one_tensor_fill_many_leaves(tmp_path_factory, sizes, matrices, width):
    ends = list(itertools.accumulate(sizes, initial=0))
    make = (
        (lambda n, **more: linear("all", width, n, **more))
        if matrices
        else (lambda n, **more: same("all", (n,), **more))
    )
    layout = {f"{i}": (make(n, rows=(ends[i], ends[i + 1]), total_rows=ends[-1]),) for i, n in enumerate(sizes)}
    leaves = {
        f"{i}": np.random.default_rng(i).normal(size=(width, n) if matrices else (n,)) for i, n in enumerate(sizes)
    }
    leaves = {path: leaf.astype(np.float16) for path, leaf in leaves.items()}
    with save(tmp_path_factory.mktemp("rows"), leaves, layout) as tensors:
        assert tensors.names == ("all",)
        assert_same(transfer.load(tensors, layout, structs(leaves)), leaves)


def test_bands_meet(tmp_path):
    leaves = {"w": np.random.default_rng(0).normal(size=(2, 3000, 500)).astype(np.float16)}
    layout = {"w": tuple(linear(f"{i}", 3000, 500, (i,)) for i in range(2))}
    with save(tmp_path, leaves, layout) as tensors:
        assert len(tensors.bands("0")) > 3
        assert_same(transfer.load(tensors, layout, structs(leaves)), leaves)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, np.float32])
def test_a_dtype_converts(tmp_path, dtype):
    leaves, layout = example()
    with save(tmp_path, leaves, layout) as tensors:
        found = transfer.load(tensors, layout, structs(leaves), dtype)
    assert_same(found, {path: leaf.astype(dtype) for path, leaf in leaves.items()})


def test_every_device_gets_its_shard(tmp_path):
    mesh = jax.sharding.Mesh(np.array(jax.devices("cpu")).reshape(2, 4), ("data", "fsdp"))
    leaves, layout = example(layers=4)
    target = structs(leaves, jax.NamedSharding(mesh, jax.P()))
    for path, spec in (("qkv", jax.P("data", "fsdp")), ("patch", jax.P("fsdp", "data")), ("q", jax.P("fsdp"))):
        target[path] = target[path].update(sharding=jax.NamedSharding(mesh, spec))
    with save(tmp_path, leaves, layout) as tensors:
        found = transfer.load(tensors, layout, target)
    assert_same(found, leaves)
    for path, array in found.items():
        assert array.sharding == target[path].sharding
    assert {shard.data.shape for shard in found["qkv"].addressable_shards} == {(2, 1, 9)}
    for name, array in transfer.dump(found, layout):
        assert array.tobytes() == dict(transfer.dump(leaves, layout))[name].tobytes()


def test_a_cpu_takes_the_memory_over(tmp_path):
    leaves = {"w": np.ones((256, 128), np.float32)}
    layout = {"w": (linear("w", 256, 128),)}
    host = transfer._aligned((256, 128), np.dtype(np.float32))
    array = jax.make_array_from_callback(host.shape, HERE, lambda index: host[index])
    assert array.unsafe_buffer_pointer() == host.ctypes.data
    with save(tmp_path, leaves, layout) as tensors:
        assert_same(transfer.load(tensors, layout, structs(leaves)), leaves)


def test_what_does_not_fit_is_named(tmp_path):
    leaves, layout = example()
    strange = dict.fromkeys(("x.1", "x.2", "x.3", "x.4", "pos_embed"), np.zeros(1))
    changes = {"scale": None, "time": np.zeros(8, np.float32)} | strange
    with save(tmp_path, leaves, layout, **changes) as tensors, pytest.raises(UserError) as caught:
        transfer.load(tensors, layout, structs(leaves), ignore=(r"pos_",))
    assert str(caught.value) == (
        f"{tmp_path}/x.safetensors does not fit its layout (15 tensors were expected and 19 found): 1 missing (scale); "
        "4 unexpected (x.1, x.2, x.3 and 1 more); 1 of another shape (time (8,) where (7,) was expected)"
    )
    with save(tmp_path, leaves, layout, pos_embed=np.zeros(1)) as tensors:
        assert_same(transfer.load(tensors, layout, structs(leaves), ignore=(r"pos_",)), leaves)


def test_copies_agree_to_the_last_bit(tmp_path):
    leaves, layout = example()
    other = np.nextafter(leaves["time"], np.float32(9), where=np.arange(7) == 6, out=leaves["time"].copy())
    fault = r"x\.safetensors has other values in copy\.1 than in time"
    with save(tmp_path, leaves, layout, **{"copy.1": other}) as tensors, pytest.raises(UserError, match=fault):
        transfer.load(tensors, layout, structs(leaves))
    leaves["time"][3] = np.nan
    with save(tmp_path, leaves, layout) as tensors:
        assert_same(transfer.load(tensors, layout, structs(leaves)), leaves)


def test_types_that_differ_or_do_not_fit_jax(tmp_path):
    leaves, layout = example()
    odd = {"blocks.1.q.weight": np.zeros((3, 4), np.float16)}
    fault = r"different types: .*float32.*blocks\.1\.q\.weight in float16"
    with save(tmp_path, leaves, layout, **odd) as tensors, pytest.raises(UserError, match=fault):
        transfer.load(tensors, layout, structs(leaves))
    wide = {path: leaf.astype(np.float64) for path, leaf in leaves.items()}
    with save(tmp_path, wide, layout) as tensors:
        with pytest.raises(UserError, match="float64, which JAX would cut"):
            transfer.load(tensors, layout, structs(leaves))
        assert_same(transfer.load(tensors, layout, structs(leaves), np.float32), leaves)


def test_wrong_layouts_are_refused(tmp_path):
    leaves, layout = example()
    with save(tmp_path, leaves, layout) as tensors:
        with pytest.raises(ValueError, match="different leaves"):
            transfer.load(tensors, layout, {})
        with pytest.raises(ValueError, match="do not fill"):
            transfer.load(tensors, layout | {"qkv": layout["qkv"][:-1]}, structs(leaves))
    with pytest.raises(ValueError, match="several types"):
        transfer.specs(leaves | {"k": leaves["k"].astype(np.float16)}, layout)
    for pieces, fault in (
        ((same("a", (2,)), same("a", (3,))), "two shapes"),
        ((same("a", (2,)), same("a", (2,))), "hold the rows"),
        ((same("a", (2,), rows=(0, 2), total_rows=3),), "hold the rows"),
    ):
        with pytest.raises(ValueError, match=fault):
            manifest({"x": pieces})
    for arguments, fault in (
        (("a", (), (2, 3), (0, 0)), "does not permute"),
        (("a", (), (2,), (0,), (0, 2)), "come together"),
        (("a", (), (2,), (0,), (0, 3), 4), "do not hold 2 rows"),
    ):
        with pytest.raises(ValueError, match=fault):
            Piece(*arguments)
