"""FID's Inception-v3 on folded weights, in an order of work that is fast on processors.

What all 1 x 1 convolutions of a block read is the same, so they are one product. Behind an average pool it is the pool
that comes second, since the two commute, on fewer channels.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rfjax.encoders.embedding.convolution import average_pool, convolve, folded, max_pool, max_pool_same, product, relu
from rfjax.encoders.embedding.inception_names import STEM, UNITS, Unit

EPSILON = 1e-3  # of the batch normalisations
SIDE = 299  # pixels
BLOCKS_A, BLOCKS_C = ("Mixed_5b", "Mixed_5c", "Mixed_5d"), ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e")
SPATIAL_BLOCK, SPATIAL_CHANNELS = "Mixed_6d", 7  # of sFID (Nash et al. 2021), as ADM's evaluator takes them
MAX_POOLED = "Mixed_7c"  # its pool is a maximum, in FID's network alone
ENTRY = "entry"  # the one product of a block's 1 x 1 convolutions


def entries(block: str) -> tuple[Unit, ...]:
    """The 1 x 1 convolutions of a block that are one product, in order."""
    return tuple(
        unit
        for unit in UNITS
        if unit.block == block and unit.size == (1, 1) and (block, unit.branch) != (MAX_POOLED, "branch_pool")
    )


def arranged(leaves: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The network's weights: of each unit, folded, but those of a block's 1 x 1 convolutions side by side.

    Args:
        leaves: from `read_inception`.
    """
    parts = ("kernel", "scale", "bias", "mean", "variance")
    units = {unit.name: folded({part: leaves[f"{unit.name}/{part}"] for part in parts}, EPSILON) for unit in UNITS}
    weights: dict[str, Any] = {unit.name: units[unit.name] for unit in STEM}
    for block in dict.fromkeys(unit.block for unit in UNITS[len(STEM) :]):
        together = entries(block)
        own = {unit.branch: units[unit.name] for unit in UNITS if unit.block == block and unit not in together}
        kernels = [units[unit.name]["kernel"][0, 0] for unit in together]
        biases = [units[unit.name]["bias"] for unit in together]
        weights[block] = own | {ENTRY: {"kernel": np.concatenate(kernels, 1), "bias": np.concatenate(biases)}}
    return weights | {"classifier": leaves["fc/kernel"]}


def inception(weights: Mapping[str, Any], x: Float[Array, "B 299 299 3"]) -> dict[str, Float[Array, "B F"]]:
    """The features of pictures about -1 to 1.

    Returns:
        pool: the means of the last block's 2048 channels. spatial: the first 7 channels of Mixed_6d's branch1x1, after
        ReLU, flattened in the order (H, W, C). logits: of the 1008 classes, without the bias, as the Inception score of
        TensorFlow's code has them.
    """
    x = _unit(weights["Conv2d_1a_3x3"], x, 2, "VALID")
    x = _unit(weights["Conv2d_2a_3x3"], x, 1, "VALID")
    x = max_pool(_unit(weights["Conv2d_2b_3x3"], x))
    stem = weights["Conv2d_3b_1x1"]
    x = relu(product(stem["kernel"][0, 0], x) + stem["bias"])
    x = max_pool(_unit(weights["Conv2d_4a_3x3"], x, 1, "VALID"))
    for block in BLOCKS_A:
        x = _block_a(block, weights[block], x)
    x = _block_b(weights["Mixed_6a"], x)
    spatial = x
    for block in BLOCKS_C:
        x = _block_c(block, weights[block], x)
        if block == SPATIAL_BLOCK:
            spatial = x[..., :SPATIAL_CHANNELS]  # branch1x1 comes first
    x = _block_d(weights["Mixed_7a"], x)
    x = _block_e("Mixed_7b", weights["Mixed_7b"], x)
    x = _block_e(MAX_POOLED, weights[MAX_POOLED], x)
    pool = x.mean((1, 2))
    logits = product(weights["classifier"], pool)
    return {"pool": pool, "spatial": spatial.reshape(spatial.shape[0], -1), "logits": logits}


def _unit(weights: Mapping[str, Any], x: Array, stride: int = 1, padding: str = "SAME") -> Array:
    return relu(convolve(weights, x, stride, padding))


def _entry(block: str, weights: Mapping[str, Any], x: Array) -> list[Array]:
    """What the block's 1 x 1 convolutions make of its input; the pool's, which is last, after the average."""
    kernel, bias = weights[ENTRY]["kernel"], weights[ENTRY]["bias"]
    together, start, found = product(kernel, x), 0, []
    for unit in entries(block):
        part, stop = together[..., start : start + unit.outputs], start + unit.outputs
        part = average_pool(part) if unit.branch == "branch_pool" else part
        found.append(relu(part + bias[start:stop]))
        start = stop
    return found


def _block_a(block: str, weights: Mapping[str, Any], x: Array) -> Array:
    first, five, three, pool = _entry(block, weights, x)
    five = _unit(weights["branch5x5_2"], five)
    three = _unit(weights["branch3x3dbl_3"], _unit(weights["branch3x3dbl_2"], three))
    return jnp.concatenate([first, five, three, pool], -1)


def _block_b(weights: Mapping[str, Any], x: Array) -> Array:
    (three,) = _entry("Mixed_6a", weights, x)
    three = _unit(weights["branch3x3dbl_3"], _unit(weights["branch3x3dbl_2"], three), 2, "VALID")
    return jnp.concatenate([_unit(weights["branch3x3"], x, 2, "VALID"), three, max_pool(x)], -1)


def _block_c(block: str, weights: Mapping[str, Any], x: Array) -> Array:
    first, seven, double, pool = _entry(block, weights, x)
    for number in (2, 3):
        seven = _unit(weights[f"branch7x7_{number}"], seven)
    for number in (2, 3, 4, 5):
        double = _unit(weights[f"branch7x7dbl_{number}"], double)
    return jnp.concatenate([first, seven, double, pool], -1)


def _block_d(weights: Mapping[str, Any], x: Array) -> Array:
    three, seven = _entry("Mixed_7a", weights, x)
    three = _unit(weights["branch3x3_2"], three, 2, "VALID")
    for number in (2, 3):
        seven = _unit(weights[f"branch7x7x3_{number}"], seven)
    seven = _unit(weights["branch7x7x3_4"], seven, 2, "VALID")
    return jnp.concatenate([three, seven, max_pool(x)], -1)


def _block_e(block: str, weights: Mapping[str, Any], x: Array) -> Array:
    first, three, double, *pool = _entry(block, weights, x)
    double = _unit(weights["branch3x3dbl_2"], double)
    threes = [_unit(weights[f"branch3x3_{name}"], three) for name in ("2a", "2b")]
    doubles = [_unit(weights[f"branch3x3dbl_{name}"], double) for name in ("3a", "3b")]
    last = weights.get("branch_pool")
    if last is not None:
        pool = [relu(product(last["kernel"][0, 0], max_pool_same(x)) + last["bias"])]
    return jnp.concatenate([first, *threes, *doubles, *pool], -1)
