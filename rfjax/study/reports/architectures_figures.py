"""The figure of a comparison of backbones: SD3's Fig. 4, with a second column for compute."""

import math

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rfjax.analysis.race import Entrant
from rfjax.study.records import Records
from rfjax.study.reports.architectures_findings import Findings, label
from rfjax.study.reports.compare import SCORES, label_of
from rfjax.study.reports.drawing import Figures, colours, log_ticks

X = {"step": "steps", "flops": "training FLOPs"}


def figures(study: Records, findings: Findings) -> Figures:
    """Fig. 4, with a second column for compute."""
    dataset = next((run.dataset for run in study.runs if run.dataset in SCORES), "")
    labels = {"loss": "validation loss"} | {q.key: label_of(q, dataset) for q in findings.quantities}
    rows = {key: text for key, text in labels.items() if findings.measured(key)}
    if not rows:
        return {}
    several = any(len(one.runs) > 1 for one in findings.race.entrants.values())
    title = "Against steps, as in Fig. 4, and against compute" + (" (thin: each seed; thick: their mean)" * several)
    return {"curves": (title, draw_curves(findings, rows))}


def draw_curves(findings: Findings, rows: dict[str, str]) -> Figure:
    """A row for each quantity, named by its label, a column for steps and one for FLOPs."""
    size = (11.5, 3.1 * len(rows) + 0.5)
    figure, grid = plt.subplots(len(rows), 2, figsize=size, sharex="col", sharey="row", squeeze=False)
    colour = colours(list(findings.race.entrants))
    higher = {q.key for q in findings.quantities if q.better == "higher"}
    for (quantity, text), panels in zip(rows.items(), grid, strict=True):
        for x, axes in zip(X, panels, strict=True):
            for name, one in findings.race.entrants.items():
                _draw_entrant(axes, one, x, quantity, colour[name])
            if x == "flops":
                axes.set_xscale("log")
                log_ticks(axes.xaxis, "%.0e", (1, 2, 5))
            if quantity not in higher:
                axes.set_yscale("log")
                log_ticks(axes.yaxis)
        panels[0].set_ylabel(text)
    for x, axes in zip(X, grid[-1], strict=True):
        axes.set_xlabel(X[x])
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=max(len(names), 1))
    return figure


def _draw_entrant(axes: Axes, one: Entrant, x: str, quantity: str, colour: tuple[float, ...]) -> None:
    """Thin lines for the runs, dotted where not complete; a thick one for the mean where all complete runs have it."""
    lines = {run.seed: {p["step"]: p for p in run.points if math.isfinite(p[quantity])} for run in one.runs}
    for run in one.runs:
        points = lines[run.seed].values()
        style = {"lw": 0.8, "alpha": 0.45} if run.final else {"lw": 1.2, "ls": ":"}
        axes.plot([p[x] for p in points], [p[quantity] for p in points], color=colour, **style)
    by_step = [lines[run.seed] for run in one.complete]
    shared = sorted(set.intersection(*map(set, by_step))) if by_step else []
    means = [float(np.mean([points[step][quantity] for points in by_step])) for step in shared]
    text = label(one.name) + ("" if one.complete else " (not finished)")
    style = {"lw": 2.2, "marker": "o", "ms": 3.5} if one.complete else {"lw": 1.2, "ls": ":"}
    axes.plot([by_step[0][step][x] for step in shared], means, color=colour, label=text, **style)
