"""The metrics of the built-in data sets, and how a config names metrics."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import config as configs
from rfjax.config import Mesh
from rfjax.data import digits
from rfjax.data.shapes import SKILLS, Shapes
from rfjax.errors import UserError
from rfjax.evaluation.metrics import composition, features, make_metrics, shapes
from rfjax.evaluation.metrics import digits as digit_metric
from rfjax.evaluation.quantity import STANDARD
from rfjax.evaluation.statistics.frechet import fit_gaussian, frechet_distance, frechet_error
from rfjax.training import mesh as meshes


def config(name, size, channels, *metrics):
    c = configs.default()
    c.data.update(name=name, image_size=size, channels=channels, path="nowhere")
    if metrics:
        c.sampling.metrics = metrics
    return configs.parse(c)


def metric(name, size=16, channels=3):
    (found,) = make_metrics(config(name, size, channels))
    return found


def score(found, images, captions, *cuts):
    """The result over batches that end at `cuts`."""
    state = found.init()
    for start, end in zip((0, *cuts), (*cuts, len(images)), strict=True):
        state = found.update(state, images[start:end], captions[start:end])
    return found.result(state)


def handwriting(channels=1):
    data = digits.load(split="validation", image_size=16, channels=channels)
    return data.pixels, [data[i]["caption"] for i in range(len(data))]


def test_true_shapes_score_high_and_wrong_captions_low():
    images, captions = Shapes("validation", 16).read(range(256))
    true = score(metric("shapes"), images, captions)
    wrong = score(metric("shapes"), images, captions[1:] + captions[:1])
    assert true["score"] > 0.95
    assert wrong["score"] < 0.2
    assert true["stderr"] < wrong["stderr"] < 0.03
    assert set(true["parts"]) == set(SKILLS)
    assert true["count"] == 256
    assert 0 < true["frechet"] < 0.025  # the sampling error: 0.014 with deviation 0.002
    assert wrong["frechet"] == true["frechet"]
    grey = score(metric("shapes"), np.full_like(images, 60), captions)
    assert grey["score"] == 0
    assert grey["frechet"] > 1


def test_shapes_have_the_composition_score():
    images, captions = Shapes("test", 16).read(range(48))
    captions = captions[:24] + captions[25:] + captions[24:25]  # half of them wrong
    found, expected = score(metric("shapes"), images, captions, 20), composition.score(images, captions)
    assert 0 < found["score"] < 1
    assert (found["score"], found["stderr"], found["parts"]) == (expected.value, expected.stderr, expected.skills)


@pytest.mark.parametrize("channels", [1, 3])
def test_true_digits_score_high_and_shuffled_captions_at_chance(channels):
    found = metric("digits", 16, channels)
    images, captions = handwriting(channels)
    true = score(found, images, captions)
    assert true["score"] >= 0.97
    assert true["stderr"] == pytest.approx(np.sqrt(true["score"] * (1 - true["score"]) / 180))
    assert list(true["parts"]) == list(digits.WORDS)
    order = np.random.default_rng(0).permutation(180)
    wrong = score(found, images, [captions[i] for i in order])
    assert wrong["score"] == pytest.approx(0.1, abs=4 * 0.3 / np.sqrt(180))
    assert wrong["frechet"] == true["frechet"]
    assert score(found, 255 - images, captions)["frechet"] > 10 * true["frechet"]


@pytest.mark.parametrize("cuts", [(1,), (7, 8, 30), tuple(range(10, 60, 10))])
@pytest.mark.parametrize("name", ["shapes", "digits"])
def test_batches_have_the_result_of_the_whole(name, cuts):
    images, captions = Shapes("test", 16).read(range(60)) if name == "shapes" else handwriting(3)
    images, captions = images[:60], captions[:60]
    whole, parts = (score(metric(name), images, captions, *c) for c in ((), cuts))
    # A product of matrices may add up in another order for another number of rows.
    close = ("frechet", "frechet_stderr")
    assert {k: v for k, v in parts.items() if k not in close} == {k: v for k, v in whole.items() if k not in close}
    for key in close:
        assert parts[key] == pytest.approx(whole[key], rel=1e-4)


def test_pictures_that_are_spread_over_the_mesh_count_as_those_on_the_host():
    images, captions = Shapes("test", 16).read(range(16))
    mesh = meshes.make_mesh(Mesh(data=8, fsdp=1))
    spread = meshes.place(jnp.asarray(images), mesh)
    assert len(spread.sharding.device_set) == len(jax.devices()) == 8
    assert score(metric("shapes"), spread, captions) == score(metric("shapes"), images, captions)


@pytest.mark.parametrize("name", ["shapes", "digits"])
def test_a_result_is_plain_and_has_every_quantity(name):
    found = metric(name)
    images, captions = Shapes("test", 16).read(range(20)) if name == "shapes" else handwriting(3)
    result = score(found, images[:20], captions[:20])
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert set(result) == {"score", "stderr", "parts", "frechet", "count", "frechet_stderr", "frechet_floor"}
    assert [one.key for one in found.quantities] == [one.key for one in STANDARD]
    assert found.quantities[0].label != STANDARD[0].label  # the field's words for it
    for one in found.quantities:
        assert {key for key in (one.key, one.error, one.floor, one.parts) if key} <= set(result)


def test_the_floor_of_a_distance_is_that_of_true_images_at_the_same_count():
    """Between true sets the distance is sampling error, of order 1 / count; noise on the pictures takes it off that."""
    found = metric("digits", 16, 1)
    images, captions = handwriting()
    whole = score(found, images, captions)
    assert whole["frechet_floor"] == pytest.approx(whole["frechet"])  # the same pictures
    assert score(found, images[:60], captions[:60])["frechet_floor"] > 1.5 * whole["frechet_floor"]
    true, spoilt = shapes.floor(16, 256), Shapes("validation", 16).read(range(256))[0] // 2
    seen, reference = features.shapes_features(spoilt), shapes.reference(16)
    assert frechet_distance(fit_gaussian(seen), reference) > true + 5 * frechet_error(seen, reference)


def test_the_error_of_a_distance_is_what_other_pictures_would_change():
    """Sets of 256 true images with noise: their distances vary by 0.0063, and the bootstrap of one says 0.0066."""
    rng, reference = np.random.default_rng(0), shapes.reference(16)
    true = Shapes("train", 16).read(range(20_000, 20_000 + 30 * 256))[0]
    noisy = np.clip(true + 10 * rng.normal(size=true.shape), 0, 255).astype(np.uint8)
    sets = np.split(features.shapes_features(noisy), 30)
    spread = np.std([frechet_distance(fit_gaussian(one), reference) for one in sets], ddof=1)
    found = np.mean([frechet_error(one, reference) for one in sets[:5]])
    assert found == pytest.approx(spread, rel=0.3)  # thirty sets know their spread to 13 %


def test_the_reference_is_computed_once(monkeypatch):
    assert metric("digits", 16, 1).reference() is metric("digits", 16, 1).reference()
    monkeypatch.setattr(digit_metric.digits, "load", lambda **_: pytest.fail("reads the data again"))
    metric("digits", 16, 1).reference()


@dataclasses.dataclass(frozen=True)
class Mine:
    """A metric from outside."""

    name: str
    quantities = ()

    def init(self):
        return 0

    def update(self, state, images, captions):
        return state + len(captions)

    def result(self, state):
        return {"mine": state}


def make_mine(config):
    return Mine(config.data.name)


def test_a_config_names_metrics():
    assert make_metrics(config("folder", 64, 3)) == ()  # none of its own
    assert make_metrics(config("tests.data.test_sources:open_mine", 16, 3)) == ()  # a source is no metric
    (own,) = make_metrics(config("digits", 16, 3, "own"))
    (named,) = make_metrics(config("folder", 16, 3, "digits"))
    assert own.judge is named.judge and own.shape == named.shape == (16, 16, 3)
    both = make_metrics(config("shapes", 16, 3, "own", f"{__name__}:make_mine"))
    assert [type(one).__name__ for one in both] == ["ToyMetric", "Mine"]
    assert both[1].name == "shapes"
    c = configs.default()
    c.sampling.metrics = ()
    assert make_metrics(configs.parse(c)) == ()


@pytest.mark.parametrize(("name", "message"), [
    (f"{__name__}:make_min", "has no 'make_min'"), ("shape", r"sampling\.metrics = 'shape' .*did you mean 'shapes'"),
])  # fmt: skip
def test_a_metric_that_is_not_there_is_one_sentence(name, message):
    with pytest.raises(UserError, match=message):
        make_metrics(config("folder", 16, 3, name))


@pytest.mark.parametrize("name", ["shapes", "digits"])
def test_what_cannot_be_scored_is_said(name):
    found = metric(name)
    good = np.zeros((2, 16, 16, 3), np.uint8)
    captions = ["a circle"] * 2 if name == "shapes" else ["a handwritten one"] * 2
    bad = [(np.full(good.shape, np.nan, np.float32), "NaN"), (good.astype(np.float32), "uint8")]
    bad += [(good[:, :8, :8], "expected"), (good[..., :1], "expected"), (good[:1], "one for each caption")]
    for images, reason in bad:
        with pytest.raises(UserError, match=reason):
            found.update(found.init(), images, captions)
    with pytest.raises(UserError, match="at least 2"):
        score(found, good[:1], captions[:1])
    with pytest.raises(UserError, match="nonsense"):
        score(found, good, ["nonsense"] * 2)
