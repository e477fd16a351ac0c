"""The whole way from a prompt to a picture beside diffusers' StableDiffusion3Pipeline, on a small random pipeline.

RECORD=1 puts both pictures side by side into docs/results/pipeline/."""

import dataclasses
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here asks for a file from elsewhere

import autoencoder_cases as cases
import diffusers
import jax.numpy as jnp
import numpy as np
import pipelines
import pytest
import torch
import transformers
from autoencoder_cases import difference
from parity.torch_side import fill
from PIL import Image

from rfjax import config as configs
from rfjax import flow, interop
from rfjax.evaluation.sampler import SamplerSettings, noise, sample_batch
from rfjax.training import mesh as meshes
from rfjax.training.encode import EncodeStage
from rfjax.training.spec import make_run_spec
from rfjax.training.weights import Weights

TOLERANCE = 1e-4  # relative to the largest value
SHOWN = Path(__file__).parents[2] / "docs" / "results" / "pipeline"
PROMPTS = ("a photo of a cat", "a red circle above a blue square")
SIDE, FACTOR, LATENT, T5_TOKENS = 128, 8, 16, 32
STEPS, GUIDANCE, SHIFT = 10, 5.0, 3.0
VAE = cases.settings((16, 16, 32, 32), latent_channels=LATENT, norm_num_groups=4, **cases.NONE)
TRANSFORMER = {"sample_size": SIDE // FACTOR, "patch_size": 2, "in_channels": LATENT, "out_channels": LATENT,
               "num_layers": 3, "attention_head_dim": 16, "num_attention_heads": 4, "caption_projection_dim": 64,
               "joint_attention_dim": pipelines.WIDTH, "pooled_projection_dim": pipelines.POOLED,
               "pos_embed_max_size": 12, "dual_attention_layers": (), "qk_norm": None}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pipeline as diffusers saves it."""
    parts, saved = tmp_path_factory.mktemp("parts"), tmp_path_factory.mktemp("pipeline")
    pipelines.write_text(parts)
    cases.write_vae(parts / "vae", VAE)
    transformer = diffusers.SD3Transformer2DModel(**TRANSFORMER)
    fill(transformer, 0)
    clip = transformers.CLIPTextModelWithProjection
    diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        vae=diffusers.AutoencoderKL.from_pretrained(parts / "vae"),
        text_encoder=clip.from_pretrained(parts / "text_encoder"),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(parts / "tokenizer"),
        text_encoder_2=clip.from_pretrained(parts / "text_encoder_2"),
        tokenizer_2=transformers.CLIPTokenizer.from_pretrained(parts / "tokenizer_2"),
        text_encoder_3=transformers.T5EncoderModel.from_pretrained(parts / "text_encoder_3"),
        tokenizer_3=transformers.T5Tokenizer.from_pretrained(parts / "tokenizer_3"),
    ).save_pretrained(saved)
    return saved


def ours(folder):
    """(z, pictures, the noise that z began as), by the functions that the job `generate` calls."""
    mesh = configs.Mesh()
    read = interop.read(folder / "transformer", "", mesh)
    text = dataclasses.replace(
        read.config.text, encoder="sd3", path=str(folder), length=77 + T5_TOKENS, width=0, pooled_width=0, null="empty"
    )
    autoencoder = configs.Autoencoder(path=str(folder))
    config = dataclasses.replace(read.config, text=text, autoencoder=autoencoder)
    model, made = Weights(config, make_run_spec(config), read.params, 0), meshes.make_mesh(mesh)
    stage = EncodeStage.place(model.spec.encoders, made)
    place = lambda values: meshes.place(values, made)  # noqa: E731
    cond = stage.condition({name: place(array) for name, array in model.spec.text.prompts(PROMPTS).items()})
    network, index = model.sampleable(stage), np.arange(len(PROMPTS), dtype=np.int32)
    settings = SamplerSettings("euler", STEPS, flow.Guidance(GUIDANCE), "sd3-ref", SHIFT)
    found = sample_batch(network, index, cond, settings, place)
    return np.asarray(found.z), np.asarray(found.images), np.asarray(noise(jnp.asarray(index), network.codec.shape))


def theirs(folder, start):
    """The same of diffusers, in our order of axes; pictures from 0 to 1."""
    pipe = diffusers.StableDiffusion3Pipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    given = {
        "prompt": list(PROMPTS),
        "num_inference_steps": STEPS,
        "guidance_scale": GUIDANCE,
        "height": SIDE,
        "width": SIDE,
        "max_sequence_length": T5_TOKENS,
        "latents": torch.tensor(start).permute(0, 3, 1, 2),
    }
    z = pipe(**given, output_type="latent").images
    return z.permute(0, 2, 3, 1).numpy(), pipe(**given, output_type="np").images


def test_a_prompt_becomes_the_same_picture(folder, record_property):
    z, pictures, start = ours(folder)
    expected, shown = theirs(folder, start)
    assert pictures.shape == (len(PROMPTS), SIDE, SIDE, 3)
    away = difference(z, expected)
    print(f"prompt to picture: {away:.1e}")
    record_property("parity", ["prompt to picture", away, 0.0, ""])
    assert away <= TOLERANCE
    assert np.abs(z - start).max() > 0.1  # something happened
    levels = np.abs(pictures / 255 - shown).max() * 255
    assert levels <= 0.5 + 255 * TOLERANCE  # the nearest level
    assert pictures.std() > 5
    if os.environ.get("RECORD", "") not in ("", "0"):
        SHOWN.mkdir(parents=True, exist_ok=True)
        pairs = [
            np.concatenate(pair, axis=1) for pair in zip(pictures, (shown * 255).round().astype(np.uint8), strict=True)
        ]
        Image.fromarray(np.concatenate(pairs)).save(SHOWN / "prompt_to_picture.png")
