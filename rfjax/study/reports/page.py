"""The frame of every page: its style, its top, and how the study was made. No scripts, no network."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfjax.errors import printable
from rfjax.study import comparable
from rfjax.study.records import Records
from rfjax.study.reports.drawing import Figures
from rfjax.study.reports.widgets import Tables, escape, note, table

STYLE = "\n" + Path(__file__).with_name("style.css").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Report:
    """A kind of report: what it finds in a study's records, and how it shows that. `F` are its findings.

    Attributes:
        analyse: records -> F; the findings have `warnings`, a tuple of sentences.
        to_json: F -> plain values for the JSON `file`.
        subtitle: records -> what was trained on what, in words.
        opening: records, F -> HTML of the box at the top of the page.
        sections: records, F -> HTML of the parts below the figures.
        lines: records, F -> what the terminal shows at the end.
    """

    file: str
    analyse: Callable[[Records], Any]
    to_json: Callable[[Any], Any]
    tables: Callable[[Records, Any], Tables]
    figures: Callable[[Records, Any], Figures]
    subtitle: Callable[[Records], str]
    opening: Callable[[Records, Any], str]
    sections: Callable[[Records, Any], list[str]]
    lines: Callable[[Records, Any], list[str]]


def shell(title: str, subtitle: str, body: Iterable[str]) -> str:
    """The whole page around its parts; no character of it is one that HTML has no place for."""
    return printable(
        "<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><h1>{escape(title)}</h1>"
        f"<p class=sub>{escape(subtitle)}</p>{''.join(body)}</body></html>\n"
    )


def _total(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The sum of each entry, the largest first."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(total.most_common())


def _time_split(study: Records) -> tuple[dict[str, float], float]:
    """Seconds by activity over all sessions, and all of them; never 0, for they are divided by."""
    sessions = study.sessions()
    return _total(session["split"] for session in sessions), sum(session["seconds"] for session in sessions) or 1.0


def time_spent(study: Records) -> str:
    """One line for the terminal: where the time went."""
    split, whole = _time_split(study)
    if not split:
        return ""
    parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in split.items())
    outside = f"; {1 - split['training'] / whole:.0%} outside training steps" if "training" in split else ""
    return f"{whole:.0f} s in all: {parts}{outside}"


def how_made(study: Records) -> str:
    """Where the time went, and what a reader needs to repeat the study."""
    s = study.study
    parts = ["<h2>How this was made</h2>", f"<pre>{escape(s['command'])}</pre>"]
    split, whole = _time_split(study)
    if split:
        rows = [[escape(name), f"{seconds:.1f}", f"{seconds / whole:.0%}"] for name, seconds in split.items()]
        parts.append(table(["activity", "seconds", "share"], [*rows, ["<b>all</b>", f"<b>{whole:.1f}</b>", ""]]))
    programs = [session.get("compilations", {}) for session in study.sessions()]
    count, seconds = (
        _total({name: one[key] for name, one in of.items()} for of in programs) for key in ("count", "seconds")
    )
    if seconds:
        rows = [[escape(name), f"{count[name]:.0f}", f"{spent:.1f}"] for name, spent in seconds.items()]
        parts.append(table(["compiled program", "times", "seconds"], rows))
    versions = ", ".join(f"{name} {version}" for name, version in s["versions"].items())
    made = f"{s['date']}, commit {s['commit']}, {s['devices']} on {s['machine']}, Python {s['python']}, {versions}."
    parts.append(note(made))
    parts += map(note, comparable.described(study.runs))
    config = escape(json.dumps(s["config"], indent=1))
    parts.append(f"<details><summary>The whole config</summary><pre>{config}</pre></details>")
    return "".join(parts)
