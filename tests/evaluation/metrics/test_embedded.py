"""Scores of one network: it runs once a batch, whatever its size, and its reference is kept."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_embedder
from jax.sharding import NamedSharding, PartitionSpec

from rfjax import config as configs
from rfjax.errors import UserError
from rfjax.evaluation.metrics import embedded, make_metrics, reference_sets
from rfjax.evaluation.statistics import frechet
from rfjax.evaluation.statistics.frechet import fit_gaussian

NAMES = ("toy_embedder:FD", "toy_embedder:AGREEMENT")


@pytest.fixture
def config(tmp_path):
    plain = configs.Config()
    return dataclasses.replace(
        plain,
        workdir=str(tmp_path),
        data=configs.Data(name="shapes", image_size=8),
        sampling=dataclasses.replace(plain.sampling, metrics=NAMES),
        evaluate=dataclasses.replace(plain.evaluate, reference_count=20),
    )


@pytest.fixture(autouse=True)
def fresh():
    reference_sets._MADE.clear()


def pictures(count):
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)


def run(metric, images, size, place=lambda x: x):
    state, texts = metric.init(), [f"{'x' * (i % 5)}" for i in range(len(images))]
    for start in range(0, len(images), size):
        state = metric.update(state, place(images[start : start + size]), texts[start : start + size])
    return metric.result(state)


def test_scores_of_one_network_are_one_metric(config):
    (metric,) = make_metrics(config)
    assert [one.key for one in metric.quantities] == ["toy_fd", "toy_agreement"]


def test_numbers_do_not_depend_on_the_batches_and_are_those_of_the_arrays(config):
    (metric,) = make_metrics(config)
    images = pictures(11)
    found = run(metric, images, 4)
    own = metric.opened.embed(jnp.asarray(images))["pool"]
    reference = reference_sets.reference(config, metric.opened, embedded.Rows(4, None), features=True)
    expected = frechet.frechet(own, fit_gaussian(reference.features["pool"]))
    assert found["toy_fd"] == pytest.approx(expected.value, rel=1e-5)
    assert found["toy_fd_stderr"] == pytest.approx(expected.stderr, rel=1e-5)
    assert found["count"] == 11
    for size in (11, 3):
        again = run(metric, images, size)
        assert again["toy_fd"] == pytest.approx(found["toy_fd"], rel=1e-5)
        assert again["toy_agreement"] == pytest.approx(found["toy_agreement"], rel=1e-6)


def test_batches_that_are_spread_over_devices(config):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("data", "fsdp"))
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    (metric,) = make_metrics(config)
    place = lambda x: jax.device_put(x, rows if len(x) == 4 else None)  # noqa: E731
    found, alone = run(metric, pictures(10), 4, place), run(metric, pictures(10), 4)
    assert found["toy_fd"] == pytest.approx(alone["toy_fd"], rel=1e-5)
    assert found["toy_agreement"] == pytest.approx(alone["toy_agreement"], rel=1e-6)


def test_grey_pictures_count_as_three_equal_channels(config):
    (metric,) = make_metrics(config)
    grey = pictures(6)[..., :1]
    assert run(metric, grey, 4)["toy_fd"] == run(metric, np.repeat(grey, 3, axis=-1), 4)["toy_fd"]


def test_the_reference_is_kept_and_another_network_makes_its_own(config, monkeypatch):
    (metric,) = make_metrics(config)
    made = []
    embed_all = reference_sets.embed_all
    monkeypatch.setattr(reference_sets, "embed_all", lambda *given: made.append(1) or embed_all(*given))
    first = run(metric, pictures(6), 4)["toy_fd"]
    reference_sets._MADE.clear()  # as in a new process
    assert run(metric, pictures(6), 4)["toy_fd"] == first
    assert len(made) == 1
    other = dataclasses.replace(metric, opened=embedded.Opened(toy_embedder.Toy(mark="2")))
    run(other, pictures(6), 4)
    assert len(made) == 2


def test_statistics_of_another_network_are_refused(config, tmp_path):
    (metric,) = make_metrics(config)
    run(metric, pictures(6), 4)
    (path,) = (tmp_path / "references").glob("*.npz")
    named = dataclasses.replace(config, evaluate=dataclasses.replace(config.evaluate, reference=str(path)))
    (same,) = make_metrics(named)
    assert run(same, pictures(6), 4)["toy_fd"] == run(metric, pictures(6), 4)["toy_fd"]
    other = dataclasses.replace(same, opened=embedded.Opened(toy_embedder.Toy(mark="2")))
    with pytest.raises(UserError, match="sha256"):
        run(other, pictures(6), 4)
    with pytest.raises(UserError, match="there is no"):
        missing = dataclasses.replace(config, evaluate=dataclasses.replace(config.evaluate, reference="none.npz"))
        run(make_metrics(missing)[0], pictures(6), 4)


def test_what_is_no_picture_is_refused(config):
    (metric,) = make_metrics(config)
    with pytest.raises(UserError, match="uint8"):
        metric.update(metric.init(), np.zeros((2, 8, 8, 3), np.float32), ["", ""])
