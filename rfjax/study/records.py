"""Reads a study's folder back: configs and JSON lines in, frozen records out. Imports no JAX."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from rfjax import config as configs
from rfjax import jsonl
from rfjax.errors import UserError, printable
from rfjax.evaluation.quantity import STANDARD, Quantity
from rfjax.training import provenance
from rfjax.training import recovery as skips
from rfjax.training import run as run_files
from rfjax.untrusted import Unreadable, json_lines, read_json, read_text


@dataclass(frozen=True)
class RunRecord:
    """One run of a study, as its files tell; texts in it are fit to be shown.

    In the lines, a number that was not finite is None, but for a standard error: that is NaN where it is not known.

    Attributes:
        name: of the run.
        folder: of the run.
        config: its full config, plain.
        size: parameters, forward_flops and so on, as `rfjax.models.Size`.
        steps: the number of updates asked for.
        train: lines of kind "train", one a step, in order.
        validation: likewise, of both kinds of weights.
        examples: weights -> loss of each validation triple at the end.
        samples: what the pictures show: captions, sampler, steps, guidance.
        scores: lines of kind "scores", the last written last; one a step, kind of weights and setting of the sampler.
        skipped: number of lines that could not be read.
        left_out: batches that were skipped after a loss that went wrong, as `rfjax.training.recovery` writes them.
        infinite: lines of training or validation whose loss is not finite, with that loss: inf or NaN.
        damaged: sentences on files that could not be read.
        data: what data it was on.
        quantities: what its lines of scores hold, in the order of the pages.
    """

    name: str
    folder: Path
    config: dict[str, Any]
    size: dict[str, int]
    steps: int
    train: tuple[dict[str, Any], ...]
    validation: tuple[dict[str, Any], ...]
    examples: dict[str, Float[np.ndarray, " n"]]
    samples: dict[str, Any] | None
    scores: tuple[dict[str, Any], ...]
    skipped: int
    left_out: tuple[dict[str, Any], ...] = ()
    infinite: tuple[dict[str, Any], ...] = ()
    damaged: tuple[str, ...] = ()
    data: provenance.Known = dataclasses.field(default_factory=provenance.Known)
    quantities: tuple[Quantity, ...] = STANDARD

    def curve(self, weights: str) -> list[dict[str, Any]]:
        """Validation losses along the run."""
        return [line for line in self.validation if line["weights"] == weights and line["loss"] is not None]

    def final(self, weights: str) -> dict[str, Any] | None:
        """The validation loss of the finished run; None where it is not finished, or where `trouble` is not ""."""
        curve = self.curve(weights)
        return curve[-1] if curve and curve[-1]["step"] == self.steps and not self.trouble else None

    @property
    def trouble(self) -> str:
        """The sentence on a final validation loss that is not finite; "" where there is none such."""
        bad = [line for line in self.infinite if line["kind"] == "validation" and line["step"] == self.steps]
        return run_files.not_finite({line["weights"]: line["loss"] for line in bad}, self.steps)

    def last_scores(self) -> dict[tuple[str, str], dict[str, Any]]:
        """(weights, setting) -> the line of scores written last: that of the best step, where one was sought."""
        return {(line["weights"], line["setting"]): line for line in self.scores}

    @property
    def depth(self) -> int:
        return self.config["model"]["depth"]

    @property
    def dataset(self) -> str:
        data = self.config["data"]
        return data["dataset"] or data["name"]

    @property
    def state(self) -> str:
        """ "complete", "failed", "failed: " and why where its validation loss is not finite, or how far it is."""
        if self.trouble:
            return f"failed: {self.trouble}"
        if self.final("raw") or run_files.read_result(self.folder).found:
            return "complete"
        if failure(self.folder):
            return "failed"
        return f"at step {self.train[-1]['step'] if self.train else 0} of {self.steps}"

    def states(self) -> list[str]:
        """Sentences on what is amiss with it."""
        said = list(self.damaged)
        if self.trouble and not failure(self.folder):
            said.append(f"{self.name} failed: {self.trouble}: it is no part of fits, tables of losses and rankings.")
        elif not self.trouble and not self.state.startswith(("complete", "failed")):
            said.append(f"{self.name} is not finished ({self.state}): the same command goes on with it.")
        for kind in ("train", "validation"):
            bad = [line for line in self.infinite if line["kind"] == kind and (kind == "train" or not self.trouble)]
            if bad:
                steps = ", ".join(dict.fromkeys(str(line["step"]) for line in bad[:5])) + ", ..." * (len(bad) > 5)
                what = f"the {'training' if kind == 'train' else kind} loss of step {steps} is not finite"
                said.append(f"{self.name}: {what}: those lines are left out of its curve.")
        if self.skipped:
            said.append(f"{self.name}: {self.skipped} line(s) of metrics.jsonl were cut short or spoilt, and left out.")
        return said + [
            f"{self.name}: batch {skip['batch']} was left out, for the loss was {skip['loss']} at step "
            f"{skip['step']}; the run went back to step {skip['back_to']}."
            for skip in self.left_out
        ]


@dataclass(frozen=True)
class Records:
    """A study as its folder tells.

    Attributes:
        folder: of the study.
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
        for line in _if_readable(self.folder / SESSIONS):
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


def read(folder: Path) -> Records:
    """Reads a study's folder.

    Raises:
        UserError: if there is no study in it, or its `study.json` can't be read.
    """
    study = read_study(folder)
    if study is None:
        raise UserError(f"there is no study in {folder}: run one first, or name its folder with --config.workdir")
    study, runs, damaged = _shown(study), [], {}
    for name in study["runs"]:
        try:
            runs.append(read_run(folder / "runs" / name))
        except UserError as error:
            damaged[name] = f"{name} can't be read: {error}."
    failures = {name: sentence for name in study["runs"] if (sentence := failure(folder / "runs" / name))}
    return Records(folder, study, tuple(filter(None, runs)), failures, damaged)


def _if_readable(path: Path) -> list[dict[str, Any] | None]:
    try:
        return list(json_lines(path))
    except Unreadable:  # whoever adds a line to it is told
        return []


SESSIONS = "sittings.jsonl"
FACTS = ("command", "commit", "date", "python", "devices", "machine")


def read_study(folder: Path) -> dict[str, Any] | None:
    """What a study's `study.json` holds, with "unknown" for facts that it lacks; None where there is none.

    Raises:
        UserError: if it can't be read.
    """
    path, mend = folder / "study.json", "the study's command makes it again from its config"
    found = read_json(path, mend=mend)
    if found is None:
        return None
    names, config = found.get("runs"), found.get("config")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Unreadable(f"{path} has no list of 'runs': {mend}")
    if not isinstance(config, Mapping):
        raise Unreadable(f"{path} has no 'config': {mend}")
    try:
        config = configs.filled(config)
    except UserError as error:
        raise Unreadable(f"{path} holds a config that can't be used ({error}): {mend}") from error
    facts = {name: found[name] if isinstance(found.get(name), str) else "unknown" for name in FACTS}
    versions = found["versions"] if isinstance(found.get("versions"), dict) else {}
    return found | facts | {"versions": versions, "config": config}


def failure(folder: Path) -> str:
    """The sentence that a run left when it failed; "" where it left none, or wrote a result later."""
    path = folder / "failure.txt"
    try:
        text = read_text(path)
    except Unreadable as error:
        text = f"{error}, so why is not known"
    if text is None or run_files.read_result(folder).found:
        return ""
    return next(iter(printable(text).strip().splitlines()), "") or f"{path} is empty, so why is not known"


def read_run(folder: Path) -> RunRecord | None:
    """A run; None where it has not begun.

    Raises:
        UserError: if what there is to say of it can't be read.
    """
    config, damaged = read_json(folder / run_files.CONFIG, mend=run_files.AGAIN), []
    if config is None:
        return None
    try:
        config = configs.filled(config)
    except UserError as error:
        raise Unreadable(f"{folder / run_files.CONFIG} can't be used ({error}): {run_files.AGAIN}") from error
    lines, skipped = jsonl.read_lines(folder / jsonl.FILE)
    starts = [line for line in lines if line["kind"] == "start"]
    if not starts:
        if skipped:
            raise Unreadable(f"{folder / jsonl.FILE} has no line that says where the run started")
        return None
    # After a kill, steps since the last checkpoint are done again, to the same bits: the later line counts.
    latest: dict[tuple[Any, ...], dict[str, Any]] = {}
    for line in lines:
        key = (line["kind"], line["step"], line.get("weights"), line.get("setting"))
        latest.pop(key, None)  # so that the order is that of the last writing
        latest[key] = line
    ordered = [latest[key] for key in sorted(latest, key=lambda key: key[1])]
    of = lambda kind: tuple(_finite(_shown(line)) for line in ordered if line["kind"] == kind)  # noqa: E731
    if trouble := run_files.read_result(folder).trouble:
        damaged.append(f"{folder.name}: {trouble}.")
    return RunRecord(
        name=folder.name,
        folder=folder,
        config=_shown(config),
        size=starts[-1]["size"],
        steps=starts[-1]["steps"],
        train=of("train"),
        validation=of("validation"),
        infinite=tuple(
            line for line in ordered if line["kind"] in ("train", "validation") and not math.isfinite(line["loss"])
        ),
        examples={line["weights"]: np.array(line["losses"]) for line in ordered if line["kind"] == "examples"},
        samples=next(iter(of("samples")), None),
        scores=tuple(_finite(_shown(line)) for key, line in latest.items() if key[0] == "scores"),
        skipped=skipped,
        left_out=_left_out(folder, damaged),
        quantities=_quantities(starts[-1], folder, damaged),
        damaged=tuple(damaged),
        data=provenance.read_or_say(folder),
    )


def _quantities(start: dict[str, Any], folder: Path, damaged: list[str]) -> tuple[Quantity, ...]:
    """The quantities that a run's line "start" names; runs from before it named them have the standard ones."""
    try:
        return tuple(Quantity.from_plain(_shown(one)) for one in start.get("quantities", ())) or STANDARD
    except (AttributeError, TypeError, ValueError) as error:
        damaged.append(f"{folder.name}: its 'quantities' can't be read ({error}): the standard ones are shown.")
        return STANDARD


def _finite(line: dict[str, Any]) -> dict[str, Any]:
    """A line with None for numbers that are not finite, but for a standard error."""
    bad = {key for key, value in line.items() if isinstance(value, float) and not math.isfinite(value)}
    return {key: None if key in bad and key != "stderr" else value for key, value in line.items()}


def _shown(value: Any) -> Any:
    """A value read from JSON, its texts fit to be shown."""
    if isinstance(value, Mapping):
        return {printable(key): _shown(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(item) for item in value]
    return printable(value) if isinstance(value, str) else value


def _left_out(folder: Path, damaged: list[str]) -> tuple[dict[str, Any], ...]:
    try:
        return tuple(_shown(dataclasses.asdict(skip)) for skip in skips.read(folder))
    except UserError as error:
        damaged.append(f"{folder.name}: {error}.")
        return ()
