"""The page of results, in the style of the studies' reports: index.html, ratings.csv, ratings.json, ratings.png."""

import csv
import io
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from rfjax import files
from rfjax.analysis.correlation import Correlation
from rfjax.errors import UserError
from rfjax.jsonl import plain
from rfjax.preferences.findings import (
    Asked,
    Findings,
    Share,
    analyse,
    describe,
    in_percent,
    resolution,
    subtitle,
    to_json,
)
from rfjax.preferences.pairs import QUESTIONS
from rfjax.preferences.votes import Votes
from rfjax.study.reports import drawing, page, widgets
from rfjax.study.reports.widgets import NONE, escape, formatted

TITLE = "Preferences"
HEADER = ("question", "model", "rating", "low", "high", "points", "votes", "win_rate", "validation_loss")
ROW = 0.3  # inches of a model in the figure


def write(votes: Votes, losses: Mapping[str, float], folder: Path, arguments: Sequence[str]) -> list[str]:
    """Writes the report; returns what the terminal shows.

    Args:
        losses: model -> validation loss.
        arguments: of the command, which the page repeats.

    Raises:
        UserError: as `findings.analyse`, or if the folder is a file.
        OSError: if it can't be written.
    """
    findings = analyse(votes, losses)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, where the report's folder should be: move it away")
    folder.mkdir(parents=True, exist_ok=True)
    files.clean(folder)
    files.write(folder / "ratings.json", json.dumps(plain(to_json(findings)), indent=1, allow_nan=False) + "\n")
    text = io.StringIO()
    csv.writer(text).writerows([HEADER, *rows(findings)])
    files.write(folder / "ratings.csv", text.getvalue())
    with drawing.style():
        figure = draw(findings)
        with files.atomic(folder / "ratings.png") as partial:
            figure.savefig(partial, format="png")
        svg = drawing.svg(figure)
        plt.close(figure)
    command = f"python -m rfjax.preferences {shlex.join(arguments)}"
    files.write(folder / "index.html", render(findings, svg, command))
    said = [describe(one)[0] for one in findings.asked]
    return [*said, *(f"warning: {line}" for line in findings.warnings), f"report: {folder / 'index.html'}"]


def rows(findings: Findings) -> list[tuple[object, ...]]:
    """ratings.csv: a model of a question each."""
    found = []
    for one in findings.asked:
        r = one.ratings
        for i in _order(one):
            points, votes = float(r.points[i].sum()), int(r.votes[i].sum())
            ends = [round(float(value[i]), 2) if math.isfinite(value[i]) else "" for value in (r.low, r.high)]
            loss = findings.losses.get(r.names[i], "")
            won = round(points / votes, 4) if votes else ""
            found.append((one.question, r.names[i], round(float(r.rating[i]), 2), *ends, points, votes, won, loss))
    return found


def draw(findings: Findings) -> Figure:
    """Ratings with their intervals, a panel for each question."""
    most = max(len(one.ratings.names) for one in findings.asked)
    figure, panels = plt.subplots(
        1, len(findings.asked), figsize=(1.2 + 3.9 * len(findings.asked), 1.2 + ROW * most), sharex=True, squeeze=False
    )
    names = dict.fromkeys(one.ratings.names[i] for one in findings.asked for i in _order(one)[::-1])
    colour = drawing.colours(list(names))
    for axes, one in zip(panels[0], findings.asked, strict=True):
        r, order = one.ratings, _order(one)
        for place, i in enumerate(order):
            span = [[r.rating[i] - r.low[i]], [r.high[i] - r.rating[i]]]
            kept = span if np.isfinite(span).all() else None
            marker = "o" if kept else "D"
            axes.errorbar(r.rating[i], place, xerr=kept, fmt=marker, ms=6, capsize=3, color=colour[r.names[i]])
        axes.set(yticks=range(len(order)), yticklabels=[r.names[i] for i in order], title=one.question)
        axes.set(xlabel="rating", ylim=(len(order) - 0.4, -0.6))
        axes.axvline(1000, color="grey", lw=0.8)
    return figure


def render(findings: Findings, svg: str, command: str) -> str:
    """The whole page."""
    said = [describe(one) for one in findings.asked]
    body = [
        widgets.headline([sentence for sentence, _ in said], int(all(clear for _, clear in said))),
        widgets.warnings(findings.warnings),
        widgets.figures({"ratings": ("Ratings and 95 % intervals; a diamond has none", svg, True)}),
        *(_question(one, findings.losses) for one in findings.asked),
        _raters(findings),
        _method(findings, command),
    ]
    return page.shell(TITLE, subtitle(findings), body)


def _question(one: Asked, losses: Mapping[str, float]) -> str:
    """Ratings and win rates of a question."""
    r, order = one.ratings, _order(one)
    asked = QUESTIONS[one.question].title if one.question in QUESTIONS else one.question
    given = [name for name in r.names if name in losses]
    header = ["model", "rating", "95 % interval", "points", "votes", *(["validation loss"] if given else [])]
    header += [f"against {r.names[i]}" for i in order]
    cells = []
    for i in order:
        span = f"{r.low[i]:.0f} to {r.high[i]:.0f}" if np.isfinite([r.low[i], r.high[i]]).all() else NONE
        loss = [formatted(losses.get(r.names[i]), ".4f")] if given else []
        wins = [NONE if i == j or not r.votes[i, j] else _rate(one, i, j) for j in order]
        numbers = [f"<b>{r.rating[i]:.0f}</b>", span, f"{r.points[i].sum():g}", f"{r.votes[i].sum():.0f}"]
        cells.append([escape(r.names[i]), *numbers, *loss, *wins])
    notes = [
        f"The question: {asked} Ties: {in_percent(one.ties)}; both bad: {in_percent(one.bad)}; each gives half a point "
        "to either side.",
        _agreed(one),
    ]
    if one.correlation:
        notes.append(_correlated(one.correlation))
    return widgets.section(one.question.capitalize(), header, cells, *notes)


def _rate(one: Asked, i: int, j: int) -> str:
    r = one.ratings
    return f"{r.rate[i, j]:.0%}" + widgets.small(f"{r.rate_low[i, j]:.0%} to {r.rate_high[i, j]:.0%}")


def _agreed(one: Asked) -> str:
    found = one.agreement
    if not found.units:
        return "Agreement of raters: no pair was judged by two of them."
    span = f" (95 % {found.low:.2f} to {found.high:.2f})" if math.isfinite(found.low) else ""
    alpha = f"{found.alpha:.2f}{span}" if math.isfinite(found.alpha) else "not defined, all votes being the same"
    return (
        f"Agreement of raters, over {found.units} pairs that two or more judged: Krippendorff's alpha {alpha}; 1 is "
        f"full agreement, 0 is chance. Two raters said the same of {found.same:.0%}."
    )


def _correlated(found: Correlation | str) -> str:
    if isinstance(found, str):
        return f"No correlation with the validation loss: {found}."
    note = " " + found.note if found.note else ""
    return (
        f"Spearman's correlation of rating and validation loss over {found.n} models: {found.text}; in SD3's Fig. 8 a "
        f"lower loss goes with a higher rating.{note}"
    )


def _raters(findings: Findings) -> str:
    everyone = [findings.everyone] if len(findings.raters) > 1 else []
    cells = [
        [escape(one.name), f"{one.votes:,}", _cell(one.same), _cell(one.left), _cell(one.neither), f"{one.seconds:.1f}"]
        for one in (*findings.raters, *everyone)
    ]
    header = ["rater", "votes", "same on repeats", "left of right and left", "ties and both bad", "median seconds"]
    return widgets.section(
        "Raters", header, cells,
        "Repeats are pairs that came a second time with sides swapped: the same answer is the same model, tie or both "
        "bad. Sides were random, so that left should be near one half. Wilson's 95 % intervals below.",
    )  # fmt: skip


def _cell(found: Share) -> str:
    if not found.of:
        return NONE
    return f"{found.value:.0%}" + widgets.small(f"{found.low:.0%} to {found.high:.0%}, of {found.of}")


def _method(findings: Findings, command: str) -> str:
    lines = [widgets.note(resolution(one)) for one in findings.asked if one.votes]
    drawn = sorted({one.ratings.resampled for one in findings.asked} - {""})
    spans = (
        f"95 % intervals: those of ratings resample whole {' or '.join(drawn) or 'prompts'}; those of win rates (the "
        "row's model against the column's) are at each end the wider of Wilson's and the resamples'."
    )
    told = (
        "Ratings: Bradley-Terry strengths by maximum likelihood, 1000 + 400 / ln 10 times the strength; 100 more "
        "mean 64 % of the points, 200 mean 76 %. ± 5 points of a win rate take some 380 independent votes a pair, ± 3 "
        "some 1,060; votes on one prompt are not independent, so more prompts tell more than more raters."
    )
    return (
        f"<h2>What this many votes can tell</h2>{''.join(lines)}{widgets.note(told)}{widgets.note(spans)}"
        f"<h2>How this was made</h2><pre>{escape(command)}</pre>"
    )


def _order(one: Asked) -> list[int]:
    """The models of a question, the highest rating first."""
    return sorted(range(len(one.ratings.names)), key=lambda i: (-one.ratings.rating[i], one.ratings.names[i]))
