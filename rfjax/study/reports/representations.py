"""The report of hidden states: CKNNA and probe accuracy by block, noise level and step (REPA Figs. 2 and 3)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rfjax.analysis.binomial import share_interval
from rfjax.study.records import Records, RunRecord
from rfjax.study.reports import compare
from rfjax.study.reports.page import Report
from rfjax.study.reports.representations_figures import figures, short
from rfjax.study.reports.widgets import NONE, Tables, escape, formatted, headline, section

PROBE = "probe accuracy"


@dataclass(frozen=True)
class Curve:
    """One run's values of one quantity at one noise level.

    Attributes:
        run: its name.
        quantity: the name of an encoder, for CKNNA; PROBE for the probe's accuracy.
        t: the noise level.
        steps: ascending.
        values: step -> the value of each block.
        count: test examples, of an accuracy; 0 for CKNNA.
        block: at which it is followed along training, counted from 1.
        aligned: whether that block is aligned with an encoder by training.
    """

    run: str
    quantity: str
    t: float
    values: Mapping[int, Sequence[float]]
    count: int
    block: int
    aligned: bool

    @property
    def steps(self) -> tuple[int, ...]:
        return tuple(sorted(self.values))

    @property
    def last(self) -> Sequence[float]:
        """The values of all blocks at the last step."""
        return self.values[self.steps[-1]]

    @property
    def best(self) -> int:
        """The block of the largest value at the last step; 1 where none is finite."""
        return 1 + max(range(len(self.last)), key=lambda i: self.last[i] if math.isfinite(self.last[i]) else -math.inf)

    def interval(self, value: float) -> tuple[float, float]:
        """Of an accuracy, over the test examples."""
        return share_interval(value, self.count)


@dataclass(frozen=True)
class Findings:
    """All that the report says.

    Attributes:
        curves: of each run, quantity and level, in this order.
        weights: that were measured.
        about: how: neighbours, examples and so on, in words.
        chance: accuracy of guessing one of the classes; NaN where there is no probe.
    """

    curves: tuple[Curve, ...]
    weights: str
    about: str
    chance: float
    warnings: tuple[str, ...]

    @property
    def quantities(self) -> tuple[str, ...]:
        """The encoders, then the probe."""
        names = dict.fromkeys(curve.quantity for curve in self.curves if curve.quantity != PROBE)
        return (*names, *([PROBE] if any(curve.quantity == PROBE for curve in self.curves) else []))

    @property
    def levels(self) -> tuple[float, ...]:
        return tuple(sorted({curve.t for curve in self.curves}))

    def of(self, quantity: str, t: float) -> list[Curve]:
        """The runs' curves."""
        return [curve for curve in self.curves if (curve.quantity, curve.t) == (quantity, t)]


def analyse(study: Records) -> Findings:
    """Gathers the lines of all runs."""
    warnings, lines = study.states(), [line for run in study.runs for line in run.representations]
    kinds = {line["weights"] for line in lines}
    wanted = study.config["study"]["weights"]
    weights = wanted if wanted in kinds or not kinds else min(kinds)
    if len({_how(line) for line in lines}) > 1:
        warnings.append("Lines were measured in several ways: " + "; ".join(sorted({_how(line) for line in lines})))
    aligned = {run.depth: block for run in study.runs if (block := aligned_block(run.config))}
    curves = [curve for run in study.runs for curve in _curves(run, weights, aligned)]
    order = list(dict.fromkeys(curve.run for curve in curves))
    curves.sort(key=lambda curve: (order.index(curve.run), curve.quantity == PROBE, curve.quantity, curve.t))
    classes = [line["classes"] for line in lines if line.get("classes")]
    about = _how(lines[-1]) if lines else "nothing is measured yet"
    return Findings(tuple(curves), weights, about, 1 / max(classes) if classes else math.nan, tuple(warnings))


def _how(line: Mapping[str, Any]) -> str:
    """How a line was measured, in words."""
    said = f"{line['count']:,} validation pictures"
    if line["cknna"]:
        said += f"; CKNNA of {line.get('k')} neighbours, {line.get('variant')}"
    if "accuracy" in line:
        trained, classes = line.get("trained_on") or 0, line.get("classes")
        said += f"; probe {line.get('probe')}, {trained:,} training pictures, {classes} classes"
    return said


def aligned_block(config: Mapping[str, Any]) -> int:
    """The block that training aligns with an encoder, counted from 1; 0: none."""
    asked = config.get("alignment") or {}
    if not asked.get("encoders") or not asked.get("weight"):
        return 0
    return asked.get("block") or max(round(config["model"]["depth"] / 3), 1)


def _curves(run: RunRecord, weights: str, aligned: Mapping[int, int]) -> Iterable[Curve]:
    """A run's curves; all are followed at the block that some run of this depth aligns, else at their own best."""
    found: dict[tuple[str, float], dict[int, Sequence[float]]] = {}
    count = 0
    for line in run.representations:
        if line["weights"] != weights:
            continue
        values = {**line["cknna"], **({PROBE: line["accuracy"]} if "accuracy" in line else {})}
        count = line["count"]
        for quantity, blocks in values.items():
            if len(blocks) == run.depth:
                found.setdefault((quantity, line["t"]), {})[line["step"]] = blocks
    block, own = aligned.get(run.depth, 0), bool(aligned_block(run.config))
    for (quantity, t), values in found.items():
        number = count if quantity == PROBE else 0
        curve = Curve(run.name, quantity, t, values, number, block, own)
        yield curve if block else Curve(run.name, quantity, t, values, number, curve.best, own)


def to_json(found: Findings) -> dict[str, Any]:
    """The findings as plain JSON."""
    return {
        "weights": found.weights,
        "about": found.about,
        "chance": found.chance,
        "curves": [
            {
                "run": curve.run,
                "quantity": curve.quantity,
                "t": curve.t,
                "block": curve.block,
                "aligned": curve.aligned,
                "best_block": curve.best,
                "values": curve.values,
            }
            for curve in found.curves
        ],
        "warnings": found.warnings,
    }


def tables(study: Records, found: Findings) -> Tables:
    """representations.csv: every value."""
    rows = [
        (curve.run, found.weights, curve.quantity, curve.t, step, block, value, *_ends(curve, value))
        for curve in found.curves
        for step in curve.steps
        for block, value in enumerate(curve.values[step], 1)
    ]
    return {"representations": (("run", "weights", "quantity", "t", "step", "block", "value", "low", "high"), rows)}


def _ends(curve: Curve, value: float) -> tuple[float | str, float | str]:
    return curve.interval(value) if curve.count else ("", "")


def subtitle(study: Records) -> str:
    """What was measured of what."""
    c = study.runs[0].config if study.runs else study.config
    return (
        f"Hidden states of every block (REPA Figs. 2 and 3): {c['model']['backbone']} as {c['flow']['formulation']} on "
        f"{compare.dataset_name(c)}"
    )


def opening(study: Records, found: Findings) -> str:
    """Where each quantity is highest."""
    said = [_highest(found, quantity) for quantity in found.quantities] or ["Nothing is measured yet."]
    said.append("In the paper, SiT-XL/2 after 7M steps agrees most with DINOv2-g near block 20 of 28.")
    return headline(said, 0)


def _highest(found: Findings, quantity: str) -> str:
    curves = [curve for curve in found.curves if curve.quantity == quantity]
    top = max(curves, key=lambda curve: _known(curve.last[curve.best - 1]))
    value = top.last[top.best - 1]
    label = PROBE[0].upper() + PROBE[1:] if quantity == PROBE else f"CKNNA with {short(quantity)}"
    text = f"{label} is highest in {top.run}, after block {top.best} of {len(top.last)} at t = {top.t:g}: "
    return text + (_percent(top, value) if top.count else f"{value:.3f}") + "."


def _known(value: float) -> float:
    return value if math.isfinite(value) else -math.inf


def _percent(curve: Curve, value: float) -> str:
    if not math.isfinite(value):
        return "not known"
    low, high = curve.interval(value)
    return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def lines(study: Records, found: Findings) -> list[str]:
    """What the terminal shows at the end."""
    said = []
    for curve in found.curves:
        label = PROBE if curve.quantity == PROBE else f"CKNNA with {short(curve.quantity)}"
        shown = (lambda v, c=curve: _percent(c, v)) if curve.count else lambda v: f"{v:.3f}"
        text = f"{curve.run:>12}  t = {curve.t:<5g} {label}: {shown(curve.last[curve.best - 1])} at block {curve.best}"
        if curve.block != curve.best:
            text += f", {shown(curve.last[curve.block - 1])} at block {curve.block}"
        said.append(text)
    return said


def sections(study: Records, found: Findings) -> list[str]:
    """A table for each quantity: its best block and the followed one, at each level, at the last step."""
    return [_table(found, quantity) for quantity in found.quantities]


def _table(found: Findings, quantity: str) -> str:
    rows = []
    for name in dict.fromkeys(curve.run for curve in found.curves):
        own = {curve.t: curve for curve in found.curves if (curve.run, curve.quantity) == (name, quantity)}
        if not own:
            continue
        first = next(iter(own.values()))
        cells = [cell for t in found.levels for cell in (_cells(own[t]) if t in own else (NONE, NONE))]
        blocks = {curve.block for curve in own.values()}
        block = "own best" if len(blocks) > 1 else f"{first.block}{', aligned' if first.aligned else ''}"
        rows.append([escape(name), str(len(first.last)), f"{first.steps[-1]:,}", block, *cells])
    title = PROBE[0].upper() + PROBE[1:] if quantity == PROBE else f"CKNNA with {short(quantity)}"
    return section(
        title, ["run", "blocks", "step", "followed block", *(["best (block)", "followed"] * len(found.levels))], rows,
        f"Of the {found.weights} weights; {found.about}. The followed block is the one that training aligns in some "
        "run of this depth, else the run's own best at that level. Intervals of accuracies are Wilson's, 95 %, over "
        "the test pictures, which all runs share."
        + (f" Guessing one of the classes finds {100 * found.chance:.1f} %." if quantity == PROBE else ""),
        groups=[("", 4), *((f"t = {t:g}", 2) for t in found.levels)],
    )  # fmt: skip


def _cells(curve: Curve) -> tuple[str, str]:
    shown = (lambda v: _percent(curve, v)) if curve.count else (lambda v: formatted(v, ".3f"))
    return f"{shown(curve.last[curve.best - 1])} ({curve.best})", shown(curve.last[curve.block - 1])


REPORT = Report("representations.json", analyse, to_json, tables, figures, subtitle, opening, sections, lines)
