import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax.models import Inputs, build, measure, mmdit
from rfjax.models.blocks import Spec, stack
from rfjax.models.counting import abstract_parameters, traced_matmul_flops
from rfjax.models.layers import patchify, sinusoid, unpatchify
from rfjax.models.positions import sincos_2d

PAPER = Inputs(image=(32, 32, 16), text=(154, 4096), pooled_width=2048)
SMALL = Inputs(image=(16, 16, 3), text=(8, 32), pooled_width=24)
# depth: (parameters, of which in blocks, more with QK-norm); SD3's released layout.
TABLE = {
    15: (496_066_624, 486_105_600, 3_840),
    18: (856_159_552, 843_321_600, 4_608),
    21: (1_358_950_720, 1_342_940_928, 5_376),
    24: (2_028_328_000, 2_008_851_456, 6_144),
    30: (3_962_392_384, 3_935_097_600, 7_680),
    38: (8_056_617_792, 8_017_063_680, 9_728),
}


def arrays(inputs, batch=2, seed=0):
    keys = jax.random.split(jax.random.key(seed), 4)
    shapes = inputs.abstract(batch)
    z, t, context, pooled = (jax.random.normal(k, s.shape) for k, s in zip(keys, shapes, strict=True))
    return z, jax.nn.sigmoid(t), context, pooled


def random_parameters(model, inputs, seed=0):
    """Parameters that are random everywhere: the initial ones hide most of the network behind zeros."""
    tree = abstract_parameters(model, inputs)
    leaves, shape = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return shape.unflatten([0.2 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)])


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


@pytest.mark.parametrize(("depth", "inputs"), [(1, SMALL), (2, SMALL), (5, SMALL), (15, PAPER), (38, PAPER)])
@pytest.mark.parametrize("patch", [2, 4])
def test_flops_equal_every_product_in_the_trace(depth, inputs, patch):
    model = build("mmdit", depth, 64 if inputs is PAPER else 12, patch=patch)
    params = abstract_parameters(model, inputs)
    traced = traced_matmul_flops(lambda p, *a: model.apply({"params": p}, *a), params, *inputs.abstract(3))
    assert measure(model, inputs).forward_flops * 3 == traced


@pytest.mark.parametrize("depth", [1, 3])
def test_flops_agree_with_the_compiler(depth):
    """XLA also counts additions, norms, GELU and softmax: some tens of operations a value, 2 % at this width."""
    inputs = Inputs(image=(16, 16, 3), text=(8, 64), pooled_width=64)
    model = mmdit.MMDiT(depth=depth, width=384, heads=6, unroll=depth)
    params = abstract_parameters(model, inputs)
    apply = jax.jit(lambda p, *a: model.apply({"params": p}, *a))
    counted = apply.lower(params, *inputs.abstract(2)).compile().cost_analysis()
    counted = counted[0] if isinstance(counted, list) else counted
    ratio = counted["flops"] / (2 * measure(model, inputs).forward_flops)
    assert 1.0 <= ratio < 1.02


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


def test_unrolling_and_recomputing_change_nothing():
    build = lambda **o: mmdit.MMDiT(depth=3, width=24, heads=3, **o)  # noqa: E731
    params, inputs = random_parameters(build(), SMALL), arrays(SMALL)

    def loss(model):
        return jax.value_and_grad(lambda p: (model.apply({"params": p}, *inputs) ** 2).mean())(params)

    value, gradient = loss(build())
    for other in (build(unroll=3), build(remat=True)):
        again, gradient_again = loss(other)
        assert float(again) == pytest.approx(float(value), rel=1e-6)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), gradient, gradient_again)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_the_scan_is_the_sequence_of_its_blocks(qk_norm):
    model = mmdit.MMDiT(depth=3, width=24, heads=3, qk_norm=qk_norm)
    params = random_parameters(model, SMALL)
    y, x, c = (jax.random.normal(jax.random.key(k), s) for k, s in enumerate([(2, 24), (2, 64, 24), (2, 8, 24)]))
    block = mmdit.JointBlock(Spec(24, 3, qk_norm=qk_norm))
    carry = (x, (c,))
    for i in range(2):
        carry, _ = block.apply({"params": jax.tree.map(lambda a, i=i: a[i], params["blocks"])}, carry, y)
    scanned = stack(mmdit.JointBlock, 2, remat=False, unroll=1)(Spec(24, 3, qk_norm=qk_norm))
    expected, _ = scanned.apply({"params": params["blocks"]}, (x, (c,)), y)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5), carry, expected)


def test_a_new_model_predicts_zero_and_learns_from_the_final_layer():
    model = build("mmdit", 2, 12)
    inputs = arrays(SMALL)
    params = model.init(jax.random.key(0), *inputs)["params"]
    np.testing.assert_array_equal(model.apply({"params": params}, *inputs), 0)


def test_examples_do_not_mix_and_text_and_time_matter():
    model = build("mmdit", 2, 12)
    params, (z, t, context, pooled) = random_parameters(model, SMALL), arrays(SMALL)
    apply = lambda *a: model.apply({"params": params}, *a)  # noqa: E731
    both = apply(z, t, context, pooled)
    np.testing.assert_allclose(apply(z[:1], t[:1], context[:1], pooled[:1]), both[:1], rtol=1e-4, atol=1e-5)
    for changed in ((z, t * 0.5, context, pooled), (z, t, context * 2, pooled), (z, t, context, pooled * 2)):
        assert np.abs(apply(*changed) - both).max() > 1e-3


def test_bfloat16_stays_close_and_keeps_float32_outside():
    model, half = build("mmdit", 2, 12), build("mmdit", 2, 12, dtype=jnp.bfloat16)
    params, inputs = random_parameters(model, SMALL), arrays(SMALL)
    full, low = model.apply({"params": params}, *inputs), half.apply({"params": params}, *inputs)
    assert low.dtype == jnp.float32
    assert float(jnp.abs(full - low).mean() / jnp.abs(full).mean()) < 0.05
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(abstract_parameters(half, SMALL)))


def test_patches_come_back_in_their_place():
    image = jax.random.normal(jax.random.key(0), (2, 8, 12, 3))
    tokens = patchify(image, 4)
    assert tokens.shape == (2, 6, 48)
    np.testing.assert_array_equal(tokens[0, 1].reshape(4, 4, 3), image[0, :4, 4:8])
    np.testing.assert_array_equal(unpatchify(tokens, (8, 12, 3), 4), image)


def test_the_time_embedding_is_the_reference_s():
    t = jnp.array([0.0, 0.3])
    frequencies = np.exp(-np.log(10_000) * np.arange(128) / 128)
    expected = np.concatenate([np.cos(300 * frequencies), np.sin(300 * frequencies)])
    np.testing.assert_allclose(sinusoid(1000 * t)[1], expected, atol=5e-5)  # float32 angles up to 300
    np.testing.assert_allclose(sinusoid(1000 * t)[0], [1] * 128 + [0] * 128)


def test_position_embeddings_hold_the_column_first():
    table = sincos_2d(3, 5, 16)
    omega = 10_000 ** (-np.arange(4) / 4)
    np.testing.assert_allclose(table[7, :4], np.sin(2 * omega), atol=1e-7)  # row 1, column 2
    np.testing.assert_allclose(table[7, 4:8], np.cos(2 * omega), atol=1e-7)
    np.testing.assert_allclose(table[7, 8:12], np.sin(1 * omega), atol=1e-7)
    with pytest.raises(ValueError, match="divisible by 4"):
        sincos_2d(2, 2, 6)
