"""What a comparison of backbones says, in sentences: for the top of the page and for the terminal."""

from rfjax.analysis.multipliers import Estimate
from rfjax.study.reports import paper
from rfjax.study.reports.backbones import Findings, label

NAMED = "95 % interval "


def headline(findings: Findings) -> list[str]:
    """Who ends lowest, who needs least compute, who leads early, and how that compares with the paper."""
    if not findings.ranked:
        return ["No backbone has a complete run with a validation loss yet: there is nothing to compare."]
    return [_lowest(findings), *_least_compute(findings), *_early(findings), *_against_the_paper(findings)]


def _lowest(findings: Findings) -> str:
    best = findings.of(findings.ranked[0])
    said = f"{best.label} ends with the lowest validation loss, {span(best.final['loss'], '.4f', NAMED)}"
    seeds = len(best.complete)
    said += f" over {seeds} seeds" if seeds > 1 else " (one seed)"
    if len(findings.ranked) == 1:
        return f"{said}; no other backbone has a complete run."
    second = findings.ranked[1]
    lead = findings.leads.get((best.name, second))
    if lead is None:
        return f"{said}, before {label(second)}, which has no seed in common with it."
    clear = "" if lead.low is None else ", clearly" if lead.low > 0 else ", not clearly"
    return f"{said}{clear} before {label(second)}: {span(lead, '.4f')} lower."


def _least_compute(findings: Findings) -> list[str]:
    """In FLOPs: the leader against the nearest and against the farthest."""
    if findings.cheapest is None:
        return []
    name, nearest = findings.cheapest
    table = {other: m.at_end for (row, other), m in findings.multipliers["flops"].items() if row == name and m.at_end}
    farthest = max(table, key=lambda other: table[other].value)
    low = table[nearest].low
    clear = "" if low is None else " clearly" if low > 1 else ", though not clearly,"
    said = f"For the same loss {label(name)}{clear} needs the fewest FLOPs: {_times(table[nearest])} fewer than "
    said += label(nearest)
    said += f", {_times(table[farthest])} fewer than {label(farthest)}" if farthest != nearest else ""
    apart = len(findings.ranked) - 1 - len(table)
    return [f"{said}{f' ({apart} more without a common loss)' if apart else ''}."]


def _early(findings: Findings) -> list[str]:
    """The lowest at the first quarter of the steps."""
    found = findings.beginning
    if found is None or len(found.losses) < 2:
        return []
    first, second = list(found.losses)[:2]
    paper_says = f"in the paper {label(paper.FIG_4_FIRST)} learns fastest at first"
    if paper.FIG_4_FIRST in found.losses and first != paper.FIG_4_FIRST:
        place = list(found.losses).index(paper.FIG_4_FIRST) + 1
        paper_says += f"; here it has place {place} of {len(found.losses)}"
    return [
        f"Early, at step {found.step:,} of {found.steps:,}, {label(first)} leads: {found.losses[first]:.4f}, before "
        f"{label(second)}, {found.losses[second]:.4f} ({paper_says})."
    ]


def _against_the_paper(findings: Findings) -> list[str]:
    """The two orders, and how little as few ranks say."""
    both = [name for name in reversed(findings.ranked) if name in findings.places]
    if not both:
        return []
    theirs = [name for name in paper.FIG_4 if name in both]
    order = f"From the highest final loss to the lowest: {_order(both)}; in the paper: {_order(theirs)}."
    if findings.chance is None:
        return [order, findings.reason]
    found = findings.agreement.items()
    shown = ", ".join(f"{name} {c.value:+.2f} (95 % interval {c.low:+.2f} to {c.high:+.2f})" for name, c in found)
    good, whole = findings.chance
    return [
        f"{order} {shown}.",
        f"{len(both)} ranks say little: of their {whole} orders {good} {'agrees' if good == 1 else 'agree'} with the "
        f"paper's at least as well, so chance alone does so {good / whole:.1%} of the time.",
    ]


def _order(names: list[str]) -> str:
    return " > ".join(map(label, names))


def span(estimate: Estimate, form: str, named: str = "") -> str:
    """A mean with its interval in brackets, where it has one; named: what stands before the interval."""
    value = format(estimate.value, form)
    if estimate.low is None:
        return value
    return f"{value} ({named}{format(estimate.low, form)} to {format(estimate.high, form)})"


def _times(estimate: Estimate) -> str:
    span = "" if estimate.low is None else f" ({estimate.low:.2f} to {estimate.high:.2f})"
    return f"{estimate.value:.2f} times{span}"
