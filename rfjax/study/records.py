"""Reads a study's folder back: configs and JSON lines in, frozen records out. Imports no JAX."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from rfjax.errors import UserError
from rfjax.training import provenance
from rfjax.training.logs import read_lines


@dataclass(frozen=True)
class Rung:
    """One run of a study, as its files tell.

    Attributes:
        name: of the run. folder: of the run. config: its full config, plain.
        size: parameters, forward_flops and so on, as `rfjax.models.Size`.
        steps: the number of updates asked for.
        train: lines of kind "train", one a step, in order. validation: likewise, of both kinds of weights.
        examples: weights -> loss of each validation triple at the end.
        samples: what the pictures show: captions, sampler, steps, guidance.
        scores: lines of kind "scores", the last written last; one a step, kind of weights and setting of the sampler.
        skipped: number of lines that could not be read.
        left_out: batches that were skipped after a loss that went wrong, as `rfjax.training.recovery` writes them.
        data: what data it was on.
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
    data: provenance.Known = field(default_factory=provenance.Known)

    def curve(self, weights: str) -> list[dict[str, Any]]:
        """Validation losses along the run."""
        return [line for line in self.validation if line["weights"] == weights and line["loss"] is not None]

    def final(self, weights: str) -> dict[str, Any] | None:
        """The validation loss of the finished run, or None where it is not finished."""
        curve = self.curve(weights)
        return curve[-1] if curve and curve[-1]["step"] == self.steps else None

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
        """ "complete", "failed" or how far it is."""
        if self.final("raw") or (self.folder / "result.json").exists():
            return "complete"
        if failure(self.folder):
            return "failed"
        return f"at step {self.train[-1]['step'] if self.train else 0} of {self.steps}"


@dataclass(frozen=True)
class Records:
    """A study: what was asked for (`study.json`), its rungs in order, what failed and why.

    notes: sentences on it. apart: the names of runs that can't be compared with the rungs, and are not among them.
    """

    folder: Path
    study: dict[str, Any]
    rungs: tuple[Rung, ...]
    failures: dict[str, str]
    notes: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()

    @property
    def config(self) -> dict[str, Any]:
        return self.study["config"]

    def sittings(self) -> list[dict[str, Any]]:
        """The sittings spent so far: read anew, for the report itself is timed as a part of one."""
        return read_lines(self.folder / "sittings.jsonl")[0]

    def states(self) -> list[str]:
        """Sentences on the runs that are not complete, and on lines that could not be read."""
        said = [*self.notes, *(f"{name} failed: {sentence}" for name, sentence in self.failures.items())]
        for rung in self.rungs:
            if rung.state not in ("complete", "failed"):
                said.append(f"{rung.name} is not finished ({rung.state}): the same command goes on with it.")
            if rung.skipped:
                said.append(f"{rung.name}: {rung.skipped} line(s) of metrics.jsonl were cut short and left out.")
            said += [
                f"{rung.name}: batch {skip['batch']} was left out, for the loss was {skip['loss']} at step "
                f"{skip['step']}; the run went back to step {skip['back_to']}."
                for skip in rung.left_out
            ]
        begun = {rung.name for rung in self.rungs} | set(self.failures) | set(self.apart)
        missing = [name for name in self.study["runs"] if name not in begun]
        return [*said, f"not started yet: {', '.join(missing)}."] if missing else said


def read(folder: Path) -> Records:
    """Reads a study's folder.

    Raises:
        UserError: if there is no study in it.
    """
    path = folder / "study.json"
    if not path.exists():
        raise UserError(f"there is no study in {folder}: run one first, or name its folder with --config.workdir")
    study = json.loads(path.read_bytes())
    rungs = tuple(rung for name in study["runs"] if (rung := _read_rung(folder / "runs" / name)))
    failures = {name: sentence for name in study["runs"] if (sentence := failure(folder / "runs" / name))}
    return Records(folder, study, rungs, failures)


def failure(folder: Path) -> str:
    """The sentence that a run left when it failed, or nothing; a result that it wrote later outdoes it."""
    path = folder / "failure.txt"
    if not path.exists() or (folder / "result.json").exists():
        return ""
    return path.read_text(encoding="utf-8").strip().splitlines()[0]


def _read_rung(folder: Path) -> Rung | None:
    if not (folder / "config.json").exists():
        return None
    lines, skipped = read_lines(folder / "metrics.jsonl")
    starts = [line for line in lines if line["kind"] == "start"]
    if not starts:
        return None
    # After a kill, steps since the last checkpoint are done again, to the same bits: the later line counts.
    latest: dict[tuple[Any, ...], dict[str, Any]] = {}
    for line in lines:
        key = (line["kind"], line["step"], line.get("weights"), line.get("setting"))
        latest.pop(key, None)  # so that the order is that of the last writing
        latest[key] = line
    of = lambda kind: tuple(latest[k] for k in sorted(latest, key=lambda k: k[1]) if k[0] == kind)  # noqa: E731
    return Rung(
        name=folder.name,
        folder=folder,
        config=json.loads((folder / "config.json").read_bytes()),
        size=starts[-1]["size"],
        steps=starts[-1]["steps"],
        train=of("train"),
        validation=of("validation"),
        examples={line["weights"]: np.array(line["losses"]) for line in of("examples")},
        samples=next(iter(of("samples")), None),
        scores=tuple(line for key, line in latest.items() if key[0] == "scores"),
        skipped=skipped,
        left_out=_left_out(folder),
        data=provenance.read_or_say(folder),
    )


def _left_out(folder: Path) -> tuple[dict[str, Any], ...]:
    path = folder / "recovery.json"
    return tuple(json.loads(path.read_bytes())["skipped"]) if path.exists() else ()
