"""The tables of the scaling report's page, and the words that they share with its top and with the terminal."""

import html
from typing import Any

from rfjax import analysis
from rfjax.study.records import Records
from rfjax.study.reports import caveats, ladder, measures, page, trends
from rfjax.study.reports.correlations import QUANTITIES
from rfjax.study.reports.trends import Findings

RUNG_COLUMNS = (
    "name", "state", "depth", "parameters", "without_modulation", "active_per_token", "train_flops_per_example",
    "learning_rate", "steps", "examples", "flops", "seconds", "loss_ema", "stderr_ema", "loss_raw", "stderr_raw",
    "lost_ema", "lost_raw",
)  # fmt: skip


def rung_rows(study: Records) -> list[dict[str, Any]]:
    """The table of rungs, one dict of RUNG_COLUMNS each."""
    rows = []
    for rung in study.rungs:
        ema, raw = (rung.final(w) if ladder.usable(rung, w) else {} for w in ("ema", "raw"))
        last = raw or (rung.train[-1] if rung.train else {})
        optimizer = rung.config["optimizer"]
        values = (
            rung.name, rung.state, rung.depth, rung.size["parameters"], rung.size["without_modulation"],
            rung.size["active_per_token"], rung.size["train_flops"],
            optimizer["learning_rate"] * rung.depth ** optimizer["depth_exponent"], rung.steps, last.get("examples", 0),
            last.get("flops", 0), last.get("seconds", 0.0), ema.get("loss"), ema.get("stderr"), raw.get("loss"),
            raw.get("stderr"), ladder.why_lost(rung, "ema"), ladder.why_lost(rung, "raw"),
        )  # fmt: skip
        rows.append(dict(zip(RUNG_COLUMNS, values, strict=True)))
    return rows


def law_text(fit: Any) -> str:
    """A fitted law in one line, with the intervals of its parameters."""
    p = fit.parameters
    offset = f"{p['E']:.4f} + " if "E" in p else ""
    formula = f"L = {offset}{p['A']:.4g} x^-{p['alpha']:.3f}"
    spans = ", ".join(f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in fit.intervals.items())
    return f"{formula}   (95 %: {spans}; {fit.status.value}; {fit.degrees_of_freedom} degrees of freedom)"


def whose(findings: Findings) -> str:
    """Which examples the law's E belongs to, in a few words."""
    return f"at {caveats.examples_seen(findings.points, findings.study['weights'])}"


def loss_text(row: dict[str, Any], weights: str, word: str = "") -> str:
    """A run's loss with its error over examples, where it has them; "loss not finite" where it ended without."""
    loss, stderr = row[f"loss_{weights}"], row[f"stderr_{weights}"]
    if not ladder.finite(loss):
        return "loss not finite" if row[f"lost_{weights}"] else ""
    return f"{word}{loss:.4f} ± {f'{stderr:.4f}' if ladder.finite(stderr) else 'not known'}"


def sections(study: Records, findings: Findings) -> list[str]:
    """The tables below the figures."""
    return [
        _rungs(study, findings), _laws(findings), _left_out(findings), _levels(findings), _paired(findings),
        _surface(findings), _quality(findings), _samples(study),
    ]  # fmt: skip


def _quality(findings: Findings) -> str:
    """The correlations of the validation loss with what samples are worth."""
    if not findings.relations:
        return ""
    rows, notes = [], []
    for relation in findings.relations:
        cells = [f"{c.value:+.2f} ({c.low:+.2f} to {c.high:+.2f})" for c in relation.correlations]
        n = str(relation.correlations[0].n) if relation.correlations else ""
        shown = cells or ["not printed", ""]
        if relation.reason:
            notes.append(f"{relation.setting}, {QUANTITIES[relation.quantity]}: {relation.reason}")
        rows.append([html.escape(relation.setting), QUANTITIES[relation.quantity], *shown, n, str(relation.runs)])
        notes += [c.note for c in relation.correlations]
    floors = [{"count": pair.count, "frechet_floor": pair.floor} for pair in findings.scored]
    header = ["sampling, steps@guidance", "with", "Pearson (95 %)", "Spearman (95 %)", "checkpoints", "runs"]
    return (
        "<h2>Validation loss and quality of samples</h2>"
        + page.table(header, rows)
        + page.note(
            "Does a lower loss mean better samples? Then it goes down with the score and up with the distance. "
            "Checkpoints of one run are not independent, so the intervals rest on the runs. "
            + " ".join([*filter(None, dict.fromkeys(notes)), measures.floor_sentence(floors)])
        )
    )


def _samples(study: Records) -> str:
    shown = page.samples({rung.name: rung for rung in study.rungs}, study.config["study"]["weights"])
    return f"<h2>Samples</h2>{shown}" if shown else ""


def _rungs(study: Records, findings: Findings) -> str:
    header = ["rung", "state", "depth", "parameters", "without modulation", "active per token", "FLOPs / example",
              "learning rate", "FLOPs", "seconds", "loss, EMA", "loss, raw"]  # fmt: skip
    rows = []
    for row in rung_rows(study):
        losses = [loss_text(row, weights) for weights in ("ema", "raw")]
        counts = [f"{row[k]:,}" for k in ("depth", "parameters", "without_modulation", "active_per_token")]
        rows.append(
            [html.escape(row["name"]), html.escape(row["state"]), *counts, f"{row['train_flops_per_example']:.3g}",
             f"{row['learning_rate']:.3g}", f"{row['flops']:.3g}", f"{row['seconds']:.0f}", *losses]
        )  # fmt: skip
    return (
        "<h2>Rungs</h2>"
        + page.table(header, rows)
        + page.note(
            "± is the standard error over examples. All rungs share the triples, so it does not blur the comparison "
            f"between them; seeds do. {caveats.on_seeds(findings.points, findings.ladder.spread)} FLOPs count matrix "
            "products: training is taken as 3 x forward, and a step has fewer, by the gradients of its inputs (2.2 % "
            "at depth 1 of the first command's ladder, 0.1 % at 6)."
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
                [name, group, html.escape(law_text(fit)), "" if fit.aicc is None else f"{fit.aicc:.1f}", *_errors(held)]
            )
    return (
        "<h2>Laws</h2>"
        + page.table(["law", "points", f"fit, {whose(findings)}", "AICc", *HELD_OUT], rows)
        + page.note(
            f"{findings.reason} {caveats.on_offset(findings.points, findings.study)} Intervals: delta method with "
            f"Student t. {caveats.INTERVALS} Baseline: the loss of the rung before."
        )
    )


HELD_OUT = ("held-out error", "baseline's error", "interval / last step", "verdict")


def _errors(held: analysis.HeldOut | None) -> list[str]:
    """Cells for HELD_OUT, of the largest held-out point."""
    if held is None:
        return [""] * len(HELD_OUT)
    step, width = abs(held.actual[-1] - held.baseline[-1]), held.high[-1] - held.low[-1]
    return [
        f"{100 * held.error[-1]:+.2f} %",
        f"{100 * held.baseline_error[-1]:+.2f} %",
        f"{width:.3g} / {step:.3g}",
        held.outcome,
    ]


def _left_out(findings: Findings) -> str:
    """Each rung from the others, and what the residuals say."""
    rows, notes = [], []
    for law, check in findings.checks.items():
        residuals = dict(zip((p.label for p in findings.whole[law].points), check.residuals, strict=True))
        for one in check.left_out:
            offset = one.parameters.get("E")
            rows.append(
                [law, html.escape(one.label) + (" (an end)" if one.outside else ""), f"{one.actual:.4f}",
                 f"{one.predicted:.4f} ({one.low:.4f} to {one.high:.4f})", f"{100 * one.error:+.2f} %",
                 "yes" if one.inside else "no", "" if offset is None else f"{offset:.4f}",
                 f"{residuals.get(one.label, float('nan')):+.4f}"]
            )  # fmt: skip
        bend, misfit = check.curvature, check.lack_of_fit
        curve = "too few rungs to tell a bend" if bend is None else f"p = {bend.p:.2g} against one that bends"
        seeds = "" if misfit is None else f", p = {misfit.p:.2g} against scatter beyond the seeds'"
        notes.append(f"{law}: {check.reason or curve + seeds}.")
    if not notes:
        return ""
    header = ["law", "rung left out", "loss", "predicted from the others (95 %)", "error", "inside", "E of the others",
              "residual of the fit to all"]  # fmt: skip
    return (
        "<h2>Each rung from the others</h2>"
        + (page.table(header, rows) if rows else "")
        + page.note(
            f"{' '.join(notes)} A sound law has p below 0.05 once in twenty, and a bend that another E can follow is "
            "not seen: look how E moves."
        )
    )


def _levels(findings: Findings) -> str:
    """The loss above the known floor, level by level, with the law of each."""
    if not findings.levels:
        return ""
    rows = []
    for row in findings.levels:
        p, spans = (row.fit.parameters, row.fit.intervals) if row.fit else ({}, {})
        cells = [f"{p[k]:.3g} ({spans[k][0]:.2g} to {spans[k][1]:.2g})" if k in p else "" for k in ("E", "alpha")]
        held = _errors(row.fit.held_out if row.fit else None)
        rows.append(
            [row.name, "" if row.floor is None else f"{row.floor:.4g}", *(f"{v:.4f}" for v in row.excess), *cells,
             *held, html.escape(row.reason)]
        )  # fmt: skip
    names = [point.name for point in findings.points]
    header = ["level", "known floor", *names, "E (95 %)", "exponent (95 %)", *HELD_OUT, "left out of the fit"]
    return (
        "<h2>Loss above the known floor</h2>"
        + page.table(header, rows)
        + page.note(
            f"{caveats.on_floor(findings.points, findings.study)} At that level the noise that the triples drew is "
            "taken off, so that what is left is the network's own. The law is fitted to each row without the held-out "
            f"rungs, {whose(findings)}."
        )
    )


def _paired(findings: Findings) -> str:
    if not findings.steps:
        return ""
    rows = []
    for step in findings.steps:
        found = step.change
        known = ["not known" if v is None else f"{v:.5f}" for v in (found.example_error, found.seed_error)]
        span = "" if found.low is None else f"{found.low:+.5f} to {found.high:+.5f}"
        freedom = "" if found.degrees_of_freedom is None else f"{found.degrees_of_freedom:.1f}"
        names = f"{html.escape(step.smaller)} → {html.escape(step.larger)}"
        rows.append([names, f"{found.value:+.5f}", *known, freedom, span, caveats.falls(step)])
    header = ["from → to", "change of the loss", "error over examples, paired", "error over seeds",
              "degrees of freedom", "95 %", "falls"]  # fmt: skip
    note = page.note(caveats.on_seeds(findings.points, findings.ladder.spread))
    table = page.table(header, rows) + note
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
        f"<h2>L(N, D)</h2><p class=law>L = E + A N^-alpha + B D^-beta: {html.escape(spans)} [{fit.status.value}]</p>",
        page.note(
            "E is extrapolated in N and D at once: no run is near it. Checkpoints before "
            f"{trends.SURFACE_FROM:.0%} of a run are left out. {caveats.INTERVALS}"
        ),
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
