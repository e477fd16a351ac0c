"""From a study's records to its findings: the law, the held-out verdict, the surface, the warnings. Imports no JAX."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rfjax import analysis
from rfjax.study.records import Records, RunRecord
from rfjax.study.reports import caveats, correlations, ladder, levels
from rfjax.study.reports.ladder import Ladder, Point, Step, finite

SETTLED = 0.02  # a training loss that clearly falls by more than this over the last quarter of a run is still falling
SURFACE_FROM = 0.1  # share of a run before which its checkpoints are no part of L(N, D): the warm-up and its wake


@dataclass(frozen=True)
class Sweep:
    """The loss against the learning rate at one depth; `best` is where a parabola through the best three is lowest.

    seeds: runs behind each loss. lost: rates that left no loss. at_edge: `best` is a rate without a loss on one side.
    """

    depth: int
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    seeds: tuple[int, ...]
    lost: tuple[float, ...]
    best: float
    at_edge: bool


@dataclass(frozen=True)
class LawCheck:
    """How a law of all rungs stands up; None, or (), and a reason, where there are too few rungs to say."""

    residuals: tuple[float, ...]
    left_out: tuple[analysis.LeftOut, ...]
    curvature: analysis.Check | None
    lack_of_fit: analysis.Check | None
    reason: str


@dataclass(frozen=True)
class Findings:
    """All that a report says.

    Attributes:
        study: the config's section.
        ladder: points of the trend, by size, what is no part of it, and the spread between seeds.
        judged: the fit of each law without the held-out rungs. whole: the same with all rungs, for looking further
            ahead. reason: why the headline's law, or why no fit. checks: of each whole fit.
        levels: the loss above the known floor, level by level.
        steps: changes along the ladder. sweeps: learning rates, where they vary.
        rate_exponent: slope of log(best rate) against log(depth) and its standard error, from the sweeps.
        surface, cuts, budgets: L(N, D), its IsoFLOP cuts, where the study asks for them.
        scored, relations: checkpoints with scores of their samples, and how the loss goes with those.
        warnings: sentences.
    """

    study: dict[str, Any]
    ladder: Ladder
    judged: dict[str, analysis.LawFit]
    whole: dict[str, analysis.LawFit]
    reason: str
    checks: dict[str, LawCheck]
    levels: tuple[levels.Row, ...]
    steps: tuple[Step, ...]
    sweeps: tuple[Sweep, ...]
    rate_exponent: tuple[float, float] | None
    surface: analysis.SurfaceFit | None
    cuts: tuple[analysis.IsoFlop, ...]
    optimum: tuple[float, analysis.Allocation] | None
    scored: tuple[correlations.Pair, ...]
    relations: tuple[correlations.Relation, ...]
    warnings: tuple[str, ...]

    @property
    def points(self) -> tuple[Point, ...]:
        return self.ladder.points


def find(records: Records) -> Findings:
    """Fits and judges a study."""
    study = records.config["study"]
    made = ladder.build(records.rungs, study["x"], study["weights"])
    judged, whole, reason = {}, {}, ""
    options = made.fitted | {"objective": study["objective"]}
    try:
        comparison = analysis.compare_laws(hold_out=study["hold_out"], **options)
        judged, reason = comparison.fits, comparison.reason
        whole = analysis.compare_laws(hold_out=0, **options).fits
    except analysis.TooFewPoints as error:
        reason = f"There are too few finished rungs for a law: {error}"
    behind = [rung for point in made.points for rung in point.runs]
    surface, cuts, optimum, trouble = surface_of(behind, study) if study["surface"] else (None, (), None, ())
    if study["surface"] and (rest := {rung.name for rung in records.rungs} - {rung.name for rung in behind}):
        trouble = (*trouble, f"L(N, D) is of the trend's runs alone, without {', '.join(sorted(rest))}.")
    scored = correlations.pairs(records.rungs, study["weights"])
    steps = ladder.paired_steps(made.points, study["weights"], made.spread)
    sweeps = rate_sweeps(records.rungs, study["weights"])
    checks = {law: check(fit, made, options) for law, fit in whole.items()}
    main = study["law"] if study["law"] in judged else next(iter(judged), "")
    warnings = [
        *records.states(),
        *made.said,
        *([sentence for sentence in judged[main].warnings if "was left out" not in sentence] if main else []),
        *(caveats.on_law(main, checks[main]) if main in checks else []),
        *trouble,
        *caveats.on_steps(steps, made.spread),
        *ladder_warnings(records, sweeps),
    ]
    return Findings(
        study=study,
        ladder=made,
        judged=judged,
        whole=whole,
        reason=reason,
        checks=checks,
        levels=levels.rows(made.points, study),
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


def check(fit: analysis.LawFit, made: Ladder, options: dict[str, Any]) -> LawCheck:
    """Residuals, each rung from the others, curvature, and the scatter beside that of the seeds."""
    left_out, reason = (), ""
    try:
        left_out = analysis.leave_one_out(law=fit.law, **options)
    except analysis.TooFewPoints as error:
        reason = str(error)
    spread = made.spread
    misfit = None if spread is None else analysis.lack_of_fit(fit, spread.degrees_of_freedom)
    return LawCheck(tuple(analysis.residuals(fit).tolist()), left_out, analysis.curvature(fit), misfit, reason)


def _rate(rung: RunRecord) -> float:
    return rung.config["optimizer"]["learning_rate"]


def rate_sweeps(rungs: Sequence[RunRecord], weights: str) -> tuple[Sweep, ...]:
    """For each depth that was trained at three learning rates or more, where the loss is lowest."""
    sweeps = []
    for depth in sorted({rung.depth for rung in rungs}):
        losses: dict[float, list[float]] = {}
        for rung in rungs:
            if rung.depth == depth:
                known = [rung.final(weights)["loss"]] if ladder.usable(rung, weights) else []
                losses.setdefault(_rate(rung), []).extend(known)
        rates = sorted(rate for rate, values in losses.items() if values)
        if len(rates) < 3:
            continue
        means = [float(np.mean(losses[rate])) for rate in rates]
        lost = tuple(sorted(rate for rate, values in losses.items() if not values))
        best, edge = _lowest(rates, means)
        sweeps.append(Sweep(depth, tuple(rates), tuple(means), tuple(len(losses[r]) for r in rates), lost, best, edge))
    return tuple(sweeps)


def _lowest(rates: list[float], means: list[float]) -> tuple[float, bool]:
    """The rate of the lowest loss, by a parabola where it has a neighbour on both sides; and whether it has not."""
    low = int(np.argmin(means))
    if low in (0, len(rates) - 1):
        return rates[low], True
    u = np.log(rates[low - 1 : low + 2])
    curve = np.polyfit(u - u[1], means[low - 1 : low + 2], 2)
    inside = curve[0] > 0 and abs(curve[1]) < 2 * curve[0] * max(u[2] - u[1], u[1] - u[0])
    return (float(np.exp(u[1] - curve[1] / (2 * curve[0]))) if inside else rates[low]), False


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
    rungs: Sequence[RunRecord], study: dict[str, Any]
) -> tuple[
    analysis.SurfaceFit | None, tuple[analysis.IsoFlop, ...], tuple[float, analysis.Allocation] | None, tuple[str, ...]
]:
    """L(N, D) from the checkpoints along each run, IsoFLOP cuts, and the best use of the largest budget."""
    rows = [
        (rung.size["parameters"], line["examples"], line["loss"], line["flops"], rung.name)
        for rung in rungs
        for line in rung.curve(study["weights"])
        if line["step"] >= SURFACE_FROM * rung.steps and finite(line["loss"])
    ]
    if not rows:
        return None, (), None, ("L(N, D) needs finished rungs: there are none.",)
    n, d, loss, flops, names = zip(*rows, strict=True)
    try:
        fit = analysis.fit_surface(n, d, loss, hold_out=study["hold_out"], groups=names, labels=names)
    except (analysis.TooFewPoints, ValueError) as error:
        return None, (), None, (f"L(N, D) was not fitted: {error}",)
    of_run = {name: [f for f, run in zip(flops, names, strict=True) if run == name] for name in dict.fromkeys(names)}
    reach, floor = sorted(map(max, of_run.values())), sorted(map(min, of_run.values()))
    budgets = np.geomspace(floor[len(floor) // 2], reach[len(reach) // 2], 5)
    said = list(fit.warnings)
    try:
        cuts = analysis.isoflop(*_averaged(n, d, loss, flops), budgets)
    except ValueError as error:
        cuts = ()
        said.append(f"IsoFLOP curves were not drawn: {error}")
    per = float(np.exp(np.mean(np.log(np.array(flops) / np.array(n, float) / np.array(d)))))
    try:
        return fit, cuts, (reach[-1], fit.optimal_allocation(reach[-1], per)), tuple(said)
    except ValueError as error:
        return fit, cuts, None, (*said, str(error))


def _averaged(*columns: Sequence[float]) -> list[list[float]]:
    """n, d, loss, flops with the loss averaged over seeds: one curve for each n."""
    cells: dict[tuple[float, ...], list[float]] = {}
    for n, d, loss, flops in zip(*columns, strict=True):
        cells.setdefault((n, d, flops), []).append(loss)
    return [list(column) for column in zip(*((n, d, np.mean(v), f) for (n, d, f), v in cells.items()), strict=True)]


def ladder_warnings(records: Records, sweeps: Sequence[Sweep]) -> list[str]:
    """What a careful reader should know of the single runs before trusting the trend."""
    said = []
    falling = {rung.name: fall for rung in records.rungs if (fall := late_fall(rung)) is not None}
    if falling:
        worst = max(falling, key=falling.__getitem__)
        said.append(
            f"Under-trained: the training loss of {', '.join(falling)} still fell by more than {SETTLED:.0%} over the "
            f"last quarter ({worst}: {falling[worst]:.1%}). The law holds for this number of steps only."
        )
    for sweep in sweeps:
        if sweep.at_edge:
            beyond = [rate for rate in sweep.lost if rate > sweep.best]
            why = f"; beyond it, {', '.join(f'{rate:g}' for rate in beyond)} left no loss" if beyond else ""
            said.append(
                f"The best learning rate of depth {sweep.depth}, {sweep.best:g}, is at the edge of its sweep{why}."
            )
        elif sweep.lost:
            said.append(f"Depth {sweep.depth}: no loss at rate {', '.join(f'{rate:g}' for rate in sweep.lost)}.")
        if len(set(sweep.seeds)) > 1:
            said.append(f"Depth {sweep.depth}: the rates rest on different numbers of seeds, {sweep.seeds}.")
    return said


def late_fall(rung: RunRecord) -> float | None:
    """By how much the training loss still fell over the last quarter, where that is clear and more than SETTLED."""
    found = analysis.late_fall([line["loss"] for line in rung.train if finite(line["loss"])])
    return found[0] if found and found[0] > SETTLED and found[1] > 0 else None
