"""Which runs of a study may be compared: those whose data were the same, by what each recorded."""

import json
from collections.abc import Iterable
from dataclasses import replace

from rfjax.data import identity
from rfjax.data.identity import Identity
from rfjax.study.records import Records, RunRecord
from rfjax.training.provenance import ALLOW

OPERATIONAL = ("changed", "outside", "cache_mb", "readers")  # of config.data: what makes no other example


def comparable(study: Records, allow: bool = False) -> Records:
    """The study without the runs whose data are others than most runs' of the same config, and sentences on them.

    Runs that recorded nothing, which are older than the record, stay. Runs of different data by config were never on
    the same examples, and each report knows that.

    Args:
        allow: keep them all, and say so; so does the study's own config.data.changed.
    """
    allow = allow or study.config["data"].get("changed") == "allow"
    left_out: set[str] = set()
    notes = [
        f"{run.name}: its data changed while it was trained, and {ALLOW} let it go on: {'; '.join(run.data.changes)}."
        for run in study.runs
        if run.data.changes
    ]
    groups: dict[str, list[RunRecord]] = {}  # of runs whose configs ask for the same data
    for run in study.runs:
        asked = {name: value for name, value in run.config["data"].items() if name not in OPERATIONAL}
        groups.setdefault(json.dumps(asked, sort_keys=True), []).append(run)
    for runs in groups.values():
        by_data = _by_data(runs)
        unknown = [run.name for run in runs if run.data.data is None]
        if by_data and unknown:
            notes.append(f"Whether the data of {', '.join(unknown)} were those of the other runs is not known.")
        if len(by_data) < 2:
            continue
        most, *others = sorted(by_data, key=lambda found: -len(by_data[found]))  # the first run's, of equals
        for other in others:
            names, changes = by_data[other], "; ".join(identity.differences(most, other))
            said = f"The data of {', '.join(names)} are not those of {', '.join(by_data[most])}: {changes}"
            if allow:
                notes.append(f"{said}; they are compared all the same, for {ALLOW}.")
            else:
                left_out |= set(names)
                notes.append(
                    f"{said}. They are left out: remove their folders and start again, or compare them all the same "
                    f"with {ALLOW}."
                )
    kept = tuple(run for run in study.runs if run.name not in left_out)
    return replace(study, runs=kept, notes=(*study.notes, *notes), apart=(*study.apart, *sorted(left_out)))


def _by_data(runs: Iterable[RunRecord]) -> dict[Identity, list[str]]:
    """The names of the runs by their data, those that nothing tells apart together."""
    found: dict[Identity, list[str]] = {}
    for run in runs:
        if run.data.data is None:
            continue
        same = next((one for one in found if not identity.differences(one, run.data.data)), run.data.data)
        found.setdefault(same, []).append(run.name)
    return found


def described(runs: Iterable[RunRecord]) -> list[str]:
    """What data the runs were on, for the page: a sentence for each."""
    said: dict[str, list[str]] = {}
    for run in runs:
        known = run.data
        if known.trouble:
            what = f"not known ({known.trouble})"
        elif known.data is None:
            what = "not known: the runs are older than the record of it"
        else:
            train, held = known.data.train, known.data.validation
            what = (
                f"{train.count:,} training examples (names {train.names[:12] or 'none'}, content of {train.examples:,} "
                f"{train.content[:12]}), {held.count:,} for validation (names {held.names[:12] or 'none'}, content of "
                f"the first {held.examples:,} {held.content[:12]}), recorded {known.since[:10]}"
            )
            if known.unknown_until:
                what += f"; not known before step {known.unknown_until:,}"
        said.setdefault(what, []).append(run.name)
    return [f"Data of {', '.join(names)}: {what}." for what, names in said.items()]
