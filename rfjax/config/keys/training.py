"""The sections `optimizer`, `training`, `recovery` and `validation`: one run's loop and what it measures."""

import dataclasses

from rfjax.config.rules import LARGEST_SEED, MOST_STEPS, key


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """Sets AdamW, the schedule of its learning rate, and the moving average of the weights."""

    learning_rate: float = key(
        1e-4, "Sets the peak learning rate of a model of depth 1; see depth_exponent for others.", low=0, high=100
    )
    depth_exponent: float = key(
        0.0,
        "Scales the peak learning rate of a model of depth d by d^depth_exponent. 0 gives all depths the same rate; "
        "negative values lower it for deeper models.",
        low=-10,
        high=10,
    )
    warmup: int = key(
        1000, "Sets the number of steps in which the learning rate rises linearly to its peak.", low=0, high=MOST_STEPS
    )
    decay: str = key(
        "none",
        "Sets how the learning rate falls from its peak to zero between the warm-up and the last step. `none` keeps "
        "it constant; `wsd` (warm-up, stable, decay) keeps it constant until its decay starts, see decay_share.",
        choices=("none", "cosine", "linear", "wsd"),
    )
    decay_share: float = key(
        0.2, "Sets the share of the steps, at the end of a run, in which `wsd` decays.", low=1e-6, high=1
    )
    decay_form: str = key(
        "sqrt",
        "Sets the factor of the learning rate in the decay of `wsd` after a share p of it: 1 - sqrt(p) or 1 - p "
        "(arXiv 2405.18392).",
        choices=("sqrt", "linear"),
    )
    b1: float = key(0.9, "Sets AdamW's beta 1, the decay of the gradient's running mean per step.", low=0, high=0.99999)
    b2: float = key(
        0.999, "Sets AdamW's beta 2, the decay of the squared gradient's running mean per step.", low=0, high=0.9999999
    )
    eps: float = key(
        1e-8,
        "Sets AdamW's epsilon, which is added to the root of the squared gradient's running mean. SD3 uses 1e-15 for "
        "bfloat16 training with QK-norm (5.3.2).",
        low=1e-30,
        high=1,
    )
    weight_decay: float = key(
        0.0, "Sets AdamW's decoupled weight decay. It applies to weight matrices only.", low=0, high=1000
    )
    clip: float = key(
        1.0,
        "Scales the gradient down to this global norm whenever its norm is larger. 0 switches clipping off.",
        low=0,
        high=1e9,
    )
    flatten: bool = key(
        False,
        "Updates all weights as one long vector, which halves the compile time. It works only where each device holds "
        "all weights, and without weight decay.",
    )
    ema_decay: float = key(
        0.99,
        "Sets the decay of the exponential moving average of the weights per update of the average. The decay rises "
        "to this value as (1 + n) / (10 + n), where n counts updates, unless ema_warmup is off.",
        low=0,
        high=1,
    )
    ema_warmup: bool = key(
        True,
        "Lets the decay of the averaged weights rise from 0.1, which forgets the initial weights soon. Without it the "
        "decay is ema_decay from the first update, as in DiT, SiT and REPA (0.9999 with ema_every = 1).",
    )
    ema_every: int = key(
        100, "Sets the number of training steps between updates of the averaged weights.", low=1, high=MOST_STEPS
    )

    def decay_start(self, steps: int) -> int:
        """How many of a run's steps come before the decay of `wsd`: before it, the budget changes nothing."""
        return steps - max(1, round(self.decay_share * steps))


@dataclasses.dataclass(frozen=True)
class Training:
    """Sets the length of a run and what happens along it."""

    batch: int = key(64, "Sets the number of examples per step, over all devices together.", low=1, high=2**24)
    steps: int = key(1000, "Sets the number of training steps.", low=1, high=MOST_STEPS)
    steps_exponent: float = key(
        0.0,
        "Makes a model of depth d train for steps x d^steps_exponent steps, so that larger models see more examples. 0 "
        "gives all depths the same number; a run's own config holds its own number.",
        low=-10,
        high=10,
    )
    seed: int = key(
        0,
        "Seeds all randomness of a run: initial weights, order of examples, times and noise. Runs with equal configs "
        "agree bit for bit on one machine.",
        low=0,
        high=LARGEST_SEED,
    )
    log_every: int = key(
        20,
        "Sets the number of steps between lines of metrics. Each line holds the mean loss since the line before.",
        low=1,
        high=MOST_STEPS,
    )
    validate_every: int = key(
        0,
        "Sets the number of steps between validation losses. 0 measures the validation loss at the end only.",
        low=0,
        high=MOST_STEPS,
    )
    checkpoint_every: int = key(
        500,
        "Sets the number of steps between checkpoints. An interrupted run repeats the steps since its last checkpoint.",
        low=1,
        high=MOST_STEPS,
    )
    keep_checkpoints: int = key(
        2, "Sets how many of the latest checkpoints stay on disk; older ones are deleted.", low=1, high=1_000_000
    )
    accumulate: int = key(
        1,
        "Splits each device's share of the batch into this many parts that are computed one after the other. Larger "
        "values need less memory for activations.",
        low=1,
        high=2**24,
    )
    attention_every: int = key(
        0,
        "Sets the number of steps between measurements of each block's largest attention logit and attention entropy "
        "(SD3 Fig. 5). 0 switches the measurement off.",
        low=0,
        high=MOST_STEPS,
    )
    objective: str = key(
        "flow_matching",
        "Chooses what training minimises: `flow_matching` is SD3's conditional flow-matching loss, `ddpm` is DiT's "
        "loss of the noise and of a learned variance, for the formulation dit/eps.",
        choices=("flow_matching", "ddpm"),
        paths=True,
    )
    trainable: str = key(
        "",
        "Trains only the weights whose path, such as blocks/image/qkv/linear/kernel, matches this regular expression, "
        "and freezes the others. Empty trains all.",
    )
    measurements: tuple[str, ...] = key(
        ("validation", "samples", "attention"),
        "Lists what is measured, each written NAME or NAME@STEPS with the number of steps between two measurements. "
        "`validation` and `samples` measure at the end too. Without a number they follow validate_every, "
        "sampling.along and attention_every. `representations` compares hidden states with frozen encoders, at the end "
        "and with a number along the run.",
    )
    start_from: str = key(
        "",
        "Names the folder of a run whose weights are the initial weights: a run of a study, or one that `python -m "
        "rfjax.interop import` made. Empty initialises at random.",
    )
    select: str = key(
        "last",
        "Chooses the weights that the final samples come from: `last` takes the end of the run, `best` the checkpoint "
        "of the lowest validation loss.",
        choices=("last", "best"),
    )


@dataclasses.dataclass(frozen=True)
class Recovery:
    """Sets what a run does when its loss diverges or its progress stops."""

    skips: int = key(
        0,
        "Sets how many batches a run may skip: after a loss that is not finite or has exploded, the run returns to "
        "the last good checkpoint and leaves that batch out. 0 stops the run at the first such loss.",
        low=0,
        high=1_000_000,
    )
    explosion: float = key(
        10.0,
        "Treats a loss as exploded if it exceeds this multiple of the median of the latest 16 logged losses. 0 "
        "switches the check off.",
        low=1.01,
        high=1e9,
        also=0,
    )
    hang_seconds: float = key(
        600.0,
        "Sets after how many seconds without progress a run writes down where each thread waits. 0 switches the check "
        "off.",
        low=0.1,
        high=1e7,
        also=0,
    )
    hang_exits: bool = key(
        False,
        "Ends a run that hangs (see hang_seconds) with exit code 70, so that its launcher can start it again.",
    )


@dataclasses.dataclass(frozen=True)
class Validation:
    """Sets the validation loss, the loss on fixed triples of an example, a time t and a noise."""

    examples: int = key(
        1024,
        "Sets the number of validation triples, a multiple of 8. More triples make the loss more precise and take "
        "longer.",
        low=8,
        high=2**24,
    )
    along: int = key(
        0,
        "Sets the number of triples, a multiple of 8, of the validation losses along a run: the first of `examples`, "
        "the same in all runs. Along the run only study.weights are then measured, and `ema` if training.select = "
        "'best' needs them. The end measures all triples and both kinds of weights, and the loss of the first triples "
        "there is the last point of the curve. 0, or as many as `examples`, measures everything along the run too.",
        low=8,
        high=2**24,
        also=0,
    )
    batch: int = key(
        256,
        "Sets the number of triples that the network evaluates at once. A larger value needs more memory; the loss "
        "does not depend on it.",
        low=1,
        high=2**24,
    )
    levels: str = key(
        "k/8",
        "Chooses the eight values of t in the triples: k/8 or (k+0.5)/8 for k = 0 to 7.",
        choices=("k/8", "(k+0.5)/8"),
    )

    @property
    def fewer(self) -> int:
        """The number of triples along the run, where that is not all of them, else 0."""
        return self.along if self.along < self.examples else 0
