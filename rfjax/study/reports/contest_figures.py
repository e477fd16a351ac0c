"""The figures of a contest of formulations: our ranks against the paper's, the fronts, and Fig. 3."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rfjax import names
from rfjax.study.records import Records
from rfjax.study.reports import drawing, paper
from rfjax.study.reports.contest import Findings
from rfjax.study.reports.measures import Setting

TABLE_2_STEPS = 25
SCORES = {"shapes": "composition score", "digits": "classifier accuracy"}
HIGHLIGHT = "rf/lognorm(0.00,1.00)"
COLOURS = {
    "rf/lognorm": "#c2412d", "rf/mode": "#e08a1e", "rf/cosmap": "#b8a31a", "rf": "#7d4fa8", "eps/linear": "#1f6fb4",
    "v/linear": "#36a2c9", "v/cos": "#2c8a4b", "eps/cos": "#7bbf5a", "edm": "#6b7280",
}  # fmt: skip
OTHER = "#111111"  # a family that is not among those
MARKERS = "osD^vPX*"


def figures(study: Records, findings: Findings) -> dict[str, tuple[str, Figure]]:
    """Our ranks against the paper's, and Fig. 3."""
    drawn = {}
    if findings.places.get("all"):
        seeds = len(findings.seeds)
        bars = f"95 % over {seeds} seeds" if seeds > 1 else "one standard deviation over settings; one seed"
        drawn["ranks"] = (f"Average rank: ours and the paper's (bars: {bars})", against_the_paper(findings))
    if middle := table_2_settings(findings):
        drawn["fronts"] = (f"Score and distance at {TABLE_2_STEPS} steps (EMA weights)", pareto(findings, middle))
    few = [s for s in findings.settings if s.weights == "ema" and s.guidance == findings.guidance]
    if len({setting.steps for setting in few}) > 1:
        title = f"Quality against sampling steps (EMA weights, guidance {findings.guidance:g})"
        drawn["steps"] = (title, against_steps(findings, few))
    return drawn


def against_the_paper(findings: Findings) -> Figure:
    """Our average rank of each variant against Table 1's, with intervals over seeds, or the spread over settings."""
    figure, axes = plt.subplots(figsize=(7.4, 4.8))
    column, names = findings.columns["all"], list(findings.places["all"])
    xs, ys = [paper.TABLE_1[name].all for name in names], [column.average[name] for name in names]
    for name, x, y in zip(names, xs, ys, strict=True):
        low, high = column.interval[name] or (y - (column.spread[name] or 0.0), y + (column.spread[name] or 0.0))
        if low < high:
            axes.plot([x, x], [max(low, 1.0), high], color=colour(name), lw=1, alpha=0.35)
        axes.plot(x, y, "o", color=colour(name), ms=9 if name == HIGHLIGHT else 6, mec="white", mew=0.8)
    axes.set(xscale="log", yscale="log", xlabel=f"average rank in the paper (of {paper.POOL} variants)")
    axes.set_ylabel(f"average rank here (of {len(findings.ranked)})")
    axes.set_xlim(min(xs) / 1.15, max(xs) * 1.15)
    low, high = (math.log(end) for end in (min(ys) / 1.25, max(ys) * 1.25))
    axes.set_ylim(math.exp(low), math.exp(high))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 6, 8)))
        axis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
        axis.set_minor_formatter(mpl.ticker.NullFormatter())
    _labels(axes, names, xs, [(math.log(y) - low) / (high - low) for y in ys])
    return figure


def _labels(axes: Axes, names: Sequence[str], xs: Sequence[float], heights: Sequence[float]) -> None:
    """Names in the right margin, apart from each other, each tied to its point by a thin line."""
    gap = min(0.055, 1 / max(len(names), 1))
    order = sorted(range(len(names)), key=lambda i: (heights[i], xs[i]))
    at: list[float] = []
    for i in order:
        at.append(max(heights[i], at[-1] + gap) if at else heights[i])
    over = max(at[-1] - 1.0, 0.0)
    for k in range(len(at) - 1, -1, -1):  # back down, where the last ran over the top
        at[k] = min(at[k], 1.0 - gap * (len(at) - 1 - k)) if over else at[k]
    for i, y in zip(order, at, strict=True):
        axes.annotate(
            names[i],
            (xs[i], heights[i]),
            xycoords=axes.get_xaxis_transform(),
            xytext=(1.03, y),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            color=colour(names[i]),
            fontweight="bold" if names[i] == HIGHLIGHT else "normal",
            arrowprops={"arrowstyle": "-", "color": colour(names[i]), "lw": 0.5, "alpha": 0.4},
            annotation_clip=False,
        )


def table_2_settings(findings: Findings) -> list[Setting]:
    """The setting of Table 2 on each data set that has it."""
    settings = [Setting(dataset, "ema", TABLE_2_STEPS, findings.guidance) for dataset in findings.datasets]
    return [setting for setting in settings if setting in findings.measures]


def pareto(findings: Findings, settings: Sequence[Setting]) -> Figure:
    """What is ranked in one setting: score up, distance down, with a line through the first front."""
    figure, grid = plt.subplots(1, len(settings), figsize=(7.4, 4.8), squeeze=False)
    for setting, axes in zip(settings, grid[0], strict=True):
        found = {variant: m for variant, m in findings.measures[setting].items() if m.drawn}
        for variant in _drawing_order(list(found)):
            m, style = found[variant], _style(variant, findings.variants)
            axes.errorbar(m.frechet, m.score, yerr=m.stderr, elinewidth=0.7, **style | {"ms": style["ms"] + 2, "lw": 0})
        fronts = findings.columns["all"].by_setting.get(setting, {}) if findings.columns else {}
        first = sorted((found[v].frechet, found[v].score) for v, front in fronts.items() if front == 1 and v in found)
        if first:
            axes.plot(*zip(*first, strict=True), color="black", lw=0.9, ls="--", zorder=0, label="first front")
            axes.legend(fontsize=8, loc="lower left")
        axes.set(title=setting.dataset, xlabel="Fréchet distance", ylabel=SCORES.get(setting.dataset, "score"))
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
        axes.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    return figure


def against_steps(findings: Findings, settings: Sequence[Setting]) -> Figure:
    """Fig. 3: Fréchet distance (above) and score (below) against the number of steps; a panel for each data set."""
    datasets = list(dict.fromkeys(setting.dataset for setting in settings))
    figure, grid = plt.subplots(2, len(datasets), figsize=(5.2 * len(datasets) + 2.2, 7.2), sharex=True, squeeze=False)
    for dataset, panels in zip(datasets, grid.T, strict=True):
        there = sorted((s for s in settings if s.dataset == dataset), key=lambda s: s.steps)
        for axes, quantity in zip(panels, ("frechet", "score"), strict=True):
            for variant in _drawing_order(findings.variants):
                cells = [(s.steps, findings.measures[s].get(variant)) for s in there]
                points = [(steps, getattr(cell, quantity)) for steps, cell in cells if cell and cell.drawn]
                if points:
                    axes.plot(*zip(*points, strict=True), label=variant, **_style(variant, findings.variants))
            axes.set_xscale("log")
            axes.set_xticks([s.steps for s in there], [str(s.steps) for s in there])
            axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
        panels[0].set(title=dataset, yscale="log", ylabel="Fréchet distance (lower is better)")
        drawing.plain_ticks(panels[0])
        panels[1].set(xlabel="steps", ylabel=SCORES.get(dataset, "score"))
    shown = {}
    for axes in grid[0]:
        shown |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    names = [name for name in findings.variants if name in shown]
    figure.legend([shown[n] for n in names], names, loc="outside right upper", fontsize=8, title="by average rank")
    return figure


def _drawing_order(variants: Sequence[str]) -> list[str]:
    return sorted(variants, key=lambda variant: variant == HIGHLIGHT)  # on top of the others


def colour(variant: str) -> str:
    return COLOURS.get(names.family(variant), OTHER)


def _style(variant: str, variants: Sequence[str]) -> dict[str, Any]:
    """The colour of the family, a marker within it; the highlight is thick."""
    kin = [v for v in sorted(variants) if names.family(v) == names.family(variant)]
    main = variant == HIGHLIGHT
    style = {"color": colour(variant), "marker": MARKERS[kin.index(variant) % len(MARKERS)]}
    return style | {"lw": 3.0 if main else 1.2, "ms": 7 if main else 4, "alpha": 1.0 if main else 0.8}
