import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from rfjax.planning.hlo import Traffic
from rfjax.planning.programs import read_program

LAYERS, ROWS, WIDTH = 5, 4, 16  # rows: of one of eight devices


def traced(block, dtype=jnp.bfloat16):
    mesh = jax.make_mesh((2, 4, 1), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)

    def loss(weights, x):
        x, _ = jax.lax.scan(block, x, weights)
        return jax.lax.psum((x**2).sum(), ("data", "fsdp"))

    mapped = jax.shard_map(
        jax.value_and_grad(loss),
        mesh=mesh,
        in_specs=(P(None, "fsdp"), P(("data", "fsdp"))),
        out_specs=(P(), P(None, "fsdp")),
    )
    weights, x = jax.ShapeDtypeStruct((LAYERS, WIDTH, WIDTH), dtype), jax.ShapeDtypeStruct((8 * ROWS, WIDTH), dtype)
    return read_program(jax.jit(mapped).trace(weights, x).jaxpr, 8)


def layer(x, part):
    return jnp.tanh(x @ jax.lax.all_gather(part, "fsdp", tiled=True)), None


def test_a_step_that_computes_its_blocks_again():
    found = traced(jax.checkpoint(layer))
    product = 2 * ROWS * WIDTH * WIDTH
    assert found.in_shard_map
    assert found.flops == 4 * LAYERS * product
    assert found.recomputed == LAYERS * product
    weight = WIDTH * WIDTH * 2  # bfloat16, whatever a CPU's compiler makes of it
    assert found.traffic["all-gather", "fsdp"] == Traffic(2 * LAYERS, 2 * LAYERS * weight * 3 / 4)
    assert found.traffic["reduce-scatter", "fsdp"] == Traffic(LAYERS, LAYERS * weight * 3 / 4)
    assert found.traffic["all-reduce", "data"] == Traffic(LAYERS, LAYERS * weight)
    # The input of each block, and the derivative of the square.
    assert found.saved == (LAYERS + 1) * ROWS * WIDTH * 2
    assert found.peak > found.saved


def test_a_step_that_keeps_everything():
    found = traced(layer)
    assert found.recomputed == 0
    assert found.flops == 3 * LAYERS * 2 * ROWS * WIDTH * WIDTH
    assert found.traffic["all-gather", "fsdp"].count == LAYERS
    # A block's input, its weights, and what tanh's derivative needs; and the derivative of the square.
    least = LAYERS * (ROWS * WIDTH + WIDTH * WIDTH + ROWS * WIDTH) * 2 + ROWS * WIDTH * 2
    assert least <= found.saved <= least + LAYERS * ROWS * WIDTH * 2


def test_float32_takes_twice_the_bytes():
    half, full = (traced(jax.checkpoint(layer), dtype) for dtype in (jnp.bfloat16, jnp.float32))
    assert full.saved == 2 * half.saved
    assert full.traffic["all-gather", "fsdp"].bytes == 2 * half.traffic["all-gather", "fsdp"].bytes


def test_outside_of_shard_map_the_devices_share_the_work():
    x = jax.ShapeDtypeStruct((8, 16), jnp.float32)
    found = read_program(jax.jit(lambda x: x @ x.T).trace(x).jaxpr, 8)
    assert found.flops == 2 * 8 * 8 * 16 / 8
    assert not found.in_shard_map


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_branches_the_costlier_counts(order):
    branches = [lambda x: x, lambda x: x @ x][::order]
    x = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    traced = jax.jit(lambda i, x: jax.lax.switch(i, branches, x)).trace(0, x)
    assert read_program(traced.jaxpr, 1).flops == 2 * 4**3


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_a_convolution_and_its_backward_pass_count_three_times_its_products(stride, padding):
    """By hand along an axis of 8: places times 3 taps, less those of the padding."""
    image, kernel = jax.ShapeDtypeStruct((2, 8, 8, 5), jnp.float32), jax.ShapeDtypeStruct((3, 3, 5, 7), jnp.float32)

    def loss(image, kernel):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(image, kernel, (stride, stride), padding, dimension_numbers=layout).sum()

    met = {(1, "SAME"): 3 * 8 - 2, (2, "SAME"): 3 * 4 - 1, (1, "VALID"): 3 * 6, (2, "VALID"): 3 * 3}[stride, padding]
    once = 2 * 2 * 5 * 7 * met**2
    assert read_program(jax.jit(loss).trace(image, kernel).jaxpr, 1).flops == once
    both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).trace(image, kernel)
    assert read_program(both.jaxpr, 1).flops == 3 * once
