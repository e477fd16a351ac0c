"""From a scaling study's records to its findings: a ladder is read, its trend analysed. Imports no JAX."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rfjax import analysis
from rfjax.analysis.allocation import Distance
from rfjax.analysis.levels import above_floors
from rfjax.analysis.surface_promise import SurfaceAnswer
from rfjax.evaluation.quantity import Quantity
from rfjax.study import targets
from rfjax.study.records import Records, RunRecord
from rfjax.study.reports.compare import checkpoints, dataset_name, quantities_of
from rfjax.study.reports.scaling_answer import Judged, judge
from rfjax.study.reports.scaling_optimum import distances
from rfjax.study.reports.scaling_points import Line, groups, of_trend, surface_lines, surface_points
from rfjax.study.reports.surface_answer import judge_surface
from rfjax.study.run_records import finite


@dataclass(frozen=True)
class Findings:
    """All that the report of a scaling study says; `study` is the config's section.

    Attributes:
        scored: checkpoints with scores of their samples.
        relations: how the loss goes with those scores.
        on_branches: what branches saved, in a sentence or two; "" where there are none.
        judged: the answer of the law, or of the surface, at the size in question, and the promise; None without one.
        optimum: each rung's distance from its compute-optimal point; () without a surface.
        falling: a sentence on runs whose training loss still fell at their end; "" where none did."""

    study: dict[str, Any]
    trend: analysis.Trend
    sweeps: tuple[analysis.RateSweep, ...]
    surface: analysis.Surface
    quantities: tuple[Quantity, ...]
    scored: tuple[analysis.Checkpoint, ...]
    relations: tuple[analysis.Relation, ...]
    warnings: tuple[str, ...]
    on_branches: str = ""
    judged: Judged | SurfaceAnswer | None = None
    optimum: tuple[Distance, ...] = ()
    falling: str = ""


def analyse(records: Records) -> Findings:
    """Fits and judges a scaling study; the trend is that of the trunks, where it has branches."""
    study, runs = records.config["study"], records.runs
    weights, law = study["weights"], {key: study[key] for key in ("x", "law", "objective", "hold_out")}
    trunks = of_trend(records)
    measured = [measured_of(run, study["x"], weights) for run in trunks if run.final(weights)]
    losses: dict[int, dict[float, list[float]]] = {}  # depth -> learning rate -> the losses of its runs
    lost = []
    for run in trunks:
        known = losses.setdefault(run.depth, {}).setdefault(run.learning_rate, [])
        known += [final["loss"]] if (final := run.final(weights)) else []
        if reason := run.why_lost(weights):
            lost.append(analysis.Lost(run.name, size_of(run, study["x"]), run.setting, reason))
    trend = analysis.analyse_trend(analysis.build_ladder(measured, lost), **law)
    lines = surface_lines(records, trend, study) if study["surface"] else []
    surface = _surface(records, trend, study, lines) if study["surface"] else analysis.Surface()
    quantities = quantities_of(runs)
    scored, fractions = checkpoints(runs, weights, quantities), {q.key for q in quantities if q.parts}
    sweeps = analysis.sweep_rates(losses)
    target = targets.parse(study["promise_at"])
    if target and target.examples:
        judged, unjudged = judge_surface(study, target, surface_points(lines), runs)
    else:
        judged, unjudged = judge(study, trend, trunks)
    relations = analysis.relate(scored, {q.key: q.better for q in quantities}, fractions)
    warnings = [
        *records.states(),
        *trend.warnings,
        *filter(None, [unjudged]),
        *surface.warnings,
        *analysis.step_warnings(trend.steps, trend.ladder.spread),
        *(sentence for sweep in sweeps for sentence in sweep.warnings),
    ]
    said = tuple(dict.fromkeys(warnings))
    branches = describe_branches(runs)
    optimum = distances(records, trend, surface)
    falling = analysis.under_trained({r.name: [one["loss"] for one in r.train if finite(one["loss"])] for r in trunks})
    return Findings(
        study, trend, sweeps, surface, quantities, scored, relations, said, branches, judged, optimum, " ".join(falling)
    )


def describe_branches(runs: Sequence[RunRecord]) -> str:
    """What branches saved: the FLOPs of these runs over those of the same runs trained apart; "" without branches."""
    if not any(run.trunk for run in runs):
        return ""
    step_flops = {run.name: run.size["train_flops"] * run.config["training"]["batch"] for run in runs}
    apart = sum(step_flops[run.name] * run.steps for run in runs)
    spent = sum(step_flops[run.name] * (run.steps - run.first) for run in runs)
    return (
        f"Trunks ({sum(not run.trunk for run in runs)}) and branches ({sum(bool(run.trunk) for run in runs)}) took "
        f"{spent:.2e} FLOPs, {spent / apart:.2f} of what these runs would take trained apart. A branch's steps, FLOPs "
        "and seconds count its trunk's up to the decay. Branches of one trunk share its luck: they count as one run "
        "in the intervals."
    )


def size_of(run: RunRecord, x: str) -> float | None:
    """A run's place on the law's axis: its "parameters", or the FLOPs of its whole training, "train_flops"."""
    if x == "parameters":
        return float(run.size["parameters"])
    flops = [line["flops"] for line in (*run.validation, *run.train) if line["step"] == run.steps]
    return float(flops[0]) if flops else None


def floors_of_levels(final: dict[str, Any], key: str = "floors") -> tuple[float | None, ...]:
    """The known floor of each level as a validation line holds it; None where none is known, or none was recorded."""
    known, count = final.get(key), len(final["levels"])
    if not isinstance(known, list) or len(known) != count:
        return (None,) * count
    return tuple(float(value) if finite(value) else None for value in known)


def measured_of(run: RunRecord, x: str, weights: str) -> analysis.Measured:
    final = run.final(weights)
    return analysis.Measured(
        name=run.name,
        x=size_of(run, x),
        setting=run.setting,
        seen=final["examples"],
        loss=float(final["loss"]),
        stderr=final["stderr"] if finite(final["stderr"]) else None,
        grid=final["grid"],
        levels=tuple(final["levels"]),
        floors=floors_of_levels(final) if "floors" in final else None,
        floors_drawn=floors_of_levels(final, "floors_drawn"),
        triples=run.examples.get(weights),
        data=f"the data set {dataset_name(run.config)}",
    )


def _surface(
    records: Records, trend: analysis.Trend, study: dict[str, Any], measured: Sequence[Line]
) -> analysis.Surface:
    """L(N, D) from these lines of validation."""
    names = groups(measured)
    points = [
        (run.size["parameters"], line["examples"], line["loss"], line["flops"], name)
        for (run, line), name in zip(measured, names, strict=True)
    ]
    found = analysis.analyse_surface(points, study["hold_out"])
    by_level = analysis.level_surfaces(
        [(n, d, name) for n, d, _, _, name in points],
        [
            above_floors(line["levels"], *map(partial(floors_of_levels, line), ("floors", "floors_drawn")))
            for _, line in measured
        ],
        [(row.name, row.t, row.floor) for row in trend.levels[: len(measured[0][1]["levels"]) if measured else 0]],
        study["hold_out"],
    )
    rest = sorted({run.name for run in records.runs} - {run.name for run, _ in measured})
    said = [f"L(N, D) is of the trend's runs alone, without {', '.join(rest)}."] if rest else []
    return analysis.Surface(found.fit, found.cuts, found.optimum, (*found.warnings, *said), by_level)


def to_json(findings: Findings) -> list[dict[str, Any]]:
    found = analysis.fit_records(findings.trend, findings.surface)
    if isinstance(findings.judged, SurfaceAnswer):
        found.append({"of": found[0]["of"], "rungs": f"all, asked at {findings.study['promise_at']}",
                      **findings.judged.fit.record()})  # fmt: skip
    return found
