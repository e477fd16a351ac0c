"""The KL autoencoder: beside diffusers' (recorded by `make parity RECORD=1`), its codec, its files, what is refused."""

import dataclasses
import functools
import json
import math

import autoencoder_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from autoencoder_cases import CASES, RECORDED, TOLERANCE, TOY, difference, placed, recorded, write_vae
from tiny import tiny

from rfjax import config as configs
from rfjax.encoders import Encoder, make_codec
from rfjax.encoders.autoencoder import Architecture, AutoencoderCodec, Description, open_autoencoder, write
from rfjax.encoders.autoencoder import network as networks
from rfjax.encoders.autoencoder.description import describe
from rfjax.encoders.autoencoder.loading import abstract_weights
from rfjax.encoders.autoencoder.names import LDM
from rfjax.encoders.codec import Codec, to_network
from rfjax.errors import UserError
from rfjax.training import mesh as meshes
from rfjax.training.encode import EncodeStage
from rfjax.training.spec import make_run_spec

LIMIT = 60_000  # bytes of all recordings
KEYS = jax.random.split(jax.random.key(0), 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny autoencoder of factor 2 and four channels."""
    return write_vae(tmp_path_factory.mktemp("vae"))


def config_of(folder, **sections):
    c = tiny()
    c.autoencoder.path = str(folder)
    c.model.patch = 2
    for section, values in sections.items():
        c[section].update(values)
    return configs.parse(c)


def latents(**values):
    return {"data": {"name": "latents", "path": "none", "image_size": 8, "channels": 4} | values}


@pytest.mark.parametrize("case", [case for case in CASES if case.name in ("quant", "odd")], ids=str)
def test_outputs_are_those_of_diffusers(case, tmp_path):
    found = cases.ours(case, write_vae(tmp_path, case.settings))
    assert all(difference(found[key], expected) <= TOLERANCE for key, expected in recorded(case.name).items())


def test_recordings_are_those_of_the_cases_and_small():
    files = {path.stem: path.stat().st_size for path in RECORDED.iterdir()}
    assert set(files) == {case.name for case in CASES}
    assert sum(files.values()) < LIMIT


@pytest.mark.parametrize(
    ("latent", "quant", "encoder", "decoder"),
    [  # facts of the published autoencoders: SD's, and SD3's and Flux's
        (4, True, 34_163_592 + 72, 49_490_179 + 20),
        (16, False, 34_274_208, 49_545_475),
    ],
)
def test_sizes_are_those_that_were_published(latent, quant, encoder, decoder):
    arch = Architecture((128, 256, 512, 512), 2, latent, quant=quant, post_quant=quant)
    counts = [
        sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract_weights(arch, half)))
        for half in ("encoder", "decoder")
    ]
    assert counts == [encoder, decoder]
    assert arch.factor == 8


def test_attention_in_parts_is_attention(monkeypatch):
    draw = np.random.default_rng(0).standard_normal
    q, k, v = (jnp.asarray(draw((2, 25, 8)), jnp.float32) for _ in range(3))
    expected = networks.attend(q, k, v)
    monkeypatch.setattr(networks, "MOST_LOGITS", 300)
    np.testing.assert_allclose(networks.attend(q, k, v), expected, rtol=1e-5, atol=1e-6)
    logits = np.einsum("bmc,bnc->bmn", q, k) / math.sqrt(8)
    plain = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True) @ np.asarray(v)
    np.testing.assert_allclose(expected, plain, rtol=1e-4, atol=1e-5)


# The codec


def test_pictures_are_encoded_and_decoded(folder):
    codec = make_codec(config_of(folder))
    assert isinstance(codec, Codec) and isinstance(codec, Encoder)
    assert (codec.shape, codec.example, codec.reads, codec.pictures) == ((8, 8, 4), (16, 16, 3), ("image",), True)
    assert codec.sources == {"autoencoder": folder}
    weights, batch = placed(codec.autoencoder), {"image": jnp.asarray(IMAGES)}
    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)  # noqa: E731
    assert shapes(weights) == shapes(codec.abstract_weights())
    mode = dataclasses.replace(codec, posterior="mode")

    def both(weights, batch, keys):
        moments = codec.autoencoder.moments(weights, to_network(batch["image"]))
        return moments, codec.encode(weights, batch, keys), mode.encode(weights, batch, keys), codec.moments(
            weights, batch["image"])[1]  # fmt: skip

    run = cases.jitted(both)
    moments, z, mean_z, _ = run(weights, batch, KEYS)
    mean, logvar = np.split(np.asarray(moments), 2, axis=-1)
    noise = np.stack([jax.random.normal(key, codec.shape) for key in KEYS])
    expected = (mean + np.exp(np.clip(logvar, -30, 20) / 2) * noise - 0.0609) * 1.5305
    np.testing.assert_allclose(z, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(mean_z, (mean - 0.0609) * 1.5305, rtol=1e-5, atol=1e-5)
    bias, quant = jnp.asarray([0, 0, 0, 0, 99, -99, 0, 0], jnp.float32), weights["encoder"]["quant"]
    weights["encoder"]["quant"] = {"kernel": jnp.zeros_like(quant["kernel"]), "bias": bias}
    clamped = run(weights, batch, KEYS)[3]  # 20 at most, -30 at least
    np.testing.assert_allclose(clamped[0, 0, 0], np.exp([10, -15, 0, 0]), rtol=1e-5)


def test_samples_are_decoded(folder):
    codec = make_codec(config_of(folder, **latents()))
    weights = placed(codec.autoencoder, halves=("decoder",))
    z = np.random.default_rng(0).normal(size=(3, 8, 8, 4)).astype(np.float32)
    z[1], z[2], z[2, 0, 0] = 0, np.nan, np.inf

    def both(weights, z):
        return codec.autoencoder.pixels(weights, z / 1.5305 + 0.0609), codec.decode(weights, z)

    pixels, found = cases.jitted(both)(weights, z)
    assert found.shape == (3, 16, 16, 3) and found.dtype == np.uint8
    assert np.abs(np.clip(np.asarray(pixels[:2]) * 127.5 + 127.5, 0, 255) - found[:2]).max() <= 0.51
    np.testing.assert_array_equal(found[2], found[1])  # what is not finite becomes 0


def test_stored_latents_are_z_and_stored_moments_are_scaled(folder):
    codec = make_codec(config_of(folder, **latents()))
    stored = np.random.default_rng(0).normal(size=(3, 8, 8, 4)).astype(np.float16)
    encode = lambda **arrays: codec.encode((), jax.tree.map(jnp.asarray, codec.prepare(arrays, [""] * 3)), KEYS)  # noqa: E731
    z = encode(latent=stored)
    np.testing.assert_array_equal(z, stored)
    assert codec.at_once == 0 and codec.decodes_at_once == 8  # only decoding is done in parts
    assert set(codec.weights()) == set(codec.abstract_weights()) == {"decoder"}  # the encoder is not read
    codec = make_codec(config_of(folder, **latents(codec="moments", moments="mode")))
    both = np.concatenate([stored, stored], axis=-1)
    z = encode(moments=both)
    np.testing.assert_allclose(z, (stored.astype(np.float32) - 0.0609) * 1.5305, rtol=1e-5, atol=1e-5)


def test_a_missing_shift_and_scale_are_those_of_diffusers():
    plain = {key: value for key, value in TOY.items() if key not in ("scaling_factor", "shift_factor")}
    assert (found := describe(plain, "config.json")) and (found.scale, found.shift) == (0.18215, 0.0)
    assert describe(TOY | {"shift_factor": None}, "config.json").shift == 0


def test_parts_on_a_mesh_give_the_same_latents(folder):
    """Weights are spread over two devices, rows over eight, of which each encodes one at a time."""
    codec, mesh = make_codec(config_of(folder)), (4, 2, 1)
    images, slots = np.concatenate([IMAGES] * 6)[:16], np.arange(16, dtype=np.int32)
    found = []
    for devices, one in ((1, (1, 1, 1)), (8, mesh)):
        made = meshes.make_mesh(configs.Mesh(*one), jax.devices()[:devices])
        stage = EncodeStage.place((dataclasses.replace(codec, decodes_at_once=16 if devices == 1 else 1),), made)
        batch = meshes.put_rows({"image": images, "slot": slots}, 16, made)
        found.append(np.asarray(stage(batch, jnp.uint32(0), jnp.int32(0))["z"]))
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5)


def test_in_bfloat16_norms_stay_float32(folder):
    half = open_autoencoder(folder, "bfloat16")
    weights = placed(half, halves=("encoder",))
    assert {leaf.dtype for leaf in jax.tree.leaves(weights)} == {jnp.dtype(jnp.bfloat16)}
    traced = jax.make_jaxpr(half.moments)(weights, jnp.zeros((1, 16, 16, 3)))
    lines = {
        word: [line for line in str(traced).splitlines() if f" {word}" in line]
        for word in ("rsqrt", "exp ", "conv_general")
    }
    assert all("f32" in line for line in lines["rsqrt"] + lines["exp "]) and lines["rsqrt"] and lines["exp "]
    assert lines["conv_general"] and all(":bf16" in line for line in lines["conv_general"])
    assert traced.out_avals[0].dtype == jnp.float32


# Files


@pytest.mark.parametrize("names", [cases.OLD, LDM, dataclasses.replace(LDM, prefix="first_stage_model.")])
def test_other_names_give_the_same_weights(folder, names, tmp_path):
    """Weights are functions of their names; so only sums of what is no matrix can be told apart by their number."""
    write_vae(tmp_path, TOY, names)
    opened = open_autoencoder(tmp_path)
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)  # noqa: E731
    assert shapes(placed(opened)) == shapes(placed(open_autoencoder(folder)))


def test_a_pipelines_folder_and_a_file_of_weights(folder, tmp_path):
    write_vae(tmp_path / "vae")
    (tmp_path / "model_index.json").write_text("{}")
    expected = placed(open_autoencoder(folder))
    for path in (tmp_path, tmp_path / "vae", tmp_path / "vae" / "diffusion_pytorch_model.safetensors"):
        jax.tree.map(np.testing.assert_array_equal, placed(open_autoencoder(path)), expected)


def test_what_is_written_is_read_back(folder, tmp_path):
    opened = open_autoencoder(folder)
    write(tmp_path / "new", opened.what, placed(opened))
    for name in ("diffusion_pytorch_model.safetensors",):
        assert (tmp_path / "new" / name).read_bytes() == (folder / name).read_bytes()
    again = open_autoencoder(tmp_path / "new")
    assert again.what == opened.what
    with pytest.raises(ValueError, match="not those of this architecture"):
        write(tmp_path / "other", Description(Architecture((8,), 1, 4, 4), 1.0, 0.0), placed(opened))


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "AutoencoderTiny"}, "'AutoencoderTiny': config.autoencoder.path needs an AutoencoderKL"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"] * 2}, "must be DownEncoderBlock2D for each of the 2 levels"),
        ({"act_fn": "gelu"}, "act_fn = 'gelu': only silu"),
        ({"latents_mean": [0.1]}, "latents_mean: only scaling_factor and shift_factor"),
        ({"scaling_facto": 1.0}, "'scaling_facto', which AutoencoderKL does not have.*'scaling_factor'"),
        ({"scaling_factor": 0}, "scaling_factor = 0"),
        ({"scaling_factor": "1"}, "scaling_factor = '1': it must be a number"),
        ({"shift_factor": float("nan")}, "shift_factor = nan"),
        ({"norm_num_groups": 3}, "3 does not divide 8 channels"),
        ({"block_out_channels": []}, "must list 1 to 8 numbers"),
        ({"layers_per_block": True}, "a whole number from 1 to 64"),
        ({"use_quant_conv": 1}, "must be true or false"),
    ],
)
def test_a_config_that_can_not_be_followed(changes, message, tmp_path):
    write_vae(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(TOY | changes))
    with pytest.raises(UserError, match=message) as raised:
        open_autoencoder(tmp_path)
    assert "\n" not in str(raised.value)


def test_folders_that_hold_something_else(folder, tmp_path):
    with pytest.raises(UserError, match="there is no"):
        open_autoencoder(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"has no config\.json: .*vae/"):
        open_autoencoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(TOY))
    with pytest.raises(UserError, match=r"no \.safetensors"):
        open_autoencoder(tmp_path).weights()
    write_vae(tmp_path / "other", TOY | {"latent_channels": 8})
    (tmp_path / "other" / "config.json").write_text(json.dumps(TOY))
    with pytest.raises(UserError, match=r"of another shape .*conv_out"):
        open_autoencoder(tmp_path / "other").weights()


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"data": {"name": "folder", "path": "p", "image_size": 17, "channels": 3}}, "17 is no multiple of 2 pixels"),
        ({"data": {"name": "digits", "image_size": 8, "channels": 1}}, "1 channels, and the autoencoder .* encodes 3"),
        (latents(channels=16), "16 channels, and those of the autoencoder .* have 4"),
        ({"data": {"shape": (2, 16, 16, 3), "name": "folder", "path": "p"}}, "is no picture"),
        ({"data": {"codec": "my:Own"}}, "can't be imported"),
        ({"model": {"patch": 3}}, "latents of 8 x 8 x 4 .* config.model.patch = 3 does not divide"),
        ({"model": {"largest_image": 6}}, "largest_image = 6 latent pixels is smaller"),
        ({"sampling": {"guidance_channels": 5}}, "guidance_channels = 5 exceeds"),
    ],
)
def test_data_and_networks_that_do_not_fit(sections, message, folder):
    with pytest.raises(UserError, match=message):
        make_run_spec(config_of(folder, **sections))


def test_the_networks_positions_are_of_latents(folder):
    sections = {"model": {"largest_image": 12, "base_image": 8}, "sampling": {"guidance_channels": 4}}
    spec = make_run_spec(config_of(folder, data={"image_size": 32}, **sections | {"model": {"largest_image": 16,
                         "base_image": 8}}))  # fmt: skip
    assert spec.inputs.shape == (16, 16, 4)
    assert (spec.model.positions.size, spec.model.positions.largest, spec.model.positions.base) == (8, 8, 4)


@pytest.mark.parametrize("name", ["shapes", "trained@masked"])
def test_features_of_pictures_lie_on_the_networks_own_tokens(name, folder):
    """On-the-fly REPA: the encoder of features and the autoencoder read the same pictures."""
    sections = {"alignment": {"encoders": (name,), "weight": 0.5}, "data": {"image_size": 32}}
    spec = make_run_spec(config_of(folder, **sections))
    assert spec.features[0].grid == (8, 8)


def test_a_codec_is_a_key_of_programs(folder):
    first, second = (make_codec(config_of(folder)) for _ in range(2))
    assert hash(first) == hash(second) and first == second
    assert isinstance(first, AutoencoderCodec)
    assert functools.cache(lambda codec: object())(first)
