"""The paper's ladder goes through the same code: its training step is lowered for a mesh, nothing allocated."""

from pathlib import Path

import jax
import numpy as np

from rfjax import config as configs
from rfjax import main
from rfjax.models import measure
from rfjax.planning.tracing import arguments
from rfjax.training import mesh as meshes
from rfjax.training import step as steps
from rfjax.training.spec import make_run_spec
from rfjax.training.state import abstract_state

POD = f"--config={Path(__file__).parents[1] / 'configs' / 'scaling.py'}:pod"


def test_a_rung_of_the_paper_s_ladder_lowers_over_a_mesh():
    runs = dict(configs.runs(main.read_flags([POD, "--config.mesh.fsdp=8"])))
    assert list(runs) == ["d15", "d18", "d21", "d24", "d30", "d38"]
    config = runs["d15"]
    spec, mesh = make_run_spec(config), meshes.make_mesh(config.mesh)
    assert measure(spec.model, spec.inputs).parameters == 496_066_624 + 3_840
    state = abstract_state(spec, mesh)
    text = steps.jit_update(spec, mesh).lower(state, *arguments(config, spec, mesh)).as_text()
    assert "bf16" in text
    # Every large matrix is spread over the eight devices: a device holds little more than an eighth of the state.
    local = sum(np.prod(x.sharding.shard_shape(x.shape)) for x in jax.tree.leaves(state.params))
    assert local < 1.01 * 496_070_464 / 8 + 5e6
