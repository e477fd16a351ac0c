"""Does an MM-DiT need adaLN, and two streams? Designs compared as ladders, by compute at equal loss and at the target.

    python -m rfjax.main --config=configs/modulation.py            adaLN, a token, or nothing: 180 runs
    ... --config=configs/modulation.py:streams                     MM-DiT against one stream with text, both with adaLN
    ... --config=configs/modulation.py:learning_rate               the best rate of each modulation at depth 3: 12 runs
    ... --config.study.axes.training.seed="(0,)"                   one seed: a third of the time, and wide intervals

i1 (arXiv 2606.11289) finds that blocks of two streams are best and that adaLN, a third of SD3's parameters, is
needless: its networks are not told the time at all. So there are three designs: `adaln` (SD3), `token` (time and pooled
text are one token of the text, after U-ViT) and `none` (that token is of the pooled text alone, as in i1). All else is
as in the ladder of configs/scaling.py, but for patches of 4, which take a third of the time, and the same at each
depth: width, data, steps, seeds, triples of validation. The rate is constant after the warm-up, so that a checkpoint
along a run is the end of a shorter one and losses can be compared at any compute.

Expect adaLN to need half of the compute of the two others at depth 6, and nothing to be told apart at depths 2 and 3;
two streams and one are not told apart by compute (docs/results/modulation).

What the claim depends on. A rate that suits adaLN need not suit the others, so each is trained at several, and at each
size that of the lowest loss counts. Without adaLN the last Linear of each branch starts at zero, as the gates of adaLN
do. Small pictures, hashed words, 9,216 examples a run: what holds here need not hold for i1, at 256 million.
"""

import ml_collections

from rfjax import config as configs
from rfjax.errors import UserError, nearest

MODULATIONS = ("adaln", "token", "none")
DEPTHS, SEEDS = (2, 3, 4, 5, 6), (0, 1, 2)  # depth 1 learns next to nothing with patches of 4: its loss is 0.96
RATE = 0.021  # the first command's
SWEEP = tuple(RATE * share for share in (0.25, 0.5, 1, 2))


def ladder() -> ml_collections.ConfigDict:
    """One design's ladder: the first command's network and data at a constant rate, without samples."""
    c = configs.default()
    c.study.name = "MM-DiT with adaLN, with the time as a token, and without the time"
    c.model.update(width_per_depth=16, patch=4)
    c.optimizer.update(learning_rate=RATE, depth_exponent=-0.6, warmup=20, decay="none", b2=0.99)
    c.optimizer.update(ema_decay=0.95, ema_every=1, flatten=True)
    c.training.update(batch=32, steps=288, log_every=16, validate_every=48, checkpoint_every=288)
    c.validation.update(examples=384, batch=64)
    c.sampling.count = 0
    return c


def modulation() -> ml_collections.ConfigDict:
    """Three ways to tell the network the time, each on a ladder of five rungs and three seeds."""
    c = ladder()
    c.study.compare = "model.modulation"
    axes = {"model.modulation": MODULATIONS, "model.depth": DEPTHS, "training.seed": SEEDS}
    configs.axes(c, axes | {"optimizer.learning_rate": SWEEP})
    return c


def streams() -> ml_collections.ConfigDict:
    """Two sets of weights for text and image, or one for both."""
    c = ladder()
    c.study.update(name="Two streams against one", compare="model.backbone")
    axes = {"model.backbone": ("mmdit", "dit"), "model.depth": DEPTHS, "training.seed": SEEDS}
    configs.axes(c, axes | {"optimizer.learning_rate": SWEEP[1:]})
    return c


def learning_rate() -> ml_collections.ConfigDict:
    """Each modulation at a quarter, half, once and twice the rate, at one depth."""
    c = ladder()
    c.study.update(name="The best learning rate of each modulation", hold_out=0, compare="model.modulation")
    c.training.validate_every = 0
    configs.axes(c, {"model.modulation": MODULATIONS, "model.depth": (3,), "optimizer.learning_rate": SWEEP})
    return c


VARIANTS = {"": modulation, "streams": streams, "learning_rate": learning_rate}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The config of a variant, in a work folder of its own."""
    if variant not in VARIANTS:
        raise UserError(f"configs/modulation.py has no variant '{variant}'{nearest(variant, filter(None, VARIANTS))}")
    c = VARIANTS[variant]()
    c.workdir = "work/modulation" + (f"_{variant}" if variant else "")
    return c
