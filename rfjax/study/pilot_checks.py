"""Which finished runs make a pilot: of one ladder, or of two designs that are compared. Imports no JAX."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rfjax import config as configs
from rfjax.analysis.design import AT_ONCE
from rfjax.config.grid import STEPS, steps_of
from rfjax.errors import UserError, nearest
from rfjax.study import records
from rfjax.study.ladder_config import same
from rfjax.study.records import RunRecord
from rfjax.study.reports.scaling_compare import why_not

FREE = ("model.depth", "training.seed")  # what may differ between the runs of a pilot


def steps_by_depth(config: Mapping[str, Any]) -> Callable[[float], int]:
    """Depth -> steps of a run, by the study's rule."""
    return lambda depth: steps_of(config["training"]["steps"], config["training"]["steps_exponent"], depth)


def by_compute(study: records.Records) -> records.Records:
    """The study with laws in the FLOPs of training: multipliers are of compute."""
    config = study.config | {"study": study.config["study"] | {"x": "train_flops"}}
    return dataclasses.replace(study, study=study.study | {"config": config})


def value_of(config: Mapping[str, Any], path: str) -> Any:
    section, _, name = path.rpartition(".")
    return config.get(section, {}).get(name)


def two_values(study: records.Records, runs: Sequence[RunRecord], path: str) -> tuple[Any, Any]:
    """The two values of an axis, in the study's order; refuses another number."""
    axes = {name: values for name, values in study.config["study"]["axes"].items() if name not in FREE}
    if path not in axes:
        others = f"its axes are {', '.join(axes)}" if axes else "it has no axis but depth and seed"
        raise UserError(
            f"config.design.compare = '{path}' is no axis of the pilot in {study.folder} ({others}): name an axis with "
            f"two values{nearest(path, axes)}, or run a pilot with --config.study.axes.{path}='(..., ...)'"
        )
    known = [value for value in axes[path] if any(value_of(run.config, path) == value for run in runs)]
    if len(known) != 2:
        raise UserError(
            f"config.design.compare = '{path}' needs finished runs of two values, and {study.folder} has those of "
            f"{len(known)} ({', '.join(map(str, known)) or 'none'}): run a pilot whose axis {path} has two"
        )
    if study.config["study"]["objective"] != AT_ONCE:
        raise UserError(
            f"config.design.compare fits squared errors of the loss's logarithm: set config.study.objective = "
            f"'{AT_ONCE}' in the pilot, not '{study.config['study']['objective']}'"
        )
    return known[0], known[1]


def check_quantity(runs: Sequence[RunRecord], path: str, values: tuple[Any, Any], weights: str) -> None:
    """Refuses two designs whose validation losses are not one quantity: no compute makes them equal."""
    first, second = ([run for run in runs if value_of(run.config, path) == value] for value in values)
    if why := why_not(first, second, weights):
        raise UserError(f"config.design.compare = '{path}' can't compare {values[0]} and {values[1]}: {why}")


def check_alike(study: records.Records, runs: Sequence[RunRecord], compare: str, budgets: bool = False) -> None:
    """Refuses runs that no one ladder holds; with `budgets`, runs of one depth may differ in their steps."""
    if study.apart:
        raise UserError(
            f"the data of {', '.join(study.apart)} in {study.folder} are not those of the other runs: remove their "
            "folders and train them again before a design"
        )
    grids: dict[str, str] = {}
    for run in runs:
        grids.setdefault(run.final(study.config["study"]["weights"])["grid"], run.name)
    if len(grids) > 1:
        said = " and ".join(f"{name} on {grid}" for grid, name in grids.items())
        raise UserError(
            f"the runs in {study.folder} were validated on different grids of t ({said}): no law joins them; remove "
            "the folders of one kind and run the study's command again"
        )
    free = (*FREE, compare, *((STEPS,) if budgets or study.config["training"]["steps_exponent"] else ()))
    for run in runs[1:]:
        if same(runs[0].config, run.config, free):
            continue
        found = configs.differences(runs[0].config, run.config)
        changes = [said for said in found if said.split(" ")[0] not in free]
        key = changes[0].split(" ")[0]
        if key == STEPS and study.config["study"]["surface"]:
            hint = "say on how many examples the target is trained, as in config.design.target=depth=8,examples=2e5"
        elif key in study.config["study"]["axes"] and not compare:
            hint = f"name a study without the axis {key}, or compare its two values by config.design.compare={key}"
        else:
            also = f", {STEPS}" * budgets
            hint = f"name a study whose runs differ in model.depth{also} and training.seed alone"
        raise UserError(
            f"{runs[0].name} and {run.name} in {study.folder} are no rungs of one ladder ({changes[0]}): {hint}"
        )
    if budgets:
        return
    steps = steps_by_depth(study.config)
    if odd := [run for run in runs if run.steps != steps(run.depth)]:
        raise UserError(
            f"{odd[0].name} in {study.folder} was trained for {odd[0].steps:,} steps and the study's config says "
            f"{steps(odd[0].depth):,} at its depth: no law joins runs of other rules; remove its folder and run the "
            "study's command again"
        )
