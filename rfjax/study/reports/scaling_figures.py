"""The figures of the scaling report. Each takes records and findings and returns a matplotlib figure."""

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter

from rfjax import analysis
from rfjax.analysis import levels
from rfjax.study.records import Records, RunRecord
from rfjax.study.reports import scaling_level_surfaces, scaling_successive
from rfjax.study.reports.drawing import TWO_PANELS, Figures, colours, finish, log_ticks, name_point
from rfjax.study.reports.scaling_findings import Findings
from rfjax.study.run_records import finite

AHEAD = 4.0  # the trend is drawn this far beyond the largest rung
PERCENT = [sign * size for sign in (-1, 1) for size in (1, 2, 5, 10, 20, 50, 100)] + [0]  # ticks
AXES = {"parameters": "parameters N", "train_flops": "training FLOPs C"}


def figures(records: Records, findings: Findings) -> Figures:
    """Every figure that the study has something for."""
    trained = any(line["loss"] is not None for run in records.runs for line in run.train)
    trend, rungs = findings.trend, bool(findings.trend.rungs)
    wanted = [
        ("trend", "The trend", rungs, draw_trend),
        ("loss_against_flops", "Loss against compute", trained, partial(draw_losses, along="flops")),
        ("loss_against_steps", "Loss against steps", trained, draw_losses),
        ("loss_by_level", "Loss by noise level", rungs, draw_levels),
        ("successive", "Each rung from the smaller ones", any(trend.choice.ahead.values()), scaling_successive.draw),
        ("left_out", "Each rung from the others", bool(trend.checks), draw_left_out),
        ("loss_and_quality", "Validation loss and quality of samples", bool(findings.scored), draw_quality),
        ("learning_rates", "Learning rates", bool(findings.sweeps), draw_learning_rates),
        ("isoflops", "IsoFLOP curves", bool(findings.surface.cuts), draw_isoflops),
        ("surface_by_level", "L(N, D) by noise level", _has_levels(findings.surface), scaling_level_surfaces.draw),
    ]
    return {name: (title, draw(records, findings)) for name, title, has, draw in wanted if has}


def _has_levels(surface: analysis.Surface) -> bool:
    return any(row.fit is not None and row.t is not None for row in surface.levels)


def draw_losses(records: Records, findings: Findings, along: str = "step") -> Figure:
    """Training losses (smoothed) and, apart, validation losses along each run: means over different t and weights.

    Against FLOPs the training losses have their lower envelope.
    """
    label, scale = {"step": ("step", "linear"), "flops": ("training FLOPs", "log")}[along]
    figure, (left, right) = plt.subplots(1, 2, figsize=TWO_PANELS)
    config, colour = records.config, colours([run.name for run in records.runs])
    weights, training = config["study"]["weights"], []
    for run in records.runs:
        means = _training(run, along)
        training.append(means[:, means.shape[1] // 20 if scale == "log" else 0 :])  # the first steps are the warm-up's
        left.plot(*training[-1], color=colour[run.name], label=run.name, lw=1.3)
        curve = [(line[along], line["loss"]) for line in run.curve(weights) if finite(line["loss"])]
        style = {"color": colour[run.name], "ms": 4, "lw": 1, "label": run.name}
        right.plot([x for x, _ in curve], [loss for _, loss in curve], "o-", **style)
    x, losses = np.concatenate([np.empty((2, 0)), *training], axis=1)
    if along == "flops" and x.size:
        lowest = analysis.envelope(x, losses)
        left.plot(x[lowest], losses[lowest], "k--", lw=1, label="envelope")
    drop, density = config["text"]["drop"], config["flow"]["formulation"]
    even = f"even levels of t ({config['validation']['levels']}), {weights} weights"
    few = min(config["validation"].get("along", 0), config["validation"]["examples"])
    even += f", {few} triples" if few else ""
    left.set(title=f"training: t as drawn by {density}, raw weights, {drop:.0%} of texts dropped")
    right.set(title=f"validation: {even}, all texts")
    for axes, what in ((left, "training loss"), (right, "validation loss")):
        axes.set(xlabel=label, ylabel=what)
        axes.title.set_fontsize(9)
        if any(np.size(line.get_ydata()) for line in axes.lines):  # an empty axis has no logarithm
            axes.set(xscale=scale, yscale="log")
            log_ticks(axes.yaxis)
            axes.legend(ncols=2, fontsize=8)
    return figure


def _training(run: RunRecord, along: str) -> np.ndarray:
    """Steps or FLOPs, and there the running mean of the training loss; lines without a finite loss are left out."""
    lines = [line for line in run.train if finite(line["loss"])]
    sums = np.cumsum([0.0, *(line["loss"] for line in lines)])
    ends = np.arange(1, len(lines) + 1)
    starts = np.maximum(ends - max(len(lines) // 15, 1), 0)
    return np.array([[line[along] for line in lines], (sums[ends] - sums[starts]) / (ends - starts)], float)


def draw_trend(records: Records, findings: Findings) -> Figure:
    """The fitted laws, the headline's 95 % interval of a new measurement, and the held-out rung."""
    figure, axes = plt.subplots()
    trend, rungs = findings.trend, findings.trend.rungs
    x, losses = np.array([rung.x for rung in rungs]), [rung.loss for rung in rungs]
    grid = np.geomspace(x.min() / 1.3, x.max() * AHEAD, 200)
    span = "95 % of new measurements, if the law is right\nand the noise is as supposed"
    for law, fit in trend.judged.items():
        value, low, high = fit.predict(grid)
        main = law == findings.study["law"] or findings.study["law"] not in trend.judged
        style = {"color": "tab:blue", "lw": 1.6, "ls": "-"} if main else {"color": "tab:gray", "lw": 1.0, "ls": ":"}
        axes.plot(grid, value, label=law, **style)
        if main:
            axes.fill_between(grid, low, high, color=style["color"], alpha=0.15, lw=0, label=span)
    held = {v for fit in trend.judged.values() if fit.held_out for v in fit.held_out.x}
    for rung in rungs:
        out = rung.x in held
        error = rung.error if rung.error is not None else rung.stderr or 0.0
        style = {"color": "tab:red" if out else "black", "mfc": "white" if out else None}
        axes.errorbar(rung.x, rung.loss, yerr=error, fmt="D" if out else "o", ms=6, capsize=2, lw=1, **style)
        name_point(axes, rung.name, rung.x, rung.loss)
    if held:
        axes.plot([], [], "D", color="tab:red", mfc="white", label="held out of the fit")
    room = max(losses) - min(losses) or max(losses) * 0.1
    finish(axes, AXES[findings.study["x"]], f"validation loss at {trend.ladder.examples_seen}")
    axes.set_ylim(max(min(losses) - 0.6 * room, 0.5 * min(losses)), max(losses) + 0.3 * room)
    return figure


def draw_levels(records: Records, findings: Findings) -> Figure:
    """The validation loss at each level of t beside its known floor, and the loss above the floor against size."""
    figure, (left, right) = plt.subplots(1, 2, figsize=TWO_PANELS)
    colour, trend = colours([run.name for run in records.runs]), findings.trend
    for rung in trend.rungs:
        first = rung.runs[0]
        at = levels.times(first.grid, len(first.levels)) or range(len(first.levels))
        shown = np.mean([run.levels for run in rung.runs], axis=0)
        left.plot(at, shown, "o-", color=colour[first.name], label=rung.name, ms=3, lw=1.2)
    for row in trend.levels:
        if row.t is not None and row.floor is not None:
            ends = [row.t - 0.03, row.t + 0.03]
            left.plot(ends, [row.floor, row.floor], "k-", lw=2, label="known floor: no model is lower")
    finish(left, "t (0 data, 1 noise)", "validation loss of the level", "linear", ncols=2, fontsize=7)
    x = [rung.x for rung in trend.rungs]
    for row in trend.levels:
        excess = np.array([value if value > 0 else np.nan for value in row.excess])
        style = {"color": plt.cm.plasma(0.9 * row.t), "lw": 1} if row.t is not None else {"color": "black", "lw": 1.6}
        dashes = {levels.WHOLE: ":", levels.AFTER_0: "--"}.get(row.name, "-")
        gone = " (where above 0)" if np.isnan(excess).any() else ""
        right.plot(x, excess, "o", ls=dashes, ms=3, label=row.name + gone, **style)
    finish(right, AXES[findings.study["x"]], "loss above the known floor", ncols=2, fontsize=7)
    return figure


def draw_left_out(records: Records, findings: Findings) -> Figure:
    """Measured over fitted loss, and over the loss that the other rungs predict, with its interval."""
    figure, axes = plt.subplots()
    trend, law = findings.trend, findings.study["law"]
    law = law if law in trend.checks else next(iter(trend.checks))
    check, fit = trend.checks[law], trend.whole[law]
    x = [point.inputs[0] for point in fit.points]
    measured = np.array([point.loss for point in fit.points])
    axes.plot(x, 100 * (measured / fit.predict(x).value - 1), "ko", ms=5, label="law of all rungs")
    labels = ("95 % by the other rungs", "law of the other rungs")
    for one in check.left_out:
        shown = 100 * (one.actual / one.predicted - 1)
        span = [[100 * (1 - one.low / one.predicted)], [100 * (one.high / one.predicted - 1)]]
        axes.errorbar(one.x * 1.08, 0, yerr=span, color="tab:blue", capsize=2, lw=1, label=labels[0])
        axes.plot(one.x * 1.08, shown, "D", mfc="white", color="tab:red", label=labels[1])
        name_point(axes, one.label, one.x, shown, (-14, 4))
        labels = (None, None)
    axes.axhline(0, color="gray", lw=0.8)
    axes.set(xlabel=AXES[findings.study["x"]], ylabel=f"measured above {law}, %", xscale="log")
    axes.set_yscale("symlog", linthresh=5)
    low, high = axes.get_ylim()
    axes.set_yticks([tick for tick in PERCENT if low <= tick <= high], labels=None)
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.legend(fontsize=8)
    return figure


def draw_learning_rates(records: Records, findings: Findings) -> Figure:
    """The loss against the learning rate at each depth."""
    figure, axes = plt.subplots()
    shades = plt.cm.viridis(np.linspace(0.05, 0.9, len(findings.sweeps)))
    for sweep, shade in zip(findings.sweeps, shades, strict=True):
        axes.plot(sweep.rates, sweep.losses, "o-", color=shade, ms=4, lw=1.2, label=f"d = {sweep.depth}")
        axes.axvline(sweep.best, color=shade, lw=1, ls="--")
        for rate in sweep.lost:
            axes.plot(rate, max(sweep.losses), "x", color=shade, ms=7)
    finish(axes, "learning rate (dashed: best; cross: no finite loss)", "validation loss")
    return figure


def draw_isoflops(records: Records, findings: Findings) -> Figure:
    """The loss against N at equal compute, with a parabola for each budget."""
    figure, axes = plt.subplots()
    cuts = findings.surface.cuts
    for cut, shade in zip(cuts, plt.cm.plasma(np.linspace(0.1, 0.8, len(cuts))), strict=True):
        if not cut.n:
            continue
        axes.plot(cut.n, cut.loss, "o", color=shade, ms=4, label=f"C = {cut.budget:.1e}")
        if cut.coefficients:
            n = np.geomspace(min(cut.n), max(cut.n), 80)
            axes.plot(n, np.polyval(cut.coefficients[::-1], np.log(n / cut.centre)), color=shade, lw=1)
        if cut.status == "minimum inside":
            axes.plot(cut.n_best, cut.loss_best, "*", color=shade, ms=11)
    finish(axes, "parameters N (star: minimum)", "validation loss")
    return figure


def draw_quality(records: Records, findings: Findings) -> Figure:
    """The validation loss against each quantity, a dot for each checkpoint: later ones are larger."""
    quantities = findings.quantities
    width, height = TWO_PANELS
    figure, grid = plt.subplots(1, len(quantities), figsize=(width * len(quantities) / 2, height), squeeze=False)
    colour, setting = colours([run.name for run in records.runs]), analysis.main_setting(findings.scored)
    found = [one for one in findings.scored if one.setting == setting]
    last = max(one.step for one in found)
    for axes, quantity in zip(grid[0], quantities, strict=True):
        for name in dict.fromkeys(one.run for one in found):
            points = [one for one in found if one.run == name]
            x, y = [p.loss for p in points], [p.values[quantity.key] for p in points]
            axes.plot(x, y, color=colour[name], lw=0.8, alpha=0.5)
            sizes = [12 + 60 * p.step / last for p in points]
            axes.scatter(x, y, s=sizes, color=colour[name], label=name, edgecolors="white", linewidths=0.6)
        axes.set(xlabel="validation loss", ylabel=f"{quantity.label} ({quantity.better} is better)")
        floor, words = found[0].floors[quantity.key], f"floor: {found[0].count} true pictures"
        if np.isfinite(floor):
            axes.axhline(floor, color="black", lw=0.9, ls=":", label=words)
        title = f"samples at {setting}" if axes is grid[0, 0] else None
        axes.legend(fontsize=8, ncols=2, title=title)
    return figure
