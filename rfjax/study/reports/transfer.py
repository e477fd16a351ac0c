"""The report of learning rates against size, for each parameterisation: does a small rung's best rate serve a large?"""

import math

import numpy as np

from rfjax.study.records import Records
from rfjax.study.reports.compare import dataset_name
from rfjax.study.reports.drawing import Figures, colours, log_ticks, plt
from rfjax.study.reports.page import Report
from rfjax.study.reports.transfer_findings import Findings, analyse, describe, span, to_json
from rfjax.study.reports.widgets import NONE, Tables, escape, headline, section

FAR = 1.0  # powers of two over the ladder: more is a best rate that does not transfer


def tables(study: Records, findings: Findings) -> Tables:
    """losses.csv (every run) and best_rates.csv (every seed at every size)."""
    losses = [
        (name, size, rate, seed, loss if math.isfinite(loss) else None)
        for name, by_size in findings.losses.items()
        for size, by_rate in sorted(by_size.items())
        for rate, by_seed in sorted(by_rate.items())
        for seed, loss in sorted(by_seed.items())
    ]
    best = [
        (name, size, seed, one.rate, one.loss, one.at_edge)
        for name, found in findings.found.items()
        for size, by_seed in found.best.items()
        for seed, one in sorted(by_seed.items())
    ]
    return {
        "losses": (("parameterisation", findings.axis, "learning_rate", "seed", "loss"), losses),
        "best_rates": (("parameterisation", findings.axis, "seed", "learning_rate", "loss", "at_edge"), best),
    }


def figures(study: Records, findings: Findings) -> Figures:
    """Loss against learning rate, a panel a parameterisation and a line a size; and best rates against size."""
    drawn: Figures = {}
    if not findings.found:
        return drawn
    sizes = findings.sizes
    shades = colours([f"{size:g}" for size in sizes])
    figure, panels = plt.subplots(1, len(findings.found), figsize=(13.0, 4.3), sharey=True, squeeze=False)
    for axes, (name, found) in zip(panels[0], findings.found.items(), strict=True):
        for size, by_rate in sorted(found.means.items()):
            colour, label = shades[f"{size:g}"], f"{findings.axis} {size:g}"
            rates = [rate for rate in by_rate if math.isfinite(by_rate[rate])]
            axes.plot(rates, [by_rate[rate] for rate in rates], "-", color=colour, label=label, linewidth=1.3)
            runs = [(r, x) for r in by_rate for x in findings.losses[name][size][r].values() if math.isfinite(x)]
            axes.plot(*np.array(runs or [(math.nan, math.nan)]).T, ".", color=colour, markersize=3, alpha=0.6)
            for one in found.best[size].values():
                axes.plot(one.rate, one.loss, "|", color=colour, markersize=14)
        axes.set(title=name, xlabel="learning rate", xscale="log", yscale="log")
    panels[0][0].set_ylabel(f"validation loss ({study.config['study']['weights']})")
    log_ticks(panels[0][0].yaxis)
    most = max(panels[0], key=lambda axes: len(axes.get_legend_handles_labels()[1]))
    panels[0][-1].legend(*most.get_legend_handles_labels(), fontsize=8)
    drawn["rates"] = ("Loss against learning rate; a bar marks the best of a seed", figure)
    figure, axes = plt.subplots()
    for (name, found), colour in zip(findings.found.items(), ("C3", "C0", "C2", "C4", "C5"), strict=False):
        points = [(size, one.rate) for size, by_seed in found.best.items() for one in by_seed.values()]
        axes.plot(*np.array(points or [(math.nan, math.nan)]).T, ".", color=colour, alpha=0.5)
        known = [size for size in found.best if found.best[size]]
        means = [2 ** np.mean([math.log2(one.rate) for one in found.best[size].values()]) for size in known]
        axes.plot(known, means, "-", color=colour, label=name)
    axes.set(xlabel=findings.axis, ylabel="best learning rate", xscale="log", yscale="log")
    log_ticks(axes.yaxis)
    axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
    axes.minorticks_off()
    axes.legend()
    drawn["moves"] = (f"Best learning rate against {findings.axis}, each seed and their mean", figure)
    return drawn


def subtitle(study: Records) -> str:
    c = study.config
    return (
        f"Learning rates of {c['model']['backbone']} on {dataset_name(c)}: {c['training']['steps']:,} steps of "
        f"{c['training']['batch']}, warm-up {c['optimizer']['warmup']}, decay '{c['optimizer']['decay']}'"
    )


def opening(study: Records, findings: Findings) -> str:
    """The box: green where the one that moves least is known to move by less than FAR over the ladder."""
    totals = [one.total for one in findings.found.values() if one.total and one.total.low is not None]
    least = min(totals, key=lambda total: abs(total.value), default=None)
    sure = least is not None and max(abs(least.low), abs(least.high)) < FAR
    return headline(describe(findings), int(sure))


def sections(study: Records, findings: Findings) -> list[str]:
    return [_merit(findings), _losses(findings)]


def _merit(findings: Findings) -> str:
    rows = []
    for name, one in findings.found.items():
        cells = [span(x, "+z.2f") if x else NONE for x in (one.slope, one.total)]
        cost = span(one.penalty, "z.1f", 100) if one.penalty else NONE
        seeds = str(one.slope.seeds) if one.slope else "0"
        rows.append([escape(name), *cells, cost, f"{len(one.edges)}", f"{one.diverged}", seeds])
    return section(
        "How far the best rate moves",
        ["", "a doubling", "over all sizes", "loss above, %", "at the edge", "diverged", "seeds"], rows,
        "In powers of two of the learning rate: -1 is half of it. The best rate of a seed is where a parabola in log "
        "rate through its lowest loss and the two beside it is lowest; a slope is fitted to those of one seed over all "
        "sizes, and the interval (95 %, Student's t) is over seeds. Loss above: of the largest size at the smallest "
        "one's best rate, against the lowest of its own sweep. At the edge: sweeps whose best rate may lie beyond.",
    )  # fmt: skip


def _losses(findings: Findings) -> str:
    rates = sorted({rate for one in findings.found.values() for by_rate in one.means.values() for rate in by_rate})
    rows = []
    for name, one in findings.found.items():
        for size, by_rate in sorted(one.means.items()):
            known = [loss for loss in by_rate.values() if math.isfinite(loss)]
            text = lambda loss: "diverged" if not math.isfinite(loss) else f"{loss:.4f}"  # noqa: E731
            cells = [text(by_rate[rate]) if rate in by_rate else NONE for rate in rates]
            low = text(min(known)) if known else ""
            rows.append([escape(name), f"{size:g}", *(f"<b>{cell}</b>" if cell == low else cell for cell in cells)])
    return section(
        "Validation losses", ["", findings.axis, *(f"{rate:.3g}" for rate in rates)], rows,
        "The mean over seeds; in bold the lowest of a row.",
    )  # fmt: skip


def lines(study: Records, findings: Findings) -> list[str]:
    said = []
    for name, one in findings.found.items():
        for size, by_seed in one.best.items():
            rates = " ".join(f"{best.rate:.4f}{'*' if best.at_edge else ' '}" for best in by_seed.values())
            said.append(f"{name:>12}  {findings.axis} {size:<5g} best rates {rates}")
    return [*said, "* at the edge of the sweep", "", *describe(findings)] if said else describe(findings)


REPORT = Report("transfer.json", analyse, to_json, tables, figures, subtitle, opening, sections, lines)
