"""Reads one run's folder back: its config and JSON lines in, a frozen record out. Imports no JAX."""

import dataclasses
import json
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
from rfjax.untrusted import Unreadable, read_json, read_text


def finite(value: Any) -> bool:
    """Whether there is a finite number: JSON has null, or a word such as "NaN", in other places."""
    return isinstance(value, int | float) and math.isfinite(value)


def number(line: Mapping[str, Any], key: str) -> float:
    """A number of a line, NaN where it is missing, null or not finite."""
    return float(line[key]) if finite(line.get(key)) else math.nan


@dataclass(frozen=True)
class RunRecord:
    """One run of a study, as its files tell; texts in it are fit to be shown.

    In the lines, a number that was not finite is None, but for a standard error: that is NaN where it is not known.

    Attributes:
        size: parameters, forward_flops and so on, as `rfjax.models.Size`.
        steps: the number of updates asked for.
        train: lines of kind "train", one a step, in order.
        validation: likewise, of both kinds of weights.
        examples: weights -> loss of each validation triple at the end.
        samples: what the pictures show: captions, sampler, steps, guidance.
        scores: lines of kind "scores", the last written last; one a step, kind of weights and setting of the sampler.
        skipped: number of lines that could not be read.
        alignment_flops: what alignment adds to each training example: "projector" and "encoder".
        representations: lines of kind "representations", one a step, kind of weights and noise level, in order.
        left_out: batches that were skipped after a loss that went wrong, as `rfjax.training.recovery` writes them.
        infinite: lines of training or validation whose loss is not finite, with that loss: inf or NaN.
        damaged: sentences on files that could not be read.
        quantities: what its lines of scores hold, in the order of the pages.
        trunk: the run whose checkpoint it began with, as a branch; "": none.
        first: the step of that checkpoint; 0 where there is none.
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
    alignment_flops: dict[str, int] = dataclasses.field(default_factory=dict)
    representations: tuple[dict[str, Any], ...] = ()
    left_out: tuple[dict[str, Any], ...] = ()
    infinite: tuple[dict[str, Any], ...] = ()
    damaged: tuple[str, ...] = ()
    data: provenance.Known = dataclasses.field(default_factory=provenance.Known)
    quantities: tuple[Quantity, ...] = STANDARD
    trunk: str = ""
    first: int = 0

    def curve(self, weights: str) -> list[dict[str, Any]]:
        """Validation losses along the run, all of the same triples: of the last line, those that the others have."""
        return [line | line.get("along", {}) for line in self._measured(weights)]

    def final(self, weights: str) -> dict[str, Any] | None:
        """The finite validation loss of the finished run, of all triples; None where there is none, or `trouble`."""
        found = self._measured(weights)
        return found[-1] if found and found[-1]["step"] == self.steps and not self.trouble else None

    def _measured(self, weights: str) -> list[dict[str, Any]]:
        return [line for line in self.validation if line["weights"] == weights and line["loss"] is not None]

    @property
    def trouble(self) -> str:
        """The sentence on a final validation loss that is not finite; "" where there is none such."""
        bad = [line for line in self.infinite if line["kind"] == "validation" and line["step"] == self.steps]
        return run_files.not_finite({line["weights"]: line["loss"] for line in bad}, self.steps)

    def last_scores(self) -> dict[tuple[str, str], dict[str, Any]]:
        """(weights, setting) -> the line of scores written last: that of the best step, where one was sought."""
        return {(line["weights"], line["setting"]): line for line in self.scores}

    def why_lost(self, weights: str) -> str | None:
        """Why a run that has ended has no loss that counts; None where it has one, or has not ended."""
        if self.final(weights):
            return None
        last = [line for line in self.validation if line["step"] == self.steps]
        bad = [line["weights"] for line in last if not finite(line["loss"])]
        if bad:
            return f"the validation loss of its {' and '.join(dict.fromkeys(bad))} weights is not finite"
        if last or self.state == "complete":
            return f"it has no validation loss of its {weights} weights at its last step"
        return None

    @property
    def seed(self) -> int:
        return self.config["training"]["seed"]

    @property
    def learning_rate(self) -> float:
        """The peak at depth 1."""
        return float(self.config["optimizer"]["learning_rate"])

    @property
    def seconds(self) -> float:
        """Of its training so far."""
        return self.train[-1]["seconds"] if self.train else 0.0

    @property
    def setting(self) -> str:
        """What its results depend on but its seed: runs that share it are seeds of one model."""
        return self._all_but("training.seed")

    @property
    def family(self) -> str:
        """What its results depend on but its steps: of runs that share it, one may be the trunk of the others."""
        return self._all_but("training.steps")

    def _all_but(self, key: str) -> str:
        config = configs.of_results(self.config)
        return json.dumps({path: value for path, value in config.items() if path != key}, sort_keys=True, default=str)

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
    config, damaged = read_json(folder / run_files.CONFIG, fix=run_files.AGAIN), []
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
    of = lambda kind: tuple(_finite(shown(line)) for line in ordered if line["kind"] == kind)  # noqa: E731
    if trouble := run_files.read_result(folder).trouble:
        damaged.append(f"{folder.name}: {trouble}.")
    left_out = ()
    try:
        left_out = tuple(shown(dataclasses.asdict(skip)) for skip in skips.read(folder))
    except UserError as error:
        damaged.append(f"{folder.name}: {error}.")
    return RunRecord(
        name=folder.name,
        folder=folder,
        config=shown(config),
        size=starts[-1]["size"],
        steps=starts[-1]["steps"],
        train=of("train"),
        validation=of("validation"),
        infinite=tuple(
            line for line in ordered if line["kind"] in ("train", "validation") and not math.isfinite(line["loss"])
        ),
        examples={line["weights"]: np.array(line["losses"]) for line in ordered if line["kind"] == "examples"},
        samples=next(iter(of("samples")), None),
        scores=tuple(_finite(shown(line)) for key, line in latest.items() if key[0] == "scores"),
        skipped=skipped,
        alignment_flops=dict(starts[-1].get("alignment_flops") or {}),
        representations=of("representations"),
        left_out=left_out,
        quantities=_quantities(starts[-1], folder, damaged),
        trunk=printable(starts[-1].get("trunk", "")),
        first=starts[-1].get("trunk_step", 0),
        damaged=tuple(damaged),
        data=provenance.read_or_say(folder),
    )


def _quantities(start: dict[str, Any], folder: Path, damaged: list[str]) -> tuple[Quantity, ...]:
    """The quantities that a run's line "start" names; runs from before it named them have the standard ones."""
    try:
        return tuple(Quantity.from_plain(shown(one)) for one in start.get("quantities", ())) or STANDARD
    except (AttributeError, TypeError, ValueError) as error:
        damaged.append(f"{folder.name}: its 'quantities' can't be read ({error}): the standard ones are shown.")
        return STANDARD


def _finite(line: dict[str, Any]) -> dict[str, Any]:
    """A line with None for numbers that are not finite, but for a standard error."""
    bad = {key for key, value in line.items() if isinstance(value, float) and not math.isfinite(value)}
    return {key: None if key in bad and key != "stderr" else value for key, value in line.items()}


def shown(value: Any) -> Any:
    """A value read from JSON, its texts fit to be shown."""
    if isinstance(value, Mapping):
        return {printable(key): shown(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [shown(item) for item in value]
    return printable(value) if isinstance(value, str) else value
