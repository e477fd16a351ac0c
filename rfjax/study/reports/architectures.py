"""The report of backbones trained alike: SD3's Fig. 4, against steps and against FLOPs, with compute multipliers."""

import math

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from rfjax.analysis.multipliers import Multiplier
from rfjax.analysis.race import Entrant, describe_race
from rfjax.study.records import Records
from rfjax.study.reports import paper, widgets
from rfjax.study.reports.architectures_findings import Findings, analyse, label, to_json
from rfjax.study.reports.compare import dataset_name, floor_sentence, floors_of
from rfjax.study.reports.drawing import Figures, colours, log_ticks
from rfjax.study.reports.page import Report
from rfjax.study.reports.widgets import NONE, Tables, escape, section, small

SIZES = ("parameters", "forward_flops", "train_flops")
COSTS = {"flops": ".3g", "seconds": ".0f"}
X = {"step": "steps", "flops": "training FLOPs"}  # of the figure's columns


def tables(study: Records, findings: Findings) -> Tables:
    """backbones.csv, curves.csv (each checkpoint of each run) and multipliers.csv."""
    race, keys = findings.race, ["loss", *(q.key for q in findings.quantities)]
    ends, none = [*keys, "seconds"], (None,) * 3
    rows = [
        (name, len(one.complete), *(findings.size_of(name)[key] for key in SIZES),
         *(v for key in ends for v in one.final.get(key, none)))
        for name, one in race.entrants.items()
    ]  # fmt: skip
    curves = [
        (run.name, name, run.seed, *(v if math.isfinite(v) else "" for v in point.values()))
        for name, one in race.entrants.items()
        for run in one.runs
        for point in run.points
    ]
    pairs = [
        (x, row, column, *(m.at_end or none), *(m.overall or none), len(m.seeds), m.note)
        for x, table in race.multipliers.items()
        for (row, column), m in table.items()
    ]
    columns = ("multiplier", "low", "high", "overall", "overall_low", "overall_high", "seeds", "note")
    spans = [f"{key}{suffix}" for key in ends for suffix in ("", "_low", "_high")]
    return {
        "backbones": (("backbone", "seeds", *SIZES, *spans), rows),
        "curves": (("run", "backbone", "seed", "step", "examples", "flops", "seconds", *keys), curves),
        "multipliers": (("of", "row", "column", *columns), pairs),
    }


def figures(study: Records, findings: Findings) -> Figures:
    """Fig. 4 and beside it the same against compute: a row of panels for each quantity that was measured."""
    labels = {"loss": "validation loss"} | {q.key: q.label for q in findings.quantities}
    rows = {key: text for key, text in labels.items() if findings.measured(key)}
    if not rows:
        return {}
    size, entrants = (11.5, 3.1 * len(rows) + 0.5), findings.race.entrants
    figure, grid = plt.subplots(len(rows), 2, figsize=size, sharex="col", sharey="row", squeeze=False)
    colour, higher = colours(list(entrants)), {q.key for q in findings.quantities if q.better == "higher"}
    for (quantity, text), panels in zip(rows.items(), grid, strict=True):
        for x, axes in zip(X, panels, strict=True):
            for name, one in entrants.items():
                _draw_entrant(axes, one, x, quantity, colour[name])
            if x == "flops":
                axes.set_xscale("log")
                log_ticks(axes.xaxis, "%.0e", (1, 2, 5))
            if quantity not in higher:
                axes.set_yscale("log")
                log_ticks(axes.yaxis)
        panels[0].set_ylabel(text)
    for axes, text in zip(grid[-1], X.values(), strict=True):
        axes.set_xlabel(text)
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=max(len(names), 1))
    several = any(len(one.runs) > 1 for one in entrants.values())
    title = "Against steps, as in Fig. 4, and against compute" + (" (thin: each seed; thick: their mean)" * several)
    return {"curves": (title, figure)}


def _draw_entrant(axes: Axes, one: Entrant, x: str, quantity: str, colour: tuple[float, ...]) -> None:
    """Thin lines for the runs, dotted where not complete; a thick one for the mean where all complete runs have it."""
    lines = {run.seed: {p["step"]: p for p in run.points if math.isfinite(p[quantity])} for run in one.runs}
    for run in one.runs:
        points = lines[run.seed].values()
        style = {"lw": 0.8, "alpha": 0.45} if run.final else {"lw": 1.2, "ls": ":"}
        axes.plot([p[x] for p in points], [p[quantity] for p in points], color=colour, **style)
    by_step = [lines[run.seed] for run in one.complete]
    shared = sorted(set.intersection(*map(set, by_step))) if by_step else []
    means = [float(np.mean([points[step][quantity] for points in by_step])) for step in shared]
    text = label(one.name) + ("" if one.complete else " (not finished)")
    style = {"lw": 2.2, "marker": "o", "ms": 3.5} if one.complete else {"lw": 1.2, "ls": ":"}
    axes.plot([by_step[0][step][x] for step in shared], means, color=colour, label=text, **style)


def subtitle(study: Records) -> str:
    c = study.runs[0].config if study.runs else study.config
    return (
        f"Backbones trained alike (SD3 section 5.2.3, Fig. 4) as {c['flow']['formulation']} on {dataset_name(c)}: "
        f"depth {c['model']['depth']}, batch {c['training']['batch']}, {c['training']['steps']:,} steps; "
        f"{study.config['study']['weights']} weights"
    )


def opening(study: Records, findings: Findings) -> str:
    """The headline in its box: green where the interval of Kendall's correlation with the paper is above 0."""
    kendall = findings.race.agreement.correlations.get("Kendall")
    return widgets.headline(describe(findings), kendall.sign if kendall else 0)


def describe(findings: Findings) -> list[str]:
    """Who ends lowest, who needs least compute, who leads early, and how that compares with the paper, in sentences."""
    return describe_race(findings.race, label, paper.FIG_4, paper.FIG_4_FIRST)


def lines(study: Records, findings: Findings) -> list[str]:
    said, race = [], findings.race
    for name in race.ranked:
        end, size = race.entrants[name].final, findings.size_of(name)
        shown = [f"{label(name):>16}  {size['parameters']:>11,} parameters  {end['flops'].value:9.2e} FLOPs",
                 f"loss {end['loss'].text('.4f')}",
                 *(f"{q.key} {end[q.key].text(q.form)}" for q in findings.quantities if q.key in end)]  # fmt: skip
        said.append("  ".join(shown))
    if len(race.ranked) > 1:
        said += ["", "how many times fewer FLOPs the row needs than the column for the same loss:"]
        said.append(" " * 16 + "".join(f"{label(name):>16}" for name in race.ranked))
        for row in race.ranked:
            found = [race.multipliers["flops"].get((row, column)) for column in race.ranked]
            cells = [NONE if m is None or m.at_end is None else f"{m.at_end.value:.2f}" for m in found]
            said.append(f"{label(row):>16}" + "".join(f"{cell:>16}" for cell in cells))
    return [*said, "", *describe(findings)]


def sections(study: Records, findings: Findings) -> list[str]:
    shown = {}
    for name, one in findings.race.entrants.items():  # the first seed that has any
        drawn = [findings.runs[run.name] for run in one.runs if findings.runs[run.name].samples]
        shown |= {label(name): run for run in drawn[:1]}
    colour = colours(list(findings.race.entrants))
    names = {name: widgets.dotted(escape(label(name)), to_hex(shade)) for name, shade in colour.items()}
    return [
        _backbones(findings, names),
        widgets.rate_section(findings.rates.choices, label),
        _matrix(findings, names, "flops"),
        _matrix(findings, names, "steps"),
        _ranking(findings, names),
        widgets.samples(shown, findings.weights, turned=True),
        _runs(findings),
    ]


def _backbones(findings: Findings, names: dict[str, str]) -> str:
    entrants, quantities = findings.race.entrants, findings.quantities
    titles = {"loss": ("validation loss", ".4f")} | {q.key: (q.label, q.form) for q in quantities}
    shown = [q for q in titles if any(q in one.final for one in entrants.values())]
    rows = []
    for name, one in entrants.items():
        size = findings.size_of(name)
        ends = [widgets.two_lines(one.final[q], titles[q][1]) if q in one.final else NONE for q in shown]
        spent = [f"{one.final[key].value:{form}}" if one.final else NONE for key, form in COSTS.items()]
        counts = [f"{size['parameters']:,}", f"{size['forward_flops']:.3g}", *spent]
        rows.append([names[name], f"{len(one.complete)} of {len(one.runs)}", *counts, *ends])
    scored = any(findings.measured(q.key) for q in quantities)
    at = f" Scores and distances at {findings.setting} (steps@guidance)." if findings.setting else ""
    if scored:
        complete = [findings.runs[run.name] for one in entrants.values() for run in one.complete]
        found = [line for run in complete for line in run.scores if line["setting"] == findings.setting]
        at += f" {floor_sentence((floors_of(line, quantities) for line in found), quantities)}"
    if not findings.rates.choices and len(findings.rates.used) == 1 and len(entrants) > 1:
        at += f" One learning rate, {findings.rates.used[0]:g}, serves all backbones: another may suit each better."
    none = "" if scored else " No scores: nothing was drawn, or the data set has no scorer."
    header = ["backbone", "complete runs", "parameters", "forward FLOPs", "training FLOPs", "seconds"]
    return section(
        "Backbones", [*header, *(titles[q][0] for q in shown)], rows,
        "At the last step, the mean over seeds and its 95 % interval (Student t). FLOPs count matrix products: forward "
        "of one example, training of the whole run as 3 x forward (a step has fewer, by the gradients of its inputs: "
        "some tenths of a per cent here). Seconds are of training steps and their data, whatever else the machine did."
        f"{at}{none} Equal depth and width, not equal size: the paper claims no matching either.",
    )  # fmt: skip


def _matrix(findings: Findings, names: dict[str, str], budget: str) -> str:
    """The multipliers of every two backbones, row over column."""
    complete = [name for name, one in findings.race.entrants.items() if one.complete]
    if len(complete) < 2:
        return ""
    found = findings.race.multipliers[budget]
    cell = lambda row, column: "1" if row == column else _cell(found[row, column])  # noqa: E731
    rows = [[names[row], *(cell(row, column) for column in complete)] for row in complete]
    notes = dict.fromkeys(m.note for m in found.values() if m.note and m.at_end)
    said = "".join(f" {text[0].upper()}{text[1:]}." for text in notes)
    title = "Compute multipliers: FLOPs" if budget == "flops" else "Multipliers: steps"
    method = (
        "Row over column: how many times fewer FLOPs the row needs than the column for the loss that the slower of the "
        "two ends at; above 1 the row is better, bold where the 95 % interval over seeds (Student t of the logarithm, "
        "seeds paired) leaves out 1. Second line: the mean over all losses that both pass after their first "
        "checkpoint. Curves are running minima, straight between checkpoints in log x and log loss."
        if budget == "flops"
        else "The same in steps, which is what the paper shows: the table above without what a step costs."
    )
    return section(title, ["row over column", *map(label, complete)], rows, method + said)


def _cell(found: Multiplier) -> str:
    if found.at_end is None or found.overall is None:
        return escape(found.note.partition(":")[0])
    clear = found.at_end.low is not None and not found.at_end.low <= 1 <= found.at_end.high
    first = found.at_end.text(".2f")
    return (f"<b>{first}</b>" if clear else first) + small(found.overall.text(".2f"))


def _ranking(findings: Findings, names: dict[str, str]) -> str:
    race = findings.race
    if len(race.ranked) < 2:
        return ""
    early = list(race.beginning.losses) if race.beginning else []
    rows = []
    for name, following in zip(race.ranked, [*race.ranked[1:], None], strict=True):
        lead = race.leads.get((name, following))
        places = [f"{place:g}" for place in race.agreement.places.get(name, ())] or [NONE, NONE]
        first = str(early.index(name) + 1) if name in early else NONE
        loss = f"{race.entrants[name].final['loss'].value:.4f}"
        rows.append([names[name], loss, lead.text(".4f") if lead else NONE, *places, first])
    step = f"place at step {race.beginning.step:,}" if race.beginning else "place early"
    notes = " ".join(dict.fromkeys(c.note for c in race.agreement.correlations.values() if c.note))
    return section(
        "Order (Fig. 4)",
        ["backbone", "final loss", "below the next by", "place here", "place in the paper", step], rows,
        "Below the next: the mean difference of the same seeds, with its 95 % interval (Student t). Places are among "
        "the backbones of both; the paper's are read off a figure, where its last two are nearly equal. "
        f"{notes} Paper: {paper.SOURCE}.",
    )  # fmt: skip


def _runs(findings: Findings) -> str:
    rows = []
    for name, one in findings.race.entrants.items():
        for run in one.runs:
            record = findings.runs[run.name]
            loss = f"{run.final['loss']:.4f}" if run.final else NONE
            state = [escape(run.name), escape(label(name)), str(run.seed), escape(record.state)]
            rows.append([*state, f"{record.steps:,}", loss, f"{record.seconds:.0f}"])
    return section("Runs", ["run", "backbone", "seed", "state", "steps", "final loss", "seconds"], rows)


REPORT = Report("fits.json", analyse, to_json, tables, figures, subtitle, opening, sections, lines)
