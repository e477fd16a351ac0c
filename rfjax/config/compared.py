"""The designs that a study compares: the axes that tell them apart, and whether their losses are the same quantity."""

import math
from collections.abc import Mapping
from typing import Any

from rfjax import names
from rfjax.config.keys import Config
from rfjax.errors import UserError, nearest

RUNGS = ("model.depth", "training.seed")  # what the ladder of one design is made of
TARGETS = ("parameters", "train_flops")
FORMULATION = "flow.formulation"
# Kinds of formulations that differ in the density of t in training alone, so that their validation losses are of one
# quantity; all others predict something else, or see another mix of data and noise at the levels of t.
ALIKE = {
    "rf": ("rf", "rf/lognorm", "rf/mode", "rf/cosmap", "sit/linear", "repa/linear", "repa/linear/lognormal"),
    "cosine velocity": ("sit/gvp", "repa/cosine", "repa/cosine/lognormal"),
}


def compared_keys(text: str) -> tuple[str, ...]:
    """The keys that `study.compare` names."""
    return tuple(filter(None, (word.strip() for word in text.split(","))))


def design_of(config: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    """The design that a run belongs to, by its plain config: the values of these keys."""
    found = []
    for key in keys:
        section, _, name = key.rpartition(".")
        value = (config[section] if section else config)[name]
        found.append(f"{value:g}" if isinstance(value, float) else str(value) or f"no {name}")
    return ", ".join(found)


def target_of(text: str) -> tuple[str, float] | None:
    """The (kind, size) that `study.compare_target` names; None where it is empty.

    Raises:
        UserError: if it names no size.
    """
    if not text:
        return None
    kind, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if kind not in TARGETS or not 0 < value < math.inf:
        hint = nearest(kind, TARGETS) if kind not in TARGETS else ""
        raise UserError(
            f"config.study.compare_target = '{text}' names no size{hint}: write it like parameters=1e8 or "
            "train_flops=1e18"
        )
    return kind, value


def validated(formulation: str) -> str:
    """What the validation loss of a formulation is of: only where two have the same answer do losses compare."""
    kind, numbers = names.split(formulation)
    return next((name for name, kinds in ALIKE.items() if kind in kinds), names.join(kind, numbers))


def check_compare(config: Config) -> None:
    """Checks `study.compare` against the axes of the study.

    Raises:
        UserError: if it names no axis, or the designs have no ladders that could be compared.
    """
    study, keys = config.study, compared_keys(config.study.compare)
    if not keys:
        if study.compare_target:
            raise UserError(
                f"config.study.compare_target = '{study.compare_target}' needs config.study.compare, the axis whose "
                "designs are compared there"
            )
        return
    said = f"config.study.compare = '{study.compare}'"
    for key in keys:
        if key in RUNGS:
            raise UserError(f"{said}: the ladder of a design is made of {key}: name an axis that tells designs apart")
        if key not in study.axes:
            others = [axis for axis in study.axes if axis not in RUNGS]
            more = nearest(key, others) if others else f": add config.study.axes.{key} with its values"
            raise UserError(f"{said}: '{key}' is no axis of the study{more}")
        if len(set(study.axes[key])) < 2:
            raise UserError(f"{said}: config.study.axes.{key} has one value, and a comparison needs two or more")
    if study.report != "scaling":
        raise UserError(f"{said} works with config.study.report = 'scaling', not with '{study.report}'")
    if all(axis in keys or axis == RUNGS[1] for axis in study.axes):
        raise UserError(
            f"{said}: each design needs a ladder of sizes: add config.study.axes.{RUNGS[0]} = (1, 2, 3, 4, 5)"
        )
    _check_target(config)
    if FORMULATION in keys:
        asked = study.axes[FORMULATION]
        if len(set(map(validated, asked))) == len(set(asked)):
            raise UserError(
                f"{said}: the validation losses of {' and '.join(map(str, asked))} are of different quantities: none "
                "compares; config.study.report = 'formulations' ranks them by their samples"
            )


def _check_target(config: Config) -> None:
    target = target_of(config.study.compare_target)
    if target and target[0] == "parameters" and config.study.x == "train_flops":
        raise UserError(
            f"config.study.compare_target = '{config.study.compare_target}' is a number of parameters, and the law is "
            "one of config.study.x = 'train_flops': write train_flops=1e18, or take config.study.x = 'parameters'"
        )
