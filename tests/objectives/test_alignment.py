"""Alignment with a frozen encoder: the loss in closed form, the step on every backbone and mesh, the end of it."""

import dataclasses
import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import run_job, tiny

from rfjax import config as configs
from rfjax import data, flow
from rfjax.compiling import quick_options
from rfjax.encoders import features as encoders
from rfjax.errors import UserError
from rfjax.models.counting import traced_matmul_flops
from rfjax.models.projector import ConvProjector, Projector
from rfjax.objectives import alignment
from rfjax.objectives.flow_matching import FlowMatching
from rfjax.study import runner
from rfjax.training import mesh as meshes
from rfjax.training import step as steps
from rfjax.training.encode import EncodeStage
from rfjax.training.spec import make_run_spec
from rfjax.training.state import abstract_state, initial_state

RNG = np.random.default_rng(0)
HIDDEN, FEATURES = (jnp.asarray(RNG.standard_normal((3, 6, 5)), jnp.float32) for _ in range(2))


DEEP = {"depth": 3, "heads": 2}


def aligned(**sections):
    c = tiny()
    c.alignment.update(encoders=("shapes",), projector_width=8)
    for section, values in sections.items():
        c[section].update(values)
    config = configs.parse(c)
    return config, make_run_spec(config)


# The loss.
def test_the_cosine_similarity_of_directions():
    lengths = np.linalg.norm(HIDDEN, axis=-1) * np.linalg.norm(FEATURES, axis=-1)
    np.testing.assert_allclose(alignment.cosine(HIDDEN, FEATURES), (HIDDEN * FEATURES).sum(-1) / lengths, rtol=1e-5)
    np.testing.assert_allclose(alignment.cosine(1e-9 * HIDDEN, 1e9 * HIDDEN), 1, rtol=1e-5)


def test_a_zero_vector_is_aligned_with_nothing_and_pulled_nowhere():
    value, gradient = jax.value_and_grad(lambda h: alignment.cosine(h, FEATURES[0, 0]))(jnp.zeros(5))
    assert value == 0 and not np.any(gradient)
    assert float(alignment.cosine(HIDDEN[0, 0], jnp.zeros(5))) == 0
    gradient = jax.grad(lambda h: alignment.nt_xent(h, jnp.zeros((1, 6, 5)), 0.1).sum())(HIDDEN[:1])
    assert np.isfinite(gradient).all()


def test_the_contrastive_loss_is_its_definition():
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    logits = np.exp(np.einsum("bnz,bmz->bnm", unit(HIDDEN), unit(FEATURES)) / 0.2)
    expected = -np.log(np.einsum("bnn->bn", logits) / logits.sum(-1)).mean(-1)
    np.testing.assert_allclose(alignment.nt_xent(HIDDEN, FEATURES, 0.2), expected, rtol=1e-5)
    np.testing.assert_allclose(alignment.nt_xent(HIDDEN, jnp.zeros_like(HIDDEN), 0.2), math.log(6), rtol=1e-6)


@given(st.floats(0, 1), st.floats(-5, 5), st.floats(0.1, 5))
def test_spatial_normalization_forgets_scale_and_the_mean_that_it_removes(removed, shift, scale):
    found = np.asarray(alignment.spatially_normalized(scale * FEATURES, removed))
    np.testing.assert_allclose(found, alignment.spatially_normalized(FEATURES, removed), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.std(1, ddof=1), 1, rtol=1e-3)
    if removed == 1:
        moved = alignment.spatially_normalized(FEATURES + np.float32(shift), 1.0)
        np.testing.assert_allclose(moved, alignment.spatially_normalized(FEATURES, 1.0), atol=1e-3)


def test_tokens_of_another_grid_are_interpolated():
    rows = np.broadcast_to(np.arange(4.0, dtype=np.float32)[None, :, None, None], (1, 4, 2, 3))
    found = alignment.resample(jnp.asarray(rows.reshape(1, 8, 3)), (4, 2), (2, 4)).reshape(2, 4, 3)
    assert found[0].std() < 1e-6 and found[1].std() < 1e-6
    np.testing.assert_allclose(found[0, 0] + found[1, 0], 3, atol=1e-5)  # the middle stays where it was
    np.testing.assert_allclose(alignment.resample(jnp.ones((2, 9, 1)), (3, 3), (5, 2)), 1, atol=1e-6)


@pytest.mark.parametrize("module", [Projector(5, 7), ConvProjector(5, (2, 3))], ids=["mlp", "conv"])
def test_a_projector_counts_its_products(module):
    params = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 6, 4)))
    traced = traced_matmul_flops(module.apply, params, jax.ShapeDtypeStruct((1, 6, 4), jnp.float32))
    padding = 2 * (9 * 6 - 4 * 7) * 4 * 5 if isinstance(module, ConvProjector) else 0  # 2 x 3 cells see 4 x 7 of 54
    assert 2 * module.macs(6, 4) - padding == traced


# The objective.
def begin(config, spec, mesh):
    """A state, an encoded batch and its noise."""
    stage = EncodeStage.place((*spec.encoders, *spec.features), mesh)
    source = data.open_source(config.data, "train")
    batch, _ = data.load(source, range(8), stage.prepare, stage.names(source))
    batch = stage(meshes.put_rows(batch, 8, mesh), np.uint32(0), np.int32(0))
    formulation = flow.formulation(config.flow.formulation).arrays
    noise = steps.jit_noise(spec.objective, spec.inputs, mesh)
    state = initial_state(spec, mesh, 0)
    return state, batch, noise(formulation, np.uint32(0), np.int32(0), batch["slot"])


def gradients(config, spec, shape):
    mesh = meshes.make_mesh(configs.Mesh(*shape), jax.devices()[: math.prod(shape)])
    state, batch, noise = begin(config, spec, mesh)
    found = jax.jit(steps.gradients(spec, mesh), compiler_options=quick_options())(
        state.params, state.frozen, batch, noise
    )
    return jax.device_get(found)


@pytest.fixture(scope="module")
def whole():
    config, spec = aligned(model=DEEP)
    return gradients(config, spec, (1, 1, 1))


@pytest.mark.job
def test_the_loss_and_its_gradient_do_not_depend_on_mesh_remat_and_accumulation(whole):
    config, spec = aligned(model={**DEEP, "remat": "full"}, training={"accumulate": 2})
    (terms, grads), (expected, reference) = gradients(config, spec, (1, 2, 2)), whole
    assert set(terms) == set(expected) == {"loss", "denoising", "alignment"}
    for term in terms:
        assert float(terms[term]) == pytest.approx(float(expected[term]), rel=2e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-6), grads, reference)


def test_the_loss_is_the_denoising_loss_of_the_vanilla_run_and_the_weighted_alignment(whole):
    config, spec = aligned(model=DEEP, alignment={"weight": 0.0})
    assert spec.features == () and isinstance(spec.objective, FlowMatching)
    vanilla, grads = gradients(config, spec, (1, 1, 1))
    terms, both = whole
    assert float(terms["denoising"]) == pytest.approx(float(vanilla["loss"]), rel=1e-6)
    assert float(terms["loss"]) == pytest.approx(float(terms["denoising"] + 0.5 * terms["alignment"]), rel=1e-6)
    assert -1 <= float(terms["alignment"]) <= 1
    # the alignment reaches the projector, and the block that it reads, but not the last layer
    assert np.abs(both["projector_0"]["fc1"]["kernel"]).max() > 0
    np.testing.assert_allclose(both["final"]["kernel"], grads["final"]["kernel"], rtol=1e-4, atol=1e-7)


BACKBONES = {
    "mmdit": {},
    "mmdit3": {"text": {"vocabularies": 2}},
    "dit": {},
    "crossdit": {},
    "uvit": {},
    "sit": {"text": {"encoder": "labels", "pooled_width": 32}},
}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_branch_adds_the_projector_and_no_second_forward_pass(backbone):
    config, spec = aligned(model={"backbone": backbone, "width": 16, "heads": 2}, **BACKBONES[backbone])
    without = dataclasses.replace(spec, objective=alignment.stopped(spec.objective))
    mesh = meshes.make_mesh(configs.Mesh(1, 1, 1), jax.devices()[:1])
    z = jax.ShapeDtypeStruct((8, *spec.inputs.shape), jnp.float32)
    cond = jax.tree.map(lambda x: jax.ShapeDtypeStruct((8, *x.shape), x.dtype), spec.inputs.cond)
    slot = jax.ShapeDtypeStruct((8,), jnp.int32)
    (encoder,) = spec.features
    tokens = jax.ShapeDtypeStruct((8, math.prod(encoder.grid), encoder.width), jnp.float32)
    batch = {"z": z, "cond": cond, "slot": slot, encoder.name: tokens}
    formulation = flow.formulation(config.flow.formulation).arrays
    noise = jax.eval_shape(
        steps.jit_noise(spec.objective, spec.inputs, mesh), formulation, np.uint32(0), np.int32(0), slot
    )
    state = abstract_state(spec, mesh)

    def forward(spec):
        loss = lambda p, b, n: spec.objective(steps.StepNetworks(spec.model, p, {}), b, n)["loss"].mean()  # noqa: E731
        return traced_matmul_flops(loss, state.params, batch, noise)

    head = spec.model.readouts[-1].module
    assert head == Projector(encoder.width, 8, jnp.float32)
    assert forward(spec) - forward(without) == 8 * 2 * head.macs(tokens.shape[1], spec.model.width)


# A run.
@pytest.mark.job
def test_alignment_ends_where_the_config_says_and_a_resumed_run_ends_alike(tmp_path, capsys):
    c = tiny()
    c.workdir = str(tmp_path)
    c.alignment.update(encoders=("shapes",), projector_width=8, until=4)
    c.sampling.count = 0
    configs.axes(c, {"alignment.weight": (0.5,)})
    assert run_job(runner, configs.parse(c), 0.0) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    whole = lines_of(folder)
    terms = {step: line["alignment"] for step, line in whole.items()}
    assert terms[2] != 0 != terms[4] and terms[6] == terms[8] == 0
    shutil.rmtree(folder / "checkpoints" / "8")  # as if it had been killed behind the checkpoint at which it ends
    (folder / "result.json").unlink()
    assert run_job(runner, configs.parse(c), 0.0) == 0
    again = lines_of(folder)
    same = ("loss", "denoising", "alignment", "grad_norm")
    assert [[again[step][key] for key in same] for step in (6, 8)] == [
        [whole[step][key] for key in same] for step in (6, 8)
    ]


def lines_of(folder):
    """The line of training that was written last for each step."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line for line in lines if line["kind"] == "train"}


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"alignment": {"block": 3}}, "config.alignment.block = 3 is not there: config.model.depth = 2"),
        ({"alignment": {"encoders": ("shapes@8",)}}, "has 8 x 8 tokens and the network 4 x 4"),
        ({"alignment": {"encoders": ("shapes@5",)}}, "divides config.data.image_size = 16"),
        ({"alignment": {"encoders": ("shapes", "shapes")}}, "names an encoder twice"),
        ({"alignment": {"encoders": ("shape",)}}, "config.alignment.encoders = 'shape' is not one of its choices"),
        ({"data": {"name": "digits"}}, "the encoder 'shapes' knows the data set 'shapes' only"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_refused_before_anything_is_compiled(sections, words):
    with pytest.raises(UserError, match=words):
        aligned(**sections)


def test_other_grids_are_resampled_if_the_config_says_so():
    config, spec = aligned(alignment={"encoders": ("shapes@8",), "tokens": "resample", "normalize": "spatial"})
    assert spec.objective.targets[0].grid == (8, 8) and spec.objective.grid == (4, 4)
    terms, _ = gradients(config, spec, (1, 1, 1))
    assert np.isfinite(float(terms["alignment"]))


def test_all_encoders_of_the_table_keep_the_contract():
    made = encoders.make_feature_encoder("shapes", aligned()[0])
    assert isinstance(made, encoders.FeatureEncoder) and made.grid == (4, 4)
