"""Alt text against a mix with whole captions: SD3's Table 4 (section 5.3.1), in minutes.

python -m rfjax.main --config=configs/captions.py            two arms, five seeds each
"""

import ml_collections

from rfjax import config as configs

SEEDS = (0, 1, 2, 3, 4)


def get_config() -> ml_collections.ConfigDict:
    """Alt text alone, and half of it replaced by whole captions, with each seed."""
    c = configs.default()
    c.workdir = "work/captions"
    c.study.update(name="Alt text, and a mix with whole captions", report="captions")
    c.data.alt_text = 0.5
    c.model.update(depth=4, width_per_depth=16, patch=4)
    c.optimizer.update(learning_rate=0.021, depth_exponent=-0.6, warmup=50, decay="cosine", b2=0.99)
    c.optimizer.update(ema_decay=0.98, ema_every=1, flatten=True)
    c.training.update(batch=64, steps=1500, log_every=50, validate_every=500, checkpoint_every=500)
    c.validation.update(examples=512, batch=64)
    c.sampling.update(count=1024, shown=16, batch=128, settings=("10@5.0",), weights="ema")
    configs.axes(c, {"training.seed": SEEDS, "data.synthetic_share": (0.0, 0.5)})  # both arms of a seed, then the next
    return c
