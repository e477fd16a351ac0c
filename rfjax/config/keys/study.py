"""The section `study`: many runs, and the law that is fitted to them."""

import dataclasses
from typing import Any

from rfjax.config.rules import key


@dataclasses.dataclass(frozen=True)
class Study:
    """Sets the runs of a study, and the report that compares them."""

    name: str = key("scaling", "Sets the title of the report.")
    report: str = key(
        "scaling",
        "Chooses the report that compares the runs. `sampling` trains nothing: it samples the models of `source`.",
        choices=(
            "scaling",
            "formulations",
            "sampling",
            "transfer",
            "architectures",
            "repa",
            "representations",
            "captions",
            "encode",
            "suites",
            "evaluate",
        ),
        paths=True,
    )
    source: str = key(
        "",
        "Names the folder of the finished study whose models the report `sampling` samples, or the job "
        "`representations` measures. The latter also takes the folder of one run, or a checkpoint of another project.",
    )
    axes: dict[str, Any] = key(
        {},
        "Lists the keys in which the runs differ, with their values: axes.model.depth = (1, 2, 3) makes three runs. "
        "Several axes make all combinations of their values.",
    )
    seeds: tuple[int, ...] = key(
        (),
        "Sets how many seeds each value of axes.model.depth has, from the smallest: (3, 3, 2, 1) trains the two "
        "smallest three times, the third twice, and every larger one once, for the last number holds for the rest. "
        "Numbers beyond the values are not used. Seeds of small rungs cost little and tell how much of a loss is luck. "
        "Empty takes training.seed alone.",
        low=1,
        high=1000,
    )
    promise: float = key(
        0.0,
        "Sets the width that is promised for the 95 % interval of one new run's loss at promise_at, its upper end less "
        "its lower one, relative to the loss; the report says whether the promise was kept. 0 promises nothing. The "
        "job `design` writes it.",
        low=0,
        high=1,
    )
    promise_at: str = key(
        "",
        "Names the size that the promise is about: parameters=8e9, train_flops=1e21 or depth=38. Empty is the largest "
        "rung that is held out of the fit. With a number of examples, parameters=8e9,examples=2e10, the surface "
        "L(N, D) of `surface` is asked, fitted by `objective` to the ends of all runs.",
    )
    promise_probability: float = key(0.8, "Sets the probability with which the promise was made.", low=0.5, high=0.99)
    compare: str = key(
        "",
        "Names the axis, or several with commas between them, whose values are designs, each with a ladder of its own: "
        "flow.formulation. The report `scaling` then says how much less compute one design needs than another.",
    )
    compare_target: str = key(
        "",
        "Names the size of the second of two designs at whose loss they are compared: parameters=1e8, or "
        "train_flops=1e18 of its whole training. Empty takes its largest rung.",
    )
    x: str = key(
        "parameters",
        "Chooses the size that the law is a function of: the number of parameters, or the FLOPs of training.",
        choices=("parameters", "train_flops"),
    )
    law: str = key(
        "power_offset",
        "Chooses the law in the report's headline: `power` is L = A x^-alpha, `power_offset` adds a constant E to it, "
        "`broken_power` changes its exponent about one size, and `best` is the one of these that the rungs without "
        "the held-out ones speak for, or `power_offset` where they can't tell. E depends on the number of training "
        "examples.",
        choices=("power", "power_offset", "broken_power", "best"),
    )
    objective: str = key(
        "log_squares",
        "Chooses what the fit minimises: squared errors of the loss, squared errors of its logarithm, or the Huber "
        "loss of the latter, which outliers affect less.",
        choices=("squares", "log_squares", "log_huber"),
    )
    weights: str = key(
        "ema",
        "Chooses the weights whose validation loss is fitted: `ema` takes the moving average, `raw` the trained "
        "weights.",
        choices=("ema", "raw"),
    )
    hold_out: int = key(
        1,
        "Keeps this many of the largest runs out of the fit, and judges the fit by its prediction of them.",
        low=0,
        high=1000,
    )
    surface: bool = key(
        False,
        "Also fits a surface L(N, D) of parameters N and examples D to the checkpoints along each run, or, with "
        "training.steps as an axis, to the ends of all runs.",
    )
    branches: bool = key(
        False,
        "Trains what runs have in common once: of runs that differ in training.steps alone, the longest is the trunk, "
        "and each of the others begins from its checkpoint at the step at which its own decay starts. It needs "
        "optimizer.decay = 'wsd', and changes no result.",
    )
