"""The smallest config that trains, and a run of it that is not trained."""

from pathlib import Path
from typing import Any

import ml_collections

from rfjax import config as configs


def tiny() -> ml_collections.ConfigDict:
    """A run of a second: depth 2, width 16, eight steps."""
    c = configs.default()
    c.model.update(depth=2, width_per_depth=8, patch=4)
    c.text.update(length=8, width=8, pooled_width=8)
    c.optimizer.update(learning_rate=3e-3, warmup=2, ema_every=1, ema_decay=0.9)
    c.training.update(batch=8, steps=8, log_every=2, checkpoint_every=4)
    c.mesh.update(data=-1, fsdp=1)
    c.validation.update(examples=16, batch=8)
    c.sampling.update(count=4, shown=4, batch=4, settings=("2@3.0",))
    return c


def begun_run(folder: Path, config: configs.Config, steps: tuple[int, ...] = (8,)) -> Any:
    """A run's folder with checkpoints that nobody trained; returns their weights, whose average is 0.01 step more."""
    import jax

    from rfjax.jsonl import write_json
    from rfjax.training import mesh
    from rfjax.training.checkpoints import Checkpoints, Progress
    from rfjax.training.spec import make_run_spec
    from rfjax.training.state import initial_state

    state = initial_state(make_run_spec(config), mesh.make_mesh(config.mesh), 0)
    write_json(folder / "config.json", config.to_dict())
    saved = Checkpoints(folder / "checkpoints", 2)
    for step in steps:
        average = jax.tree.map(lambda x, n=step: x + 0.01 * n, state.params)
        saved.save(state.replace(step=jax.numpy.int32(step), ema_params=average), Progress())
    saved.close()
    return state.params


def run_job(kind: Any, config: configs.Config, started: float) -> int:
    """Runs a job of `runner`, `resampling` or `generate`; returns the exit code."""
    from rfjax.study import jobs

    return jobs.run(kind.make_job(config, started))
