"""The figure of a comparison of backbones: SD3's Fig. 4, with a second column for compute."""

import math

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rfjax.study.records import Records
from rfjax.study.reports import drawing
from rfjax.study.reports.backbones import QUANTITIES, Backbone, Findings
from rfjax.study.reports.contest_figures import SCORES

X = {"step": "steps", "flops": "training FLOPs"}


def figures(study: Records, findings: Findings) -> dict[str, tuple[str, Figure]]:
    """Fig. 4, with a second column for compute."""
    points = [p for b in findings.backbones for run in b.runs for p in run.points]
    rows = [q for q in QUANTITIES if any(math.isfinite(getattr(p, q)) for p in points)]
    if not rows:
        return {}
    many = any(len(b.runs) > 1 for b in findings.backbones)
    title = "Against steps, as in Fig. 4, and against compute" + (" (thin: each seed; thick: their mean)" * many)
    return {"curves": (title, curves(study, findings, rows))}


def curves(study: Records, findings: Findings, rows: list[str]) -> Figure:
    """A row for each quantity, a column for steps and one for FLOPs."""
    figure, grid = plt.subplots(
        len(rows), 2, figsize=(11.5, 3.1 * len(rows) + 0.5), sharex="col", sharey="row", squeeze=False
    )
    names = {
        "loss": "validation loss",
        "score": next((SCORES[rung.dataset] for rung in study.rungs if rung.dataset in SCORES), "score"),
        "frechet": "Fréchet distance",
    }
    colours = drawing.colours([b.name for b in findings.backbones])
    for quantity, panels in zip(rows, grid, strict=True):
        for x, axes in zip(X, panels, strict=True):
            for b in findings.backbones:
                _draw(axes, b, x, quantity, colours[b.name])
            if x == "flops":
                axes.set_xscale("log")
                axes.xaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
                axes.xaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%.0e"))
                axes.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
            if quantity != "score":
                axes.set_yscale("log")
                drawing.plain_ticks(axes)
        panels[0].set_ylabel(names[quantity])
    for x, axes in zip(X, grid[-1], strict=True):
        axes.set_xlabel(X[x])
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=max(len(labels), 1))
    return figure


def _draw(axes: Axes, backbone: Backbone, x: str, quantity: str, colour: tuple[float, ...]) -> None:
    """Thin lines for the runs, dotted where not complete; a thick one for the mean where all complete runs have it."""
    lines = {run.seed: [p for p in run.points if math.isfinite(getattr(p, quantity))] for run in backbone.runs}
    for run in backbone.runs:
        points = lines[run.seed]
        style = {"lw": 0.8, "alpha": 0.45} if run.final else {"lw": 1.2, "ls": ":"}
        axes.plot([getattr(p, x) for p in points], [getattr(p, quantity) for p in points], color=colour, **style)
    by_step = [{p.step: p for p in lines[run.seed]} for run in backbone.complete]
    shared = sorted(set.intersection(*map(set, by_step))) if by_step else []
    means = [float(np.mean([getattr(points[step], quantity) for points in by_step])) for step in shared]
    suffix = "" if backbone.complete else " (not finished)"
    style = {"lw": 2.2, "marker": "o", "ms": 3.5} if backbone.complete else {"lw": 1.2, "ls": ":"}
    axes.plot(
        [getattr(by_step[0][step], x) for step in shared], means, color=colour, label=backbone.label + suffix, **style
    )
