"""The contest of SD3's section 5.1: ways to train a flow, trained alike and ranked (Tables 1 and 2, Fig. 3).

    python -m rfjax.main --config=configs/formulations.py         the 16 variants of Table 1: 21 minutes on two cores
    ... --config=configs/formulations.py:all                      all 61: four times as long
    ... --config=configs/formulations.py:learning_rate            the best rate of each prediction: 16 runs
    ... --config.study.axes.training.seed="(0,1,2)"               seeds: three times as long, and ranks with intervals

Every variant is trained on `shapes` and on `digits`, and sampled with raw and averaged weights at the paper's six
settings: 50 steps at guidance 1, 2.5 and 5, and 5, 10 and 25 steps at guidance 5, by Euler's method.

What the paper leaves open, and is decided here. Every formulation is sampled on its own grid: edm(P_m,P_s) on Karras et
al.'s, from b = 80, all others on times evenly spaced in their own t; `edm/rf` and `edm/cos` take the log-SNR of rf and
of the cosine path. EDM steps in sigma. The network is told t, or EDM's c_noise. One learning rate, batch, number of
steps and seed for all. The rate was chosen for rf, and eps, v and F may have a better one: `:learning_rate` trains one
formulation of each prediction at four rates, and its page shows which has the lowest validation loss. With those rates
as an axis, --config.study.axes.optimizer.learning_rate="(5e-3,1e-2,2e-2)", each variant of a contest is compared at its
own best one, at the cost of as many contests.

Expect: rf with a density that favours the middle leads, uniform rf and EDM follow, eps/linear is last (in the paper it
is near the top: 400 steps are probably too few for it). The ranks correlate with the paper's (Spearman about +0.6), but
12,800 examples are too few for the compositions of `shapes`, whose score stays below 0.1: the Fréchet distance decides.
Train longer with --config.training.steps=1600 and validate_every and checkpoint_every 400.
"""

import ml_collections

from rfjax import config as configs
from rfjax.errors import UserError, nearest
from rfjax.names import TABLE_1

# SD3's Table 1 shows the two best of each family, and the defaults.
SHOWN = (
    "rf/lognorm(0.00,1.00)",
    "rf/lognorm(1.00,0.60)",
    "rf/lognorm(0.50,0.60)",
    "rf/mode(1.29)",
    "rf/lognorm(0.50,1.00)",
    "eps/linear",
    "rf/mode(1.75)",
    "rf/cosmap",
    "edm(0.00,0.60)",
    "rf",
    "v/linear",
    "edm(0.60,1.20)",
    "v/cos",
    "edm/cos",
    "edm/rf",
    "edm(-1.20,1.20)",
)
DATA = ("shapes", "digits")


def contest(formulations: tuple[str, ...]) -> ml_collections.ConfigDict:
    """Each data set at its own size; every program is compiled once for all runs on one data set."""
    c = configs.default()
    c.study.update(name="Formulations of a flow, ranked", report="formulations")
    c.data.update(image_size=0, channels=0)
    c.model.update(depth=3, width_per_depth=16, patch=2, unroll=0)
    c.optimizer.update(
        learning_rate=1e-2, warmup=30, decay="cosine", b2=0.99, ema_decay=0.97, ema_every=1, flatten=True
    )
    c.training.update(batch=32, steps=400, log_every=20, validate_every=100, checkpoint_every=100, select="best")
    c.validation.update(examples=176, batch=88)  # digits has 180
    c.sampling.update(
        count=80,
        shown=16,
        batch=80,
        settings=("50@5.0", "50@2.5", "50@1.0", "25@5.0", "10@5.0", "5@5.0"),
    )
    configs.axes(c, {"data.name": DATA, "flow.formulation": formulations})
    return c


PREDICTIONS = ("rf", "eps/linear", "v/cos", "edm(-1.20,1.20)")  # velocity, eps, v, F
RATES = (2.5e-3, 5e-3, 1e-2, 2e-2)


def learning_rate() -> ml_collections.ConfigDict:
    """One formulation of each prediction at four rates, on `shapes`, scored at two settings."""
    c = contest(PREDICTIONS)
    c.study.name = "The best learning rate of each prediction"
    c.sampling.settings = ("25@5.0", "10@5.0")
    c.sampling.weights = "ema"
    configs.axes(c, {"data.name": ("shapes",), "flow.formulation": PREDICTIONS, "optimizer.learning_rate": RATES})
    return c


VARIANTS = {"": lambda: contest(SHOWN), "all": lambda: contest(TABLE_1), "learning_rate": learning_rate}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The contest among the variants of Table 1, or among all 61; or the rates of its predictions."""
    if variant not in VARIANTS:
        raise UserError(f"configs/formulations.py has no variant '{variant}'{nearest(variant, filter(None, VARIANTS))}")
    c = VARIANTS[variant]()
    c.workdir = "work/formulations" + (f"_{variant}" if variant else "")
    return c
