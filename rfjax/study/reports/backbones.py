"""From a study's records to its comparison of backbones: curves, where they end, compute multipliers (SD3 Fig. 4)."""

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rfjax import analysis
from rfjax import config as configs
from rfjax.analysis.multipliers import Estimate, Multiplier, multiplier, over_seeds
from rfjax.study.records import Records, RunRecord
from rfjax.study.reports import contest, correlations, paper, rates
from rfjax.study.reports.measures import finite

LABELS = {"dit": "DiT", "crossdit": "CrossDiT", "uvit": "UViT", "mmdit": "MM-DiT", "mmdit3": "MM-DiT, 3 sets"}
QUANTITIES = ("loss", "score", "frechet")
BUDGETS = ("flops", "steps")  # what multipliers are of
BEGINNING = 4  # who learns fastest is read where this part of the steps is over: a quarter

Pair = tuple[str, str]  # (row, column): backbones by name


class Checkpoint(NamedTuple):
    """What was measured along a run; NaN where it was not."""

    step: int
    examples: int
    flops: float
    seconds: float
    loss: float
    score: float
    frechet: float


@dataclass(frozen=True)
class Trained:
    """One run. points: in order of the steps. final: quantity -> value at the end; empty unless the run is complete."""

    rung: RunRecord
    seed: int
    points: tuple[Checkpoint, ...]
    final: dict[str, float]


@dataclass(frozen=True)
class Backbone:
    """The runs of one backbone, by seed. final: quantity -> mean over its complete runs, with an interval."""

    name: str
    runs: tuple[Trained, ...]
    final: dict[str, Estimate]

    @property
    def label(self) -> str:
        return label(self.name)

    @property
    def size(self) -> dict[str, int]:
        return self.runs[0].rung.size

    @property
    def complete(self) -> tuple[Trained, ...]:
        return tuple(run for run in self.runs if run.final)


@dataclass(frozen=True)
class Beginning:
    """Who leads early: the step, of how many, and backbone -> mean loss there, the lowest first."""

    step: int
    steps: int
    losses: dict[str, float]


@dataclass(frozen=True)
class Findings:
    """All that the report says.

    Attributes:
        backbones: with any run, in the paper's order, then the others. weights: whose losses and scores.
        setting: of the sampler, where there are scores, or "".
        multipliers: "flops", "steps" -> (row, column) -> how many times less the row needs than the column.
        ranked: names by final loss, the lowest first. leads: (better, next) -> difference of their losses, by seed.
        cheapest: the backbone that needs less compute than each other that it compares with, and the nearest of those.
        beginning: who leads early, or None. places: name -> (ours, the paper's) place, 1 the best, of those in both.
        agreement: "Spearman", "Kendall" -> correlation of the two orders. reason: why none.
        rates: the learning rates, and which of them was chosen for whom.
        chance: how many orders agree with the paper's at least as well as ours, and how many orders there are.
        warnings: sentences.
    """

    backbones: tuple[Backbone, ...]
    weights: str
    setting: str
    multipliers: dict[str, dict[Pair, Multiplier]]
    ranked: tuple[str, ...]
    leads: dict[Pair, Estimate]
    cheapest: Pair | None
    beginning: Beginning | None
    places: dict[str, tuple[float, float]]
    agreement: dict[str, analysis.Correlation]
    reason: str
    rates: rates.Rates
    chance: tuple[int, int] | None
    warnings: tuple[str, ...]

    def of(self, name: str) -> Backbone:
        """The backbone of this name."""
        return next(b for b in self.backbones if b.name == name)

    @property
    def scored(self) -> bool:
        """Whether any checkpoint has a score."""
        return any(math.isfinite(p.score) for b in self.backbones for run in b.runs for p in run.points)


def label(name: str) -> str:
    """The paper's way of writing a backbone; those that it has not keep their name."""
    return LABELS.get(name, name)


def find(records: Records) -> Findings:
    """Compares the backbones, as far as they are trained."""
    weights = records.config["study"]["weights"]
    chosen = rates.choose(records, lambda rung: rung.config["model"]["backbone"], weights)
    setting = correlations.main_setting(correlations.pairs(chosen.rungs, weights))
    backbones, trouble = _group(chosen.rungs, weights, setting)
    final = {b.name: b.final["loss"].value for b in backbones if b.final}
    ranked = tuple(sorted(final, key=final.__getitem__))
    tables = {x: _multipliers(backbones, x) for x in BUDGETS}
    theirs = {name: float(len(paper.FIG_4) - i) for i, name in enumerate(paper.FIG_4)}
    places = contest.places(final, theirs)
    agreement, reason = contest.agreement(final, theirs)
    return Findings(
        backbones=backbones,
        weights=weights,
        setting=setting,
        multipliers=tables,
        ranked=ranked,
        leads=_leads(backbones, ranked),
        cheapest=_cheapest(ranked, tables["flops"]),
        beginning=_beginning(backbones),
        places=places,
        agreement=agreement,
        reason=reason,
        rates=chosen,
        chance=_chance(list(places.values())) if agreement else None,
        warnings=tuple(dict.fromkeys([*records.states(), *chosen.warnings, *trouble, *_unlike(chosen, backbones)])),
    )


def _group(rungs: Iterable[RunRecord], weights: str, setting: str) -> tuple[tuple[Backbone, ...], list[str]]:
    """The runs by backbone and seed, from their configs, and sentences on what could not be used."""
    found: dict[str, dict[int, Trained]] = {}
    trouble = []
    for rung in rungs:
        name, seed = rung.config["model"]["backbone"], rung.config["training"]["seed"]
        if seed in found.setdefault(name, {}):
            trouble.append(f"{rung.name} is left out: {found[name][seed].rung.name} has the same backbone and seed.")
            continue
        found[name][seed] = _read(rung, weights, setting)
        if rung.state == "complete" and not found[name][seed].final:
            trouble.append(f"{rung.name} is complete, but has no validation loss at its end: it is not ranked.")
        lines = [line for line in rung.scores if line["weights"] == weights and line["setting"] == setting]
        trouble += [f"{rung.name} at step {line['step']}: {line['problem']}." for line in lines if line.get("problem")]
        if setting and rung.state == "complete" and not lines:
            trouble.append(f"{rung.name} is complete, but without scores at {setting}.")
    order = [name for name in paper.FIG_4 if name in found] + [name for name in found if name not in paper.FIG_4]
    backbones = []
    for name in order:
        runs = tuple(found[name][seed] for seed in sorted(found[name]))
        ends = [run.final for run in runs if run.final]
        values = {q: [end[q] for end in ends if math.isfinite(end[q])] for q in (*QUANTITIES, "flops", "seconds")}
        backbones.append(Backbone(name, runs, {q: over_seeds(numbers) for q, numbers in values.items() if numbers}))
    return tuple(backbones), trouble


def _read(rung: RunRecord, weights: str, setting: str) -> Trained:
    drawn = {s["step"]: s for s in rung.scores if s["weights"] == weights and s["setting"] == setting}
    losses = {line["step"]: line for line in rung.curve(weights)}
    number = lambda line, name: line[name] if finite(line.get(name)) else math.nan  # noqa: E731
    points = tuple(
        Checkpoint(
            *(line[name] for name in ("step", "examples", "flops", "seconds", "loss")),
            *(number(drawn.get(step, {}), name) for name in ("score", "frechet")),
        )
        for step, line in sorted(losses.items())
    )
    end, shown = rung.final(weights), rung.last_scores().get((weights, setting), {})
    final = {}
    if end is not None:
        final = {name: float(end[name]) for name in ("loss", "flops", "seconds")}
        final |= {name: number(shown, name) for name in ("score", "frechet")}
    return Trained(rung, rung.config["training"]["seed"], points, final)


def _multipliers(backbones: Sequence[Backbone], x: str) -> dict[Pair, Multiplier]:
    """Of every two backbones with complete runs: how many times less of x the row needs than the column."""
    field = {"flops": "flops", "steps": "step"}[x]
    curve = lambda run: ([getattr(p, field) for p in run.points], [p.loss for p in run.points])  # noqa: E731
    curves = {b.name: {run.seed: curve(run) for run in b.complete} for b in backbones if b.complete}
    return {(row, column): multiplier(curves[column], curves[row]) for row, column in itertools.permutations(curves, 2)}


def _leads(backbones: Sequence[Backbone], ranked: Sequence[str]) -> dict[Pair, Estimate]:
    """Neighbours in the ranking: by how much the better one's final loss is lower, seed by seed."""
    ends = {b.name: {run.seed: run.final["loss"] for run in b.complete} for b in backbones}
    leads = {}
    for better, worse in itertools.pairwise(ranked):
        differences = [ends[worse][seed] - loss for seed, loss in ends[better].items() if seed in ends[worse]]
        if differences:
            leads[better, worse] = over_seeds(differences)
    return leads


def _cheapest(names: Sequence[str], table: Mapping[Pair, Multiplier]) -> Pair | None:
    """The backbone whose smallest multiplier over another is the largest, and above 1; and that other."""
    best, most = None, 1.0
    for name in names:
        ours = {other: m.at_end.value for (row, other), m in table.items() if row == name and m.at_end}
        nearest = min(ours, key=ours.__getitem__, default=None)
        if nearest is not None and ours[nearest] > most:
            best, most = (name, nearest), ours[nearest]
    return best


def _beginning(backbones: Sequence[Backbone]) -> Beginning | None:
    """The last checkpoint within the first quarter of the steps; the first one, where there is none."""
    runs = [run for b in backbones for run in b.runs]
    steps = sorted({p.step for run in runs for p in run.points})
    if not steps:
        return None
    whole = max(run.rung.steps for run in runs)
    step = max((s for s in steps if s <= whole / BEGINNING), default=steps[0])
    found = {b.name: [p.loss for run in b.runs for p in run.points if p.step == step] for b in backbones}
    means = {name: sum(losses) / len(losses) for name, losses in found.items() if losses}
    return Beginning(step, whole, dict(sorted(means.items(), key=lambda item: item[1])))


def _chance(places: Sequence[tuple[float, float]]) -> tuple[int, int]:
    """Of all orders of as many places: how many have as many pairs as ours in the paper's order, or more."""
    pairs = list(itertools.combinations(range(len(places)), 2))
    theirs = [their for _, their in places]

    def agreeing(ours: Sequence[float]) -> int:
        return sum((ours[i] - ours[j]) * (theirs[i] - theirs[j]) > 0 for i, j in pairs)

    here = agreeing([our for our, _ in places])
    orders = [agreeing(order) for order in itertools.permutations(range(len(places)))]
    return sum(count >= here for count in orders), len(orders)


def _unlike(chosen: rates.Rates, backbones: Sequence[Backbone]) -> list[str]:
    """What keeps the comparison from being one of backbones alone."""
    rungs = [run.rung for b in backbones for run in b.runs]
    said = []
    paths = dict.fromkeys(
        sentence.split()[0]
        for rung in rungs[1:]
        for sentence in configs.differences(_alike(rungs[0].config), _alike(rung.config))
        if not (chosen.sweeps and sentence.split()[0] == rates.AXIS)
    )
    if paths:
        said.append(f"The runs differ in more than backbone and seed ({', '.join(paths)}): they are not trained alike.")
    seeds = {b.label: [run.seed for run in b.complete] for b in backbones}
    if len({tuple(numbers) for numbers in seeds.values()}) > 1:
        shown = "; ".join(f"{name}: {', '.join(map(str, numbers)) or 'none'}" for name, numbers in seeds.items())
        said.append(f"The backbones' complete runs have different seeds ({shown}); multipliers pair those of both.")
    elif backbones and all(len(numbers) == 1 for numbers in seeds.values()):
        said.append("One seed: nothing tells luck from rule, and there are no intervals over seeds.")
    decays = {rung.config["optimizer"]["decay"] for rung in rungs} - {"none"}
    if decays:
        said.append(
            f"The learning rate decays ({', '.join(decays)}): a checkpoint along a run is then not the end of a "
            "shorter run, and a multiplier takes it for one."
        )
    return said


def _alike(config: Mapping[str, dict]) -> dict[str, dict]:
    """A config without what the runs are meant to differ in."""
    plain = json.loads(json.dumps(config))
    plain["model"].pop("backbone")
    plain["training"].pop("seed")
    return plain
