"""The figures of a report. Each takes findings and records and returns a matplotlib figure."""

from collections.abc import Callable

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rfjax import analysis
from rfjax.study.records import Records, Rung
from rfjax.study.trends import Findings

AHEAD = 4.0  # the trend is drawn this far beyond the largest rung
STYLE = {
    "figure.figsize": (6.4, 4.2),
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "font.size": 10,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "savefig.dpi": 160,
}
AXES = {"parameters": "parameters N", "train_flops": "training FLOPs C"}


def _colours(rungs: tuple[Rung, ...]) -> dict[str, tuple[float, ...]]:
    return dict(zip((r.name for r in rungs), plt.cm.viridis(np.linspace(0.05, 0.9, len(rungs))), strict=True))


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """A running mean that starts with what there is."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def loss_against_steps(records: Records, findings: Findings) -> Figure:
    """Training loss (smoothed) and validation losses along each run."""
    figure, axes = plt.subplots()
    weights, colours = records.config["study"]["weights"], _colours(records.rungs)
    for rung in records.rungs:
        lines = [line for line in rung.train if line["loss"] is not None]
        loss = _smooth(np.array([line["loss"] for line in lines]), max(len(lines) // 15, 1))
        axes.plot([line["step"] for line in lines], loss, color=colours[rung.name], label=rung.name, lw=1.4)
        curve = rung.curve(weights)
        axes.plot([p["step"] for p in curve], [p["loss"] for p in curve], "o", color=colours[rung.name], ms=4)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    _plain_ticks(axes)
    axes.legend(title="training (line), validation (dot)", ncols=2, fontsize=8)
    return figure


def loss_against_flops(records: Records, findings: Findings) -> Figure:
    """Loss against training compute, with the lower envelope over all rungs."""
    figure, axes = plt.subplots()
    weights, colours = records.config["study"]["weights"], _colours(records.rungs)
    flops, losses = [], []
    for rung in records.rungs:
        lines = [line for line in rung.train if line["loss"] is not None]
        loss = _smooth(np.array([line["loss"] for line in lines]), max(len(lines) // 15, 1))
        cost = [line["flops"] for line in lines]
        skip = len(lines) // 20  # the first steps are the warm-up's
        axes.plot(cost[skip:], loss[skip:], color=colours[rung.name], label=rung.name, lw=1.2, alpha=0.8)
        if final := rung.final(weights):
            axes.plot(final["flops"], final["loss"], "o", color=colours[rung.name], ms=5)
        flops += cost[skip:]
        losses += list(loss[skip:])
    if flops:
        lowest = analysis.envelope(flops, losses)
        axes.plot(np.array(flops)[lowest], np.array(losses)[lowest], "k--", lw=1, label="envelope")
    axes.set(xlabel="training FLOPs", ylabel="training loss (dots: validation)", xscale="log", yscale="log")
    _plain_ticks(axes)
    axes.legend(ncols=2, fontsize=8)
    return figure


def trend(records: Records, findings: Findings) -> Figure:
    """The fitted laws, the headline's 95 % interval of a new measurement, and the held-out rung."""
    figure, axes = plt.subplots()
    study = records.config["study"]
    x = np.array([p.x for p in findings.points])
    grid = np.geomspace(x.min() / 1.3, x.max() * AHEAD, 200)
    for law, fit in findings.judged.items():
        value, low, high = fit.predict(grid)
        main = law == study["law"] or study["law"] not in findings.judged
        colour = "tab:blue" if main else "tab:gray"
        axes.plot(grid, value, color=colour, lw=1.6 if main else 1.0, ls="-" if main else ":", label=law)
        if main:
            axes.fill_between(grid, low, high, color=colour, alpha=0.15, lw=0, label="95 % of new measurements")
    held = {v for fit in findings.judged.values() if fit.held_out for v in fit.held_out.x}
    for point in findings.points:
        out = point.x in held
        error = point.spread if point.spread is not None else point.stderr
        style = {"color": "tab:red" if out else "black", "mfc": "white" if out else None}
        axes.errorbar(point.x, point.loss, yerr=error, fmt="D" if out else "o", ms=6, capsize=2, lw=1, **style)
        axes.annotate(point.name, (point.x, point.loss), textcoords="offset points", xytext=(6, 6), fontsize=8)
    if held:
        axes.plot([], [], "D", color="tab:red", mfc="white", label="held out of the fit")
    losses = [p.loss for p in findings.points]
    room = max(losses) - min(losses) or max(losses) * 0.1
    axes.set(xlabel=AXES[study["x"]], ylabel="validation loss", xscale="log", yscale="log")
    axes.set_ylim(max(min(losses) - 0.6 * room, 0.5 * min(losses)), max(losses) + 0.3 * room)
    _plain_ticks(axes)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8)
    return figure


def loss_by_level(records: Records, findings: Findings) -> Figure:
    """The validation loss at each level of t: where size helps."""
    figure, axes = plt.subplots()
    weights, colours = records.config["study"]["weights"], _colours(records.rungs)
    for rung in records.rungs:
        if final := rung.final(weights):
            levels = np.arange(8) / 8 + (0 if final["grid"] == "k/8" else 1 / 16)
            axes.plot(levels, final["levels"], "o-", color=colours[rung.name], label=rung.name, ms=3, lw=1.2)
    axes.set(xlabel="t (0 data, 1 noise)", ylabel="validation loss of the level", yscale="log")
    _plain_ticks(axes)
    axes.legend(ncols=2, fontsize=8)
    return figure


def learning_rates(records: Records, findings: Findings) -> Figure:
    """The loss against the learning rate at each depth."""
    figure, axes = plt.subplots()
    for sweep, colour in zip(
        findings.sweeps, plt.cm.viridis(np.linspace(0.05, 0.9, len(findings.sweeps))), strict=True
    ):
        axes.plot(sweep.rates, sweep.losses, "o-", color=colour, ms=4, lw=1.2, label=f"d = {sweep.depth}")
        axes.axvline(sweep.best, color=colour, lw=1, ls="--")
    axes.set(xlabel="learning rate (dashed: best)", ylabel="validation loss", xscale="log", yscale="log")
    _plain_ticks(axes)
    axes.legend(fontsize=8)
    return figure


def isoflops(records: Records, findings: Findings) -> Figure:
    """The loss against N at equal compute, with a parabola for each budget."""
    figure, axes = plt.subplots()
    for cut, colour in zip(findings.cuts, plt.cm.plasma(np.linspace(0.1, 0.8, len(findings.cuts))), strict=True):
        if not cut.n:
            continue
        axes.plot(cut.n, cut.loss, "o", color=colour, ms=4, label=f"C = {cut.budget:.1e}")
        if cut.coefficients:
            n = np.geomspace(min(cut.n), max(cut.n), 80)
            u = np.log(n / cut.centre)
            axes.plot(n, np.polyval(cut.coefficients[::-1], u), color=colour, lw=1)
        if cut.status == "minimum inside":
            axes.plot(cut.n_best, cut.loss_best, "*", color=colour, ms=11)
    axes.set(xlabel="parameters N (star: minimum)", ylabel="validation loss", xscale="log", yscale="log")
    _plain_ticks(axes)
    axes.legend(fontsize=8)
    return figure


def _plain_ticks(axes: Axes) -> None:
    """Losses span less than a decade: label them as plain numbers."""
    axes.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 6, 7, 8)))
    axes.yaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%.3g"))
    axes.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())


def figures(records: Records, findings: Findings) -> dict[str, tuple[str, Figure]]:
    """Every figure that the study has something for: name -> (title, figure)."""
    wanted: list[tuple[str, str, bool, Callable[[Records, Findings], Figure]]] = [
        ("trend", "The trend", bool(findings.points), trend),
        ("loss_against_flops", "Loss against compute", bool(records.rungs), loss_against_flops),
        ("loss_against_steps", "Loss against steps", bool(records.rungs), loss_against_steps),
        ("loss_by_level", "Loss by noise level", bool(findings.points), loss_by_level),
        ("learning_rates", "Learning rates", bool(findings.sweeps), learning_rates),
        ("isoflops", "IsoFLOP curves", bool(findings.cuts), isoflops),
    ]
    with plt.rc_context(STYLE):
        return {name: (title, draw(records, findings)) for name, title, has, draw in wanted if has}
