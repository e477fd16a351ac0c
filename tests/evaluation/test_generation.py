"""Drawing and scoring with closed-form models: data that is Gaussian, whose best prediction is linear in z."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rfjax.evaluation.frechet import fit_gaussian, frechet_distance

from rfjax import config as configs
from rfjax import flow, names
from rfjax.data import digits, pixels
from rfjax.errors import UserError
from rfjax.evaluation import classifier, pictures, sampling

SHAPE = (8, 8, 1)


class Gaussian(nn.Module):
    """The best velocity on the rf path for x0 ~ N(mean, roots^2) along `axes`; text and its absence are alike."""

    @nn.compact
    def __call__(self, z, t, context, pooled):
        shapes = {"mean": (64,), "axes": (64, 64), "variance": (64,)}
        mean, axes, variance = (self.param(name, nn.initializers.zeros, shape) for name, shape in shapes.items())
        flat, t = z.reshape(len(z), -1), t[:, None]
        centred = (flat - (1 - t) * mean) @ axes
        along = (t - (1 - t) * variance) / ((1 - t) ** 2 * variance + t**2) * centred
        return (along @ axes.T - mean).reshape(z.shape)


@pytest.fixture(scope="module")
def digits_as_a_gaussian():
    images = digits.load(split="train", image_size=8, channels=1).pixels
    values = pixels.to_network(images).reshape(len(images), -1)
    variance, axes = np.linalg.eigh(np.cov(values.T) + 1e-4 * np.eye(64))
    params = {"mean": values.mean(0), "axes": axes, "variance": variance}
    params = {name: jnp.asarray(value, jnp.float32) for name, value in params.items()}
    return images, pictures.Trained(Gaussian(), params, flow.formulation("rf"), SHAPE)


def asked(count):
    texts = tuple(f"a handwritten {digits.WORDS[i % 10]}" for i in range(count))
    empty = np.zeros((count, 1, 1), np.float32)
    return sampling.Captions(texts, empty, empty[:, 0], np.zeros((count, *SHAPE), np.uint8))


def settings(*names, **others):
    return sampling.settings(configs.Sampling(settings=names, **others))


def test_fewer_steps_are_further_from_the_data(digits_as_a_gaussian):
    """The Fréchet distance falls with every doubling of Euler's steps, by pixels and by the reader's features."""
    images, trained = digits_as_a_gaussian
    reader = classifier.train_reader()
    features = {"pixels": lambda x: pixels.to_network(x).reshape(len(x), -1), "reader": reader.features}
    true = {name: fit_gaussian(f(images)) for name, f in features.items()}
    distances = {name: [] for name in features}
    chosen = settings("1@1.0", "2@1.0", "4@1.0", "8@1.0", "16@1.0", "32@1.0")
    for one in chosen.values():
        drawn = pixels.to_pixels(sampling.draw(trained, asked(1024), one, 512).images)
        for name, feature in features.items():
            distances[name].append(frechet_distance(fit_gaussian(feature(drawn)), true[name]))
    for name, found in distances.items():
        assert (np.diff(found) < 0).all(), (name, found)


def test_pictures_depend_neither_on_the_batch_nor_on_the_others(digits_as_a_gaussian):
    _, trained = digits_as_a_gaussian
    (one,) = settings("4@3.0").values()
    whole = sampling.draw(trained, asked(10), one, 10)
    ragged, few = sampling.draw(trained, asked(10), one, 4), sampling.draw(trained, asked(3), one, 4)
    np.testing.assert_allclose(ragged.images, whole.images, atol=1e-5)
    np.testing.assert_allclose(few.images, whole.images[:3], atol=1e-5)
    np.testing.assert_allclose(ragged.length, whole.length, rtol=1e-5)
    assert whole.evaluations == 4


def test_the_noise_of_an_sde_belongs_to_the_picture_too(digits_as_a_gaussian):
    _, trained = digits_as_a_gaussian
    (one,) = settings("20@1.0", sampler="euler_maruyama", schedule="repa").values()
    whole, few = sampling.draw(trained, asked(5), one, 5), sampling.draw(trained, asked(2), one, 4)
    np.testing.assert_allclose(few.images, whole.images[:2], atol=1e-4)


def test_pictures_that_are_not_finite_are_counted_and_not_scored(digits_as_a_gaussian):
    _, trained = digits_as_a_gaussian
    (one,) = settings("2@1.0").values()
    drawn = sampling.draw(trained, asked(3), one, 4)
    drawn.images[1, 0, 0, 0] = np.nan
    found = sampling.record(drawn, asked(3).texts, one, lambda images, texts: pytest.fail("scored"))
    assert found["problem"] == "1 of 3 pictures are not finite"
    assert found["score"] is None
    assert found["grid"] == "uniform"  # its own, by name


@pytest.mark.parametrize(
    ("asked", "name", "grid"),
    [("own", "edm(-1.2,1.2)", "karras"), ("own", "edm/rf", "uniform"), ("uniform", "edm", "uniform")],
)
def test_a_grid_is_the_formulations_own_unless_it_is_named(asked, name, grid):
    assert names.schedule_of(asked, name) == grid


def test_settings_share_the_room_of_the_longest():
    chosen = settings("5@5.0", "50@1", "25@2.5", guidance_high=0.7)
    assert list(chosen) == ["5@5.0", "50@1.0", "25@2.5"]
    assert {one.room for one in chosen.values()} == {50}
    assert chosen["25@2.5"].guidance == flow.Guidance(2.5, 0.0, 0.7)


@pytest.mark.parametrize("text", ["50", "0@5.0", "-3@1", "a@1", "5@b", "5@nan", "5@-1", "5.5@1"])
def test_a_setting_that_can_not_be_read_is_named(text):
    with pytest.raises(UserError, match=r"config\.sampling\.settings: .*'"):
        configs.setting(text)


def test_the_path_of_a_gaussian_has_the_length_of_its_radius(digits_as_a_gaussian):
    """For N(0, 1) data the flow ends where it starts, and its path is |z| times the integral of |d radius|."""
    _, trained = digits_as_a_gaussian
    unit = trained.params | {"mean": jnp.zeros(64), "axes": jnp.eye(64), "variance": jnp.ones(64)}
    (one,) = settings("200@1.0").values()
    drawn = sampling.draw(pictures.Trained(trained.model, unit, trained.formulation, SHAPE), asked(4), one, 4)
    start = np.asarray(jax.device_get(pictures.noise(jnp.arange(4), SHAPE))).reshape(4, -1)
    # The radius shrinks to sqrt(1/2) of itself in the middle and comes back.
    np.testing.assert_allclose(drawn.length, np.linalg.norm(start, axis=1) * 2 * (1 - 0.5**0.5), rtol=1e-2)
