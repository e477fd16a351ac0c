"""What few steps cost, by size of the model (SD3's Table 6), and how straight the paths are.

    python -m rfjax.main --config=configs/scaling.py         first: the models
    python -m rfjax.main --config=configs/sampling.py        then: 5, 10, 20 and 50 steps with each: 4 minutes
    ... --config.study.source=FOLDER                         with the models of another finished study

The same captions and the same noise everywhere, averaged weights. The paper draws from its d = 15, 30 and 38, and gives
no guidance scale for this table; here it is 3.
"""

import ml_collections

from rfjax import config as configs


def get_config() -> ml_collections.ConfigDict:
    """Euler's method on evenly spaced times."""
    c = configs.default()
    c.workdir = "work/sampling"
    c.study.update(name="Sampling with few steps", report="sampling", source="work/scaling")
    c.sampling.update(count=256, shown=16, batch=64, settings=("5@3.0", "10@3.0", "20@3.0", "50@3.0"), seeds=1)
    return c
