"""What data a run was trained and validated on: `data.json` in its folder, which resuming and the report read.

{"data": {"train": {...}, "validation": {...}},     the identity of the data now (`rfjax.data.identity`)
 "date": "2025-01-31T12:00:00+00:00", "step": 0,    when it was recorded, and the run's newest checkpoint then
 "before": [{"data": null, "changes": [...]}]}      what it was before: null is not known
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rfjax import data
from rfjax.config import Config
from rfjax.data import identity
from rfjax.data.identity import Identity
from rfjax.errors import UserError
from rfjax.jsonl import write_json
from rfjax.training.run import Run
from rfjax.untrusted import read_json

NAME = "data.json"
ALLOW = "config.data.changed = 'allow'"


@dataclass(frozen=True)
class Known:
    """What a run's folder says of its data.

    Attributes:
        data: their identity; None: not known.
        since: the date of the record.
        before: what was recorded earlier, the first first: `data`, plain or None, the `step` up to which the run was
            trained on them, and `changes` after that, in words.
        trouble: why the record can't be read.
    """

    data: Identity | None = None
    since: str = ""
    before: tuple[Mapping[str, Any], ...] = ()
    trouble: str = ""

    @property
    def changes(self) -> tuple[str, ...]:
        """What changed while the run was trained, in words, which `ALLOW` let it go on with."""
        return tuple(change for earlier in self.before for change in earlier["changes"])

    @property
    def unknown_until(self) -> int:
        """The step before which the data are not known; 0: none."""
        return max((earlier["step"] for earlier in self.before if earlier["data"] is None), default=0)


def read(folder: Path) -> Known:
    """Reads a run's record.

    Raises:
        UserError: if there is one that can't be read.
    """
    path, fix = folder / NAME, "remove it, and the data are recorded anew, not known before"
    plain = read_json(path, fix=fix)
    if plain is None:
        return Known()
    try:
        before = tuple(
            {"data": earlier["data"], "step": int(earlier["step"]), "changes": [str(one) for one in earlier["changes"]]}
            for earlier in plain["before"]
        )
        return Known(identity.from_dict(plain["data"]), str(plain["date"]), before)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}): {fix}") from error


def read_or_say(folder: Path) -> Known:
    """The same for a report, which does without a record that can't be read, and says why."""
    try:
        return read(folder)
    except UserError as error:
        return Known(trouble=str(error))


def begun(folder: Path) -> int | None:
    """The step of a run's newest checkpoint; None where it has none and no result, so that it begins anew."""
    if (folder / "result.json").exists():
        return 0
    names = (entry.name for entry in folder.glob("checkpoints/*"))
    return max((int(name) for name in names if name.isdecimal()), default=None)


def open_data(config: Config) -> tuple[dict[str, data.Source], Identity]:
    """Opens both splits of a run's data, and identifies them.

    Raises:
        UserError: on all processes of a job, if one of them can't open the data, or if they see different ones.
    """
    import jax  # the report, which reads records, does without
    import numpy as np
    from jax.experimental import multihost_utils

    sources, found, trouble = {}, None, None
    try:
        sources = {split: data.open_source(config.data, split) for split in ("train", "validation")}
        data.check_synthetic(sources["train"], config.data.synthetic_share)
        found = identity.identify(sources["train"], sources["validation"], config.validation.examples)
    except UserError as error:  # the other processes must hear of it before this one leaves them
        trouble = error
    if jax.process_count() > 1:
        ours = np.frombuffer(found.digest() if found else bytes(32), np.uint8)
        rows = np.asarray(multihost_utils.process_allgather(ours))
        if found and (rows != rows[0]).any():
            there = [row.tobytes().hex()[:8] for row in rows]
            raise UserError(
                f"the processes of this job see different data, or some see none (by process: {', '.join(there)}): "
                "give every machine the same files"
            )
    if trouble:
        raise trouble
    return sources, found


def open_and_admit(run: Run, warn: Callable[[str], None]) -> dict[str, data.Source]:
    """Opens a run's data, checks that they are what it recorded, and records them; returns the sources by split.

    Raises:
        UserError: if they changed since the run's last checkpoint, unless `ALLOW`; then nothing is written.
    """
    sources, found = open_data(run.config)
    at = begun(run.folder)
    known = Known() if at is None else read(run.folder)
    if changes := refuse_unless_allowed(run.config, {run.name: known}, found):
        warn(f"{run.name}: its data changed, and {ALLOW}: {'; '.join(changes)}")
    elif at is not None and known.data is None:
        warn(f"{run.name}: its data were not recorded when it began, so it is not known whether they are the same")
    record(run.folder, found, known, changes, at)
    return sources


def refuse_unless_allowed(config: Config, known: Mapping[str, Known], found: Identity) -> list[str]:
    """What changed since the first of these runs whose data are not these; known: by the run's name.

    Raises:
        UserError: with what changed, unless `ALLOW`.
    """
    for name, one in known.items():
        if one.data and (changes := identity.differences(one.data, found)):
            if config.data.changed == "allow":
                return changes
            raise UserError(
                f"the data of '{config.data.dataset or config.data.name}' are not those that run {name} recorded on "
                f"{one.since[:10]}: {'; '.join(changes)}: bring them back, choose another config.workdir, or go on "
                f"with {ALLOW}, which the report says"
            )
    return []


def record(folder: Path, found: Identity, known: Known, changes: list[str], at: int | None) -> None:
    """Writes a run's record, by process 0, unless it is there as it should be.

    Args:
        known: the record so far.
        changes: since then, in words.
        at: step of the newest checkpoint; None: none.
    """
    import jax

    if jax.process_index() != 0 or (known.data == found and not changes):
        return
    before = list(known.before)
    if at is not None:
        before.append({"data": known.data and known.data.to_dict(), "step": at, "changes": changes})
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(folder / NAME, {"data": found.to_dict(), "date": now, "step": at or 0, "before": before})


def of_other_runs(runs: Iterable[Run], config: Config) -> dict[str, Known]:
    """The records of the runs that have begun with data of the same config, by name."""
    same = [run for run in runs if run.config.data == config.data and begun(run.folder) is not None]
    return {run.name: read(run.folder) for run in same}
