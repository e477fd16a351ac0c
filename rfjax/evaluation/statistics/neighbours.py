"""Precision and recall by the balls of nearest neighbours (Kynkäänniemi et al. 2019)."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int

from rfjax.evaluation.statistics import Estimate, check_pair, jackknife, squares

NEIGHBOURS = 3  # Kynkäänniemi et al. and ADM


class Balls(NamedTuple):
    """A ball around each vector, that reaches to its k-th nearest neighbour.

    Attributes:
        vectors: the centres.
        radii: squared.
        wider: squared radii to the next neighbour: what a ball's becomes when one of its k neighbours is left out.
        neighbours: the places of the k neighbours.
    """

    vectors: squares.Vectors
    radii: Float32[np.ndarray, " n"]
    wider: Float32[np.ndarray, " n"]
    neighbours: Int[np.ndarray, "n k"]


class Cover(NamedTuple):
    """Which of some points lie in balls.

    Attributes:
        inside: whether each is in any.
        left_out: the share of points inside when one ball's centre is left out, for each centre.
    """

    inside: Bool[np.ndarray, " p"]
    left_out: Float64[np.ndarray, " n"]


def precision_recall(
    reference: Float[np.ndarray, "m F"],
    samples: Float[np.ndarray, "n F"],
    k: int = NEIGHBOURS,
    protocol: squares.Protocol = "exact",
) -> tuple[Estimate, Estimate]:
    """Precision, the share of samples in any ball of the reference; recall, that of the reference in any sample's.

    A ball reaches to the k-th nearest other vector of its own set, and a point on its surface is inside. "exact"
    computes distances in float32 (torch-fidelity and the original code take float32 too). "adm" rounds as ADM's
    evaluator: in float16, blocks of 10,000 x 10,000 that overflow in float32 (see `squares.blocks`); the radius is the
    entry k of a sorted row that holds the vector itself, wherever rounding puts that. On Inception's features the two
    differ by up to 0.006. Both numbers depend on m and n: ADM has 10,000 against 50,000.

    Standard errors: given the reference, samples are inside or not independently, so precision's is binomial. Recall
    depends on all samples at once: its error is the exact jackknife, which leaves out one sample, widens the balls
    that had it as a neighbour, and counts; it is on average not too small, and near one half too large by some
    (docs/results/metrics). A bootstrap would put copies at distance 0 and shrink the balls. `extras` have
    "reference_stderr", the same with the roles exchanged.

    Raises:
        UserError: for fewer than k + 2 vectors of a set, NaN, different widths, or an unknown protocol.
    """
    check_pair(reference, samples, k + 2, f"Precision with k = {k}")
    centre = reference.mean(axis=0, dtype=np.float64)
    real, drawn = (squares.prepare(features, centre, protocol) for features in (reference, samples))
    precision, recall = cover(drawn, balls(real, k)), cover(real, balls(drawn, k))
    counts = {"count": float(len(samples)), "reference_count": float(len(reference))}
    found = []
    for part, over_samples in ((precision, True), (recall, False)):
        share = float(part.inside.mean())
        binomial, other = math.sqrt(share * (1 - share) / len(part.inside)), jackknife(part.left_out)
        errors = (binomial, other) if over_samples else (other, binomial)
        found.append(Estimate(share, errors[0], {"reference_stderr": errors[1]} | counts))
    return found[0], found[1]


def balls(vectors: squares.Vectors, k: int) -> Balls:
    """The ball of each vector; k + 2 vectors or more."""
    n = len(vectors.rows)
    radii, wider, neighbours = np.empty(n, np.float32), np.empty(n, np.float32), np.empty((n, k), np.int64)
    for start, found in squares.blocks(vectors, vectors):
        here = np.arange(start, start + len(found))
        if vectors.halves is None:
            found[here - start, here] = -1  # itself first, whatever rounding left of its distance
        near = np.argpartition(found, k + 1, axis=1)[:, : k + 2]
        distances = np.take_along_axis(found, near, axis=1)
        order = np.argsort(distances, axis=1, kind="stable")
        near, distances = (np.take_along_axis(x, order, axis=1) for x in (near, distances))
        radii[here], wider[here] = distances[:, k], distances[:, k + 1]
        first = near[:, : k + 1]
        own = first == here[:, None]
        own[~own.any(axis=1), k] = True  # rounding put itself beyond its k neighbours
        neighbours[here] = first[~own].reshape(-1, k)
    return Balls(vectors, radii, wider, neighbours)


def cover(points: squares.Vectors, around: Balls) -> Cover:
    """Which points lie in balls, and how their share changes when one of the balls' centres is left out.

    A point that one ball alone covers is lost with its centre, unless a ball that had the centre as a neighbour grows
    over it. A point that none covers is gained with each neighbour of a ball that would grow over it.
    """
    count, n = np.empty(len(points.rows), np.int64), len(around.radii)
    change = np.zeros(n)
    for start, found in squares.blocks(points, around.vectors):
        within = found <= around.radii
        here = np.count_nonzero(within, axis=1)
        count[start : start + len(found)] = here
        change += _gained(found[here == 0], around)
        change -= _lost(found[here == 1], within[here == 1].argmax(axis=1), around)
    inside = count > 0
    return Cover(inside, (inside.sum() + change) / len(inside))


def _gained(found: Float32[np.ndarray, "p n"], around: Balls) -> Float64[np.ndarray, " n"]:
    """For each centre left out, how many of the points, which are in no ball, get into one."""
    n = found.shape[1]
    point, ball = np.nonzero(found <= around.wider)
    pairs = np.unique((point[:, None] * n + around.neighbours[ball]).ravel())
    return np.bincount(pairs % n, minlength=n).astype(np.float64)


def _lost(found: Float32[np.ndarray, "p n"], only: Int[np.ndarray, " p"], around: Balls) -> Float64[np.ndarray, " n"]:
    """For each centre left out, how many of the points, each of which its ball alone holds, are in none then."""
    point, ball = np.nonzero(found <= around.wider)
    saved = np.zeros(len(only), bool)
    saved[point[(around.neighbours[ball] == only[point, None]).any(axis=1)]] = True
    return np.bincount(only[~saved], minlength=found.shape[1]).astype(np.float64)
