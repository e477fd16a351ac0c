"""The paper's ladder goes through the same code: its training step is lowered for a mesh, nothing allocated."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from rfjax import config as configs
from rfjax import flow, main
from rfjax.models import measure
from rfjax.training import mesh as meshes
from rfjax.training import step as steps
from rfjax.training.spec import make_run_spec

POD = f"--config={Path(__file__).parents[1] / 'configs' / 'scaling.py'}:pod"


def test_a_rung_of_the_paper_s_ladder_lowers_over_a_mesh():
    runs = dict(configs.runs(main.read_flags([POD, "--config.mesh.fsdp=8"])))
    assert list(runs) == ["d15", "d18", "d21", "d24", "d30", "d38"]
    config = runs["d15"]
    parts, mesh = make_run_spec(config), meshes.make_mesh(config.mesh)
    assert measure(parts.model, parts.inputs).parameters == 496_066_624 + 3_840
    spread = jax.sharding.NamedSharding(mesh, meshes.BATCH)
    put = lambda shape, dtype: jax.ShapeDtypeStruct((4096, *shape), dtype, sharding=spread)  # noqa: E731
    f32 = jnp.float32
    batch = {"image": put((32, 32, 16), f32), "context": put((154, 4096), f32), "pooled": put((2048,), f32)}
    draws = steps.Draws(flow.Coefficients(*[put((), f32)] * 10), put((32, 32, 16), f32), put((3,), jnp.bool_))
    state = steps.abstract_state(parts, mesh)
    text = steps.jit_update(parts, mesh).lower(state, batch, draws).as_text()
    assert "bf16" in text
    # Every large matrix is spread over the eight devices: a device holds little more than an eighth of the state.
    local = sum(np.prod(x.sharding.shard_shape(x.shape)) for x in jax.tree.leaves(state.params))
    assert local < 1.01 * 496_070_464 / 8 + 5e6
