"""The paper's run at full size, as far as a machine without accelerators can take it: it is lowered, and planned."""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import config as configs
from rfjax.planning import job, tracing
from rfjax.training import mesh as meshes
from rfjax.training.encode import jit_encode
from rfjax.training.spec import make_run_spec

DINOV2_B = {  # of its public folder
    "model_type": "dinov2", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "mlp_ratio": 4,
    "image_size": 518, "patch_size": 14, "layerscale_value": 1.0, "use_swiglu_ffn": False, "hidden_act": "gelu",
    "layer_norm_eps": 1e-6, "qkv_bias": True, "num_channels": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Vanilla and REPA, with an encoder that is described and has no weights."""
    folder = tmp_path_factory.mktemp("dinov2")
    (folder / "config.json").write_text(json.dumps(DINOV2_B))
    path = Path(__file__).parents[1] / "configs" / "repa_imagenet.py"
    spec = importlib.util.spec_from_file_location("repa_imagenet", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    c = module.get_config()
    c.alignment.encoders = (f"vision@{folder}/config.json",)
    c.mesh.update(data=2, fsdp=4)
    return dict(configs.runs(configs.parse(c)))


@pytest.fixture(scope="module")
def steps(runs):
    """Their steps, traced for eight devices."""
    return {name: tracing.trace(config, jax.devices()[:8]) for name, config in runs.items()}


def test_xl2_with_dinov2_b_is_lowered_over_eight_devices(runs, steps):
    step = steps["weight=0.5"]
    assert "stablehlo" in step.stage.lower().as_text()
    spec, mesh = make_run_spec(runs["weight=0.5"]), step.mesh
    (encoder,) = spec.features
    assert encoder.grid == spec.model.grid(spec.inputs.shape) == (16, 16) and encoder.width == 768
    weights = meshes.with_shardings(encoder.abstract_weights(), mesh)
    count = sum(x.size for x in jax.tree.leaves(weights))
    # The published table is of 37 x 37 patches; the class token's position is added to it, and no mask token is read.
    assert 86_580_480 - count == (37**2 - 16**2) * 768 + 2 * 768
    batch = {
        "image": jax.ShapeDtypeStruct((256, 256, 256, 3), jnp.uint8),
        "slot": jax.ShapeDtypeStruct((256,), jnp.int32),
    }
    lowered = jit_encode((encoder,)).lower((weights,), batch, np.uint32(0), np.int32(0))
    assert "stablehlo" in lowered.as_text()


def test_the_network_and_its_projector_have_the_published_sizes(steps):
    assert (steps["weight=0"].parameters, steps["weight=0.5"].parameters) == (675_111_184, 683_242_512)


def test_the_plan_counts_the_encoder(runs, steps):
    cost = {name: job._cost(config, steps[name], ()) for name, config in runs.items()}
    vanilla, repa = cost["weight=0"], cost["weight=0.5"]
    assert vanilla.alignment_flops == 0 and steps["weight=0"].memory.encoders == 0
    projector = 3 * 2 * 256 * (1152 * 2048 + 2048**2 + 2048 * 768)
    encoder = repa.alignment_flops / 256 - projector
    assert 44e9 < encoder < 48e9  # 12 blocks of 24 D^2 N + 4 N^2 D FLOPs with 257 tokens, and the patches
    assert repa.step_seconds == pytest.approx(vanilla.step_seconds * (1 + repa.alignment_flops / vanilla.model_flops))
    assert steps["weight=0.5"].memory.encoders == pytest.approx(4 * 85.6e6 / 4, rel=0.05)  # float32, over fsdp = 4
