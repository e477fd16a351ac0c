"""fits.json: every fit of a scaling study as a record, with what it is of, what it supposes, and what it leaves out."""

from typing import Any

from rfjax.analysis.fit import plain
from rfjax.study.reports import caveats, levels
from rfjax.study.reports.trends import Findings

WHOLE, JUDGED, SURFACE = "validation loss, mean over levels", "held-out rungs left out", "checkpoints along the runs"


def records(findings: Findings) -> list[dict[str, Any]]:
    """The laws without the held-out rungs, then with all; L(N, D); then the law at each level.

    Where there is no fit, one record with "law": null says why, and which runs are no part of it.
    """
    common = {
        "offset_means": caveats.on_offset(findings.points, findings.study),
        "intervals_suppose": caveats.INTERVALS,
        "seeds": caveats.on_seeds(findings.points, findings.ladder.spread),
        "no_part_of_it": plain(findings.ladder.lost),
    }
    made = [{"of": WHOLE, "rungs": JUDGED, **common, **fit.record()} for fit in findings.judged.values()]
    made += [
        {"of": WHOLE, "rungs": "all", **common, **fit.record(), "checks": plain(findings.checks[law])}
        for law, fit in findings.whole.items()
    ]
    if not made:
        made.append({"of": WHOLE, "law": None, "reason": findings.reason, **common})
    if findings.surface is not None:
        made.append({"of": WHOLE, "rungs": SURFACE, "intervals_suppose": caveats.INTERVALS} | findings.surface.record())
    for row in findings.levels:
        if row.fit is not None and row.name != levels.WHOLE:
            of = f"validation loss, {row.name}"
            made.append({"of": of, "rungs": JUDGED, "floor": row.floor, **common, **row.fit.record()})
    return made
