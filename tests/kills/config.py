"""The study that is killed: three rungs on `shapes`, some seconds each, that save, measure and draw often."""

import ml_collections

from rfjax import config as configs


def get_config() -> ml_collections.ConfigDict:
    """Depths 1 to 3, forty steps each."""
    c = configs.default()
    c.study.name = "A study to kill"
    c.study.hold_out = 0
    c.model.update(width_per_depth=16, patch=4)
    c.text.update(length=8, width=16, pooled_width=16)
    c.optimizer.update(learning_rate=0.01, warmup=4, ema_every=1, ema_decay=0.9, flatten=True)
    c.training.update(batch=64, steps=40, log_every=2, validate_every=20, checkpoint_every=4, keep_checkpoints=2)
    c.validation.update(examples=64, batch=32)
    c.sampling.update(count=8, shown=8, batch=8, settings=("4@3.0",), along=True)
    configs.axes(c, {"model.depth": (1, 2, 3)})
    c.workdir = "work/kills"
    return c
