"""The report of backbones trained alike: SD3's Fig. 4, against steps and against FLOPs, with compute multipliers."""

import html
import math
from typing import Any

from rfjax.analysis.multipliers import Estimate, Multiplier
from rfjax.study.records import Records
from rfjax.study.reports import backbone_figures, backbones, drawing, page, paper, rates
from rfjax.study.reports.backbones import BUDGETS, QUANTITIES, Backbone, Findings, label
from rfjax.study.reports.formulations import NONE
from rfjax.study.reports.measures import floor_sentence
from rfjax.study.reports.sentences import headline, span

FILE = "fits.json"
find, figures = backbones.find, backbone_figures.figures

FORMS = {"loss": ".4f", "score": ".3f", "frechet": ".3g"}
COSTS = {"flops": ".3g", "seconds": ".0f"}
WORDS = {"flops": "FLOPs", "steps": "steps"}


def record(findings: Findings) -> dict[str, Any]:
    """The comparison as plain JSON."""
    return {
        "weights": findings.weights,
        "setting": findings.setting,
        "backbones": [
            {"name": b.name, "size": b.size, "seeds": [run.seed for run in b.complete], "final": _plain(b.final)}
            for b in findings.backbones
        ],
        "multipliers": [
            {
                "of": x,
                "row": row,
                "column": column,
                "at_end": m.at_end and m.at_end._asdict(),
                "overall": m.overall and m.overall._asdict(),
                "seeds": m.seeds,
                "losses": m.losses,
                "logs": m.logs,
                "note": m.note,
            }
            for x, table in findings.multipliers.items()
            for (row, column), m in table.items()
        ],
        "learning_rates": [sweep.record() for sweep in findings.rates.sweeps],
        "ranked": findings.ranked,
        "leads": [{"better": a, "worse": b, **lead._asdict()} for (a, b), lead in findings.leads.items()],
        "cheapest": findings.cheapest,
        "beginning": vars(findings.beginning) if findings.beginning else None,
        "places": {name: {"ours": ours, "paper": theirs} for name, (ours, theirs) in findings.places.items()},
        "agreement": {name: vars(c) for name, c in findings.agreement.items()},
        "orders_agreeing_as_well": findings.chance,
        "paper": {"order": paper.FIG_4, "first": paper.FIG_4_FIRST},
        "warnings": findings.warnings,
    }


def _plain(estimates: dict[str, Estimate]) -> dict[str, dict[str, float | None]]:
    return {name: estimate._asdict() for name, estimate in estimates.items()}


def tables(study: Records, findings: Findings) -> page.Tables:
    """backbones.csv, curves.csv (each checkpoint of each run) and multipliers.csv."""
    ends = [f"{q}{suffix}" for q in (*QUANTITIES, "seconds") for suffix in ("", "_low", "_high")]
    sizes = ("parameters", "forward_flops", "train_flops")
    rows = [
        (b.name, len(b.complete), *(b.size[name] for name in sizes),
         *(v for q in (*QUANTITIES, "seconds") for v in b.final.get(q, (None,) * 3)))
        for b in findings.backbones
    ]  # fmt: skip
    curves = [
        (run.rung.name, b.name, run.seed, *(v if math.isfinite(v) else "" for v in point))
        for b in findings.backbones
        for run in b.runs
        for point in run.points
    ]
    pairs = [
        (x, row, column, *(m.at_end or (None,) * 3), *(m.overall or (None,) * 3), len(m.seeds), m.note)
        for x, table in findings.multipliers.items()
        for (row, column), m in table.items()
    ]
    header = ("of", "row", "column", "multiplier", "low", "high", "overall", "overall_low", "overall_high", "seeds")
    return {
        "backbones": (("backbone", "seeds", *sizes, *ends), rows),
        "curves": (("run", "backbone", "seed", *backbones.Checkpoint._fields), curves),
        "multipliers": ((*header, "note"), pairs),
    }


def subtitle(study: Records) -> str:
    """What was trained on what."""
    c = study.rungs[0].config if study.rungs else study.config
    return (
        f"Backbones trained alike (SD3 section 5.2.3, Fig. 4) as {c['flow']['formulation']} on "
        f"{c['data']['dataset'] or c['data']['name']}: depth {c['model']['depth']}, batch {c['training']['batch']}, "
        f"{c['training']['steps']:,} steps; {study.config['study']['weights']} weights"
    )


def opening(study: Records, findings: Findings) -> str:
    """The headline in its box: green where the interval of Kendall's correlation with the paper is above 0."""
    kendall = findings.agreement.get("Kendall")
    kind = "open" if kendall is None or kendall.low <= 0 <= kendall.high else "good" if kendall.low > 0 else "bad"
    first, *rest = map(html.escape, headline(findings))
    return page.verdict(kind, f"<b>{first}</b>", *rest)


def lines(study: Records, findings: Findings) -> list[str]:
    """What the terminal shows at the end."""
    said = []
    for name in findings.ranked:
        b = findings.of(name)
        shown = [f"{b.label:>16}  {b.size['parameters']:>11,} parameters  {b.final['flops'].value:9.2e} FLOPs"]
        shown.append(f"loss {span(b.final['loss'], '.4f')}")
        shown += [f"{q} {span(b.final[q], FORMS[q])}" for q in ("score", "frechet") if q in b.final]
        said.append("  ".join(shown))
    if len(findings.ranked) > 1:
        said += ["", "how many times fewer FLOPs the row needs than the column for the same loss:"]
        said.append(" " * 16 + "".join(f"{label(name):>16}" for name in findings.ranked))
        for row in findings.ranked:
            found = [findings.multipliers["flops"].get((row, column)) for column in findings.ranked]
            cells = [NONE if m is None or m.at_end is None else f"{m.at_end.value:.2f}" for m in found]
            said.append(f"{label(row):>16}" + "".join(f"{cell:>16}" for cell in cells))
    return [*said, "", *headline(findings)]


def sections(study: Records, findings: Findings) -> list[str]:
    """The tables below the figures."""
    return [
        _backbones(findings),
        rates.table(findings.rates.sweeps, label),
        *(_matrix(findings, x) for x in BUDGETS),
        _ranking(findings),
        _samples(findings),
        _runs(findings),
    ]


def _backbones(findings: Findings) -> str:
    """Sizes, costs and where each ends."""
    if not findings.backbones:
        return ""
    colours = drawing.colours([b.name for b in findings.backbones])
    shown = [q for q in QUANTITIES if any(q in b.final for b in findings.backbones)]
    rows = []
    for b in findings.backbones:
        ends = [_two_lines(b.final[q], FORMS[q]) if q in b.final else NONE for q in shown]
        spent = [f"{b.final[name].value:{form}}" if b.final else NONE for name, form in COSTS.items()]
        counts = [f"{b.size['parameters']:,}", f"{b.size['forward_flops']:.3g}", *spent]
        rows.append([_name(b, colours), f"{len(b.complete)} of {len(b.runs)}", *counts, *ends])
    titles = {"loss": "validation loss", "score": "score", "frechet": "Fréchet distance"}
    header = ["backbone", "complete runs", "parameters", "forward FLOPs", "training FLOPs", "seconds"]
    at = f" Scores and distances at {findings.setting} (steps@guidance)." if findings.setting else ""
    if findings.scored:
        runs = [run.rung for b in findings.backbones for run in b.complete]
        at += f" {floor_sentence(line for rung in runs for line in rung.scores if line['setting'] == findings.setting)}"
    if not findings.rates.sweeps and len(findings.rates.used) == 1 and len(findings.backbones) > 1:
        at += f" One learning rate, {findings.rates.used[0]:g}, serves all backbones: another may suit each better."
    none = "" if findings.scored else " No scores: nothing was drawn, or the data set has no scorer."
    return (
        "<h2>Backbones</h2>"
        + page.table([*header, *(titles[q] for q in shown)], rows)
        + page.note(
            "At the last step, the mean over seeds and its 95 % interval (Student t). FLOPs count matrix products: "
            "forward of one example, training of the whole run as 3 x forward (a step has fewer, by the gradients of "
            "its inputs: some tenths of a per cent here). Seconds are of training steps and their data, whatever else "
            f"the machine did.{at}{none} Equal depth and width, not equal size: the paper claims no matching either."
        )
    )


def _two_lines(estimate: Estimate, form: str) -> str:
    """A mean, and its interval below it, where it has one."""
    value = format(estimate.value, form)
    if estimate.low is None:
        return value
    return f"{value}<br><span class=note>{format(estimate.low, form)} to {format(estimate.high, form)}</span>"


def _matrix(findings: Findings, x: str) -> str:
    """The multipliers of every two backbones, row over column."""
    names = [b.name for b in findings.backbones if b.complete]
    if len(names) < 2:
        return ""
    table = findings.multipliers[x]
    colours = drawing.colours([b.name for b in findings.backbones])
    rows = [
        [_name(findings.of(row), colours), *("1" if row == column else _cell(table[row, column]) for column in names)]
        for row in names
    ]
    notes = dict.fromkeys(m.note for m in table.values() if m.note and m.at_end)
    small = "".join(f" {note[0].upper()}{note[1:]}." for note in notes)
    method = (
        "Row over column: how many times fewer FLOPs the row needs than the column for the loss that the slower of the "
        "two ends at; above 1 the row is better, bold where the 95 % interval over seeds (Student t of the logarithm, "
        "seeds paired) leaves out 1. Second line: the mean over all losses that both pass after their first "
        "checkpoint. Curves are running minima, straight between checkpoints in log x and log loss."
        if x == "flops"
        else "The same in steps, which is what the paper shows: the table above without what a step costs."
    )
    first = "Compute multipliers" if x == "flops" else "Multipliers"
    return (
        f"<h2>{first}: {WORDS[x]}</h2>"
        + page.table(["row over column", *map(label, names)], rows)
        + page.note(method + small)
    )


def _cell(found: Multiplier) -> str:
    if found.at_end is None or found.overall is None:
        return html.escape(found.note.partition(":")[0])
    clear = found.at_end.low is not None and not found.at_end.low <= 1 <= found.at_end.high
    first = span(found.at_end, ".2f")
    return f"{f'<b>{first}</b>' if clear else first}<br><span class=note>{span(found.overall, '.2f')}</span>"


def _ranking(findings: Findings) -> str:
    """Our order beside the paper's."""
    if len(findings.ranked) < 2:
        return ""
    colours = drawing.colours([b.name for b in findings.backbones])
    early = list(findings.beginning.losses) if findings.beginning else []
    rows = []
    for i, name in enumerate(findings.ranked):
        lead = findings.leads.get((name, findings.ranked[i + 1])) if i + 1 < len(findings.ranked) else None
        places = [f"{place:g}" for place in findings.places[name]] if name in findings.places else [NONE, NONE]
        rows.append(
            [
                _name(findings.of(name), colours),
                f"{findings.of(name).final['loss'].value:.4f}",
                span(lead, ".4f") if lead else NONE,
                *places,
                str(early.index(name) + 1) if name in early else NONE,
            ]
        )
    step = f"place at step {findings.beginning.step:,}" if findings.beginning else "place early"
    header = ["backbone", "final loss", "below the next by", "place here", "place in the paper", step]
    return (
        "<h2>Order (Fig. 4)</h2>"
        + page.table(header, rows)
        + page.note(
            "Below the next: the mean difference of the same seeds, with its 95 % interval (Student t). Places are "
            "among the backbones of both; the paper's are read off a figure, where its last two are nearly equal. "
            f"{' '.join(dict.fromkeys(c.note for c in findings.agreement.values() if c.note))} Paper: {paper.SOURCE}."
        )
    )


def _samples(findings: Findings) -> str:
    """Pictures by backbone, of its first seed that has any; the captions across."""
    drawn = {
        b.label: next((run.rung for run in b.runs if run.rung.samples), None)
        for b in findings.backbones
    }  # fmt: skip
    shown = page.samples({name: rung for name, rung in drawn.items() if rung}, findings.weights, turned=True)
    return f"<h2>Samples</h2>{shown}" if shown else ""


def _runs(findings: Findings) -> str:
    rows = []
    for b in findings.backbones:
        for run in b.runs:
            seconds = run.rung.train[-1]["seconds"] if run.rung.train else 0.0
            loss = f"{run.final['loss']:.4f}" if run.final else NONE
            state = [html.escape(run.rung.name), html.escape(b.label), str(run.seed), html.escape(run.rung.state)]
            rows.append([*state, f"{run.rung.steps:,}", loss, f"{seconds:.0f}"])
    header = ["run", "backbone", "seed", "state", "steps", "final loss", "seconds"]
    return "<h2>Runs</h2>" + page.table(header, rows) if rows else ""


def _name(backbone: Backbone, colours: dict[str, tuple[float, ...]]) -> str:
    """The backbone beside a dot in its colour."""
    red, green, blue = (round(255 * c) for c in colours[backbone.name][:3])
    return f"<span style='color:#{red:02x}{green:02x}{blue:02x}'>●</span> {html.escape(backbone.label)}"
