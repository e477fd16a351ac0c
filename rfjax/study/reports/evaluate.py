"""The report of the job `evaluate`: each set's numbers with errors and protocols, the papers' beside them, pictures."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from rfjax.evaluation.quantity import Quantity
from rfjax.study.records import Records
from rfjax.study.reports import evaluate_paper
from rfjax.study.reports.drawing import Figures
from rfjax.study.reports.page import Report
from rfjax.study.reports.widgets import NONE, Tables, escape, formatted, headline, note, section, small
from rfjax.study.run_records import failure
from rfjax.untrusted import Unreadable, read_bytes, read_json

SETS, RESULT, SHOWN = "sets", "metrics.json", "shown"  # of a work folder; of a set's folder
MOST_DRAWN = 40  # sets in a figure
LARGEST_PICTURE = 2**26  # bytes of a PNG file


@dataclass(frozen=True)
class Findings:
    """All that the report says.

    Attributes:
        sets: their records, metrics.json, by name.
        quantities: that any of them has.
        expected: key -> the value that was said to be known.
    """

    sets: tuple[Mapping[str, Any], ...]
    quantities: tuple[Quantity, ...]
    expected: Mapping[str, float]
    warnings: tuple[str, ...]


def analyse(study: Records) -> Findings:
    """Reads the sets' records."""
    sets, unread, failed, waiting = [], [], [], 0
    for folder in sorted((study.folder / SETS).glob("*/")):
        try:
            record = read_json(folder / RESULT)
            if record is None:
                why = failure(folder)
                failed += [f"{folder.name} failed: {why}"] if why else []
                waiting += not why
                continue
            sets.append(_checked(record))
        except (Unreadable, KeyError, TypeError, ValueError):
            unread.append(folder.name)
    quantities = {one["key"]: Quantity.from_plain(one) for record in sets for one in record["quantities"]}
    notes = dict.fromkeys(sentence for record in sets for sentence in record["notes"])
    warnings = [*failed, *notes]
    if waiting:
        sets_are = "1 set is" if waiting == 1 else f"{waiting} sets are"
        warnings.append(f"{sets_are} not measured yet: the same command goes on.")
    warnings += [f"The record of {name} can't be read." for name in unread]
    expected = dict(_expected(text) for text in study.config["evaluate"]["expected"])
    return Findings(tuple(sets), tuple(quantities.values()), expected, tuple(warnings))


def _checked(record: dict[str, Any]) -> dict[str, Any]:
    wanted = {"name": str, "about": dict, "model": dict, "count": int, "scores": dict, "protocols": dict}
    wanted |= {"quantities": list, "notes": list, "captions": list}
    if any(not isinstance(record[key], kind) for key, kind in wanted.items()):
        raise ValueError("an entry has another type")
    return record


def _expected(text: str) -> tuple[str, float]:
    key, _, value = text.partition("=")
    return key, float(value)


def to_json(found: Findings) -> dict[str, Any]:
    """The sets' records, and what papers have for them."""
    papers = [
        {"set": name, "metric": label, "value": value, "paper": one.source, "published": one.value, "differs": differs}
        for name, label, value, one, differs in evaluate_paper.rows(found.sets)
    ]
    return {"sets": found.sets, "papers": papers, "warnings": found.warnings}


def tables(study: Records, found: Findings) -> Tables:
    """metrics.csv: a row for each set."""
    keys = [key for one in found.quantities for key in filter(None, (one.key, one.error))]
    rows = [
        (record["name"], record["count"], *(record["scores"].get(key, "") for key in keys)) for record in found.sets
    ]
    return {"metrics": (("set", "pictures", *keys), rows)}


def figures(study: Records, found: Findings) -> Figures:
    """Each number over the sets, with an interval of two standard errors."""
    drawn: Figures = {}
    if not 1 < len(found.sets) <= MOST_DRAWN:
        return drawn
    for one in found.quantities:
        there = [record for record in found.sets if isinstance(record["scores"].get(one.key), int | float)]
        if len(there) < 2:
            continue
        figure, axes = plt.subplots(figsize=(6.4, 0.8 + 0.3 * len(there)))
        values = [record["scores"][one.key] for record in there]
        errors = [2 * _error(record, one) for record in there]
        axes.errorbar(values, range(len(there)), xerr=errors, fmt="o", capsize=3)
        axes.set_yticks(range(len(there)), [record["name"] for record in there])
        axes.invert_yaxis()
        axes.set(xlabel=f"{one.label} ({one.better} is better)")
        drawn[one.key] = (one.label, figure)
    return drawn


def _error(record: Mapping[str, Any], one: Quantity) -> float:
    error = record["scores"].get(one.error)
    return float(error) if isinstance(error, int | float) else 0.0


def subtitle(study: Records) -> str:
    """What was measured."""
    return f"Metrics of {study.config['evaluate']['source']}"


def opening(study: Records, found: Findings) -> str:
    """The first number of the best set, with its error and what it rests on."""
    if not found.sets or not found.quantities:
        return headline(["Nothing is measured yet."], 0)
    one = found.quantities[0]
    there = [record for record in found.sets if isinstance(record["scores"].get(one.key), int | float)]
    if not there:
        return headline([f"No set has the metric {one.label}."], 0)
    best = (max if one.better == "higher" else min)(there, key=lambda record: record["scores"][one.key])
    protocol = best["protocols"].get(one.key, {})
    said = f"{one.label} {_cell(best, one, plain=True)} of {best['name']}"
    alike = sum(record["scores"][one.key] == best["scores"][one.key] for record in there)
    if alike > 1:
        said += f", and the same of {alike - 1} of the {len(there) - 1} other sets."
    else:
        said += f", the best of {len(there)} sets." if len(there) > 1 else "."
    rest = f"{best['count']:,} pictures"
    if protocol.get("reference"):
        rest += f", compared with {protocol['reference']}"
    if protocol.get("embedder"):
        rest += f", by {protocol['embedder']}"
    return headline([said, f"{rest}. Numbers of other protocols can't be compared with it."], 0)


def _cell(record: Mapping[str, Any], one: Quantity, plain: bool = False) -> str:
    value, error = record["scores"].get(one.key), _error(record, one)
    if not isinstance(value, int | float):
        return NONE
    form = ".4g" if one.better == "lower" or abs(value) >= 10 else ".3f"
    if not error:
        return formatted(value, form)
    return f"{value:{form}} ± {error:.2g}" if plain else f"{value:{form}}{small(f'± {error:.2g}')}"


def sections(study: Records, found: Findings) -> list[str]:
    """The numbers, their protocols, the papers' numbers, the check of known values, and pictures."""
    header = ["set", "pictures", *(one.label for one in found.quantities)]
    rows = [
        [escape(record["name"]), f"{record['count']:,}", *(_cell(record, one) for one in found.quantities)]
        for record in found.sets
    ]
    said = (
        "± is a standard error over the pictures: one standard deviation of what other noise would have given with the "
        "same model. Another training seed moves a Fréchet distance more than that."
    )
    return [
        section("Numbers", header, rows, said),
        _protocols(found),
        _sampling(found),
        _papers(found),
        _known(found),
        *(_pictures(study.folder / SETS / record["name"], record) for record in found.sets[:MOST_DRAWN]),
    ]


def _protocols(found: Findings) -> str:
    """How each number was made."""
    names = {
        "embedder": "name",
        "network": "network",
        "resize": "resize",
        "scaling": "scaling",
        "file": "file",
        "sha256": "its SHA-256",
        "reference": "reference",
        "reference_count": "its pictures",
    }
    seen: dict[tuple[str, ...], dict[str, None]] = {}
    for one in found.quantities:
        for record in found.sets:
            made = record["protocols"].get(one.key)
            if made:
                seen.setdefault(tuple(str(made.get(name, NONE)) for name in names), {})[one.label] = None
    rows = [[title, *(escape(values[i]) for values in seen)] for i, title in enumerate(names.values()) if seen]
    said = "A data set's own scores are not among these: rfjax/evaluation/metrics says how each is made."
    return section("How they were measured", ["", *map(", ".join, seen.values())], rows, said)


def _sampling(found: Findings) -> str:
    """How the pictures of each set were drawn."""
    header = ["set", "weights", "sampler", "steps", "guidance", "interval", "labels", "rounding", "seed"]
    rows = []
    for record in found.sets:
        about = record["about"]
        if "sampler" not in about:
            continue
        low, high = about.get("guidance_interval", (0, 1))
        values = (
            f"{about.get('weights')} of step {about.get('step')}",
            about["sampler"],
            about.get("steps"),
            about.get("guidance"),
            f"{low:g} to {high:g}",
            about.get("labels"),
            about.get("rounding"),
            about.get("seed"),
        )
        rows.append([escape(record["name"]), *(escape(str(value)) for value in values)])
    return section("How the pictures were drawn", header, rows)


def _papers(found: Findings) -> str:
    """The papers' numbers, each with what differs."""
    rows = [
        [
            escape(name),
            escape(label),
            f"{value:.4g}",
            f"{one.value:g}",
            escape(one.source),
            escape("; ".join(differs) or "nothing that is stated"),
        ]
        for name, label, value, one, differs in evaluate_paper.rows(found.sets)
    ]
    return section("Beside the papers", ["set", "metric", "here", "paper", "source", "what differs"], rows)


def _known(found: Findings) -> str:
    """The check of known values."""
    rows = []
    for record in found.sets:
        for key, wanted in found.expected.items():
            value = record["scores"].get(key)
            if isinstance(value, int | float):
                rows.append(
                    [escape(record["name"]), escape(key), f"{value:.6g}", f"{wanted:g}", f"{value / wanted - 1:+.3%}"]
                )
    said = "A good port of ADM's evaluator agrees to 0.1 % in FID, sFID and IS, and to 0.0025 in precision and recall."
    return section("Known values", ["set", "metric", "here", "known", "off by"], rows, said)


def _pictures(folder: Path, record: Mapping[str, Any]) -> str:
    """The first pictures of a set."""
    try:
        data = read_bytes(folder / f"{SHOWN}.png", limit=LARGEST_PICTURE)
    except Unreadable:
        data = None
    if not data:
        return ""
    coded = base64.b64encode(data).decode()
    title = f"<h2>Pictures of {escape(record['name'])}</h2>"
    return f"{title}<img class=sheet alt='' src='data:image/png;base64,{coded}'>" + note(
        f"The first {len(record['captions'])} of {record['count']:,} pictures."
    )


def lines(study: Records, found: Findings) -> list[str]:
    """What the terminal shows at the end."""
    said = []
    for record in found.sets:
        cells = [f"{one.label} {_cell(record, one, plain=True)}" for one in found.quantities]
        said.append(f"{record['name']}: {', '.join(cells)} ({record['count']:,} pictures)")
    return said


REPORT = Report("metrics.json", analyse, to_json, tables, figures, subtitle, opening, sections, lines)
