"""Generation with closed-form models: data that is Gaussian, whose best prediction is linear in z."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import config as configs
from rfjax import data, flow, names
from rfjax.data import digits
from rfjax.encoders.codec import Latents, Pixels, to_network
from rfjax.encoders.text import WordVectors
from rfjax.errors import UserError
from rfjax.evaluation import generation
from rfjax.evaluation.metrics import classifier
from rfjax.evaluation.quantity import Quantity
from rfjax.evaluation.sampler import Sampleable, all_settings, noise
from rfjax.evaluation.statistics.frechet import fit_gaussian, frechet_distance

SHAPE = (8, 8, 1)


class Gaussian(nn.Module):
    """The best velocity on the rf path for x0 ~ N(mean, roots^2) along `axes`; text and its absence are alike."""

    @nn.compact
    def __call__(self, z, t, cond):
        shapes = {"mean": (64,), "axes": (64, 64), "variance": (64,)}
        mean, axes, variance = (self.param(name, nn.initializers.zeros, shape) for name, shape in shapes.items())
        flat, t = z.reshape(len(z), -1), t[:, None]
        centred = (flat - (1 - t) * mean) @ axes
        along = (t - (1 - t) * variance) / ((1 - t) ** 2 * variance + t**2) * centred
        return (along @ axes.T - mean).reshape(z.shape)


@pytest.fixture(scope="module")
def digits_as_a_gaussian():
    images = digits.load(split="train", image_size=8, channels=1).pixels
    values = to_network(images).reshape(len(images), -1)
    variance, axes = np.linalg.eigh(np.cov(values.T) + 1e-4 * np.eye(64))
    params = {"mean": values.mean(0), "axes": axes, "variance": variance}
    params = {name: jnp.asarray(value, jnp.float32) for name, value in params.items()}
    return images, Sampleable(Gaussian(), params, flow.formulation("rf"), Pixels(SHAPE))


TEXT = WordVectors(2, 4, 4)


def asked(count):
    texts = tuple(f"a handwritten {digits.WORDS[i % 10]}" for i in range(count))
    return generation.Prompts(texts, TEXT.prompts(texts))


def encode(arrays):
    return TEXT.encode((), arrays, jax.random.split(jax.random.key(0), len(arrays["pooled"])))


def settings(*names, **others):
    return all_settings(configs.Sampling(settings=names, **others))


def generate(trained, count, one, batch, **how):
    return generation.generate(trained, asked(count), one, batch, encode=encode, keep=count, **how)


def test_fewer_steps_are_further_from_the_data(digits_as_a_gaussian):
    """The Fréchet distance falls with every doubling of Euler's steps, by pixels and by the reader's features."""
    images, trained = digits_as_a_gaussian
    reader = classifier.train_reader()
    features = {"pixels": lambda x: to_network(x).reshape(len(x), -1), "reader": reader.features}
    true = {name: fit_gaussian(f(images)) for name, f in features.items()}
    distances = {name: [] for name in features}
    chosen = settings("1@1.0", "2@1.0", "4@1.0", "8@1.0", "16@1.0", "32@1.0")
    for one in chosen.values():
        made = generate(trained, 1024, one, 512).images
        for name, feature in features.items():
            distances[name].append(frechet_distance(fit_gaussian(feature(made)), true[name]))
    for name, found in distances.items():
        assert (np.diff(found) < 0).all(), (name, found)


def test_pictures_depend_neither_on_the_batch_nor_on_the_others(digits_as_a_gaussian):
    _, trained = digits_as_a_gaussian
    (one,) = settings("4@3.0").values()
    whole = generate(trained, 10, one, 10)
    ragged, few = generate(trained, 10, one, 4), generate(trained, 3, one, 4)
    np.testing.assert_allclose(ragged.z, whole.z, atol=1e-5)
    np.testing.assert_allclose(few.z, whole.z[:3], atol=1e-5)
    np.testing.assert_allclose(ragged.length, whole.length, rtol=1e-5)
    assert whole.evaluations == 4


def test_the_noise_of_an_sde_belongs_to_the_picture_too(digits_as_a_gaussian):
    _, trained = digits_as_a_gaussian
    (one,) = settings("20@1.0", sampler="euler_maruyama", schedule="repa").values()
    whole, few = generate(trained, 5, one, 5), generate(trained, 2, one, 4)
    np.testing.assert_allclose(few.z, whole.z[:2], atol=1e-4)


@dataclasses.dataclass(frozen=True)
class Sums:
    """A metric that adds up all pixels, and remembers the captions."""

    quantities = (Quantity("sum", "sum of all pixels", "higher"),)

    def init(self):
        return 0, []

    def update(self, state, images, captions):
        assert len(images) == len(captions)
        return state[0] + int(np.asarray(images, np.int64).sum()), [*state[1], *captions]

    def result(self, state):
        return {"sum": state[0], "captions": state[1]}


@pytest.mark.parametrize("batch", [3, 4, 10, 16])
def test_metrics_see_every_picture_once_and_none_that_fills_a_batch(digits_as_a_gaussian, batch):
    _, trained = digits_as_a_gaussian
    (one,) = settings("2@1.0").values()
    told = []
    made = generate(trained, 10, one, batch, metrics=(Sums(),), tell=told.append)
    assert made.scores["captions"] == list(asked(10).texts)
    assert made.scores["sum"] == int(made.images.astype(np.int64).sum())
    assert told == [min(start + batch, 10) for start in range(0, 10, batch)]
    line = generation.record(made, 10, one, (Sums(),))
    assert (line["sum"], line["count"], line["steps"], line["evaluations"]) == (made.scores["sum"], 10, 2, 2)


@pytest.mark.parametrize("keep", [0, 1, 4, 5])
def test_no_more_pictures_are_kept_than_are_wanted(digits_as_a_gaussian, keep):
    _, trained = digits_as_a_gaussian
    (one,) = settings("2@1.0").values()
    made = generation.generate(trained, asked(5), one, 3, encode=encode, keep=keep)
    assert made.z.shape == (keep, *SHAPE)
    assert (made.images is None) == (keep == 0)
    assert len(made.length) == 5


@pytest.mark.parametrize("batch", [2, 4])
def test_pictures_that_are_not_finite_are_counted_and_not_scored(digits_as_a_gaussian, batch):
    _, trained = digits_as_a_gaussian
    (one,) = settings("2@1.0").values()
    texts = asked(3)
    network = dataclasses.replace(trained, model=Broken())
    texts.arrays["pooled"][:] = [[0.0] * 4, [np.nan] * 4, [0.0] * 4]
    made = generation.generate(network, texts, one, batch, encode=encode, metrics=(Sums(),), keep=3)
    assert (made.broken, made.scores) == (1, {})
    found = generation.record(made, 3, one, (Sums(),))
    assert found["problem"] == "1 of 3 pictures are not finite"
    assert found["sum"] is None
    assert found["grid"] == "uniform"  # its own, by name


class Broken(Gaussian):
    """The same, broken by a text that is not finite."""

    @nn.compact
    def __call__(self, z, t, cond):
        return super().__call__(z, t, cond) + 0 * cond.pooled.sum(-1)[:, None, None, None]


def test_latents_without_a_decoder_are_kept_and_not_scored(digits_as_a_gaussian):
    _, trained = digits_as_a_gaussian
    (one,) = settings("2@1.0").values()
    made = generate(dataclasses.replace(trained, codec=Latents(SHAPE)), 3, one, 4, metrics=(Sums(),))
    assert made.images is None
    assert made.z.shape == (3, *SHAPE)
    assert "sum" not in generation.record(made, 3, one, (Sums(),))


def test_the_first_captions_come_with_their_true_pictures_and_begin_again():
    source = digits.load(split="validation", image_size=8, channels=1)
    count = len(source) + 2
    found = generation.first_prompts(source, (Pixels(SHAPE), TEXT), count)
    examples = data.take(source, range(len(source)))
    assert found.texts == tuple((examples.captions * 2)[:count])
    np.testing.assert_array_equal(found.true["image"][-2:], examples.arrays["image"][:2])
    np.testing.assert_array_equal(found.arrays["pooled"], TEXT.prompts(found.texts)["pooled"])


@pytest.mark.parametrize(
    ("asked", "name", "schedule"),
    [("own", "edm(-1.2,1.2)", "karras"), ("own", "edm/rf", "uniform"), ("uniform", "edm", "uniform")],
)
def test_a_schedule_is_the_formulations_own_unless_it_is_named(asked, name, schedule):
    assert names.schedule_of(asked, name) == schedule


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
    made = generate(dataclasses.replace(trained, params=unit), 4, one, 4)
    start = np.asarray(jax.device_get(noise(jnp.arange(4), SHAPE))).reshape(4, -1)
    # The radius shrinks to sqrt(1/2) of itself in the middle and comes back.
    np.testing.assert_allclose(made.length, np.linalg.norm(start, axis=1) * 2 * (1 - 0.5**0.5), rtol=1e-2)
