import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import config as configs
from rfjax.encoders import Encoder, make_codec
from rfjax.encoders.codec import Codec, Latents, Pixels, to_network, to_pixels
from rfjax.errors import UserError

SHAPE = (16, 16, 1)
KEYS = jax.random.split(jax.random.key(0), 1)
EVERY = np.arange(256, dtype=np.uint8).reshape(1, *SHAPE)  # each value of a byte once


@pytest.mark.parametrize("put", [np.asarray, jnp.asarray])
def test_pixels_survive_the_round_trip(put):
    scaled = to_network(put(EVERY))
    assert scaled.dtype == np.float32
    assert (scaled.min(), scaled.max()) == (-1, 1)
    np.testing.assert_array_equal(to_pixels(scaled), EVERY)
    latent = put(np.array([3.5, -7.0], np.float32))
    np.testing.assert_array_equal(to_network(latent), latent)


def test_the_codec_of_pictures_decodes_what_it_encodes():
    codec = Pixels(SHAPE)
    prepared = codec.prepare({"image": EVERY, "label": np.zeros(1)}, ["all"])
    assert list(prepared) == ["image"] and prepared["image"].dtype == np.uint8  # a quarter of the way's bytes
    z = to_network(codec.encode(codec.weights(), {"image": jnp.asarray(EVERY)}, KEYS))
    np.testing.assert_array_equal(codec.decode(codec.weights(), z), EVERY)


def test_what_is_out_of_range_is_clipped_and_what_is_not_finite_is_grey():
    z = jnp.array([-9.0, 9.0, jnp.nan, jnp.inf, -jnp.inf, 0.0]).reshape(1, 2, 3, 1)
    found = Pixels((2, 3, 1)).decode((), z)
    assert found.dtype == np.uint8
    assert found.ravel().tolist() == [0, 255, 128, 128, 128, 128]


def test_latents_pass_and_have_no_decoder():
    codec = Latents((2, 2, 4))
    stored = np.random.default_rng(0).normal(size=(3, 2, 2, 4)).astype(np.float16)
    prepared = codec.prepare({"latent": stored}, [""] * 3)
    assert prepared["latent"] is stored
    z = codec.encode((), {"latent": jnp.asarray(stored)}, KEYS)
    np.testing.assert_array_equal(z, stored)
    with pytest.raises(UserError, match=r"latents of this data set have no decoder here: config.data.codec"):
        codec.decode((), z)


@pytest.mark.parametrize(
    ("codec", "has", "message"),
    [
        (
            Pixels(SHAPE),
            {"latent": 0, "label": 0},
            "'pixels' reads 'image', and the data set has latent, label: .*'lat",
        ),
        (Latents(SHAPE), {"image": 0}, "'latents' reads 'latent', and the data set has image: .*'pixels'"),
        (Latents(SHAPE), {}, "has no arrays"),
    ],
)
def test_a_field_that_is_missing_is_named_with_the_codec_that_fits(codec, has, message):
    with pytest.raises(UserError, match=message):
        codec.prepare({name: np.zeros((1, 1)) for name in has}, ["a"])


def own(config):
    return Latents((9, 9, 9))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, Pixels((16, 16, 3))),
        ({"channels": 1}, Pixels((16, 16, 1))),
        ({"channels": 4}, Latents((16, 16, 4))),
        ({"name": "latents"}, Latents((16, 16, 3))),
        ({"name": "latents", "codec": "pixels"}, Pixels((16, 16, 3))),
        ({"codec": f"{__name__}:own"}, Latents((9, 9, 9))),
    ],
)
def test_the_config_names_the_codec_or_its_data_do(data, expected):
    codec = make_codec(
        configs.Config(data=configs.Data(**({"name": "folder", "image_size": 16, "channels": 3} | data)))
    )
    assert codec == expected
    assert isinstance(codec, Codec) and isinstance(codec, Encoder)


def test_an_unknown_codec_is_one_sentence():
    with pytest.raises(UserError, match=r"data\.codec = 'pixel' .*did you mean 'pixels'"):
        make_codec(configs.Config(data=configs.Data(codec="pixel")))
