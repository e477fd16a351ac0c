"""Reports: report/index.html, self-contained, with PNG, CSV and JSON beside it. Imports no JAX.

The config's key `study.report` names a report: an entry of REPORTS, or an import path `MODULE:NAME` of an object with
the attributes of `page.Report`. A new report is one module that defines such an object, and an entry here.
"""

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from rfjax import files, lookup
from rfjax.errors import UserError, printable
from rfjax.jsonl import plain
from rfjax.study import comparable, records
from rfjax.study.reports import drawing, page, widgets

NAMES = (
    "scaling",
    "formulations",
    "sampling",
    "transfer",
    "architectures",
    "repa",
    "representations",
    "captions",
    "encode",
    "suites",
    "evaluate",
)
REPORTS = {name: f"rfjax.study.reports.{name}:REPORT" for name in NAMES}


@dataclass(frozen=True)
class Built:
    """A study that was read, analysed and drawn; figures: name -> (title, SVG, whether wide)."""

    report: page.Report
    study: records.Records
    findings: Any
    figures: dict[str, tuple[str, str, bool]]


def build_report(folder: Path, allow: bool = False) -> Built:
    """Reads a study, with `allow` also one whose runs differ in data, analyses it, and writes figures, tables and JSON.

    Raises:
        UserError: if there is no study in the folder, its report is not known, or the report can't be written.
    """
    study = comparable.comparable(records.read(folder), allow)
    name = study.config["study"].get("report", "scaling")  # studies from before the key are scaling studies
    try:
        report = lookup.find(name, REPORTS, "study.report")
    except UserError as error:
        raise UserError(f"{folder}/study.json: {error}") from error
    target = folder / "report"
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file, where the report's folder should be: move it away")
    findings = report.analyse(study)
    try:
        target.mkdir(exist_ok=True)
        files.clean(target)
        text = json.dumps(plain(report.to_json(findings)), indent=1, allow_nan=False)
        files.write(target / report.file, text + "\n")
        for table, (header, rows) in report.tables(study, findings).items():
            text = io.StringIO()
            csv.writer(text).writerows([header, *rows])
            files.write(target / f"{table}.csv", text.getvalue())
        figures = {}
        with drawing.style():
            for figure, (title, shown) in report.figures(study, findings).items():
                with files.atomic(target / f"{figure}.png") as partial:
                    shown.savefig(partial, format="png")
                shown.set_layout_engine("none")  # it has its layout, which takes longer than to draw it
                figures[figure] = (title, drawing.svg(shown), shown.get_figwidth() > drawing.WIDE)
                plt.close(shown)
    except OSError as error:
        raise UserError(f"the report can't be written to {target} ({error.strerror or error})") from error
    return Built(report, study, findings, figures)


def write_page(built: Built) -> Path:
    """Writes report/index.html and returns its path.

    Raises:
        UserError: if there is no room.
    """
    report, study, findings = built.report, built.study, built.findings
    body = [
        report.opening(study, findings),
        widgets.warnings(findings.warnings),
        widgets.figures(built.figures),
        *report.sections(study, findings),
        page.how_made(study),
    ]
    path = study.folder / "report" / "index.html"
    files.write(path, page.shell(study.config["study"]["name"], report.subtitle(study), body))
    return path


def summary(built: Built, path: Path) -> str:
    """What the terminal shows at the end."""
    said = ["", *built.report.lines(built.study, built.findings)]
    said += [f"warning: {sentence}" for sentence in built.findings.warnings]
    return printable("\n".join([*said, *filter(None, [page.time_spent(built.study)]), f"report: {path}"]))
