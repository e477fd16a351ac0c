"""The report of a scaling study: the law, the held-out rung, the ladder (SD3 section 5.3.3, Fig. 8)."""

import html

from rfjax.study.records import Records
from rfjax.study.reports import caveats, curves, fits, levels, page, scaling_tables, trends
from rfjax.study.reports.scaling_tables import RUNG_COLUMNS, law_text, loss_text, rung_rows, whose
from rfjax.study.reports.trends import Findings

FILE = "fits.json"
find, figures, record, sections = trends.find, curves.figures, fits.records, scaling_tables.sections


def tables(study: Records, findings: Findings) -> page.Tables:
    """rungs.csv, curves.csv (each line of training and validation), levels.csv, excess.csv (above the known floor),
    trend.csv, left_out.csv (each rung predicted from the others); with scores, quality.csv."""
    kinds = ("train", "raw", "ema")
    curve = [
        (rung.name, kind, line["step"], line["examples"], line["flops"], line["seconds"], line["loss"])
        for rung in study.rungs
        for kind in kinds
        for line in (rung.train if kind == "train" else rung.curve(kind))
    ]
    by_level = [
        (rung.name, weights, final["grid"], level, loss, floor, drawn)
        for rung in study.rungs
        for weights in ("raw", "ema")
        if (final := rung.final(weights))
        for level, (loss, floor, drawn) in enumerate(
            zip(final["levels"], levels.floors(final), levels.floors(final, "floors_drawn"), strict=True)
        )
    ]
    excess = [
        (row.name, row.floor, point.name, point.x, value)
        for row in findings.levels
        for point, value in zip(findings.points, row.excess, strict=True)
    ]
    trend = [
        (law, point.name, point.x, point.loss, point.stderr, point.error, *(float(v) for v in fit.predict(point.x)))
        for law, fit in findings.judged.items()
        for point in findings.points
    ]
    left_out = [
        (law, one.label, one.x, one.actual, one.predicted, one.low, one.high, one.inside, one.parameters.get("E"))
        for law, check in findings.checks.items()
        for one in check.left_out
    ]
    quality = [(p.run, p.step, p.setting, p.loss, p.score, p.frechet) for p in findings.scored]
    predicted = ("predicted", "low", "high")
    return {
        "rungs": (RUNG_COLUMNS, [tuple(row.values()) for row in rung_rows(study)]),
        "curves": (("run", "kind", "step", "examples", "flops", "seconds", "loss"), curve),
        "levels": (("run", "weights", "grid", "level", "loss", "floor", "floor_drawn"), by_level),
        "excess": (("of", "floor", "run", "x", "loss_above_floor"), excess),
        "trend": (("law", "run", "x", "loss", "stderr", "stderr_over_seeds", *predicted), trend),
        "left_out": (("law", "run", "x", "loss", *predicted, "inside", "E_of_the_others"), left_out),
        **({"quality": (("run", "step", "setting", "loss", "score", "frechet"), quality)} if quality else {}),
    }


def lines(study: Records, findings: Findings) -> list[str]:
    """What the terminal shows at the end."""
    said = []
    for row in rung_rows(study):
        said.append(
            f"{row['name']:>12}  {row['parameters']:>13,} parameters  {row['flops']:9.2e} FLOPs  "
            f"{loss_text(row, 'ema', 'loss ') or row['state']}"
        )
    said.append("")
    for name, fit in findings.judged.items():
        said.append(f"{name}, {whose(findings)}: {law_text(fit)}")
        if fit.held_out:
            said.append(f"  {fit.held_out.verdict}")
    if findings.judged:
        said += [caveats.on_offset(findings.points, findings.study), caveats.INTERVALS]
    if findings.points:
        said.append(caveats.on_floor(findings.points, findings.study))
    return [*said, findings.reason]


def subtitle(study: Records) -> str:
    """What was trained on what."""
    c = study.config
    return (
        f"{c['model']['backbone']} as {c['flow']['formulation']} on {c['data']['dataset'] or c['data']['name']} at "
        f"{c['data']['image_size']} pixels, batch {c['training']['batch']}, {c['training']['steps']:,} steps; "
        f"validation on the grid {c['validation']['levels']} with {c['validation']['examples']:,} fixed triples"
    )


def opening(study: Records, findings: Findings) -> str:
    """The law and its verdict, in the box at the top."""
    fit = findings.judged.get(study.config["study"]["law"]) or next(iter(findings.judged.values()), None)
    e, floor = html.escape, html.escape(caveats.on_floor(findings.points, findings.study))
    if fit is None:
        return page.verdict("open", e(findings.reason), *([floor] if floor else []))
    held = fit.held_out
    kind = {"predicted": "good", "missed": "bad"}.get(held.outcome, "open") if held else "open"
    words = held.verdict if held else "No rung was held out, so nothing judges this law."
    law = f"<span class=law>{e(whose(findings))}: {e(law_text(fit))}</span>"
    offset = [e(caveats.on_offset(findings.points, findings.study))] if "E" in fit.parameters else []
    return page.verdict(kind, law, e(words), *offset, floor, e(caveats.INTERVALS))
