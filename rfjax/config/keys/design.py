"""The section `design`: which ladder answers a question, at what cost."""

import dataclasses

from rfjax.config.rules import key


@dataclasses.dataclass(frozen=True)
class Design:
    """The job `design`: from the finished runs in config.workdir, proposes the ladder that predicts a larger model."""

    target: str = key(
        "",
        "Names the size whose loss is wanted: parameters=8e9, train_flops=1e21 (of its whole training) or depth=38. It "
        "is trained for as many steps as the pilot's runs. With a number of examples, parameters=8e9,examples=2e10, "
        "the pilot is a study of depths and token budgets with a surface L(N, D), such as configs/scaling.py:surface, "
        "and budgets are chosen too.",
    )
    compare: str = key(
        "",
        "Names an axis with two values in the pilot, such as flow.formulation: the question is then how many times "
        "less compute the second needs than the first for the loss that the second has at the target. Empty asks for "
        "the loss itself.",
    )
    width: float = key(
        0.0,
        "Sets the wanted width of the 95 % interval of one new run's loss at the target, its upper end less its lower "
        "one, relative to the loss: 0.02 is 1 % to either side; with compare, that of the multiplier, relative to it. "
        "0 asks for the best within the budget alone.",
        low=0,
        high=10,
    )
    probability: float = key(
        0.8, "Sets the probability with which the proposed ladder keeps that width.", low=0.5, high=0.99
    )
    budget: float = key(
        0.0,
        "Sets what the ladder may cost, in config.design.unit; runs that the pilot has cost nothing. 0 allows what "
        "training the target once costs, of both designs with compare.",
        low=0,
        high=1e40,
    )
    unit: str = key(
        "flops",
        "Chooses the unit of costs: FLOPs, hours of one device of type config.plan.chip at config.plan.utilisation, "
        "or seconds at the FLOP/s that the pilot's runs reached.",
        choices=("flops", "device_hours", "seconds"),
    )
    least_seeds: int = key(
        1,
        "Sets how many seeds each rung has at least. The cheapest ladder often has one, since the simulations hold the "
        "law for right; with two or more, its report can tell a law that does not fit from noise.",
        low=1,
        high=8,
    )
    trials: int = key(
        200,
        "Sets how many ladders are simulated for each candidate. The time is proportional to it.",
        low=20,
        high=100_000,
    )
    seed: int = key(0, "Sets the seed of the simulations.", low=0, high=2**32 - 1)
