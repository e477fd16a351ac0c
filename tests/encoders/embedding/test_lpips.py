"""LPIPS: beside the package's distances (recorded by `make parity RECORD=1`), and folders that lack something."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from embedding_cases import TOLERANCE, difference, images, jitted, lpips_files, recorded, write
from tiny import tiny

from rfjax import config as configs
from rfjax.encoders.embedding.lpips import BACKBONES, make
from rfjax.errors import UserError


def made(folder):
    c = tiny()
    c.evaluate.lpips = str(folder)
    return make(configs.parse(c))


@pytest.fixture(scope="module")
def alex(tmp_path_factory):
    """A folder with a random AlexNet."""
    return lpips_files(tmp_path_factory.mktemp("lpips") / "alex", "alex")


def pair(side):
    """Two batches of pictures; the second pair's are equal."""
    a = images(side)
    b = a[:, ::-1].copy()
    b[1] = a[1]
    return a, b


@pytest.mark.parametrize("kind", BACKBONES)
def test_distances_are_those_of_the_package(kind, tmp_path):
    metric = made(lpips_files(tmp_path, kind))
    found = np.asarray(jitted(metric.distance)(metric.weights(), *pair(40)))
    assert difference(found, recorded(f"lpips-{kind}")["distance"]) <= TOLERANCE
    assert abs(found[1]) < 1e-12 < found[0]  # of equal pictures, but for roundings


def test_what_it_says_of_itself(alex):
    metric = made(alex)
    assert metric.name == "lpips-alex@0.1"
    assert metric.about()["file"] == "alexnet-random.pth and alex.pth"


def test_pictures_that_are_too_small(alex):
    metric = made(alex)
    weights = metric.weights()
    small = jnp.zeros((1, 30, 64, 3), jnp.uint8)
    with pytest.raises(UserError, match=r"alex needs pictures of 31 pixels.*30 x 64"):
        metric.distance(weights, small, small)
    least = np.zeros((1, 31, 31, 3), np.uint8)
    assert jax.eval_shape(metric.distance, weights, least, least).shape == (1,)


def test_folders_that_lack_something(alex, tmp_path):
    for path, match in (("", "config.evaluate.lpips is empty"), (tmp_path / "none", "there is no"),
                        (alex / "alex.pth", "is no folder"), (tmp_path, "lacks a backbone or its heads")):  # fmt: skip
        with pytest.raises(UserError, match=match):
            made(path)
    both = shutil.copytree(alex, tmp_path / "both")
    shutil.copy(both / "alexnet-random.pth", both / "alexnet-other.pth")
    with pytest.raises(UserError, match=r"several backbones.*alexnet-other\.pth, alexnet-random\.pth"):
        made(both)


def test_heads_of_another_version(alex, tmp_path):
    folder = shutil.copytree(alex, tmp_path / "other")
    heads = {
        f"lin{i}.model.1.weight": np.ones((1, n, 1, 1), np.float32) for i, n in enumerate((64, 192, 384, 256, 256))
    }
    write(folder / "alex.pth", heads)
    with pytest.raises(UserError, match=r"other weights than LPIPS 0\.1.*sum to 64\.000"):
        made(folder).weights()
    del heads["lin4.model.1.weight"]
    write(folder / "alex.pth", heads)
    with pytest.raises(UserError, match=r"alex\.pth does not fit.*1 missing.*of the package lpips"):
        made(folder).weights()
