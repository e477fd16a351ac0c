import dataclasses
import functools
import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import random_parameters
from tiny import tiny

from rfjax import config as configs
from rfjax import data, flow
from rfjax.compiling import quick_options
from rfjax.conditioning import Group, TextConditioning
from rfjax.models import Inputs
from rfjax.objectives.flow_matching import FlowMatching
from rfjax.planning import tracing
from rfjax.training import mesh as meshes
from rfjax.training import step as steps
from rfjax.training.encode import EncodeStage
from rfjax.training.optimizer import AS_CONFIGURED, ema_update, make_schedule
from rfjax.training.spec import make_run_spec
from rfjax.training.state import abstract_state, initial_state


def make(**sections):
    c = tiny()
    for section, values in sections.items():
        c[section].update(values)
    config = configs.parse(c)
    return config, make_run_spec(config)


def encoded(spec, rows, mesh):
    """A loaded batch as the step sees it."""
    rows = meshes.put_rows(rows, len(rows["slot"]), mesh)
    return EncodeStage.place(spec.encoders, mesh)(rows, np.uint32(0), np.int32(0))


def noise(config, spec, mesh, step, slot):
    formulation = flow.formulation(config.flow.formulation).arrays
    return steps.jit_noise(spec.objective, spec.inputs, mesh)(formulation, np.uint32(0), step, slot)


def run(config, spec, mesh, count=3):
    source, stage = data.open_source(config.data, "train"), EncodeStage(spec.encoders, ())
    batches = data.batches(source, stage.prepare, data.Order(config.training.batch, 0))
    state, losses = initial_state(spec, mesh, 0), []
    for _ in range(count):
        batch = encoded(spec, next(batches), mesh)
        state, metrics = steps.jit_update(spec, mesh)(
            state, batch, noise(config, spec, mesh, state.step, batch["slot"])
        )
        losses.append(float(metrics["loss"]))
    return jax.device_get(state), losses


def test_low_effort_draws_the_same_bits():
    config, spec = make()
    formulation, slot = flow.formulation(config.flow.formulation).arrays, np.arange(8, dtype=np.int32)
    quick = steps.jit_noise(spec.objective, spec.inputs, devices((1, 1, 1)))
    full = jax.jit(quick.__wrapped__)
    for step in range(5):
        drawn = [draw(formulation, np.uint32(0), np.int32(step), slot) for draw in (quick, full)]
        jax.tree.map(np.testing.assert_array_equal, *drawn)


def test_the_norm_of_the_flat_vector_is_that_of_the_leaves():
    _, spec = make(optimizer={"flatten": True})
    grads = {"a": {"kernel": jnp.arange(6.0).reshape(2, 3)}, "b": {"bias": jnp.full(4, -0.5)}}
    flat = steps.watched_gradient(spec, grads, AS_CONFIGURED)
    assert flat.ndim == 1
    np.testing.assert_allclose(optax.global_norm(flat), optax.global_norm(grads), rtol=1e-6)


SHAPES = [
    shape for shape in itertools.product((1, 2, 4, 8), repeat=3) if math.prod(shape) in (2, 4, 8)
]  # every mesh (data, fsdp, tensor) of 2, 4 and 8 devices
GRADIENT = 5e-6  # of the largest entry of a leaf's gradient; the largest measured is 1.1e-6


def devices(shape):
    return meshes.make_mesh(configs.Mesh(*shape), jax.devices()[: math.prod(shape)])


@functools.cache
def one_batch(backbone, modulation):
    """RunSpec, and on one device: random weights, a batch, what is random in a step."""
    model = {"heads": 8, "width": 32, "qk_norm": True, "backbone": backbone, "modulation": modulation}
    config, spec = make(model=model)
    source, mesh = data.open_source(config.data, "train"), devices((1, 1, 1))
    batch = encoded(spec, data.load(source, range(8), EncodeStage(spec.encoders, ()).prepare)[0], mesh)
    rows = batch, noise(config, spec, mesh, np.int32(0), batch["slot"])
    return spec, random_parameters(spec.model, spec.inputs), *jax.device_get(rows)


@functools.cache
def gradients_on(shape, remat="none", accumulate=1, backbone="mmdit", modulation="adaln"):
    """Loss and gradients of random weights on one batch."""
    spec, params, *rows = one_batch(backbone, modulation)
    spec = dataclasses.replace(spec, model=spec.model.clone(remat=remat), accumulate=accumulate)
    mesh = devices(shape)
    params = jax.device_put(params, meshes.shard_tree(params, mesh))
    gradients = jax.jit(steps.gradients(spec, mesh), compiler_options=quick_options())
    terms, found = jax.device_get(gradients(params, {}, *(meshes.put_rows(each, 8, mesh) for each in rows)))
    return terms["loss"], found


def same_gradients(found, expected):
    np.testing.assert_allclose(found[0], expected[0], rtol=2e-6)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(found[1]), jax.tree.leaves(expected[1]), strict=True):
        # A key's bias has a true gradient of zero: compare with the largest gradient where a leaf's own is tiny.
        scale = max(np.abs(y).max(), np.abs(expected[1]["final"]["bias"]).max() / 32)
        np.testing.assert_allclose(x, y, atol=GRADIENT * scale, err_msg=str(path))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_do_not_depend_on_the_mesh(shape):
    found = gradients_on(shape, backbone="dit")  # the smallest program
    same_gradients(found, gradients_on((1, 1, 1), backbone="dit"))


@pytest.mark.parametrize(("remat", "accumulate"), [("none", 1), ("dots", 2), ("full", 2)])
def test_gradients_depend_neither_on_what_is_computed_again_nor_on_accumulation(remat, accumulate):
    same_gradients(gradients_on((2, 2, 2), remat, accumulate), gradients_on((1, 1, 1)))


@pytest.mark.job
@pytest.mark.parametrize("backbone", ["mmdit", "dit"])
def test_gradients_without_adaln_do_not_depend_on_the_mesh(backbone):
    own = {"backbone": backbone, "modulation": "token"}
    same_gradients(gradients_on((2, 2, 2), "full", **own), gradients_on((1, 1, 1), **own))


@pytest.mark.job
@pytest.mark.parametrize("backbone", ["crossdit", "uvit"])
def test_training_does_not_depend_on_the_mesh(backbone):
    config, spec = make(model={"remat": "full", "backbone": backbone, "patch": 2 if backbone == "uvit" else 4})
    one, other = run(config, spec, devices((1, 1, 1))), run(config, spec, devices((2, 2, 2)))
    np.testing.assert_allclose(other[1], one[1], rtol=2e-5)
    # Adam divides by the root of a small second moment, so rounding grows: compare to the size of an update.
    for a, b in zip(jax.tree.leaves(one[0].params), jax.tree.leaves(other[0].params), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3 * config.optimizer.learning_rate + 2e-4 * np.abs(a).max())


def test_weights_are_put_together_in_bfloat16_and_gradients_added_up_in_float32():
    config, spec = make(model={"precision": "bfloat16", "heads": 8, "width": 32})
    mesh = devices((1, 8, 1))
    state = abstract_state(spec, mesh)
    text = steps.jit_update(spec, mesh).lower(state, *tracing.arguments(config, spec, mesh)).as_text()
    gathered = re.findall(r'stablehlo.all_gather"?.*-> tensor<[\dx]*(\w+)>', text)
    scattered = re.findall(r"stablehlo.reduce_scatter.*?-> tensor<[\dx]*(\w+)>", text, re.DOTALL)
    assert len(gathered) > 10 and set(gathered) == {"bf16"}
    assert len(scattered) > 10 and set(scattered) == {"f32"}
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}


def test_a_flat_optimizer_takes_the_same_steps():
    mesh = meshes.make_mesh(configs.Mesh(1, 1), jax.devices()[:1])
    plain, flat = (run(*make(optimizer={"flatten": value}), mesh) for value in (False, True))
    np.testing.assert_allclose(plain[1], flat[1], rtol=1e-6)


def test_the_loss_falls():
    config, spec = make(training={"steps": 60, "batch": 16}, optimizer={"learning_rate": 1e-2, "warmup": 5})
    _, losses = run(config, spec, meshes.make_mesh(configs.Mesh()), count=60)
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])


def test_the_average_starts_fast_and_ends_at_its_decay():
    config, _ = make(optimizer={"ema_decay": 0.9, "ema_every": 2})
    average, seen = jnp.float32(0), []
    for step in range(1, 401):
        average = ema_update(average, jnp.float32(1), jnp.int32(step), config.optimizer)
        seen.append(float(average))
    assert seen[0] == 0  # updated every second step only
    assert seen[1] == pytest.approx(1 - 1 / 10)  # n = 1: decay 1 / 10
    assert seen[3] == pytest.approx(1 - 1 / 10 * 2 / 11)
    assert seen[-1] == pytest.approx(1)
    late = ema_update(jnp.float32(0), jnp.float32(1), jnp.int32(400), config.optimizer)
    assert float(late) == pytest.approx(0.1)


def test_an_average_without_a_warm_up_has_its_decay_from_the_first_update():
    """DiT, SiT and REPA: 0.9999 in every step, from a copy of the initial weights."""
    config, _ = make(optimizer={"ema_decay": 0.9999, "ema_every": 1, "ema_warmup": False})
    average = jnp.float32(0)
    for step in (1, 2, 3):
        average = ema_update(average, jnp.float32(1), jnp.int32(step), config.optimizer)
    assert float(average) == pytest.approx(1 - 0.9999**3, rel=1e-4)


@pytest.mark.parametrize("decay", ["none", "cosine", "linear"])
def test_the_schedule_warms_up_to_the_ladder_s_rate_and_decays(decay):
    optimizer = configs.Optimizer(learning_rate=0.02, depth_exponent=-0.5, warmup=10, decay=decay)
    schedule = make_schedule(optimizer, 4, 110)
    assert float(schedule(0)) == pytest.approx(0.001)
    assert float(schedule(10)) == pytest.approx(0.01)
    assert float(schedule(60)) == pytest.approx({"none": 0.01, "cosine": 0.005, "linear": 0.005}[decay])
    assert float(schedule(110)) == pytest.approx(0.01 if decay == "none" else 0, abs=1e-9)


def test_weight_decay_touches_matrices_only():
    _, spec = make(optimizer={"weight_decay": 0.5, "clip": 0.0, "warmup": 0, "learning_rate": 1.0})
    mesh = meshes.make_mesh(configs.Mesh(1, 1), jax.devices()[:1])
    params = jax.tree.map(jnp.ones_like, initial_state(spec, mesh, 0).params)
    zero = jax.tree.map(jnp.zeros_like, params)
    changes, _ = jax.jit(spec.optimizer.update)(zero, spec.optimizer.init(params), params)
    after = jax.tree_util.tree_leaves_with_path(optax.apply_updates(params, changes))
    assert {path[-1].key for path, _ in after} == {"kernel", "bias"}
    for path, value in after:
        np.testing.assert_allclose(value, 0.5 if path[-1].key == "kernel" else 1.0)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 2)], ids=str)
def test_noise_comes_from_seed_step_and_slot_alone(shape):
    groups = (Group(), Group())
    cond = TextConditioning(jax.ShapeDtypeStruct((2, 3), jnp.float32), jax.ShapeDtypeStruct((3,), jnp.float32), groups)
    sample = steps.jit_noise(FlowMatching(0.5), Inputs((4, 4, 3), cond), devices(shape))
    formulation = flow.formulation("rf/lognorm(0.00,1.00)").arrays
    draw = lambda seed, step, slot: sample(formulation, jnp.uint32(seed), jnp.int32(step), slot)  # noqa: E731
    whole, some, places = draw(3, 7, jnp.arange(64)), draw(3, 7, jnp.array([9, 5, 0, 63])), np.array([9, 5, 0, 63])
    for all_rows, few in zip(jax.tree.leaves(whole), jax.tree.leaves(some), strict=True):
        np.testing.assert_array_equal(np.asarray(all_rows)[places], few)
    for other in (draw(3, 8, jnp.arange(64)), draw(4, 7, jnp.arange(64))):
        for mine, theirs in ((whole.at.t, other.at.t), (whole.eps, other.eps), (whole.keep, other.keep)):
            assert (np.asarray(mine) != np.asarray(theirs)).any()
    assert abs(float(whole.eps.mean())) < 4 / whole.eps.size**0.5
