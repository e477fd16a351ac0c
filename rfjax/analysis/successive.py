"""The verdict by successive rungs: each rung of a ladder is predicted from the smaller ones alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rfjax.analysis.fitting import TooFewPoints
from rfjax.analysis.laws import fit_law


@dataclass(frozen=True)
class Ahead:
    """A rung that a law predicted from the `rungs` smaller ones, with the 95 % interval of its measured loss.

    Attributes:
        times: its size over that of the largest rung of the fit.
        error: predicted / actual - 1.
        baseline: the loss of the rung before.
        baseline_error: baseline / actual - 1.
    """

    law: str
    label: str
    x: float
    times: float
    rungs: int
    actual: float
    predicted: float
    low: float
    high: float
    error: float
    inside: bool
    baseline: float
    baseline_error: float


@dataclass(frozen=True)
class Score:
    """What a law's successive predictions say together: counts, and root mean squares of relative errors."""

    law: str
    rungs: int
    inside: int
    error: float
    baseline_error: float


def successive(
    x: ArrayLike,
    y: ArrayLike,
    *,
    law: str,
    y_stderr: ArrayLike | None = None,
    labels: Sequence[str] | None = None,
    **options: object,
) -> tuple[Ahead, ...]:
    """Predicts each rung by the law of all smaller rungs, from the first whose smaller ones suffice for a fit.

    Arguments as in `fit_law`, one point a rung; losses that are not finite and positive are passed over. Successive
    predictions share points, so hits are not independent; () where no rung has smaller ones enough.
    """
    sizes, losses = np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))
    stderr = None if y_stderr is None else np.asarray(y_stderr, float)
    order = [i for i in np.argsort(sizes, kind="stable").tolist() if np.isfinite(losses[i]) and losses[i] > 0]
    found = []
    for count, i in enumerate(order):
        before = order[:count]
        errors = None if stderr is None else stderr[before]
        try:
            fit = fit_law(sizes[before], losses[before], law=law, y_stderr=errors, **options)
        except TooFewPoints:
            continue
        value, low, high = fit.predict(sizes[i], y_stderr=None if stderr is None else stderr[i])
        actual, last = float(losses[i]), before[-1]
        found.append(
            Ahead(
                law=law,
                label=labels[i] if labels else "",
                x=float(sizes[i]),
                times=float(sizes[i] / sizes[last]),
                rungs=count,
                actual=actual,
                predicted=float(value),
                low=float(low),
                high=float(high),
                error=float(value / actual - 1),
                inside=bool(low <= actual <= high),
                baseline=float(losses[last]),
                baseline_error=float(losses[last] / actual - 1),
            )
        )
    return tuple(found)


def score(ahead: Iterable[Ahead]) -> Score | None:
    """The predictions of one law in one line; None without any."""
    rows = list(ahead)
    if not rows:
        return None
    mean = lambda values: float(np.sqrt(np.mean(np.square(values))))  # noqa: E731
    errors = [mean([one.error for one in rows]), mean([one.baseline_error for one in rows])]
    return Score(rows[0].law, len(rows), sum(one.inside for one in rows), *errors)


def describe(found: Score) -> str:
    """A law's successive predictions in a sentence, beside the baseline."""
    better = "less" if found.error < found.baseline_error else "no less"
    return (
        f"{found.law}, from the smaller rungs alone, held {found.inside} of {found.rungs} rung{'s'[: found.rungs - 1]} "
        f"in its 95 % interval and erred by {100 * found.error:.2g} % (root mean square), {better} than 'the same as "
        f"the rung before', {100 * found.baseline_error:.2g} %."
    )
