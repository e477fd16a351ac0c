"""From a study's records to what alignment does: curves of each arm, speed-ups over the vanilla runs, orders (REPA)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rfjax import analysis
from rfjax.analysis.multipliers import Estimate, over_seeds
from rfjax.analysis.ranking import Agreement, agreement
from rfjax.analysis.speed_up import SpeedUp, speed_up
from rfjax.evaluation.quantity import Quantity
from rfjax.study.records import Records, RunRecord
from rfjax.study.reports import repa_paper
from rfjax.study.reports.compare import checkpoints, quantities_of
from rfjax.study.run_records import number

VANILLA = "vanilla"
LOSS = Quantity("loss", "validation loss", "lower")
ACCURACY = Quantity("accuracy", "probe accuracy", "higher")
BUDGETS = {"step": "steps", "flops": "FLOPs", "all_flops": "FLOPs with encoder and projector"}
SETTINGS = ("encoders", "weight", "block", "loss", "projector", "normalize", "until")  # that tell arms apart


@dataclass(frozen=True)
class Course:
    """One run along its training: points of step, flops, all_flops and each quantity, NaN where not measured."""

    name: str
    seed: int
    points: tuple[Mapping[str, float], ...]
    complete: bool

    def curve(self, x: str, key: str) -> tuple[list[float], list[float]]:
        """The measurements of one quantity."""
        found = [(p[x], p[key]) for p in self.points if math.isfinite(p[key]) and p[x] > 0]
        return [a for a, _ in found], [b for _, b in found]

    def last(self, key: str) -> float:
        """The last measurement of one quantity, NaN without any."""
        return next(iter(self.curve("step", key)[1][::-1]), math.nan)


@dataclass(frozen=True)
class Arm:
    """Runs that differ in their seed alone.

    Attributes:
        size: depth of the network.
        label: VANILLA, or what tells its alignment from that of others.
        settings: of its alignment.
        runs: one a seed.
        final: key of a quantity -> its last value, averaged over complete runs.
        speed_ups: key of a quantity -> budget -> how much sooner it reaches the vanilla arm's final value.
    """

    size: int
    label: str
    settings: Mapping[str, Any]
    runs: tuple[Course, ...]
    final: dict[str, Estimate]
    speed_ups: dict[str, dict[str, SpeedUp]]

    @property
    def complete(self) -> tuple[Course, ...]:
        return tuple(run for run in self.runs if run.complete)


@dataclass(frozen=True)
class Findings:
    """All that the report says; `orders`: a table of the paper -> our values and its own, and their agreement."""

    arms: tuple[Arm, ...]
    runs: dict[str, RunRecord]
    quantities: tuple[Quantity, ...]
    weights: str
    setting: str
    orders: dict[str, tuple[dict[str, float], dict[str, float], Agreement]]
    warnings: tuple[str, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The depths, ascending."""
        return tuple(sorted({arm.size for arm in self.arms}))

    @property
    def compared(self) -> tuple[Quantity, ...]:
        """The quantities in which vanilla runs get anywhere; all of them where nothing is compared."""
        flat = lambda key: [arm.speed_ups[key]["step"].flat for arm in self.arms if key in arm.speed_ups]  # noqa: E731
        return tuple(q for q in self.quantities if not (found := flat(q.key)) or not all(found))

    def of(self, size: int) -> list[Arm]:
        """The arms of one depth, vanilla first."""
        return [arm for arm in self.arms if arm.size == size]


def analyse(study: Records) -> Findings:
    """Compares each arm with the vanilla runs of its depth, as far as they are trained."""
    weights = study.config["study"]["weights"]
    scores = quantities_of(study.runs)
    setting = analysis.main_setting(checkpoints(study.runs, weights, scores))
    grouped: dict[tuple[int, str], list[RunRecord]] = {}
    said = [*study.states()]
    varied = _varied(study.runs)
    for run in study.runs:
        grouped.setdefault((run.depth, label_of(run, varied)), []).append(run)
    keys = [LOSS, *scores, *_similarities(study.runs), ACCURACY]
    courses = {key: tuple(_course(run, weights, setting, keys) for run in runs) for key, runs in grouped.items()}
    values = {q.key: {p[q.key] for of in courses.values() for run in of for p in run.points} for q in keys}
    known = {key: {value for value in found if math.isfinite(value)} for key, found in values.items()}
    measured = tuple(q for q in keys if len(known[q.key]) > 1)
    said += [
        f"The {q.label} is {min(known[q.key]):g} everywhere: it is left out." for q in keys if len(known[q.key]) == 1
    ]
    arms = []
    for (size, label), runs in courses.items():
        reference = courses.get((size, VANILLA), ()) if label != VANILLA else ()
        settings = grouped[size, label][0].config["alignment"]
        final = {q.key: over_seeds(values) for q in measured if (values := _ends(runs, q.key))}
        arms.append(Arm(size, label, settings, runs, final, _speed_ups(reference, runs, measured)))
        if label != VANILLA and not reference:
            said.append(f"There is no vanilla run of depth {size}: no speed-up of '{label}' is known.")
    if arms and all(len(arm.runs) == 1 for arm in arms):
        said.append("One seed: nothing tells luck from rule, and there are no intervals over seeds.")
    arms.sort(key=lambda arm: (arm.size, arm.label != VANILLA))
    runs = {run.name: run for run in study.runs}
    return Findings(tuple(arms), runs, measured, weights, setting, _orders(arms, varied), tuple(dict.fromkeys(said)))


def aligned(run: RunRecord) -> bool:
    """Whether a run was aligned with any encoder."""
    own = run.config["alignment"]
    return bool(own["encoders"]) and own["weight"] > 0


def _varied(runs: Sequence[RunRecord]) -> tuple[str, ...]:
    """The settings of alignment that differ among the aligned runs."""
    found = [{key: str(run.config["alignment"][key]) for key in SETTINGS} for run in runs if aligned(run)]
    return tuple(key for key in SETTINGS if len({one[key] for one in found}) > 1)


def label_of(run: RunRecord, varied: Sequence[str]) -> str:
    """What tells a run's alignment from that of the others."""
    own = run.config["alignment"]
    if not aligned(run):
        return VANILLA
    names = {"encoders": " + ".join(own["encoders"]), "loss": own["loss"], "projector": own["projector"]}
    words = {"weight": "λ", "until": "until step"}
    return ", ".join(names.get(key) or f"{words.get(key, key)} {own[key]}" for key in varied) or "REPA"


def _similarities(runs: Sequence[RunRecord]) -> list[Quantity]:
    names = dict.fromkeys(name for run in runs for line in run.representations for name in line.get("cknna", {}))
    return [Quantity(f"cknna {name}", f"CKNNA with {name}", "higher") for name in names]


def _course(run: RunRecord, weights: str, setting: str, quantities: Sequence[Quantity]) -> Course:
    by_step: dict[int, dict[str, float]] = {line["step"]: {"loss": line["loss"]} for line in run.curve(weights)}
    for line in run.scores:
        if line["weights"] == weights and line["setting"] == setting:
            by_step.setdefault(line["step"], {}).update({q.key: number(line, q.key) for q in run.quantities})
    for line in run.representations:  # the lowest noise level comes last, and stays
        if line["weights"] == weights:
            own = by_step.setdefault(line["step"], {})
            own |= {f"cknna {name}": _largest(values) for name, values in line.get("cknna", {}).items()}
            own |= {"accuracy": _largest(line.get("accuracy") or ())}
    per_example = run.size["train_flops"]
    extra, config = sum(run.alignment_flops.values()), run.config
    until = config["alignment"]["until"] or math.inf
    points = []
    for step, values in sorted(by_step.items()):
        examples = step * config["training"]["batch"]
        flops = per_example * examples
        beside = extra * min(step, until) * config["training"]["batch"]
        known = {q.key: values.get(q.key, math.nan) for q in quantities}
        points.append({"step": step, "flops": flops, "all_flops": flops + beside, **known})
    return Course(run.name, run.seed, tuple(points), run.final(weights) is not None)


def _largest(values: Sequence[Any]) -> float:
    """The value of the best block."""
    return max((value for value in values if isinstance(value, float) and math.isfinite(value)), default=math.nan)


def _ends(runs: Sequence[Course], key: str) -> list[float]:
    return [value for run in runs if run.complete and math.isfinite(value := run.last(key))]


def _speed_ups(
    reference: Sequence[Course], runs: Sequence[Course], quantities: Sequence[Quantity]
) -> dict[str, dict[str, SpeedUp]]:
    """Over the reference, for each quantity and budget; complete runs alone count."""
    curves = lambda of, x, key: {run.seed: run.curve(x, key) for run in of if run.complete}  # noqa: E731
    return {
        q.key: {x: speed_up(curves(reference, x, q.key), curves(runs, x, q.key), q.better) for x in BUDGETS}
        for q in quantities
        if reference
    }


def _orders(
    arms: Sequence[Arm], varied: Sequence[str]
) -> dict[str, tuple[dict[str, float], dict[str, float], Agreement]]:
    """Our final losses beside the paper's FID, where the study varies what one of its tables varies."""
    found = {}
    tables = {title: rows for title, rows in repa_paper.TABLES.items() if [repa_paper.setting_of(title)] == [*varied]}
    for title, rows in tables.items():
        for size in sorted({arm.size for arm in arms}):
            ours = {}
            for arm in (arm for arm in arms if arm.size == size and "loss" in arm.final):
                name = repa_paper.row_of(title, arm.settings, size)
                if name in rows:
                    ours[name] = arm.final["loss"].value
            if len(ours) > 1:
                where = f"{title}, depth {size}" if len({arm.size for arm in arms}) > 1 else title
                found[where] = (ours, rows, agreement(ours, rows))
    return found


def to_json(findings: Findings) -> dict[str, Any]:
    """The comparison as plain JSON."""
    return {
        "weights": findings.weights,
        "setting": findings.setting,
        "arms": [
            {
                "depth": arm.size,
                "name": arm.label,
                "runs": [run.name for run in arm.runs],
                "final": {key: value._asdict() for key, value in arm.final.items()},
                "speed_ups": {
                    key: {x: {"factor": s.factor and s.factor._asdict(), "by_seed": s.by_seed,
                              "lower_bound": s.at_first} for x, s in of.items()}
                    for key, of in arm.speed_ups.items()
                },
            }
            for arm in findings.arms
        ],
        "orders": {
            name: {"ours": ours, "paper": rows, "agreement": {k: vars(c) for k, c in found.correlations.items()}}
            for name, (ours, rows, found) in findings.orders.items()
        },
        "warnings": findings.warnings,
    }  # fmt: skip
