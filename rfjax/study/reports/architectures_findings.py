"""From a study's records to its comparison of backbones: curves, where they end, compute multipliers (SD3 Fig. 4)."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rfjax import analysis
from rfjax import config as configs
from rfjax.analysis.race import Course, Race, analyse_race
from rfjax.evaluation.quantity import Quantity
from rfjax.study.records import Records, RunRecord
from rfjax.study.reports import paper
from rfjax.study.reports.compare import RATE, Rates, checkpoints, choose_rates, quantities_of
from rfjax.study.run_records import number

LABELS = {"dit": "DiT", "crossdit": "CrossDiT", "uvit": "UViT", "mmdit": "MM-DiT", "mmdit3": "MM-DiT, 3 sets"}


@dataclass(frozen=True)
class Findings:
    """All that the report says; the runs are by name, the setting, of the sampler, is "" without scores."""

    race: Race
    runs: dict[str, RunRecord]
    weights: str
    setting: str
    quantities: tuple[Quantity, ...]
    rates: Rates
    warnings: tuple[str, ...]

    def size_of(self, name: str) -> dict[str, int]:
        """The size of a backbone: parameters, FLOPs."""
        return self.runs[self.race.entrants[name].runs[0].name].size

    def measured(self, key: str) -> bool:
        """Whether any checkpoint has this quantity."""
        runs = (run for one in self.race.entrants.values() for run in one.runs)
        return any(math.isfinite(point[key]) for run in runs for point in run.points)


def label(name: str) -> str:
    """The paper's way of writing a backbone; those that it has not keep their name."""
    return LABELS.get(name, name)


def backbone_of(run: RunRecord) -> str:
    """Whom a run belongs to."""
    return run.config["model"]["backbone"]


def analyse(study: Records) -> Findings:
    """Compares the backbones, as far as they are trained."""
    weights = study.config["study"]["weights"]
    chosen = choose_rates(study, backbone_of, weights)
    quantities = quantities_of(chosen.runs)
    setting = analysis.main_setting(checkpoints(chosen.runs, weights, quantities))
    found: dict[str, dict[int, Course]] = {}
    trouble = []
    for run in chosen.runs:
        name, seed = backbone_of(run), run.seed
        if seed in found.setdefault(name, {}):
            trouble.append(f"{run.name} is left out: {found[name][seed].name} has the same backbone and seed.")
            continue
        found[name][seed] = _course(run, weights, setting, quantities)
        if run.state == "complete" and not found[name][seed].final:
            trouble.append(f"{run.name} is complete, but has no validation loss at its end: it is not ranked.")
        lines = [line for line in run.scores if line["weights"] == weights and line["setting"] == setting]
        trouble += [f"{run.name} at step {line['step']}: {line['problem']}." for line in lines if line.get("problem")]
        if setting and run.state == "complete" and not lines:
            trouble.append(f"{run.name} is complete, but without scores at {setting}.")
    courses = {name: [by_seed[seed] for seed in sorted(by_seed)] for name, by_seed in found.items()}
    runs = {run.name: run for run in chosen.runs}
    kept = [runs[course.name] for name in courses for course in courses[name]]
    averaged = ("loss", *(q.key for q in quantities), "flops", "seconds")
    race = analyse_race(courses, averaged, max((run.steps for run in kept), default=0), paper.FIG_4)
    said = [*study.states(), *chosen.warnings, *trouble, *_unlike(chosen, race, runs)]
    return Findings(race, runs, weights, setting, quantities, chosen, tuple(dict.fromkeys(said)))


def _course(run: RunRecord, weights: str, setting: str, quantities: Iterable[Quantity]) -> Course:
    keys = [q.key for q in quantities]
    scores = {s["step"]: s for s in run.scores if s["weights"] == weights and s["setting"] == setting}
    points = tuple(
        {name: line[name] for name in ("step", "examples", "flops", "seconds", "loss")}
        | {key: number(scores.get(step, {}), key) for key in keys}
        for step, line in sorted({line["step"]: line for line in run.curve(weights)}.items())
    )
    end, last = run.final(weights), run.last_scores().get((weights, setting), {})
    final = {name: float(end[name]) for name in ("loss", "flops", "seconds")} if end else {}
    return Course(run.name, run.seed, points, final | {key: number(last, key) for key in keys if final})


def _unlike(chosen: Rates, race: Race, runs: Mapping[str, RunRecord]) -> list[str]:
    """What keeps the comparison from being one of backbones alone."""
    kept = [runs[run.name] for one in race.entrants.values() for run in one.runs]
    said = []
    sentences = (s for run in kept[1:] for s in configs.differences(_alike(kept[0].config), _alike(run.config)))
    paths = dict.fromkeys(sentence.split()[0] for sentence in sentences)
    if chosen.choices:
        paths.pop(RATE, None)
    if paths:
        said.append(f"The runs differ in more than backbone and seed ({', '.join(paths)}): they are not trained alike.")
    seeds = {label(name): [run.seed for run in one.complete] for name, one in race.entrants.items()}
    if len({tuple(numbers) for numbers in seeds.values()}) > 1:
        shown = "; ".join(f"{name}: {', '.join(map(str, numbers)) or 'none'}" for name, numbers in seeds.items())
        said.append(f"The backbones' complete runs have different seeds ({shown}); multipliers pair those of both.")
    elif seeds and all(len(numbers) == 1 for numbers in seeds.values()):
        said.append("One seed: nothing tells luck from rule, and there are no intervals over seeds.")
    if decays := {run.config["optimizer"]["decay"] for run in kept} - {"none"}:
        said.append(
            f"The learning rate decays ({', '.join(decays)}): a checkpoint along a run is then not the end of a "
            "shorter run, and a multiplier takes it for one."
        )
    return said


def _alike(config: Mapping[str, dict]) -> dict[str, dict]:
    """A config without what the runs are meant to differ in."""
    plain = json.loads(json.dumps(config))
    plain["model"].pop("backbone")
    plain["training"].pop("seed")
    return plain


def to_json(findings: Findings) -> dict[str, Any]:
    record = findings.race.record()
    backbones = [{"name": one["name"], "size": findings.size_of(one["name"]), **one} for one in record.pop("entrants")]
    return {
        "weights": findings.weights,
        "setting": findings.setting,
        "backbones": backbones,
        "multipliers": record.pop("multipliers"),
        "learning_rates": [choice.to_plain() for choice in findings.rates.choices],
        **record,
        "paper": {"order": paper.FIG_4, "first": paper.FIG_4_FIRST},
        "warnings": findings.warnings,
    }
