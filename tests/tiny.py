"""The smallest config that trains."""

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
    c.samples.update(count=4, shown=4, batch=4, settings=("2@3.0",))
    return c
