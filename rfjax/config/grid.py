"""The grid of a study: all combinations of its axes, and how many seeds each size has."""

import itertools
from collections.abc import Iterator
from typing import Any

from rfjax.config.keys import Study
from rfjax.errors import UserError

SIZE, SEED, STEPS = "model.depth", "training.seed", "training.steps"


def combinations(study: Study) -> Iterator[dict[str, Any]]:
    """The values of each run's own keys, in order; with `study.seeds`, seeds are the last of them.

    Raises:
        UserError: if `study.seeds` has nothing to count for, or if seeds are an axis as well.
    """
    _check_seeds(study)
    for values in itertools.product(*study.axes.values()):
        one = dict(zip(study.axes, values, strict=True))
        if not study.seeds:
            yield one
            continue
        place = sorted(study.axes[SIZE]).index(one[SIZE])
        count = study.seeds[min(place, len(study.seeds) - 1)]
        yield from ({**one, SEED: seed} for seed in range(count))


def count(study: Study) -> int:
    """How many combinations there are, at most."""
    total = max(study.seeds, default=1)
    for values in study.axes.values():
        total *= len(values)
    return total


def steps_of(steps: int, exponent: float, depth: int) -> int:
    """The steps of a model of this depth by the rule of `training.steps_exponent`."""
    return max(1, round(steps * depth**exponent))


def _check_seeds(study: Study) -> None:
    if not study.seeds:
        return
    if SIZE not in study.axes:
        raise UserError(
            f"config.study.seeds counts the seeds of each depth, and config.study.axes.{SIZE} is not there: add it, "
            f"or list seeds in config.study.axes.{SEED}"
        )
    if SEED in study.axes:
        raise UserError(
            f"config.study.seeds and config.study.axes.{SEED} both choose the seeds: leave one of them out, such as "
            'by --config.study.seeds="()"'
        )
