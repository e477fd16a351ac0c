"""Reports: report/index.html, self-contained, with PNG, CSV and JSON beside it. Imports no JAX.

Each kind of study has a module with the same functions, and the config's key `study.report` picks it:

    find(records) -> findings, with `warnings`        record(findings) -> what goes into the JSON file named FILE
    figures(records, findings) -> name -> (title, figure)         tables(records, findings) -> the CSV files
    opening, sections: the page from top to bottom    subtitle, lines: in words, for the page and for the terminal
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.pyplot as plt

from rfjax import files
from rfjax.errors import UserError, nearest, printable
from rfjax.jsonl import plain
from rfjax.study import comparable, records
from rfjax.study.reports import architectures, drawing, formulations, page, sampling, scaling

KINDS: dict[str, ModuleType] = {
    "scaling": scaling,
    "formulations": formulations,
    "sampling": sampling,
    "architectures": architectures,
}


@dataclass(frozen=True)
class Drawn:
    """A study read, judged and drawn: what a page is made of. figures: name -> (title, SVG, whether wide)."""

    kind: ModuleType
    records: records.Records
    findings: Any
    figures: dict[str, tuple[str, str, bool]]


def draw(folder: Path, allow: bool = False) -> Drawn:
    """Reads a study, judges it, and writes the figures, the tables and the JSON file.

    Args:
        folder: of the study. allow: compare runs whose data differ, and say so.

    Raises:
        UserError: if there is no study in the folder, or the report can't be written.
    """
    study = comparable.comparable(records.read(folder), allow)
    name = study.config["study"].get("report", "scaling")  # studies from before the key are scaling studies
    if name not in KINDS:
        raise UserError(f"{folder}/study.json asks for a report '{name}', which there is not{nearest(name, KINDS)}")
    kind = KINDS[name]
    findings = kind.find(study)
    target = folder / "report"
    figures = {}
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file, where the report's folder should be: move it away")
    try:
        target.mkdir(exist_ok=True)
        files.clean(target)
        files.write(target / kind.FILE, json.dumps(plain(kind.record(findings)), indent=1, allow_nan=False) + "\n")
        for table, (header, rows) in kind.tables(study, findings).items():
            with (
                files.atomic(target / f"{table}.csv") as partial,
                partial.open("w", newline="", encoding="utf-8") as file,
            ):
                csv.writer(file).writerows([header, *rows])
        with drawing.style():
            for figure, (title, shown) in kind.figures(study, findings).items():
                with files.atomic(target / f"{figure}.png") as partial:
                    shown.savefig(partial, format="png")
                figures[figure] = (title, drawing.svg(shown), shown.get_figwidth() > drawing.WIDE)
                plt.close(shown)
    except OSError as error:
        raise UserError(f"the report can't be written to {target} ({error.strerror or error})") from error
    return Drawn(kind, study, findings, figures)


def write(drawn: Drawn) -> Path:
    """Writes report/index.html and returns its path.

    Raises:
        UserError: if there is no room.
    """
    kind, study, findings = drawn.kind, drawn.records, drawn.findings
    body = [
        kind.opening(study, findings),
        page.warnings(findings.warnings),
        page.figures(drawn.figures),
        *kind.sections(study, findings),
        page.how_made(study),
    ]
    path = study.folder / "report" / "index.html"
    files.write(path, page.shell(study.config["study"]["name"], kind.subtitle(study), body))
    return path


def summary(drawn: Drawn, path: Path) -> str:
    """What the terminal shows at the end."""
    said = ["", *drawn.kind.lines(drawn.records, drawn.findings)]
    said += [f"warning: {sentence}" for sentence in drawn.findings.warnings]
    return printable("\n".join([*said, *filter(None, [page.time_spent(drawn.records)]), f"report: {path}"]))
