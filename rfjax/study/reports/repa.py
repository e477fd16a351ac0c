"""The report of alignment: vanilla against REPA, alike but for the alignment (REPA Figs. 4 and 5, Table 2)."""

import math

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from rfjax.study.records import Records
from rfjax.study.reports import repa_paper, widgets
from rfjax.study.reports.compare import dataset_name
from rfjax.study.reports.drawing import Figures, colours, log_ticks
from rfjax.study.reports.page import Report
from rfjax.study.reports.repa_findings import BUDGETS, LOSS, VANILLA, Arm, Findings, analyse, to_json
from rfjax.study.reports.widgets import NONE, Tables, escape, section

MOST_PANELS = 4  # quantities of the figure of curves, in rows


def tables(study: Records, findings: Findings) -> Tables:
    """curves.csv, every measurement of each run, and speed_ups.csv."""
    keys = [q.key for q in findings.quantities]
    curves = [
        (run.name, arm.size, arm.label, run.seed, *(v if math.isfinite(v) else "" for v in map(point.get, x_and(keys))))
        for arm in findings.arms
        for run in arm.runs
        for point in run.points
    ]
    rows = [
        (arm.size, arm.label, key, x, *(found.factor or (None,) * 3), found.reached, len(found.by_seed), found.at_first)
        for arm in findings.arms
        for key, by_budget in arm.speed_ups.items()
        for x, found in by_budget.items()
    ]
    header = ("depth", "arm", "quantity", "of", "factor", "low", "high", "reached", "seeds", "lower_bound")
    return {"curves": (("run", "depth", "arm", "seed", *x_and(keys)), curves), "speed_ups": (header, rows)}


def x_and(keys: list[str]) -> list[str]:
    """The columns of a measurement."""
    return [*BUDGETS, *keys]


def figures(study: Records, findings: Findings) -> Figures:
    """Each quantity against steps and FLOPs, by depth; and the speed-up by depth (Figs. 4 and 5)."""
    if not findings.quantities:
        return {}
    found = {f"depth_{size}": (f"Depth {size}", _curves(findings, size)) for size in findings.sizes}
    drawn = [arm for arm in findings.arms if any(s["step"].factor for s in arm.speed_ups.values())]
    if drawn and len(findings.sizes) > 1:
        found["speed_up"] = ("Speed-up in steps by depth (Fig. 5)", _by_depth(findings))
    return found


def _curves(findings: Findings, size: int) -> plt.Figure:
    shown = findings.compared[:MOST_PANELS]
    arms = findings.of(size)
    colour = colours([arm.label for arm in arms])
    shape = (len(shown), len(BUDGETS))
    figure, grid = plt.subplots(*shape, figsize=(13, 2.9 * shape[0] + 0.5), sharex="col", sharey="row", squeeze=False)
    for quantity, row in zip(shown, grid, strict=True):
        for x, axes in zip(BUDGETS, row, strict=True):
            for arm in arms:
                _draw_arm(axes, arm, x, quantity.key, colour[arm.label])
            axes.set_xscale("log")
            log_ticks(axes.xaxis, "%.3g" if x == "step" else "%.0e", (1, 2, 5))
            if quantity.better == "lower":
                axes.set_yscale("log")
                log_ticks(axes.yaxis)
        row[0].set_ylabel(quantity.label)
    for axes, text in zip(grid[-1], BUDGETS.values(), strict=True):
        axes.set_xlabel(text)
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=max(min(len(names), 4), 1))
    return figure


def _draw_arm(axes: Axes, arm: Arm, x: str, key: str, colour: tuple[float, ...]) -> None:
    """Thin lines for the runs, a thick one for the mean where all have a measurement."""
    lines = [dict(zip(*run.curve(x, key), strict=True)) for run in arm.runs]
    for line in lines:
        axes.plot([*line], [*line.values()], color=colour, lw=0.8, alpha=0.45)
    shared = sorted(set.intersection(*map(set, lines))) if lines else []
    style = {"ls": "--"} if arm.label == VANILLA else {}
    means = [float(np.mean([line[place] for line in lines])) for place in shared]
    axes.plot(shared, means, color=colour, lw=2.2, marker="o", ms=3, label=arm.label, **style)


def _by_depth(findings: Findings) -> plt.Figure:
    shown = findings.compared[:MOST_PANELS]
    figure, grid = plt.subplots(1, len(shown), figsize=(3.4 * len(shown) + 1, 3.6), squeeze=False)
    labels = list(dict.fromkeys(arm.label for arm in findings.arms if arm.label != VANILLA))
    colour = colours(labels)
    for axes, quantity in zip(grid[0], shown, strict=True):
        for label in labels:
            found = [
                (arm.size, ups[quantity.key]["step"].factor)
                for arm in findings.arms
                if arm.label == label and quantity.key in (ups := arm.speed_ups)
            ]
            points = [(size, factor) for size, factor in found if factor]
            spans = [[f.value - (f.low or f.value), (f.high or f.value) - f.value] for _, f in points]
            axes.errorbar(
                [size for size, _ in points], [f.value for _, f in points], np.reshape(spans, (-1, 2)).T,
                color=colour[label], marker="o", capsize=3, label=label,
            )  # fmt: skip
        axes.axhline(1, color="grey", lw=0.8)
        axes.set(xlabel="depth", title=quantity.label, xticks=findings.sizes)
    grid[0, 0].set_ylabel("times fewer steps")
    grid[0, 0].legend(fontsize=8)
    return figure


def subtitle(study: Records) -> str:
    """What was trained on what."""
    c = study.runs[0].config if study.runs else study.config
    return (
        f"{c['model']['backbone']} on {dataset_name(c)} as {c['flow']['formulation']}, with and without alignment "
        f"(REPA): batch {c['training']['batch']}, {c['training']['steps']:,} steps; "
        f"{study.config['study']['weights']} weights"
    )


def opening(study: Records, findings: Findings) -> str:
    """The headline: green where every speed-up of the loss is above 1, its interval too."""
    ups = [arm.speed_ups[LOSS.key]["step"].factor for arm in findings.arms if LOSS.key in arm.speed_ups]
    clear = [up is not None and up.low is not None and up.low > 1 for up in ups]
    slower = [up is None for up in ups]
    return widgets.headline(describe(findings), 1 if ups and all(clear) else -1 if ups and all(slower) else 0)


def describe(findings: Findings) -> list[str]:
    """The speed-ups in sentences, the validation loss first, and the orders beside the paper's."""
    said = []
    for quantity in findings.compared:
        found = [(arm, arm.speed_ups[quantity.key]["step"]) for arm in findings.arms if quantity.key in arm.speed_ups]
        each = "; ".join(f"depth {arm.size}, {arm.label}: {up.text()}" for arm, up in found)
        if each:
            said.append(f"Times fewer steps than vanilla needs for its final {quantity.label}: {each}.")
    costs = "; ".join(
        f"depth {arm.size}, {arm.label}: {arm.speed_ups[LOSS.key]['all_flops'].text()}"
        for arm in findings.arms
        if LOSS.key in arm.speed_ups
    )
    if not costs:
        return ["There is no vanilla run and aligned run of one depth yet: there is nothing to compare."]
    said.append(f"In FLOPs, with those of encoder and projector, for the final validation loss: {costs}.")
    for name, (ours, _, found) in findings.orders.items():
        order = found.text if found.correlations else found.reason
        said.append(f"Order beside the paper, {name}, {len(ours)} rows: {order}")
    return [*said, f"In the paper SiT-XL/2 is {repa_paper.SPEED_UP:g} times faster, at FID 8 after 400,000 steps."]


def lines(study: Records, findings: Findings) -> list[str]:
    """What the terminal shows at the end."""
    said = []
    for arm in findings.arms:
        ends = [f"{q.key} {arm.final[q.key].text('.4g')}" for q in findings.quantities if q.key in arm.final]
        said.append(f"depth {arm.size}  {arm.label:>24}  " + "  ".join(ends))
    return [*said, "", *describe(findings)]


def sections(study: Records, findings: Findings) -> list[str]:
    """The tables below the figures."""
    return [_arms(findings), _speed_ups(findings), *_orders(findings), _runs(findings)]


def _arms(findings: Findings) -> str:
    """Where each arm ends and what it costs."""
    colour = {size: colours([arm.label for arm in findings.of(size)]) for size in findings.sizes}
    rows = []
    for arm in findings.arms:
        name = widgets.dotted(escape(arm.label), to_hex(colour[arm.size][arm.label]))
        record = findings.runs[arm.runs[0].name]
        extra, own = record.alignment_flops, record.size["train_flops"]
        shares = [f"{extra.get(part, 0) / own:.1%}" for part in ("projector", "encoder")]
        ends = [
            widgets.two_lines(arm.final[q.key], ".4f" if q is LOSS else q.form) if q.key in arm.final else NONE
            for q in findings.quantities
        ]
        rows.append([str(arm.size), name, f"{len(arm.complete)} of {len(arm.runs)}", *shares, *ends])
    header = ["depth", "arm", "complete runs", "projector", "encoder", *(q.label for q in findings.quantities)]
    return section(
        "Arms", header, rows,
        "At the last step, the mean over seeds and its 95 % interval (Student t). Projector and encoder: FLOPs of a "
        "training example beside those of the network, which are 3 x forward. CKNNA and probe accuracy are those of "
        "the best block at the largest noise level that was measured.",
    )  # fmt: skip


def _speed_ups(findings: Findings) -> str:
    rows = [
        [str(arm.size), escape(arm.label), quantity.label, *(escape(found.text()) for found in ups.values())]
        for arm in findings.arms
        for quantity in findings.quantities
        if (ups := arm.speed_ups.get(quantity.key))
    ]
    if not rows:
        return ""
    return section(
        "Speed-up over vanilla", ["depth", "arm", "quantity", *BUDGETS.values()], rows,
        "How many times fewer steps or FLOPs an arm needs than the vanilla runs of its depth for their final value: "
        "the mean of the logarithm over paired seeds, with its 95 % interval (Student t). Curves are best values so "
        "far, straight between measurements in the logarithm of steps. Nothing is extrapolated: a value that is not "
        "reached is said to be so, and below 1 an arm needs more than vanilla.",
    )  # fmt: skip


def _orders(findings: Findings) -> list[str]:
    """Our rows beside the paper's."""
    found = []
    for name, (ours, theirs, agreement) in findings.orders.items():
        rows = [
            [escape(row), f"{value:.4f}", f"{theirs[row]:g}", *(f"{place:g}" for place in agreement.places[row])]
            for row, value in ours.items()
        ]
        said = f"{agreement.text}. " if agreement.correlations else agreement.reason
        found.append(
            section(
                f"Beside the paper: {name}",
                ["row", "validation loss here", "FID in the paper", "place here", "place in the paper"],
                rows,
                f"{said} Lower is better in both. Paper: {repa_paper.SOURCE}.",
            )
        )
    return found


def _runs(findings: Findings) -> str:
    rows = []
    for arm in findings.arms:
        for run in arm.runs:
            record, loss = findings.runs[run.name], run.last(LOSS.key)
            shown = f"{loss:.4f}" if math.isfinite(loss) else NONE
            rows.append([escape(run.name), escape(arm.label), escape(record.state), shown, f"{record.seconds:.0f}"])
    return section("Runs", ["run", "arm", "state", "validation loss", "seconds"], rows)


REPORT = Report("repa.json", analyse, to_json, tables, figures, subtitle, opening, sections, lines)
