"""The figures of the scaling report. Each takes records and findings and returns a matplotlib figure."""

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter

from rfjax import analysis
from rfjax.study.records import Records, RunRecord
from rfjax.study.reports import caveats, correlations, drawing, ladder, levels
from rfjax.study.reports.trends import Findings

AHEAD = 4.0  # the trend is drawn this far beyond the largest rung
PERCENT = [sign * size for sign in (-1, 1) for size in (1, 2, 5, 10, 20, 50, 100)] + [0]  # ticks
AXES = {"parameters": "parameters N", "train_flops": "training FLOPs C"}


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """A running mean that starts with what there is."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _training(rung: RunRecord, along: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps or FLOPs, and the smoothed training loss there; lines without a finite loss are left out."""
    lines = [line for line in rung.train if ladder.finite(line["loss"])]
    loss = _smooth(np.array([line["loss"] for line in lines]), max(len(lines) // 15, 1))
    return np.array([line[along] for line in lines], float), loss


def _two_losses(records: Records, along: str, label: str, scale: str) -> tuple[Figure, Axes]:
    """Training losses on the left, validation losses on the right: they are means over different t and weights.

    Returns:
        The figure and its left panel.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(13.0, 4.3))
    config, colours = records.config, drawing.colours([rung.name for rung in records.rungs])
    weights, measured = config["study"]["weights"], []
    for rung in records.rungs:
        x, loss = _training(rung, along)
        skip = len(x) // 20 if scale == "log" else 0  # the first steps are the warm-up's
        left.plot(x[skip:], loss[skip:], color=colours[rung.name], label=rung.name, lw=1.3)
        curve = [line for line in rung.curve(weights) if ladder.finite(line["loss"])]
        measured += [line["loss"] for line in curve]
        right.plot([p[along] for p in curve], [p["loss"] for p in curve], "o-", color=colours[rung.name], ms=4, lw=1,
                   label=rung.name)  # fmt: skip
    drop, density = config["text"]["drop"], config["flow"]["formulation"]
    left.set(
        title=f"training: t as drawn by {density}, raw weights, {drop:.0%} of texts dropped", ylabel="training loss"
    )
    right.set(title=f"validation: even levels of t ({config['validation']['levels']}), {weights} weights, all texts",
              ylabel="validation loss")  # fmt: skip
    for axes in (left, right):
        axes.set_xlabel(label)
        axes.title.set_fontsize(9)
        if any(np.size(line.get_ydata()) for line in axes.lines):  # an empty axis has no logarithm
            axes.set(xscale=scale, yscale="log")
            drawing.plain_ticks(axes)
            axes.legend(ncols=2, fontsize=8)
    return figure, left


def loss_against_steps(records: Records, findings: Findings) -> Figure:
    """Training losses (smoothed) and, apart, validation losses along each run."""
    return _two_losses(records, "step", "step", "linear")[0]


def loss_against_flops(records: Records, findings: Findings) -> Figure:
    """The same against training compute, with the lower envelope of the training losses."""
    figure, axes = _two_losses(records, "flops", "training FLOPs", "log")
    curves = [_training(rung, "flops") for rung in records.rungs]
    flops = np.concatenate([x[len(x) // 20 :] for x, _ in curves])
    losses = np.concatenate([loss[len(loss) // 20 :] for _, loss in curves])
    if flops.size:
        lowest = analysis.envelope(flops, losses)
        axes.plot(flops[lowest], losses[lowest], "k--", lw=1, label="envelope")
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
            axes.fill_between(
                grid,
                low,
                high,
                color=colour,
                alpha=0.15,
                lw=0,
                label="95 % of new measurements, if the law is right\nand the noise is equal at all sizes",
            )
    held = {v for fit in findings.judged.values() if fit.held_out for v in fit.held_out.x}
    for point in findings.points:
        out = point.x in held
        error = point.error if point.error is not None else point.stderr or 0.0
        style = {"color": "tab:red" if out else "black", "mfc": "white" if out else None}
        axes.errorbar(point.x, point.loss, yerr=error, fmt="D" if out else "o", ms=6, capsize=2, lw=1, **style)
        axes.annotate(point.name, (point.x, point.loss), textcoords="offset points", xytext=(6, 6), fontsize=8)
    if held:
        axes.plot([], [], "D", color="tab:red", mfc="white", label="held out of the fit")
    losses = [p.loss for p in findings.points]
    room = max(losses) - min(losses) or max(losses) * 0.1
    seen = caveats.examples_seen(findings.points, study["weights"])
    axes.set(xlabel=AXES[study["x"]], ylabel=f"validation loss at {seen}", xscale="log", yscale="log")
    axes.set_ylim(max(min(losses) - 0.6 * room, 0.5 * min(losses)), max(losses) + 0.3 * room)
    drawing.plain_ticks(axes)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8)
    return figure


def loss_by_level(records: Records, findings: Findings) -> Figure:
    """The validation loss at each level of t beside its known floor, and the loss above the floor against size."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(13.0, 4.3))
    weights, colours = records.config["study"]["weights"], drawing.colours([rung.name for rung in records.rungs])
    for point in findings.points:
        final = point.runs[0].final(weights)
        at = levels.times(final["grid"], len(final["levels"])) or range(len(final["levels"]))
        shown = np.mean([rung.final(weights)["levels"] for rung in point.runs], axis=0)
        left.plot(at, shown, "o-", color=colours[point.runs[0].name], label=point.name, ms=3, lw=1.2)
    floors = [(row.t, row.floor) for row in findings.levels if row.t is not None and row.floor is not None]
    for t, floor in floors:
        left.plot([t - 0.03, t + 0.03], [floor, floor], "k-", lw=2, label="known floor: no model is lower")
    left.set(xlabel="t (0 data, 1 noise)", ylabel="validation loss of the level", yscale="log")
    x = [point.x for point in findings.points]
    for row in findings.levels:
        excess = np.array([value if value > 0 else np.nan for value in row.excess])
        style = {"color": plt.cm.plasma(0.9 * row.t), "lw": 1} if row.t is not None else {"color": "black", "lw": 1.6}
        dashes = {levels.WHOLE: ":", levels.AFTER_0: "--"}.get(row.name, "-")
        gone = " (where above 0)" if np.isnan(excess).any() else ""
        right.plot(x, excess, "o", ls=dashes, ms=3, label=row.name + gone, **style)
    right.set(
        xlabel=AXES[records.config["study"]["x"]], ylabel="loss above the known floor", xscale="log", yscale="log"
    )
    for axes in (left, right):
        drawing.plain_ticks(axes)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(ncols=2, fontsize=7)
    return figure


def left_out(records: Records, findings: Findings) -> Figure:
    """Measured over fitted loss, and over the loss that the other rungs predict, with its interval."""
    figure, axes = plt.subplots()
    law = records.config["study"]["law"]
    law = law if law in findings.checks else next(iter(findings.checks))
    check, fit = findings.checks[law], findings.whole[law]
    x = [point.inputs[0] for point in fit.points]
    measured = np.array([point.loss for point in fit.points])
    axes.plot(x, 100 * (measured / fit.predict(x).value - 1), "ko", ms=5, label="law of all rungs")
    for i, one in enumerate(check.left_out):
        shown = 100 * (one.actual / one.predicted - 1)
        span = [[100 * (1 - one.low / one.predicted)], [100 * (one.high / one.predicted - 1)]]
        axes.errorbar(one.x * 1.08, 0, yerr=span, color="tab:blue", capsize=2, lw=1,
                      label="95 % by the other rungs" if i == 0 else None)  # fmt: skip
        axes.plot(
            one.x * 1.08, shown, "D", mfc="white", color="tab:red", label="law of the other rungs" if i == 0 else None
        )
        axes.annotate(one.label, (one.x, shown), textcoords="offset points", xytext=(-14, 4), fontsize=8)
    axes.axhline(0, color="gray", lw=0.8)
    axes.set(xlabel=AXES[records.config["study"]["x"]], ylabel=f"measured above {law}, %", xscale="log")
    axes.set_yscale("symlog", linthresh=5)
    low, high = axes.get_ylim()
    axes.set_yticks([tick for tick in PERCENT if low <= tick <= high], labels=None)
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.legend(fontsize=8)
    return figure


def learning_rates(records: Records, findings: Findings) -> Figure:
    """The loss against the learning rate at each depth."""
    figure, axes = plt.subplots()
    for sweep, colour in zip(
        findings.sweeps, plt.cm.viridis(np.linspace(0.05, 0.9, len(findings.sweeps))), strict=True
    ):
        axes.plot(sweep.rates, sweep.losses, "o-", color=colour, ms=4, lw=1.2, label=f"d = {sweep.depth}")
        axes.axvline(sweep.best, color=colour, lw=1, ls="--")
        for rate in sweep.lost:
            axes.plot(rate, max(sweep.losses), "x", color=colour, ms=7)
    axes.set(
        xlabel="learning rate (dashed: best; cross: no finite loss)",
        ylabel="validation loss",
        xscale="log",
        yscale="log",
    )
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
    if np.isfinite(found[0].floor):
        words = f"floor: {found[0].count} true pictures"
        panels[1].axhline(found[0].floor, color="black", lw=0.9, ls=":", label=words)
    panels[0].legend(fontsize=8, ncols=2, title=f"samples at {setting}")
    panels[1].legend(fontsize=8, ncols=2)
    return figure


def figures(records: Records, findings: Findings) -> dict[str, tuple[str, Figure]]:
    """Every figure that the study has something for: name -> (title, figure)."""
    trained = any(line["loss"] is not None for rung in records.rungs for line in rung.train)
    wanted: list[tuple[str, str, bool, Callable[[Records, Findings], Figure]]] = [
        ("trend", "The trend", bool(findings.points), trend),
        ("loss_against_flops", "Loss against compute", trained, loss_against_flops),
        ("loss_against_steps", "Loss against steps", trained, loss_against_steps),
        ("loss_by_level", "Loss by noise level", bool(findings.points), loss_by_level),
        ("left_out", "Each rung from the others", bool(findings.checks), left_out),
        ("loss_and_quality", "Validation loss and quality of samples", bool(findings.scored), loss_and_quality),
        ("learning_rates", "Learning rates", bool(findings.sweeps), learning_rates),
        ("isoflops", "IsoFLOP curves", bool(findings.cuts), isoflops),
    ]
    return {name: (title, draw(records, findings)) for name, title, has, draw in wanted if has}
