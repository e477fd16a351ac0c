"""From a study's records to what captions do: scores by skill, and differences paired by seed (SD3 Table 4).

An arm is the runs that differ in their seed alone. The first arm is the one that the others are compared with.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rfjax import analysis
from rfjax.analysis.multipliers import Estimate, over_seeds
from rfjax.evaluation.quantity import Quantity
from rfjax.study.records import Records, RunRecord
from rfjax.study.reports import paper
from rfjax.study.reports.compare import checkpoints, quantities_of
from rfjax.study.run_records import finite, number

SEED, SHARE = "training.seed", "data.synthetic_share"
OVERALL = "overall"
COUNTS = ("captions_synthetic", "captions_original")


@dataclass(frozen=True)
class Row:
    """A number that every run has one of.

    Attributes:
        key: unique among the rows.
        label: what the page calls it.
        better: "higher" or "lower".
        form: how the page writes it.
        overall: a mean over skills.
        paper: the percentages of Table 4, with original and with mixed captions; None without any.
    """

    key: str
    label: str
    better: str
    form: str
    overall: bool = False
    paper: tuple[float, float] | None = None


@dataclass(frozen=True)
class Arm:
    """Runs that differ in their seed alone.

    Attributes:
        label: what tells them from the others.
        runs: one a seed.
        values: key of a row -> seed -> value, of complete runs.
        counts: how many synthetic and original captions they were trained on; None where that was not counted.
    """

    label: str
    runs: tuple[RunRecord, ...]
    values: dict[str, dict[int, float]]
    counts: tuple[int, int] | None

    def mean(self, key: str) -> Estimate | None:
        """The mean over seeds and its interval."""
        found = [*self.values.get(key, {}).values()]
        return over_seeds(found) if found else None

    def less(self, other: "Arm", key: str) -> Estimate | None:
        """The mean over the seeds of both of what this arm has more than the other.

        Where nothing varies, as in shares of few right pictures, nothing is known of what might: there is no interval.
        """
        mine, theirs = self.values.get(key, {}), other.values.get(key, {})
        found = [mine[seed] - theirs[seed] for seed in mine if seed in theirs]
        if not found:
            return None
        return over_seeds(found) if np.ptp(found) > 1e-9 else Estimate(float(np.mean(found)), None, None)


@dataclass(frozen=True)
class Findings:
    """All that the report says.

    Attributes:
        setting: of the sampler; "" without scores.
        table_4: the arms are those of the paper's table.
    """

    arms: tuple[Arm, ...]
    rows: tuple[Row, ...]
    weights: str
    setting: str
    table_4: bool
    warnings: tuple[str, ...]

    @property
    def overall(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.overall)

    @property
    def pairs(self) -> tuple[tuple[Arm, Arm], ...]:
        """The first arm with each of the others."""
        return tuple((self.arms[0], other) for other in self.arms[1:])


def analyse(study: Records) -> Findings:
    """Compares the arms, as far as they are trained."""
    weights = study.config["study"]["weights"]
    quantities = quantities_of(study.runs)
    setting = analysis.main_setting(checkpoints(study.runs, weights, quantities))
    axes = [axis for axis in study.config["study"].get("axes") or {} if axis != SEED]
    grouped: dict[str, list[RunRecord]] = {}
    for run in study.runs:
        grouped.setdefault(label_of(run.config, axes), []).append(run)
    scored = next((q for q in quantities if q.parts), None)
    found = {run.name: _values(run, weights, setting, quantities, scored) for run in study.runs}
    rows = _rows(quantities, scored, [key for values in found.values() for key in values], axes == [SHARE])
    arms = tuple(_arm(label, runs, found) for label, runs in grouped.items())
    said = [*study.states(), *_warnings(arms, rows, setting)]
    return Findings(arms, rows, weights, setting, axes == [SHARE], tuple(dict.fromkeys(said)))


def label_of(config: Mapping[str, Any], axes: Sequence[str]) -> str:
    """What tells a run from those of the other arms."""
    found = {}
    for axis in axes:
        section, key = axis.split(".", maxsplit=1)
        found[axis] = config[section][key]
    if SHARE in found:
        share = found.pop(SHARE)
        whole = f"{100 - 100 * share:g} % alt text, {100 * share:g} % whole captions" if share else "alt text"
        return ", ".join([whole, *(f"{axis} {value}" for axis, value in found.items())])
    return ", ".join(f"{axis.rsplit('.', maxsplit=1)[-1]} {value}" for axis, value in found.items()) or "all runs"


def _values(
    run: RunRecord, weights: str, setting: str, quantities: Sequence[Quantity], scored: Quantity | None
) -> dict[str, float]:
    """Key of a row -> value of a run at its end; empty where it is not complete."""
    end = run.final(weights)
    if not end:
        return {}
    line = run.last_scores().get((weights, setting), {})
    parts = (
        {name: float(value) for name, value in (line.get(scored.parts) or {}).items() if finite(value)}
        if scored
        else {}
    )
    found = {}
    for group in dict.fromkeys(name.partition(", ")[2] for name in parts):
        own = {name: value for name, value in parts.items() if name.partition(", ")[2] == group}
        found |= {
            _overall(group): sum(own.values()) / len(own),
            **{f"part {name}": value for name, value in own.items()},
        }
    found |= {q.key: number(line, q.key) for q in quantities if q is not scored or not parts}
    return {key: value for key, value in (found | {"loss": float(end["loss"])}).items() if math.isfinite(value)}


def _overall(group: str) -> str:
    return f"{OVERALL}, {group}" if group else OVERALL


def _rows(
    quantities: Sequence[Quantity], scored: Quantity | None, keys: Sequence[str], table_4: bool
) -> tuple[Row, ...]:
    """The rows that any run has, overall scores first."""
    known = list(dict.fromkeys(keys))
    theirs = paper.TABLE_4 if table_4 else {}
    form, better = (scored.form, scored.better) if scored else (".3f", "higher")
    rows = [Row(key, key, better, form, True, theirs.get(key)) for key in known if key.partition(", ")[0] == OVERALL]
    for name in (key.removeprefix("part ") for key in known if key.startswith("part ")):
        rows.append(Row(f"part {name}", name, better, form, paper=theirs.get(name)))
    rows += [Row(q.key, q.label, q.better, q.form) for q in quantities if q.key in known]
    return (*rows, Row("loss", "validation loss", "lower", ".4f"))


def _arm(label: str, runs: Sequence[RunRecord], found: Mapping[str, Mapping[str, float]]) -> Arm:
    values: dict[str, dict[int, float]] = {}
    for run in runs:
        for key, value in found[run.name].items():
            values.setdefault(key, {})[run.seed] = value
    counted = [line for run in runs for line in run.train if all(name in line for name in COUNTS)]
    counts = tuple(sum(int(line[name]) for line in counted) for name in COUNTS) if counted else None
    return Arm(label, tuple(runs), values, counts)


def _warnings(arms: Sequence[Arm], rows: Sequence[Row], setting: str) -> list[str]:
    said = []
    seeds = {arm.label: sorted(arm.values.get("loss", {})) for arm in arms}
    if len({tuple(numbers) for numbers in seeds.values()}) > 1:
        shown = "; ".join(f"{label}: {', '.join(map(str, numbers)) or 'none'}" for label, numbers in seeds.items())
        said.append(f"The arms' complete runs have different seeds ({shown}); differences pair those of both.")
    elif seeds and all(len(numbers) == 1 for numbers in seeds.values()):
        said.append("One seed: nothing tells luck from rule, and there are no intervals over seeds.")
    if setting and not any(row.overall for row in rows):
        said.append("The scores of these data have no parts: there is no table by skill.")
    return said


def to_json(findings: Findings) -> dict[str, Any]:
    """The comparison as plain JSON."""
    plain = lambda estimate: estimate and estimate._asdict()  # noqa: E731
    first = findings.arms[0] if findings.arms else None
    return {
        "weights": findings.weights,
        "setting": findings.setting,
        "arms": [
            {
                "name": arm.label,
                "runs": [run.name for run in arm.runs],
                "captions": dict(zip(COUNTS, arm.counts, strict=True)) if arm.counts else None,
                "values": {key: {str(seed): value for seed, value in of.items()} for key, of in arm.values.items()},
                "mean": {row.key: plain(arm.mean(row.key)) for row in findings.rows},
                "less_first": None
                if arm is first
                else {row.key: plain(arm.less(first, row.key)) for row in findings.rows},
            }
            for arm in findings.arms
        ],
        "paper": paper.TABLE_4 if findings.table_4 else None,
        "warnings": findings.warnings,
    }
