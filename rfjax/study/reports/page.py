"""The frame of every page: its style, its top, and how the study was made. No scripts, no network."""

import html
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from rfjax.errors import printable
from rfjax.study import comparable
from rfjax.study.records import Records
from rfjax.study.reports.drawing import Figures
from rfjax.study.reports.widgets import Tables, note, table

STYLE = """
:root { --ink: #1c2430; --soft: #5b6675; --line: #e3e7ec; --blue: #2563a8; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: var(--ink);
       max-width: 1320px; margin: 2.2rem auto 4rem; padding: 0 1.4rem; background: #fff; }
h1 { font-size: 1.75rem; margin: 0; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; padding-top: .9rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
.sub, .note { color: var(--soft); } .note { font-size: .86rem; } .sub { margin: .2rem 0 1.2rem; }
.verdict { border-left: 5px solid var(--soft); background: #f6f8fa; padding: .7rem 1.1rem; }
.verdict.good { border-color: #2c8a4b; background: #f0f9f3; }
.verdict.bad { border-color: #c2412d; background: #fdf3f1; }
.verdict p { margin: .25rem 0; } .law { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: .92rem; }
.warn li { margin: .2rem 0; } .warn { color: #7a4b00; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 520px), 1fr)); gap: 1.4rem;
           margin-top: 1.8rem; }
figure { margin: 0; border: 1px solid var(--line); border-radius: 6px; padding: .8rem; }
figure.wide { grid-column: 1 / -1; }
figcaption { font-weight: 600; margin-bottom: .3rem; } figure svg { width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .32rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; } th:first-child, td:first-child { text-align: left; }
th.group { text-align: center; color: var(--ink); border-left: 1px solid var(--line); }
td img { width: 64px; height: 64px; object-fit: contain; image-rendering: pixelated; display: block; }
.pictures th { white-space: normal; vertical-align: bottom; min-width: 64px; max-width: 96px; }
.pictures td { padding: .2rem .35rem; }
pre { background: #f6f8fa; padding: .7rem 1rem; border-radius: 4px; overflow-x: auto; font-size: .84rem; }
"""


@dataclass(frozen=True)
class Report:
    """A kind of report: what it finds in a study's records, and how it shows that. `F` are its findings.

    Attributes:
        file: name of its JSON file.
        analyse: records -> F; the findings have `warnings`, a tuple of sentences.
        to_json: F -> plain values for the JSON file.
        tables: records, F -> the CSV files.
        figures: records, F -> the figures.
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
    e = html.escape
    return printable(
        "<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{e(title)}</title><style>{STYLE}</style></head><body><h1>{e(title)}</h1>"
        f"<p class=sub>{e(subtitle)}</p>{''.join(body)}</body></html>\n"
    )


def _time_split(study: Records) -> tuple[dict[str, float], float]:
    """Seconds by activity over all sessions, the most first, and all of them; never 0, for they are divided by."""
    total: dict[str, float] = {}
    sessions = study.sessions()
    for session in sessions:
        for name, seconds in session["split"].items():
            total[name] = total.get(name, 0.0) + seconds
    whole = sum(session["seconds"] for session in sessions) or 1.0
    return dict(sorted(total.items(), key=lambda item: -item[1])), whole


def time_spent(study: Records) -> str:
    """One line for the terminal: where the time went."""
    split, whole = _time_split(study)
    if not split:
        return ""
    parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in split.items())
    return f"{whole:.0f} s in all: {parts}; {1 - split.get('training', 0.0) / whole:.0%} outside training steps"


def _compilations(study: Records) -> dict[str, tuple[float, float]]:
    """Program -> how often it was compiled and for how many seconds, over all sessions, the slowest first."""
    total: dict[str, tuple[float, float]] = {}
    for session in study.sessions():
        for name, found in session.get("compilations", {}).items():
            count, seconds = total.get(name, (0, 0.0))
            total[name] = (count + found["count"], seconds + found["seconds"])
    return dict(sorted(total.items(), key=lambda item: -item[1][1]))


def how_made(study: Records) -> str:
    """Where the time went, and what a reader needs to repeat the study."""
    s, e = study.study, html.escape
    parts = ["<h2>How this was made</h2>", f"<pre>{e(s['command'])}</pre>"]
    split, whole = _time_split(study)
    if split:
        rows = [[e(name), f"{seconds:.1f}", f"{seconds / whole:.0%}"] for name, seconds in split.items()]
        parts.append(table(["activity", "seconds", "share"], [*rows, ["<b>all</b>", f"<b>{whole:.1f}</b>", ""]]))
    if programs := _compilations(study):
        rows = [[e(name), f"{count:.0f}", f"{seconds:.1f}"] for name, (count, seconds) in programs.items()]
        parts.append(table(["compiled program", "times", "seconds"], rows))
    versions = ", ".join(f"{name} {version}" for name, version in s["versions"].items())
    parts.append(
        note(f"{s['date']}, commit {s['commit']}, {s['devices']} on {s['machine']}, Python {s['python']}, {versions}.")
    )
    parts += map(note, comparable.described(study.runs))
    config = e(json.dumps(s["config"], indent=1))
    parts.append(f"<details><summary>The whole config</summary><pre>{config}</pre></details>")
    return "".join(parts)
