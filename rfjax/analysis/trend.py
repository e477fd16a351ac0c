"""All that a ladder says: the laws with and without the held-out rungs, their checks, levels, steps, L(N, D)."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rfjax.analysis.choice import SAFE, Choice, choose_law
from rfjax.analysis.diagnostics import LawCheck, check_law, law_warnings
from rfjax.analysis.fit import plain
from rfjax.analysis.fitting import TooFewPoints
from rfjax.analysis.isoflop import IsoFlop, isoflop
from rfjax.analysis.ladder import Ladder, Rung
from rfjax.analysis.laws import Allocation, LawFit, SurfaceFit, compare_laws, fit_law, fit_surface
from rfjax.analysis.level_surfaces import LevelSurface
from rfjax.analysis.levels import WHOLE, Level, analyse_levels
from rfjax.analysis.steps import Step, paired_steps
from rfjax.analysis.successive import Ahead

# On ladders of 5 to 8 rungs, a rung 4 times beyond: python -m benchmarks.coverage --growth 3 and 5 (docs/results), and
# tests/analysis/test_diagnostics.py, which repeats one of each.
INTERVALS = (
    "Intervals suppose that the law is right, and that the noise, relative to the loss, goes with size as the seeds of "
    "three rungs or more show, or else is equally large everywhere. Noise that grows three- to fivefold along the "
    "ladder, untold, leaves 95 % at 64 to 92 %; a bend inside the ladder can leave E outside its interval every time, "
    "though predictions still hold."
)

ENOUGH = (
    "What these rungs do say is how the loss changes from one to the next. Three rungs give a power law "
    "(config.study.hold_out = 0 keeps none out), five a law with an offset that a held-out rung judges: add sizes to "
    "config.study.axes.model.depth."
)

CurvePoint = tuple[int, int, float, float, str]  # parameters, examples, loss, FLOPs, the run's name


@dataclass(frozen=True)
class Surface:
    """L(N, D) of checkpoints along runs or of the ends of branches, IsoFLOP cuts, and (budget, its best use).

    `levels` has L(N, D) of each level of t. There is a warning for what there is not.
    """

    fit: SurfaceFit | None = None
    cuts: tuple[IsoFlop, ...] = ()
    optimum: tuple[float, Allocation] | None = None
    warnings: tuple[str, ...] = ()
    levels: tuple[LevelSurface, ...] = ()


@dataclass(frozen=True)
class Trend:
    """All that a ladder says.

    Attributes:
        judged: the fit of each law without the held-out rungs.
        whole: the same with all rungs, for looking further ahead.
        main: the name of the law that was asked for, or of the only one; "" where there is none.
        reason: why that law, or why no fit.
        choice: every law of all rungs, and what speaks for each.
        warnings: sentences on ladder and laws; `step_warnings` has those on the steps."""

    x: str
    ladder: Ladder
    judged: dict[str, LawFit]
    whole: dict[str, LawFit]
    main: str
    reason: str
    choice: Choice
    checks: dict[str, LawCheck]
    levels: tuple[Level, ...]
    steps: tuple[Step, ...]
    warnings: tuple[str, ...]

    @property
    def rungs(self) -> tuple[Rung, ...]:
        return self.ladder.rungs

    @property
    def on_offset(self) -> str:
        """Whose E the law's is."""
        size = "models" if self.x == "parameters" else "models and their compute"
        return (
            f"E is what the law tends to as {size} grow with {self.ladder.examples_seen} seen. It belongs to these "
            "examples: more of them lower it, so it is no floor of the data."
        )

    def tables(self) -> dict[str, tuple[tuple[str, ...], list[tuple[Any, ...]]]]:
        """Name -> (header, rows): excess (above the known floor), trend, left_out (each rung from the others),
        successive (each from the smaller ones)."""
        excess = [
            (row.name, row.floor, rung.name, rung.x, value)
            for row in self.levels
            for rung, value in zip(self.rungs, row.excess, strict=True)
        ]
        laws = [
            (law, rung.name, rung.x, rung.loss, rung.stderr, rung.error, *map(float, fit.predict(rung.x)))
            for law, fit in self.judged.items()
            for rung in self.rungs
        ]
        left_out = [
            (law, one.label, one.x, one.actual, one.predicted, one.low, one.high, one.inside, one.parameters.get("E"))
            for law, check in self.checks.items()
            for one in check.left_out
        ]
        ahead = [dataclasses.astuple(one) for rows in self.choice.ahead.values() for one in rows]
        predicted = ("predicted", "low", "high")
        return {
            "excess": (("of", "floor", "run", "x", "loss_above_floor"), excess),
            "trend": (("law", "run", "x", "loss", "stderr", "stderr_over_seeds", *predicted), laws),
            "left_out": (("law", "run", "x", "loss", *predicted, "inside", "E_of_the_others"), left_out),
            "successive": (tuple(field.name for field in dataclasses.fields(Ahead)), ahead),
        }


def analyse_trend(ladder: Ladder, x: str, law: str, objective: str, hold_out: int) -> Trend:
    """Fits the laws to a ladder, judges them on the held-out rungs, and checks them.

    Args:
        ladder: the rungs.
        x: what their size is, "parameters" or "train_flops".
        law: the one that is asked for: "power", "power_offset", "broken_power", or "best", the one that the rungs
            without the held-out ones speak for (`choose_law`).
        objective: of the fits.
        hold_out: how many of the largest rungs are kept out and judged.
    """
    judged, whole, reason = {}, {}, ""
    options: dict[str, Any] = ladder.fitted | {"objective": objective}
    choice = choose_law(**options)
    try:
        comparison = compare_laws(hold_out=hold_out, **options)
        judged, reason = comparison.fits, comparison.reason
        whole = compare_laws(hold_out=0, **options).fits
    except TooFewPoints as error:
        reason = f"There are too few finished rungs for a law: {error} {ENOUGH}"
    if law == "best" and judged:
        kept = dataclasses.replace(ladder, rungs=ladder.rungs[: len(ladder.rungs) - hold_out])
        chosen = choose_law(**kept.fitted, objective=objective)
        law, reason = chosen.best, chosen.reason
    if law == "broken_power" and judged:
        try:
            judged = judged | {law: fit_law(law=law, hold_out=hold_out, **options)}
            whole = whole | {law: choice.fits[law]}
        except TooFewPoints as error:
            law, reason = SAFE if SAFE in judged else next(iter(judged)), f"{error} {reason}"
    freedom = ladder.spread and ladder.spread.degrees_of_freedom
    checks = {name: check_law(fit, freedom, **options) for name, fit in whole.items()}
    steps = paired_steps(ladder)
    main = law if law in judged else next(iter(judged), "")
    said = [*ladder.warnings, *_rising(ladder.rungs)]
    said += [s for s in (judged[main].warnings if main else ()) if "was left out" not in s]
    said += law_warnings(main, checks[main]) if main in checks else []
    levels = analyse_levels(ladder.rungs, "power" if law == "power" else SAFE, objective, hold_out)
    return Trend(x, ladder, judged, whole, main, reason, choice, checks, levels, steps, tuple(said))


def _rising(rungs: Sequence[Rung]) -> list[str]:
    """A sentence on a ladder whose loss does not fall with size, for which no law here has a place."""
    if len(rungs) < 2 or min(rung.loss for rung in rungs) <= 0:
        return []
    slope = np.polyfit(np.log([rung.x for rung in rungs]), np.log([rung.loss for rung in rungs]), 1)[0]
    if slope < 0:
        return []
    first, last = rungs[0], rungs[-1]
    return [
        f"The loss does not fall with size ({first.loss:.4g} at {first.name}, {last.loss:.4g} at {last.name}): every "
        "law here falls, so its fit is flat and says nothing of larger models. Large models that are worse are mostly "
        "trained with too high a learning rate or for too few steps: sweep config.study.axes.optimizer.learning_rate, "
        "as configs/scaling.py:learning_rate does, or raise config.training.steps."
    ]


def analyse_surface(points: Sequence[CurvePoint], hold_out: int) -> Surface:
    """L(N, D) from the checkpoints along each run, IsoFLOP cuts, and the best use of the largest budget."""
    if not points:
        return Surface(warnings=("L(N, D) needs finished rungs: there are none.",))
    n, d, loss, flops, names = zip(*points, strict=True)
    try:
        fit = fit_surface(n, d, loss, hold_out=hold_out, groups=names, labels=names)
    except (TooFewPoints, ValueError) as error:
        return Surface(warnings=(f"L(N, D) was not fitted: {error}",))
    of_run = {name: [f for f, run in zip(flops, names, strict=True) if run == name] for name in dict.fromkeys(names)}
    reach, floor = sorted(map(max, of_run.values())), sorted(map(min, of_run.values()))
    budgets = np.geomspace(floor[len(floor) // 2], reach[len(reach) // 2], 5)
    said, cuts, optimum = list(fit.warnings), (), None
    try:
        cells: dict[tuple[float, ...], list[float]] = {}  # one curve for each n: the loss averaged over seeds
        for size, examples, y, compute, _ in points:
            cells.setdefault((size, examples, compute), []).append(y)
        columns = zip(*((size, examples, np.mean(y), c) for (size, examples, c), y in cells.items()), strict=True)
        cuts = isoflop(*map(list, columns), budgets)
    except ValueError as error:
        said.append(f"IsoFLOP curves were not drawn: {error}")
    per = float(np.exp(np.mean(np.log(np.array(flops) / np.array(n, float) / np.array(d)))))
    try:
        optimum = reach[-1], fit.optimal_allocation(reach[-1], per)
    except ValueError as error:
        said.append(str(error))
    return Surface(fit, cuts, optimum, tuple(said))


def fit_records(trend: Trend, surface: Surface) -> list[dict[str, Any]]:
    """Every fit as a record: the laws without the held-out rungs, then with all; L(N, D); the law at each level.

    Where there is no fit, one record with "law": null says why, and which runs are no part of it.
    """
    of = "validation loss, mean over levels"
    common = {
        "offset_means": trend.on_offset,
        "intervals_suppose": INTERVALS,
        "seeds": trend.ladder.on_seeds,
        "no_part_of_it": [{"name": one.name, "x": one.x, "reason": one.reason} for one in trend.ladder.lost],
    }
    judged = "held-out rungs left out"
    made = [{"of": of, "rungs": judged, **common, **fit.record()} for fit in trend.judged.values()]
    for law, fit in trend.whole.items():
        made.append({"of": of, "rungs": "all", **common, **fit.record(), "checks": plain(trend.checks[law])})
    if not made:
        made.append({"of": of, "law": None, "reason": trend.reason, **common})
    if surface.fit is not None:
        which = {"rungs": "checkpoints along the runs", "intervals_suppose": INTERVALS}
        made.append({"of": of, **which, **surface.fit.record()})
    for row in trend.levels:
        if row.fit is not None and row.name != WHOLE:
            which = {"of": f"validation loss, {row.name}", "rungs": judged, "floor": row.floor}
            made.append({**which, **common, **row.fit.record()})
    for row in surface.levels:
        if row.fit is not None:
            which = {"of": f"validation loss, {row.name}", "rungs": "checkpoints along the runs", "floor": row.floor}
            made.append({**which, "intervals_suppose": INTERVALS, **row.fit.record()})
    return [*made, {"of": of, "law": "choice", "rungs": "all", **_choice_record(trend.choice)}]


def _choice_record(choice: Choice) -> dict[str, Any]:
    """What speaks for each law, without the fits themselves but for the law that stands nowhere else."""
    kept = {"fits": {"broken_power": choice.fits["broken_power"]} if "broken_power" in choice.fits else {}}
    return plain({field.name: getattr(choice, field.name) for field in dataclasses.fields(choice)} | kept)
