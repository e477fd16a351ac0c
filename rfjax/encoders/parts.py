"""Large encoders work through a batch in parts, so that memory is bounded whatever the size of the batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec, Sharding


def in_parts(function: Callable[..., Any], at_once: int, rows: Sharding | None = None) -> Callable[..., Any]:
    """The same function of (weights, *trees of B rows) -> a tree of B rows, on at most `at_once` rows at a time.

    Parts are as equal as can be: 9 rows, 8 at once, are twice 5, the last of which is filled up with a row that is
    thrown away. So one program does all parts.

    Args:
        function: each row of its output depends on this row of its arguments alone.
        at_once: rows that a device works on at a time; 0: all of them, and the compiler spreads the work.
        rows: how the rows lie on the devices, each of which works through its own; None: on one device.
    """
    if not at_once:
        return function

    def local(weights: Any, *trees: Any) -> Any:
        count = len(jax.tree.leaves(trees)[0])
        parts = -(-count // at_once)
        if parts <= 1:
            return function(weights, *trees)
        size = -(-count // parts)

        def cut(leaf: jax.Array) -> jax.Array:
            filled = jnp.concatenate([leaf, leaf[: parts * size - count]])
            return filled.reshape(parts, size, *leaf.shape[1:])

        found = jax.lax.map(lambda part: function(weights, *part), jax.tree.map(cut, trees))
        return jax.tree.map(lambda leaf: leaf.reshape(parts * size, *leaf.shape[2:])[:count], found)

    if not isinstance(rows, NamedSharding):
        return local

    def spread(weights: Any, *trees: Any) -> Any:
        specs = (PartitionSpec(), *(rows.spec for _ in trees))
        return jax.shard_map(local, mesh=rows.mesh, in_specs=specs, out_specs=rows.spec)(weights, *trees)

    return spread
