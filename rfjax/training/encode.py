"""The encode stage: one jitted program on the mesh between loading and the step."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, Sharding

from rfjax import data
from rfjax.compiling import options
from rfjax.encoders import Encoder
from rfjax.encoders.parts import in_parts
from rfjax.tensors.transfer import Deferred
from rfjax.training import mesh as meshes

STREAM = 2  # of random numbers: 0 are the initial weights, 1 the noise of training


@dataclass(frozen=True)
class EncodeStage:
    """Encoders with their frozen weights, which are placed once and are no part of the training state.

    Attributes:
        encoders: the codec, the text encoder, and others.
        weights: of each encoder, on the devices.
    """

    encoders: tuple[Encoder, ...]
    weights: tuple[Any, ...]

    @classmethod
    def place(cls, encoders: tuple[Encoder, ...], mesh: Mesh) -> "EncodeStage":
        """Reads the weights and places them by the rules of `training.mesh`."""
        return cls(encoders, tuple(place_weights(one.weights(), mesh) for one in encoders))

    def extended(self, encoders: tuple[Encoder, ...], mesh: Mesh) -> "EncodeStage":
        """The stage with more encoders behind its own, whose weights it shares."""
        more = EncodeStage.place(encoders, mesh)
        return EncodeStage(self.encoders + more.encoders, self.weights + more.weights)

    def names(self, source: data.Source) -> list[str]:
        """The arrays of a data set that the encoders use."""
        wanted = {name for one in self.encoders for name in one.reads}
        return [name for name in source.fields if name in wanted]

    def prepare(self, examples: data.Examples) -> dict[str, np.ndarray]:
        """What goes to the devices, made in the threads that load data."""
        found: dict[str, np.ndarray] = {}
        for one in self.encoders:
            found |= one.prepare(examples.arrays, examples.captions)
        return found

    def __call__(self, batch: Mapping[str, Any], seed: Any, step: Any) -> dict[str, Any]:
        """Encodes a batch on the devices: {"z", "cond", other encoders' names, "slot"}, SYNTHETIC if it has that.

        Args:
            batch: of `prepare`, with `slot`, on the devices.
            seed: of the run, on the devices.
            step: the number of the batch, on the devices; both are for encoders that draw random numbers.
        """
        return jit_encode(self.encoders, batch["slot"].sharding)(self.weights, batch, seed, step)

    def condition(self, arrays: Mapping[str, Any]) -> Any:
        """The conditioning of prepared text on the devices."""
        return jit_condition(self.encoders[1])(self.weights[1], arrays)


def place_weights(weights: Any, mesh: Mesh) -> Any:
    """Spreads an encoder's weights over the mesh; those that are still in their files are read one leaf at a time."""

    def put(leaf: Any, sharding: Sharding) -> jax.Array:
        return leaf.place(sharding) if isinstance(leaf, Deferred) else jax.device_put(leaf, sharding)

    return jax.tree.map(put, weights, meshes.shard_tree(weights, mesh))


@functools.cache
def jit_encode(encoders: tuple[Encoder, ...], rows: Sharding | None = None) -> Callable[..., dict[str, Any]]:
    """(weights, batch, seed, step) -> encoded batch, jitted. An example's key depends on (seed, step, slot) alone.

    Args:
        encoders: what runs.
        rows: how the rows of a batch are spread; what an encoder draws at random would not tell by itself.
    """

    def encode(weights: Any, batch: Any, seed: Any, step: Any) -> dict[str, Any]:
        step_key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), STREAM), step)
        keys = jax.vmap(lambda place: jax.random.fold_in(step_key, place))(batch["slot"])
        made = {name: batch[name] for name in ("slot", data.SYNTHETIC) if name in batch}
        for one, own in zip(encoders, weights, strict=True):
            made[one.name] = in_parts(one.encode, getattr(one, "at_once", 0), rows)(own, batch, keys)
        return made

    return jax.jit(encode, out_shardings=rows, compiler_options=encoding_options(encoders))


def encoding_options(encoders: Sequence[Encoder]) -> dict[str, Any] | None:
    """The compiler's options for a program of encoders."""
    networks = any(getattr(one, "at_once", 0) for one in encoders)  # which take a third less time with full effort
    leaves = [
        leaf for one in encoders if hasattr(one, "abstract_weights") for leaf in jax.tree.leaves(one.abstract_weights())
    ]
    return options(networks, narrow=any(leaf.dtype.itemsize < 4 for leaf in leaves))


@functools.cache
def jit_condition(text: Any) -> Callable[..., Any]:
    def condition(weights: Any, arrays: Any) -> Any:
        rows = len(next(iter(arrays.values())))
        keys = jax.random.split(jax.random.key(0), rows)
        return text.encode(weights, arrays, keys)

    return jax.jit(condition, compiler_options=encoding_options((text,)))
