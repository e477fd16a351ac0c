"""draft"""
from rfjax import config as configs


def get_config(variant: str = ""):
    c = configs.default()
    c.workdir = "work/scaling" + (f"_{variant}" if variant else "")
    c.model.update(width_per_depth=16)
    c.optimizer.update(learning_rate=0.021, depth_exponent=-0.6, warmup=20, decay="cosine", b2=0.99, ema_decay=0.95, ema_every=1, flatten=True)
    c.training.update(batch=32, steps=340, log_every=8, checkpoint_every=128)
    c.validation.update(examples=1024, batch=32)
    c.samples.update(count=16, steps=10)
    configs.axes(c, {"model.depth": (1, 2, 3, 4, 5, 6)})
    if variant == "learning_rate":
        configs.axes(c, {"model.depth": (1, 2, 3, 4, 5), "optimizer.learning_rate": (4e-3, 8e-3, 1.6e-2, 3.2e-2)})
        c.samples.count = 0
    return c
