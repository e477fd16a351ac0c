"""Backbones trained alike: SD3's Fig. 4 (section 5.2.3), against steps, as in the paper, and against FLOPs.

    python -m rfjax.main --config=configs/architectures.py       about 17 minutes on two cores
    ... --config.study.axes.training.seed="(0,1,2,3,4)"          two more seeds: narrower intervals
    ... --config=configs/architectures.py:learning_rate          each backbone at three rates, one seed: as long

Fifteen runs: DiT, CrossDiT, UViT and MM-DiT with two and three sets of weights, three seeds each. Depth, width, text,
data, learning rate and steps are the same; sizes are not, and the paper claims no matching of parameters either. The
captions are encoded with two vocabularies, so that MM-DiT with three sets of weights has two kinds of text to tell
apart. The learning rate is constant after the warm-up: then a checkpoint along a run is the end of a shorter one, and
the curves can be read at any compute. Losses, scores and distances are those of the averaged weights.

The report has the paper's three rows (validation loss; composition score for CLIP; Fréchet distance for FID), the
*compute multiplier* of every two backbones (how many times fewer FLOPs one needs for the loss that the slower ends at)
with its interval over seeds, and the order beside the paper's: DiT < UViT < CrossDiT < MM-DiT with two sets <~ with
three, where UViT learns fastest at first. Expect UViT ahead per step and behind per FLOP, the four transformers within
a per cent or two of each other, and composition scores near zero: those take many more steps (`config.training.steps`).
"""

import ml_collections

from rfjax import config as configs
from rfjax.errors import UserError

BACKBONES = ("dit", "crossdit", "uvit", "mmdit", "mmdit3")
SEEDS = (0, 1, 2)


RATES = (5.25e-3, 1.05e-2, 2.1e-2)


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Each backbone with each seed, at MM-DiT's rate; or with one seed, at half and twice that too."""
    if variant not in ("", "learning_rate"):
        raise UserError(f"configs/architectures.py has no variant '{variant}' (did you mean 'learning_rate'?)")
    c = comparison()
    if variant:
        c.study.name = "The best learning rate of each backbone"
        c.workdir = "work/architectures_learning_rate"
        configs.axes(c, {"training.seed": (0,), "optimizer.learning_rate": RATES})
    return c


def comparison() -> ml_collections.ConfigDict:
    """Each backbone with each seed."""
    c = configs.default()
    c.workdir = "work/architectures"
    c.study.update(name="Backbones of a flow, trained alike", report="architectures")
    c.text.update(vocabularies=2, drop=0.316)  # of each, so that a tenth of the examples has no text at all
    c.model.update(depth=3, width_per_depth=16, patch=2)
    # Half of the ladder's rate (configs/scaling.py), as in its L(N, D): it is not brought down at the end.
    c.optimizer.update(learning_rate=0.0105, depth_exponent=-0.6, warmup=20, decay="none", b2=0.99)
    c.optimizer.update(ema_decay=0.95, ema_every=1, flatten=True)
    c.training.update(batch=32, steps=320, log_every=16, validate_every=32, checkpoint_every=160)
    c.validation.update(examples=384, batch=64)
    c.sampling.update(count=64, shown=16, batch=32, settings=("10@3.0",), weights="ema", along=True)
    configs.axes(c, {"model.backbone": BACKBONES, "training.seed": SEEDS})
    return c
