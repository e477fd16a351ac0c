"""Does the validation loss tell how good the samples are? Loss against each quantity (SD3 Fig. 8, lower row)."""

import dataclasses
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rfjax.analysis.correlation import Correlation, floored, pearson, spearman
from rfjax.analysis.fitting import TooFewPoints


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint: its validation loss, and what its samples are worth in one setting; NaN for what is not known.

    Attributes:
        values: quantity -> value.
        errors: quantity -> standard error over pictures.
        floors: quantity -> value of as many true pictures.
        count: of pictures."""

    run: str
    step: int
    setting: str
    sampling_steps: int
    loss: float
    values: Mapping[str, float]
    errors: Mapping[str, float]
    floors: Mapping[str, float]
    count: int = 0


@dataclass(frozen=True)
class Relation:
    """The correlations of the loss with one quantity in one setting.

    They are empty, and `reason` says why, where points are too few or the quantity tells no checkpoints apart.
    """

    setting: str
    quantity: str
    runs: int
    correlations: tuple[Correlation, ...]
    reason: str


def main_setting(found: Iterable[Checkpoint]) -> str:
    """The setting with the most checkpoints; of several, the one with the most steps; "" where there is none."""
    count = Counter((one.sampling_steps, one.setting) for one in found)
    return max(count, key=lambda key: (count[key], key))[1] if count else ""


def relate(
    found: Sequence[Checkpoint], better: Mapping[str, str], fractions: Collection[str] = ()
) -> tuple[Relation, ...]:
    """Pearson's and Spearman's correlation for each setting and quantity; checkpoints of one run are no new runs.

    Args:
        found: the checkpoints.
        better: quantity -> "higher" or "lower".
        fractions: the quantities that are fractions of the pictures.
    """
    made = []
    for setting in dict.fromkeys(one.setting for one in found):
        for quantity in better:
            there = [p for p in found if p.setting == setting]
            points = [p for p in there if math.isfinite(p.values[quantity])]
            x, y = [p.loss for p in points], [p.values[quantity] for p in points]
            groups = [p.run for p in points]
            both, alike = (), why_alike(points, quantity, better[quantity], quantity in fractions)
            reason = f"Not printed, for it tells no checkpoints apart: {alike}." if alike else ""
            try:
                both = () if alike else (pearson(x, y, groups=groups), spearman(x, y, groups=groups))
            except TooFewPoints as error:
                reason = str(error)
            if both and (out := [f"{p.run} at step {p.step}" for p in there if p not in points]):
                shown = ", ".join(out[:3]) + (f" and {len(out) - 3} more" if len(out) > 3 else "")
                note = f"At {setting} without a finite {quantity}, and left out: {shown}. {both[0].note}".strip()
                both = (dataclasses.replace(both[0], note=note), both[1])
            made.append(Relation(setting, quantity, len(set(groups)), both, reason))
    return tuple(made)


def why_alike(points: Sequence[Checkpoint], quantity: str, better: str, fraction: bool) -> str:
    """Why a quantity says nothing of these checkpoints: all are as near as true pictures, or luck tells them apart."""
    values, errors = [p.values[quantity] for p in points], [p.errors[quantity] for p in points]
    sign = 1 if better == "lower" else -1
    if points and all(
        sign * v <= sign * p.floors[quantity] + 2 * e for p, v, e in zip(points, values, errors, strict=True)
    ):
        floor = points[0].floors[quantity]
        return f"no checkpoint is farther than as many true pictures, {floor:.3g}, within two standard errors"
    return floored(values, errors, [p.count for p in points] if fraction else None)
