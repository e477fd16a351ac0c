"""The figures of the scaling report. Each takes records and findings and returns a matplotlib figure."""

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from rfjax import analysis
from rfjax.study.records import Records
from rfjax.study.reports import correlations, drawing
from rfjax.study.reports.trends import Findings

AHEAD = 4.0  # the trend is drawn this far beyond the largest rung
AXES = {"parameters": "parameters N", "train_flops": "training FLOPs C"}


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """A running mean that starts with what there is."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def loss_against_steps(records: Records, findings: Findings) -> Figure:
    """Training loss (smoothed) and validation losses along each run."""
    figure, axes = plt.subplots()
    weights, colours = records.config["study"]["weights"], drawing.colours([rung.name for rung in records.rungs])
    for rung in records.rungs:
        lines = [line for line in rung.train if line["loss"] is not None]
        loss = _smooth(np.array([line["loss"] for line in lines]), max(len(lines) // 15, 1))
        axes.plot([line["step"] for line in lines], loss, color=colours[rung.name], label=rung.name, lw=1.4)
        curve = rung.curve(weights)
        axes.plot([p["step"] for p in curve], [p["loss"] for p in curve], "o", color=colours[rung.name], ms=4)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    drawing.plain_ticks(axes)
    axes.legend(title="training (line), validation (dot)", ncols=2, fontsize=8)
    return figure


def loss_against_flops(records: Records, findings: Findings) -> Figure:
    """Loss against training compute, with the lower envelope over all rungs."""
    figure, axes = plt.subplots()
    weights, colours = records.config["study"]["weights"], drawing.colours([rung.name for rung in records.rungs])
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
    drawing.plain_ticks(axes)
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
    drawing.plain_ticks(axes)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8)
    return figure


def loss_by_level(records: Records, findings: Findings) -> Figure:
    """The validation loss at each level of t: where size helps."""
    figure, axes = plt.subplots()
    weights, colours = records.config["study"]["weights"], drawing.colours([rung.name for rung in records.rungs])
    for rung in records.rungs:
        if final := rung.final(weights):
            levels = np.arange(8) / 8 + (0 if final["grid"] == "k/8" else 1 / 16)
            axes.plot(levels, final["levels"], "o-", color=colours[rung.name], label=rung.name, ms=3, lw=1.2)
    axes.set(xlabel="t (0 data, 1 noise)", ylabel="validation loss of the level", yscale="log")
    drawing.plain_ticks(axes)
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
    drawing.plain_ticks(axes)
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
    drawing.plain_ticks(axes)
    axes.legend(fontsize=8)
    return figure


def loss_and_quality(records: Records, findings: Findings) -> Figure:
    """The validation loss against score and Fréchet distance, a dot for each checkpoint: later ones are larger."""
    figure, panels = plt.subplots(1, 2, figsize=(13.0, 4.3))
    colours = drawing.colours([rung.name for rung in records.rungs])
    setting = correlations.main_setting(findings.scored)
    found = [pair for pair in findings.scored if pair.setting == setting]
    last = max(pair.step for pair in found)
    for axes, (quantity, label) in zip(panels, correlations.QUANTITIES.items(), strict=True):
        for name in dict.fromkeys(pair.run for pair in found):
            points = [pair for pair in found if pair.run == name]
            x, y = [p.loss for p in points], [getattr(p, quantity) for p in points]
            axes.plot(x, y, color=colours[name], lw=0.8, alpha=0.5)
            sizes = [12 + 60 * p.step / last for p in points]
            axes.scatter(x, y, s=sizes, color=colours[name], label=name, edgecolors="white", linewidths=0.6)
        axes.set(xlabel="validation loss", ylabel=label)
    panels[0].legend(fontsize=8, ncols=2, title=f"samples at {setting}")
    return figure


def figures(records: Records, findings: Findings) -> dict[str, tuple[str, Figure]]:
    """Every figure that the study has something for: name -> (title, figure)."""
    trained = any(line["loss"] is not None for rung in records.rungs for line in rung.train)
    wanted: list[tuple[str, str, bool, Callable[[Records, Findings], Figure]]] = [
        ("trend", "The trend", bool(findings.points), trend),
        ("loss_against_flops", "Loss against compute", trained, loss_against_flops),
        ("loss_against_steps", "Loss against steps", trained, loss_against_steps),
        ("loss_by_level", "Loss by noise level", bool(findings.points), loss_by_level),
        ("loss_and_quality", "Validation loss and quality of samples", bool(findings.scored), loss_and_quality),
        ("learning_rates", "Learning rates", bool(findings.sweeps), learning_rates),
        ("isoflops", "IsoFLOP curves", bool(findings.cuts), isoflops),
    ]
    return {name: (title, draw(records, findings)) for name, title, has, draw in wanted if has}
