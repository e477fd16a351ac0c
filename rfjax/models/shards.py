"""Weights in shards: how a network that runs inside of `jax.shard_map` makes use of its device's part of them.

Over the mesh axis `fsdp` each device stores a part of a weight. It is put together right before its use, once in the
forward and once in the backward pass, and the gradients are added up where they are taken apart again (ZeRO-3,
Rajbhandari et al. 2020). Over the axis `tensor` each device has some of the attention heads and of the MLPs' hidden
units, and the outputs of the two Linears behind them are added up (Megatron, Shoeybi et al. 2019).
"""

import functools
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array

from rfjax.trees import leaf_name

FSDP, TENSOR = "fsdp", "tensor"
GATHERED = "gathered weight"  # never kept for the backward pass


@runtime_checkable
class Adapter(Protocol):
    """Low-rank or other factors beside base weights: hashable, a part of the compiled step's key.

    The factors of a weight lie beside it in the tree, under names of their own. Under the scan over depth both have a
    leading axis, which `merge` must allow for.
    """

    def init(self, params: Any, key: Array) -> Any:
        """The factors of the base weights: a nested dict that holds them alone, at their places in the tree."""
        ...

    def merge(self, params: Any) -> Any:
        """A nested dict of base weights with factors beside them -> the weights, without the factors."""
        ...


@dataclass(frozen=True)
class Shards:
    """What a network has to know of the mesh; by default it has its weights whole.

    Attributes:
        dimensions: (path of a weight, its dimension that is spread over `fsdp`, counted from the last, so negative).
        tensor: devices that share the heads and the hidden units.
        dtype: that weights are put together in: the one of the matrix products.
        adapter: merges factors that are trained into base weights that are not.
    """

    dimensions: tuple[tuple[str, int], ...] = ()
    tensor: int = 1
    dtype: Any = jnp.float32
    adapter: Adapter | None = None

    @property
    def changes(self) -> bool:
        """Whether `gather` returns something else than it is given."""
        return bool(self.dimensions) or self.adapter is not None

    @functools.cached_property
    def _by_path(self) -> dict[str, int]:
        return dict(self.dimensions)

    def gather(self, tree: Any, prefix: str = "") -> Any:
        """Makes the weights that the network reads of those that this device stores.

        Args:
            tree: this device's parts of the weights below a path.
            prefix: that path; "": the whole tree.

        Returns:
            The whole weights, but for `tensor`'s part, with the adapter's factors merged into them.
        """

        def whole(path: Any, leaf: Array) -> Array:
            name = "/".join(filter(None, [prefix, leaf_name(path)]))
            dimension = self._by_path.get(name)
            if dimension is None:
                return leaf
            return checkpoint_name(_gather(leaf, leaf.ndim + dimension, jnp.dtype(self.dtype)), GATHERED)

        tree = jax.tree_util.tree_map_with_path(whole, tree) if self.dimensions else tree
        return self.adapter.merge(tree) if self.adapter else tree

    def share(self, x: Array) -> Array:
        """What all devices have alike, for weights of which each has a part: its gradient is added up over them."""
        return jax.lax.pcast(x, TENSOR, to="varying") if self.tensor > 1 else x

    def add_up(self, x: Array) -> Array:
        """The sum over the devices that share heads and hidden units."""
        return jax.lax.psum(x, TENSOR) if self.tensor > 1 else x


WHOLE = Shards()


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(part: Array, axis: int, dtype: Any) -> Array:
    return jax.lax.all_gather(part.astype(dtype), FSDP, axis=axis, tiled=True)


def _forward(part: Array, axis: int, dtype: Any) -> tuple[Array, None]:
    return _gather(part, axis, dtype), None


def _backward(axis: int, dtype: Any, _: None, gradient: Array) -> tuple[Array]:
    # In float32: a sum over hundreds of devices in bfloat16 would lose what each adds.
    wide = gradient.astype(jnp.float32)
    return (jax.lax.psum_scatter(wide, FSDP, scatter_dimension=axis, tiled=True),)


_gather.defvjp(_forward, _backward)


def _all_but_weights(primitive: Any, *_: Any, **params: Any) -> bool:
    # Functions with a backward pass of their own (custom_vjp) are `_gather` and, on CPUs, `matmul._product`.
    return primitive.name != "custom_vjp_call" and params.get("name") != GATHERED


# What the backward pass finds kept, by the name of config.model.remat.
REMAT: dict[str, Any] = {
    "none": _all_but_weights,
    "linears": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "dots": jax.checkpoint_policies.dots_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}
