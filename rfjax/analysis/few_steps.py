"""What few steps of a sampler cost: each run's score against that of many steps (SD3 Table 6)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rfjax.analysis.correlation import Correlation, spearman
from rfjax.analysis.fitting import TooFewPoints


@dataclass(frozen=True)
class Row:
    """One run: its depth, and steps of the sampler -> what it reached: quantities, "path_length", "drop" and so on."""

    name: str
    depth: int
    cells: Mapping[int, Mapping[str, float]]


@dataclass(frozen=True)
class Verdict:
    """Whether larger models lose less, in words, and Spearman's correlations, None where runs are too few.

    They are those of depth and drop at the fewest steps, and of depth and length of the path at the reference."""

    text: str
    drops: Correlation | None = None
    lengths: Correlation | None = None


def drop(score: float, error: float, best: float, best_error: float) -> dict[str, float]:
    """By how many percent a score is below the best, with the error in percent points.

    Errors are as if the samples were independent: they share captions and noise, so the true error is smaller.
    """
    spread = math.hypot(error / best, score * best_error / best**2)
    return {"drop": 100 * (best - score) / best, "drop_stderr": 100 * spread}


def judge(rows: Sequence[Row], steps: Sequence[int]) -> Verdict:
    """Whether larger models lose less with the fewest steps, and have shorter paths."""
    if not rows or len(steps) < 2:
        return Verdict("No run has scores at two numbers of steps yet: there is nothing to compare.")
    few, many = steps[0], steps[-1]
    drops, reason = _spearman([(row.depth, row.cells[few]["drop"]) for row in rows if few in row.cells])
    paths = [(row.depth, row.cells[many]["path_length"]) for row in rows if many in row.cells]
    lengths, _ = _spearman(paths)
    if drops is None:
        return Verdict(f"Whether larger models lose less with {few} steps can't be said yet: {reason}", None, lengths)
    said = {
        -1: "Larger models lose less",
        1: "Larger models lose more",
        0: "No clear relation of the depth and the loss of score",
    }[drops.sign]
    text = f"{said} with {few} steps instead of {many}: Spearman's correlation of depth and drop is {drops.text} over "
    return Verdict(f"{text}{drops.n} runs.", drops, lengths)


def _spearman(points: list[tuple[float, float]]) -> tuple[Correlation | None, str]:
    points = [(x, y) for x, y in points if math.isfinite(y)]
    x, y = zip(*points, strict=True) if points else ((), ())
    groups = x if 1 < len(set(x)) < len(x) else None  # seeds of one depth are not independent of its place
    try:
        return spearman(x, y, groups=groups), ""
    except TooFewPoints as error:
        return None, f"there are too few depths ({error})"
