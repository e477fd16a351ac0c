"""What holds for every backbone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import tree_leaves_with_path as leaves_with_path
from networks import SMALL, arrays, gradients, jitted, random_parameters

from rfjax.compiling import quick_options
from rfjax.errors import UserError
from rfjax.models import Inputs, build, matmul, measure
from rfjax.models.counting import abstract_parameters, traced_matmul_flops
from rfjax.models.layers import FREQUENCIES

PAPER = Inputs.of_text((32, 32, 16), (154, 4096), 2048)
LABELS = Inputs.of_text((16, 16, 3), (0, 1), 10)
# name -> (backbone, its own settings, inputs)
NETWORKS = {
    "mmdit": ("mmdit", {}, SMALL),
    "mmdit, dual": ("mmdit", {"dual_blocks": 2, "qk_norm": True}, SMALL),
    "mmdit, all dual": ("mmdit", {"dual_blocks": 3}, SMALL),
    "mmdit3": ("mmdit3", {"texts": (3, 5)}, SMALL),
    "dit": ("dit", {}, SMALL),
    "dit, labels": ("dit", {"classes": 10, "learn_sigma": True}, LABELS),
    "sit": ("sit", {"classes": 10}, LABELS),
    "crossdit": ("crossdit", {}, SMALL),
    "mmdit, token": ("mmdit", {"modulation": "token"}, SMALL),
    "mmdit, dual, none": ("mmdit", {"modulation": "none", "dual_blocks": 2}, SMALL),
    "mmdit3, token": ("mmdit3", {"modulation": "token", "texts": (3, 5)}, SMALL),
    "dit, token": ("dit", {"modulation": "token"}, SMALL),
    "dit, labels, none": ("dit", {"modulation": "none", "classes": 10, "learn_sigma": True}, LABELS),
    "crossdit, token": ("crossdit", {"modulation": "token"}, SMALL),
    "uvit": ("uvit", {}, SMALL),
}
EACH = pytest.mark.parametrize("name", NETWORKS)
SOME = pytest.mark.parametrize(
    "name", ["mmdit, dual", "dit, labels", "uvit", "mmdit, token"]
)  # a gradient takes long to compile


def make(name, depth=3, width_per_depth=12, **more):
    backbone, options, inputs = NETWORKS[name]
    return build(backbone, depth, width_per_depth, **(options | more)), inputs


@EACH
@pytest.mark.parametrize("patch", [2, 4])
def test_flops_equal_every_product_in_the_trace(name, patch):
    model, inputs = make(name, patch=patch)
    params = abstract_parameters(model, inputs)
    traced = traced_matmul_flops(lambda p, *a: model.apply({"params": p}, *a), params, *inputs.abstract(5))
    assert measure(model, inputs).forward_flops * 5 == traced


@pytest.mark.parametrize(
    ("depth", "backbone"), [(15, "mmdit"), (38, "mmdit"), (24, "dit"), (24, "crossdit"), (24, "uvit")]
)
def test_flops_equal_every_product_in_the_trace_at_the_paper_s_sizes(depth, backbone):
    model = build(backbone, depth, 64)
    params = abstract_parameters(model, PAPER)
    traced = traced_matmul_flops(lambda p, *a: model.apply({"params": p}, *a), params, *PAPER.abstract(1))
    assert measure(model, PAPER).forward_flops == traced


@pytest.mark.parametrize("name", ["mmdit", "crossdit", "uvit"])
def test_a_training_step_is_three_forward_passes_but_for_the_gradients_of_what_is_given(name, monkeypatch):
    """The products that read time, pooled text, text and image are done twice, not three times."""
    monkeypatch.setattr(matmul, "on_cpu", lambda: False)  # its own backward pass leaves that to the compiler
    model, inputs = make(name)
    params, given = abstract_parameters(model, inputs), inputs.abstract(5)
    loss = lambda p, *a: (model.apply({"params": p}, *a) ** 2).sum()  # noqa: E731
    (height, width, channels), (length, encoded) = inputs.shape, inputs.cond.context.shape
    (pooled,) = inputs.cond.pooled.shape
    first = width * height * channels if name != "uvit" else (3 * height - 2) * (3 * width - 2) * channels
    own = model.levels()[0] if name == "uvit" else model.width
    read = first * own + (FREQUENCIES + pooled + length * encoded) * model.width
    assert traced_matmul_flops(jax.grad(loss), params, *given) == 5 * (measure(model, inputs).train_flops - 2 * read)


SD3_RATIOS = {4: (2.568, 2.097, 0.0329), 15: (2.815, 2.758, 0.0029), 38: (2.916, 2.902, 0.0005)}


@pytest.mark.parametrize("depth", SD3_RATIOS)
def test_six_n_d_of_mmdit_is_wrong_by_a_factor_that_drifts(depth):
    """depth -> 6 N D over 3 x forward with SD3's inputs, D of 256 + 154 tokens, by all parameters and by the blocks'.

    And by which share a step's products are below 3 x forward, as the test above counts them.
    """
    model = build("mmdit", depth, 64)
    size = measure(model, PAPER)
    leaves = leaves_with_path(abstract_parameters(model, PAPER))
    blocks = sum(leaf.size for path, leaf in leaves if "block" in path[0].key)
    found = [6 * n * (256 + 154) / size.train_flops for n in (size.parameters, blocks)]
    read = (256 * 64 + FREQUENCIES + 2048 + 154 * 4096) * model.width
    assert [*found, 2 * read / size.train_flops] == pytest.approx(SD3_RATIOS[depth], abs=6e-4)


@EACH
def test_flops_agree_with_xla_s_analysis_of_the_unscanned_model(name):
    """XLA also counts additions, norms, GELU and softmax, and every product of a convolution but those with padding.

    Some tens of operations a value and layer, against 12 D products: below 1 % from a width of about 1,000 on.
    """
    model, inputs = make(name, width_per_depth=384, heads=9, unroll=3)
    params = abstract_parameters(model, inputs)
    lowered = jax.jit(lambda p, *a: model.apply({"params": p}, *a)).lower(params, *inputs.abstract(2))
    counted = lowered.cost_analysis()["flops"]
    assert 1.0 <= counted / (2 * measure(model, inputs).forward_flops) < 1.01


@EACH
def test_a_new_network_predicts_zero(name):
    model, inputs = make(name)
    given = arrays(inputs)
    params = jax.jit(model.init, compiler_options=quick_options())(jax.random.key(0), *given)["params"]
    np.testing.assert_array_equal(jitted(model)(params, *given), 0)


@SOME
def test_every_parameter_learns(name):
    """All but the norm of the queries of the last block's text, which nobody reads."""
    model, inputs = make(name, depth=2, width_per_depth=8)
    _, gradient = gradients(model)(random_parameters(model, inputs), *arrays(inputs))
    names = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves_with_path(gradient)}
    silent = [name for name, leaf in names.items() if not jnp.abs(leaf).max() > 0]
    assert silent == [name for name in silent if name.startswith("last_block/text/qkv/q_norm")]


@pytest.mark.job
def test_without_adaln_every_weight_learns_from_the_fifth_step_on():
    """Branches end at zero, and so does the network: the last layer learns first, then the ends of the image's branches
    in the last block, then those of the text, which only these read, then all the rest."""
    model, inputs = make("mmdit, token", depth=2, width_per_depth=8)
    given = arrays(inputs)
    params = model.init(jax.random.key(0), *given)["params"]
    loss = lambda p: ((model.apply({"params": p}, *given) - 1) ** 2).mean()  # noqa: E731
    step = jax.jit(lambda p: jax.tree.map(lambda x, g: x - 0.1 * g, p, jax.grad(loss)(p)))
    later = step(step(step(step(params))))
    changes = {
        jax.tree_util.keystr(path, simple=True, separator="/"): float(jnp.abs(leaf).max())
        for path, leaf in leaves_with_path(jax.tree.map(lambda a, b: a - b, step(later), later))
    }
    assert [name for name, change in changes.items() if change == 0] == []


@EACH
def test_examples_do_not_mix_and_text_and_time_matter(name):
    model, inputs = make(name)
    params, (z, t, cond) = random_parameters(model, inputs), arrays(inputs)
    if inputs is LABELS:
        cond = cond.replace(pooled=jax.nn.one_hot(jnp.array([3, 7]), 10))
    apply = lambda *a: jitted(model)(params, *a)  # noqa: E731
    both = apply(z, t, cond)
    np.testing.assert_allclose(apply(*jax.tree.map(lambda x: x[:1], (z, t, cond))), both[:1], rtol=1e-4, atol=1e-4)
    if model.modulation == "none":  # it is not told the time
        np.testing.assert_array_equal(apply(z, t * 0.5, cond), both)
    changes = [(z, t * 0.5, cond)] if model.modulation != "none" else []
    changes += [(z, t, cond.replace(pooled=jnp.roll(cond.pooled, 1, axis=1)))]
    if inputs is SMALL:
        changes += [(z, t, cond.replace(context=cond.context.at[:, token].mul(2))) for token in (0, -1)]
    for changed in changes:
        assert np.abs(apply(*changed) - both).max() > 1e-3


@SOME
@pytest.mark.parametrize(
    "more",
    [pytest.param({"unroll": 3}, marks=pytest.mark.job), {"remat": "full"}, {"remat": "dots"}],
    ids=["unroll", "full", "dots"],
)
def test_how_it_is_computed_changes_nothing(name, more):
    (model, inputs), (other, _) = make(name, width_per_depth=8), make(name, width_per_depth=8, **more)
    params, given = random_parameters(model, inputs), arrays(inputs)
    (value, gradient), (again, gradient_again) = (gradients(m)(params, *given) for m in (model, other))
    assert float(again) == pytest.approx(float(value), rel=1e-5)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * scale), gradient, gradient_again)


@EACH
def test_the_parameters_that_an_image_token_meets_are_counted(name):
    """Those of the image's stream, without what runs once per example or on text."""
    model, inputs = make(name)
    size = measure(model, inputs)
    assert 0 < size.active_per_token <= size.without_modulation <= size.parameters
    assert (size.without_modulation < size.parameters) == (model.modulation == "adaln")
    if name in ("mmdit", "mmdit3"):
        h = 36
        assert size.active_per_token == 3 * (12 * h * h + 9 * h) + 13 * h + 12 * h + 12


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_without_adaln_the_modulation_s_weights_are_gone_and_norms_have_their_own(depth):
    """SD3's layout without 6 h^2 + 6 h a stream; 4 h a stream's norms in place of them (2 h the last text's)."""
    adaln, token, none = (measure(build("mmdit", depth, 64, modulation=m), PAPER) for m in ("adaln", "token", "none"))
    h = 64 * depth
    modulation = (2 * depth - 1) * (6 * h * h + 6 * h) + 2 * (2 * h * h + 2 * h)
    assert token.parameters == adaln.parameters - modulation + (2 * depth - 1) * 4 * h + 2 * h + 2 * h
    assert token.parameters == token.without_modulation
    assert token.parameters - none.parameters == FREQUENCIES * h + h * h + 2 * h  # the MLP of the time
    assert token.forward_flops - none.forward_flops == 2 * (FREQUENCIES * h + h * h)


def test_three_sets_are_two_with_the_text_s_weights_twice():
    two, three = build("mmdit", 3, 12), build("mmdit3", 3, 12, texts=(3, 5))
    params, inputs = random_parameters(two, SMALL), arrays(SMALL)

    def double(tree):
        if not isinstance(tree, dict):
            return tree
        made = {name: double(value) for name, value in tree.items()}
        for name in ("text", "context_embed"):
            if name in made:
                made |= {f"{name}_0": made[name], f"{name}_1": made.pop(name)}
        return made

    np.testing.assert_allclose(
        jitted(three)(double(params), *inputs), jitted(two)(params, *inputs), rtol=1e-4, atol=1e-4
    )


def test_other_text_than_a_network_has_weights_for_is_refused():
    model = build("mmdit3", 2, 12, texts=(4, 5))
    with pytest.raises(UserError, match="weights for 4 \\+ 5 text tokens, and was given 8"):
        measure(model, SMALL)


@pytest.mark.parametrize(("patch", "width"), [(1, 12), (6, 12), (8, 12)])
def test_uvit_says_which_patches_it_can_have(patch, width):
    with pytest.raises(UserError, match=f"they are {patch} and {width}"):
        build("uvit", 1, width, patch=patch).levels()


def test_uvit_halves_its_channels_level_by_level():
    assert build("uvit", 2, 64, patch=8).levels() == [16, 32, 64]
