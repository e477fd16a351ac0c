"""The report of a scaling study: the law, the held-out rung, the ladder (SD3 section 5.3.3, Fig. 8)."""

import html
from typing import Any

from rfjax.study.records import Records
from rfjax.study.reports import curves, page, trends
from rfjax.study.reports.correlations import QUANTITIES
from rfjax.study.reports.trends import Findings

FILE = "fits.json"
find, figures = trends.find, curves.figures


def record(findings: Findings) -> list[dict[str, Any]]:
    """Every fit, for fits.json."""
    return findings.records()


RUNG_COLUMNS = (
    "name", "state", "depth", "parameters", "without_modulation", "active_per_token", "train_flops_per_example",
    "learning_rate", "steps", "examples", "flops", "seconds", "loss_ema", "stderr_ema", "loss_raw", "stderr_raw",
)  # fmt: skip


def rung_rows(study: Records) -> list[dict[str, Any]]:
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


def tables(study: Records, findings: Findings) -> page.Tables:
    """rungs.csv, curves.csv (each line of training and validation), levels.csv, trend.csv; with scores, quality.csv."""
    kinds = ("train", "raw", "ema")
    curve = [
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
    quality = [(p.run, p.step, p.setting, p.loss, p.score, p.frechet) for p in findings.scored]
    return {
        "rungs": (RUNG_COLUMNS, [tuple(row.values()) for row in rung_rows(study)]),
        "curves": (("run", "kind", "step", "examples", "flops", "seconds", "loss"), curve),
        "levels": (("run", "weights", "grid", "level", "loss"), levels),
        "trend": (("law", "run", "x", "loss", "stderr", "predicted", "low", "high"), trend),
        **({"quality": (("run", "step", "setting", "loss", "score", "frechet"), quality)} if quality else {}),
    }


def law_text(fit: Any) -> str:
    """A fitted law in one line, with the intervals of its parameters."""
    p = fit.parameters
    offset = f"{p['E']:.4f} + " if "E" in p else ""
    formula = f"L = {offset}{p['A']:.4g} x^-{p['alpha']:.3f}"
    spans = ", ".join(f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in fit.intervals.items())
    return f"{formula}   (95 %: {spans}; {fit.status.value}; {fit.degrees_of_freedom} degrees of freedom)"


def lines(study: Records, findings: Findings) -> list[str]:
    """What the terminal shows at the end."""
    said = []
    for row in rung_rows(study):
        loss = f"{row['loss_ema']:.4f} ± {row['stderr_ema']:.4f}" if row["loss_ema"] is not None else row["state"]
        said.append(f"{row['name']:>12}  {row['parameters']:>13,} parameters  {row['flops']:9.2e} FLOPs  loss {loss}")
    said.append("")
    for name, fit in findings.judged.items():
        said.append(f"{name}: {law_text(fit)}")
        if fit.held_out:
            said.append(f"  {fit.held_out.verdict}")
    return [*said, findings.reason]


def subtitle(study: Records) -> str:
    """What was trained on what."""
    c = study.config
    return (
        f"{c['model']['backbone']} as {c['flow']['formulation']} on {c['data']['dataset'] or c['data']['name']} at "
        f"{c['data']['image_size']} pixels, batch {c['training']['batch']}, {c['training']['steps']:,} steps; "
        f"validation on the grid {c['validation']['grid']} with {c['validation']['examples']:,} fixed triples"
    )


def opening(study: Records, findings: Findings) -> str:
    """The law and its verdict, in the box at the top."""
    fit = findings.judged.get(study.config["study"]["law"]) or next(iter(findings.judged.values()), None)
    if fit is None:
        return page.verdict("open", html.escape(findings.reason))
    held = fit.held_out
    kind = "open" if held is None else "good" if all(held.inside) else "bad"
    words = held.verdict if held else "No rung was held out, so nothing judges this law."
    return page.verdict(kind, f"<span class=law>{html.escape(law_text(fit))}</span>", html.escape(words))


def sections(study: Records, findings: Findings) -> list[str]:
    """The tables below the figures."""
    return [
        _rungs(study), _laws(findings), _paired(findings), _surface(findings), _quality(findings), _samples(study)
    ]  # fmt: skip


def _quality(findings: Findings) -> str:
    """The correlations of the validation loss with what samples are worth."""
    if not findings.relations:
        return ""
    rows, notes = [], []
    for relation in findings.relations:
        cells = [f"{c.value:+.2f} ({c.low:+.2f} to {c.high:+.2f})" for c in relation.correlations]
        n = str(relation.correlations[0].n) if relation.correlations else ""
        shown = cells or [html.escape(relation.reason), ""]
        rows.append([html.escape(relation.setting), QUANTITIES[relation.quantity], *shown, n, str(relation.runs)])
        notes += [c.note for c in relation.correlations]
    header = ["sampling, steps@guidance", "with", "Pearson (95 %)", "Spearman (95 %)", "checkpoints", "runs"]
    return (
        "<h2>Validation loss and quality of samples</h2>"
        + page.table(header, rows)
        + page.note(
            "Does a lower loss mean better samples? Then it goes down with the score and up with the distance. "
            "Checkpoints of one run are not independent, so the intervals rest on the runs. "
            + " ".join(filter(None, dict.fromkeys(notes)))
        )
    )


def _samples(study: Records) -> str:
    shown = page.samples({rung.name: rung for rung in study.rungs}, study.config["study"]["weights"])
    return f"<h2>Samples</h2>{shown}" if shown else ""


def _rungs(study: Records) -> str:
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
        + page.table(header, rows)
        + (
            "<p class=note>± is the standard error over examples. All rungs share the triples, so it does not blur "
            "the comparison between them: see the paired differences. FLOPs count matrix products, 3 x forward.</p>"
        )
    )


def _laws(findings: Findings) -> str:
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
        + page.table(["law", "points", "fit", "AICc", "held-out error"], rows)
        + (f"<p class=note>{html.escape(findings.reason)} Intervals: delta method with Student t.</p>")
    )


def _paired(findings: Findings) -> str:
    if not findings.steps:
        return ""
    rows = []
    for step in findings.steps:
        names = f"{html.escape(step.smaller)} → {html.escape(step.larger)}"
        rows.append([names, f"{step.change:+.5f}", f"{step.stderr:.5f}", "yes" if step.falls else "not clearly"])
    table = page.table(["from → to", "change of the loss", "standard error, paired", "falls"], rows)
    exponent = ""
    if findings.rate_exponent:
        slope, error = findings.rate_exponent
        best = "; ".join(f"d = {s.depth}: {s.best:.3g}{' (at the edge)' if s.at_edge else ''}" for s in findings.sweeps)
        exponent = f"<p>Best learning rates: {best}. They go as depth^({slope:.2f} ± {error:.2f}).</p>"
    return f"<h2>Paired differences</h2>{table}{exponent}"


def _surface(findings: Findings) -> str:
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
    return "".join(parts) + page.table(["budget, FLOPs", "best N", "loss", "status"], rows)
