"""The encoder that is trained in place."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny

from rfjax import config as configs
from rfjax import data
from rfjax.encoders.features import FeatureEncoder, make_feature_encoder
from rfjax.errors import UserError
from rfjax.models.counting import traced_matmul_flops
from rfjax.training import small_encoder


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(small_encoder, "STEPS", 60)
    monkeypatch.setattr(small_encoder, "EXAMPLES", 512)
    small_encoder._trained.cache_clear()
    yield
    small_encoder._trained.cache_clear()


def digits():
    c = tiny()
    c.data.update(name="digits", image_size=8, channels=1)
    c.model.patch = 4
    return configs.parse(c)


def tokens(encoder, split="validation"):
    source = data.open_source(encoder.data, split)
    taken = data.take(source, range(128), ["image", "label"]).arrays
    return np.asarray(encoder.encode(encoder.weights(), {"image": jnp.asarray(taken["image"])}, None)), taken["label"]


def accuracy(features, labels):
    """Of the nearest mean over the other half."""
    pooled = features.mean(1)
    means = np.stack([pooled[:64][labels[:64] == k].mean(0) for k in range(10)])
    found = np.linalg.norm(pooled[64:, None] - means, axis=-1).argmin(1)
    return (found == labels[64:]).mean()


@pytest.mark.job
def test_it_learns_to_tell_digits_from_their_labels():
    encoder = make_feature_encoder("trained@labels", digits())
    assert isinstance(encoder, FeatureEncoder) and encoder.grid == (2, 2) and encoder.width == 64
    features, labels = tokens(encoder)
    assert features.shape == (128, 4, 64) and accuracy(features, labels) > 0.7
    again = dataclasses.replace(encoder)
    small_encoder._trained.cache_clear()
    np.testing.assert_array_equal(tokens(again)[0], features)


def test_it_fills_in_hidden_patches_without_labels():
    encoder = make_feature_encoder("trained", digits())
    features, labels = tokens(encoder)
    assert encoder.name == "features of trained@masked" and accuracy(features, labels) > 0.3
    assert np.linalg.matrix_rank(features.reshape(-1, 64), tol=1e-2) > 10  # not collapsed


def test_its_cost_is_counted():
    encoder = make_feature_encoder("trained", digits())
    images = jnp.zeros((1, 8, 8, 3))
    network = encoder.network
    params = encoder.abstract_weights()
    assert encoder.flops == traced_matmul_flops(lambda p, x: network.apply({"params": p}, x), params, images)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("trained@simsiam", {}, "the encoder 'trained@simsiam' is not known"),
        ("trained", {"channels": 4, "name": "latents", "path": "x"}, "learns from square pictures"),
    ],
)
def test_what_it_can_t_learn_from_is_refused(name, change, words):
    config = digits()
    with pytest.raises(UserError, match=words):
        make_feature_encoder(name, dataclasses.replace(config, data=dataclasses.replace(config.data, **change)))
