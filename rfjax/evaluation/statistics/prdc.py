"""Density and coverage by the balls of the reference's nearest neighbours (Naeem et al. 2020)."""

import numpy as np
from jaxtyping import Float

from rfjax.evaluation.statistics import Estimate, check_pair, jackknife, squares
from rfjax.evaluation.statistics.neighbours import balls

NEIGHBOURS = 5  # Naeem et al. and dgm-eval


def density_coverage(
    reference: Float[np.ndarray, "m E"], samples: Float[np.ndarray, "n F"], k: int = NEIGHBOURS
) -> tuple[Estimate, Estimate]:
    """Density, the mean number of the reference's balls that a sample is in, over k; coverage, the share of balls
    that hold a sample.

    As prdc and dgm-eval: a ball reaches to the k-th nearest other vector, and its surface is outside. Density may
    exceed 1. For two sets of one distribution density is near 1, coverage near 1 - 2^-k if m = n.

    Standard errors: density is a mean over samples, given the reference. Coverage's is the exact jackknife: a ball is
    lost with the only sample that it holds. What another reference would change is left out: it moves the balls.

    Raises:
        UserError: for fewer than k + 2 vectors of a set, NaN, or different widths.
    """
    check_pair(reference, samples, k + 2, f"Density with k = {k}")
    centre = reference.mean(axis=0, dtype=np.float64)
    real, drawn = (squares.prepare(features, centre, "exact") for features in (reference, samples))
    around = balls(real, k)
    holds, change, filled = np.zeros(len(samples)), np.zeros(len(samples)), 0
    for start, found in squares.blocks(real, drawn):
        within = found < around.radii[start : start + len(found), None]
        holds += within.sum(axis=0)
        inside = np.count_nonzero(within, axis=1)
        filled += int((inside > 0).sum())
        change -= np.bincount(within[inside == 1].argmax(axis=1), minlength=len(samples))
    counts = {"count": float(len(samples)), "reference_count": float(len(reference))}
    m, n = len(reference), len(samples)
    density = Estimate(float(holds.mean() / k), float(holds.std(ddof=1) / k / np.sqrt(n)), counts)
    return density, Estimate(filled / m, jackknife((filled + change) / m), counts)
