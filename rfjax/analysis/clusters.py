"""The mean of pictures that come in clusters, such as four of one prompt, which fail together.

An interval that takes the pictures for independent is too narrow. Here whole prompts are drawn again, within each task.
"""

from collections.abc import Sequence

import numpy as np

from rfjax.analysis.multipliers import Estimate

DRAWS = 4000  # the ends of a 95 % interval then vary by 2 % of its width
CONFIDENCE = 0.95
FEWEST = 2  # prompts of a task that show how prompts differ
CHUNK = 2**22  # counts that are drawn at once


def mean_of_means(tasks: Sequence[Sequence[Sequence[float]]], seed: int = 0) -> Estimate:
    """The mean over tasks of each task's mean over pictures, and its 95 % percentile interval over drawn prompts.

    Args:
        tasks: for each task, for each prompt, the values of its pictures; none of them is empty.
        seed: of the draws.

    Returns:
        The mean; without an interval if a task has a single prompt.
    """
    sums = [np.array([sum(values) for values in prompts], np.float64) for prompts in tasks]
    counts = [np.array([len(values) for values in prompts], np.float64) for prompts in tasks]
    value = float(np.mean([s.sum() / n.sum() for s, n in zip(sums, counts, strict=True)]))
    if min(map(len, sums)) < FEWEST:
        return Estimate(value, None, None)
    random = np.random.default_rng(seed)
    drawn = np.mean([_means(s, n, random) for s, n in zip(sums, counts, strict=True)], axis=0)
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value, float(low), float(high))


def _means(sums: np.ndarray, counts: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The means of DRAWS samples of as many prompts, with replacement."""
    size, found = len(sums), []
    rows = max(1, CHUNK // size)
    for start in range(0, DRAWS, rows):
        often = random.multinomial(size, np.full(size, 1 / size), min(rows, DRAWS - start))
        found.append(often @ sums / (often @ counts))
    return np.concatenate(found)
