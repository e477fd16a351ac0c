"""The device mesh, and which axis of which array is spread over it."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rfjax import config as configs
from rfjax.errors import UserError

BATCH = PartitionSpec(("data", "fsdp"))

# The first pattern that matches a parameter's path gives the mesh axis of each of its last dimensions; a dimension that
# the mesh can't divide stays whole. Moments and averaged weights have their parameter's name and so its sharding.
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"kernel$", ("fsdp", None)),
    (r".*", ()),
)


def make_mesh(shape: configs.Mesh, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Arranges devices, by default all, as (data, fsdp).

    Raises:
        UserError: if the product of the axes is not the number of devices.
    """
    count = len(devices) if devices else jax.device_count()
    data, fsdp = shape.data, shape.fsdp
    if data == -1 and fsdp > 0 and count % fsdp == 0:
        data = count // fsdp
    elif fsdp == -1 and data > 0 and count % data == 0:
        fsdp = count // data
    if data * fsdp != count or min(data, fsdp) < 1:
        raise UserError(f"config.mesh = {shape.data} x {shape.fsdp} (data x fsdp) does not make up the {count} devices")
    return jax.make_mesh((data, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2, devices=devices)


def check_batch(name: str, batch: int, mesh: Mesh) -> None:
    """Raises UserError if the mesh can't divide a batch evenly."""
    if batch % mesh.size:
        below, above = batch // mesh.size * mesh.size, -(-batch // mesh.size) * mesh.size
        near = f"{below} or {above}" if below else f"{above}"
        raise UserError(f"config.{name} = {batch} can't be divided over {mesh.size} devices: take {near}")


def shard_tree(tree: Any, mesh: Mesh) -> Any:
    """The NamedSharding of each leaf of a tree of (abstract) arrays, by RULES."""

    def spec(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        axes = next(axes for pattern, axes in RULES if re.search(pattern, name))
        axes = axes[-leaf.ndim :] if leaf.ndim else ()
        sizes = leaf.shape[leaf.ndim - len(axes) :]
        fitted = [axis if axis and n % mesh.shape[axis] == 0 else None for axis, n in zip(axes, sizes, strict=True)]
        return NamedSharding(mesh, PartitionSpec(*[None] * (leaf.ndim - len(fitted)), *fitted))

    return jax.tree_util.tree_map_with_path(spec, tree)


def place(values: Any, mesh: Mesh) -> jax.Array:
    """Spreads a batch over the mesh where the mesh divides it, else puts it whole on every device.

    `values` is a global array, or one that every process has whole.
    """
    sharding = NamedSharding(mesh, BATCH if len(values) % mesh.size == 0 else PartitionSpec())
    if jax.process_count() == 1 or not getattr(values, "is_fully_addressable", True):
        return jax.device_put(values, sharding)
    whole = np.asarray(values)
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """This process's share of a batch -> global arrays, spread over both axes."""
    sharding = NamedSharding(mesh, BATCH)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
