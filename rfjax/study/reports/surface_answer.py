"""What a study of depths and token budgets answers: the question, the interval, the promise, what it rests on."""

from collections.abc import Sequence
from typing import Any

from rfjax import analysis
from rfjax.analysis.surface_promise import SurfaceAnswer, SurfacePoint, answer_by_surface
from rfjax.study.records import RunRecord
from rfjax.study.reports.scaling_answer import interval, what_came
from rfjax.study.targets import Target


def judge_surface(
    study: dict[str, Any], target: Target, points: Sequence[SurfacePoint], runs: Sequence[RunRecord]
) -> tuple[SurfaceAnswer | None, str]:
    """The answer and "", or None and a sentence where a promise can't be judged.

    Args:
        study: the config's section.
        target: what its promise is about.
        points: of the surface.
        runs: of the study.
    """
    said = f"The promise at {study['promise_at']} is not judged"
    if not study["surface"]:
        return None, f"{said}: it is one of a surface L(N, D), and config.study.surface = False fits none."
    sizes = {float(run.depth): float(run.size["parameters"]) for run in runs}
    n = target.value if target.kind == "parameters" else sizes.get(target.value)
    if n is None:
        return None, f"{said}: no run has that depth. Write config.study.promise_at=parameters=...,examples=..."
    promised = (study["promise"], study["promise_probability"])
    try:
        return answer_by_surface(points, (n, target.examples), study["objective"], promised), ""
    except analysis.TooFewPoints as error:
        return None, f"{said}: {error}"


def sentences(found: SurfaceAnswer) -> list[str]:
    """The question, the answer, the promise, and what they rest on."""
    fit = found.fit
    most_n, most_d = (max(point.inputs[i] for point in fit.points) for i in (0, 1))
    beyond = f"{found.n / most_n:.2g} times the size and {found.d / most_d:.2g} times the examples of the largest run"
    where = f"{found.n:.3g} parameters on {found.d:,.0f} examples"
    said = [f"What is the validation loss of {where}, {beyond} that the surface has seen? {interval(found, 'surface')}"]
    said += what_came(found, "surface", ", ".join(found.names))
    depths, budgets = (len({point.inputs[i] for point in fit.points}) for i in (0, 1))
    bounds = f", with {' and '.join(fit.bounds_hit)} on its bound" if fit.bounds_hit else ""
    return [
        *said,
        f"It rests on the ends of {len(fit.points)} runs of {depths} sizes and {budgets} budgets in "
        f"{fit.degrees_of_freedom + 1} independent groups (branches share their trunk's luck), on L = E + A N^-alpha + "
        f"B D^-beta by {fit.objective.replace('_', ' ')}{bounds}, on the learning-rate rule, and on fresh examples; "
        f"one run lies {fit.scatter:.2%} off the surface of the others.",
    ]
