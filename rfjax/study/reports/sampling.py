"""The report of sampling with few steps: what it costs at each depth, and how straight the paths are (SD3 Table 6)."""

import math
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt

from rfjax.analysis.few_steps import Row, Verdict, drop, judge
from rfjax.evaluation.quantity import Quantity
from rfjax.study.records import Records, RunRecord
from rfjax.study.reports import compare, paper
from rfjax.study.reports.drawing import Figures, colours, name_point
from rfjax.study.reports.page import Report
from rfjax.study.reports.widgets import NONE, Tables, escape, formatted, headline, samples, section
from rfjax.study.run_records import finite, number

REFERENCE = 50  # steps that the others are compared with
COLUMNS = {5: "five", 10: "ten", 20: "twenty"}  # steps -> field of Table 6


@dataclass(frozen=True)
class Findings:
    """All that the report says.

    Attributes:
        score: the quantity that is compared: the first of which higher is better.
        rows: a row for each run, by depth.
        steps: numbers of steps that any run has, ascending; the reference is the last.
        grids: schedules of sampling times that were used.
        floor: what the distance of true pictures is, in words.
    """

    score: Quantity
    others: tuple[Quantity, ...]
    rows: tuple[Row, ...]
    steps: tuple[int, ...]
    guidance: float | None
    verdict: Verdict
    warnings: tuple[str, ...]
    grids: tuple[str, ...]
    floor: str


def analyse(study: Records) -> Findings:
    """Compares few steps with many, for each run."""
    weights, quantities = study.config["study"]["weights"], compare.quantities_of(study.runs)
    score = next((q for q in quantities if q.better == "higher"), quantities[0])
    others = tuple(q for q in quantities if q is not score)
    lines = {run.name: [line for (kind, _), line in run.last_scores().items() if kind == weights] for run in study.runs}
    scales = [float(line["guidance"]) for found in lines.values() for line in found]
    guidance = max(sorted(set(scales)), key=scales.count) if scales else None
    warnings = study.states()
    for name, found in lines.items():
        warnings += [f"{name} at {line['setting']}: {line['problem']}." for line in found if line.get("problem")]
    if len(set(scales)) > 1:
        warnings.append(f"Scores at several guidance scales: the report is on guidance {guidance:g} alone.")
    known = {int(line["steps"]) for found in lines.values() for line in found if line["guidance"] == guidance}
    reference = REFERENCE if REFERENCE in known else max(known, default=REFERENCE)
    if reference != REFERENCE:
        warnings.append(f"Nothing was measured at {REFERENCE} steps: the drops are against {reference}.")
    steps, rows, used = tuple(sorted(k for k in known if k <= reference)), [], []
    for run in sorted(study.runs, key=lambda run: run.depth):
        usable = [line for line in lines[run.name] if line["guidance"] == guidance and finite(line.get(score.key))]
        by_steps = {int(line["steps"]): line for line in usable}
        whole = by_steps.get(reference)
        if whole is None or whole[score.key] == 0:
            if run.state == "complete":
                what = f"has no {score.label}" if whole is None else "scores 0"
                warnings.append(f"{run.name} {what} at {reference} steps: it is left out.")
            continue
        warnings += _amiss(run, score, whole, [k for k in steps if k not in by_steps])
        rows.append(_row(run, by_steps, whole, score, others))
        used += [(run, line) for line in usable]
    asked = study.config.get("sampling", {}).get("schedule", "uniform")
    grids = tuple(dict.fromkeys(compare.schedule_of(run, line, asked) for run, line in used))
    floor = compare.floor_sentence((compare.floors_of(line, quantities) for _, line in used), quantities)
    said = tuple(dict.fromkeys(warnings))
    return Findings(score, others, tuple(rows), steps, guidance, judge(rows, steps), said, grids, floor)


def _row(run: RunRecord, by_steps: dict[int, Any], whole: Any, score: Quantity, others: tuple[Quantity, ...]) -> Row:
    cells, best = {}, (whole[score.key], _error(whole, score))
    for steps, line in sorted(by_steps.items()):
        own = (line[score.key], _error(line, score))
        lost = {"drop": 0.0, "drop_stderr": 0.0} if line is whole else drop(*own, *best)
        rest = {key: number(line, key) for key in (*(q.key for q in others), "path_length")}
        cells[steps] = {score.key: own[0], score.error or "stderr": own[1], **rest, **lost}
    return Row(run.name, run.depth, cells)


def _error(line: dict[str, Any], score: Quantity) -> float:
    """The standard error of a line's score; 0 where it is not known."""
    return error if math.isfinite(error := number(line, score.error)) else 0.0


def _amiss(run: RunRecord, score: Quantity, whole: dict[str, Any], lacking: list[int]) -> list[str]:
    """Sentences on a run that is shown: settings that it lacks, and a score whose drops mean nothing."""
    said = [f"{run.name} has no {score.label} at {', '.join(map(str, lacking))} steps: a dash."] if lacking else []
    error = max(_error(whole, score), 1 / max(int(whole.get("count") or 1), 1) if score.parts else 0.0)
    if whole[score.key] <= 2 * error:
        said.append(
            f"{run.name} scores {whole[score.key]:.3f} ± {error:.3f} at {whole['steps']} steps, which is not clearly "
            "above 0: what it loses with fewer steps is luck."
        )
    return said


def to_json(found: Findings) -> dict[str, Any]:
    known = lambda cell: {name: value if math.isfinite(value) else None for name, value in cell.items()}  # noqa: E731
    return {
        "guidance": found.guidance,
        "grids": found.grids,
        "verdict": found.verdict.text,
        "runs": [
            {"name": row.name, "depth": row.depth, "steps": {k: known(cell) for k, cell in row.cells.items()}}
            for row in found.rows
        ],
        "spearman_depth_drop": found.verdict.drops and vars(found.verdict.drops),
        "spearman_depth_path_length": found.verdict.lengths and vars(found.verdict.lengths),
        "paper": {depth: row._asdict() for depth, row in paper.TABLE_6.items()},
        "warnings": found.warnings,
    }


def tables(study: Records, found: Findings) -> Tables:
    """sampling.csv: every run at every number of steps."""
    own = (found.score.key, found.score.error or "stderr", "drop", "drop_stderr")
    columns = (*own, *(q.key for q in found.others), "path_length")
    rows = [
        (row.name, row.depth, steps, found.guidance, *(cell[key] for key in columns))
        for row in found.rows
        for steps, cell in row.cells.items()
    ]
    return {"sampling": (("run", "depth", "steps", "guidance", *columns), rows)}


def figures(study: Records, found: Findings) -> Figures:
    """The relative drop of the score against steps, and the mean length of the samples' paths against depth."""
    drawn, colour, few = {}, colours([row.name for row in found.rows]), found.steps[:-1]
    if found.rows and few:
        figure, axes = plt.subplots()
        for i, row in enumerate(found.rows):
            shift = 1.012 ** (i - (len(found.rows) - 1) / 2)  # so that bars don't cover each other
            cells = {k: row.cells[k] for k in few if k in row.cells}
            axes.errorbar(
                [k * shift for k in cells], [c["drop"] for c in cells.values()],
                yerr=[c["drop_stderr"] for c in cells.values()],
                fmt="o-", ms=4, lw=1.3, elinewidth=0.8, capsize=2, color=colour[row.name], label=row.name,
            )  # fmt: skip
        axes.axhline(0, color="black", lw=0.8)
        axes.set(xlabel="steps", ylabel=f"{found.score.label} below that of {found.steps[-1]} steps, %", xscale="log")
        axes.set_xticks(few, [str(k) for k in few])
        axes.minorticks_off()
        axes.legend(fontsize=8, ncols=2)
        title = f"{found.score.label[0].upper()}{found.score.label[1:]} lost against {found.steps[-1]} steps"
        drawn["drop"] = (title, figure)
    if any(math.isfinite(c["path_length"]) for row in found.rows for c in row.cells.values()):
        figure, axes = plt.subplots()
        for row in found.rows:
            length = row.cells[found.steps[-1]]["path_length"]
            axes.plot(row.depth, length, "o", ms=7, color=colour[row.name])
            name_point(axes, row.name, row.depth, length, (6, 5))
        axes.set(xlabel="depth", ylabel="length of the path, Σ |v dt|")
        axes.set_xticks(sorted({row.depth for row in found.rows}))
        axes.margins(0.12)
        drawn["path_length"] = (f"Length of the path at {found.steps[-1]} steps", figure)
    return drawn


def subtitle(study: Records) -> str:
    c = study.runs[0].config if study.runs else study.config  # of the models, whose study another one was
    return (
        f"Sampling with few steps (SD3 Table 6): {c['model']['backbone']} as {c['flow']['formulation']} on "
        f"{compare.dataset_name(c)}, batch {c['training']['batch']}, {c['training']['steps']:,} steps of training; "
        f"{study.config['study']['weights']} weights"
    )


def opening(study: Records, found: Findings) -> str:
    """The verdict in its box: green where larger models clearly lose less, as in the paper."""
    drops, lengths = found.verdict.drops, found.verdict.lengths
    said = [found.verdict.text]
    said += [f"Depth and length of the path: Spearman {lengths.text}."] if lengths else []
    small, large = (paper.TABLE_6[depth] for depth in (min(paper.TABLE_6), max(paper.TABLE_6)))
    said.append(
        f"In the paper the drop at 5 steps goes from {small.five} % at depth {min(paper.TABLE_6)} to {large.five} % at "
        f"depth {max(paper.TABLE_6)}, the path from {small.path_length} to {large.path_length}."
    )
    notes = dict.fromkeys(c.note for c in (drops, lengths) if c and c.note)
    return headline([*said, *notes], -drops.sign if drops else 0)


def lines(study: Records, found: Findings) -> list[str]:
    said = []
    for row in found.rows:
        few = [(k, row.cells[k]) for k in found.steps[:-1] if k in row.cells]
        lost = ", ".join(f"{k} steps {c['drop']:+6.2f} ± {c['drop_stderr']:.2f} %" for k, c in few)
        length = formatted(row.cells[found.steps[-1]]["path_length"], ".2f")
        said.append(f"{row.name:>12}  {found.score.label} lost: {lost}; path {length}")
    return [*said, "", found.verdict.text]


def sections(study: Records, found: Findings) -> list[str]:
    pictures = samples({run.name: run for run in study.runs}, study.config["study"]["weights"])
    return [_drops(found), _everything(found), pictures]


def _drops(found: Findings) -> str:
    if not found.rows:
        return ""
    few, many, rows = found.steps[:-1], found.steps[-1], []
    for row in found.rows:
        cells = [f"{c['drop']:.2f} ± {c['drop_stderr']:.2f}" if (c := row.cells.get(k)) else NONE for k in few]
        last = row.cells[many]
        ends = [format(last[found.score.key], found.score.form), formatted(last["path_length"], ".2f")]
        rows.append([escape(row.name), str(row.depth), *cells, *ends])
    for depth, row in paper.TABLE_6.items():
        cells = [f"{getattr(row, COLUMNS[k]):.2f}" if k in COLUMNS and many == REFERENCE else NONE for k in few]
        rows.append(["<i>the paper</i>", str(depth), *cells, NONE, f"{row.path_length:.2f}"])
    label = found.score.label
    return section(
        f"{label[0].upper()}{label[1:]} lost with few steps, % (Table 6)",
        ["run", "depth", *(f"{k}/{many}" for k in few), f"{label} at {many}", "path length"], rows,
        f"By how many percent the {label} is below that of {many} steps, at guidance {found.guidance:g}; CLIP in the "
        "paper. ± is a standard error that takes the samples of two settings for independent: they share captions and "
        "noise, so it is too wide rather than too narrow. Path length: Σ |v dt| over the steps, the mean over samples; "
        "it depends on the image's size, so only its trend compares. Grid of sampling times: "
        f"{' and '.join(found.grids)}. Paper: {paper.SOURCE}.",
    )  # fmt: skip


def _everything(found: Findings) -> str:
    columns = [(q.label, q.key, q.form) for q in (*found.others, found.score)] + [("path length", "path_length", ".2f")]
    rows = []
    for row in found.rows:
        cells = [row.cells.get(k, {}) for k in found.steps]
        rows.append([escape(row.name), *(formatted(c.get(key), form) for _, key, form in columns for c in cells)])
    header = ["run", *(str(k) for _ in columns for k in found.steps)]
    groups = [("", 1), *((title, len(found.steps)) for title, _, _ in columns)]
    return section("Every number of steps", header, rows, found.floor, groups=groups)


REPORT = Report("sampling.json", analyse, to_json, tables, figures, subtitle, opening, sections, lines)
