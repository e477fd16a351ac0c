"""What the runs of a contest measured: a line of scores for each variant, control setting and seed."""

import itertools
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rfjax import names
from rfjax.study.records import RunRecord


class Setting(NamedTuple):
    """A control setting: a data set, the weights, the sampler's steps and guidance."""

    dataset: str
    weights: str
    steps: int
    guidance: float

    def __str__(self) -> str:
        return f"{self.dataset}, {self.weights}, {self.steps}@{self.guidance:g}"


@dataclass(frozen=True)
class Measure:
    """What one variant reached in one setting, averaged over its seeds; NaN where a number is not known.

    Attributes:
        score: higher is better; -inf where pictures are not finite. stderr: of the score, over pictures.
        frechet: distance, lower is better; inf where pictures are not finite. frechet_stderr: over pictures.
        floor: the distance of as many true pictures. parts: the score by skill.
        path_length: mean length of the samples' paths. step: of the weights measured. count: pictures. grid: of times.
        by_seed: seed -> (score, frechet).
    """

    score: float
    stderr: float
    frechet: float
    frechet_stderr: float
    floor: float
    parts: dict[str, float]
    path_length: float
    step: int
    count: int
    grid: str
    by_seed: dict[int, tuple[float, float]]

    @property
    def drawn(self) -> bool:
        """Whether there are pictures: all numbers finite."""
        return math.isfinite(self.score)


def canonical(name: str) -> str:
    """The paper's name of a formulation, to two decimals; the mode density with s = 0 is plain rf."""
    kind, numbers = names.split(name)
    made = names.join(kind, tuple(round(n, 2) + 0.0 for n in numbers or ()))
    return "rf" if made == "rf/mode(0.00)" else made


def measure(rungs: Iterable[RunRecord]) -> tuple[dict[Setting, dict[str, Measure]], list[str]]:
    """The last scores of every run, seeds averaged, and sentences on what could not be used."""
    lines: dict[tuple[Setting, str], list[dict[str, Any]]] = {}
    recipes: dict[tuple[str, str], list[RunRecord]] = {}
    trouble = []
    for rung in rungs:
        variant = canonical(rung.config["flow"]["formulation"])
        recipes.setdefault((variant, rung.dataset), []).append(rung)
        without = []
        for (weights, name), scored in rung.last_scores().items():
            line = scored | {"seed": rung.config["training"]["seed"], "grid": grid_of(rung, scored)}
            setting = Setting(rung.dataset, weights, int(line["steps"]), float(line["guidance"]))
            if all(finite(line.get(quantity)) for quantity in ("score", "frechet")):
                lines.setdefault((setting, variant), []).append(line)
            elif line.get("problem"):  # it was drawn, and is worse than anything that can be scored
                worst = {"score": -math.inf, "frechet": math.inf, "parts": {}}
                lines.setdefault((setting, variant), []).append(line | worst)
                trouble.append(f"{rung.name} is last at {name} ({weights}): {line['problem']}.")
            else:
                without.append(f"{name} ({weights})")
        if without:
            trouble.append(f"{rung.name}: no score and distance at {', '.join(without)}: left out.")
    for (variant, dataset), found in recipes.items():
        if len({_recipe(rung) for rung in found}) > 1:
            trouble.append(f"{variant} on {dataset}: its runs differ in more than the seed, yet are averaged.")
        seeds = [rung.config["training"]["seed"] for rung in found]
        if len(set(seeds)) < len(seeds):
            shown = ", ".join(rung.name for rung in found)
            trouble.append(f"{variant} on {dataset}: {shown} share a seed, and count as one run, their mean.")
    measures: dict[Setting, dict[str, Measure]] = {}
    for (setting, variant), group in lines.items():
        measures.setdefault(setting, {})[variant] = _mean(group)
    return measures, trouble


def grid_of(rung: RunRecord, line: dict[str, Any]) -> str:
    """The grid of times of a line of scores; lines from before they said so were drawn on that of the run's config."""
    asked = rung.config.get("sampling", {}).get("schedule", "uniform")
    return line.get("grid") or names.schedule_of(asked, rung.config["flow"]["formulation"])


def finite(value: Any) -> bool:
    """Whether there is a finite number: JSON has null, or a word such as "NaN", in other places."""
    return isinstance(value, int | float) and math.isfinite(value)


def number(line: dict[str, Any], name: str) -> float:
    """A number of a line, NaN where it is missing, null or not finite."""
    return float(line[name]) if finite(line.get(name)) else math.nan


def floor_sentence(lines: Iterable[dict[str, Any]]) -> str:
    """What Fréchet distance as many true pictures have, by the lines of scores beside it."""
    floors = {int(line["count"]): number(line, "frechet_floor") for line in lines if line.get("count")}
    known = [f"{floor:.3g} for {count} pictures" for count, floor in floors.items() if math.isfinite(floor)]
    return f"The distance of as many true pictures, its floor, is {', '.join(known) or 'not known'}."


def _recipe(rung: RunRecord) -> str:
    """What runs of one variant and data set should have in common."""
    config = json.loads(json.dumps(rung.config))
    config["training"].pop("seed")
    return json.dumps([config[key] for key in ("data", "text", "model", "optimizer", "training")])


def _mean(lines: list[dict[str, Any]]) -> Measure:
    mean = lambda values: float(np.mean(list(values)))  # noqa: E731
    seeds = dict.fromkeys(line["seed"] for line in lines)
    of = lambda seed, name: mean(line[name] for line in lines if line["seed"] == seed)  # noqa: E731
    error = lambda name: math.sqrt(sum(number(line, name) ** 2 for line in lines)) / len(lines)  # noqa: E731
    parts = [line.get("parts") or {} for line in lines]
    return Measure(
        score=mean(line["score"] for line in lines),
        stderr=error("stderr"),
        frechet=mean(line["frechet"] for line in lines),
        frechet_stderr=error("frechet_stderr"),
        floor=mean(number(line, "frechet_floor") for line in lines),
        parts={name: mean(number(part, name) for part in parts) for name in dict.fromkeys(itertools.chain(*parts))},
        path_length=mean(number(line, "path_length") for line in lines),
        step=lines[-1]["step"],
        count=int(lines[-1].get("count") or 0),
        grid=", ".join(dict.fromkeys(line["grid"] for line in lines)),
        by_seed={seed: (of(seed, "score"), of(seed, "frechet")) for seed in seeds},
    )
