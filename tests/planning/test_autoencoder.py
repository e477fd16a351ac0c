"""What a plan says of an autoencoder: its weights, its FLOPs, and the memory that encoding needs."""

import dataclasses

import jax
import pytest
from autoencoder_cases import TOY, write_vae
from tiny import tiny

from rfjax import config as configs
from rfjax.planning import plan_text, tracing
from rfjax.planning.job import Progress, plan_run
from rfjax.training.spec import make_run_spec


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    c = tiny()
    c.model.patch = 2
    c.autoencoder.update(path=str(write_vae(tmp_path_factory.mktemp("vae"))), batch=4)
    c.plan.devices = 1
    c.mesh.data = 1
    return configs.parse(c)


def test_encoding_is_planned(config):
    spec = make_run_spec(config)
    flops, few = tracing.encoding(spec, 1)
    more = tracing.encoding(spec, 4)
    assert more[0] == 4 * flops and few < more[1] < 5 * few
    # The first level's two 3 x 3 convolutions of 8 channels on 16 x 16 pixels are a part of it.
    assert flops > 2 * 2 * 9 * 8 * 8 * 14 * 14
    assert str(tracing.z_type(config, spec)) == "float32"
    stored = dataclasses.replace(
        config, data=dataclasses.replace(config.data, name="latents", path="none", image_size=8, channels=4)
    )
    assert tracing.encoding(make_run_spec(stored), 1) == (0, 0)
    assert str(tracing.z_type(stored, make_run_spec(stored))) == config.plan.latents


@pytest.mark.job
def test_the_plan_of_a_run_names_it(config):
    made = plan_run("run", config, jax.devices("cpu")[:1], Progress(lambda doing: None))
    weights = sum(leaf.size * 4 for leaf in jax.tree.leaves(make_run_spec(config).codec.abstract_weights()))
    assert made.memory.encoders == weights and TOY["latent_channels"] == 4
    assert made.cost.encoding_flops == 8 * tracing.encoding(make_run_spec(config), 1)[0]
    text = plan_text.format_plan(made, config)
    assert "FLOPs of the autoencoder" in text and "encoding pictures" in text and "latents of pictures, float32" in text
