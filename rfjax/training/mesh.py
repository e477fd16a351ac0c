"""The device mesh, and which dimension of which array is spread over which of its axes.

`data` and `fsdp` share the batch; `fsdp` also shares the weights, and all that is kept for each of them; `tensor`
shares attention heads and hidden units, and sees the same examples.
"""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rfjax import config as configs
from rfjax.errors import UserError
from rfjax.models import Backbone
from rfjax.models.shards import FSDP, TENSOR, Shards
from rfjax.trees import leaf_name

DATA = "data"
AXES = (DATA, FSDP, TENSOR)
SHARING = (DATA, FSDP)  # the axes that share the batch
BATCH = PartitionSpec(SHARING)


class Rule(NamedTuple):
    """The mesh axis of each of the last dimensions of the weights whose path a pattern finds."""

    name: str
    pattern: str
    axes: tuple[str | None, ...]


# The first one that fits counts; a dimension that the axis can't divide stays whole. Moments and averaged weights have
# their weight's path and so its sharding. D width, H heads, K head width, F hidden units.
RULES = (
    Rule("to q, k, v: (D, n, H, K)", r"(qkv/linear|cross/kv)/kernel$", (FSDP, None, TENSOR, None)),
    Rule("to q: (D, H, K)", r"cross/q/kernel$", (FSDP, TENSOR, None)),
    Rule("their biases: (H, K)", r"(qkv/linear|cross/kv|cross/q)/bias$", (TENSOR, None)),
    Rule("from heads: (H K, D)", r"(^|/)(dual_)?out/kernel$", (TENSOR, FSDP)),
    Rule("into an MLP, and its gate: (D, F)", r"mlp/(fc1|gate)/kernel$", (FSDP, TENSOR)),
    Rule("their biases: (F,)", r"mlp/(fc1|gate)/bias$", (TENSOR,)),
    Rule("out of an MLP: (F, D)", r"mlp/fc2/kernel$", (TENSOR, FSDP)),
    Rule("other matrices and kernels", r"kernel$", (FSDP, None)),
    Rule("tables", r"embedding$", (None, FSDP)),
    Rule("everything else", r"", ()),
)
LARGEST_WHOLE = 0.25  # of a model's weights, with fsdp: more on each device would not be what was asked for


def make_mesh(shape: configs.Mesh, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Arranges devices, by default all, as (data, fsdp, tensor).

    Raises:
        UserError: if the product of the axes is not the number of devices.
    """
    count = len(devices) if devices else jax.device_count()
    sizes = [shape.data, shape.fsdp, shape.tensor]
    known = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) == 1 and known > 0 and count % known == 0:
        sizes[sizes.index(-1)] = count // known
    if math.prod(sizes) != count or min(sizes) < 1:
        asked = " x ".join(map(str, (shape.data, shape.fsdp, shape.tensor)))
        raise UserError(
            f"config.mesh = {asked} (data x fsdp x tensor) does not make up the {count} devices{_near(shape, count)}"
        )
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def _near(shape: configs.Mesh, count: int) -> str:
    fits = [n for n in range(1, count + 1) if count % (n * max(shape.tensor, 1)) == 0]
    if -1 in (shape.data, shape.fsdp) and shape.tensor != -1 and fits:
        axis, asked = ("fsdp", shape.fsdp) if shape.data == -1 else ("data", shape.data)
        return f": take {axis} = {min(fits, key=lambda n: abs(n - asked))}" if asked > 0 else ""
    return ""


def sharing(mesh: Mesh) -> int:
    """Among how many devices, or groups of devices, a batch is divided."""
    return mesh.shape[DATA] * mesh.shape[FSDP]


def check_batch(name: str, batch: int, mesh: Mesh, parts: int = 1) -> None:
    """Raises UserError if the mesh can't divide a batch evenly, in `parts` one after the other."""
    unit = sharing(mesh) * parts
    if batch % unit:
        below, above = batch // unit * unit, -(-batch // unit) * unit
        near = f"{below} or {above}" if below else f"{above}"
        by = f"{sharing(mesh)} devices" + (f", {parts} parts each" if parts > 1 else "")
        raise UserError(f"config.{name} = {batch} can't be divided over {by}: take {near}")


def check_attention(implementation: str, mesh: Mesh) -> None:
    """Raises UserError if the mesh's devices lack an implementation of attention; to be called before any tracing."""
    if implementation == "cudnn" and (kind := mesh.devices.flat[0].platform) != "gpu":
        raise UserError(
            f"config.model.attention = 'cudnn' needs NVIDIA GPUs, and the devices here are of kind '{kind}': leave it "
            "empty"
        )


def check_model(model: Backbone, shapes: Any, mesh: Mesh) -> None:
    """Raises UserError if the mesh can't share out a model with these (abstract) weights."""
    tensor, fsdp = mesh.shape[TENSOR], mesh.shape[FSDP]
    if model.heads % tensor or model.mlp_ratio * model.width % tensor:
        raise UserError(
            f"config.mesh.tensor = {tensor} can't share out {model.heads} attention heads: take a divisor of "
            f"{math.gcd(model.heads, model.mlp_ratio * model.width)}"
        )
    whole = jax.tree.map(lambda x, s: 0 if FSDP in s.spec else x.size, shapes, shard_tree(shapes, mesh))
    held, total = (sum(jax.tree.leaves(tree)) for tree in (whole, jax.tree.map(lambda x: x.size, shapes)))
    if fsdp > 1 and held > LARGEST_WHOLE * total:
        divisors = [n for n in range(1, fsdp) if fsdp % n == 0 and model.width % n == 0]
        raise UserError(
            f"config.mesh.fsdp = {fsdp} does not divide the width {model.width}, so {held / total:.0%} of the weights "
            f"would be whole on each device: take {max(divisors, default=1)}"
        )


def rule(path: str) -> Rule:
    """The rule for a weight, or for what is kept for it."""
    return next(rule for rule in RULES if re.search(rule.pattern, path))


def shard_tree(tree: Any, mesh: Mesh) -> Any:
    """The NamedSharding of each leaf of a tree of (abstract) arrays, by RULES."""

    def spec(path: Any, leaf: Any) -> NamedSharding:
        axes = rule(leaf_name(path)).axes
        axes = axes[-leaf.ndim :] if leaf.ndim else ()
        sizes = leaf.shape[leaf.ndim - len(axes) :]
        fits = lambda axis, n: axis and mesh.shape[axis] > 1 and n % mesh.shape[axis] == 0  # noqa: E731
        fitted = [axis if fits(axis, n) else None for axis, n in zip(axes, sizes, strict=True)]
        return NamedSharding(mesh, PartitionSpec(*[None] * (leaf.ndim - len(fitted)), *fitted))

    return jax.tree_util.tree_map_with_path(spec, tree)


def with_shardings(shapes: Any, mesh: Mesh) -> Any:
    """A tree of abstract arrays that say their shardings, by RULES, too."""
    add = lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)  # noqa: E731
    return jax.tree.map(add, shapes, shard_tree(shapes, mesh))


def shards(shardings: Any, mesh: Mesh, dtype: Any) -> Shards:
    """What a network has to know about weights with these shardings, and in which dtype it puts them together."""
    found = []
    for path, sharding in jax.tree_util.tree_leaves_with_path(shardings):
        if FSDP in sharding.spec:
            name = leaf_name(path)
            found.append((name, sharding.spec.index(FSDP) - len(sharding.spec)))
    return Shards(tuple(found), mesh.shape[TENSOR], dtype)


def rows_here(count: int, mesh: Mesh) -> list[int]:
    """Which of `count` rows, spread over the mesh as by `put_rows`, this process's devices hold, in order."""
    found = _row_sharding(count, mesh).addressable_devices_indices_map((count,)).values()
    return sorted({row for (rows,) in found for row in range(*rows.indices(count))})


def put_rows(batch: Any, count: int, mesh: Mesh) -> Any:
    """The rows that this process holds (`rows_here`) of a tree of arrays -> global arrays of `count` rows, spread over
    the axes that share a batch where those divide the count, else whole on every device."""
    sharding = _row_sharding(count, mesh)
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    place = {row: i for i, row in enumerate(rows_here(count, mesh))}

    def put(x: Any) -> jax.Array:
        part = lambda index: x[[place[row] for row in range(*index[0].indices(count))]]  # noqa: E731
        return jax.make_array_from_callback((count, *x.shape[1:]), sharding, part)

    return jax.tree.map(put, batch)


def place(values: Any, mesh: Mesh) -> jax.Array:
    """Like `put_rows`, of a global array, or of one that every process has whole."""
    if not getattr(values, "is_fully_addressable", True):
        return jax.device_put(values, _row_sharding(len(values), mesh))
    own = values if jax.process_count() == 1 else np.asarray(values)[rows_here(len(values), mesh)]
    return put_rows(own, len(values), mesh)


def _row_sharding(count: int, mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, BATCH if count % sharing(mesh) == 0 else PartitionSpec())
