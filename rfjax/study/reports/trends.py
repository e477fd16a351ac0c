"""From a study's records to its findings: the law, the held-out verdict, the surface, the warnings. Imports no JAX."""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from rfjax import analysis
from rfjax.study.records import Records, Rung
from rfjax.study.reports import correlations

SETTLED = 0.02  # a training loss that falls by more than this over the last quarter of a run is still falling
SURFACE_FROM = 0.1  # share of a run before which its checkpoints are no part of L(N, D): the warm-up and its wake
NORMAL_95 = 1.96


@dataclass(frozen=True)
class Point:
    """A rung of the trend: the best learning rate's runs of one size, averaged over seeds.

    Attributes:
        name: of the run, or of the first of several seeds. x: the size. loss: validation loss.
        stderr: its standard error over examples. seeds: number of runs averaged. spread: standard error over seeds.
    """

    name: str
    x: float
    loss: float
    stderr: float
    seeds: int
    spread: float | None


@dataclass(frozen=True)
class Step:
    """The change of loss from one rung to the next on the same triples: paired, so example noise cancels."""

    smaller: str
    larger: str
    change: float
    stderr: float

    @property
    def falls(self) -> bool:
        return self.change + NORMAL_95 * self.stderr < 0


@dataclass(frozen=True)
class Sweep:
    """The loss against the learning rate at one depth; `best` is where a parabola through the best three is lowest."""

    depth: int
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    best: float
    at_edge: bool


@dataclass(frozen=True)
class Findings:
    """All that a report says.

    Attributes:
        points: of the trend, by size. judged: the fit of each law without the held-out rungs.
        whole: the same with all rungs, for looking further ahead. reason: why the headline's law, or why no fit.
        steps: paired changes along the ladder. sweeps: learning rates, where they vary.
        rate_exponent: slope of log(best rate) against log(depth) and its standard error, from the sweeps.
        surface, cuts, budgets: L(N, D), its IsoFLOP cuts, where the study asks for them.
        scored, relations: checkpoints with scores of their samples, and how the loss goes with those.
        warnings: sentences.
    """

    points: tuple[Point, ...]
    judged: dict[str, analysis.LawFit]
    whole: dict[str, analysis.LawFit]
    reason: str
    steps: tuple[Step, ...]
    sweeps: tuple[Sweep, ...]
    rate_exponent: tuple[float, float] | None
    surface: analysis.SurfaceFit | None
    cuts: tuple[analysis.IsoFlop, ...]
    optimum: tuple[float, analysis.Allocation] | None
    scored: tuple[correlations.Pair, ...]
    relations: tuple[correlations.Relation, ...]
    warnings: tuple[str, ...]

    def records(self) -> list[dict[str, Any]]:
        """Every fit as plain JSON, for fits.json; "held out" fits first."""
        fits = [*self.judged.values(), *self.whole.values(), *([self.surface] if self.surface else [])]
        return [fit.record() for fit in fits]


def find(records: Records) -> Findings:
    """Fits and judges a study."""
    study = records.config["study"]
    done = [rung for rung in records.rungs if rung.final(study["weights"])]
    points = trend_points(done, study["x"], study["weights"])
    judged, whole, reason = {}, {}, ""
    x, y = [p.x for p in points], [p.loss for p in points]
    spread = [p.spread for p in points]
    stderr = None if any(s is None for s in spread) else spread
    options = {"y_stderr": stderr, "objective": study["objective"]}
    try:
        comparison = analysis.compare_laws(x, y, hold_out=study["hold_out"], **options)
        judged, reason = comparison.fits, comparison.reason
        whole = analysis.compare_laws(x, y, hold_out=0, **options).fits
    except analysis.TooFewPoints as error:
        reason = f"There are too few finished rungs for a law: {error}"
    surface, cuts, optimum, trouble = surface_of(done, study) if study["surface"] else (None, (), None, ())
    scored = correlations.pairs(records.rungs, study["weights"])
    steps, sweeps = paired_steps(done, points, study["weights"]), rate_sweeps(done, study["weights"])
    fits = [judged[study["law"]]] if study["law"] in judged else list(judged.values())
    warnings = [
        *(sentence for fit in fits for sentence in fit.warnings),
        *trouble,
        *ladder_warnings(records, steps, sweeps),
    ]
    return Findings(
        points=points,
        judged=judged,
        whole=whole,
        reason=reason,
        steps=steps,
        sweeps=sweeps,
        rate_exponent=rate_exponent(sweeps),
        surface=surface,
        cuts=cuts,
        optimum=optimum,
        scored=scored,
        relations=correlations.relations(scored),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def size_of(rung: Rung, x: str) -> float:
    """A rung's place on the law's axis: its parameters, or the FLOPs of its whole training."""
    return float(rung.size["parameters"] if x == "parameters" else rung.final("raw")["flops"])


def _rate(rung: Rung) -> float:
    return rung.config["optimizer"]["learning_rate"]


def trend_points(rungs: list[Rung], x: str, weights: str) -> tuple[Point, ...]:
    """One point a size: seeds averaged, then the learning rate with the lowest loss."""
    groups: dict[tuple[float, float], list[Rung]] = {}
    for rung in rungs:
        groups.setdefault((size_of(rung, x), _rate(rung)), []).append(rung)
    best: dict[float, Point] = {}
    for (size, _), members in groups.items():
        finals = [rung.final(weights) for rung in members]
        losses = [final["loss"] for final in finals]
        n = len(losses)
        spread = float(np.std(losses, ddof=1) / math.sqrt(n)) if n > 1 else None
        point = Point(members[0].name, size, float(np.mean(losses)), float(finals[0]["stderr"]), n, spread)
        if size not in best or point.loss < best[size].loss:
            best[size] = point
    return tuple(best[size] for size in sorted(best))


def paired_steps(rungs: list[Rung], points: tuple[Point, ...], weights: str) -> tuple[Step, ...]:
    """The change of loss between neighbours of the trend, with the standard error of the paired differences."""
    by_name = {rung.name: rung.examples.get(weights) for rung in rungs}
    steps = []
    for small, large in itertools.pairwise(points):
        a, b = by_name[small.name], by_name[large.name]
        if a is not None and b is not None and len(a) == len(b):
            change = b - a
            by_level = [change[k::8] for k in range(8)]
            error = math.sqrt(sum(level.var(ddof=1) / len(level) for level in by_level)) / 8
            steps.append(Step(small.name, large.name, float(change.mean()), error))
    return tuple(steps)


def rate_sweeps(rungs: list[Rung], weights: str) -> tuple[Sweep, ...]:
    """For each depth that was trained at three learning rates or more, where the loss is lowest."""
    sweeps = []
    for depth in sorted({rung.depth for rung in rungs}):
        losses: dict[float, list[float]] = {}
        for rung in rungs:
            if rung.depth == depth:
                losses.setdefault(_rate(rung), []).append(rung.final(weights)["loss"])
        rates = sorted(losses)
        if len(rates) < 3:
            continue
        means = [float(np.mean(losses[rate])) for rate in rates]
        low = int(np.argmin(means))
        edge = low in (0, len(rates) - 1)
        best = rates[low]
        if not edge:
            u = np.log(rates[low - 1 : low + 2])
            curve = np.polyfit(u - u[1], means[low - 1 : low + 2], 2)
            best = float(np.exp(u[1] - curve[1] / (2 * curve[0])))
        sweeps.append(Sweep(depth, tuple(rates), tuple(means), best, edge))
    return tuple(sweeps)


def rate_exponent(sweeps: tuple[Sweep, ...]) -> tuple[float, float] | None:
    """The slope of log(best learning rate) against log(depth), by least squares, with its standard error."""
    inside = [sweep for sweep in sweeps if not sweep.at_edge]
    if len(inside) < 3:
        return None
    u, v = np.log([s.depth for s in inside]), np.log([s.best for s in inside])
    (slope, cut), residuals = np.polyfit(u, v, 1), None
    residuals = v - (slope * u + cut)
    error = math.sqrt(float((residuals**2).sum()) / (len(u) - 2) / float(((u - u.mean()) ** 2).sum()))
    return float(slope), error


def surface_of(
    rungs: list[Rung], study: dict[str, Any]
) -> tuple[
    analysis.SurfaceFit | None, tuple[analysis.IsoFlop, ...], tuple[float, analysis.Allocation] | None, tuple[str, ...]
]:
    """L(N, D) from the checkpoints along each run, IsoFLOP cuts, and the best use of the largest budget."""
    rows = [
        (rung.size["parameters"], line["examples"], line["loss"], line["flops"], rung.name)
        for rung in rungs
        for line in rung.curve(study["weights"])
        if line["step"] >= SURFACE_FROM * rung.steps
    ]
    if not rows:
        return None, (), None, ("L(N, D) needs finished rungs: there are none.",)
    n, d, loss, flops, names = zip(*rows, strict=True)
    try:
        fit = analysis.fit_surface(n, d, loss, hold_out=study["hold_out"], groups=names)
    except (analysis.TooFewPoints, ValueError) as error:
        return None, (), None, (f"L(N, D) was not fitted: {error}",)
    reach = sorted(max(line["flops"] for line in rung.curve(study["weights"])) for rung in rungs)
    floor = sorted(min(f for f, name in zip(flops, names, strict=True) if name == rung.name) for rung in rungs)
    budgets = np.geomspace(floor[len(floor) // 2], reach[len(reach) // 2], 5)
    cuts = analysis.isoflop(n, d, loss, flops, budgets)
    per = float(np.exp(np.mean(np.log(np.array(flops) / np.array(n, float) / np.array(d)))))
    try:
        optimum = (reach[-1], fit.optimal_allocation(reach[-1], per))
    except ValueError as error:
        return fit, cuts, None, (*fit.warnings, str(error))
    return fit, cuts, optimum, fit.warnings


def ladder_warnings(records: Records, steps: tuple[Step, ...], sweeps: tuple[Sweep, ...]) -> list[str]:
    """What a careful reader should know before trusting the trend."""
    said = records.states()
    for step in steps:
        if not step.falls:
            said.append(
                f"{step.larger} is not clearly better than {step.smaller} ({step.change:+.4f} ± {step.stderr:.4f} on "
                "the same triples): it is under-trained, or its learning rate does not suit it."
            )
    falling = {rung.name: drop for rung in records.rungs if (drop := late_drop(rung)) is not None and drop > SETTLED}
    if falling:
        worst = max(falling, key=falling.__getitem__)
        said.append(
            f"Under-trained: the training loss of {', '.join(falling)} still fell by more than {SETTLED:.0%} over the "
            f"last quarter ({worst}: {falling[worst]:.1%}). The law holds for this number of steps only."
        )
    for sweep in sweeps:
        if sweep.at_edge:
            said.append(f"The best learning rate of depth {sweep.depth}, {sweep.best:g}, is at the edge of its sweep.")
    return said


def late_drop(rung: Rung) -> float | None:
    """By how much, relative, the mean training loss of the last quarter is below that of the quarter before."""
    losses = [line["loss"] for line in rung.train if line["loss"] is not None]
    quarter = len(losses) // 4
    if quarter < 2:
        return None
    return 1 - float(np.mean(losses[-quarter:]) / np.mean(losses[-2 * quarter : -quarter]))
