"""Autoencoders beside diffusers' AutoencoderKL: outputs, gradients, and folders both ways.

RECORD=1 writes down what tests/encoders/test_autoencoder.py repeats."""

import json
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here asks for a file from elsewhere

import autoencoder_cases as cases
import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from autoencoder_cases import CASES, RECORDED, TOLERANCE, difference
from flax import traverse_util
from parity_cases import uniform

from rfjax.encoders.autoencoder import open_autoencoder, write
from rfjax.encoders.autoencoder.description import DEFAULTS, WITHOUT_EFFECT
from rfjax.encoders.autoencoder.names import LDM, OLD_ATTENTION, layout
from rfjax.tensors import transfer

BY_NAME = {case.name: case for case in CASES}
GRADIENTS = 1e-5  # relative to the largest of a tensor's


def nchw(x):
    return torch.tensor(np.asarray(x)).permute(0, 3, 1, 2)


def nhwc(x):
    return x.detach().permute(0, 2, 3, 1).numpy()


def read(folder):
    return diffusers.AutoencoderKL.from_pretrained(folder).eval()


def theirs(case, folder):
    with torch.no_grad():
        model = read(folder)
        found = model.encode(nchw(case.images)).latent_dist
        pixels = model.decode(nchw(case.latents)).sample
    return {"mean": nhwc(found.mean), "logvar": nhwc(found.logvar), "pixels": nhwc(pixels)}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_outputs(case, tmp_path, record_property):
    cases.write_vae(tmp_path, case.settings)
    assert {name: tuple(x.shape) for name, x in read(tmp_path).state_dict().items()} == cases.shapes_of(case.settings)
    found, expected = cases.ours(case, tmp_path), theirs(case, tmp_path)
    away = max(difference(found[key], expected[key]) for key in expected)
    print(f"{case.name}: {away:.1e}")
    record_property("parity", [f"autoencoder {case.name}", away, 0.0, ""])
    assert away <= TOLERANCE
    if os.environ.get("RECORD", "") not in ("", "0"):
        RECORDED.mkdir(exist_ok=True)
        np.savez_compressed(RECORDED / f"{case.name}.npz", **expected)
    for key, old in cases.recorded(case.name).items():
        assert difference(expected[key], old) <= TOLERANCE


@pytest.mark.parametrize("name", ["quant", "odd"])
def test_gradients(name, tmp_path, record_property):
    """Of weights and inputs, of each output's product with fixed numbers."""
    case = BY_NAME[name]
    opened, model = open_autoencoder(cases.write_vae(tmp_path, case.settings)), read(tmp_path)
    calls = {
        "encoder": (opened.moments, lambda x: model.encode(x).latent_dist.parameters, case.images),
        "decoder": (opened.pixels, lambda x: model.decode(x).sample, case.latents),
    }
    worst = 0.0
    for half, (ours, other, given) in calls.items():
        weights, x = cases.placed(opened, halves=(half,)), nchw(given).requires_grad_()
        out = other(x)
        fixed = uniform("cotangent", nhwc(out).shape, 0).astype(np.float32)
        (out * nchw(fixed)).sum().backward()
        run = lambda w, x, ours=ours, fixed=fixed: jnp.sum(ours(w, x) * fixed)  # noqa: E731
        to_weights, to_input = jax.jit(jax.grad(run, argnums=(0, 1)))(weights, given)
        worst = max(worst, difference(np.asarray(to_input), nhwc(x.grad)))
        leaves = traverse_util.flatten_dict(to_weights[half], sep="/")
        expected = {key: value.grad.numpy() for key, value in model.named_parameters() if value.grad is not None}
        largest = max(np.abs(value).max() for value in expected.values())
        for key, found in transfer.dump(leaves, layout(opened.arch, half)):
            scale = np.abs(expected[key]).max()
            if scale < 1e-6 * largest:  # attention's keys have a bias whose gradient is zero but for rounding
                assert np.abs(found).max() < 1e-5 * largest
                continue
            worst = max(worst, difference(found, expected[key]))
        model.zero_grad()
    print(f"gradients {name}: {worst:.1e}")
    record_property("parity", [f"autoencoder {name}", 0.0, worst, ""])
    assert worst <= GRADIENTS


@pytest.mark.parametrize("name", ["quant", "no-attention"])
def test_diffusers_reads_what_we_write(name, tmp_path):
    case = BY_NAME[name]
    opened = open_autoencoder(cases.write_vae(tmp_path / "theirs", case.settings))
    write(tmp_path / "ours", opened.what, cases.placed(opened))
    before, after = read(tmp_path / "theirs"), read(tmp_path / "ours")
    kept = set(DEFAULTS) | set(WITHOUT_EFFECT)
    plain = lambda config: json.dumps({key: config[key] for key in sorted(kept)})  # noqa: E731
    assert plain(before.config) == plain(after.config)
    for (one, x), (other, y) in zip(before.state_dict().items(), after.state_dict().items(), strict=True):
        assert one == other and torch.equal(x, y)


def test_a_folder_that_diffusers_wrote_in_half_precision(tmp_path):
    case = BY_NAME["plain"]
    cases.write_vae(tmp_path / "whole", case.settings)
    model = read(tmp_path / "whole").half()
    model.save_pretrained(tmp_path / "half", variant="fp16")
    opened = open_autoencoder(tmp_path / "half")
    weights = cases.placed(opened)
    expected = cases.placed(open_autoencoder(tmp_path / "whole"))
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y.astype(np.float16).astype(x.dtype)), weights, expected)
    named = open_autoencoder(tmp_path / "half" / "diffusion_pytorch_model.fp16.safetensors")
    jax.tree.map(np.testing.assert_array_equal, cases.placed(named), weights)


def test_old_names_of_attention_are_those_that_diffusers_converts(tmp_path):
    """sd-vae-ft-mse and others were saved with them."""
    case = BY_NAME["quant"]
    cases.write_vae(tmp_path / "new", case.settings)
    cases.write_vae(tmp_path / "old", case.settings, cases.OLD)
    assert any(OLD_ATTENTION[0] in name for name in cases.shapes_of(case.settings, cases.OLD))
    found, expected = cases.ours(case, tmp_path / "old"), theirs(case, tmp_path / "old")
    assert all(difference(found[key], expected[key]) <= TOLERANCE for key in expected)


def test_latent_diffusions_names_are_those_that_diffusers_converts(tmp_path):
    """SD3's single files and Flux's autoencoder have them."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    case = BY_NAME["deep"]
    cases.write_vae(tmp_path, case.settings, LDM)
    state = {
        name: torch.tensor(cases.weight(name, shape)) for name, shape in cases.shapes_of(case.settings, LDM).items()
    }
    model = diffusers.AutoencoderKL.from_config(case.settings).eval()
    model.load_state_dict(convert_ldm_vae_checkpoint(state, case.settings))
    with torch.no_grad():
        expected = nhwc(model.decode(nchw(case.latents)).sample), nhwc(model.encode(nchw(case.images)).latent_dist.mean)
    found = cases.ours(case, tmp_path)
    assert difference(found["pixels"], expected[0]) <= TOLERANCE
    assert difference(found["mean"], expected[1]) <= TOLERANCE


def test_defaults_are_those_of_diffusers():
    model = diffusers.AutoencoderKL(**{"block_out_channels": (32,), "norm_num_groups": 32})
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in model.config.items()}
    fields = {key for key in plain if not key.startswith("_")}
    assert fields == set(DEFAULTS) | set(WITHOUT_EFFECT)
    assert {key: plain[key] for key in DEFAULTS} == DEFAULTS | {"block_out_channels": [32]}
