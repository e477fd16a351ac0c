import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import arrays, jitted, random_parameters

from rfjax.errors import UserError
from rfjax.models import Inputs, Positions, measure
from rfjax.models.dit import SIZES, DiT
from rfjax.models.projector import Projector

LATENTS = Inputs.of_text((32, 32, 4), (0, 1), 1000)
LABELS = Inputs.of_text((8, 8, 4), (0, 1), 10)
# Facts of REPA, 4.1: parameters at patch 2, 4, 8 with the frozen table of positions; at patch 2 with learned variances;
# of a projector to 768 channels.
TABLE = {
    "S": ((32_957_200, 32_920_384, 33_049_600), 32_963_360, 6_558_464),
    "B": ((130_500_112, 130_426_432, 130_684_672), 130_512_416, 7_344_896),
    "L": ((458_086_416, 457_988_160, 458_332_416), 458_102_816, 7_869_184),
    "XL": ((675_111_184, 675_000_640, 675_387_904), 675_129_632, 8_131_328),
}
GFLOPS = {"S": (6.06, 1.41, 0.36), "B": (23.01, 5.56, 1.42), "L": (80.71, 19.70, 5.01), "XL": (118.64, 29.05, 7.39)}


def published(size, patch=2, **options):
    depth, width, heads = SIZES[size]
    table = Positions(stored=32 // patch)
    return DiT(depth, width, heads, patch=(patch, patch), classes=1000, positions=table, **options)


@pytest.mark.parametrize("size", SIZES)
def test_parameter_counts_are_the_published_ones(size):
    by_patch, learned, projector = TABLE[size]
    assert tuple(measure(published(size, patch), LATENTS).parameters for patch in (2, 4, 8)) == by_patch
    assert measure(published(size, learn_sigma=True), LATENTS).parameters == learned
    tokens = jax.ShapeDtypeStruct((1, 256, SIZES[size][1]), jnp.float32)
    shapes = jax.eval_shape(Projector(768).init, jax.random.key(0), tokens)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == projector


@pytest.mark.parametrize("size", SIZES)
def test_flops_are_near_the_paper_s(size):
    """DiT's paper counts a multiplication and an addition as one, and leaves out attention's two products of tokens."""
    for patch, paper in zip((2, 4, 8), GFLOPS[size], strict=True):
        found = measure(published(size, patch, learn_sigma=True), LATENTS).forward_flops / 2e9
        assert found == pytest.approx(paper, rel=0.02)


def test_no_label_is_the_last_row_of_the_table():
    model = DiT(2, 24, 3, classes=10)
    params, (z, t, cond) = random_parameters(model, LABELS), arrays(LABELS)
    rows = params["label_embed"]["embedding"]
    apply = lambda p, pooled: jitted(model)(p, z, t, cond.replace(pooled=pooled))  # noqa: E731
    none, third = jnp.zeros((2, 10)), jax.nn.one_hot(jnp.array([3, 3]), 10)
    moved = {**params, "label_embed": {"embedding": rows.at[3].set(rows[10])}}
    np.testing.assert_array_equal(apply(moved, third), apply(params, none))
    assert np.abs(apply(params, third) - apply(params, none)).max() > 1e-3
    with pytest.raises(UserError, match="knows 10 classes, and was given one of 7"):
        apply(params, jnp.zeros((2, 7)))


def test_learned_variances_are_left_out_of_the_prediction():
    model = DiT(2, 24, 3, classes=10, learn_sigma=True)
    params, inputs = random_parameters(model, LABELS), arrays(LABELS)
    both = jitted(model, "with_sigma")(params, *inputs)
    assert both.shape == (2, 8, 8, 8)
    np.testing.assert_array_equal(jitted(model)(params, *inputs), both[..., :4])


def test_what_the_network_is_told_of_time():
    told = {"1000t": lambda t: 1000 * t, "1000t-1": lambda t: 1000 * t - 1, "t": lambda t: t, "1-t": lambda t: 1 - t}
    plain = DiT(1, 24, 3, classes=10, time="t")
    params, (z, t, cond) = random_parameters(plain, LABELS), arrays(LABELS)
    for name, change in told.items():
        found = jitted(DiT(1, 24, 3, classes=10, time=name))(params, z, t, cond)
        expected = jitted(plain)(params, z, change(t), cond)
        np.testing.assert_array_equal(found, -expected if name == "1-t" else expected)
