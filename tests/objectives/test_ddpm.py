"""DiT's objective: the bound's terms against the textbook's formulas in double precision, and what learns from them."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import random_parameters
from scipy.stats import norm
from tiny import tiny

from rfjax import config as configs
from rfjax import data, flow
from rfjax.compiling import quick_options
from rfjax.errors import UserError
from rfjax.flow import variational
from rfjax.objectives import Objective, make_objective
from rfjax.objectives.ddpm import DDPM
from rfjax.planning import tracing
from rfjax.training import mesh as meshes
from rfjax.training import step as steps
from rfjax.training.encode import EncodeStage
from rfjax.training.spec import make_run_spec
from rfjax.training.state import abstract_state

KIND = "dit/eps"
STEPS = np.array([0, 1, 2, 500, 998, 999])


def textbook():
    """Ho et al. 2020, Eqs. 6 and 7, and Nichol & Dhariwal 2021, Eq. 15: by step."""
    beta = np.linspace(1e-4, 0.02, 1000)
    bar = np.cumprod(1 - beta)
    before = np.append(1.0, bar[:-1])
    variance = beta * (1 - before) / (1 - bar)
    low = np.log(np.append(variance[1], variance[1:]))
    return bar, np.sqrt(before) * beta / (1 - bar), np.sqrt(1 - beta) * (1 - before) / (1 - bar), low, np.log(beta)


def draw(seed=0, shape=(2, 2, 4)):
    rng = np.random.default_rng(seed)
    x0 = rng.uniform(-1.0, 1.0, (len(STEPS), *shape))
    eps, predicted = rng.normal(size=(2, *x0.shape))
    return x0, eps, eps + 0.05 * predicted, rng.uniform(-1.2, 1.2, x0.shape)


def expected_bits(x0, eps, predicted, sigma):
    """The bound by its definition: both means from x0 and z."""
    bar, of_x0, of_z, low, high = (np.asarray(x)[STEPS].reshape(-1, *[1] * (x0.ndim - 1)) for x in textbook())
    z = np.sqrt(bar) * x0 + np.sqrt(1 - bar) * eps
    guess = (z - np.sqrt(1 - bar) * predicted) / np.sqrt(bar)
    mean, ours = of_x0 * x0 + of_z * z, of_x0 * guess + of_z * z
    learned = (sigma + 1) / 2 * high + (1 - sigma) / 2 * low
    kl = (learned - low + np.exp(low - learned) - 1 + (mean - ours) ** 2 * np.exp(-learned)) / 2
    scale = np.exp(learned / 2)
    inside = norm.cdf(x0 + 1 / 255, ours, scale) - norm.cdf(x0 - 1 / 255, ours, scale)
    nll = -np.log(np.maximum(inside, 1e-300))
    first = (STEPS == 0).reshape(-1, *[1] * (x0.ndim - 1))
    return np.where(first, nll, kl).mean(tuple(range(1, x0.ndim))) / np.log(2)


def test_the_bound_is_the_textbook_s():
    x0, eps, predicted, sigma = draw()
    single = lambda x: jnp.asarray(x, jnp.float32)  # noqa: E731
    found = variational.variational_bits(KIND, jnp.asarray(STEPS), single(x0), single(predicted - eps), single(sigma))
    expected = expected_bits(x0, eps, predicted, sigma)
    np.testing.assert_allclose(found[1:], expected[1:], rtol=2e-4)  # float32, where 1 cancels
    np.testing.assert_allclose(found[0], expected[0], rtol=2e-3)  # DiT's approximation of the distribution function


def test_the_posterior_in_double_precision():
    bar, of_x0, _, low, high = textbook()
    found = variational.posterior(KIND)
    np.testing.assert_allclose(found.slope, of_x0 * np.sqrt(1 - bar) / np.sqrt(bar), rtol=1e-9)
    np.testing.assert_allclose(found.low, low, rtol=1e-9)
    np.testing.assert_allclose(found.high, high, rtol=1e-12)
    assert found.low[0] == found.low[1]
    with pytest.raises(UserError, match="'rf' has no discrete steps"):
        variational.posterior("rf")


def test_the_divergence_of_two_gaussians():
    """Against an integral, and zero where they are equal."""
    difference, one, other = 0.3, math.log(0.4), math.log(1.7)
    x = np.linspace(-12, 12, 200_001)
    p, q = norm(difference, math.sqrt(0.4)), norm(0, math.sqrt(1.7))
    integral = np.trapezoid(p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), x)
    assert float(variational.gaussian_kl(*map(jnp.float32, (difference, one, other)))) == pytest.approx(
        integral, rel=1e-5
    )
    assert float(variational.gaussian_kl(*map(jnp.float32, (0, one, one)))) == 0


@pytest.mark.parametrize(("mean", "scale"), [(0.1, 0.02), (-0.97, 0.1), (0.9, 0.5), (0.0, 0.001)])
def test_the_probabilities_of_all_pixels_add_up_to_one(mean, scale):
    pixels = jnp.asarray(np.arange(256) / 127.5 - 1, jnp.float32)
    nll = variational.discretised_nll(pixels, pixels - mean, jnp.full(256, 2 * math.log(scale)))
    assert float(jnp.exp(-nll).sum()) == pytest.approx(1, abs=1e-3)
    edges = norm.cdf((np.arange(1, 256) - 0.5) / 127.5 - 1, mean, scale)
    exact = np.diff(np.concatenate([[0.0], edges, [1.0]]))
    np.testing.assert_allclose(jnp.exp(-nll), exact, atol=7e-4)


def terms(prediction, sigma, x0, eps):
    t = jnp.asarray((STEPS + 1) / 1000, jnp.float32)
    return DDPM(0.1, KIND).parts(prediction, sigma, x0, eps, t)


def test_the_bound_teaches_the_variance_alone_and_the_error_the_mean_alone():
    x0, eps, predicted, sigma = (jnp.asarray(x, jnp.float32) for x in draw())
    for name, ours, others in (("bound", 1, 0), ("mse", 0, 1)):
        gradient = jax.grad(lambda p, s, name=name: terms(p, s, x0, eps)[name].sum(), argnums=(0, 1))(predicted, sigma)
        assert (gradient[others] == 0).all()
        assert (gradient[ours] != 0).all()
    found = terms(predicted, sigma, x0, eps)
    np.testing.assert_allclose(found["loss"], found["mse"] + found["bound"], rtol=1e-6)
    np.testing.assert_allclose(found["mse"], ((predicted - eps) ** 2).mean((1, 2, 3)), rtol=1e-5)


def test_the_best_variance_is_that_of_q_plus_the_squared_distance_of_the_means():
    """d/d log v of KL is zero at v = var q + difference^2, which the network may say by a number beyond -1 ... 1."""
    x0, eps, predicted, _ = (jnp.asarray(x, jnp.float32) for x in draw())
    slope, low, high = (np.asarray(x)[STEPS].reshape(-1, 1, 1, 1) for x in variational.posterior(KIND))
    best = np.log(np.exp(low) + (slope * np.asarray(predicted - eps, float)) ** 2)
    sigma = jnp.asarray(2 * (best - low) / (high - low) - 1, jnp.float32)
    gradient = jax.grad(lambda s: terms(predicted, s, x0, eps)["bound"].sum())(sigma)
    away = jax.grad(lambda s: terms(predicted, s, x0, eps)["bound"].sum())(sigma + 1)
    early = slice(1, 3)  # later, the two ends of the range lie closer than this gradient can tell
    assert (jnp.abs(gradient[early]) < 1e-3 * jnp.abs(away[early])).all()


def small(**sections):
    c = tiny()
    c.model.update(depth=1, backbone="dit", learn_sigma=True, heads=2, time="1000t-1")
    c.flow.formulation = "dit/eps"
    c.training.objective = "ddpm"
    for section, values in sections.items():
        c[section].update(values)
    config = configs.parse(c)
    return config, make_run_spec(config)


def gradients(shape):
    """Loss terms and gradients of random weights on a mesh."""
    config, spec = small()
    mesh = meshes.make_mesh(configs.Mesh(*shape), jax.devices()[: math.prod(shape)])
    source, stage = data.open_source(config.data, "train"), EncodeStage(spec.encoders, ())
    rows = meshes.put_rows(data.load(source, range(8), stage.prepare)[0], 8, mesh)
    batch = EncodeStage.place(spec.encoders, mesh)(rows, np.uint32(0), np.int32(0))
    formulation = flow.formulation("dit/eps").arrays
    noise = steps.jit_noise(spec.objective, spec.inputs, mesh)(formulation, np.uint32(0), np.int32(0), batch["slot"])
    params = random_parameters(spec.model, spec.inputs)
    params = jax.device_put(params, meshes.shard_tree(params, mesh))
    return jax.device_get(
        jax.jit(steps.gradients(spec, mesh), compiler_options=quick_options())(params, {}, batch, noise)
    )


@pytest.mark.job
def test_a_step_has_the_three_terms_on_every_mesh():
    (found, ours), (others, theirs) = gradients((1, 1, 1)), gradients((2, 2, 2))
    assert set(found) == {"loss", "mse", "bound"}
    assert found["loss"] == pytest.approx(found["mse"] + found["bound"], rel=1e-5)
    # The bound has exponentials of what the network says: 2.6e-5 was measured.
    for name, tolerance in (("mse", 1e-5), ("bound", 1e-4)):
        assert found[name] == pytest.approx(others[name], rel=tolerance)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * max(np.abs(a).max(), 1e-3)), ours, theirs)
    # The last Linear's second half of each patch value's channels is the variance's, and both halves learn.
    kernel = ours["final"]["kernel"].reshape(-1, 16, 6)
    assert (np.abs(kernel).max((0, 1)) > 0).all()


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"flow": {"formulation": "rf"}}, "set config.flow.formulation = 'dit/eps'"),
        ({"flow": {"shift": 2.0}}, "and config.flow.shift = 1, not 'dit/eps' and 2"),
        ({"model": {"learn_sigma": False}}, "set config.model.learn_sigma = True"),
    ],
)
def test_what_has_no_bound_is_refused_before_anything_is_compiled(sections, words):
    with pytest.raises(UserError, match=words.replace("(", r"\(")):
        small(**sections)


def test_the_objective_is_of_the_table():
    config, spec = small()
    assert spec.objective == make_objective(config) == DDPM(0.1, "dit/eps") and isinstance(spec.objective, Objective)
    assert dataclasses.replace(spec.objective, kind="eps/linear") != spec.objective


def test_dit_with_representation_alignment_is_both_objectives_together():
    """Traced alone: the bound reads the variance's channels, and the alignment a hidden state of the same pass."""
    config, spec = small(alignment={"encoders": ("shapes",), "projector_width": 8})
    mesh = meshes.make_mesh(configs.Mesh(), jax.devices()[:1])
    batch, noise = tracing.arguments(config, spec, mesh)
    state, (encoder,) = abstract_state(spec, mesh), spec.features
    tokens = (batch["z"].shape[0], math.prod(encoder.grid), encoder.width)
    batch |= {encoder.name: jax.ShapeDtypeStruct(tokens, jnp.float32, sharding=batch["z"].sharding)}
    found, grads = jax.eval_shape(steps.gradients(spec, mesh), state.params, {}, batch, noise)
    assert set(found) == {"loss", "denoising", "mse", "bound", "alignment"}
    assert "projector_0" in grads
