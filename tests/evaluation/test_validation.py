import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfjax import flow
from rfjax.conditioning import TextConditioning
from rfjax.config import Mesh
from rfjax.encoders.codec import to_network
from rfjax.evaluation import validation
from rfjax.training import mesh as meshes

N = 48
IMAGES = np.random.default_rng(0).integers(0, 256, (N, 4, 4, 3), dtype=np.uint8)
OPTIONS = {"formulation": flow.formulation("rf").arrays, "levels": "k/8", "examples": N}


@jax.jit
def network(z, t, cond):
    return jnp.tanh(z) * (1 + t[:, None, None, None]) + cond.context.mean((1, 2))[:, None, None, None]


def load(indices, put=lambda x: x):
    context = np.asarray(indices, np.float32)[:, None, None] / N
    batch = {
        "z": to_network(IMAGES[indices]),
        "cond": TextConditioning(context, context[:, 0]),
        "slot": np.asarray(indices, np.int32),
    }
    return jax.tree.map(put, batch)


WHOLE = validation.measure(network, load, batch=N, **OPTIONS)


@pytest.mark.job
@settings(max_examples=8)
@given(st.sampled_from([1, 3, 5, 8, 16, 31, 48, 64]))
def test_the_loss_does_not_depend_on_the_batch_nor_on_a_ragged_last_one(batch):
    found = validation.measure(network, load, batch=batch, **OPTIONS)
    np.testing.assert_allclose(found.examples, WHOLE.examples, rtol=2e-6)
    assert found.loss == pytest.approx(WHOLE.loss, rel=1e-6)
    assert found.stderr == pytest.approx(WHOLE.stderr, rel=1e-6)


@pytest.mark.parametrize(("data", "fsdp"), [(1, 1), (2, 1), (2, 2), (1, 8), (8, 1)])
def test_the_loss_does_not_depend_on_the_devices(data, fsdp):
    mesh = meshes.make_mesh(Mesh(data=data, fsdp=fsdp), jax.devices()[: data * fsdp])
    sharding = jax.sharding.NamedSharding(mesh, meshes.BATCH)
    found = validation.measure(network, lambda i: load(i, lambda x: jax.device_put(x, sharding)), batch=16, **OPTIONS)
    np.testing.assert_allclose(found.examples, WHOLE.examples, rtol=2e-6)


def test_a_triple_is_fixed_by_its_index_whatever_the_model():
    prepare, _ = validation.triple_functions("k/8")
    rf, x0 = OPTIONS["formulation"], to_network(IMAGES)
    everything = prepare(rf, x0, jnp.arange(N))
    some = prepare(rf, x0[[5, 9]], jnp.array([5, 9]))
    np.testing.assert_array_equal(some.shown, everything.shown[jnp.array([5, 9])])
    np.testing.assert_allclose(everything.time, np.arange(N) % 8 / 8)
    half, _ = validation.triple_functions("(k+0.5)/8")
    np.testing.assert_allclose(half(rf, x0, jnp.arange(N)).time, (np.arange(N) % 8 + 0.5) / 8)


@pytest.mark.parametrize("name", flow.KINDS)
def test_every_formulation_has_a_finite_loss_at_every_level(name):
    numbers = {"rf/lognorm": "(0,1)", "rf/mode": "(1)"}.get(name, "")
    options = OPTIONS | {"formulation": flow.formulation(name + numbers).arrays}
    found = validation.measure(network, load, batch=N, **options)
    assert np.isfinite(found.examples).all()


def test_levels_are_means_and_the_error_is_that_of_a_stratified_sample():
    losses = np.random.default_rng(1).gamma(2.0, size=800) * np.tile(np.arange(1, 9), 100)
    found = validation.summarise(losses, "k/8")
    np.testing.assert_allclose(found.levels, [losses[k::8].mean() for k in range(8)])
    assert found.loss == pytest.approx(losses.mean())
    # Against brute force: the spread of the mean over resamples within the levels.
    rng = np.random.default_rng(2)
    by_level = losses.reshape(100, 8)
    means = [np.take_along_axis(by_level, rng.integers(0, 100, (100, 8)), 0).mean() for _ in range(2000)]
    assert found.stderr == pytest.approx(np.std(means), rel=0.1)


def test_the_best_possible_loss_at_t_0_is_the_variance_of_the_noise():
    blind = lambda z, t, cond: jnp.zeros_like(z)  # noqa: E731
    black = lambda indices: load(indices) | {"z": np.zeros((len(indices), 64, 64, 3), np.float32)}  # noqa: E731
    found = validation.measure(blind, black, batch=16, **OPTIONS)
    # x0 = 0: the target is the noise itself, whose mean square is 1 within four standard errors.
    np.testing.assert_allclose(found.levels, 1, atol=4 * np.sqrt(2 / (64 * 64 * 3 * N / 8)))
    assert found.record()["grid"] == "k/8"


@pytest.mark.parametrize("name", flow.KINDS)
def test_a_floor_is_known_where_no_noise_is_seen_and_nowhere_else(name):
    made = flow.formulation(name + {"rf/lognorm": "(0,1)", "rf/mode": "(1)"}.get(name, ""))
    first, *others = validation.known_floors(made, "k/8")
    if name == "sit/vp":  # it begins at t = 1e-5, where it sees a little of the noise
        assert first is None
    else:
        cosine = name in ("sit/gvp", "repa/cosine", "repa/cosine/lognormal")
        assert first == pytest.approx((np.pi / 2) ** 2 if cosine else 1.0, rel=1e-6)
    assert others == [None] * 7
    assert validation.known_floors(made, "(k+0.5)/8") == (None,) * 8


def test_a_network_that_knows_the_data_reaches_the_floor_of_t_0_and_no_less():
    """Shown z = x0, the best prediction of eps - x0 is -x0; another function of z is worse."""
    floors = validation.known_floors(flow.formulation("rf"), "k/8")
    best = lambda z, t, cond: -z  # noqa: E731
    found = validation.measure(best, load, batch=N, floors=floors, **OPTIONS)
    assert found.levels[0] == pytest.approx(found.floors_drawn[0], rel=1e-6)
    assert found.floors_drawn[0] == pytest.approx(1, abs=4 * np.sqrt(2 / (48 * N / 8)))
    assert found.floors_drawn[1:] == (None,) * 7
    worse = validation.measure(lambda z, *rest: -0.8 * z, load, batch=N, floors=floors, **OPTIONS)
    assert worse.levels[0] > found.levels[0]


def test_one_example_a_level_has_a_loss_and_no_error():
    found = validation.summarise(np.arange(1.0, 9.0), "k/8")
    assert found.loss == 4.5
    assert np.isnan(found.stderr)
