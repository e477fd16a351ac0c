"""What a scaling report must say beside its numbers: whose E it is, what intervals suppose, what seeds tell."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rfjax import analysis
from rfjax.analysis.diagnostics import SUSPICIOUS
from rfjax.study.reports import levels
from rfjax.study.reports.ladder import Point, Step

if TYPE_CHECKING:
    from rfjax.study.reports.trends import LawCheck

# On ladders of 5 to 8 rungs, a rung 4 times beyond: python -m benchmarks.coverage --growth 3 and 5 (docs/results), and
# tests/analysis/test_diagnostics.py, which repeats one of each.
INTERVALS = (
    "Intervals suppose that the law is right and that the noise is equally large, relative to the loss, at every size. "
    "Noise that grows three- to fivefold along the ladder, untold, leaves 95 % at 64 to 92 %; a bend inside the ladder "
    "can leave E outside its interval every time, though predictions still hold."
)
NOT_KNOWN = "one seed: not known"


def examples_seen(points: Sequence[Point], weights: str) -> str:
    """The D of the points in words, "D = 9,216 examples", or a range."""
    seen = sorted({rung.final(weights)["examples"] for point in points for rung in point.runs})
    if not seen:
        return "no examples"
    return f"D = {seen[0]:,} examples" if len(seen) == 1 else f"D = {seen[0]:,} to {seen[-1]:,} examples"


def on_offset(points: Sequence[Point], study: dict[str, Any]) -> str:
    """Whose E the law's is."""
    size = "models" if study["x"] == "parameters" else "models and their compute"
    return (
        f"E is what the law tends to as {size} grow with {examples_seen(points, study['weights'])} seen. It belongs to "
        "these examples: more of them lower it, so it is no floor of the data."
    )


def on_floor(points: Sequence[Point], study: dict[str, Any]) -> str:
    """The part of the loss that no model can lower, and its share of the largest rung's loss."""
    if not points:
        return ""
    final, point = points[-1].runs[0].final(study["weights"]), points[-1]
    if "floors" not in final:
        return "These runs are from before known floors were recorded, so none is shown."
    at, known = levels.times(final["grid"], len(final["levels"])), levels.floors(final)
    told = {k: floor for k, floor in enumerate(known) if floor}
    if not told:
        return f"No level of the grid {final['grid']} has a known floor: every one sees some of the noise."
    k, floor = next(iter(told.items()))
    share = floor / len(known)
    where = f"t = {at[k]:g}" if at else f"level {k}"
    return (
        f"A floor is known at {where} alone: the network sees nothing of the noise there, so no model's loss is below "
        f"{floor:.4g}. That is {share:.4g} of the mean over {len(known)} levels, {share / point.loss:.0%} of "
        f"{point.name}'s loss. At other levels some loss is unavoidable too; how much is not known."
    )


def falls(step: Step) -> str:
    """Whether the loss falls, in a word or two; seeds are the unit, so one seed says nothing."""
    found = step.change
    if found.seed_error is None:
        return NOT_KNOWN
    if found.low is None:
        return "not known"
    return "not clearly" if found.falls is None else "yes" if found.falls else "no, it rises"


def on_steps(steps: Iterable[Step], spread: analysis.Spread | None) -> list[str]:
    """Warnings on rungs that are not lower than the one before, as far as seeds can tell."""
    steps = list(steps)
    said = [f"{s.smaller} and {s.larger} are not compared triple by triple: {s.note}." for s in steps if s.note]
    if steps and spread is None:
        said.append(
            "One seed a rung: how much another seed would change a loss is not known, so neither is whether the loss "
            "falls from one rung to the next. The errors over examples do not say it. Add seeds: "
            "config.study.axes.training.seed."
        )
        return said
    for step in steps:
        found = step.change
        where = f"{found.value:+.4f}"
        if found.low is not None:
            where += f", 95 % over seeds and examples {found.low:+.4f} to {found.high:+.4f}"
        if found.falls is False:
            said.append(
                f"{step.larger} is worse than {step.smaller} ({where}): it is under-trained, or its learning rate does "
                "not suit it."
            )
        elif found.falls is None:
            said.append(f"{step.larger} is not clearly better than {step.smaller} ({where}).")
    return said


def on_law(law: str, check: "LawCheck") -> list[str]:
    """Warnings on a law whose residuals bend, scatter beyond the seeds, or that misses its own rungs."""
    said, bend, misfit = [], check.curvature, check.lack_of_fit
    signs = "".join("+" if value > 0 else "-" for value in check.residuals)
    if bend is not None and bend.p < SUSPICIOUS:
        said.append(
            f"The residuals of {law} bend (signs {signs} by size; p = {bend.p:.2g} against one parameter more): the "
            "law is not quite right, and its E and its predictions far beyond the ladder are not to be trusted."
        )
    if misfit is not None and misfit.p < SUSPICIOUS:
        said.append(
            f"The rungs scatter about {law} by more than their seeds do (F = {misfit.statistic:.2g}, p = "
            f"{misfit.p:.2g}): the law, or the learning rate of some rung, is not quite right."
        )
    missed = [one for one in check.left_out if not one.inside]
    if missed:
        names = ", ".join(f"{one.label} ({100 * one.error:+.1f} %)" for one in missed)
        said.append(f"Predicted from the other rungs by {law}, {names} lies outside the 95 % interval.")
    return said


def on_seeds(points: Sequence[Point], spread: analysis.Spread | None) -> str:
    """Where the errors over seeds come from."""
    if spread is None:
        return "Every rung has one seed, so how much of a change is luck is not known. Errors are over examples alone."
    several = [f"{point.name} ({point.seeds})" for point in points if point.seeds > 1]
    return (
        f"One run's loss varies by {100 * spread.relative:.2g} % with the seed: pooled over {', '.join(several)}, with "
        f"{spread.degrees_of_freedom} degrees of freedom, and taken to be equal at all sizes. Intervals: Student's t "
        "over both errors (Satterthwaite)."
    )
