"""What a scaling study answers: the question, the interval, the promise, what it rests on, what would narrow it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rfjax import analysis
from rfjax.analysis.promise import Answer, Narrower, Predicted, Promise, answer, narrower
from rfjax.study.records import RunRecord
from rfjax.study.run_records import finite

UNITS = {"parameters": "parameters", "train_flops": "training FLOPs"}
OPEN = 1.0  # a width, relative to the loss: an interval that is wider says nothing
NEAR = 0.01  # relative: a target that is so near to a rung's size is that rung


@dataclass(frozen=True)
class Judged:
    """The answer of the headline's law at the size in question.

    Attributes:
        narrower: the seeds that would narrow the interval, at a cost in seconds of this machine; None for a law of
            another kind than a power of the size, or without costs.
        flops: what these seeds take.
    """

    answer: Answer
    narrower: Narrower | None
    flops: float


def judge(study: dict[str, Any], trend: analysis.Trend, runs: Sequence[RunRecord]) -> tuple[Judged | None, str]:
    """The answer and "", or None and a sentence where a promise can't be judged.

    Args:
        study: the config's section.
        runs: of the trend.
    """
    if not trend.main:
        return None, ""
    x, why = _asked(study, trend, runs)
    if x is None:
        return None, why
    promise = Promise(x, study["promise"], study["promise_probability"])
    found = answer(
        promise, trend.ladder, trend.judged[trend.main], trend.whole.get(trend.main, trend.judged[trend.main])
    )
    by_name = {run.name: run for run in runs}
    first = [[by_name[run.name] for run in rung.runs] for rung in trend.rungs]
    seconds, flops = ([_mean(group, key) for group in first] for key in ("seconds", "flops"))
    fit = trend.judged[trend.main] if found.rung else trend.whole[trend.main]
    more = narrower(found, trend.ladder, fit, seconds)
    spent = dict(zip((rung.name for rung in trend.rungs), flops, strict=True))
    return Judged(found, more, sum(spent[name] * n for name, n in more.runs) if more else 0.0), ""


def _asked(study: dict[str, Any], trend: analysis.Trend, runs: Sequence[RunRecord]) -> tuple[float | None, str]:
    """The size in question on the law's axis; None, and why, where there is none."""
    held = trend.judged[trend.main].held_out
    if not study["promise_at"]:
        return (max(held.x), "") if held else (None, "")
    kind, _, text = study["promise_at"].partition("=")
    try:
        value = float(text)
    except ValueError:
        return None, f"The promise at '{study['promise_at']}' is not judged: it is no size such as parameters=8e9."
    if kind == study["x"]:
        near = [rung.x for rung in trend.rungs if abs(rung.x / value - 1) < NEAR]
        return (near[0] if near else value), ""
    if kind == "depth":
        names = {run.name for run in runs if run.depth == value}
        sizes = [rung.x for rung in trend.rungs if any(run.name in names for run in rung.runs)]
        if sizes:
            return sizes[0], ""
    return None, (
        f"The promise at {study['promise_at']} is not judged: the law is one of {UNITS[study['x']]}, and no rung has "
        f"that {kind}. Set config.study.promise_at={study['x']}=..."
    )


def _mean(runs: Sequence[RunRecord], key: str) -> float:
    values = [run.seconds if key == "seconds" else run.train[-1]["flops"] for run in runs if run.train]
    values = [value for value in values if finite(value)]
    return sum(values) / len(values) if values else 0.0


def sentences(found: Judged, trend: analysis.Trend) -> list[str]:
    """The question, the answer, the promise, what they rest on, and what would narrow the interval."""
    one, ladder = found.answer, trend.ladder
    fit = trend.judged[trend.main] if one.rung else trend.whole[trend.main]
    inside = [rung for rung in ladder.rungs if rung.x in {point.inputs[0] for point in fit.points}]
    runs = sum(rung.seeds for rung in inside)
    what = f"{one.promise.x:.3g} {UNITS[trend.x]}"
    where = f"{one.rung} ({what})" if one.rung else what
    rungs = f"the {len(inside)} rungs that the law has seen"
    said = [f"What is the validation loss at {where}, {one.beyond:.2g} times beyond {rungs}? {interval(one, 'law')}"]
    said += what_came(one, "law")
    noise = (
        f"one run there varies by {ladder.spread.at(one.promise.x):.2%} with its seed "
        f"({ladder.spread.degrees_of_freedom} degrees of freedom)"
        if ladder.spread
        else "the noise between seeds is not known, for every rung has one"
    )
    said.append(
        f"It rests on {runs} runs of {len(inside)} rungs, on the law {trend.main} ({fit.degrees_of_freedom} degrees of "
        f"freedom), on the learning-rate rule, and on {ladder.examples_seen}; {noise}."
    )
    if one.width > OPEN:
        return [*said, "No number of seeds makes it useful: rungs that follow one law would, and more of them."]
    return [*said, *_on_narrowing(found)]


def what_came(one: Predicted, law: str, runs: str = "") -> list[str]:
    """What was measured, and whether the promise was kept; law: what said it, runs: the names of those measured."""
    said = []
    if one.measured is not None:
        lies = "inside" if one.inside else "outside"
        of = f" ({runs})" if runs else ""
        said.append(
            f"Measured afterwards{of}: {one.measured:.4f}, {lies} the interval; the {law} is {one.error:+.2%} off."
        )
    if one.kept is not None:
        said.append(
            f"Promised: an interval of at most {one.promised:.1%}, with probability {one.probability:.0%}. It is "
            f"{one.width:.1%} wide: {'kept' if one.kept else 'not kept'}."
        )
    return said


def interval(one: Predicted, law: str) -> str:
    """The answer with its interval; law: what says it."""
    ends = f"{one.low:.4g} to {one.high:.4g}"
    if one.width > OPEN:
        return f"The {law} leaves that open: its 95 % interval, {ends}, is wider than the loss itself."
    return f"{one.value:.4f}, 95 % interval {one.low:.4f} to {one.high:.4f} ({one.width:.1%} wide)."


def _on_narrowing(found: Judged) -> list[str]:
    more = found.narrower
    if more is None:
        return []
    if not more.runs:
        return [
            f"More seeds alone would not narrow it much: with any number of them it stays above {more.least:.1%}, for "
            "one new run's own luck and the law's few degrees of freedom remain. Further rungs add those."
        ]
    runs = ", ".join(f"{n} of {name}" for name, n in more.runs)
    count = sum(n for _, n in more.runs)
    return [
        f"To narrow it to {more.width:.1%}: {count} more run{'s'[: count != 1]} ({runs}), about {more.cost:.0f} s here "
        f"or {found.flops:.2e} FLOPs; no number of seeds goes below {more.least:.1%}."
    ]
