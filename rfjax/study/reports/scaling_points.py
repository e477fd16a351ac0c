"""Which runs of a scaling study stand in the trend, and which points in L(N, D). Imports no JAX."""

from collections.abc import Mapping, Sequence
from typing import Any

from rfjax import analysis
from rfjax.analysis.surface_promise import SurfacePoint
from rfjax.config.grid import STEPS
from rfjax.study.records import Records, RunRecord
from rfjax.study.run_records import finite

SURFACE_FROM = 0.1  # share of a run before which its checkpoints are no part of L(N, D): the warm-up and its wake
Line = tuple[RunRecord, dict[str, Any]]  # a run and a line of its validation


def of_ends(study: Mapping[str, Any], runs: Sequence[RunRecord]) -> bool:
    """Whether L(N, D) is of the ends of runs with several budgets, not of checkpoints along them."""
    return any(run.trunk for run in runs) or bool(study["surface"] and STEPS in study["axes"])


def of_trend(records: Records) -> list[RunRecord]:
    """The runs that the trend is of: of those that differ in their steps alone, the longest, where budgets are an axis.

    A trunk may have become a branch of a longer one since it was trained; both are one run up to its decay. A branch
    whose trunk can't be read does not stand for it.
    """
    runs, names = records.runs, records.study["runs"]
    if not of_ends(records.config["study"], runs):
        return list(runs)
    longest: dict[str, int] = {}
    for run in runs:
        longest[run.family] = max(run.steps, longest.get(run.family, 0))
    return [run for run in runs if run.steps == longest[run.family] and run.trunk not in names]


def surface_lines(records: Records, trend: analysis.Trend, study: Mapping[str, Any]) -> list[Line]:
    """The checkpoints along the runs of the trend, or their ends and those of all that differ in steps alone."""
    weights, names = study["weights"], {run.name for rung in trend.rungs for run in rung.runs}
    ends = of_ends(study, records.runs)
    families = {run.family for run in records.runs if run.name in names}
    behind = [
        run for run in records.runs if run.final(weights) and (run.family in families if ends else run.name in names)
    ]
    return [
        (run, line)
        for run in behind
        for line in ([run.final(weights)] if ends else run.curve(weights))
        if line["step"] >= SURFACE_FROM * run.steps and finite(line["loss"])
    ]


def groups(lines: Sequence[Line]) -> list[str]:
    """For each line the run whose luck it shares: the trunk of its branch, the longest of those alike, or itself."""
    branched = any(run.trunk for run, _ in lines)
    trunks: dict[str, RunRecord] = {}
    for run, _ in lines:
        if run.family not in trunks or run.steps > trunks[run.family].steps:
            trunks[run.family] = run
    return [trunks[run.family].name if branched else run.name for run, _ in lines]


def surface_points(lines: Sequence[Line]) -> list[SurfacePoint]:
    """The points of L(N, D)."""
    return [
        SurfacePoint(float(run.size["parameters"]), float(line["examples"]), float(line["loss"]), group, run.name)
        for (run, line), group in zip(lines, groups(lines), strict=True)
    ]
