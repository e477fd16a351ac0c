"""L(N, D) level by level of t: what no size and no data take away, and how the rest falls with each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rfjax.analysis.fitting import TooFewPoints
from rfjax.analysis.laws import SurfaceFit, fit_surface

KNOWN, FREE = "surface_floor", "surface"


@dataclass(frozen=True)
class LevelSurface:
    """One level of t.

    Attributes:
        floor: known, expected; None where none is known.
        fit: of the loss above the known floor, without E where a floor is known: A N^-alpha + B D^-beta. None where
            there is none, and `reason` says why.
    """

    name: str
    t: float | None
    floor: float | None
    fit: SurfaceFit | None
    reason: str

    @property
    def irreducible(self) -> tuple[float, float, float] | None:
        """The level's loss without end of size and data, and its 95 % interval; None where there is no fit."""
        if self.fit is None:
            return None
        floor = self.floor or 0.0
        low, high = self.fit.intervals.get("E", (0.0, 0.0))
        return floor + self.fit.parameters.get("E", 0.0), floor + low, floor + high


def level_surfaces(
    points: Sequence[tuple[float, float, str]],
    above: Sequence[Sequence[float]],
    named: Sequence[tuple[str, float | None, float | None]],
    hold_out: int,
) -> tuple[LevelSurface, ...]:
    """Fits L(N, D) to each level, in squares of the log loss.

    Exponents are of each level alone: shared ones are more certain where levels share them, and wrong where they do not
    (`python -m benchmarks.pitfalls levels`).

    Args:
        points: N, D and the run of each checkpoint or branch; those of one run, or trunk, share its luck.
        above: of each point, the loss of each level above its known floor, or whole where none is known.
        named: name, t and known floor of each level.
        hold_out: how many of the largest N are kept out and judged.
    """
    if not points:
        return ()
    n, d, names = zip(*points, strict=True)
    made = []
    for (name, t, floor), losses in zip(named, np.array(above, float).T, strict=True):
        options = {"objective": "log_squares", "hold_out": hold_out, "groups": names, "labels": names}
        try:
            fit = fit_surface(n, d, losses, law=KNOWN if floor else FREE, **options)
            made.append(LevelSurface(name, t, floor, fit, ", ".join(f"{p.label}: {p.reason}" for p in fit.left_out)))
        except TooFewPoints as error:
            made.append(LevelSurface(name, t, floor, None, str(error)))
    return tuple(made)
