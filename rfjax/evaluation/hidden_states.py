"""A network's hidden image tokens after every block, pooled over the patches: what REPA's Figs. 2 and 3 measure.

B batch, N image tokens, D width, d blocks, n examples.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Shaped

from rfjax import flow
from rfjax.compiling import options
from rfjax.encoders.codec import to_network
from rfjax.evaluation.validation import gather
from rfjax.models.backbone import HEADS, Backbone, Head

NOISE_SEED = 2410_06940  # of every measurement, so that two models see the same noise

Batch = Mapping[str, Any]
Load = Callable[[list[int]], Batch]  # numbers of examples -> their encoded batch, whose `slot` holds the numbers


class Tapped(nn.Module):
    """A head without weights: hands on what is tapped."""

    @nn.compact
    def __call__(self, tokens: Float[Array, "B M D"]) -> Float32[Array, "B M D"]:
        return tokens


def patch_mean(tokens: Float[Array, "B N D"]) -> Float32[Array, "B 1 D"]:
    """The mean over the tokens, in float32."""
    return tokens.astype(jnp.float32).mean(axis=1, keepdims=True)


def hidden_states(
    model: Backbone,
    params: Any,
    load: Load,
    *,
    formulation: flow.FormulationArrays,
    cond: Any,
    t: float,
    examples: int,
    batch: int,
    place: Callable[[Any], jax.Array] = jnp.asarray,
    full: bool = False,
    null: Any = None,
) -> Float32[np.ndarray, "d n D"]:
    """The patch mean of the image tokens after each block, at one noise level and without conditioning.

    Example i has noise from key i, so the result depends neither on the batch nor on the mesh.

    Args:
        model: any backbone.
        params: its weights, as `model.apply` takes them.
        load: gives "z" and "slot" of a batch.
        formulation: what z is mixed with noise by, as arrays.
        cond: the conditioning of one example, as shapes; the network gets its null.
        t: the noise level, 0 (data) to 1 (noise).
        examples: n.
        batch: examples on the devices at once.
        place: spreads rows over the devices.
        full: compile with full effort.
        null: the conditioning of a batch that says nothing, on the devices; None: the null of zeros.

    Returns:
        The states, whole on the host of every process.
    """
    if null is None:
        null = jax.tree.map(lambda leaf: place(np.zeros((batch, *leaf.shape), leaf.dtype)), cond).null()
    run, how = jit_states(model, full), (formulation, np.float32(t))
    found = stream(lambda rows: run(params, how, rows["z"], rows["slot"], null), load, examples, batch)
    return np.ascontiguousarray(found.transpose(1, 0, 2))


def stream(compute: Callable[[Batch], Array], load: Load, examples: int, batch: int) -> Float32[np.ndarray, "n ..."]:
    """Computes batch by batch, and keeps results on the host alone.

    A last batch that is not full is filled up with example 0, whose extra results are dropped.

    Args:
        compute: an encoded batch -> an array of B rows.
        load: numbers of examples -> their batch.
        examples: n.
        batch: B.
    """
    found: Any = None
    for start in range(0, examples, batch):
        rows = gather(compute(load([i if i < examples else 0 for i in range(start, start + batch)])))
        if found is None:
            found = np.empty((examples, *rows.shape[1:]), np.float32)
        found[start : start + batch] = rows[: examples - start]
    return found


@functools.cache
def jit_states(model: Backbone, full: bool = False) -> Callable[..., Float32[Array, "B d D"]]:
    """(params, (formulation, t), z, number of each example, conditioning) -> pooled states of each block, jitted.

    One forward pass serves all blocks; the scan over depth keeps each block's mean, not its tokens.
    """
    heads = tuple(Head(f"block_{number}", number, Tapped()) for number in range(1, model.depth + 1))
    tapped = model.clone(readouts=heads, tapped=patch_mean)

    def states(
        params: Any,
        how: tuple[flow.FormulationArrays, Float[Array, ""]],
        z: Shaped[Array, "B *S"],
        index: Int[Array, " B"],
        cond: Any,
    ) -> Float32[Array, "B d D"]:
        formulation, t = how
        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(NOISE_SEED), i))(index)
        eps = jax.vmap(lambda key: jax.random.normal(key, z.shape[1:]))(keys)
        at = formulation.coefficients(jnp.full(len(z), t, jnp.float32))
        shown, _ = flow.noised(at, to_network(z).astype(jnp.float32), eps)
        _, kept = tapped.apply({"params": params}, shown, at.time, cond, mutable=[HEADS])
        return jnp.concatenate([kept[HEADS][head.name] for head in heads], axis=1)

    return jax.jit(states, compiler_options=options(full))


@jax.jit
def pooled(tokens: Float[Array, "B N Z"]) -> Float32[Array, "B Z"]:
    """The patch mean of an encoder's tokens."""
    return tokens.astype(jnp.float32).mean(axis=1)
