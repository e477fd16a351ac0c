"""Parameterisations: the table by hand, every weight of every backbone, the equivalence that replaces multipliers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import SMALL
from tiny import begun_run, tiny

from rfjax import config as configs
from rfjax import data, flow, interop
from rfjax.errors import UserError
from rfjax.models import build
from rfjax.models.backbone import Head
from rfjax.models.counting import abstract_parameters
from rfjax.models.parameterisation import COMPLETEP, KINDS, MUP, Multipliers, Parameterisation, Rule, Scaling
from rfjax.models.projector import ConvProjector, Projector
from rfjax.training import mesh as meshes
from rfjax.training import step as steps
from rfjax.training import weights
from rfjax.training.context import check_mesh, scaling_table
from rfjax.training.encode import EncodeStage
from rfjax.training.optimizer import scheduled_optimizer
from rfjax.training.spec import make_run_spec
from rfjax.training.state import abstract_state, initial_state


def make(**sections):
    c = tiny()
    for section, values in sections.items():
        c[section].update(values)
    config = configs.parse(c)
    return config, make_run_spec(config)


def paths(tree):
    """(path, leaf) of each leaf."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf


# m_N = 4 and m_L = 3, by hand: path, shape, then (init, rate, eps, decay, gradient) of mup and of completep.
ROOT = float(np.sqrt((12 + 64) / (12 + 16)))  # xavier's fan-in and fan-out here over those at the base width
BY_HAND = {
    "patch_embed/kernel": ((12, 64), (ROOT, 1, 1, 1, 1), (ROOT, 1, 1 / 4, 1, 1)),
    "time_embed/fc1/kernel": ((256, 64), (1, 1, 1, 1, 1), (1, 1, 1 / 4, 1, 1)),
    "time_embed/fc2/kernel": ((64, 64), (1 / 2, 1 / 4, 1, 4, 1), (1 / 2, 1 / 4, 1 / 4, 4, 1)),
    "blocks/image/qkv/linear/kernel": ((5, 64, 3, 4, 16), (1, 1 / 4, 1, 4, 1), (1, 1 / 4, 1 / 12, 4, 1)),
    "blocks/image/qkv/linear/bias": ((5, 3, 4, 16), (1, 1, 1, 1, 1), (1, 1, 1 / 12, 1, 1)),
    "blocks/image/qkv/q_norm/scale": ((5, 16), (1, 1, 1, 1, 1), (1, 1, 1 / 3, 1, 1)),
    "blocks/image/out/kernel": ((5, 64, 64), (1, 1 / 4, 1, 4, 1), (1 / 3, 1 / 12, 1 / 4, 12, 1 / 3)),
    "last_block/image/mlp/fc2/bias": ((64,), (1, 1, 1, 1, 1), (1 / 3, 1 / 3, 1 / 4, 3, 1 / 3)),
    "final/kernel": ((64, 12), (1 / 4, 1 / 4, 4, 4, 1 / 4), (1 / 4, 1 / 4, 4, 4, 1 / 4)),
    "final/bias": ((12,), (1, 1, 1, 1, 1), (1, 1, 1, 1, 1)),
}


@pytest.mark.parametrize("path", BY_HAND)
def test_multipliers_by_hand(path):
    shape, *expected = BY_HAND[path]
    for table, values in zip((MUP, COMPLETEP), expected, strict=True):
        found = Scaling(table, 4.0, 3.0).multipliers(path, shape)
        np.testing.assert_allclose(found, Multipliers(*values), rtol=1e-12)


def test_a_head_starts_as_an_output_whose_multiplier_is_in_its_weights():
    found = Scaling(MUP, 4.0, 1.0, ("projector_0",)).multipliers("projector_0/fc1/kernel", (64, 48))
    np.testing.assert_allclose(found, ((1 / 4) * np.sqrt((64 + 48) / (16 + 48)), 1 / 4, 1, 4, 1))


BACKBONES = {
    "mmdit": {"dual_blocks": 2, "qk_norm": True},
    "mmdit3": {"texts": (4, 4)},
    "dit": {"learn_sigma": True, "classes": 24},
    "sit": {"qk_norm": True},
    "crossdit": {"qk_norm": True},
    "uvit": {},
}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_weight_is_of_one_kind(backbone):
    heads = (Head("projector_0", 1, Projector(32, 16)), Head("grid", 1, ConvProjector(32, (8, 8))))
    model = build(backbone, 3, 32, readouts=heads, **BACKBONES[backbone])
    scaling = Scaling(COMPLETEP, 2.0, 3.0, ("projector_0", "grid"))
    found = {path: scaling.kind(path) for path, _ in paths(abstract_parameters(model, SMALL))}
    assert {"input", "vector", "hidden", "end", "modulation", "output", "head"} <= set(found.values())
    for path, kind in found.items():  # what a kernel is called says much of it
        last = path.rsplit("/", 1)[-1]
        assert (last != "kernel") == (kind in ("bias", "end_bias", "outer_bias", "output_bias", "gain")) or (
            kind in ("head_rest", "vector")
        ), (path, kind)


def test_each_table_has_rules_for_known_kinds_alone():
    assert set(MUP.rules) | set(COMPLETEP.rules) <= set(KINDS)


def plain(params, z, branch=1.0, output=1.0):
    """A residual network of three blocks; `branch` and `output` are its forward multipliers."""
    x = z @ params["patch_embed"]["kernel"] + params["patch_embed"]["bias"]
    mlp = params["blocks"]["image"]["mlp"]
    for i in range(3):
        wide = x - x.mean(-1, keepdims=True)
        hidden = jnp.tanh(wide @ mlp["fc1"]["kernel"][i] + mlp["fc1"]["bias"][i])
        x = x + branch * (hidden @ mlp["fc2"]["kernel"][i] + mlp["fc2"]["bias"][i])
    return output * (x @ params["final"]["kernel"]) + params["final"]["bias"]


def drawn(width):
    draw = np.random.default_rng(0)

    def dense(*shape):
        kernel = draw.standard_normal(shape) / np.sqrt(shape[-2])
        bias = 0.1 * draw.standard_normal((*shape[:-2], shape[-1]))
        return {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}

    mlp = {"fc1": dense(3, width, 2 * width), "fc2": dense(3, 2 * width, width)}
    return {"patch_embed": dense(6, width), "blocks": {"image": {"mlp": mlp}}, "final": dense(width, 6)}


# The network with forward multipliers at m_N = 4, m_L = 3, as CompleteP's table has it: rate, eps and decay of its w.
REFERENCE = {
    "patch_embed/kernel": (1, 1 / 4, 1), "patch_embed/bias": (1, 1 / 4, 0),
    "blocks/image/mlp/fc1/kernel": (1 / 4, 1 / 12, 4), "blocks/image/mlp/fc1/bias": (1, 1 / 12, 0),
    "blocks/image/mlp/fc2/kernel": (1 / 4, 1 / 12, 4), "blocks/image/mlp/fc2/bias": (1, 1 / 12, 0),
    "final/kernel": (1, 1, 1), "final/bias": (1, 1, 0),
}  # fmt: skip
FORWARD = {"blocks/image/mlp/fc2/kernel": 1 / 3, "blocks/image/mlp/fc2/bias": 1 / 3, "final/kernel": 1 / 4}


def reference(w, grads, moments, step, settings):
    """A step of AdamW written out, with clipping, on the weights of the network with forward multipliers."""
    norm = np.sqrt(sum(float((g**2).sum()) for _, g in paths(grads)))
    clipped = jax.tree.map(lambda g: g * min(1, settings.clip / norm), grads)
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], clipped)
    second = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g**2, moments[1], clipped)

    def move(path, value, m, v):
        rate, eps, decay = REFERENCE[jax.tree_util.keystr(path, simple=True, separator="/")]
        m, v = m / (1 - 0.9**step), v / (1 - 0.99**step)
        change = m / (jnp.sqrt(v) + settings.eps * eps) + settings.weight_decay * decay * value
        return value - settings.learning_rate * rate * change

    return jax.tree_util.tree_map_with_path(move, w, first, second), (first, second), norm


@pytest.mark.parametrize(("flatten", "decay"), [(False, 0.3), (True, 0.0)])
def test_scaled_weights_train_as_those_of_a_network_with_forward_multipliers(flatten, decay):
    settings = dataclasses.replace(
        configs.Optimizer(),
        **{"learning_rate": 0.02, "eps": 3e-3, "clip": 0.3, "b2": 0.99, "weight_decay": decay, "flatten": flatten},
    )
    z, wanted = (jnp.asarray(np.random.default_rng(i).standard_normal((8, 6)), jnp.float32) for i in (1, 2))
    scaling = Scaling(COMPLETEP, 4.0, 3.0)
    optimizer = scheduled_optimizer(settings, lambda step: settings.learning_rate, scaling)
    to_stored = lambda w: jax.tree_util.tree_map_with_path(  # noqa: E731
        lambda path, x: x * FORWARD.get(jax.tree_util.keystr(path, simple=True, separator="/"), 1.0), w
    )
    theirs = drawn(16)
    ours, moments = to_stored(theirs), (jax.tree.map(jnp.zeros_like, theirs),) * 2
    state, norms = optimizer.init(ours), []
    loss = lambda params, *multipliers: ((plain(params, z, *multipliers) - wanted) ** 2).mean()  # noqa: E731
    step_ours = jax.jit(lambda params, state: optimizer.update(jax.grad(loss)(params), state, params))
    for step in range(1, 9):
        changes, state = step_ours(ours, state)
        ours = optax.apply_updates(ours, changes)
        grads = jax.grad(loss)(theirs, 1 / 3, 1 / 4)
        theirs, moments, norm = reference(theirs, grads, moments, step, settings)
        norms.append(norm)
        np.testing.assert_allclose(float(loss(ours)), float(loss(theirs, 1 / 3, 1 / 4)), rtol=2e-5)
        for (path, x), y in zip(paths(ours), jax.tree.leaves(to_stored(theirs)), strict=True):
            np.testing.assert_allclose(x, y, atol=2e-6, rtol=2e-5, err_msg=f"{path} after {step} steps")
    assert min(norms) < settings.clip < max(norms)  # both sides of clipping were seen


def test_the_base_size_is_standard_and_others_start_scaled():
    config, standard = make(model={"width_per_depth": 8, "depth": 2})
    _, base = make(model={"width_per_depth": 8, "depth": 2, "parameterisation": "completep", "base_depth": 2})
    assert base == standard  # the same programs, so the same bits
    _, scaled = make(model={"width_per_depth": 8, "depth": 2, "parameterisation": "completep"})
    assert (scaled.scaling.width, scaled.scaling.depth) == (2.0, 2.0)
    mesh = meshes.make_mesh(config.mesh)
    before, after = (initial_state(spec, mesh, 3) for spec in (standard, scaled))
    for (path, x), y in zip(paths(before.params), jax.tree.leaves(after.params), strict=True):
        np.testing.assert_allclose(y, x * scaled.scaling.initial(path, x.shape), rtol=1e-6, err_msg=path)
    for x, y in zip(jax.tree.leaves(after.params), jax.tree.leaves(after.ema_params), strict=True):
        np.testing.assert_array_equal(x, y)
    assert jax.tree.structure(abstract_state(scaled, mesh)) == jax.tree.structure(after)
    table = scaling_table(scaled.scaling, abstract_parameters(scaled.model, scaled.inputs)).splitlines()
    assert table[0] == "weight,kind,init,rate,eps,decay,gradient"
    assert "final/kernel,final layer,0.5,0.5,2,2,0.5" in table


def test_runs_of_a_sweep_share_their_program():
    one = make(model={"parameterisation": "mup"}, optimizer={"learning_rate": 1e-3})[1]
    other = make(model={"parameterisation": "completep"}, optimizer={"learning_rate": 2e-3})[1]
    assert one != other
    assert one.shared == other.shared
    assert one.shared != make()[1].shared  # "standard" multiplies by nothing


@pytest.mark.job
@pytest.mark.parametrize("decay", ["cosine", "none", "linear", "wsd"])
def test_a_rate_that_is_given_on_the_devices_changes_no_bit(decay):
    optimizer = {"learning_rate": 0.021, "depth_exponent": -0.6, "warmup": 3, "decay": decay, "flatten": True}
    config, spec = make(optimizer=optimizer)
    mesh = meshes.make_mesh(config.mesh)
    batch, noise = rows(config, spec, mesh)
    found = []
    for update in (steps.jit_update(spec, mesh), steps.shared_update(spec, mesh)):
        state = initial_state(spec, mesh, 0)
        for _ in range(6):
            state, _ = update(state, batch, noise)
        found.append(jax.device_get(state))
    jax.tree.map(np.testing.assert_array_equal, *found)


def rows(config, spec, mesh):
    """One encoded batch and its noise."""
    source, stage = data.open_source(config.data, "train"), EncodeStage(spec.encoders, ())
    loaded = meshes.put_rows(data.load(source, range(8), stage.prepare)[0], 8, mesh)
    batch = EncodeStage.place(spec.encoders, mesh)(loaded, np.uint32(0), np.int32(0))
    formulation = flow.formulation(config.flow.formulation).arrays
    sample = steps.jit_noise(spec.objective, spec.inputs, mesh)
    return batch, sample(formulation, np.uint32(0), np.int32(0), batch["slot"])


@pytest.mark.job
def test_scaled_training_does_not_depend_on_the_mesh_or_on_accumulation():
    found = []
    for shape, accumulate in (((1, 1, 1), 1), ((2, 2, 2), 1), ((1, 1, 1), 2)):
        model = {"parameterisation": "completep", "depth": 2, "heads": 2, "width": 32}
        config, spec = make(model=model, training={"accumulate": accumulate}, optimizer={"weight_decay": 0.1})
        mesh = meshes.make_mesh(configs.Mesh(*shape), jax.devices()[: int(np.prod(shape))])
        state, (batch, noise) = initial_state(spec, mesh, 0), rows(config, spec, mesh)
        for _ in range(4):
            state, _ = steps.shared_update(spec, mesh)(state, batch, noise)
        found.append(jax.device_get(state.params))
    for other in found[1:]:
        for (path, x), y in zip(paths(found[0]), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(y, x, atol=0.05 * 3e-3, err_msg=path)  # of four steps of a rate of 3e-3


def test_export_and_back_is_the_same_network(tmp_path):
    c = tiny()
    c.model.update(parameterisation="completep", depth=2, width=32)
    config = configs.parse(c)
    params = begun_run(tmp_path / "run", config)
    ours = weights.read_weights(tmp_path / "run", configs.Mesh(), average=False)
    read = interop.import_checkpoint(interop.export(ours, tmp_path / "sd3", "sd3"), tmp_path / "back", "sd3")
    back = dict(paths(read.params))
    for path, leaf in paths(params):
        np.testing.assert_array_equal(back[path], leaf, err_msg=path)
    assert read.config.model.parameterisation == "standard"  # how it is trained on is not in an export


class TestRefusals:
    def test_an_unknown_name(self):
        with pytest.raises(UserError, match=r"parameterisation = 'complete' is not one of its choices.*completep"):
            make(model={"parameterisation": "complete"})

    @pytest.mark.parametrize("key", ["base_width", "base_depth"])
    def test_a_negative_base(self, key):
        with pytest.raises(UserError, match=f"config.model.{key} = -1 must be from"):
            make(model={"parameterisation": "mup", key: -1})

    def test_an_adapter(self):
        with pytest.raises(UserError, match="adapter freezes"):
            make(model={"parameterisation": "mup", "adapter": "a:b"})

    def test_a_second_rule_for_depth(self):
        with pytest.raises(UserError, match=r"set config\.optimizer\.depth_exponent = 0"):
            make(model={"parameterisation": "completep"}, optimizer={"depth_exponent": -0.5})

    def test_heads_that_do_not_fit(self):
        with pytest.raises(UserError, match="head_width = 6 does not divide the width, 16: take 4"):
            make(model={"head_width": 6})
        with pytest.raises(UserError, match="both choose"):
            make(model={"head_width": 8, "heads": 2})

    def test_weights_of_no_kind(self):
        config, spec = make(model={"parameterisation": f"{__name__}:OWN"})
        with pytest.raises(UserError, match=r"'own' must have one kind of weights for '.*', and has none"):
            check_mesh(config, spec, meshes.make_mesh(config.mesh))


OWN = Parameterisation("own", {"output": Rule()}, {"output": KINDS["output"]})


def test_a_base_deeper_than_the_network_and_heads_of_a_width():
    scaling = make(model={"parameterisation": "completep", "base_depth": 4, "base_width": 64})[1].scaling
    assert (scaling.width, scaling.depth) == (0.25, 0.5)
    assert make(model={"head_width": 4})[1].model.heads == 4
