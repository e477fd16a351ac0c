"""The report of captions: runs alike but for what they read, by skill, beside SD3's Table 4 where it corresponds."""

import math

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from rfjax.analysis.multipliers import Estimate
from rfjax.study.records import Records
from rfjax.study.reports import paper, widgets
from rfjax.study.reports.captions_findings import Arm, Findings, Row, analyse, to_json
from rfjax.study.reports.compare import dataset_name
from rfjax.study.reports.drawing import Figures, colours
from rfjax.study.reports.page import Report
from rfjax.study.reports.widgets import NONE, Tables, escape, section

POINTS = 100  # of a score, in per cent


def tables(study: Records, findings: Findings) -> Tables:
    """scores.csv: each number of each run."""
    rows = [
        (run.name, arm.label, run.seed, *(arm.values.get(row.key, {}).get(run.seed, "") for row in findings.rows))
        for arm in findings.arms
        for run in arm.runs
    ]
    return {"scores": (("run", "arm", "seed", *(row.key for row in findings.rows)), rows)}


def _scores(findings: Findings) -> list[Row]:
    """The rows that are shares of pictures."""
    return [row for row in findings.rows if row.overall or row.key.startswith("part ")]


def figures(study: Records, findings: Findings) -> Figures:
    """The scores by skill of each arm, and the differences from the first arm beside the paper's."""
    rows = _scores(findings)
    if not rows or not any(arm.values for arm in findings.arms):
        return {}
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 0.42 * len(rows) + 1.6), sharey=True)
    places = np.arange(len(rows))
    colour = colours([arm.label for arm in findings.arms])
    step = 0.6 / max(len(findings.arms), 1)
    for number, arm in enumerate(findings.arms):
        _points(left, [arm.mean(row.key) for row in rows], places + number * step, colour[arm.label], arm.label)
    for number, (first, arm) in enumerate(findings.pairs, start=1):
        found = [arm.less(first, row.key) for row in rows]
        _points(right, found, places + number * step, colour[arm.label], f"{arm.label}, less {first.label}")
    if findings.table_4:
        known = [(place, (row.paper[1] - row.paper[0])) for place, row in zip(places, rows, strict=True) if row.paper]
        right.plot([x for _, x in known], [y for y, _ in known], "D", color="grey", ms=5, label="in the paper")
    right.axvline(0, color="grey", lw=0.8)
    left.set(xlabel="right pictures, %", yticks=places, yticklabels=[row.label for row in rows])
    left.set_xlim(left=0)
    right.set_xlabel("difference, points")
    left.invert_yaxis()
    for axes in (left, right):
        handles, names = axes.get_legend_handles_labels()
        if names:
            axes.legend(
                handles, names, fontsize=8, loc="upper left", bbox_to_anchor=(0, 1.0 + 0.055 * (len(names) + 1))
            )
    return {"skills": ("Scores by skill, with 95 % intervals over seeds", figure)}


def _points(
    axes: Axes, found: list[Estimate | None], places: np.ndarray, colour: tuple[float, ...], label: str
) -> None:
    known = [(place, one) for place, one in zip(places, found, strict=True) if one]
    values = [POINTS * one.value for _, one in known]
    spans = [0.0 if one.low is None else POINTS * (one.value - one.low) for _, one in known]
    axes.errorbar(
        values, [place for place, _ in known], xerr=spans, fmt="o", ms=5, capsize=3, color=colour, label=label
    )


def subtitle(study: Records) -> str:
    """What was trained on what."""
    c = study.runs[0].config if study.runs else study.config
    return (
        f"{c['model']['backbone']} of depth {c['model']['depth']} on {dataset_name(c)}, alike but for what is read: "
        f"batch {c['training']['batch']}, {c['training']['steps']:,} steps; {study.config['study']['weights']} weights"
    )


def opening(study: Records, findings: Findings) -> str:
    """The headline: green where every overall score is higher, its interval too; red where all are lower."""
    found = [arm.less(first, row.key) for first, arm in findings.pairs for row in findings.overall]
    sign = next((sign for sign in (1, -1) if found and all(_clear(one, sign) for one in found)), 0)
    return widgets.headline(describe(findings), sign)


def points(estimate: Estimate) -> str:
    """A difference of shares in points, with its interval and its sign."""
    said = f"{POINTS * estimate.value:+.1f} points"
    if estimate.low is None:
        return said
    return f"{said} (95 % {POINTS * estimate.low:+.1f} to {POINTS * estimate.high:+.1f})"


def describe(findings: Findings) -> list[str]:
    """The differences of the overall scores in sentences, then what falls, and what the paper found."""
    said = []
    for first, arm in findings.pairs:
        for row in findings.overall:
            if found := arm.less(first, row.key):
                both = [f"{POINTS * mean.value:.1f} %" for one in (first, arm) if (mean := one.mean(row.key))]
                seeds = len(set(first.values[row.key]) & set(arm.values[row.key]))
                name = f"{row.label[0].upper()}{row.label[1:]} score"
                of = f"{seeds} paired seed{'s' * (seeds > 1)}"
                said.append(
                    f"{name}, {arm.label} against {first.label}: {points(found)}, {' from '.join(both[::-1])}; {of}."
                )
        for verb, sign in (("clearly higher", 1), ("clearly lower", -1)):
            names = [
                row.label for row in _scores(findings) if not row.overall and _clear(arm.less(first, row.key), sign)
            ]
            if names:
                said.append(f"{verb.capitalize()} with {arm.label}: {', '.join(names)}.")
    if not said:
        return ["There are no two arms with scores and a common seed yet: there is nothing to compare."]
    if findings.table_4:
        before, after = paper.TABLE_4["overall"]
        said.append(
            f"In the paper: {after - before:+.1f} points, {after:g} % from {before:g} %; single object and colours "
            "fell, the other skills rose."
        )
    return said


def _clear(found: Estimate | None, sign: int) -> bool:
    """Whether a difference has this sign within its whole interval."""
    return found is not None and found.low is not None and min(sign * found.low, sign * found.high) > 0


def lines(study: Records, findings: Findings) -> list[str]:
    """What the terminal shows at the end."""
    width = max((len(row.label) for row in findings.rows), default=0)
    said = []
    for row in findings.rows:
        ends = [f"{mean.text(row.form):>26}" if (mean := arm.mean(row.key)) else f"{NONE:>26}" for arm in findings.arms]
        said.append(f"{row.label:>{width}}  {'  '.join(ends)}")
    return [" | ".join(arm.label for arm in findings.arms), *said, "", *describe(findings)]


def sections(study: Records, findings: Findings) -> list[str]:
    """The tables below the figures, and pictures of the first seed of each arm."""
    shown = {escape(arm.label): arm.runs[0] for arm in findings.arms}
    return [_skills(findings), _arms(findings), widgets.samples(shown, findings.weights, "Pictures"), _runs(findings)]


def _skills(findings: Findings) -> str:
    rows = []
    for row in findings.rows:
        cells = [widgets.two_lines(mean, row.form) if (mean := arm.mean(row.key)) else NONE for arm in findings.arms]
        for first, arm in findings.pairs:
            found = arm.less(first, row.key)
            text = NONE if found is None else widgets.two_lines(found, f"+{row.form}")
            better = 1 if row.better == "higher" else -1
            cells.append(f"<b>{text}</b>" if _clear(found, better) else text)
        name = f"<b>{escape(row.label)}</b>" if row.overall else escape(row.label)
        rows.append([name, *cells, *(_of_paper(row) if findings.table_4 else [])])
    less = [f"{arm.label}, less {first.label}" for first, arm in findings.pairs]
    theirs = ["original", "50/50", "difference"] if findings.table_4 else []
    header = ["", *(arm.label for arm in findings.arms), *less, *theirs]
    beside = (
        "The paper: GenEval in per cent of two MM-DiTs of depth 15 after 250,000 steps, with original captions and "
        f"with half of them CogVLM's ({paper.SOURCE}, Table 4). The skills are the same: colour attribution is "
        "GenEval's Color Attribution, colours its Colors, two objects its Two Objects. The other rows have none there."
    )
    return section(
        "By skill", header, rows,
        "At the last step: the mean over seeds and its 95 % interval (Student t). Differences are those of the same "
        "seeds, and bold where the whole interval is an improvement. A score is the share of pictures that show what "
        "their caption says, the overall one the mean over its skills. All runs draw pictures for the same whole "
        "captions from the same noise, and have the validation loss of the same whole captions.",
        *([beside] if findings.table_4 else []),
        groups=[("", 1), ("here", len(header) - 1 - len(theirs)), ("in the paper, %", len(theirs))] if theirs else (),
    )  # fmt: skip


def _of_paper(row: Row) -> list[str]:
    if not row.paper:
        return [NONE] * 3
    before, after = row.paper
    return [f"{before:.2f}", f"{after:.2f}", f"{after - before:+.2f}"]


def _arms(findings: Findings) -> str:
    colour = colours([arm.label for arm in findings.arms])
    rows = []
    for arm in findings.arms:
        name = widgets.dotted(escape(arm.label), to_hex(colour[arm.label]))
        rows.append([name, f"{len(arm.values.get('loss', {}))} of {len(arm.runs)}", *_counted(arm)])
    header = ["arm", "complete runs", "synthetic captions", "original captions", "share of synthetic ones"]
    return section(
        "Arms",
        header,
        rows,
        "Captions as the runs counted them in training, all seeds together. Runs of a share of 0 count none.",
    )


def _counted(arm: Arm) -> list[str]:
    if not arm.counts:
        return [NONE] * 3
    synthetic, original = arm.counts
    share = f"{synthetic / (synthetic + original):.3f}" if synthetic + original else NONE
    return [f"{synthetic:,}", f"{original:,}", share]


def _runs(findings: Findings) -> str:
    rows = []
    for arm in findings.arms:
        for run in arm.runs:
            ends = [arm.values.get(row.key, {}).get(run.seed, math.nan) for row in findings.overall]
            loss = arm.values.get("loss", {}).get(run.seed, math.nan)
            cells = [*(widgets.formatted(end, ".3f") for end in ends), widgets.formatted(loss, ".4f")]
            state = [escape(run.name), escape(arm.label), str(run.seed), escape(run.state)]
            rows.append([*state, *cells, f"{run.seconds:.0f}"])
    names = [row.label for row in findings.overall]
    return section("Runs", ["run", "arm", "seed", "state", *names, "validation loss", "seconds"], rows)


REPORT = Report("captions.json", analyse, to_json, tables, figures, subtitle, opening, sections, lines)
