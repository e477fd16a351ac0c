"""The pieces of HTML that reports are made of: boxes, tables, notes, figures, pictures."""

import base64
import html
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from PIL import Image

from rfjax.analysis import RateChoice
from rfjax.analysis.multipliers import Estimate
from rfjax.study.records import RunRecord
from rfjax.untrusted import Unreadable, read_bytes

Tables = dict[str, tuple[Sequence[str], list[Sequence[Any]]]]  # name of a CSV file -> (header, rows)

NONE = "–"
MAX_CAPTIONS = 12
LARGEST_STRIP = 2**28  # bytes of a PNG file
escape = html.escape


def verdict(kind: str, *lines: str) -> str:
    """The box at the top of a page; kind: "good", "bad" or "open". The lines are HTML."""
    return f"<div class='verdict {kind}'>{''.join(f'<p>{line}</p>' for line in lines)}</div>"


def headline(sentences: Iterable[str], sign: int) -> str:
    """The box with these sentences, the first in bold; sign: 1 good, -1 bad, 0 open."""
    first, *rest = map(escape, sentences)
    return verdict({1: "good", -1: "bad", 0: "open"}[sign], f"<b>{first}</b>", *rest)


def warnings(sentences: Sequence[str]) -> str:
    """The list of warnings, where there are any."""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f"<h2>Warnings</h2><ul class=warn>{items}</ul>" if items else ""


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], groups: Sequence[tuple[str, int]] = (), style: str = ""
) -> str:
    """A table. The header is text and the cells are HTML; groups: titles above the header, with their widths."""
    above = "".join(f"<th{' class=group' if h else ''} colspan={n}>{escape(h)}</th>" for h, n in groups)
    head = (f"<tr>{above}</tr>" if groups else "") + f"<tr>{''.join(f'<th>{escape(h)}</th>' for h in header)}</tr>"
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    kind = f" class={style}" if style else ""
    return f"<div class=scroll><table{kind}><thead>{head}</thead><tbody>{body}</tbody></table></div>"


def two_lines(estimate: Estimate, form: str) -> str:
    """A mean, and its interval below it, where it has one."""
    span = "" if estimate.low is None else small(f"{estimate.low:{form}} to {estimate.high:{form}}")
    return f"{estimate.value:{form}}{span}"


def note(text: str) -> str:
    """A line of small print below a table."""
    return f"<p class=note>{escape(text)}</p>"


def section(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *notes: str,
    groups: Sequence[tuple[str, int]] = (),
) -> str:
    """A heading, a table and notes; nothing where there are no rows. Title and notes are text."""
    body = table(header, rows, groups) + "".join(map(note, notes))
    return f"<h2>{escape(title)}</h2>{body}" if rows else ""


def figures(drawn: Mapping[str, tuple[str, str, bool]]) -> str:
    """The grid of figures: name -> (title, SVG, whether it takes the whole width)."""
    cells = (
        f"<figure id={name}{' class=wide' if wide else ''}><figcaption>{escape(title)}</figcaption>{svg}</figure>"
        for name, (title, svg, wide) in drawn.items()
    )
    return f"<div class=figures>{''.join(cells)}</div>" if drawn else ""


def small(text: str) -> str:
    """A second line of a cell, in small print."""
    return f"<br><span class=note>{text}</span>"


def dotted(name: str, colour: str) -> str:
    """A name, in HTML, behind a dot of this colour."""
    return f"<span style='color:{colour}'>●</span> {name}"


def formatted(value: float | None, form: str, none: str = NONE) -> str:
    """A number, or a dash where there is none that is finite."""
    return none if value is None or not math.isfinite(value) else format(value, form)


def bold_best(
    values: Mapping[str, float], form: str, better: str, after: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The cells of a column, the best ("higher" or "lower") of them in bold; after: what stands behind a value."""
    top = (max if better == "higher" else min)(values.values(), default=None)
    texts = {name: format(value, form) + (after or {}).get(name, "") for name, value in values.items()}
    return {name: f"<b>{text}</b>" if values[name] == top else text for name, text in texts.items()}


def rate_section(choices: Sequence[RateChoice], label: Callable[[str], str]) -> str:
    """The final loss of each learning rate, the chosen ones in bold, and what the sweep cost."""
    tried = sorted({r for choice in choices for r in choice.losses})
    rows = []
    for choice in choices:
        cells = {r: f"{loss:.4f}" if math.isfinite(loss) else "no final loss" for r, loss in choice.losses.items()}
        shown = [f"<b>{cells[r]}</b>" if r == choice.best else cells.get(r, NONE) for r in tried]
        rows.append([escape(label(choice.who)), escape(choice.dataset), *shown, f"{choice.flops:.2g}"])
    return section(
        "Learning rates", ["", "data set", *(f"{r:g}" for r in tried), "FLOPs of all"], rows,
        "The validation loss at the end of each rate, the mean over seeds; in bold the lowest, at which the row stands "
        "in this comparison. Losses compare along a row only. FLOPs: of all runs of a row.",
    )  # fmt: skip


def samples(runs: Mapping[str, RunRecord], weights: str, title: str = "Samples", turned: bool = False) -> str:
    """The same captions and noise for every run, under its label: captions down the page, or turned, across it."""
    drawn = {label: run for label, run in runs.items() if run.samples}
    if not drawn:
        return ""
    first = next(iter(drawn.values()))
    strips = {"data": _tiles(first, "data_tiles.png")}
    strips |= {label: _tiles(run, f"{weights}_tiles.png") for label, run in drawn.items()}
    strips = {label: tiles for label, tiles in strips.items() if tiles}
    if not strips:
        return ""
    line, captions = first.samples, first.samples["captions"][:MAX_CAPTIONS]
    if turned:
        header, rows = ["", *captions], [[escape(label), *tiles] for label, tiles in strips.items()]
    else:
        header, columns = ["caption", *strips], [[*tiles, *[""] * MAX_CAPTIONS] for tiles in strips.values()]
        rows = [[escape(caption), *cells] for caption, *cells in zip(captions, *columns, strict=False)]
    guidance = line.get("guidance")
    where = line.get("setting") or f"{line['steps']} steps" + ("" if guidance is None else f", guidance {guidance:g}")
    said = f"The same captions and the same noise everywhere ({line['sampler']}, {where}, {weights} weights)."
    return f"<h2>{escape(title)}</h2>" + table(header, rows, style="pictures") + note(said)


def _tiles(run: RunRecord, file: str) -> list[str]:
    """The pictures of a run's strip as HTML images; none where it is not there or can't be read."""
    count, path = len(run.samples["captions"]), run.folder / "samples" / file
    try:
        strip = Image.open(io.BytesIO(read_bytes(path, limit=LARGEST_STRIP) or b""))
        strip.load()
    except (Unreadable, OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # Pillow raises all of these
        return []
    side = strip.width // max(count, 1)
    cells = []
    for i in range(min(count, MAX_CAPTIONS) if side else 0):
        data = io.BytesIO()
        strip.crop((i * side, 0, (i + 1) * side, strip.height)).save(data, "PNG")
        cells.append(f"<img alt='' src='data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}'>")
    return cells
