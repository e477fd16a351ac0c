"""The report: report/index.html, self-contained, with PNG, CSV and fits.json beside it. Imports no JAX."""

import base64
import csv
import html
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from rfjax.errors import UserError
from rfjax.study import plots, records, trends
from rfjax.study.page import STYLE

MAX_CAPTIONS = 12


@dataclass(frozen=True)
class Drawn:
    """A study read, judged and drawn: what a page is made of. The figures are SVG text."""

    records: records.Records
    findings: trends.Findings
    figures: dict[str, tuple[str, str]]


def draw(folder: Path) -> Drawn:
    """Reads a study, fits it, and writes the figures, the tables and fits.json.

    Raises:
        UserError: if there is no study in the folder, or the report can't be written.
    """
    study = records.read(folder)
    findings = trends.find(study)
    target = folder / "report"
    try:
        target.mkdir(exist_ok=True)
        (target / "fits.json").write_text(json.dumps(findings.records(), indent=1, allow_nan=False) + "\n")
        write_tables(target, study, findings)
        figures = {}
        for name, (title, figure) in plots.figures(study, findings).items():
            figure.savefig(target / f"{name}.png")
            figures[name] = (title, _svg(figure))
            plt.close(figure)
    except OSError as error:
        raise UserError(f"the report can't be written to {target} ({error.strerror})") from error
    return Drawn(study, findings, figures)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


RUNG_COLUMNS = (
    "name", "state", "depth", "parameters", "without_modulation", "active_per_token", "train_flops_per_example",
    "learning_rate", "steps", "examples", "flops", "seconds", "loss_ema", "stderr_ema", "loss_raw", "stderr_raw",
)  # fmt: skip


def rung_rows(study: records.Records) -> list[dict[str, Any]]:
    """The table of rungs, one dict of RUNG_COLUMNS each."""
    rows = []
    for rung in study.rungs:
        ema, raw = rung.final("ema") or {}, rung.final("raw") or {}
        last = raw or (rung.train[-1] if rung.train else {})
        optimizer = rung.config["optimizer"]
        values = (
            rung.name, rung.state, rung.depth, rung.size["parameters"], rung.size["without_modulation"],
            rung.size["active_per_token"], rung.size["train_flops"],
            optimizer["learning_rate"] * rung.depth ** optimizer["depth_exponent"], rung.steps, last.get("examples", 0),
            last.get("flops", 0), last.get("seconds", 0.0), ema.get("loss"), ema.get("stderr"), raw.get("loss"),
            raw.get("stderr"),
        )  # fmt: skip
        rows.append(dict(zip(RUNG_COLUMNS, values, strict=True)))
    return rows


def write_tables(target: Path, study: records.Records, findings: trends.Findings) -> None:
    """rungs.csv, curves.csv (every line of training and validation), levels.csv and trend.csv."""
    kinds = ("train", "raw", "ema")
    curves = [
        (rung.name, kind, line["step"], line["examples"], line["flops"], line["seconds"], line["loss"])
        for rung in study.rungs
        for kind in kinds
        for line in (rung.train if kind == "train" else rung.curve(kind))
    ]
    levels = [
        (rung.name, weights, final["grid"], level, loss)
        for rung in study.rungs
        for weights in ("raw", "ema")
        if (final := rung.final(weights))
        for level, loss in enumerate(final["levels"])
    ]
    trend = [
        (law, point.name, point.x, point.loss, point.stderr, *(float(v) for v in fit.predict(point.x)))
        for law, fit in findings.judged.items()
        for point in findings.points
    ]
    tables = {
        "rungs": (RUNG_COLUMNS, [tuple(row.values()) for row in rung_rows(study)]),
        "curves": (("run", "kind", "step", "examples", "flops", "seconds", "loss"), curves),
        "levels": (("run", "weights", "grid", "level", "loss"), levels),
        "trend": (("law", "run", "x", "loss", "stderr", "predicted", "low", "high"), trend),
    }
    for name, (header, rows) in tables.items():
        with (target / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])


def law_text(fit: Any) -> str:
    """A fitted law in one line, with the intervals of its parameters."""
    p = fit.parameters
    offset = f"{p['E']:.4f} + " if "E" in p else ""
    formula = f"L = {offset}{p['A']:.4g} x^-{p['alpha']:.3f}"
    spans = ", ".join(f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in fit.intervals.items())
    return f"{formula}   (95 %: {spans}; {fit.status.value}; {fit.degrees_of_freedom} degrees of freedom)"


def seconds_split(study: records.Records) -> dict[str, float]:
    """Seconds by activity, over all sittings."""
    total: dict[str, float] = {}
    for sitting in study.sittings:
        for name, seconds in sitting["split"].items():
            total[name] = total.get(name, 0.0) + seconds
    return total


def summary(drawn: Drawn, page: Path) -> str:
    """What the terminal shows at the end."""
    lines = [""]
    for row in rung_rows(drawn.records):
        loss = f"{row['loss_ema']:.4f} ± {row['stderr_ema']:.4f}" if row["loss_ema"] is not None else row["state"]
        lines.append(f"{row['name']:>12}  {row['parameters']:>13,} parameters  {row['flops']:9.2e} FLOPs  loss {loss}")
    lines.append("")
    for name, fit in drawn.findings.judged.items():
        lines.append(f"{name}: {law_text(fit)}")
        if fit.held_out:
            lines.append(f"  {fit.held_out.verdict}")
    lines.append(drawn.findings.reason)
    lines += [f"warning: {sentence}" for sentence in drawn.findings.warnings]
    split = seconds_split(drawn.records)
    if split:
        whole = sum(sitting["seconds"] for sitting in drawn.records.sittings)
        parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in sorted(split.items(), key=lambda i: -i[1]))
        outside = 1 - split.get("training", 0.0) / whole
        lines.append(f"{whole:.0f} s in all: {parts}; {outside:.0%} outside training steps")
    return "\n".join([*lines, f"report: {page}"])


def write(drawn: Drawn) -> Path:
    """Writes report/index.html and returns its path."""
    study, findings = drawn.records, drawn.findings
    e = html.escape
    config = study.config
    title = f"{config['study']['name']}"
    body = [
        f"<h1>{e(title)}</h1>",
        f"<p class=sub>{e(_subtitle(study))}</p>",
        _headline(findings, config["study"]["law"]),
    ]
    if findings.warnings:
        body.append(
            "<h2>Warnings</h2><ul class=warn>" + "".join(f"<li>{e(w)}</li>" for w in findings.warnings) + "</ul>"
        )
    body.append("<div class=figures>")
    for name, (heading, svg) in drawn.figures.items():
        body.append(f"<figure id={name}><figcaption>{e(heading)}</figcaption>{svg}</figure>")
    body.append("</div>")
    body += [_rungs(study), _laws(findings), _paired(findings), _surface(findings), _samples(study), _where(study)]
    page = study.folder / "report" / "index.html"
    page.write_text(
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{e(title)}</title><style>{STYLE}</style><body>{''.join(body)}</body></html>\n"
    )
    return page


def _subtitle(study: records.Records) -> str:
    c = study.config
    return (
        f"{c['model']['backbone']} as {c['flow']['formulation']} on {c['data']['dataset'] or c['data']['name']} at "
        f"{c['data']['image_size']} pixels, batch {c['training']['batch']}, {c['training']['steps']:,} steps; "
        f"validation on the grid {c['validation']['grid']} with {c['validation']['examples']:,} fixed triples"
    )


def _headline(findings: trends.Findings, law: str) -> str:
    fit = findings.judged.get(law) or next(iter(findings.judged.values()), None)
    if fit is None:
        return f"<div class='verdict open'>{html.escape(findings.reason)}</div>"
    held = fit.held_out
    kind = "open" if held is None else "good" if all(held.inside) else "bad"
    words = held.verdict if held else "No rung was held out, so nothing judges this law."
    return f"<div class='verdict {kind}'><p class=law>{html.escape(law_text(fit))}</p><p>{html.escape(words)}</p></div>"


def _table(header: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{html.escape(h)}</th>" for h in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _rungs(study: records.Records) -> str:
    header = ["rung", "state", "depth", "parameters", "without modulation", "active per token", "FLOPs / example",
              "learning rate", "FLOPs", "seconds", "loss, EMA", "loss, raw"]  # fmt: skip
    rows = []
    for row in rung_rows(study):
        losses = [
            "" if row[f"loss_{w}"] is None else f"{row[f'loss_{w}']:.4f} ± {row[f'stderr_{w}']:.4f}"
            for w in ("ema", "raw")
        ]
        counts = [f"{row[k]:,}" for k in ("depth", "parameters", "without_modulation", "active_per_token")]
        rows.append(
            [html.escape(row["name"]), html.escape(row["state"]), *counts, f"{row['train_flops_per_example']:.3g}",
             f"{row['learning_rate']:.3g}", f"{row['flops']:.3g}", f"{row['seconds']:.0f}", *losses]
        )  # fmt: skip
    return (
        "<h2>Rungs</h2>"
        + _table(header, rows)
        + (
            "<p class=note>± is the standard error over examples. All rungs share the triples, so it does not blur "
            "the comparison between them: see the paired differences. FLOPs count matrix products, 3 x forward.</p>"
        )
    )


def _laws(findings: trends.Findings) -> str:
    if not findings.judged:
        return ""
    rows = []
    for group, fits in (("held-out rung left out", findings.judged), ("all rungs", findings.whole)):
        for name, fit in fits.items():
            held = fit.held_out
            rows.append(
                [name, group, html.escape(law_text(fit)), "" if fit.aicc is None else f"{fit.aicc:.1f}",
                 "" if held is None else f"{100 * held.error[-1]:+.2f} %"]
            )  # fmt: skip
    return (
        "<h2>Laws</h2>"
        + _table(["law", "points", "fit", "AICc", "held-out error"], rows)
        + (f"<p class=note>{html.escape(findings.reason)} Intervals: delta method with Student t.</p>")
    )


def _paired(findings: trends.Findings) -> str:
    if not findings.steps:
        return ""
    rows = []
    for step in findings.steps:
        names = f"{html.escape(step.smaller)} → {html.escape(step.larger)}"
        rows.append([names, f"{step.change:+.5f}", f"{step.stderr:.5f}", "yes" if step.falls else "not clearly"])
    table = _table(["from → to", "change of the loss", "standard error, paired", "falls"], rows)
    exponent = ""
    if findings.rate_exponent:
        slope, error = findings.rate_exponent
        best = "; ".join(f"d = {s.depth}: {s.best:.3g}{' (at the edge)' if s.at_edge else ''}" for s in findings.sweeps)
        exponent = f"<p>Best learning rates: {best}. They go as depth^({slope:.2f} ± {error:.2f}).</p>"
    return f"<h2>Paired differences</h2>{table}{exponent}"


def _surface(findings: trends.Findings) -> str:
    if findings.surface is None:
        return ""
    fit = findings.surface
    spans = ", ".join(
        f"{name} = {value:.4g} ({fit.intervals[name][0]:.3g} to {fit.intervals[name][1]:.3g})"
        for name, value in fit.parameters.items()
    )
    parts = [
        f"<h2>L(N, D)</h2><p class=law>L = E + A N^-alpha + B D^-beta: {html.escape(spans)} [{fit.status.value}]</p>"
    ]
    if fit.held_out:
        parts.append(f"<p>{html.escape(fit.held_out.verdict)}</p>")
    if findings.optimum:
        compute, best = findings.optimum
        parts.append(
            f"<p>Compute-optimal at C = {compute:.2e} FLOPs: N = {best.n:.3g} ({best.n_interval[0]:.2g} to "
            f"{best.n_interval[1]:.2g}), D = {best.d:.3g} examples; N* goes as C^{best.a:.2f} "
            f"({best.a_interval[0]:.2f} to {best.a_interval[1]:.2f}).</p>"
        )
    rows = [
        [f"{cut.budget:.2e}", "" if cut.n_best is None else f"{cut.n_best:.3g}",
         "" if cut.loss_best is None else f"{cut.loss_best:.4f}", html.escape(cut.status)]
        for cut in findings.cuts
    ]  # fmt: skip
    return "".join(parts) + _table(["budget, FLOPs", "best N", "loss", "status"], rows)


def _samples(study: records.Records) -> str:
    """The same captions and noise down the page, the rungs across it."""
    drawn = [(rung, rung.samples) for rung in study.rungs if rung.samples]
    if not drawn:
        return ""
    captions = drawn[0][1]["captions"][:MAX_CAPTIONS]
    weights = study.config["study"]["weights"]
    columns = {"data": _tiles(drawn[0][0].folder / "samples" / "data_tiles.png", len(drawn[0][1]["captions"]))}
    for rung, line in drawn:
        columns[rung.name] = _tiles(rung.folder / "samples" / f"{weights}_tiles.png", len(line["captions"]))
    rows = [
        [html.escape(caption), *(tiles[i] if i < len(tiles) else "" for tiles in columns.values())]
        for i, caption in enumerate(captions)
    ]
    line = drawn[0][1]
    note = f"{line['sampler']}, {line['steps']} steps, guidance {line['guidance']:g}, {weights} weights"
    return (
        "<h2>Samples</h2>"
        + _table(["caption", *map(html.escape, columns)], rows)
        + (f"<p class=note>The same captions and the same noise for every rung ({note}).</p>")
    )


def _tiles(path: Path, count: int) -> list[str]:
    """The pictures of a strip as HTML images."""
    if not path.exists():
        return []
    strip = Image.open(path)
    side = strip.width // count
    cells = []
    for i in range(min(count, MAX_CAPTIONS)):
        data = io.BytesIO()
        strip.crop((i * side, 0, (i + 1) * side, strip.height)).save(data, "PNG")
        cells.append(f"<img alt='' src='data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}'>")
    return cells


def _where(study: records.Records) -> str:
    """Where the time went, and what a reader needs to repeat the study."""
    s = study.study
    parts = ["<h2>How this was made</h2>", f"<pre>{html.escape(s['command'])}</pre>"]
    split = seconds_split(study)
    if split:
        whole = sum(sitting["seconds"] for sitting in study.sittings)
        rows = [[html.escape(k), f"{v:.1f}", f"{v / whole:.0%}"] for k, v in sorted(split.items(), key=lambda i: -i[1])]
        parts.append(_table(["activity", "seconds", "share"], [*rows, ["<b>all</b>", f"<b>{whole:.1f}</b>", ""]]))
    versions = ", ".join(f"{name} {version}" for name, version in s["versions"].items())
    parts.append(
        f"<p class=note>{html.escape(s['date'])}, commit {html.escape(s['commit'])}, {html.escape(s['devices'])} on "
        f"{html.escape(s['machine'])}, Python {html.escape(s['python'])}, {html.escape(versions)}.</p>"
        "<details><summary>The whole config</summary>"
        f"<pre>{html.escape(json.dumps(s['config'], indent=1))}</pre></details>"
    )
    return "".join(parts)
