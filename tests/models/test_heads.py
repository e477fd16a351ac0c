"""Heads that read hidden states from inside the scan over depth, beside the same blocks one by one."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import SMALL, arrays, jitted, random_parameters

from rfjax.compiling import quick_options
from rfjax.models import build, measure
from rfjax.models.backbone import HEADS, Head

DEPTH = 4
NETWORKS = {
    "mmdit": ("mmdit", {}),
    "mmdit, dual": ("mmdit", {"dual_blocks": 2}),  # block 3 is the first of the second stack
    "dit": ("dit", {}),
    "crossdit": ("crossdit", {}),
    "uvit": ("uvit", {}),
}
EACH = pytest.mark.parametrize("name", NETWORKS)
# A gradient takes long to compile; make processes tries the others.
FEW = pytest.mark.parametrize(
    "name", ["dit", *(pytest.param(n, marks=pytest.mark.job) for n in NETWORKS if n != "dit")]
)
PLACES = (1, 3, DEPTH)


@functools.cache
def make(name, heads=True, **more):
    backbone, options = NETWORKS[name]
    readouts = tuple(Head(f"probe_{after}", after, nn.Dense(5)) for after in PLACES) if heads else ()
    return build(backbone, DEPTH, 8, readouts=readouts, **options, **more)


@functools.cache
def given(name):
    return random_parameters(make(name), SMALL), *arrays(SMALL)


@functools.cache
def with_heads(model):
    """(params, z, t, cond) -> (prediction, the heads' outputs), and the gradient of the outputs' mean squares."""

    def loss(params, *inputs):
        prediction, kept = model.apply({"params": params}, *inputs, mutable=[HEADS])
        outputs = dict(kept[HEADS])
        return sum((value**2).mean() for value in outputs.values()), (prediction, outputs)

    return jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=quick_options())


def one_by_one(model):
    """The same network without a scan, whose blocks have weights `NAME_i`, and which sows each block's tokens."""

    class Unrolled(type(model)):
        def run_stacks(self, stacks, carry, given, tokens=lambda carry: carry):
            number = 0
            for block, name, count, settings in stacks:
                for i in range(count or 1):
                    carry, _ = block(self.spec, name=f"{name}_{i}", **settings)(carry, given)
                    number += 1
                    self.sow("states", str(number), tokens(carry))
            return carry

    fields = {name: getattr(model, name) for name in type(model).__dataclass_fields__ if name not in ("parent", "name")}
    return Unrolled(**fields | {"readouts": ()})


def expected(model, params, *inputs):
    """As `with_heads`, of the network block by block."""
    other, stacked = one_by_one(model), [name for name in params if name.endswith("blocks")]

    def loss(params, *inputs):
        weights = {name: tree for name, tree in params.items() if not name.startswith("probe_")}
        for name in stacked:
            tree = weights.pop(name)
            for i in range(len(jax.tree.leaves(tree)[0])):
                weights[f"{name}_{i}"] = jax.tree.map(lambda x, i=i: x[i], tree)
        if "last_block" in weights:
            weights["last_block_0"] = weights.pop("last_block")
        prediction, kept = other.apply({"params": weights}, *inputs, mutable=["states"])
        outputs = {}
        for after in PLACES:
            (state,) = kept["states"][str(after)]
            outputs[f"probe_{after}"] = nn.Dense(5).apply({"params": params[f"probe_{after}"]}, state)
        return sum((value**2).mean() for value in outputs.values()), (prediction, outputs)

    return jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=quick_options())(params, *inputs)


def near(found, wanted):
    """Equal up to rounding, beside the largest value of all."""
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(wanted))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5 * scale), found, wanted)


@FEW
def test_heads_read_the_states_behind_their_blocks_and_gradients_flow_back(name):
    model, (params, *inputs) = make(name), given(name)
    (loss, (prediction, outputs)), gradient = with_heads(model)(params, *inputs)
    (loss_2, (prediction_2, outputs_2)), gradient_2 = expected(model, params, *inputs)
    assert {key: value.shape for key, value in outputs.items()} == {f"probe_{n}": (2, 64, 5) for n in PLACES}
    near((loss, prediction, outputs), (loss_2, prediction_2, outputs_2))
    near(gradient, gradient_2)
    assert float(jnp.abs(gradient["patch_embed" if name != "uvit" else "stem"]["kernel"]).max()) > 0
    assert float(jnp.abs(gradient["probe_1"]["kernel"]).max()) > 0
    assert not jnp.abs(gradient["final"]["kernel"]).max()  # what no head reads


@pytest.mark.parametrize("name", [pytest.param("mmdit, dual", marks=pytest.mark.job), "crossdit"])
@pytest.mark.parametrize("more", [{"unroll": DEPTH}, {"remat": "full"}, {"remat": "dots"}], ids=str)
def test_how_it_is_computed_changes_no_head(name, more):
    params, *inputs = given(name)
    near(with_heads(make(name, **more))(params, *inputs), with_heads(make(name))(params, *inputs))


@EACH
def test_a_network_that_no_one_asks_for_its_heads_is_the_one_without_to_the_bit(name):
    params, *inputs = given(name)
    plain = {key: tree for key, tree in params.items() if not key.startswith("probe_")}
    found, wanted = jitted(make(name))(params, *inputs), jitted(make(name, heads=False))(plain, *inputs)
    np.testing.assert_array_equal(found, wanted)


@EACH
def test_heads_change_neither_the_initial_weights_nor_the_size(name):
    inputs, trees = arrays(SMALL), []
    for model in (make(name), make(name, heads=False)):
        trees.append(jax.jit(model.init, compiler_options=quick_options())(jax.random.key(3), *inputs)["params"])
    found, wanted = trees
    assert set(found) - set(wanted) == {f"probe_{n}" for n in PLACES}
    jax.tree.map(np.testing.assert_array_equal, {key: found[key] for key in wanted}, wanted)
    assert measure(make(name), SMALL) == measure(make(name, heads=False), SMALL)
