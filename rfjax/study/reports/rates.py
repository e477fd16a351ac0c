"""Learning rates in a comparison: where a study swept them, each contestant is judged at its best one."""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rfjax.study.records import Records, RunRecord
from rfjax.study.reports import page

AXIS = "optimizer.learning_rate"


@dataclass(frozen=True)
class Sweep:
    """The rates of one contestant on one data set.

    Attributes:
        losses: rate -> validation loss at the end, the mean over its complete runs; NaN where it has none.
        best: the rate with the lowest, or None. flops: of all its runs, what the choice cost.
    """

    who: str
    dataset: str
    losses: dict[float, float]
    best: float | None
    flops: float

    @property
    def at_edge(self) -> bool:
        return self.best in (min(self.losses), max(self.losses))

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return vars(self) | {"losses": {r: loss if math.isfinite(loss) else None for r, loss in self.losses.items()}}


@dataclass(frozen=True)
class Rates:
    """The rates of a study.

    Attributes:
        rungs: the runs at the chosen rates: all, where nothing was swept. sweeps: those who were given several rates.
        used: all rates of `rungs`, ascending. warnings: sentences.
    """

    rungs: tuple[RunRecord, ...]
    sweeps: tuple[Sweep, ...]
    used: tuple[float, ...]
    warnings: tuple[str, ...]


def rate(rung: RunRecord) -> float:
    """The peak learning rate of a run of depth 1."""
    return float(rung.config["optimizer"]["learning_rate"])


def choose(records: Records, who: Callable[[RunRecord], str], weights: str) -> Rates:
    """Of each contestant's rates on each data set the one with the lowest validation loss.

    That loss is comparable among the rates of one contestant, whatever it predicts, and it is not what contestants are
    ranked by. Rates that lack some of the seeds of the others are not chosen.

    Args:
        who: whom a run belongs to. weights: whose loss.

    Returns:
        All runs, where `optimizer.learning_rate` is no axis of the study.
    """
    if AXIS not in (records.config["study"].get("axes") or {}):
        return Rates(records.rungs, (), tuple(sorted({rate(rung) for rung in records.rungs})), ())
    groups: dict[tuple[str, str], dict[float, list[RunRecord]]] = {}
    for rung in records.rungs:
        groups.setdefault((who(rung), rung.dataset), {}).setdefault(rate(rung), []).append(rung)
    kept, sweeps, said = [], [], []
    for (name, dataset), by_rate in groups.items():
        if len(by_rate) == 1:
            kept += next(iter(by_rate.values()))
            continue
        ends = {r: [end["loss"] for rung in found if (end := rung.final(weights))] for r, found in by_rate.items()}
        most = max(map(len, ends.values()))
        losses = {r: float(np.mean(ends[r])) if ends[r] else math.nan for r in sorted(ends)}
        able = [r for r in losses if most and len(ends[r]) == most]
        best = min(able, key=losses.__getitem__, default=None)
        kept += by_rate.get(best, [])
        everything = [line["flops"] for found in by_rate.values() for rung in found for line in rung.train[-1:]]
        sweep = Sweep(name, dataset, losses, best, float(sum(everything)))
        sweeps.append(sweep)
        out = [f"{r:g}" for r in losses if r not in able]
        if best is None:
            said.append(f"{name} on {dataset}: none of its learning rates has a complete run yet: it is left out.")
        elif out:
            said.append(f"{name} on {dataset}: not all runs at the learning rate {', '.join(out)} have a final loss.")
        if best is not None and sweep.at_edge:
            said.append(f"{name} on {dataset}: the best learning rate, {best:g}, is at the edge of those tried.")
    return Rates(tuple(kept), tuple(sweeps), tuple(sorted({rate(rung) for rung in kept})), tuple(said))


def table(sweeps: Sequence[Sweep], label: Callable[[str], str]) -> str:
    """The final loss of each rate, the chosen ones in bold, and what the sweep cost."""
    if not sweeps:
        return ""
    tried = sorted({r for sweep in sweeps for r in sweep.losses})
    rows = []
    for sweep in sweeps:
        cells = {r: f"{loss:.4f}" if math.isfinite(loss) else "no final loss" for r, loss in sweep.losses.items()}
        shown = [f"<b>{cells[r]}</b>" if r == sweep.best else cells.get(r, "–") for r in tried]
        rows.append([html.escape(label(sweep.who)), html.escape(sweep.dataset), *shown, f"{sweep.flops:.2g}"])
    return (
        "<h2>Learning rates</h2>"
        + page.table(["", "data set", *(f"{r:g}" for r in tried), "FLOPs of all"], rows)
        + page.note(
            "The validation loss at the end of each rate, the mean over seeds; in bold the lowest, at which the row "
            "stands in this comparison. Losses compare along a row only. FLOPs: of all runs of a row."
        )
    )
