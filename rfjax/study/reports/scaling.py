"""The report of a scaling study: the law, the held-out rung, the ladder (SD3 section 5.3.3, Fig. 8)."""

from rfjax.analysis.levels import describe_floor
from rfjax.analysis.trend import INTERVALS
from rfjax.study.records import Records
from rfjax.study.reports.compare import dataset_name
from rfjax.study.reports.page import Report
from rfjax.study.reports.scaling_figures import figures
from rfjax.study.reports.scaling_findings import (
    Findings,
    analyse,
    floors_of_levels,
    to_json,
)  # fmt: skip
from rfjax.study.reports.scaling_page import RUN_COLUMNS, loss_text, run_row, sections
from rfjax.study.reports.widgets import Tables, escape, verdict


def tables(study: Records, findings: Findings) -> Tables:
    """rungs.csv, curves.csv (each line of training and validation), levels.csv, excess.csv (above the known floor),
    trend.csv, left_out.csv (each rung predicted from the others); with scores, quality.csv."""
    columns = ("step", "examples", "flops", "seconds", "loss")
    curves = [
        (run.name, kind, *(line[key] for key in columns))
        for run in study.runs
        for kind in ("train", "raw", "ema")
        for line in (run.train if kind == "train" else run.curve(kind))
    ]
    finals = [(run.name, weights, final) for run in study.runs for weights in ("raw", "ema")
              if (final := run.final(weights))]  # fmt: skip
    levels = [
        (name, weights, final["grid"], level, *values)
        for name, weights, final in finals
        for level, values in enumerate(
            zip(final["levels"], floors_of_levels(final), floors_of_levels(final, "floors_drawn"), strict=True)
        )
    ]
    keys = [q.key for q in findings.quantities]
    quality = [(p.run, p.step, p.setting, p.loss, *(p.values[key] for key in keys)) for p in findings.scored]
    return {
        "rungs": (RUN_COLUMNS, [tuple(run_row(run).values()) for run in study.runs]),
        "curves": (("run", "kind", *columns), curves),
        "levels": (("run", "weights", "grid", "level", "loss", "floor", "floor_drawn"), levels),
        **findings.trend.tables(),
        **({"quality": (("run", "step", "setting", "loss", *keys), quality)} if quality else {}),
    }


def lines(study: Records, findings: Findings) -> list[str]:
    """What the terminal shows at the end."""
    said, trend = [], findings.trend
    for row in map(run_row, study.runs):
        said.append(
            f"{row['name']:>12}  {row['parameters']:>13,} parameters  {row['flops']:9.2e} FLOPs  "
            f"{loss_text(row, 'ema', 'loss ') or row['state']}"
        )
    said.append("")
    for name, fit in trend.judged.items():
        said.append(f"{name}, at {trend.ladder.examples_seen}: {fit.text}")
        said += [f"  {fit.held_out.verdict}"] if fit.held_out else []
    said += [findings.trend.on_offset, INTERVALS] if trend.judged else []
    return [*said, *([describe_floor(trend.rungs)] if trend.rungs else []), trend.reason]


def subtitle(study: Records) -> str:
    """What was trained on what."""
    c = study.config
    return (
        f"{c['model']['backbone']} as {c['flow']['formulation']} on {dataset_name(c)} at "
        f"{c['data']['image_size']} pixels, batch {c['training']['batch']}, {c['training']['steps']:,} steps; "
        f"validation on the grid {c['validation']['levels']} with {c['validation']['examples']:,} fixed triples"
    )


def opening(study: Records, findings: Findings) -> str:
    """The law and its verdict, in the box at the top."""
    trend, floor = findings.trend, escape(describe_floor(findings.trend.rungs))
    if not trend.main:
        return verdict("open", escape(trend.reason), *([floor] if floor else []))
    fit = trend.judged[trend.main]
    held = fit.held_out
    kind = {"predicted": "good", "missed": "bad"}.get(held.outcome, "open") if held else "open"
    words = held.verdict if held else "No rung was held out, so nothing judges this law."
    law = f"<span class=law>at {escape(trend.ladder.examples_seen)}: {escape(fit.text)}</span>"
    offset = [escape(findings.trend.on_offset)] if "E" in fit.parameters else []
    return verdict(kind, law, escape(words), *offset, floor, escape(INTERVALS))


REPORT = Report("fits.json", analyse, to_json, tables, figures, subtitle, opening, sections, lines)
