"""A contest of variants: what each reached in every setting of the sampler, and its ranks (SD3 section 5.1)."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rfjax.analysis.correlation import floored
from rfjax.analysis.ranking import BETTER, Agreement, Ranking, Seed, agreement, average_ranks

GUIDANCE = 5.0  # of the columns "5 steps" and "50 steps", of Table 2 and of Fig. 3
COLUMNS = {"all": None, "five": 5, "fifty": 50}  # of Table 1 -> steps of the settings that the column averages


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
    """What one variant reached in one setting; NaN where a number is not known.

    Attributes:
        values: quantity -> value; infinite and the worst where pictures are not finite.
        errors: quantity -> standard error over pictures.
        floors: quantity -> value of as many true pictures.
        parts: quantity -> its parts, such as a score by skill.
        by_seed: seed -> quantity -> value."""

    values: Mapping[str, float]
    errors: Mapping[str, float]
    floors: Mapping[str, float]
    parts: Mapping[str, Mapping[str, float]]
    path_length: float
    step: int
    count: int
    grid: str
    by_seed: Mapping[Seed, Mapping[str, float]]

    @property
    def drawn(self) -> bool:
        """Whether there are pictures: all numbers finite."""
        return all(map(math.isfinite, self.values.values()))


def mean_measure(found: Sequence[Measure]) -> Measure:
    """The mean of runs that differ by their seed; several runs of one seed count as their mean."""
    mean = lambda values: float(np.mean(list(values)))  # noqa: E731
    keys, seeds = found[0].values, dict.fromkeys(seed for m in found for seed in m.by_seed)
    names = {q: dict.fromkeys(itertools.chain(*(m.parts[q] for m in found))) for q in found[0].parts}
    return Measure(
        values={q: mean(m.values[q] for m in found) for q in keys},
        errors={q: math.sqrt(sum(m.errors[q] ** 2 for m in found)) / len(found) for q in keys},
        floors={q: mean(m.floors[q] for m in found) for q in keys},
        parts={q: {k: mean(m.parts[q].get(k, math.nan) for m in found) for k in of} for q, of in names.items()},
        path_length=mean(m.path_length for m in found),
        step=found[-1].step,
        count=found[-1].count,
        grid=", ".join(dict.fromkeys(m.grid for m in found)),
        by_seed={seed: {q: mean(m.values[q] for m in found if seed in m.by_seed) for q in keys} for seed in seeds},
    )


@dataclass(frozen=True)
class Contest:
    """The ranks of a contest.

    Attributes:
        variants: the ranked ones, the best first, then the others.
        guidance: of the columns by steps.
        columns: "all", "five", "fifty" -> average ranks, as in Table 1; without a column that has no settings.
        agreements: column -> how its ranks agree with the paper's."""

    variants: tuple[str, ...]
    measures: Mapping[Setting, Mapping[str, Measure]]
    guidance: float
    columns: dict[str, Ranking]
    agreements: dict[str, Agreement]
    warnings: tuple[str, ...]

    @property
    def settings(self) -> tuple[Setting, ...]:
        return tuple(sorted(self.measures))

    @property
    def datasets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(setting.dataset for setting in self.settings))

    @property
    def ranked(self) -> tuple[str, ...]:
        return tuple(self.columns["all"].average) if self.columns else ()

    @property
    def seeds(self) -> tuple[Seed, ...]:
        return tuple(self.columns["all"].by_seed) if self.columns else ()

    @property
    def fronts(self) -> dict[Setting, dict[str, float]]:
        """Setting -> variant -> number of its front."""
        return self.columns["all"].by_setting if self.columns else {}

    @property
    def grids(self) -> dict[str, list[str]]:
        """Schedule of sampling times -> the variants that were drawn on it."""
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

    @property
    def verdict(self) -> str:
        """Who has the best average rank, in a sentence."""
        column, seeds = self.columns["all"], len(self.seeds)
        interval, span = column.interval[self.winners[0]], " (one seed: what another would change is not known)"
        if interval:
            span = f" (95 % interval over {seeds} seeds {interval[0]:.2f} to {interval[1]:.2f})"
        verb = "has" if len(self.winners) == 1 else "share"
        return (
            f"{' and '.join(self.winners)} {verb} the best average rank: {column.average[self.winners[0]]:.2f}{span} "
            f"of {len(self.ranked)} variants over {len(column.by_setting)} settings."
        )

    @property
    def on_grids(self) -> str:
        """Which variants were drawn on which sampling times, in a sentence."""
        *few, (most, _) = sorted(self.grids.items(), key=lambda item: len(item[1]))
        parts = [*(f"{name} for {', '.join(who)}" for name, who in few), f"{most} for {'the others' if few else 'all'}"]
        return f"Grid of sampling times: {'; '.join(parts)}."

    def on_luck(self, quantity: str, label: str, fraction: bool) -> list[str]:
        """A sentence on settings whose variants a quantity does not tell apart; fraction: it is one of pictures."""
        where = []
        for setting, ranks in self.fronts.items():
            found = [m for v in ranks if (m := self.measures[setting][v]).drawn]
            values, errors = [m.values[quantity] for m in found], [m.errors[quantity] for m in found]
            counts = [m.count * len(m.by_seed) for m in found] if fraction else None
            if len(found) > 1 and (reason := floored(values, errors, counts)):
                where.append(f"{setting}: {reason}")
        if not where:
            return []
        return [
            f"The {label} does not tell the variants apart in {len(where)} of {len(self.fronts)} settings ({where[0]}):"
            " what it adds to the fronts there is luck."
        ]

    def gaps(self, asked: int, samplers: Iterable[tuple[int, float]]) -> list[str]:
        """Sentences on what is missing of the variants that were asked for and of the paper's (steps, guidance)."""
        settings, said = set(self.measures), []
        if settings and len(self.ranked) < asked:
            said.append(
                f"{len(self.ranked)} of the study's {asked} variants are ranked. A rank counts fronts among the "
                "variants present: ranks among fewer variants are not comparable with those of the whole contest."
            )
        pairs = sorted({(setting.dataset, setting.weights) for setting in settings})
        lacking = [s for pair in pairs for sampler in samplers if (s := Setting(*pair, *sampler)) not in settings]
        if lacking:
            more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
            shown = "; ".join(map(str, lacking[:3])) + more
            said.append(
                f"Settings of the paper's that nothing was measured at: {shown}. The averages are without them."
            )
        for name, i, theirs in (("weights", 1, "EMA and raw weights"), ("data set", 0, "two data sets")):
            if len(found := {setting[i] for setting in settings}) == 1:
                said.append(f"One {name} only, {found.pop()}: the paper averages over {theirs}.")
        return said

    def parts_setting(self, dataset: str, quantity: str) -> Setting | None:
        """The setting with the most variants, then the highest mean, of those with parts of a quantity."""
        mean: dict[Setting, tuple[int, float]] = {}
        for setting, variants in self.measures.items():
            found = [m for m in variants.values() if m.drawn]
            if setting.dataset == dataset and any(m.parts[quantity] for m in found):
                mean[setting] = (len(found), sum(m.values[quantity] for m in found) / len(found))
        return max(mean, key=mean.__getitem__, default=None)

    def record(self) -> dict[str, Any]:
        columns = {
            name: {"settings": len(c.by_setting), "average": c.average, "spread_over_settings": c.spread,
                   "interval_over_seeds": c.interval}
            for name, c in self.columns.items()
        }  # fmt: skip
        places = {
            name: {v: {"ours": ours, "paper": theirs} for v, (ours, theirs) in one.places.items()}
            for name, one in self.agreements.items()
        }
        fields = ("value", "low", "high", "n", "p_value", "note")
        found = self.agreements["all"].correlations if self.columns else {}
        return {
            "columns": columns,
            "fronts": [{**setting._asdict(), "fronts": fronts} for setting, fronts in self.fronts.items()],
            "places": places,
            "agreement": {name: {key: getattr(c, key) for key in fields} for name, c in found.items()},
        }


def analyse_contest(
    found: Mapping[Setting, Mapping[str, Measure]],
    better: Mapping[str, str],
    published: Mapping[str, Mapping[str, float]],
) -> Contest:
    """Ranks a contest, as far as it is run.

    Args:
        found: setting -> variant -> what it reached.
        better: quantity -> "higher" or "lower".
        published: column -> variant -> the paper's average rank.
    """
    scales = [s.guidance for s in sorted(found)]  # where 5 was not measured, the one that most settings have
    guidance = GUIDANCE if GUIDANCE in scales or not scales else max(sorted(set(scales)), key=scales.count)
    pool = {s: {v: {seed: tuple(values.values()) for seed, values in m.by_seed.items()} for v, m in variants.items()}
            for s, variants in found.items()}  # fmt: skip
    whole, said = rank_most(pool, tuple(better.values()))
    columns: dict[str, Ranking] = {}
    for name, steps in COLUMNS.items():  # those by steps hold quarters, so 4 settings: one guidance
        keep = lambda s, steps=steps: steps is None or (s.steps, s.guidance) == (steps, guidance)  # noqa: E731
        if whole and any(map(keep, whole.by_setting)):
            columns[name] = whole.restricted(keep) if steps else whole
    average = columns["all"].average if columns else {}
    seen = dict.fromkeys(itertools.chain(average, *found.values()))
    agreements = {name: agreement(column.average, published[name]) for name, column in columns.items()}
    return Contest(tuple(seen), found, guidance, columns, agreements, tuple(said))


def rank_most(
    measured: Mapping[Setting, Mapping[str, Mapping[Seed, Sequence[float]]]], better: Sequence[str] = BETTER
) -> tuple[Ranking | None, list[str]]:
    """Ranks where most can be compared, and says in sentences what that leaves out.

    A data set or a seed that few have got to would leave none to rank (see `average_ranks`): those are chosen that
    allow the most comparisons, pairs of names x settings x seeds.

    Args:
        measured: setting, whose first entry is the data set, -> name -> seed -> a value of each quantity.
        better: of each quantity, "higher" or "lower".
    """
    counts = Counter(seed for found in measured.values() for by_seed in found.values() for seed in by_seed)
    seeds = sorted(counts, key=lambda seed: (-counts[seed], seed))  # the one with the most measurements first
    datasets = sorted({setting[0] for setting in measured})
    best: dict[Seed, dict[Setting, dict[str, Sequence[float]]]] = {}
    most, used = (0, 0), ((), ())
    for n, k in itertools.product(range(1, len(datasets) + 1), range(1, len(seeds) + 1)):
        for some in itertools.combinations(datasets, n):
            pool = {
                seed: {
                    setting: {name: by_seed[seed] for name, by_seed in found.items() if seed in by_seed}
                    for setting, found in sorted(measured.items())
                    if setting[0] in some
                }
                for seed in sorted(seeds[:k])
            }
            cells = [points for rows in pool.values() for points in rows.values()]
            everywhere = set.intersection(*map(set, cells))
            size = (math.comb(len(everywhere), 2) * len(cells), len(cells))
            if size >= most and everywhere:
                best, most, used = pool, size, (some, tuple(seeds[:k]))
    if not best:
        return None, ["No variant has scores in every setting: there are no average ranks."] if measured else []
    ranking = average_ranks(best, better)
    said = []
    for name, missing in ranking.missing.items():
        seed, setting = missing[0]
        where = f"{setting}{f', seed {seed}' if len(best) > 1 else ''} ..."
        said.append(f"{name} is not ranked: it has no scores in {len(missing)} of {most[1]} settings ({where}).")
    for what, all_of, kept in (("on", datasets, used[0]), ("with seed", seeds, used[1])):
        if left := [str(one) for one in all_of if one not in kept]:
            said.append(f"Too few variants have scores {what} {', '.join(left)} yet: the ranks leave it out.")
    return ranking, said
