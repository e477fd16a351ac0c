"""One network on the devices at a time: each text encoder, then the network, then the autoencoder.

What a part makes waits on the host for the next one. The pictures are those of all parts together, to rounding.
"""

import contextlib
import functools
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from rfjax.encoders.codec import Codec, Latents
from rfjax.evaluation.generation import Prompts
from rfjax.evaluation.sampler import Sampleable, decodes_apart, jit_decode
from rfjax.evaluation.validation import gather
from rfjax.training import mesh as meshes
from rfjax.training.encode import jit_condition, place_weights


@dataclass
class Parts:
    """What was on the devices: lines for the user, and for the record of the pictures.

    Attributes:
        found: of each part its name, its bytes, and the seconds that it took to read and to run.
        say: tells the user.
    """

    say: Callable[[str], None]
    found: list[dict[str, Any]] = field(default_factory=list)

    def read(self, name: str, load: Callable[[], Any]) -> Any:
        """Loads a part and measures it: its leaves are on the devices afterwards."""
        self.say(f"reading {name}")
        began = time.monotonic()
        loaded = jax.block_until_ready(load())
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(loaded))
        self.found.append({"part": name, "bytes": size, "read_seconds": time.monotonic() - began, "run_seconds": 0.0})
        return loaded

    @contextlib.contextmanager
    def running(self, name: str) -> Iterator[None]:
        """Adds the seconds of a `with` to a part that was read, compilation included."""
        self.say(f"running {name}")
        began = time.monotonic()
        yield
        for part in self.found:
            if part["part"] == name:
                part["run_seconds"] += time.monotonic() - began

    def lines(self) -> list[str]:
        """A line for each part."""
        return [
            f"{part['part']:>12}: {part['bytes'] / 1e9:7.3f} GB of weights, read in {part['read_seconds']:.1f} s, ran "
            f"for {part['run_seconds']:.1f} s"
            for part in self.found
            if part["bytes"]
        ]


@dataclass(frozen=True)
class Encoded:
    """Encoded prompts on the host.

    Attributes:
        prompts: with the leaves of the conditioning as their arrays.
        condition: arrays of some rows, on the devices -> their conditioning.
    """

    prompts: Prompts
    condition: Callable[[dict[str, Any]], Any]


def encode_prompts(text: Any, prompts: Prompts, batch: int, mesh: Mesh, parts: Parts) -> Encoded:
    """Encodes all prompts, with one of the encoder's networks on the devices at a time.

    Args:
        text: the encoder. One with `parts` makes zeros for those that it lacks, so each is run by itself.
        prompts: n of them, prepared.
        batch: prompts at once.
        mesh: of the devices.
        parts: is told.
    """
    networks = [(part.name, replace(text, parts=(part,))) for part in getattr(text, "parts", ())] or [("text", text)]
    total = None
    for name, one in networks:
        weights = parts.read(name, functools.partial(_placed, one, mesh))
        with parts.running(name):
            made = _run(one, weights, prompts, batch, mesh)
        total = made if total is None else jax.tree.map(np.add, total, made)
        del weights
        gc.collect()
    leaves, structure = jax.tree.flatten(total)
    names = [f"leaf_{i}" for i in range(len(leaves))]

    def condition(arrays: dict[str, Any]) -> Any:
        return jax.tree.unflatten(structure, [arrays[name] for name in names])

    return Encoded(replace(prompts, arrays=dict(zip(names, leaves, strict=True))), condition)


def _placed(encoder: Any, mesh: Mesh) -> Any:
    return place_weights(encoder.weights(), mesh)


def _run(text: Any, weights: Any, prompts: Prompts, batch: int, mesh: Mesh) -> Any:
    """The conditioning of all prompts, on the host."""
    count, rows = len(prompts.texts), []
    for start in range(0, count, batch):
        index = np.minimum(np.arange(start, start + batch), count - 1)
        put = {name: meshes.place(array[index], mesh) for name, array in prompts.arrays.items()}
        made = jax.tree.map(gather, jit_condition(text)(weights, put))
        rows.append(jax.tree.map(lambda leaf, n=count - start: leaf[:n], made))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *rows)


def without_decoder(network: Sampleable) -> Sampleable:
    """The same to sample from, whose pictures are decoded afterwards by `decode`."""
    return replace(network, codec=Latents(network.codec.shape), frozen=()) if decodes_apart(network.codec) else network


def decode(codec: Codec, z: np.ndarray, batch: int, mesh: Mesh, parts: Parts) -> np.ndarray:
    """Pictures of latents on the host, with the autoencoder alone on the devices."""
    needed = replace(codec, inner=Latents(codec.shape))  # which asks for the decoder alone
    weights = parts.read("autoencoder", functools.partial(_placed, needed, mesh))
    pictures = []
    with parts.running("autoencoder"):
        for start in range(0, len(z), batch):
            index = np.minimum(np.arange(start, start + batch), len(z) - 1)
            put = meshes.place(z[index], mesh)
            pictures.append(gather(jit_decode(needed, put.sharding)(weights, put))[: len(z) - start])
    return np.concatenate(pictures)
