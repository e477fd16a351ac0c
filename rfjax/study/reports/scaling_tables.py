"""What a scaling study's CSV files hold; its rows are those of the page's tables."""

from collections.abc import Mapping
from typing import Any

from rfjax.study.records import Records, RunRecord
from rfjax.study.reports.scaling_findings import Findings, floors_of_levels
from rfjax.study.reports.scaling_optimum import table as optimum_table
from rfjax.study.reports.widgets import Tables
from rfjax.study.run_records import finite

SIZES = ("parameters", "without_modulation", "active_per_token")
RUN_COLUMNS = (
    "name", "state", "depth", *SIZES, "train_flops_per_example", "learning_rate", "steps", "examples", "flops",
    "seconds", "loss_ema", "stderr_ema", "loss_raw", "stderr_raw", "lost_ema", "lost_raw",
)  # fmt: skip


def run_row(run: RunRecord) -> dict[str, Any]:
    """A run's row of RUN_COLUMNS."""
    ema, raw = (run.final(w) or {} for w in ("ema", "raw"))
    last = raw or next(iter(run.train[-1:]), {})
    rate = run.learning_rate * run.depth ** run.config["optimizer"]["depth_exponent"]
    values = (
        run.name, run.state, run.depth, *(run.size[key] for key in SIZES), run.size["train_flops"], rate, run.steps,
        last.get("examples", 0), last.get("flops", 0), last.get("seconds", 0.0), ema.get("loss"), ema.get("stderr"),
        raw.get("loss"), raw.get("stderr"), run.why_lost("ema"), run.why_lost("raw"),
    )  # fmt: skip
    return dict(zip(RUN_COLUMNS, values, strict=True))


def loss_text(row: Mapping[str, Any], weights: str, word: str = "") -> str:
    """A run's loss with its error over examples, where it has them; "loss not finite" where it ended without."""
    loss, stderr = row[f"loss_{weights}"], row[f"stderr_{weights}"]
    if not finite(loss):
        return "loss not finite" if row[f"lost_{weights}"] else ""
    return f"{word}{loss:.4f} ± {f'{stderr:.4f}' if finite(stderr) else 'not known'}"


def tables(study: Records, findings: Findings) -> Tables:
    """rungs.csv, curves.csv (each line of training and validation), levels.csv, excess.csv (above the known floor),
    trend.csv, left_out.csv (each rung predicted from the others), successive.csv (from the smaller ones); with scores,
    quality.csv."""
    columns = ("step", "examples", "flops", "seconds", "loss")
    curves = [
        (run.name, kind, *(line[key] for key in columns))
        for run in study.runs
        for kind in ("train", "raw", "ema")
        for line in (run.train if kind == "train" else run.curve(kind))
    ]
    levels = [
        (run.name, weights, final["grid"], level, *values)
        for run in study.runs
        for weights in ("raw", "ema")
        if (final := run.final(weights))
        for level, values in enumerate(
            zip(final["levels"], *(floors_of_levels(final, key) for key in ("floors", "floors_drawn")), strict=True)
        )
    ]
    keys = [q.key for q in findings.quantities]
    quality = [(p.run, p.step, p.setting, p.loss, *(p.values[key] for key in keys)) for p in findings.scored]
    found = {
        "rungs": (RUN_COLUMNS, [tuple(run_row(run).values()) for run in study.runs]),
        "curves": (("run", "kind", *columns), curves),
        "levels": (("run", "weights", "grid", "level", "loss", "floor", "floor_drawn"), levels),
        **findings.trend.tables(),
    }
    if findings.optimum:
        found["optimum"] = optimum_table(findings.optimum)
    return found | ({"quality": (("run", "step", "setting", "loss", *keys), quality)} if quality else {})
