"""Representation alignment: vanilla flow transformers against aligned ones (REPA, Figs. 4 and 5, Table 2).

    python -m rfjax.main --config=configs/repa.py                three depths, five seeds each: 7 minutes on two cores
    ... --config=configs/repa.py:depth                           which block is aligned (Table 2)
    ... --config=configs/repa.py:weight                          lambda, the weight of the alignment
    ... --config=configs/repa.py:encoder                         which encoder is aligned with (Table 2)
    ... --config=configs/repa.py:objective                       cosine similarity or NT-Xent (Table 2)
    ... --config=configs/repa.py:digits                          handwriting, with an encoder that is trained in place

Vanilla and aligned runs have the same weights at the start, the same examples, times and noise: they differ in the
alignment alone. The learning rate is constant after the warm-up: a point along a run is then the end of a shorter one,
and the report can say how many steps an aligned run needs for what a vanilla run ends with. On `shapes` the encoder is
exact: its tokens say which shape, colour and outline lies at a patch.

Expect 1.14 to 1.16 times fewer steps for vanilla's final validation loss at each depth (docs/results/repa), and in
FLOPs, with the projector's, a loss at depth 2 and a gain at depth 6. It belongs to the first hundred steps: with the
cosine similarity and 320 steps or more, aligned and vanilla runs of depth 4 and 6 end alike. The paper's 17.5 is at FID
level, after 400,000 steps of a network of 675 million parameters.
"""

import ml_collections

from rfjax import config as configs
from rfjax.errors import UserError, nearest

SEEDS = (0, 1, 2, 3, 4)
WEIGHTS = (0.0, 0.5)  # vanilla, and the paper's lambda


def base() -> ml_collections.ConfigDict:
    """What all studies here share."""
    c = configs.default()
    c.study.update(name="Representation alignment on shapes", report="repa")
    c.model.update(depth=4, width_per_depth=16, patch=2)
    c.optimizer.update(learning_rate=0.0105, depth_exponent=-0.6, warmup=20, decay="none", b2=0.99)
    c.optimizer.update(ema_decay=0.95, ema_every=1)
    c.training.update(batch=32, steps=96, log_every=8, validate_every=12, checkpoint_every=48)
    c.training.measurements = ("validation", "samples@24", "representations@48")
    # NT-Xent, as in the paper's Table 2: here it is faster than the cosine similarity, which the release has.
    c.alignment.update(encoders=("shapes",), projector_width=128, loss="nt-xent")
    c.representations.update(encoders=("shapes",), examples=512, probe_examples=1024, levels=(0.5,))
    c.validation.update(examples=384, batch=64)
    c.sampling.update(count=64, shown=16, batch=64, settings=("10@3.0",), weights="ema")
    return c


def sizes() -> ml_collections.ConfigDict:
    """Three depths."""
    c = base()
    configs.axes(c, {"model.depth": (2, 4, 6), "alignment.weight": WEIGHTS, "training.seed": SEEDS})
    return c


def varied(name: str, axes: dict, loss: str = "nt-xent", **model: int) -> ml_collections.ConfigDict:
    """One depth, and an axis of the alignment."""
    c = base()
    c.study.name = f"Representation alignment: {name}"
    c.alignment.loss = loss
    c.model.update(model)
    configs.axes(c, {**axes, "training.seed": SEEDS})
    return c


def digits() -> ml_collections.ConfigDict:
    """Real handwriting with class labels, and encoders that are trained in place."""
    c = base()
    c.study.name = "Representation alignment on digits"
    c.data.update(name="digits", image_size=16)
    c.text.update(encoder="labels", pooled_width=10)
    c.model.update(backbone="sit", depth=3)
    c.representations.update(encoders=("trained@labels",), examples=180, probe_examples=1437)
    c.validation.examples = 176
    encoders = ((), ("trained@masked",), ("trained@labels",))
    configs.axes(c, {"alignment.encoders": encoders, "training.seed": SEEDS})
    return c


VARIANTS = {
    "": sizes,
    "depth": lambda: varied(
        "which block", {"alignment.weight": WEIGHTS, "alignment.block": (2, 3, 4)}, depth=6, width_per_depth=12
    ),
    "weight": lambda: varied("its weight", {"alignment.weight": (0.0, 0.25, 0.5, 0.75, 1.0)}, loss="cosine"),
    "encoder": lambda: varied(
        "which encoder", {"alignment.encoders": ((), ("shapes",), ("trained@masked",), ("trained@labels",))}
    ),
    "objective": lambda: varied("which loss", {"alignment.weight": WEIGHTS, "alignment.loss": ("cosine", "nt-xent")}),
    "digits": digits,
}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The config of a variant, in a work folder of its own."""
    if variant not in VARIANTS:
        raise UserError(f"configs/repa.py has no variant '{variant}'{nearest(variant, filter(None, VARIANTS))}")
    c = VARIANTS[variant]()
    c.workdir = "work/repa" + (f"_{variant}" if variant else "")
    return c
