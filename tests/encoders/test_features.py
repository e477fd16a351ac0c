"""Encoders of features without a network: exact ones of `shapes`, and those that lie beside latents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny

from rfjax import config as configs
from rfjax import data
from rfjax.data import shapes
from rfjax.encoders.features import FeatureEncoder, make_feature_encoder
from rfjax.encoders.semantics import COLOURS, OUTLINES, SHAPES
from rfjax.errors import UserError


def config(**changes):
    c = tiny()
    for section, values in changes.items():
        c[section].update(values)
    return configs.parse(c)


def encode(encoder, arrays):
    prepared = {name: jnp.asarray(value) for name, value in encoder.prepare(arrays, []).items()}
    keys = jax.random.split(jax.random.key(0), len(next(iter(prepared.values()))))
    return np.asarray(encoder.encode(encoder.weights(), prepared, keys))


def test_semantic_features_are_the_shares_of_what_the_scene_says():
    assert (len(shapes.SHAPES), len(shapes.COLOURS)) == (SHAPES, COLOURS)
    source = shapes.Shapes("train", 32)
    arrays, captions = source.take(range(64), ["semantics", "label"])
    encoder = make_feature_encoder("shapes@8", config(data={"image_size": 32}))
    assert isinstance(encoder, FeatureEncoder)
    found = encode(encoder, arrays).reshape(64, 8, 8, -1)
    kinds, colours = found[..., : 1 + SHAPES], found[..., 1 + SHAPES :][..., :COLOURS]
    np.testing.assert_allclose(kinds.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(colours.sum(-1), 1 - kinds[..., 0], atol=1e-6)
    for i, caption in enumerate(captions):
        words = [shapes.SHAPES[k] for k in range(SHAPES) if kinds[i, ..., 1 + k].max() > 0]
        assert all(word in caption for word in words), caption
        assert kinds[i, ..., 1 + arrays["label"][i] // COLOURS].max() > 0  # the first object's shape
        assert colours[i, ..., arrays["label"][i] % COLOURS].max() > 0  # and its colour


def test_a_mirrored_picture_has_mirrored_features_with_left_and_right_outlines_swapped():
    arrays = shapes.Shapes("train", 16).take(range(16), ["semantics"]).arrays
    encoder = make_feature_encoder("shapes@4", config())
    there = encode(encoder, arrays).reshape(16, 4, 4, -1)
    back = encode(encoder, {"semantics": arrays["semantics"][:, :, ::-1]}).reshape(16, 4, 4, -1)[:, :, ::-1]
    first = there.shape[-1] - len(OUTLINES)
    swapped = [*range(first), first + 1, first, *range(first + 2, there.shape[-1])]
    np.testing.assert_array_equal(back[..., swapped], there)


def test_a_labelled_pixel_has_the_colour_of_its_object():
    source = shapes.Shapes("train", 32)
    arrays, _ = source.take(range(64), ["image", "semantics"])
    palette = np.array(list(shapes.COLOURS.values()), float)
    inside = arrays["semantics"][..., 1] > 0
    wanted = palette[arrays["semantics"][..., 1][inside] - 1]
    error = np.abs(arrays["image"][inside] - wanted).max(-1)
    assert np.median(error) < 1 and error.max() < 128  # at an edge at least half of the pixel is the object's


def test_features_beside_latents_are_read_as_they_are(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "train").mkdir()
    stored = rng.normal(size=(8, 2, 3, 5)).astype(np.float16)
    for name, array in {"latents": rng.normal(size=(8, 4, 4, 4)), "labels": np.arange(8)}.items():
        np.save(tmp_path / "train" / f"{name}.npy", array.astype(np.float32) if name == "latents" else array)
    np.save(tmp_path / "train" / "features.npy", stored)
    settings = {"name": "latents", "path": str(tmp_path), "image_size": 4, "channels": 4, "layout": "nhwc"}
    made = config(data=settings | {"validation_percent": 0.0}, text={"encoder": "labels"}, model={"backbone": "sit"})
    source = data.open_source(made.data, "train")
    encoder = make_feature_encoder("stored@2x3x5", made)
    assert isinstance(encoder, FeatureEncoder) and encoder.grid == (2, 3) and encoder.width == 5
    arrays = data.take(source, [3, 1], ["features"]).arrays
    np.testing.assert_array_equal(encode(encoder, arrays), stored[[3, 1]].reshape(2, 6, 5).astype(np.float32))
    with pytest.raises(UserError, match=r"write stored@2x3x5"):
        encode(make_feature_encoder("stored@3x3x5", made), arrays)
    with pytest.raises(UserError, match="has no field 'features'"):
        encode(encoder, {"latent": arrays["features"]})


@pytest.mark.parametrize("name", ["stored", "stored@16x16", "stored@axbxc"])
def test_a_shape_that_can_t_be_read_is_refused(name):
    with pytest.raises(UserError, match=r"such as stored@16x16x768"):
        make_feature_encoder(name, config())
