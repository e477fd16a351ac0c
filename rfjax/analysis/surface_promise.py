"""The surface's answer at a size and a number of examples, and whether the width that was promised there was kept."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rfjax.analysis.laws import SurfaceFit, fit_surface
from rfjax.analysis.promise import Predicted

SAME = 0.01  # relative: parameters and examples that are so near to a run's are the run's


@dataclass(frozen=True)
class SurfacePoint:
    """The end of a run: parameters, examples, loss, the trunk whose luck it shares (or itself), its name."""

    n: float
    d: float
    loss: float
    group: str
    name: str


@dataclass(frozen=True)
class SurfaceAnswer(Predicted):
    """What the surface says of one new run's loss.

    Attributes:
        n, d: the target's.
        promised, probability: the width, relative to the value, and with which probability; 0: nothing was promised.
        low, high: the 95 % interval of one new run's loss.
        fit: of all points but those that share a trunk with the target's own runs.
        measured: their mean loss there; None where none is trained, and `names` theirs.
    """

    n: float
    d: float
    promised: float
    probability: float
    value: float
    low: float
    high: float
    fit: SurfaceFit
    measured: float | None
    names: tuple[str, ...]


def answer_by_surface(
    points: Sequence[SurfacePoint], target: tuple[float, float], objective: str, promised: tuple[float, float]
) -> SurfaceAnswer:
    """Fits L(N, D) to all ends of runs, as a design's simulations do, and asks it at the target.

    Args:
        target: parameters and examples.
        objective: of the fit.
        promised: the width, and its probability.

    Raises:
        TooFewPoints: where the points, or those that share no trunk with the target's own runs, are too few.
    """
    n, d = target
    there = [one for one in points if abs(one.n / n - 1) < SAME and abs(one.d / d - 1) < SAME]
    apart = {one.group for one in there}
    kept = [one for one in points if one.group not in apart]
    columns = ([getattr(one, key) for one in kept] for key in ("n", "d", "loss", "group", "name"))
    sizes, examples, losses, groups, names = columns
    fit = fit_surface(sizes, examples, losses, objective=objective, groups=groups, labels=names)
    measured = float(np.mean([one.loss for one in there])) if there else None
    return SurfaceAnswer(n, d, *promised, *fit.predict(n, d), fit, measured, tuple(one.name for one in there))
