"""placeholder"""

from rfjax import config as configs


def get_config(variant=""):
    c = configs.default()
    c.optimizer.update(learning_rate=3e-3, warmup=20, decay="cosine", ema_decay=0.95, ema_every=1, b2=0.99)
    c.training.update(batch=64, steps=40, log_every=10, checkpoint_every=20)
    c.model.update(depth=2, width_per_depth=24)
    configs.axes(c, {"model.depth": (1, 2)})
    return c
