"""From a contest's records to its ranks: Pareto fronts in every control setting, averaged (SD3 section 5.1)."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rfjax import analysis
from rfjax.study.records import Records
from rfjax.study.reports import paper, rates
from rfjax.study.reports.measures import Measure, Setting, canonical, measure

GUIDANCE = 5.0  # of the columns "5 steps" and "50 steps", of Table 2 and of Fig. 3


@dataclass(frozen=True)
class Findings:
    """All that the report of a contest says.

    Attributes:
        variants: the ranked ones, the best first, then the others. settings: all that were measured, in order.
        measures: setting -> variant -> Measure. guidance: of the columns by steps.
        columns: "all", "five", "fifty" -> average ranks, as in Table 1; without a column that has no settings.
        places: column -> variant -> (ours, the paper's) place, 1 the best, among the variants that both ranked.
        agreement: "Spearman", "Kendall" -> correlation of our average ranks with the paper's. reason: why none.
        rates: the learning rates, and which of them was chosen for whom. warnings: sentences.
    """

    variants: tuple[str, ...]
    settings: tuple[Setting, ...]
    measures: dict[Setting, dict[str, Measure]]
    guidance: float
    columns: dict[str, analysis.Ranking]
    places: dict[str, dict[str, tuple[float, float]]]
    agreement: dict[str, analysis.Correlation]
    reason: str
    rates: rates.Rates
    warnings: tuple[str, ...]

    @property
    def datasets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(setting.dataset for setting in self.settings))

    @property
    def ranked(self) -> tuple[str, ...]:
        return tuple(self.columns["all"].average) if self.columns else ()

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the ranks."""
        return tuple(self.columns["all"].by_seed) if self.columns else ()

    @property
    def grids(self) -> dict[str, list[str]]:
        """Grid of sampling times -> the variants that were drawn on it."""
        found: dict[str, list[str]] = {}
        for variant in self.variants:
            for name in dict.fromkeys(m[variant].grid for m in self.measures.values() if variant in m):
                found.setdefault(name, []).append(variant)
        return found

    @property
    def winners(self) -> tuple[str, ...]:
        """The variant with the lowest average rank, or several that share it."""
        average = self.columns["all"].average if self.columns else {}
        return tuple(variant for variant, value in average.items() if value == min(average.values()))


def record(findings: Findings) -> dict[str, Any]:
    """The ranking as plain JSON."""
    return {
        "winners": findings.winners,
        "guidance_of_columns": findings.guidance,
        "seeds": findings.seeds,
        "grids": findings.grids,
        "learning_rates": [sweep.record() for sweep in findings.rates.sweeps],
        "columns": {
            name: {
                "settings": len(column.by_setting),
                "average": column.average,
                "spread_over_settings": column.spread,
                "interval_over_seeds": column.interval,
            }
            for name, column in findings.columns.items()
        },
        "fronts": [
            {**setting._asdict(), "fronts": fronts} for setting, fronts in findings.columns["all"].by_setting.items()
        ]
        if findings.columns
        else [],
        "places": {
            name: {variant: {"ours": a, "paper": b} for variant, (a, b) in column.items()}
            for name, column in findings.places.items()
        },
        "agreement": {
            name: {"value": c.value, "low": c.low, "high": c.high, "n": c.n, "p_value": c.p_value, "note": c.note}
            for name, c in findings.agreement.items()
        },
        "paper": {variant: vars(row) for variant, row in paper.TABLE_1.items()},
        "warnings": findings.warnings,
    }


def find(records: Records) -> Findings:
    """Ranks a contest, as far as it is run."""
    variant_of = lambda rung: canonical(rung.config["flow"]["formulation"])  # noqa: E731
    chosen = rates.choose(records, variant_of, records.config["study"].get("weights", "ema"))
    measures, trouble = measure(chosen.rungs)
    settings = tuple(sorted(measures))
    guidance = reference_guidance(settings)
    columns, dropped = rank(measures, guidance)
    average = columns["all"].average if columns else {}
    seen = {variant: None for found in measures.values() for variant in found}
    published = {v: row.all for v, row in paper.TABLE_1.items()}
    correlation, reason = agreement(average, published)
    said = [*records.states(), *chosen.warnings, *trouble, *dropped, *gaps(records, measures, columns)]
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
        rates=chosen,
        warnings=tuple(dict.fromkeys([*said, *alike(measures, columns)])),
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

    A rank depends on who else is there, so only variants that have every setting of every seed are ranked. A data set
    or a seed that few have got to would leave nobody: those are chosen that allow the most comparisons, pairs of
    variants x settings x seeds.
    """
    seeds = seeds_by_cells(measures)
    datasets = sorted({setting.dataset for setting in measures})
    best: dict[int, dict[Setting, dict[str, tuple[float, float]]]] = {}
    most, used = (0, 0), ((), ())
    for n, k in itertools.product(range(1, len(datasets) + 1), range(1, len(seeds) + 1)):
        for some in itertools.combinations(datasets, n):
            pool = {
                seed: {
                    setting: {v: m.by_seed[seed] for v, m in found.items() if seed in m.by_seed}
                    for setting, found in sorted(measures.items())
                    if setting.dataset in some
                }
                for seed in sorted(seeds[:k])
            }
            cells = [points for rows in pool.values() for points in rows.values()]
            everywhere = set.intersection(*map(set, cells))
            size = (math.comb(len(everywhere), 2) * len(cells), len(cells))
            if size >= most and everywhere:
                best, most, used = pool, size, (some, tuple(seeds[:k]))
    if not best:
        return {}, ["No variant has scores in every setting: there are no average ranks."] if measures else []
    whole = analysis.average_ranks(best)
    said = []
    for variant, missing in whole.missing.items():
        seed, setting = missing[0]
        where = f"{setting}{f', seed {seed}' if len(best) > 1 else ''} ..."
        said.append(f"{variant} is not ranked: it has no scores in {len(missing)} of {most[1]} settings ({where}).")
    for what, all_of, kept in (("on", datasets, used[0]), ("with seed", seeds, used[1])):
        if left := [str(one) for one in all_of if one not in kept]:
            said.append(f"Too few variants have scores {what} {', '.join(left)} yet: the ranks leave it out.")
    columns = {"all": whole}
    for name in ("five", "fifty"):
        keep = kept_by(name, guidance)
        if any(map(keep, whole.by_setting)):
            columns[name] = whole.restricted(keep)
    return columns, said


def seeds_by_cells(measures: Mapping[Setting, Mapping[str, Measure]]) -> list[int]:
    """The seeds, that with the most measurements first."""
    counts: dict[int, int] = {}
    for found in measures.values():
        for seed in itertools.chain(*(m.by_seed for m in found.values())):
            counts[seed] = counts.get(seed, 0) + 1
    return sorted(counts, key=lambda seed: (-counts[seed], seed))


def alike(measures: Mapping[Setting, Mapping[str, Measure]], columns: Mapping[str, analysis.Ranking]) -> list[str]:
    """Sentences on settings where no quantity, or one of the two, tells the variants apart: luck decides there."""
    said = []
    settings = columns["all"].by_setting if columns else {}
    for quantity, error, name in (
        ("score", "stderr", "score"), ("frechet", "frechet_stderr", "Fréchet distance"),
    ):  # fmt: skip
        where = []
        for setting, fronts in settings.items():
            found = [m for v in fronts if (m := measures[setting][v]).drawn]
            values, errors = [getattr(m, quantity) for m in found], [getattr(m, error) for m in found]
            counts = [m.count * len(m.by_seed) for m in found] if quantity == "score" else None
            if len(found) > 1 and (reason := analysis.floored(values, errors, counts)):
                where.append((setting, reason))
        if where:
            setting, reason = where[0]
            said.append(
                f"The {name} does not tell the variants apart in {len(where)} of {len(settings)} settings ({setting}: "
                f"{reason}): what it adds to the fronts there is luck."
            )
    return said


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
