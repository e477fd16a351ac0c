"""A part of the scaling report: every rung from the smaller ones alone, and which law the rungs speak for."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter

from rfjax import analysis
from rfjax.analysis.fit import Prediction
from rfjax.analysis.successive import describe
from rfjax.study.records import Records
from rfjax.study.reports.drawing import name_point
from rfjax.study.reports.scaling_findings import Findings
from rfjax.study.reports.widgets import escape, formatted, note, table

AHEAD = 4.0  # times the largest rung, where the laws are set side by side
PERCENT = [sign * size for sign in (-1, 1) for size in (1, 2, 5, 10, 20, 50, 100)] + [0]  # ticks
LINEAR = 5.0  # per cent up to which the figure's axis is linear
SHIFTS, COLOURS = (1.0, 1.07, 1.145), ("tab:blue", "tab:orange", "tab:green")  # of the laws


def section(trend: analysis.Trend) -> str:
    """The laws of all rungs with what speaks for each, and the table of successive predictions."""
    choice = trend.choice
    if not choice.fits:
        return ""
    scores = {law: analysis.score(rows) for law, rows in choice.ahead.items()}
    said = [escape(describe(found)) for found in scores.values() if found]
    parts = ["<h2>Which law?</h2>", f"<p>{escape(choice.reason)}</p>", _laws(trend)]
    parts.append("<h2>Each rung from the smaller ones</h2>")
    if not said:
        return "".join([*parts, note("No rung has three smaller ones, so none was predicted.")])
    parts += [f"<p>{' '.join(said)}</p>", _predictions(choice)]
    parts.append(
        note(
            "What a ladder that ended earlier would have said. Intervals are of the rung's measured loss, with as many "
            "seeds as it has. Neighbouring predictions share rungs, so hits do not count as independent. Each law "
            "starts one rung after the fewest that it can be fitted to, where its intervals are widest."
        )
    )
    return "".join(parts)


def draw(records: Records, findings: Findings) -> Figure:
    """Measured over predicted, each rung from the smaller ones, with the 95 % interval of each law."""
    figure, axes = plt.subplots()
    named, last = set(), {}
    laws = [(law, rows) for law, rows in findings.trend.choice.ahead.items() if rows]
    for (law, rows), colour, shift in zip(laws, COLOURS, SHIFTS, strict=False):
        x = np.array([one.x for one in rows]) * shift
        middle = np.array([one.predicted for one in rows])
        ends = np.array([[one.low for one in rows], [one.high for one in rows]])
        span = 100 * np.abs(ends / middle - 1)
        shown = 100 * (np.array([one.actual for one in rows]) / middle - 1)
        label = f"95 % by {law} of the smaller rungs"
        axes.errorbar(x, np.zeros(x.size), yerr=span, fmt="none", color=colour, capsize=3, lw=1, label=label)
        held = np.array([one.inside for one in rows])
        axes.plot(x[held], shown[held], "o", color=colour, ms=5)
        axes.plot(x[~held], shown[~held], "X", color=colour, ms=8)
        last.update({one.label: (one.x, place) for one, place in zip(rows, shown, strict=True)})
        for one in rows:
            if one.label not in named:
                where = 100 * (one.baseline / one.actual - 1)
                label = None if named else "'the same as the rung before', over measured"
                axes.plot(one.x / 1.07, where, "_", color="gray", ms=12, mew=2, label=label)
                named.add(one.label)
    for name, (x, y) in last.items():
        name_point(axes, name, x, y)
    axes.axhline(0, color="gray", lw=0.8)
    words = {"parameters": "parameters N", "train_flops": "training FLOPs C"}[findings.study["x"]]
    axes.set(xlabel=words, ylabel="measured above predicted, % (cross: outside)", xscale="log")
    axes.set_yscale("symlog", linthresh=LINEAR)
    low, high = axes.get_ylim()
    axes.set_yticks([tick for tick in PERCENT if low <= tick <= high], labels=None)
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.legend(fontsize=8)
    return figure


def _laws(trend: analysis.Trend) -> str:
    choice = trend.choice
    beyond = AHEAD * max(rung.x for rung in trend.rungs)
    rows = []
    for law, fit in choice.fits.items():
        found = analysis.score(choice.ahead[law])
        cells = ["", "", ""]
        if found:
            errors = (found.error, found.baseline_error)
            cells = [f"{found.inside} of {found.rungs}", *(f"{100 * error:.2g} %" for error in errors)]
        score = [formatted(fit.aicc, ".1f", ""), formatted(choice.weights.get(law), ".2f", "")]
        rows.append([law, escape(fit.text), *score, *cells, _span(fit.predict(beyond))])
    if choice.weights:
        rows.append(["mean by weight", "", "", "1", "", "", "", _span(choice.average(beyond))])
    header = ["law", "fit to all rungs", "AICc", "weight", "successive rungs held", "their error",
              "the baseline's", f"one new run at {beyond:.3g} (95 %)"]  # fmt: skip
    return table(header, rows) + note(
        "Weights: how likely each law of the other rungs found every rung that was left out. The mean's interval is "
        "that of the mixture of the laws' predictions, so it holds their disagreement; that of a single law supposes "
        "that this law is right. broken_power is A x^-alpha with another exponent beyond a break inside of the ladder "
        f"(Caballero et al. 2022). The last column is at {AHEAD:g} times the largest rung."
    )


def _span(found: Prediction) -> str:
    return f"{found.value:.4f} ({found.low:.4f} to {found.high:.4f})"


def _predictions(choice: analysis.Choice) -> str:
    rows = [
        [
            law,
            escape(one.label),
            f"{one.rungs} rungs, {one.times:.3g}x smaller",
            f"{one.predicted:.4f} ({one.low:.4f} to {one.high:.4f})",
            f"{one.actual:.4f}",
            f"{100 * one.error:+.2f} %",
            "yes" if one.inside else "<b>no</b>",
            f"{100 * one.baseline_error:+.2f} %",
        ]
        for law, ahead in choice.ahead.items()
        for one in ahead
    ]
    header = ["law", "rung", "predicted from", "predicted (95 %)", "measured", "error", "inside",
              "'the same as the rung before' errs by"]  # fmt: skip
    return table(header, rows)
