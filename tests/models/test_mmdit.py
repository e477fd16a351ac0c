import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import SMALL, arrays, jitted, random_parameters

from rfjax.models import Inputs, build, measure, mmdit
from rfjax.models.blocks import Spec
from rfjax.models.counting import abstract_parameters
from rfjax.models.stacking import Stacking

PAPER = Inputs.of_text((32, 32, 16), (154, 4096), 2048)
# depth: (parameters, of which in blocks, more with QK-norm); SD3's released layout.
TABLE = {
    15: (496_066_624, 486_105_600, 3_840),
    18: (856_159_552, 843_321_600, 4_608),
    21: (1_358_950_720, 1_342_940_928, 5_376),
    24: (2_028_328_000, 2_008_851_456, 6_144),
    30: (3_962_392_384, 3_935_097_600, 7_680),
    38: (8_056_617_792, 8_017_063_680, 9_728),
}


@pytest.mark.parametrize("depth", TABLE)
def test_parameter_counts_equal_the_released_layout(depth):
    total, blocks, more = TABLE[depth]
    model = build("mmdit", depth, 64)
    assert measure(model, PAPER).parameters == total
    tree = abstract_parameters(model, PAPER)
    assert sum(leaf.size for name in ("blocks", "last_block") for leaf in jax.tree.leaves(tree[name])) == blocks
    assert measure(build("mmdit", depth, 64, qk_norm=True), PAPER).parameters == total + more


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_other_sizes_are_counted_by_shape(depth):
    size = measure(build("mmdit", depth, 64), PAPER)
    h = 64 * depth
    modulation = (2 * depth - 1) * (6 * h * h + 6 * h) + 2 * (h * h + h) + 2 * (h * h + h)
    assert size.parameters - size.without_modulation == modulation
    assert size.active_per_token == depth * (12 * h * h + 9 * h) + 65 * h + 64 * h + 64


def test_six_n_d_overcounts_a_block_as_the_facts_say():
    """2 N (image + text tokens) over a block's true forward FLOPs, N being the block's matrices."""
    found = []
    for depth in (4, 8, 15, 24, 38):
        width = 64 * depth
        small, large = (
            measure(mmdit.MMDiT(depth=d, width=width, heads=depth), PAPER).forward_flops for d in (depth, depth + 1)
        )
        found.append(2 * 36 * width**2 * (256 + 154) / (large - small))
    np.testing.assert_allclose(found, [2.36, 2.64, 2.79, 2.87, 2.91], atol=0.005)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_the_scan_is_the_sequence_of_its_blocks(qk_norm):
    model = mmdit.MMDiT(depth=3, width=24, heads=3, qk_norm=qk_norm)
    params = random_parameters(model, SMALL)
    y, x, c = (jax.random.normal(jax.random.key(k), s) for k, s in enumerate([(2, 24), (2, 64, 24), (2, 8, 24)]))
    block = mmdit.JointBlock(Spec(24, 3, qk_norm=qk_norm))
    carry = (x, (c,))
    for i in range(2):
        carry, _ = jitted(block)(jax.tree.map(lambda a, i=i: a[i], params["blocks"]), carry, y)
    scanned = Stacking().blocks(mmdit.JointBlock, 2, "blocks")(Spec(24, 3, qk_norm=qk_norm))
    expected, _ = jitted(scanned)(params["blocks"], (x, (c,)), y)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5), carry, expected)


def test_bfloat16_stays_close_and_keeps_float32_outside():
    model, half = build("mmdit", 2, 12), build("mmdit", 2, 12, dtype=jnp.bfloat16)
    params, inputs = random_parameters(model, SMALL), arrays(SMALL)
    full, low = jitted(model)(params, *inputs), jitted(half)(params, *inputs)
    assert low.dtype == jnp.float32
    assert float(jnp.abs(full - low).mean() / jnp.abs(full).mean()) < 0.05
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(abstract_parameters(half, SMALL)))
