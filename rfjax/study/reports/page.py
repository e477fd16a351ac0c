"""The HTML that every report is made of: style, tables, figures, samples, how it was made. No scripts, no network."""

import base64
import html
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from rfjax.errors import printable
from rfjax.study import comparable
from rfjax.study.records import Records, RunRecord
from rfjax.untrusted import Unreadable, read_bytes

Tables = dict[str, tuple[Sequence[str], list[tuple[Any, ...]]]]  # name of a CSV file -> (header, rows)

MAX_CAPTIONS = 12
LARGEST_STRIP = 2**28  # bytes of a PNG file
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


def shell(title: str, subtitle: str, body: Iterable[str]) -> str:
    """The whole page around its parts; no character of it is one that HTML has no place for."""
    e = html.escape
    return printable(
        "<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{e(title)}</title><style>{STYLE}</style></head><body><h1>{e(title)}</h1>"
        f"<p class=sub>{e(subtitle)}</p>{''.join(body)}</body></html>\n"
    )


def verdict(kind: str, *lines: str) -> str:
    """The box at the top of a page; kind: "good", "bad" or "open". The lines are HTML."""
    return f"<div class='verdict {kind}'>{''.join(f'<p>{line}</p>' for line in lines)}</div>"


def warnings(sentences: Sequence[str]) -> str:
    """The list of warnings, where there are any."""
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    return f"<h2>Warnings</h2><ul class=warn>{items}</ul>" if items else ""


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], groups: Sequence[tuple[str, int]] = (), style: str = ""
) -> str:
    """A table. The header is text and the cells are HTML; groups: titles above the header, with their widths."""
    e = html.escape
    above = "".join(f"<th class=group colspan={n}>{e(h)}</th>" if h else f"<th colspan={n}></th>" for h, n in groups)
    head = (f"<tr>{above}</tr>" if groups else "") + f"<tr>{''.join(f'<th>{e(h)}</th>' for h in header)}</tr>"
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    kind = f" class={style}" if style else ""
    return f"<div class=scroll><table{kind}><thead>{head}</thead><tbody>{body}</tbody></table></div>"


def note(text: str) -> str:
    """A line of small print below a table."""
    return f"<p class=note>{html.escape(text)}</p>"


def figures(drawn: dict[str, tuple[str, str, bool]]) -> str:
    """The grid of figures: name -> (title, SVG, whether it takes the whole width)."""
    cells = (
        f"<figure id={name}{' class=wide' if wide else ''}><figcaption>{html.escape(title)}</figcaption>{svg}</figure>"
        for name, (title, svg, wide) in drawn.items()
    )
    return f"<div class=figures>{''.join(cells)}</div>" if drawn else ""


def samples(rungs: dict[str, RunRecord], weights: str, turned: bool = False) -> str:
    """The same captions and noise for every rung, under its label: captions down the page, or turned, across it."""
    drawn = {label: rung for label, rung in rungs.items() if rung.samples}
    if not drawn:
        return ""
    first = next(iter(drawn.values()))
    line, captions = first.samples, first.samples["captions"][:MAX_CAPTIONS]
    strips = {"data": _tiles(first.folder / "samples" / "data_tiles.png", len(line["captions"]))}
    for label, rung in drawn.items():
        strips[label] = _tiles(rung.folder / "samples" / f"{weights}_tiles.png", len(rung.samples["captions"]))
    strips = {label: tiles for label, tiles in strips.items() if tiles}
    if not strips:
        return ""
    if turned:
        header, rows = ["", *captions], [[html.escape(label), *tiles] for label, tiles in strips.items()]
    else:
        header = ["caption", *strips]
        rows = [
            [html.escape(caption), *(tiles[i] if i < len(tiles) else "" for tiles in strips.values())]
            for i, caption in enumerate(captions)
        ]
    guidance = line.get("guidance")
    where = line.get("setting") or f"{line['steps']} steps" + ("" if guidance is None else f", guidance {guidance:g}")
    said = f"{line['sampler']}, {where}, {weights} weights"
    return table(header, rows, style="pictures") + note(f"The same captions and the same noise everywhere ({said}).")


def _tiles(path: Path, count: int) -> list[str]:
    """The pictures of a strip as HTML images; none where it is not there or can't be read."""
    try:
        strip = Image.open(io.BytesIO(read_bytes(path, limit=LARGEST_STRIP) or b""))
        strip.load()
    except (Unreadable, OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # Pillow raises all of these
        return []
    side = strip.width // max(count, 1)
    if not side:
        return []
    cells = []
    for i in range(min(count, MAX_CAPTIONS)):
        data = io.BytesIO()
        strip.crop((i * side, 0, (i + 1) * side, strip.height)).save(data, "PNG")
        cells.append(f"<img alt='' src='data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}'>")
    return cells


def seconds_split(study: Records) -> dict[str, float]:
    """Seconds by activity, over all sessions."""
    total: dict[str, float] = {}
    for session in study.sessions():
        for name, seconds in session["split"].items():
            total[name] = total.get(name, 0.0) + seconds
    return dict(sorted(total.items(), key=lambda item: -item[1]))


def _whole(study: Records) -> float:
    """Seconds over all sessions; never 0, for it is divided by."""
    return sum(session["seconds"] for session in study.sessions()) or 1.0


def time_spent(study: Records) -> str:
    """One line for the terminal: where the time went."""
    split = seconds_split(study)
    if not split:
        return ""
    whole = _whole(study)
    parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in split.items())
    return f"{whole:.0f} s in all: {parts}; {1 - split.get('training', 0.0) / whole:.0%} outside training steps"


def compilations(study: Records) -> dict[str, tuple[float, float]]:
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
    split = seconds_split(study)
    if split:
        whole = _whole(study)
        rows = [[e(name), f"{seconds:.1f}", f"{seconds / whole:.0%}"] for name, seconds in split.items()]
        parts.append(table(["activity", "seconds", "share"], [*rows, ["<b>all</b>", f"<b>{whole:.1f}</b>", ""]]))
    if programs := compilations(study):
        rows = [[e(name), f"{count:.0f}", f"{seconds:.1f}"] for name, (count, seconds) in programs.items()]
        parts.append(table(["compiled program", "times", "seconds"], rows))
    versions = ", ".join(f"{name} {version}" for name, version in s["versions"].items())
    parts.append(
        note(f"{s['date']}, commit {s['commit']}, {s['devices']} on {s['machine']}, Python {s['python']}, {versions}.")
    )
    parts += map(note, comparable.described(study.rungs))
    config = e(json.dumps(s["config"], indent=1))
    parts.append(f"<details><summary>The whole config</summary><pre>{config}</pre></details>")
    return "".join(parts)
