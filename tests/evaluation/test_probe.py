"""Linear probes beside scikit-learn, and on states whose best classifier is known."""

import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from rfjax.errors import UserError
from rfjax.evaluation.probe import PROTOCOLS, Settings, probe

CLASSES, WIDTH = 5, 12
STEPPED = {"repa": Settings("repa", epochs=40, batch=32), "mae": Settings("mae", epochs=4000)}  # LARS takes long


def draw(count, seed, spread=1.0):
    """Three blocks: classes around separate centres, the same in other units, and nothing but noise."""
    rng = np.random.default_rng(seed)
    centres = 2 * np.random.default_rng(7).standard_normal((CLASSES, WIDTH))
    labels = rng.integers(0, CLASSES, count)
    good = centres[labels] + spread * rng.standard_normal((count, WIDTH))
    return np.stack([good, 100 * good - 30, rng.standard_normal((count, WIDTH))]).astype(np.float32), labels


TRAIN, LABELS = draw(300, 0, 3.0)
TEST, TEST_LABELS = draw(400, 1, 3.0)


def test_the_logistic_probe_is_scikit_learn_s_optimum():
    found = probe(TRAIN, LABELS, TEST, TEST_LABELS, Settings())
    for block in range(3):
        mean, spread = TRAIN[block].mean(0), np.sqrt(TRAIN[block].var(0) + 1e-5)
        model = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000).fit((TRAIN[block] - mean) / spread, LABELS)
        right = model.predict((TEST[block] - mean) / spread) == TEST_LABELS
        assert (found.correct[block] == right).mean() > 0.995
    assert found.classes == CLASSES
    assert found.accuracy[0] == pytest.approx(found.accuracy[1], abs=0.005)  # units don't matter
    assert found.accuracy[2] == pytest.approx(1 / CLASSES, abs=0.07)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_steps_learn_what_can_be_learnt_and_no_more(name):
    train, labels = draw(512, 0)
    test, test_labels = draw(512, 1)
    found = probe(train, labels, test, test_labels, STEPPED[name]).accuracy
    assert found[0] > 0.95 and found[1] > 0.95 and abs(found[2] - 1 / CLASSES) < 0.08


@pytest.mark.parametrize("settings", [Settings(), *STEPPED.values()], ids=lambda one: one.protocol)
def test_the_same_seed_gives_the_same_answers_and_each_block_is_on_its_own(settings):
    found = probe(TRAIN, LABELS, TEST, TEST_LABELS, settings)
    np.testing.assert_array_equal(found.correct, probe(TRAIN, LABELS, TEST, TEST_LABELS, settings).correct)
    alone = probe(TRAIN[:1], LABELS, TEST[:1], TEST_LABELS, settings)
    assert (alone.correct[0] == found.correct[0]).mean() > 0.99
    if settings.protocol != "logistic":
        other = dataclasses.replace(settings, seed=1)
        assert (probe(TRAIN, LABELS, TEST, TEST_LABELS, other).correct != found.correct).any()


def test_lars_moves_matrices_by_a_share_of_their_norm_as_mae_s_code_does():
    """One step by hand: momentum has nothing yet, and the rate is that of the first step of the warm-up."""
    import jax.numpy as jnp

    rng = np.random.default_rng(0)
    params = {"kernel": jnp.asarray(rng.standard_normal((4, 3)), jnp.float32), "bias": jnp.zeros(3)}
    grads = {"kernel": jnp.asarray(rng.standard_normal((4, 3)), jnp.float32), "bias": jnp.ones(3)}
    optimizer = PROTOCOLS["mae"].optimizer(lambda step: 0.5)
    state = optimizer.init(params)
    changes, state = optimizer.update(grads, state, params)
    trust = 0.001 * jnp.linalg.norm(params["kernel"]) / jnp.linalg.norm(grads["kernel"])
    np.testing.assert_allclose(changes["kernel"], -0.5 * trust * grads["kernel"], rtol=1e-5)
    np.testing.assert_allclose(changes["bias"], -0.5 * grads["bias"], rtol=1e-6)
    again, _ = optimizer.update(grads, state, params)
    np.testing.assert_allclose(again["bias"], 1.9 * changes["bias"], rtol=1e-6)
    assert PROTOCOLS["mae"].rate(16_384) == pytest.approx(6.4)


def test_classes_that_training_lacks_are_never_found():
    rare = np.where(TEST_LABELS == 0, CLASSES, TEST_LABELS)
    found = probe(TRAIN, LABELS, TEST, rare, Settings())
    assert not found.correct[:, rare == CLASSES].any()


@pytest.mark.parametrize(
    ("train", "labels", "settings", "words"),
    [
        (TRAIN, LABELS - 1, Settings(), "the labels go from -1"),
        (TRAIN, LABELS, Settings(classes=3), "knows 0 to 2: set config.representations.classes"),
        (TRAIN * np.float32(np.nan), LABELS, Settings(), "needs finite hidden states"),
    ],
)
def test_what_can_t_be_probed_is_refused(train, labels, settings, words):
    with pytest.raises(UserError, match=words):
        probe(train, labels, TEST, TEST_LABELS, settings)
