"""Branches: of runs that differ in their number of steps alone, what they have in common is trained once."""

import dataclasses
from collections.abc import Sequence

from rfjax.config.keys import Config
from rfjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Branch:
    """Where a run branches off.

    Attributes:
        trunk: the name of the run that it begins from.
        step: of the trunk's checkpoint, at which its own decay starts.
    """

    trunk: str
    step: int


def branches(runs: Sequence[tuple[str, Config]]) -> dict[str, Branch]:
    """A study's runs that are branches, by name; empty unless config.study.branches is set.

    Args:
        runs: as `rfjax.config.runs` lists them.

    Raises:
        UserError: if branches are asked for, and no two runs differ in config.training.steps alone.
    """
    if not any(run.study.branches for _, run in runs):
        return {}
    groups: dict[str, list[tuple[int, str]]] = {}
    for name, run in runs:
        alike = dataclasses.replace(run, training=dataclasses.replace(run.training, steps=1))
        groups.setdefault(repr(alike), []).append((run.training.steps, name))
    known = dict(runs)
    found = {
        name: Branch(max(group)[1], known[name].optimizer.decay_start(steps))
        for group in groups.values()
        for steps, name in group
        if name != max(group)[1]
    }
    if not found:
        raise UserError(
            "config.study.branches needs runs that differ in their number of steps: give config.study.axes."
            "training.steps several values, or set config.study.branches = False"
        )
    return found
