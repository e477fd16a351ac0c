"""Precision and recall by the balls of nearest neighbours (Kynkäänniemi et al. 2019)."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from rfjax.evaluation.statistics import Estimate, check_pair, squares

NEIGHBOURS = 3  # Kynkäänniemi et al. and ADM
SUBSETS, SEED = 100, 0  # of centres, for the error: they know a deviation to 7 %
LEFT_OUT = 3  # every third: with half of them errors are a tenth too small, one at a time twice too large
COVERED = 24  # balls around a point: one of them is in every subset, but for 3^-24


class Balls(NamedTuple):
    """A ball around each vector, that reaches to its k-th nearest neighbour.

    Attributes:
        vectors: the centres.
        radii: squared.
        near: the places of the nearest vectors, ascending, as many as `_reach` says; itself is one of them.
        squares: their squared distances; `radii` is column k.
        k: neighbours in a ball.
    """

    vectors: squares.Vectors
    radii: Float32[np.ndarray, " n"]
    near: Int[np.ndarray, "n r"]
    squares: Float32[np.ndarray, "n r"]
    k: int


class Cover(NamedTuple):
    """Which of some points lie in balls.

    Attributes:
        inside: whether each is in any.
        stderr: of the share inside, over other centres.
    """

    inside: Bool[np.ndarray, " p"]
    stderr: float


def precision_recall(
    reference: Float[np.ndarray, "m E"],
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
    depends on all samples at once, so its error is from 100 random subsets that leave out a third of the samples, each
    with its own, larger balls (the delete-d jackknife, Shao & Wu 1989): the deviation of their recalls times sqrt 2.
    Leaving out one sample at a time gives an error twice too large, since neighbours are no smooth function; a
    bootstrap would put copies at distance 0 and shrink the balls. How well they hold: docs/results/metrics. `extras`
    have "reference_stderr", the same with the roles exchanged.

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
        binomial, other = math.sqrt(share * (1 - share) / len(part.inside)), part.stderr
        errors = (binomial, other) if over_samples else (other, binomial)
        found.append(Estimate(share, errors[0], {"reference_stderr": errors[1]} | counts))
    return found[0], found[1]


def balls(vectors: squares.Vectors, k: int) -> Balls:
    """The ball of each vector; k + 2 vectors or more."""
    n = len(vectors.rows)
    reach = _reach(n, k)
    places, near = np.empty((n, reach), np.int64), np.empty((n, reach), np.float32)
    for start, found in squares.blocks(vectors, vectors):
        here = np.arange(start, start + len(found))
        if vectors.halves is None:
            found[here - start, here] = -1  # itself first, whatever rounding left of its distance
        first = np.argpartition(found, reach - 1, axis=1)[:, :reach]
        distances = np.take_along_axis(found, first, axis=1)
        order = np.argsort(distances, axis=1, kind="stable")
        places[here], near[here] = (np.take_along_axis(x, order, axis=1) for x in (first, distances))
    return Balls(vectors, near[:, k], places, near, k)


def _reach(n: int, k: int) -> int:
    """How many of the nearest to keep: of 4 k + 4 others, k are in a subset of two thirds but for 1 in 100,000."""
    return min(4 * k + 5, n)


def cover(points: squares.Vectors, around: Balls) -> Cover:
    """Which points lie in balls, and how far other centres would move their share."""
    count = np.empty(len(points.rows), np.int64)
    pairs = []
    for start, found in squares.blocks(points, around.vectors):
        here = np.count_nonzero(found <= around.radii, axis=1)
        count[start : start + len(found)] = here
        few = np.flatnonzero(here < COVERED)  # the others are inside whichever subset of the centres there is
        point, ball = np.nonzero(found[few] <= around.squares[:, -1])
        pairs.append((few[point] + start, ball, found[few[point], ball]))
    point, ball, distance = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    inside, n = count > 0, len(around.radii)
    kept = subsets(n, around.k)
    shares = np.empty(len(kept))
    for place, chosen in enumerate(kept):
        within = chosen[ball] & (distance <= _radii(around, chosen)[ball])
        covered = count >= COVERED
        covered[point[within]] = True
        shares[place] = covered.mean()
    size = int(kept[0].sum())
    stderr = float(shares.std(ddof=1)) * math.sqrt(size / (n - size)) if size < n else math.nan
    return Cover(inside, stderr)


def subsets(n: int, k: int) -> Bool[np.ndarray, "s n"]:
    """Which of n centres are in each of the random subsets; none has fewer than k + 1."""
    rng = np.random.default_rng(SEED)
    first = np.arange(n) < max(n - n // LEFT_OUT, k + 1)
    return np.stack([rng.permutation(first) for _ in range(SUBSETS)])


def _radii(around: Balls, chosen: Bool[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
    """The squared radii of chosen centres among themselves: entry k of a sorted row; those of others mean nothing."""
    order = chosen[around.near].cumsum(axis=1)
    place = (order == around.k + 1).argmax(axis=1)
    place[order[:, -1] <= around.k] = around.near.shape[1] - 1  # beyond what was kept
    return np.take_along_axis(around.squares, place[:, None], axis=1)[:, 0]
