"""The smallest study, which the walk over all keys changes one key at a time."""

from pathlib import Path

import ml_collections

from rfjax import config as configs


def get_config(folder: str) -> ml_collections.ConfigDict:
    """One run of two steps, in the folder that the variant names."""
    c = configs.default()
    c.workdir = str(Path(folder) / "study")
    c.model.update(depth=1, width_per_depth=8, patch=8)
    c.text.update(length=2, width=4, pooled_width=4)
    c.optimizer.update(learning_rate=1e-3, warmup=1)
    c.training.update(batch=8, steps=2, log_every=1, checkpoint_every=2)
    c.alignment.update(encoders=("shapes",), projector_width=4)
    c.validation.update(examples=16, batch=8)
    c.sampling.update(count=2, shown=1, batch=8, settings=("1@3.0",))
    c.generate.update(source=str(Path(folder) / "study" / "runs" / "run"), count=2, steps=1, batch=8)
    return c
