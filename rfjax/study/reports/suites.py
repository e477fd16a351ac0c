"""The report of the job `suite`: scores by skill with intervals, the protocol beside them, and SD3's Table 5."""

import base64
import io

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from rfjax.study import suite_files
from rfjax.study.records import Records
from rfjax.study.reports import suites_paper
from rfjax.study.reports.drawing import Figures
from rfjax.study.reports.page import Report
from rfjax.study.reports.suites_findings import GENEVAL, Findings, Row, analyse, to_json
from rfjax.study.reports.widgets import NONE, Tables, escape, headline, note, section, small, table

SHOWN, TILE = 6, 128  # prompts of the page's sample grid, and its pictures' longer side in pixels
PROTOCOL = {  # of suite.json, as the page calls it
    "source": "model",
    "weights": "weights",
    "step": "training step",
    "formulation": "formulation",
    "sampler": "sampler",
    "steps": "steps",
    "guidance": "guidance",
    "grid": "schedule",
    "shift": "shift",
    "seed": "seed",
    "per_prompt": "pictures a prompt",
}


def tables(study: Records, found: Findings) -> Tables:
    """suites.csv: the scores."""
    header = ("skill", "score", "pictures", "prompts", "low", "high", "wilson_low", "wilson_high")
    rows = [
        (row.skill, row.clustered.value, row.pictures, row.prompts, *_ends(row.clustered[1:]), *_ends(row.wilson))
        for row in (*found.rows, *found.given)
    ]
    if found.overall:
        rows.append(("overall", found.overall.value, "", found.prompts, *_ends(found.overall[1:]), "", ""))
    return {"suites": (header, rows)}


def _ends(span: tuple[float | None, ...] | None) -> tuple[float | str, ...]:
    return tuple("" if end is None else end for end in span or (None, None))


def figures(study: Records, found: Findings) -> Figures:
    """The scores by skill with their intervals; for GenEval, the best and the smallest model of Table 5 beside them."""
    rows = found.rows or found.given
    if not rows:
        return {}
    figure, axes = plt.subplots(figsize=(6.4, 0.8 + 0.42 * len(rows)))
    places, scale = np.arange(len(rows)), found.suite.scale
    values = [scale * row.clustered.value for row in rows]
    spans = [(row.clustered[1:] if row.clustered.low is not None else row.wilson) or (np.nan, np.nan) for row in rows]
    errors = [[max(value - scale * low, 0) for value, (low, _) in zip(values, spans, strict=True)]]
    errors += [[max(scale * high - value, 0) for value, (_, high) in zip(values, spans, strict=True)]]
    axes.errorbar(values, places, xerr=np.nan_to_num(np.array(errors)), fmt="o", capsize=3, label="here")
    if found.name == GENEVAL:
        for name, marker in (("SD v1.5", "s"), ("SD3, depth 38, 1024 x 1024, DPO", "D")):
            known = [getattr(suites_paper.TABLE_5[name], row.skill) for row in rows]
            axes.plot(known, places, marker, color="grey", ms=4, label=f"{name} (paper)")
    axes.set(yticks=places, yticklabels=[row.skill.replace("_", " ") for row in rows], xlabel="score")
    axes.set_xlim(left=0)
    axes.invert_yaxis()
    axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3)
    return {"skills": ("Scores by skill, with 95 % intervals", figure)}


def subtitle(study: Records) -> str:
    """Which suite."""
    return f"The prompt suite '{study.config['suite']['name']}' with one model"


def opening(study: Records, found: Findings) -> str:
    """The overall score, or what is still to do."""
    return headline(describe(found), 0)


def describe(found: Findings) -> list[str]:
    """The same in sentences."""
    title, there = found.suite.title, found.pictures if not found.missing else None
    drawn = f"{found.prompts:,} prompts" + (f", {there:,} pictures" if there else "")
    if not found.overall:
        ready = not found.missing
        first = f"{title}: {drawn} are drawn." if ready else f"{title}: not all pictures are drawn yet."
        scoring = found.suite.scoring
        return [first, f"To score them, {scoring}." if found.suite.results else f"Note: {scoring}."]
    said = [
        f"{title}, overall: {_number(found, found.overall.value)}{_span(found, found.overall[1:], ' (95 % ', ')')}."
    ]
    if found.suite.by_skill:
        said.append(
            f"It is the mean of {len(found.rows)} skills' means, and the interval draws prompts within a skill."
        )
    if found.right_prompts is not None:
        said.append(f"{100 * found.right_prompts:.1f} % of the prompts have a right picture among theirs.")
    return [*said, f"{drawn}; {protocol(found)}; judged by the official scorer ({found.path})."]


def protocol(found: Findings) -> str:
    """How the pictures were made, in a line."""
    about = found.about
    if "sampler" not in about:
        return "not drawn here, so the sampler is not known"
    return (
        f"{about['sampler']}, {about['steps']} steps, guidance {about['guidance']:g}, seed {about['seed']}, "
        f"{about['per_prompt']} pictures a prompt"
    )


def _number(found: Findings, value: float) -> str:
    return f"{found.suite.scale * value:.{1 if found.suite.scale > 1 else 3}f}"


def _span(found: Findings, span: tuple[float | None, ...] | None, before: str = "", after: str = "") -> str:
    if not span or span[0] is None:
        return ""
    return f"{before}{_number(found, span[0])} to {_number(found, span[1])}{after}"


def sections(study: Records, found: Findings) -> list[str]:
    """The scores, Table 5, the protocol, and some pictures."""
    return [_scores(found), _table_5(found), _protocol(found), _pictures(study, found)]


def _scores(found: Findings) -> str:
    header = ["skill", "score", "pictures", "prompts", "95 % over prompts", "95 %, Wilson"]
    rows = [_cells(found, row) for row in found.rows]
    if found.overall:
        score = f"<b>{_number(found, found.overall.value)}</b>"
        whole = ["<b>overall</b>", score, "", f"{found.prompts:,}", _span(found, found.overall[1:]) or NONE, NONE]
        rows.append(whole)
    rows += [_cells(found, row) for row in found.given]
    said = (
        "Pictures of one prompt succeed and fail together, so the interval over prompts is the honest one; Wilson's "
        "takes all pictures for independent, as most papers do."
    )
    return section("Scores", header, rows, f"Pictures: {protocol(found)}.", said)


def _cells(found: Findings, row: Row) -> list[str]:
    counts = [f"{row.pictures:,}" if row.pictures else NONE, f"{row.prompts:,}" if row.prompts else NONE]
    score, spans = _number(found, row.clustered.value), (row.clustered[1:], row.wilson)
    return [escape(row.skill.replace("_", " ")), score, *counts, *(_span(found, span) or NONE for span in spans)]


def _table_5(found: Findings) -> str:
    if found.name != GENEVAL or not found.overall:
        return ""
    names = suites_paper.Scores._fields
    own = {row.skill: row.clustered for row in found.rows} | {"overall": found.overall}
    cells = [
        f"<b>{own[name].value:.2f}</b>{small(_span(found, own[name][1:]))}" if name in own else NONE for name in names
    ]
    rows = [["<b>here</b>", *cells]]
    rows += [[escape(name), *(f"{value:.2f}" for value in row)] for name, row in suites_paper.TABLE_5.items()]
    header = ["model", *(name.replace("_", " ") for name in names)]
    return section("Beside the paper's Table 5", header, rows, f"{suites_paper.SOURCE}.", *found.differences)


def _protocol(found: Findings) -> str:
    about = found.about
    rows = [[escape(title), escape(str(about[name]))] for name, title in PROTOCOL.items() if name in about]
    rows += [["width of a picture", f"{found.side} pixels"]] if found.side else []
    rows += [["prompts", f"{found.prompts:,} of {found.suite.prompts:,}"], ["suite", escape(found.suite.source)]]
    return section("Protocol", ["", ""], rows, "Compare scores of equal protocols only.")


def _pictures(study: Records, found: Findings) -> str:
    """The first pictures of the first prompt of each skill."""
    prompts = suite_files.read_prompts(study.folder)
    placed = found.suite.files(prompts, found.pictures // found.prompts)
    chosen = list({one.skill: one.number for one in reversed(prompts)}.values())[::-1]
    chosen = sorted(chosen if len(chosen) > 1 else range(min(SHOWN, len(prompts))))
    rows = []
    for number in chosen:
        tiles = [_tile(study, path) for path in placed[number].pictures[:4]]
        if any(tiles):
            rows.append([escape(prompts[number].text), *tiles, *[""] * (4 - len(tiles))])
    if not rows:
        return ""
    return (
        "<h2>Samples</h2>"
        + table(["prompt", "", "", "", ""], rows, style="pictures")
        + note("The first pictures, none of them chosen.")
    )


def _tile(study: Records, path: str) -> str:
    """A picture as an HTML image; "" where it is not there or can't be read."""
    data = io.BytesIO()
    try:
        with Image.open(study.folder / suite_files.IMAGES / path) as picture:
            picture.thumbnail((TILE, TILE))
            picture.save(data, "PNG")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # Pillow raises all of these
        return ""
    return f"<img alt='' src='data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}'>"


def lines(study: Records, found: Findings) -> list[str]:
    """What the terminal shows at the end."""
    said = describe(found)
    said += [
        f"{row.skill.replace('_', ' '):>16}: {_number(found, row.clustered.value)}"
        f"{_span(found, row.clustered[1:], ' (', ')')}"
        for row in (*found.rows, *found.given)
    ]
    return said


REPORT = Report("suites.json", analyse, to_json, tables, figures, subtitle, opening, sections, lines)
