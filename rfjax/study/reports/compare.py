"""What reports that set runs beside each other share: numbers of lines, checkpoints with scores, learning rates."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rfjax import analysis, names
from rfjax.evaluation.quantity import STANDARD, Quantity
from rfjax.study.records import Records, RunRecord
from rfjax.study.run_records import number

RATE = "optimizer.learning_rate"
NOUNS = {"higher": "score", "lower": "distance"}


def quantities_of(runs: Iterable[RunRecord]) -> tuple[Quantity, ...]:
    """The quantities of all runs, each once by its key, in the order of the runs."""
    return tuple({q.key: q for run in runs for q in run.quantities}.values()) or STANDARD


def listed(words: Sequence[str]) -> str:
    """Words as in a sentence: "a, b and c"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def dataset_name(config: Mapping[str, Any]) -> str:
    """The data set of a config."""
    return config["data"]["dataset"] or config["data"]["name"]


def schedule_of(run: RunRecord, line: Mapping[str, Any], asked: str | None = None) -> str:
    """The sampling schedule of a line of scores; lines from before they said so have that of the config."""
    asked = asked or run.config.get("sampling", {}).get("schedule", "uniform")
    return line.get("grid") or names.schedule_of(asked, run.config["flow"]["formulation"])


def checkpoints(
    runs: Iterable[RunRecord], weights: str, quantities: Sequence[Quantity]
) -> tuple[analysis.Checkpoint, ...]:
    """Every checkpoint with both a validation loss and scores under these weights, the most sampling steps first."""
    found = []
    for run in runs:
        losses = {line["step"]: line["loss"] for line in run.curve(weights)}
        for line in run.scores:
            if line["weights"] == weights and line["step"] in losses:
                where = (run.name, line["step"], line["setting"], int(line["steps"]), losses[line["step"]])
                keys = ("key", "error", "floor")
                values = [{q.key: number(line, getattr(q, key)) for q in quantities} for key in keys]
                found.append(analysis.Checkpoint(*where, *values, int(line.get("count") or 0)))
    return tuple(sorted(found, key=lambda one: (-one.sampling_steps, one.setting, one.run, one.step)))


def floors_of(line: Mapping[str, Any], quantities: Iterable[Quantity]) -> tuple[int, dict[str, float]]:
    """(count of pictures, quantity -> the value of as many true pictures) of a line of scores."""
    return int(line.get("count") or 0), {q.key: number(line, q.floor) for q in quantities}


def known_floors(found: Iterable[tuple[int, Mapping[str, float]]], key: str) -> str:
    """The floor of a quantity at each count of pictures, in words; "" where none is known."""
    floors = {count: values[key] for count, values in found if count}
    return ", ".join(f"{floor:.3g} for {count} pictures" for count, floor in floors.items() if math.isfinite(floor))


def floor_sentence(found: Iterable[tuple[int, Mapping[str, float]]], quantities: Iterable[Quantity]) -> str:
    """What as many true pictures have, by (count, quantity -> floor) of each measurement."""
    found = list(found)
    return " ".join(
        f"The {NOUNS[q.better]} of as many true pictures, its floor, is {known_floors(found, q.key) or 'not known'}."
        for q in quantities
        if q.floor
    )


@dataclass(frozen=True)
class Rates:
    """The learning rates of a comparison.

    Attributes:
        runs: those at the chosen rates: all, where nothing was swept.
        choices: for those who were given several rates.
        used: all rates of `runs`, ascending."""

    runs: tuple[RunRecord, ...]
    choices: tuple[analysis.RateChoice, ...]
    used: tuple[float, ...]
    warnings: tuple[str, ...]


def choose_rates(study: Records, who: Callable[[RunRecord], str], weights: str) -> Rates:
    """Of each contestant's rates on each data set, the one with the lowest validation loss.

    That loss is comparable among the rates of one contestant, whatever it predicts, and it is not what contestants are
    ranked by. Rates that lack some of the seeds of the others are not chosen. All runs are kept where
    `optimizer.learning_rate` is no axis of the study; who: the contestant of a run.
    """
    if RATE not in (study.config["study"].get("axes") or {}):
        return Rates(study.runs, (), tuple(sorted({run.learning_rate for run in study.runs})), ())
    groups: dict[tuple[str, str], dict[float, list[RunRecord]]] = {}
    for run in study.runs:
        groups.setdefault((who(run), run.dataset), {}).setdefault(run.learning_rate, []).append(run)
    kept, choices = [], []
    for (name, dataset), by_rate in groups.items():
        if len(by_rate) == 1:
            kept += next(iter(by_rate.values()))
            continue
        ends = {r: [end["loss"] for run in found if (end := run.final(weights))] for r, found in by_rate.items()}
        spent = [line["flops"] for found in by_rate.values() for run in found for line in run.train[-1:]]
        choices.append(analysis.choose_rate(name, dataset, ends, float(sum(spent))))
        kept += by_rate.get(choices[-1].best, [])
    said = (sentence for choice in choices for sentence in choice.warnings)
    return Rates(tuple(kept), tuple(choices), tuple(sorted({run.learning_rate for run in kept})), tuple(said))
