"""From a contest's records to its ranks: Pareto fronts in every control setting, averaged (SD3 section 5.1)."""

import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rfjax import analysis, names
from rfjax.study.records import Records, Rung
from rfjax.study.reports import paper

GUIDANCE = 5.0  # of the columns "5 steps" and "50 steps", of Table 2 and of Fig. 3


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
    """What one variant reached in one setting, averaged over `seeds` runs.

    Attributes:
        score: higher is better; -inf where pictures are not finite. stderr: of the score.
        frechet: distance, lower is better; inf where pictures are not finite.
        parts: the score by skill. path_length: mean length of the samples' paths. step: of the weights measured.
    """

    score: float
    stderr: float
    frechet: float
    parts: dict[str, float]
    path_length: float
    step: int
    seeds: int

    @property
    def drawn(self) -> bool:
        """Whether there are pictures: all numbers finite."""
        return math.isfinite(self.score)


@dataclass(frozen=True)
class Findings:
    """All that the report of a contest says.

    Attributes:
        variants: the ranked ones, the best first, then the others. settings: all that were measured, in order.
        measures: setting -> variant -> Measure. guidance: of the columns by steps.
        columns: "all", "five", "fifty" -> average ranks, as in Table 1; without a column that has no settings.
        places: column -> variant -> (ours, the paper's) place, 1 the best, among the variants that both ranked.
        agreement: "Spearman", "Kendall" -> correlation of our average ranks with the paper's. reason: why none.
        warnings: sentences.
    """

    variants: tuple[str, ...]
    settings: tuple[Setting, ...]
    measures: dict[Setting, dict[str, Measure]]
    guidance: float
    columns: dict[str, analysis.Ranking]
    places: dict[str, dict[str, tuple[float, float]]]
    agreement: dict[str, analysis.Correlation]
    reason: str
    warnings: tuple[str, ...]

    @property
    def datasets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(setting.dataset for setting in self.settings))

    @property
    def ranked(self) -> tuple[str, ...]:
        return tuple(self.columns["all"].average) if self.columns else ()

    @property
    def winners(self) -> tuple[str, ...]:
        """The variant with the lowest average rank, or several that share it."""
        average = self.columns["all"].average if self.columns else {}
        return tuple(variant for variant, value in average.items() if value == min(average.values()))


def canonical(name: str) -> str:
    """The paper's name of a formulation, to two decimals; the mode density with s = 0 is plain rf."""
    kind, numbers = names.split(name)
    made = names.join(kind, tuple(round(n, 2) + 0.0 for n in numbers or ()))
    return "rf" if made == "rf/mode(0.00)" else made


def find(records: Records) -> Findings:
    """Ranks a contest, as far as it is run."""
    measures, trouble = measure(records.rungs)
    settings = tuple(sorted(measures))
    guidance = reference_guidance(settings)
    columns, dropped = rank(measures, guidance)
    average = columns["all"].average if columns else {}
    seen = {variant: None for found in measures.values() for variant in found}
    published = {v: row.all for v, row in paper.TABLE_1.items()}
    correlation, reason = agreement(average, published)
    return Findings(
        variants=(*average, *(variant for variant in seen if variant not in average)),
        settings=settings,
        measures=measures,
        guidance=guidance,
        columns=columns,
        places={
            name: places(column.average, {v: getattr(row, name) for v, row in paper.TABLE_1.items()})
            for name, column in columns.items()
        },
        agreement=correlation,
        reason=reason,
        warnings=tuple(dict.fromkeys([*records.states(), *trouble, *dropped, *gaps(records, measures, columns)])),
    )


def measure(rungs: Iterable[Rung]) -> tuple[dict[Setting, dict[str, Measure]], list[str]]:
    """The last scores of every run, seeds averaged, and sentences on what could not be used."""
    lines: dict[tuple[Setting, str], list[dict[str, Any]]] = {}
    recipes: dict[tuple[str, str], set[str]] = {}
    trouble = []
    for rung in rungs:
        variant = canonical(rung.config["flow"]["formulation"])
        recipes.setdefault((variant, rung.dataset), set()).add(_recipe(rung))
        without = []
        for (weights, name), line in rung.last_scores().items():
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
        if len(found) > 1:
            trouble.append(f"{variant} on {dataset}: its runs differ in more than the seed, yet are averaged.")
    measures: dict[Setting, dict[str, Measure]] = {}
    for (setting, variant), group in lines.items():
        measures.setdefault(setting, {})[variant] = _mean(group)
    return measures, trouble


def finite(value: float | None) -> bool:
    """Whether there is a number: JSON has null where a value is missing or not finite."""
    return value is not None and math.isfinite(value)


def _recipe(rung: Rung) -> str:
    """What runs of one variant and data set should have in common."""
    config = json.loads(json.dumps(rung.config))
    config["training"].pop("seed")
    return json.dumps([config[key] for key in ("data", "text", "model", "optimizer", "training")])


def _mean(lines: list[dict[str, Any]]) -> Measure:
    mean = lambda values: float(np.mean(list(values)))  # noqa: E731
    return Measure(
        score=mean(line["score"] for line in lines),
        stderr=math.sqrt(sum((line.get("stderr") or 0.0) ** 2 for line in lines)) / len(lines),
        frechet=mean(line["frechet"] for line in lines),
        parts={name: mean(line["parts"].get(name, np.nan) for line in lines) for name in lines[0]["parts"]},
        path_length=mean(np.nan if line.get("path_length") is None else line["path_length"] for line in lines),
        step=lines[-1]["step"],
        seeds=len(lines),
    )


def reference_guidance(settings: Iterable[Setting]) -> float:
    """5, as in the paper; where it was not measured, the guidance that most settings have."""
    scales = [setting.guidance for setting in settings]
    return GUIDANCE if GUIDANCE in scales or not scales else max(sorted(set(scales)), key=scales.count)


def kept_by(column: str, guidance: float) -> Callable[[Setting], bool]:
    """Which settings a column of Table 1 averages; those by steps hold quarters, so 4 settings: one guidance."""
    steps = {"all": None, "five": 5, "fifty": 50}[column]
    return lambda setting: steps is None or (setting.steps, setting.guidance) == (steps, guidance)


def rank(
    measures: Mapping[Setting, Mapping[str, Measure]], guidance: float
) -> tuple[dict[str, analysis.Ranking], list[str]]:
    """The columns of Table 1, and sentences on what they leave out.

    A rank depends on who else is there, so only variants that have every setting are ranked. A data set that few have
    got to would leave nobody: the data sets are chosen that allow the most comparisons, pairs of variants x settings.
    """
    best: dict[Setting, Mapping[str, Measure]] = {}
    most = (0, 0)
    datasets = sorted({setting.dataset for setting in measures})
    for n in range(1, len(datasets) + 1):
        for some in itertools.combinations(datasets, n):
            pool = {setting: found for setting, found in measures.items() if setting.dataset in some}
            everywhere = set.intersection(*(set(found) for found in pool.values()))
            if (size := (math.comb(len(everywhere), 2) * len(pool), len(pool))) >= most and everywhere:
                best, most = pool, size
    if not best:
        return {}, ["No variant has scores in every setting: there are no average ranks."] if measures else []
    points = {s: {v: (m.score, m.frechet) for v, m in found.items()} for s, found in sorted(best.items())}
    whole = analysis.average_ranks(points)
    said = [
        f"{variant} is not ranked: it has no scores in {len(missing)} of {len(best)} settings ({missing[0]} ...)."
        for variant, missing in whole.missing.items()
    ]
    left = [dataset for dataset in datasets if dataset not in {setting.dataset for setting in best}]
    if left:
        said.append(f"Too few variants have scores on {', '.join(left)} yet: the ranks leave it out.")
    columns = {"all": whole}
    for name in ("five", "fifty"):
        keep = kept_by(name, guidance)
        if any(map(keep, best)):
            columns[name] = whole.restricted(keep)
    return columns, said


def places(ours: Mapping[str, float], theirs: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Places from 1 among the names of both, (ours, theirs); equal averages share the mean of their places."""
    names = [name for name in ours if name in theirs]

    def place(side: Mapping[str, float], name: str) -> float:
        values = [side[other] for other in names]
        return 1 + sum(v < side[name] for v in values) + (values.count(side[name]) - 1) / 2

    return {name: (place(ours, name), place(theirs, name)) for name in names}


def agreement(ours: Mapping[str, float], theirs: Mapping[str, float]) -> tuple[dict[str, analysis.Correlation], str]:
    """Spearman's and Kendall's correlation of two lists of ranks over the names of both, or why there is none."""
    names = [name for name in ours if name in theirs]
    sides = [[side[name] for name in names] for side in (ours, theirs)]
    try:
        return {"Spearman": analysis.spearman(*sides), "Kendall": analysis.kendall(*sides)}, ""
    except analysis.TooFewPoints as error:
        return {}, f"No rank correlation with the paper: {error}"


def gaps(
    records: Records, measures: Mapping[Setting, Mapping[str, Measure]], columns: Mapping[str, analysis.Ranking]
) -> list[str]:
    """What is missing, and what that does to the ranks."""
    silent = [rung.name for rung in records.rungs if rung.state == "complete" and not rung.scores]
    said = [f"Complete, but without scores: {', '.join(silent)}."] if silent else []
    if not measures:
        return said
    axes = records.config["study"].get("axes") or {}
    asked = {canonical(rung.config["flow"]["formulation"]) for rung in records.rungs}
    asked |= {canonical(name) for name in axes.get("flow.formulation", ())}
    ranked = len(columns["all"].average) if columns else 0
    if ranked < len(asked):
        said.append(
            f"{ranked} of the study's {len(asked)} variants are ranked. A rank counts fronts among the variants "
            "present: ranks among fewer variants are not comparable with those of the whole contest."
        )
    settings = set(measures)
    pairs = sorted({(setting.dataset, setting.weights) for setting in settings})
    lacking = [s for pair in pairs for sampler in paper.SAMPLERS if (s := Setting(*pair, *sampler)) not in settings]
    if lacking:
        shown = "; ".join(map(str, lacking[:3])) + (f" and {len(lacking) - 3} more" if len(lacking) > 3 else "")
        said.append(f"Settings of the paper's that nothing was measured at: {shown}. The averages are without them.")
    for name, found, theirs in (
        ("weights", {setting.weights for setting in settings}, "EMA and raw weights"),
        ("data set", {setting.dataset for setting in settings}, "two data sets"),
    ):
        if len(found) == 1:
            said.append(f"One {name} only, {found.pop()}: the paper averages over {theirs}.")
    return said
