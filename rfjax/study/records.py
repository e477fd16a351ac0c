"""Reads a study's folder back: what was asked for, its runs, the time it took. Imports no JAX."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfjax import config as configs
from rfjax import jsonl
from rfjax.errors import UserError
from rfjax.study.run_records import RunRecord, failure, read_run, shown
from rfjax.untrusted import Unreadable, json_lines, read_json

__all__ = ["Records", "RunRecord", "failure", "read", "read_run", "read_study"]


@dataclass(frozen=True)
class Records:
    """A study as its folder tells.

    Attributes:
        study: what was asked for (`study.json`).
        runs: those that have begun, in order.
        failures: name of a run -> what failed.
        damaged: sentences on runs that can't be read at all.
        notes: sentences on the study.
        apart: the names of runs that can't be compared with `runs`, and are not among them.
    """

    folder: Path
    study: dict[str, Any]
    runs: tuple[RunRecord, ...]
    failures: dict[str, str]
    damaged: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()

    @property
    def config(self) -> dict[str, Any]:
        return self.study["config"]

    def sessions(self) -> list[dict[str, Any]]:
        """The sessions spent so far: read anew, for the report itself is timed as a part of one."""
        found = []
        lines = []
        for name in (OLDER_SESSIONS, SESSIONS):
            with contextlib.suppress(Unreadable):  # whoever adds a line to it is told
                lines += list(json_lines(self.folder / name))
        for line in lines:
            try:
                split = {str(name): jsonl.number(seconds) for name, seconds in line["split"].items()}
                programs = {
                    str(name): {key: jsonl.number(one[key]) for key in ("count", "seconds")}
                    for name, one in line.get("compilations", {}).items()
                }
                found.append({"split": split, "seconds": jsonl.number(line["seconds"]), "compilations": programs})
            except (AttributeError, KeyError, TypeError, ValueError):
                continue  # a line that was cut, or spoilt
        return found

    def states(self) -> list[str]:
        """Sentences on the runs that are not complete, on numbers that are not finite, on what could not be read."""
        said = [*self.notes, *(f"{name} failed: {sentence}" for name, sentence in self.failures.items())]
        said += [*self.damaged.values(), *(sentence for run in self.runs for sentence in run.states())]
        begun = {run.name for run in self.runs} | set(self.failures) | set(self.damaged) | set(self.apart)
        missing = [name for name in self.study["runs"] if name not in begun]
        return [*said, f"not started yet: {', '.join(missing)}."] if missing else said


def first_seeds(runs: Sequence[RunRecord], seeds: int) -> tuple[RunRecord, ...]:
    """The runs whose seed is below `seeds`, as config.sampling.seeds means it; all for 0, or where none is."""
    return tuple(run for run in runs if not seeds or run.seed < seeds) or tuple(runs)


def read(folder: Path) -> Records:
    """Reads a study's folder.

    Raises:
        UserError: if there is no study in it, or its `study.json` can't be read.
    """
    study = read_study(folder)
    if study is None:
        raise UserError(f"there is no study in {folder}: run one first, or name its folder with --config.workdir")
    study, runs, damaged = shown(study), [], {}
    for name in study["runs"]:
        try:
            runs.append(read_run(folder / "runs" / name))
        except UserError as error:
            damaged[name] = f"{name} can't be read: {error}."
    failures = {name: sentence for name in study["runs"] if (sentence := failure(folder / "runs" / name))}
    return Records(folder, study, tuple(filter(None, runs)), failures, damaged)


SESSIONS, OLDER_SESSIONS = "sessions.jsonl", "sittings.jsonl"  # older versions wrote the second name
FACTS = ("command", "commit", "date", "python", "devices", "machine")


def read_study(folder: Path) -> dict[str, Any] | None:
    """What a study's `study.json` holds, with "unknown" for facts that it lacks; None where there is none.

    Raises:
        UserError: if it can't be read.
    """
    path, fix = folder / "study.json", "the study's command makes it again from its config"
    found = read_json(path, fix=fix)
    if found is None:
        return None
    names, config = found.get("runs"), found.get("config")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Unreadable(f"{path} has no list of 'runs': {fix}")
    if not isinstance(config, Mapping):
        raise Unreadable(f"{path} has no 'config': {fix}")
    try:
        config = configs.filled(config)
    except UserError as error:
        raise Unreadable(f"{path} holds a config that can't be used ({error}): {fix}") from error
    facts = {name: found[name] if isinstance(found.get(name), str) else "unknown" for name in FACTS}
    versions = found["versions"] if isinstance(found.get("versions"), dict) else {}
    return found | facts | {"versions": versions, "config": config}
