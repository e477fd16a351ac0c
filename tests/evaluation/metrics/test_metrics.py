import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from rfjax.evaluation.metrics.frechet import fit_gaussian, frechet_distance, frechet_error
from rfjax.evaluation.scorers import scorer

from rfjax.data import digits
from rfjax.data.shapes import SKILLS, Shapes
from rfjax.errors import UserError
from rfjax.evaluation import features, scorers


def handwriting(channels=1):
    data = digits.load(split="validation", image_size=16, channels=channels)
    return data.pixels, [data[i]["caption"] for i in range(len(data))]


def test_true_shapes_score_high_and_wrong_captions_low():
    score = scorer("shapes", 16, 3)
    images, captions = Shapes("validation", 16).read(range(256))
    true = score(images, captions)
    wrong = score(images, captions[1:] + captions[:1])
    assert true.score > 0.95
    assert wrong.score < 0.2
    assert true.stderr < wrong.stderr < 0.03
    assert set(true.parts) == set(SKILLS)
    assert true.count == 256
    assert 0 < true.frechet < 0.025  # the sampling error: 0.014 with deviation 0.002
    assert wrong.frechet == true.frechet
    grey = score(np.full_like(images, 60), captions)
    assert grey.score == 0
    assert grey.frechet > 1


def test_shapes_take_what_the_composition_score_says(monkeypatch):
    found = SimpleNamespace(value=0.5, stderr=0.1, skills={"counting": 0.5}, counts={"counting": 4})
    stub = SimpleNamespace(score=lambda images, captions: found)
    monkeypatch.setitem(sys.modules, "rfjax.evaluation.metrics.composition", stub)
    monkeypatch.setattr("rfjax.evaluation.metrics.composition", stub, raising=False)
    scores = scorer("shapes", 16, 3)(*Shapes("test", 16).read(range(4)))
    assert (scores.score, scores.stderr, scores.parts, scores.count) == (0.5, 0.1, {"counting": 0.5}, 4)


@pytest.mark.parametrize("channels", [1, 3])
def test_true_digits_score_high_and_shuffled_captions_at_chance(channels):
    score = scorer("digits", 16, channels)
    images, captions = handwriting(channels)
    true = score(images, captions)
    assert true.score >= 0.97
    assert true.stderr == pytest.approx(np.sqrt(true.score * (1 - true.score) / 180))
    assert list(true.parts) == list(digits.WORDS)
    order = np.random.default_rng(0).permutation(180)
    wrong = score(images, [captions[i] for i in order])
    assert wrong.score == pytest.approx(0.1, abs=4 * 0.3 / np.sqrt(180))
    assert wrong.frechet == true.frechet
    assert score(255 - images, captions).frechet > 10 * true.frechet


def test_a_record_is_plain():
    images, captions = handwriting()
    scores = scorer("digits", 16, 1)(images[:20], captions[:20])
    record = json.loads(json.dumps(scores.record(), allow_nan=False))
    assert record["score"] == scores.score
    assert record["count"] == 20
    assert set(record) == {"score", "stderr", "parts", "frechet", "count", "frechet_stderr", "frechet_floor"}


def test_the_floor_of_a_distance_is_that_of_true_images_at_the_same_count():
    """Between true sets the distance is sampling error, of order 1 / count; noise on the pictures takes it off that."""
    score = scorer("digits", 16, 1)
    images, captions = handwriting()
    assert score(images, captions).frechet_floor == pytest.approx(score(images, captions).frechet)  # the same pictures
    few = score(images[:60], captions[:60])
    assert few.frechet_floor > 1.5 * score(images, captions).frechet_floor
    true, spoilt = scorers._shapes_floor(16, 256), Shapes("validation", 16).read(range(256))[0] // 2
    found, reference = features.shapes_features(spoilt), scorers._shapes_reference(16)
    assert frechet_distance(fit_gaussian(found), reference) > true + 5 * frechet_error(found, reference)


def test_the_error_of_a_distance_is_what_other_pictures_would_change():
    """Sets of 256 true images with noise: their distances vary by 0.0063, and the bootstrap of one says 0.0066."""
    rng, reference = np.random.default_rng(0), scorers._shapes_reference(16)
    true = Shapes("train", 16).read(range(20_000, 20_000 + 30 * 256))[0]
    noisy = np.clip(true + 10 * rng.normal(size=true.shape), 0, 255).astype(np.uint8)
    sets = np.split(features.shapes_features(noisy), 30)
    spread = np.std([frechet_distance(fit_gaussian(one), reference) for one in sets], ddof=1)
    found = np.mean([frechet_error(one, reference) for one in sets[:5]])
    assert found == pytest.approx(spread, rel=0.3)  # thirty sets know their spread to 13 %


def test_the_reference_is_computed_once():
    score = scorer("digits", 16, 1)
    images, captions = handwriting()
    score(images, captions)
    before = scorers._digits_reference.cache_info().misses
    scorer("digits", 16, 1)(images, captions)
    assert scorers._digits_reference.cache_info().misses == before


def test_other_data_sets_have_no_scorer():
    assert scorer("fashion_mnist", 28, 1) is None
    assert scorer("folder", 64, 3) is None


@pytest.mark.parametrize("name", ["shapes", "digits"])
def test_what_cannot_be_scored_is_said(name):
    score = scorer(name, 16, 3)
    good = np.zeros((2, 16, 16, 3), np.uint8)
    captions = ["a circle"] * 2 if name == "shapes" else ["a handwritten one"] * 2
    bad = [(np.full(good.shape, np.nan, np.float32), "NaN"), (good.astype(np.float32), "uint8")]
    bad += [(good[:, :8, :8], "expected"), (good[..., :1], "expected"), (good[:1], "one for each caption")]
    for images, reason in bad:
        with pytest.raises(UserError, match=reason):
            score(images, captions)
    with pytest.raises(UserError, match="at least 2"):
        score(good[:1], captions[:1])
    with pytest.raises(UserError, match="nonsense"):
        score(good, ["nonsense"] * 2)
