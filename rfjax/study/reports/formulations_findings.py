"""From a contest's records to its findings: a line of scores for each variant, control setting and seed, and ranks."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rfjax import analysis, names
from rfjax.analysis import Contest, Measure, Setting
from rfjax.evaluation.quantity import Quantity
from rfjax.study.records import Records, RunRecord
from rfjax.study.reports import paper
from rfjax.study.reports.compare import NOUNS, Rates, choose_rates, floors_of, quantities_of, schedule_of
from rfjax.study.run_records import finite, number


@dataclass(frozen=True)
class Findings:
    """All that the report of a contest says: ranks, learning rates and who stands at which, quantities, sentences."""

    contest: Contest
    rates: Rates
    quantities: tuple[Quantity, ...]
    warnings: tuple[str, ...]


def canonical(name: str) -> str:
    """The paper's name of a formulation, to two decimals; the mode density with s = 0 is plain rf."""
    kind, numbers = names.split(name)
    made = names.join(kind, tuple(round(n, 2) + 0.0 for n in numbers or ()))
    return "rf" if made == "rf/mode(0.00)" else made


def variant_of(run: RunRecord) -> str:
    """Whom a run belongs to."""
    return canonical(run.config["flow"]["formulation"])


def analyse(study: Records) -> Findings:
    """Ranks a contest, as far as it is run."""
    chosen = choose_rates(study, variant_of, study.config["study"].get("weights", "ema"))
    quantities = quantities_of(chosen.runs)
    measures, trouble = read_measures(chosen.runs, quantities)
    published = {name: {v: getattr(row, name) for v, row in paper.TABLE_1.items()} for name in paper.Ranks._fields}
    contest = analysis.analyse_contest(measures, {q.key: q.better for q in quantities}, published)
    silent = [run.name for run in study.runs if run.state == "complete" and not run.scores]
    said = [*study.states(), *chosen.warnings, *trouble, *contest.warnings]
    said += [f"Complete, but without scores: {', '.join(silent)}."] if silent else []
    axes = study.config["study"].get("axes") or {}
    asked = set(map(variant_of, study.runs)) | set(map(canonical, axes.get("flow.formulation", ())))
    said += contest.gaps(len(asked), paper.SAMPLERS)
    said += [sentence for q in quantities for sentence in contest.on_luck(q.key, q.label, bool(q.parts))]
    return Findings(contest, chosen, quantities, tuple(dict.fromkeys(said)))


def read_measures(
    runs: Iterable[RunRecord], quantities: Sequence[Quantity]
) -> tuple[dict[Setting, dict[str, Measure]], list[str]]:
    """The last scores of every run, seeds averaged, and sentences on what could not be used."""
    found: dict[Setting, dict[str, list[Measure]]] = {}
    alike: dict[tuple[str, str], list[RunRecord]] = {}
    trouble = []
    for run in runs:
        variant, without = variant_of(run), []
        alike.setdefault((variant, run.dataset), []).append(run)
        for (weights, name), line in run.last_scores().items():
            values = {q.key: float(line[q.key]) for q in quantities if finite(line.get(q.key))}
            if len(values) < len(quantities) and line.get("problem"):
                values = {q.key: q.worst for q in quantities}  # it was drawn, and is worse than any that is scored
                trouble.append(f"{run.name} is last at {name} ({weights}): {line['problem']}.")
            elif len(values) < len(quantities):
                without.append(f"{name} ({weights})")
                continue
            setting = Setting(run.dataset, weights, int(line["steps"]), float(line["guidance"]))
            one = _measure(run, line, values, quantities)
            found.setdefault(setting, {}).setdefault(variant, []).append(one)
        if without:
            nouns = " and ".join(dict.fromkeys(NOUNS[q.better] for q in quantities))
            trouble.append(f"{run.name}: no {nouns} at {', '.join(without)}: left out.")
    for (variant, dataset), members in alike.items():
        if len(set(map(_recipe, members))) > 1:
            trouble.append(f"{variant} on {dataset}: its runs differ in more than the seed, yet are averaged.")
        if len({run.seed for run in members}) < len(members):
            shown = ", ".join(run.name for run in members)
            trouble.append(f"{variant} on {dataset}: {shown} share a seed, and count as one run, their mean.")
    means = {s: {v: analysis.mean_measure(group) for v, group in groups.items()} for s, groups in found.items()}
    return means, trouble


def _measure(
    run: RunRecord, line: Mapping[str, Any], values: Mapping[str, float], quantities: Sequence[Quantity]
) -> Measure:
    drawn = all(map(math.isfinite, values.values()))
    parts = {q.key: (line.get(q.parts) or {}) if drawn else {} for q in quantities if q.parts}
    count, floors = floors_of(line, quantities)
    return Measure(
        values=values,
        errors={q.key: number(line, q.error) for q in quantities},
        floors=floors,
        parts={key: {name: number(of, name) for name in of} for key, of in parts.items()},
        path_length=number(line, "path_length"),
        step=line["step"],
        count=count,
        grid=schedule_of(run, line),
        by_seed={run.seed: values},
    )


def _recipe(run: RunRecord) -> str:
    """What runs of one variant and data set should have in common."""
    config = dict(run.config)
    config["training"] = {key: value for key, value in config["training"].items() if key != "seed"}
    return json.dumps([config[key] for key in ("data", "text", "model", "optimizer", "training")])


def to_json(findings: Findings) -> dict[str, Any]:
    contest = findings.contest
    return {
        "winners": contest.winners,
        "guidance_of_columns": contest.guidance,
        "seeds": contest.seeds,
        "grids": contest.grids,
        "learning_rates": [choice.to_plain() for choice in findings.rates.choices],
        **contest.record(),
        "paper": {variant: row._asdict() for variant, row in paper.TABLE_1.items()},
        "warnings": findings.warnings,
    }
