"""What a contest of formulations says, in sentences: for its page and for the terminal."""

import math
from collections.abc import Mapping

from rfjax import names
from rfjax.study.reports import paper
from rfjax.study.reports.contest import Findings
from rfjax.study.reports.measures import Measure


def headline(findings: Findings) -> list[str]:
    """Who wins here, who wins in the paper, how far the two orders agree."""
    if not findings.columns:
        return ["No ranks yet: no run has left scores."] if not findings.settings else [findings.warnings[-1]]
    column = findings.columns["all"]
    best = " and ".join(findings.winners)
    interval, seeds = column.interval[findings.winners[0]], len(findings.seeds)
    span = " (one seed: what another would change is not known)"
    if interval:
        span = f" (95 % interval over {seeds} seeds {interval[0]:.2f} to {interval[1]:.2f})"
    verb = "has" if len(findings.winners) == 1 else "share"
    first = min(paper.TABLE_1, key=lambda variant: paper.TABLE_1[variant].all)
    here = column.average.get(first)
    stands = (
        "" if here is None or first in findings.winners
        else f" Here it has {here:.2f}, place {list(column.average).index(first) + 1}."
    )  # fmt: skip
    said = [
        f"{best} {verb} the best average rank: {column.average[findings.winners[0]]:.2f}{span} of "
        f"{len(findings.ranked)} variants over {len(column.by_setting)} settings.",
        f"In the paper {first} wins with {paper.TABLE_1[first].all:.2f} of {paper.POOL} variants over {paper.SETTINGS} "
        f"settings.{stands}",
        *rate_sentence(findings),
    ]
    if not findings.agreement:
        return [*said, findings.reason]
    parts = [
        f"{name} {c.value:+.2f} (95 % interval {c.low:+.2f} to {c.high:+.2f})" for name, c in findings.agreement.items()
    ]
    n = findings.agreement["Spearman"].n
    return [*said, f"Our ranks and the paper's correlate, over the {n} variants of both: {', '.join(parts)}."]


def rate_sentence(findings: Findings) -> list[str]:
    """At whose learning rate the variants are compared."""
    kinds = list(dict.fromkeys(names.prediction(variant) for variant in findings.ranked))
    if findings.rates.sweeps:
        return ["Variants whose learning rate was swept are compared at the one with their lowest validation loss."]
    if len(kinds) < 2 or len(findings.rates.used) != 1:
        return []
    return [
        f"One learning rate, {findings.rates.used[0]:g}, serves predictions of {', '.join(kinds)}: configs/formulations"
        ".py has it from rf, so the comparison is at rf's rate, not at each prediction's own (the study :learning_rate "
        "measures those)."
    ]


def grid_sentence(findings: Findings) -> str:
    shown = sorted(findings.grids.items(), key=lambda item: len(item[1]))
    parts = [f"{name} for {', '.join(who)}" for name, who in shown[:-1]]
    whole = f"{shown[-1][0]} for all" if len(shown) == 1 else f"{shown[-1][0]} for the others"
    return f"Grid of sampling times: {'; '.join([*parts, whole])}. "


def floor_of(what: str, found: Mapping[str, Measure]) -> str:
    """The distance of true pictures at the counts of these measurements."""
    floors = dict.fromkeys((m.count, f"{m.floor:.3g}") for m in found.values() if math.isfinite(m.floor))
    shown = ", ".join(f"{floor} for {count} pictures" for count, floor in floors)
    return f"{what} {shown or 'not known, for these scores were made before it was measured'}"
