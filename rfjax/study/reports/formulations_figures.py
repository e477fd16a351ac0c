"""The figures of a contest of formulations: our ranks against the paper's, the fronts, and Fig. 3."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from rfjax import names
from rfjax.analysis import Contest, Setting
from rfjax.evaluation.quantity import Quantity
from rfjax.study.records import Records
from rfjax.study.reports import paper
from rfjax.study.reports.drawing import Figures, log_ticks
from rfjax.study.reports.formulations_findings import Findings

TABLE_2_STEPS = 25
HIGHLIGHT = "rf/lognorm(0.00,1.00)"
COLOURS = {
    "rf/lognorm": "#c2412d", "rf/mode": "#e08a1e", "rf/cosmap": "#b8a31a", "rf": "#7d4fa8", "eps/linear": "#1f6fb4",
    "v/linear": "#36a2c9", "v/cos": "#2c8a4b", "eps/cos": "#7bbf5a", "edm": "#6b7280",
}  # fmt: skip
OTHER = "#111111"  # a family that is not among those
MARKERS = "osD^vPX*"


def figures(study: Records, findings: Findings) -> Figures:
    """Our ranks against the paper's, the fronts, and Fig. 3."""
    drawn, contest = {}, findings.contest
    if contest.columns and contest.agreements["all"].places:
        seeds = len(contest.seeds)
        bars = f"95 % over {seeds} seeds" if seeds > 1 else "one standard deviation over settings; one seed"
        drawn["ranks"] = (f"Average rank: ours and the paper's (bars: {bars})", draw_ranks(contest))
    score, distance = (next((q for q in findings.quantities if q.better == b), None) for b in ("higher", "lower"))
    if (middle := table_2_settings(contest)) and score and distance:
        title = f"Score and distance at {TABLE_2_STEPS} steps (EMA weights)"
        drawn["fronts"] = (title, draw_fronts(contest, middle, score, distance))
    few = [s for s in contest.settings if s.weights == "ema" and s.guidance == contest.guidance]
    if len({setting.steps for setting in few}) > 1:
        title = f"Quality against sampling steps (EMA weights, guidance {contest.guidance:g})"
        drawn["steps"] = (title, draw_steps(contest, few, findings.quantities))
    return drawn


def table_2_settings(contest: Contest) -> list[Setting]:
    """The setting of Table 2 on each data set that has it."""
    settings = [Setting(dataset, "ema", TABLE_2_STEPS, contest.guidance) for dataset in contest.datasets]
    return [setting for setting in settings if setting in contest.measures]


def draw_ranks(contest: Contest) -> Figure:
    """Our average rank of each variant against Table 1's, with intervals over seeds, or the spread over settings."""
    figure, axes = plt.subplots(figsize=(7.4, 4.8))
    column, shown = contest.columns["all"], list(contest.agreements["all"].places)
    xs, ys = [paper.TABLE_1[name].all for name in shown], [column.average[name] for name in shown]
    for name, x, y in zip(shown, xs, ys, strict=True):
        low, high = column.interval[name] or (y - (column.spread[name] or 0.0), y + (column.spread[name] or 0.0))
        if low < high:
            axes.plot([x, x], [max(low, 1.0), high], color=colour(name), lw=1, alpha=0.35)
        axes.plot(x, y, "o", color=colour(name), ms=9 if name == HIGHLIGHT else 6, mec="white", mew=0.8)
    axes.set(xscale="log", yscale="log", xlabel=f"average rank in the paper (of {paper.POOL} variants)")
    axes.set_ylabel(f"average rank here (of {len(contest.ranked)})")
    axes.set_xlim(min(xs) / 1.15, max(xs) * 1.15)
    low, high = (math.log(end) for end in (min(ys) / 1.25, max(ys) * 1.25))
    axes.set_ylim(math.exp(low), math.exp(high))
    for axis in (axes.xaxis, axes.yaxis):
        log_ticks(axis, "%g", (1, 1.5, 2, 3, 4, 5, 6, 8))
    _name_in_margin(axes, shown, xs, [(math.log(y) - low) / (high - low) for y in ys])
    return figure


def _name_in_margin(axes: Axes, shown: Sequence[str], xs: Sequence[float], heights: Sequence[float]) -> None:
    """Names in the right margin, apart from each other, each tied to its point by a thin line."""
    gap = min(0.055, 1 / max(len(shown), 1))
    order = sorted(range(len(shown)), key=lambda i: (heights[i], xs[i]))
    at: list[float] = []
    for i in order:
        at.append(max(heights[i], at[-1] + gap) if at else heights[i])
    if at[-1] > 1.0:  # the last ran over the top: back down
        at = [min(y, 1.0 - gap * (len(at) - 1 - k)) for k, y in enumerate(at)]
    for i, y in zip(order, at, strict=True):
        axes.annotate(
            shown[i], (xs[i], heights[i]), xycoords=axes.get_xaxis_transform(), xytext=(1.03, y),
            textcoords="axes fraction", va="center", fontsize=8, color=colour(shown[i]),
            fontweight="bold" if shown[i] == HIGHLIGHT else "normal", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour(shown[i]), "lw": 0.5, "alpha": 0.4},
        )  # fmt: skip


def draw_fronts(contest: Contest, settings: Sequence[Setting], score: Quantity, distance: Quantity) -> Figure:
    """What is ranked in one setting: score up, distance down, with a line through the first front."""
    figure, grid = plt.subplots(1, len(settings), figsize=(7.4, 4.8), squeeze=False)
    for setting, axes in zip(settings, grid[0], strict=True):
        found = {variant: m for variant, m in contest.measures[setting].items() if m.drawn}
        at = {variant: (m.values[distance.key], m.values[score.key]) for variant, m in found.items()}
        for variant in sorted(found, key=HIGHLIGHT.__eq__):
            style = _style(variant, contest.variants)
            style |= {"ms": style["ms"] + 2, "lw": 0, "elinewidth": 0.7, "yerr": found[variant].errors[score.key]}
            axes.errorbar(*at[variant], **style)
        first = sorted(at[v] for v, front in contest.fronts.get(setting, {}).items() if front == 1 and v in at)
        if first:
            axes.plot(*zip(*first, strict=True), color="black", lw=0.9, ls="--", zorder=0, label="first front")
            axes.legend(fontsize=8, loc="lower left")
        axes.set(title=setting.dataset, xlabel=distance.label, ylabel=score.label, xscale="log")
        log_ticks(axes.xaxis, "%g", (1, 2, 5))
    return figure


def draw_steps(contest: Contest, settings: Sequence[Setting], quantities: Sequence[Quantity]) -> Figure:
    """Fig. 3: each quantity, distances above, against the number of steps; a column of panels for each data set."""
    datasets = list(dict.fromkeys(setting.dataset for setting in settings))
    rows = sorted(quantities, key=lambda q: q.better == "higher")
    size = (5.2 * len(datasets) + 2.2, 3.6 * len(rows))
    figure, grid = plt.subplots(len(rows), len(datasets), figsize=size, sharex=True, squeeze=False)
    shown: dict[str, Any] = {}
    for dataset, panels in zip(datasets, grid.T, strict=True):
        there = sorted((s for s in settings if s.dataset == dataset), key=lambda s: s.steps)
        for axes, quantity in zip(panels, rows, strict=True):
            for variant in sorted(contest.variants, key=HIGHLIGHT.__eq__):
                cells = [(s.steps, contest.measures[s].get(variant)) for s in there]
                points = [(steps, cell.values[quantity.key]) for steps, cell in cells if cell and cell.drawn]
                if points:
                    axes.plot(*zip(*points, strict=True), label=variant, **_style(variant, contest.variants))
            axes.set_xscale("log")
            axes.set_xticks([s.steps for s in there], [str(s.steps) for s in there])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_ylabel(quantity.label + (" (lower is better)" if quantity.better == "lower" else ""))
            if quantity.better == "lower":
                axes.set_yscale("log")
                log_ticks(axes.yaxis)
        panels[0].set_title(dataset)
        panels[-1].set_xlabel("steps")
        shown |= {label: handle for handle, label in zip(*panels[0].get_legend_handles_labels(), strict=True)}
    order = [name for name in contest.variants if name in shown]
    figure.legend([shown[n] for n in order], order, loc="outside right upper", fontsize=8, title="by average rank")
    return figure


def colour(variant: str) -> str:
    """The colour of a variant's family."""
    return COLOURS.get(names.family(variant), OTHER)


def _style(variant: str, variants: Sequence[str]) -> dict[str, Any]:
    """The colour of the family, a marker within it; the highlight is thick."""
    kin = [v for v in sorted(variants) if names.family(v) == names.family(variant)]
    main = variant == HIGHLIGHT
    style = {"color": colour(variant), "marker": MARKERS[kin.index(variant) % len(MARKERS)]}
    return style | {"lw": 3.0 if main else 1.2, "ms": 7 if main else 4, "alpha": 1.0 if main else 0.8}
