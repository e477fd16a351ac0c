"""Pooled hidden states: beside the heads of training, and what they must not depend on."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import SMALL, random_parameters

from rfjax import flow
from rfjax.compiling import quick_options
from rfjax.config import Mesh
from rfjax.evaluation import hidden_states as hidden
from rfjax.models import build
from rfjax.models.backbone import HEADS, Head
from rfjax.training import mesh as meshes

DEPTH, N = 3, 11
Z = np.random.default_rng(0).standard_normal((N, *SMALL.shape)).astype(np.float32)
NETWORKS = {
    "dit": ("dit", {}),
    "dit of labels": ("dit", {"classes": SMALL.cond.pooled.shape[0]}),
    "mmdit": ("mmdit", {"dual_blocks": 1}),
    "crossdit": ("crossdit", {}),
    "uvit": ("uvit", {}),
}


@functools.cache
def make(name, **more):
    backbone, options = NETWORKS[name]
    return build(backbone, DEPTH, 8, **options, **more)


@functools.cache
def weights(name):
    return random_parameters(make(name), SMALL)


def load(indices, put=jnp.asarray):
    return {"z": put(Z[indices]), "slot": put(np.asarray(indices, np.int32))}


def measure(model, params, batch=4, t=0.25, load=load, formulation="rf", **more):
    arrays = flow.formulation(formulation).arrays
    return hidden.hidden_states(
        model, params, load, formulation=arrays, cond=SMALL.cond, t=t, examples=N, batch=batch, **more
    )


@functools.cache
def whole(name):
    return measure(make(name), weights(name))


def near(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_each_block_has_the_mean_of_its_image_tokens(name):
    t, keys = 0.25, [jax.random.fold_in(jax.random.key(hidden.NOISE_SEED), i) for i in range(N)]
    eps = np.stack([jax.random.normal(key, SMALL.shape) for key in keys])
    heads = tuple(Head(f"all_{number}", number, hidden.Tapped()) for number in range(1, DEPTH + 1))
    model = make(name).clone(readouts=heads)  # as training reads them: all tokens
    cond = jax.tree.map(lambda leaf: jnp.zeros((N, *leaf.shape)), SMALL.cond)
    run = jax.jit(lambda *a: model.apply(*a, mutable=[HEADS])[1][HEADS], compiler_options=quick_options())
    kept = run({"params": weights(name)}, (1 - t) * Z + t * eps, jnp.full(N, t), cond)
    found = whole(name)
    assert (found.shape, found.dtype) == ((DEPTH, N, 8 * DEPTH), np.float32)
    near(found, np.stack([kept[head.name].mean(1) for head in heads]))


def test_at_t_0_there_is_no_noise_and_at_1_there_is_nothing_else(monkeypatch):
    model, params = make("dit"), weights("dit")
    ends = [measure(model, params, t=t) for t in (0.0, 1.0)]
    near(ends[0], measure(model, params, t=0.0, formulation="rf/cosmap"))  # both show the data
    monkeypatch.setattr(sys.modules[__name__], "Z", Z[::-1].copy())
    other = [measure(model, params, t=t) for t in (0.0, 1.0)]
    near(other[0], ends[0][:, ::-1])
    near(other[1], ends[1])


def test_no_text_is_what_the_caller_says():
    def null(value):
        return jax.tree.map(lambda leaf: jnp.full((4, *leaf.shape), value, leaf.dtype), SMALL.cond)

    near(measure(make("mmdit"), weights("mmdit"), null=null(0)), whole("mmdit"))
    assert np.abs(measure(make("mmdit"), weights("mmdit"), null=null(1)) - whole("mmdit")).max() > 1e-3


@pytest.mark.parametrize("batch", [1, 3, 11, 16])
def test_neither_the_batch_nor_a_ragged_last_one_matters(batch):
    near(measure(make("dit"), weights("dit"), batch=batch), whole("dit"))


@pytest.mark.parametrize("more", [{"unroll": DEPTH}, {"remat": "full"}], ids=str)
@pytest.mark.parametrize("name", ["mmdit", "crossdit"])
def test_how_the_blocks_are_computed_does_not_matter(name, more):
    near(measure(make(name, **more), weights(name)), whole(name))


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1), (2, 2, 2)], ids=str)
def test_the_mesh_does_not_matter(shape):
    mesh = meshes.make_mesh(Mesh(*shape))
    params = jax.device_put(weights("dit"), meshes.shard_tree(weights("dit"), mesh))
    place = functools.partial(meshes.place, mesh=mesh)
    near(measure(make("dit"), params, 8, load=functools.partial(load, put=place), place=place), whole("dit"))


def test_heads_of_training_are_left_out():
    heads = (Head("projector", 2, hidden.Tapped()),)
    near(measure(make("dit").clone(readouts=heads), weights("dit")), whole("dit"))


def test_no_more_than_a_batch_is_on_the_devices():
    pictures = lambda: sum(len(x) for x in jax.live_arrays() if x.shape[1:] == SMALL.shape)  # noqa: E731
    params, before, alive = weights("dit"), pictures(), []

    def watched(indices):
        alive.append(pictures() - before)
        return load(indices)

    measure(make("dit"), params, batch=2, load=watched)
    assert len(alive) == 6 and max(alive) <= 2 * 2  # this batch and the one before


def test_streamed_values_stay_in_order():
    found = hidden.stream(lambda rows: hidden.pooled(rows["z"].reshape(-1, 256, 3)), load, N, 4)
    np.testing.assert_allclose(found, Z.mean((1, 2)), rtol=1e-5, atol=1e-6)
