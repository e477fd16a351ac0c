"""The comparison of designs on the page of a scaling study: the box, tables, figure, CSV and printed lines."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from rfjax.analysis.compare import AtTarget, Pair
from rfjax.analysis.contrasts import Contrast
from rfjax.study.reports.drawing import TWO_PANELS, Figures, finish, log_ticks
from rfjax.study.reports.scaling_compare import Comparison, at_rungs, percent, sentence, span
from rfjax.study.reports.widgets import Tables, escape, formatted, note, section, two_lines, verdict

COLUMNS = (
    "kind", "a", "b", "place", "x_b", "loss_a", "loss_b", "log_difference", "half_95", "seeds", "flops_a_over_b",
    "compute", "compute_low", "compute_high", "size", "size_low", "size_high", "seeds_that_would_tell",
)  # fmt: skip
MULTIPLIER = "compute of A over compute of B"
MOST = 1e4  # multipliers beyond this are drawn at the edge


def box(found: Comparison) -> str:
    """The verdict on every pair."""
    if not found.pairs:
        return verdict("open", escape("No two designs can be compared: the warnings say why."))
    kind = "good" if all(p.target and p.target.clear for p in found.pairs) else "open"
    said = [f"<b>{escape(sentence(p, found.x))}</b> {escape(at_rungs(p))}" for p in found.pairs]
    return verdict(kind, *said)


def lines(found: Comparison) -> list[str]:
    """What the terminal shows."""
    laws = [f"{d.name}: {d.fit.text if d.fit else d.reason}" for d in found.designs]
    return [f"Designs by {found.axis}:", *laws, *(f"{sentence(p, found.x)} {at_rungs(p)}" for p in found.pairs), ""]


def tables(found: Comparison) -> Tables:
    """compare.csv: each pair at each rung, at the target, and along the course of sizes."""
    return {"compare": (COLUMNS, [row for pair in found.pairs for row in _rows(pair)])}


def _rows(pair: Pair) -> list[Sequence[Any]]:
    rows: list[Sequence[Any]] = []
    for rung in pair.rungs:
        along = rung.at_loss.at_end or (None, None, None)
        of = rung.difference
        rows.append(
            ("rung", pair.a, pair.b, rung.name, rung.x_b, rung.loss_a, rung.loss_b, of.value, _known(of.half),
             rung.seeds, rung.flops, *along, "", "", "", "")
        )  # fmt: skip
    found = [("target", pair.target)] if pair.target else []
    for kind, one in (*found, *(("size", one) for one in pair.course)):
        rows.append(
            (kind, pair.a, pair.b, "", one.x, "", one.loss, one.same.value, _known(one.same.half), "", 1.0,
             *map(_known, (*one.compute, *one.size)), "" if one.seeds is None else one.seeds)
        )  # fmt: skip
    return rows


def _known(value: float | None) -> float | str:
    return value if value is not None and math.isfinite(value) else ""


def sections(found: Comparison) -> list[str]:
    """The tables of the page."""
    first = found.designs[0].name if found.designs else ""
    return [
        f"<h2>Designs: {escape(found.axis)}</h2>"
        + note(
            f"Each design has a ladder and a law of its own. All other parts of this page are of the first, {first}, "
            "alone, but for the list of runs."
        ),
        _at_target(found),
        _at_each_rung(found),
        _laws(found),
    ]


def _cell(of: Contrast) -> str:
    half = of.half
    ends = f" ({percent(of.value - half)} to {percent(of.value + half)})" if math.isfinite(half) else ""
    return percent(of.value) + ends


def _at_target(found: Comparison) -> str:
    rows = []
    for pair in found.pairs:
        one = pair.target
        if one is None:
            rows.append([escape(pair.a), escape(pair.b), *[""] * 6, escape(pair.reason)])
            continue
        told = "clear" if one.clear else "more than 99" if one.seeds is None else str(one.seeds)
        rows.append(
            [escape(pair.a), escape(pair.b), f"{one.x:.4g}", f"{one.beyond:.3g}", f"{one.loss:.4f}",
             span(*one.compute), span(*one.size), _cell(one.same), told]
        )  # fmt: skip
    return section(
        "At the target",
        ["A", "B", f"B's {found.x} at the target", "times its largest rung", "B's loss there", MULTIPLIER,
         f"{found.x} of A over B", "B's loss off A's at equal compute", "seeds a rung that would tell"], rows,
        "A multiplier is what A needs for the loss of B's law at the target, over what B needs: above 1, B is better. "
        "FLOPs are those that each run counted, between and beyond rungs in straight lines of logarithms. Intervals of "
        "95 % (Fieller) are of the difference: seeds and triples of both designs are paired. They suppose that both "
        "laws are right. A target beyond the ladders is extrapolated by both.",
    )  # fmt: skip


def _at_each_rung(found: Comparison) -> str:
    rows = []
    for pair in found.pairs:
        for rung in pair.rungs:
            along = rung.at_loss.at_end
            rows.append(
                [escape(pair.a), escape(pair.b), escape(rung.name), f"{rung.loss_a:.4f}", f"{rung.loss_b:.4f}",
                 _cell(rung.difference), str(rung.seeds), f"{rung.flops:.3f}",
                 two_lines(along, ".3g") if along else escape(rung.at_loss.note)]
            )  # fmt: skip
    return section(
        "At each rung",
        ["A", "B", "rung", "loss of A", "loss of B", "B off A (95 %)", "seeds of both", "FLOPs of A over B",
         "compute of A over B at equal loss along the runs"], rows,
        "Losses are geometric means over seeds. Intervals of the difference are over seeds, pooled over the rungs, and "
        "over triples, both paired. The last column reads both curves of validation loss where the slower design ends "
        "(Student's t over seeds); it takes a checkpoint for the end of a shorter run, which holds where the learning "
        "rate is not brought down.",
    )  # fmt: skip


def _laws(found: Comparison) -> str:
    rows = [
        [escape(d.name), escape(d.fit.text if d.fit else d.reason), formatted(d.fit and d.fit.aicc, ".1f", "")]
        for d in found.designs
    ]
    return section(
        "Laws of the designs", ["design", f"{found.law} of {found.x}, all rungs", "AICc"], rows,
        "Fitted to log losses with the number of seeds as weights, whatever config.study.objective says.",
    )  # fmt: skip


def figures(found: Comparison) -> Figures:
    """The ladders with their laws, and the multipliers against size."""
    if not found.designs:
        return {}
    return {"compare": (f"Designs by {found.axis}", draw(found))}


def draw(found: Comparison) -> Figure:
    """Left: loss against compute, a mark a seed; right: the compute multiplier against B's size."""
    figure, (left, right) = plt.subplots(1, 2, figsize=TWO_PANELS)
    shades = dict(zip((d.name for d in found.designs), plt.cm.tab10.colors * 10, strict=False))
    reach = max((p.target.beyond for p in found.pairs if p.target), default=1.0)
    for d in found.designs:
        for rung in d.rungs:
            left.plot([rung.flops] * len(rung.losses), rung.losses.values(), "o", ms=4, color=shades[d.name], alpha=0.7)
        left.plot([], [], "o-", color=shades[d.name], label=d.name)
        if d.fit:
            x = np.geomspace(d.rungs[0].x, d.rungs[-1].x * max(reach, 1.0), 100)
            left.plot(d.flops(x), d.fit.predict(x).value, "-", color=shades[d.name], lw=1.3)
    finish(left, "training FLOPs", "validation loss, a mark a seed")
    for i, pair in enumerate(found.pairs):
        _draw_pair(right, pair, plt.cm.tab10.colors[(i + len(found.designs)) % 10])
    right.axhline(1, color="black", lw=0.8)
    finish(right, f"{found.x} of B (line: by the laws; marks: at equal loss along the runs)", MULTIPLIER)
    if right.get_ylim()[1] / right.get_ylim()[0] > 100:
        log_ticks(right.yaxis, "%g", (1,))
    return figure


def _draw_pair(axes: Any, pair: Pair, colour: Any) -> None:
    label = f"A {pair.a}, B {pair.b}"
    course: Sequence[AtTarget] = [one for one in pair.course if math.isfinite(one.compute.value)]
    if course:
        x = [one.x for one in course]
        low, high = (np.clip([getattr(one.compute, end) for one in course], 1 / MOST, MOST) for end in ("low", "high"))
        value = np.array([one.compute.value for one in course])
        axes.plot(x, value, "-", color=colour, lw=1.5, label=label)
        room = 3 * max(value.max(), 1 / value.min())
        axes.fill_between(x, np.maximum(low, 1 / room), np.minimum(high, room), color=colour, alpha=0.15, lw=0)
        label = ""
    for rung in pair.rungs:
        if along := rung.at_loss.at_end:
            ends = None if along.low is None else [[along.value - along.low], [along.high - along.value]]
            axes.errorbar(rung.x_b, along.value, yerr=ends, fmt="D", ms=4, capsize=2, lw=1, color=colour, label=label)
            label = ""
