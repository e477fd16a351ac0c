"""Numbers that tell whether a state is still what it was when it was saved."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32


def fingerprint(tree: Any) -> UInt32[Array, " n"] | UInt32[np.ndarray, " n"]:
    """A number for each leaf: the sum of its bits as integers, each times an odd number that goes with its place.

    Sums of integers don't depend on their order, so it is the same on any mesh. On the CPUs of one process numpy adds
    them up where they lie, since a program for each network would take longer to compile than to run.
    """
    if jax.default_backend() == "cpu" and jax.process_count() == 1:
        return np.array([_mixed_here(np.asarray(leaf)) for leaf in jax.tree.leaves(tree)], np.uint32)
    return fingerprint_on_devices(tree)


@jax.jit
def fingerprint_on_devices(tree: Any) -> UInt32[Array, " n"]:
    """`fingerprint` as one program."""
    return jnp.stack([_mixed(leaf) for leaf in jax.tree.leaves(tree)])


def _mixed_here(leaf: np.ndarray) -> np.uint32:
    bits = np.ascontiguousarray(leaf).reshape(-1).view(f"uint{8 * leaf.dtype.itemsize}").astype(np.uint32)
    odd = np.arange(bits.size, dtype=np.uint32) * np.uint32(2 * 2654435761 % 2**32) + np.uint32(1)
    return np.sum(bits * odd, dtype=np.uint32)


def _mixed(leaf: Array) -> UInt32[Array, ""]:
    bits = jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{8 * leaf.dtype.itemsize}")).astype(jnp.uint32)
    place, stride = jnp.zeros(leaf.shape, jnp.uint32), 1
    for axis in reversed(range(leaf.ndim)):
        place += jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis) * jnp.uint32(stride % 2**32)
        stride *= leaf.shape[axis]
    return jnp.sum(bits * (place * jnp.uint32(2654435761) * 2 + 1), dtype=jnp.uint32)
