"""The report of sampling with few steps: what it costs at each depth, and how straight the paths are (SD3 Table 6)."""

import html
import math
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from rfjax.study.records import Records
from rfjax.study.reports import drawing, page, paper, steps
from rfjax.study.reports.steps import REFERENCE, Cell, Findings, Row, span

FILE = "sampling.json"
COLUMNS = {5: "five", 10: "ten", 20: "twenty"}  # steps -> field of Table 6
NONE = "–"
find = steps.find


def record(findings: Findings) -> dict[str, Any]:
    """The findings as plain JSON."""
    return {
        "guidance": findings.guidance,
        "grids": findings.grids,
        "verdict": findings.verdict,
        "runs": [
            {"name": row.name, "depth": row.depth, "steps": {k: _finite(vars(c)) for k, c in row.cells.items()}}
            for row in findings.rows
        ],
        "spearman_depth_drop": vars(findings.trend) if findings.trend else None,
        "spearman_depth_path_length": vars(findings.lengths) if findings.lengths else None,
        "paper": {depth: vars(row) for depth, row in paper.TABLE_6.items()},
        "warnings": findings.warnings,
    }


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def tables(study: Records, findings: Findings) -> page.Tables:
    """sampling.csv: every run at every number of steps."""
    header = ("run", "depth", "steps", "guidance", "score", "stderr", "drop", "drop_stderr", "frechet", "path_length")
    rows = [
        (row.name, row.depth, k, findings.guidance, c.score, c.stderr, c.drop, c.drop_stderr, c.frechet, c.path_length)
        for row in findings.rows
        for k, c in row.cells.items()
    ]
    return {"sampling": (header, rows)}


def figures(study: Records, findings: Findings) -> dict[str, tuple[str, Figure]]:
    """The drop against steps, and the length of the path against depth."""
    if not findings.rows:
        return {}
    drawn = {}
    if len(findings.steps) > 1:
        drawn["drop"] = (f"Score lost against {findings.steps[-1]} steps", drop_against_steps(findings))
    if any(math.isfinite(c.path_length) for row in findings.rows for c in row.cells.values()):
        title = f"Length of the path at {findings.steps[-1]} steps"
        drawn["path_length"] = (title, length_against_depth(findings))
    return drawn


def drop_against_steps(findings: Findings) -> Figure:
    """The relative drop of the score by run."""
    figure, axes = plt.subplots()
    colours = drawing.colours([row.name for row in findings.rows])
    for i, row in enumerate(findings.rows):
        shift = 1.012 ** (i - (len(findings.rows) - 1) / 2)  # so that bars don't cover each other
        few = {k: c for k, c in row.cells.items() if k < findings.steps[-1]}
        axes.errorbar(
            [k * shift for k in few], [c.drop for c in few.values()], yerr=[c.drop_stderr for c in few.values()],
            fmt="o-", ms=4, lw=1.3, elinewidth=0.8, capsize=2, color=colours[row.name], label=row.name,
        )  # fmt: skip
    axes.axhline(0, color="black", lw=0.8)
    axes.set(xlabel="steps", ylabel=f"score below that of {findings.steps[-1]} steps, %", xscale="log")
    axes.set_xticks(findings.steps[:-1], [str(k) for k in findings.steps[:-1]])
    axes.minorticks_off()
    axes.legend(fontsize=8, ncols=2)
    return figure


def length_against_depth(findings: Findings) -> Figure:
    """The mean length of the samples' paths by depth."""
    figure, axes = plt.subplots()
    colours = drawing.colours([row.name for row in findings.rows])
    many = findings.steps[-1]
    for row in findings.rows:
        axes.plot(row.depth, row.cells[many].path_length, "o", ms=7, color=colours[row.name])
        axes.annotate(
            row.name, (row.depth, row.cells[many].path_length), textcoords="offset points", xytext=(6, 5), fontsize=8
        )
    axes.set(xlabel="depth", ylabel="length of the path, Σ |v dt|")
    axes.set_xticks(sorted({row.depth for row in findings.rows}))
    axes.margins(0.12)
    return figure


def subtitle(study: Records) -> str:
    """What was trained on what."""
    c = study.rungs[0].config if study.rungs else study.config  # of the models, whose study another one was
    return (
        f"Sampling with few steps (SD3 Table 6): {c['model']['backbone']} as {c['flow']['formulation']} on "
        f"{c['data']['dataset'] or c['data']['name']}, batch {c['training']['batch']}, {c['training']['steps']:,} "
        f"steps of training; {study.config['study']['weights']} weights"
    )


def opening(study: Records, findings: Findings) -> str:
    """The verdict in its box: green where larger models clearly lose less, as in the paper."""
    trend = findings.trend
    kind = "open" if trend is None or trend.low <= 0 <= trend.high else "good" if trend.high < 0 else "bad"
    said = [findings.verdict]
    if findings.lengths:
        said.append(f"Depth and length of the path: Spearman {span(findings.lengths)}.")
    small, large = min(paper.TABLE_6), max(paper.TABLE_6)
    said.append(
        f"In the paper the drop at 5 steps goes from {paper.TABLE_6[small].five} % at depth {small} to "
        f"{paper.TABLE_6[large].five} % at depth {large}, the path from {paper.TABLE_6[small].path_length} to "
        f"{paper.TABLE_6[large].path_length}."
    )
    notes = dict.fromkeys(c.note for c in (findings.trend, findings.lengths) if c and c.note)
    first, *rest = map(html.escape, [*said, *notes])
    return page.verdict(kind, f"<b>{first}</b>", *rest)


def lines(study: Records, findings: Findings) -> list[str]:
    """What the terminal shows at the end."""
    said = []
    for row in findings.rows:
        few = [(k, row.cells[k]) for k in findings.steps[:-1] if k in row.cells]
        lost = ", ".join(f"{k} steps {c.drop:+6.2f} ± {c.drop_stderr:.2f} %" for k, c in few)
        said.append(f"{row.name:>12}  score lost: {lost}; path {_number(_last(row, findings).path_length, '.2f')}")
    return [*said, "", findings.verdict]


def _last(row: Row, findings: Findings) -> Cell:
    return row.cells[findings.steps[-1]]


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else NONE


def sections(study: Records, findings: Findings) -> list[str]:
    """The tables below the figures."""
    return [_drops(findings), _distances(findings), _samples(study)]


def _drops(findings: Findings) -> str:
    """Table 6."""
    if not findings.rows:
        return ""
    few, many = findings.steps[:-1], findings.steps[-1]
    rows = []
    for row in findings.rows:
        cells = [f"{row.cells[k].drop:.2f} ± {row.cells[k].drop_stderr:.2f}" if k in row.cells else NONE for k in few]
        length = _number(_last(row, findings).path_length, ".2f")
        rows.append([html.escape(row.name), str(row.depth), *cells, f"{_last(row, findings).score:.3f}", length])
    for depth, published in paper.TABLE_6.items():
        cells = [f"{getattr(published, COLUMNS[k]):.2f}" if k in COLUMNS and many == REFERENCE else NONE for k in few]
        rows.append(["<i>the paper</i>", str(depth), *cells, NONE, f"{published.path_length:.2f}"])
    header = ["run", "depth", *(f"{k}/{many}" for k in few), f"score at {many}", "path length"]
    return (
        "<h2>Score lost with few steps, % (Table 6)</h2>"
        + page.table(header, rows)
        + page.note(
            f"By how many percent the score is below that of {many} steps, at guidance {findings.guidance:g}; CLIP in "
            "the paper. ± is a standard error that takes the samples of two settings for independent: they share "
            "captions and noise, so it is too wide rather than too narrow. Path length: Σ |v dt| over the steps, the "
            "mean over samples; it depends on the image's size, so only its trend compares. Grid of sampling times: "
            f"{' and '.join(findings.grids)}. Paper: {paper.SOURCE}."
        )
    )


def _distances(findings: Findings) -> str:
    """Fréchet distance, score and path length at each number of steps."""
    if not findings.rows:
        return ""
    header, groups = ["run"], [("", 1)]
    for title in ("Fréchet distance", "score", "path length"):
        header += [str(k) for k in findings.steps]
        groups.append((title, len(findings.steps)))
    rows = []
    for row in findings.rows:
        cells = [row.cells.get(k) for k in findings.steps]
        rows.append(
            [html.escape(row.name)]
            + [_number(c.frechet, ".3g") if c else NONE for c in cells]
            + [f"{c.score:.3f}" if c else NONE for c in cells]
            + [_number(c.path_length, ".2f") if c else NONE for c in cells]
        )
    return "<h2>Every number of steps</h2>" + page.table(header, rows, groups) + page.note(findings.floor)


def _samples(study: Records) -> str:
    shown = page.samples({rung.name: rung for rung in study.rungs}, study.config["study"]["weights"])
    return f"<h2>Samples</h2>{shown}" if shown else ""
