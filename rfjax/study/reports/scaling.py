"""The report of a scaling study: the law, the held-out rung, the ladder (SD3 section 5.3.3, Fig. 8)."""

from rfjax import analysis
from rfjax.analysis.levels import describe_floor
from rfjax.analysis.surface_promise import SurfaceAnswer
from rfjax.analysis.trend import INTERVALS
from rfjax.config.grid import STEPS
from rfjax.study.records import Records
from rfjax.study.reports import scaling_level_surfaces, scaling_successive, surface_answer
from rfjax.study.reports.compare import dataset_name, floor_sentence
from rfjax.study.reports.page import Report
from rfjax.study.reports.scaling_answer import sentences
from rfjax.study.reports.scaling_designs import with_designs
from rfjax.study.reports.scaling_figures import figures
from rfjax.study.reports.scaling_findings import Findings, analyse, to_json
from rfjax.study.reports.scaling_optimum import optimum_section
from rfjax.study.reports.scaling_points import SURFACE_FROM
from rfjax.study.reports.scaling_tables import loss_text, run_row, tables
from rfjax.study.reports.widgets import escape, formatted, note, samples, section, table, verdict

HELD_OUT = ("held-out error", "baseline's error", "interval / last step", "verdict")


def lines(study: Records, findings: Findings) -> list[str]:
    trend = findings.trend
    said = [
        f"{row['name']:>12}  {row['parameters']:>13,} parameters  {row['flops']:9.2e} FLOPs  "
        f"{loss_text(row, 'ema', 'loss ') or row['state']}"
        for row in map(run_row, study.runs)
    ]
    said.append("")
    said += [*answer_of(findings), ""]
    for name, fit in trend.judged.items():
        said.append(f"{name}, at {trend.ladder.examples_seen}: {fit.text}")
        said += [f"  {fit.held_out.verdict}"] if fit.held_out else []
    said += [findings.trend.on_offset, INTERVALS] if trend.judged else []
    said += [findings.on_branches] if findings.on_branches else []
    return [*said, *([describe_floor(trend.rungs)] if trend.rungs else []), trend.reason]


def subtitle(study: Records) -> str:
    c = study.config
    return (
        f"{c['model']['backbone']} as {c['flow']['formulation']} on {dataset_name(c)} at "
        f"{c['data']['image_size']} pixels, batch {c['training']['batch']}, {c['training']['steps']:,} steps; "
        f"validation on the grid {c['validation']['levels']} with {c['validation']['examples']:,} fixed triples"
    )


def opening(study: Records, findings: Findings) -> str:
    """The question and its answer, the promise, the law and its verdict, in the box at the top."""
    trend, floor = findings.trend, escape(describe_floor(findings.trend.rungs))
    first = [f"<b>{escape(one)}</b>" if i == 0 else escape(one) for i, one in enumerate(answer_of(findings))]
    if not trend.main:
        return verdict("open", *first, escape(trend.reason), *([floor] if floor else []))
    fit = trend.judged[trend.main]
    held = fit.held_out
    kind = {"predicted": "good", "missed": "bad"}.get(held.outcome, "open") if held else "open"
    words = held.verdict if held else "No rung was held out, so nothing judges this law."
    law = f"<span class=law>at {escape(trend.ladder.examples_seen)}: {escape(fit.text)}</span>"
    offset = [escape(findings.trend.on_offset)] if "E" in fit.parameters else []
    return verdict(kind, *first, law, escape(words), *offset, floor, escape(INTERVALS))


def answer_of(findings: Findings) -> list[str]:
    """The question, its answer and the promise, a sentence each; none where the law is asked nothing."""
    if isinstance(findings.judged, SurfaceAnswer):
        return surface_answer.sentences(findings.judged)
    return sentences(findings.judged, findings.trend) if findings.judged else []


def sections(study: Records, findings: Findings) -> list[str]:
    return [
        _runs(study, findings), _laws(findings), scaling_successive.section(findings.trend),
        _left_out(findings.trend), _levels(findings.trend), _steps(findings), _surface(findings),
        scaling_level_surfaces.table(findings.surface), optimum_section(findings.optimum),
        _quality(findings, study.config["sampling"].get("seeds", 0)),
        samples({run.name: run for run in study.runs}, findings.study["weights"]),
    ]  # fmt: skip


def _held_out(held: analysis.HeldOut | None) -> list[str]:
    """Cells for HELD_OUT, of the largest held-out point."""
    if held is None:
        return [""] * len(HELD_OUT)
    step, width = abs(held.actual[-1] - held.baseline[-1]), held.high[-1] - held.low[-1]
    errors = [f"{100 * error[-1]:+.2f} %" for error in (held.error, held.baseline_error)]
    return [*errors, f"{width:.3g} / {step:.3g}", held.outcome]


def _runs(study: Records, findings: Findings) -> str:
    header = ["rung", "state", "depth", "parameters", "without modulation", "active per token", "FLOPs / example",
              "learning rate", "FLOPs", "seconds", "loss, EMA", "loss, raw"]  # fmt: skip
    forms = {"depth": ",", "parameters": ",", "without_modulation": ",", "active_per_token": ",",
             "train_flops_per_example": ".3g", "learning_rate": ".3g", "flops": ".3g", "seconds": ".0f"}  # fmt: skip
    rows = [
        [escape(row["name"]), escape(row["state"]), *(format(row[key], form) for key, form in forms.items()),
         *(loss_text(row, weights) for weights in ("ema", "raw"))]
        for row in map(run_row, study.runs)
    ]  # fmt: skip
    said = note(
        "± is the standard error over examples. All rungs share the triples, so it does not blur the comparison "
        f"between them; seeds do. {findings.trend.ladder.on_seeds} FLOPs count matrix products: training is taken as 3 "
        "x forward, and a step has fewer, by the gradients of its inputs (2.2 % at depth 1 of the first command's "
        "ladder, 0.1 % at 6)."
    )
    said += note(findings.falling) if findings.falling else ""
    return "<h2>Rungs</h2>" + table(header, rows) + said


def _laws(findings: Findings) -> str:
    trend, rows = findings.trend, []
    for group, fits in (("held-out rung left out", trend.judged), ("all rungs", trend.whole)):
        for name, fit in fits.items():
            rows.append([name, group, escape(fit.text), formatted(fit.aicc, ".1f", ""), *_held_out(fit.held_out)])
    return section(
        "Laws", ["law", "points", f"fit, at {trend.ladder.examples_seen}", "AICc", *HELD_OUT], rows,
        f"{trend.reason} {trend.on_offset} Intervals: delta method with Student t. {INTERVALS} Baseline: the loss of "
        "the rung before.",
    )  # fmt: skip


def _left_out(trend: analysis.Trend) -> str:
    rows, notes = [], []
    for law, check in trend.checks.items():
        residuals = dict(zip((p.label for p in trend.whole[law].points), check.residuals, strict=True))
        for one in check.left_out:
            rows.append(
                [law, escape(one.label) + (" (an end)" if one.outside else ""), f"{one.actual:.4f}",
                 f"{one.predicted:.4f} ({one.low:.4f} to {one.high:.4f})", f"{100 * one.error:+.2f} %",
                 "yes" if one.inside else "no", formatted(one.parameters.get("E"), ".4f", ""),
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
    said = note(
        f"{' '.join(notes)} A sound law has p below 0.05 once in twenty, and a bend that another E can follow is not "
        "seen: look how E moves."
    )
    return "<h2>Each rung from the others</h2>" + (table(header, rows) if rows else "") + said


def _levels(trend: analysis.Trend) -> str:
    rows = []
    for row in trend.levels:
        p, spans = (row.fit.parameters, row.fit.intervals) if row.fit else ({}, {})
        cells = [f"{p[k]:.3g} ({spans[k][0]:.2g} to {spans[k][1]:.2g})" if k in p else "" for k in ("E", "alpha")]
        if row.t == 0 and row.floor and p and "E" not in p:
            cells[0] = "0, known"
        held = _held_out(row.fit.held_out if row.fit else None)
        excess = (f"{v:.4f}" for v in row.excess)
        rows.append([row.name, formatted(row.floor, ".4g", ""), *excess, *cells, *held, escape(row.reason)])
    names = [rung.name for rung in trend.rungs]
    return section(
        "Loss above the known floor",
        ["level", "known floor", *names, "E (95 %)", "exponent (95 %)", *HELD_OUT, "left out of the fit"], rows,
        f"{describe_floor(trend.rungs)} At that level the noise that the triples drew is taken off, so that what is "
        "left is the network's own. There E is 0, unless the residuals bend: then the examples, not the size, set what "
        f"is left. The law is fitted to each row without the held-out rungs, at {trend.ladder.examples_seen}.",
    )  # fmt: skip


def _steps(findings: Findings) -> str:
    """The change of the loss from rung to rung, and the best learning rates."""
    rows = []
    for step in findings.trend.steps:
        found = step.change
        errors = [formatted(v, ".5f", "not known") for v in (found.example_error, found.seed_error)]
        span = "" if found.low is None else f"{found.low:+.5f} to {found.high:+.5f}"
        names = f"{escape(step.smaller)} → {escape(step.larger)}"
        freedom = formatted(found.degrees_of_freedom, ".1f", "")
        rows.append([names, f"{found.value:+.5f}", *errors, freedom, span, step.falls])
    header = ["from → to", "change of the loss", "error over examples, paired", "error over seeds",
              "degrees of freedom", "95 %", "falls"]  # fmt: skip
    exponent, found = "", analysis.rate_exponent(findings.sweeps)
    if rows and found:
        slope, error = found
        best = "; ".join(f"d = {s.depth}: {s.best:.3g}{' (at the edge)' if s.at_edge else ''}" for s in findings.sweeps)
        exponent = f"<p>Best learning rates: {best}. They go as depth^({slope:.2f} ± {error:.2f}).</p>"
    return section("Paired differences", header, rows, findings.trend.ladder.on_seeds) + exponent


def _surface(findings: Findings) -> str:
    found = findings.surface
    if found.fit is None:
        return ""
    span = lambda ends, form: f"{ends[0]:{form}} to {ends[1]:{form}}"  # noqa: E731
    fit = found.fit
    spans = ", ".join(f"{k} = {value:.4g} ({span(fit.intervals[k], '.3g')})" for k, value in fit.parameters.items())
    points = f"Checkpoints before {SURFACE_FROM:.0%} of a run are left out."
    if findings.on_branches:
        points = f"Its points are the ends of trunks and branches. {escape(findings.on_branches)}"
    elif STEPS in findings.study["axes"]:
        points = "Its points are the ends of the runs."
    said = [
        f"<h2>L(N, D)</h2><p class=law>L = E + A N^-alpha + B D^-beta: {escape(spans)} [{fit.status.value}]</p>",
        note(f"E is extrapolated in N and D at once: no run is near it. {points} {INTERVALS}"),
    ]
    if fit.held_out:
        said.append(f"<p>{escape(fit.held_out.verdict)}</p>")
    if found.optimum:
        compute, best = found.optimum
        said.append(
            f"<p>Compute-optimal at C = {compute:.2e} FLOPs: N = {best.n:.3g} ({span(best.n_interval, '.2g')}), D = "
            f"{best.d:.3g} examples; N* goes as C^{best.a:.2f} ({span(best.a_interval, '.2f')}).</p>"
        )
    rows = []
    for cut in found.cuts:
        best = (formatted(cut.n_best, ".3g", ""), formatted(cut.loss_best, ".4f", ""))
        rows.append([f"{cut.budget:.2e}", *best, escape(cut.status)])
    return "".join(said) + table(["budget, FLOPs", "best N", "loss", "status"], rows)


def _quality(findings: Findings, seeds: int = 0) -> str:
    labels = {q.key: f"{q.label} ({q.better} is better)" for q in findings.quantities}
    rows, notes = [], []
    for relation in findings.relations:
        cells = [f"{c.value:+.2f} ({c.low:+.2f} to {c.high:+.2f})" for c in relation.correlations]
        n = str(relation.correlations[0].n) if relation.correlations else ""
        if relation.reason:
            notes.append(f"{relation.setting}, {labels[relation.quantity]}: {relation.reason}")
        where = [escape(relation.setting), escape(labels[relation.quantity])]
        rows.append([*where, *(cells or ["not printed", ""]), n, str(relation.runs)])
        notes += [c.note for c in relation.correlations]
    floors = floor_sentence(((one.count, one.floors) for one in findings.scored), findings.quantities)
    notes += [f"Only runs with a seed below {seeds} have samples (config.sampling.seeds)."] if seeds else []
    return section(
        "Validation loss and quality of samples",
        ["sampling, steps@guidance", "with", "Pearson (95 %)", "Spearman (95 %)", "checkpoints", "runs"], rows,
        "Does a lower loss mean better samples? Then it goes down with the score and up with the distance. Checkpoints "
        "of one run are not independent, so the intervals rest on the runs. "
        + " ".join([*filter(None, dict.fromkeys(notes)), floors]),
    )  # fmt: skip


REPORT = with_designs(Report("fits.json", analyse, to_json, tables, figures, subtitle, opening, sections, lines))
