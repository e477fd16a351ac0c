import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax.models import Inputs, measure, mmdit
from rfjax.models.counting import abstract_parameters, traced_matmul_flops

PAPER = Inputs(image=(32, 32, 16), text=(154, 4096), pooled_width=2048)
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
    model = mmdit.build(depth, 64)
    assert measure(model, PAPER).parameters == total
    tree = abstract_parameters(model, PAPER)
    assert sum(leaf.size for name in ("blocks", "last_block") for leaf in jax.tree.leaves(tree[name])) == blocks
    assert measure(mmdit.build(depth, 64, qk_norm=True), PAPER).parameters == total + more
