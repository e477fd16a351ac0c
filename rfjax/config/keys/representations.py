"""The section `representations`: what is measured of a network's hidden states (REPA Figs. 2 and 3)."""

import dataclasses

from rfjax.config.rules import LARGEST_SEED, key


@dataclasses.dataclass(frozen=True)
class Representations:
    """Sets the measurement `representations`: CKNNA with frozen encoders, and a linear probe, of every block."""

    encoders: tuple[str, ...] = key(
        (),
        "Lists the frozen encoders that hidden states are compared with by CKNNA, written as in alignment.encoders. "
        "Empty takes those of alignment.encoders.",
    )
    levels: tuple[float, ...] = key(
        (0.0, 0.25, 0.5),
        "Lists the noise levels t at which hidden states are read; 0 is data, 1 is noise. Each takes one more pass "
        "over the examples.",
        low=0,
        high=1,
    )
    weights: str = key(
        "ema",
        "Chooses the weights that are measured: `raw` takes the trained weights, `ema` their moving average.",
        choices=("both", "raw", "ema"),
    )
    examples: int = key(
        1024,
        "Sets the number of validation pictures that CKNNA compares and that test the probe; REPA takes 10,000. More "
        "make both more precise and take longer.",
        low=4,
        high=2**24,
    )
    batch: int = key(
        64,
        "Sets the number of pictures on the devices at once. A larger value needs more memory; the results do not "
        "depend on it.",
        low=1,
        high=2**24,
    )
    k: int = key(10, "Sets the number of nearest neighbours that CKNNA compares.", low=2, high=100_000)
    kind: str = key(
        "reference",
        "Chooses the variant of CKNNA: `reference` is that of the public code, `formula` that of the paper.",
        choices=("reference", "formula"),
    )
    probe: str = key(
        "logistic",
        "Chooses the protocol of the linear probe: `logistic` is the optimum of a logistic regression, which suits "
        "some thousand pictures, `repa` is Adam for 90 epochs of batch 16384, as the paper says, `mae` is LARS with "
        "warm-up, as in MAE's code. `none` switches the probe off.",
        choices=("logistic", "repa", "mae", "none"),
    )
    probe_examples: int = key(
        4096,
        "Sets the number of training pictures that the probe learns from. Their pooled states of all blocks are in "
        "memory at once, with 4 bytes for each value.",
        low=1,
        high=2**31 - 1,
    )
    probe_epochs: int = key(
        90,
        "Sets the number of epochs of the protocols `repa` and `mae`; both papers take 90.",
        low=1,
        high=100_000,
    )
    probe_batch: int = key(
        16_384,
        "Sets the batch of the protocols `repa` and `mae`; both papers take 16384. A larger one than the training "
        "pictures takes all of them, so that a small set needs a smaller one for as many steps.",
        low=1,
        high=2**24,
    )
    probe_seed: int = key(
        0, "Seeds the probe: its initial weights and the order of its examples.", low=0, high=LARGEST_SEED
    )
    classes: int = key(
        0,
        "Sets the number of classes of the field `label`. 0 takes the largest label of the training pictures plus one.",
        low=0,
        high=10_000_000,
    )
