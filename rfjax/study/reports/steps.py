"""What few steps of the sampler cost, from a study's records: each run's score against that of many steps."""

import math
from dataclasses import dataclass
from typing import Any

from rfjax import analysis, names
from rfjax.study.records import Records, RunRecord
from rfjax.study.reports.measures import finite, floor_sentence, number

REFERENCE = 50  # steps that the others are compared with


@dataclass(frozen=True)
class Cell:
    """One run at one number of steps.

    Attributes:
        score: higher is better. stderr: of the score. frechet: distance. path_length: mean over samples.
        drop: by how many percent the score is below that of the reference. drop_stderr: of the drop, in percent points.
    """

    score: float
    stderr: float
    frechet: float
    path_length: float
    drop: float
    drop_stderr: float


@dataclass(frozen=True)
class Row:
    """One run: its depth, and steps -> Cell."""

    name: str
    depth: int
    cells: dict[int, Cell]


@dataclass(frozen=True)
class Findings:
    """All that the report says.

    Attributes:
        rows: by depth. steps: numbers of steps that any run has, ascending; the reference is the last.
        guidance: of all of it. verdict: whether larger models lose less, in words.
        trend: Spearman's correlation of depth with the drop at the fewest steps, or None where there are too few runs.
        lengths: the same with the length of the path at the reference. warnings: sentences.
        grids: of times that it was drawn on. floor: what the distance of true pictures is, in words.
    """

    rows: tuple[Row, ...]
    steps: tuple[int, ...]
    guidance: float | None
    verdict: str
    trend: analysis.Correlation | None
    lengths: analysis.Correlation | None
    warnings: tuple[str, ...]
    grids: tuple[str, ...]
    floor: str


def find(records: Records) -> Findings:
    """Compares few steps with many, for each run."""
    weights = records.config["study"]["weights"]
    lines = {
        rung.name: [line for (kind, _), line in rung.last_scores().items() if kind == weights] for rung in records.rungs
    }
    scales = [float(line["guidance"]) for found in lines.values() for line in found]
    guidance = max(sorted(set(scales)), key=scales.count) if scales else None
    warnings = records.states()
    for name, found in lines.items():
        warnings += [f"{name} at {line['setting']}: {line['problem']}." for line in found if line.get("problem")]
    if len(set(scales)) > 1:
        warnings.append(f"Scores at several guidance scales: the report is on guidance {guidance:g} alone.")
    numbers = {int(line["steps"]) for found in lines.values() for line in found if line["guidance"] == guidance}
    reference = REFERENCE if REFERENCE in numbers or not numbers else max(numbers)
    if numbers and reference != REFERENCE:
        warnings.append(f"Nothing was measured at {REFERENCE} steps: the drops are against {reference}.")
    rows, used = [], []
    for rung in sorted(records.rungs, key=lambda rung: rung.depth):
        there = [line for line in lines[rung.name] if line["guidance"] == guidance]
        usable = [line for line in there if finite(line.get("score"))]
        by_steps = {int(line["steps"]): line for line in usable}
        whole = by_steps.get(reference)
        if whole is None or whole["score"] == 0:
            if rung.state == "complete":
                what = "has no score" if whole is None else "scores 0"
                warnings.append(f"{rung.name} {what} at {reference} steps: it is left out.")
            continue
        warnings += _amiss(rung, whole, [k for k in sorted(numbers) if k <= reference and k not in by_steps])
        rows.append(Row(rung.name, rung.depth, {k: _cell(line, whole) for k, line in sorted(by_steps.items())}))
        used += [(rung, line) for line in usable]
    steps = tuple(sorted(k for k in numbers if k <= reference))
    trend, lengths, verdict = judge(rows, steps)
    asked = records.config.get("sampling", {}).get(
        "schedule", "uniform"
    )  # of lines from before they said it themselves
    kinds = ((rung.config["flow"]["formulation"], line) for rung, line in used)
    grids = tuple(dict.fromkeys(line.get("grid") or names.schedule_of(asked, kind) for kind, line in kinds))
    floor = floor_sentence(line for _, line in used)
    return Findings(tuple(rows), steps, guidance, verdict, trend, lengths, tuple(dict.fromkeys(warnings)), grids, floor)


def _amiss(rung: RunRecord, whole: dict[str, Any], lacking: list[int]) -> list[str]:
    """Sentences on a run that is shown: settings that it lacks, and a score whose drops mean nothing."""
    said = [f"{rung.name} has no score at {', '.join(map(str, lacking))} steps: a dash."] if lacking else []
    error = max(line_error(whole), 1 / max(int(whole.get("count") or 1), 1))
    if whole["score"] <= 2 * error:
        said.append(
            f"{rung.name} scores {whole['score']:.3f} ± {error:.3f} at {whole['steps']} steps, which is not clearly "
            "above 0: what it loses with fewer steps is luck."
        )
    return said


def line_error(line: dict[str, Any]) -> float:
    """The standard error of a line's score; 0 where it is not known."""
    return error if math.isfinite(error := number(line, "stderr")) else 0.0


def _cell(line: dict[str, Any], whole: dict[str, Any]) -> Cell:
    """Errors as if the samples were independent: they share captions and noise, so the true error is smaller."""
    score, best = line["score"], whole["score"]
    error, best_error = line_error(line), line_error(whole)
    same = line["steps"] == whole["steps"]
    spread = 0.0 if same else 100 * math.hypot(error / best, score * best_error / best**2)
    return Cell(
        score=score,
        stderr=error,
        frechet=number(line, "frechet"),
        path_length=number(line, "path_length"),
        drop=100 * (best - score) / best,
        drop_stderr=spread,
    )


def judge(
    rows: list[Row], steps: tuple[int, ...]
) -> tuple[analysis.Correlation | None, analysis.Correlation | None, str]:
    """Whether larger models lose less with the fewest steps, and have shorter paths."""
    if not rows or len(steps) < 2:
        return None, None, "No run has scores at two numbers of steps yet: there is nothing to compare."
    few, many = steps[0], steps[-1]
    trend, reason = _spearman([(row.depth, row.cells[few].drop) for row in rows if few in row.cells])
    lengths, _ = _spearman([(row.depth, row.cells[many].path_length) for row in rows if many in row.cells])
    if trend is None:
        return None, lengths, f"Whether larger models lose less with {few} steps can't be said yet: {reason}"
    if trend.high < 0:
        said = "Larger models lose less"
    elif trend.low > 0:
        said = "Larger models lose more"
    else:
        said = "No clear relation of the depth and the loss of score"
    verdict = (
        f"{said} with {few} steps instead of {many}: Spearman's correlation of depth and drop is {span(trend)} over "
        f"{trend.n} runs."
    )
    return trend, lengths, verdict


def _spearman(points: list[tuple[float, float]]) -> tuple[analysis.Correlation | None, str]:
    points = [(x, y) for x, y in points if math.isfinite(y)]
    x, y = zip(*points, strict=True) if points else ((), ())
    groups = x if 1 < len(set(x)) < len(x) else None  # seeds of one depth are not independent of its place
    try:
        return analysis.spearman(x, y, groups=groups), ""
    except analysis.TooFewPoints as error:
        return None, f"there are too few depths ({error})"


def span(c: analysis.Correlation) -> str:
    """A correlation with its interval."""
    return f"{c.value:+.2f} (95 % interval {c.low:+.2f} to {c.high:+.2f})"
