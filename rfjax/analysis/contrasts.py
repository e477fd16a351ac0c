"""Differences of log losses between two ladders of runs that share seeds and validation triples, and their errors.

A contrast is a sum of weights times mean log losses of rungs. Its variance has two parts. Between runs: from deviations
from the mean over seeds, pooled over rungs, with the covariance of the two designs, since a seed gives both the same
data in the same order; and from residuals about their laws. Over triples: the contrast of one triple's relative losses
is a sample of it. Both are quadratic forms in the weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special, stats

from rfjax.analysis.engine import Array
from rfjax.analysis.fit import LEVEL
from rfjax.analysis.multipliers import Curve

MISFIT = 0.05  # below this p the residuals about the laws are larger than seeds explain, and they alone count


@dataclass(frozen=True)
class Place:
    """One rung of a design.

    Attributes:
        name: what pairs it with rungs of other designs, such as "depth 3".
        x: its size on the axis of the law.
        flops: of one run's whole training.
        losses: seed -> final validation loss.
        triples: seed -> the loss of each triple, shape (n,); the level of t of triple i is i mod the number of levels.
        curves: seed -> (FLOPs, loss) along the run.
    """

    name: str
    x: float
    flops: float
    losses: Mapping[int, float]
    triples: Mapping[int, Float[np.ndarray, " n"]] = field(default_factory=dict)
    curves: Mapping[int, Curve] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """The mean over seeds, geometric as in a fit of the logarithm."""
        return float(np.exp(np.mean(np.log(list(self.losses.values())))))


class Contrast(NamedTuple):
    """A difference of log losses and its error.

    Attributes:
        runs: variance between runs; None where neither seeds nor residuals tell it.
        triples: variance over validation triples; None where their losses are not known.
        freedom: degrees of freedom of `runs`.
    """

    value: float
    runs: float | None
    triples: float | None
    freedom: float

    @property
    def half(self) -> float:
        """Half of the 95 % interval; infinite where the variance between runs is not known."""
        return np.inf if self.runs is None else float(half_width(self.runs, self.triples or 0.0, self.freedom))

    @property
    def clear(self) -> bool:
        """Whether 0 is outside the interval."""
        return abs(self.value) > self.half


def half_width(runs: Array | float, triples: Array | float, freedom: float, level: float = LEVEL) -> Array:
    """Half of the interval of two variances, by Student's t with Satterthwaite's degrees of freedom: the triples are
    many, so that theirs are taken to be infinite."""
    total = np.asarray(runs, float) + triples
    with np.errstate(divide="ignore", invalid="ignore"):
        combined = np.where(total > 0, freedom * (total / runs) ** 2, np.inf)
    return special.stdtrit(np.minimum(combined, 1e9), (1 + level) / 2) * np.sqrt(total)


@dataclass(frozen=True)
class Errors:
    """Covariances of the mean log losses of the rungs of A, then of B, each (k, k), or None where they are not known.

    Attributes:
        seeds, residuals: between runs, by seeds and by residuals about the laws, with degrees of freedom.
        triples: over validation triples.
    """

    seeds: Float[np.ndarray, "k k"] | None
    of_seeds: int
    residuals: Float[np.ndarray, "k k"] | None
    of_residuals: int
    triples: Float[np.ndarray, "k k"] | None

    def between_runs(self, weights: Array) -> tuple[Array | None, int, float | None]:
        """(covariance between runs, its degrees of freedom, p of a misfit of the laws) for contrasts near this one.

        Seeds and residuals are pooled, unless residuals are larger than seeds explain: then the laws don't fit and
        residuals alone count.
        """
        if self.seeds is None or self.residuals is None:
            known = self.residuals if self.seeds is None else self.seeds
            return known, self.of_residuals if self.seeds is None else self.of_seeds, None
        by_seeds, by_residuals = (float(weights @ one @ weights) for one in (self.seeds, self.residuals))
        p = float(stats.f.sf(by_residuals / by_seeds, self.of_residuals, self.of_seeds)) if by_seeds > 0 else 0.0
        if p < MISFIT:
            return self.residuals, self.of_residuals, p
        freedom = self.of_seeds + self.of_residuals
        return (self.of_seeds * self.seeds + self.of_residuals * self.residuals) / freedom, freedom, p

    def contrast(self, value: float, weights: Array, *, laws: bool = True) -> Contrast:
        """The contrast with these weights; laws: whether residuals about the laws count."""
        runs, freedom, _ = self.between_runs(weights) if laws else (self.seeds, self.of_seeds, None)
        of = lambda matrix: None if matrix is None else max(float(weights @ matrix @ weights), 0.0)  # noqa: E731
        return Contrast(value, of(runs), of(self.triples), freedom)


def errors_of(
    a: Sequence[Place], b: Sequence[Place], residuals: tuple[Array, Array] | None, spare: int, levels: int
) -> Errors:
    """The errors of two ladders.

    Args:
        residuals: log loss above the law of each rung of A, and of B; None without laws.
        spare: degrees of freedom of a law.
        levels: of t in the validation.
    """
    pairs = [(i, j) for i, one in enumerate(a) for j, other in enumerate(b) if one.name == other.name]
    products, freedom = np.zeros((2, 2)), 0
    for i, j in pairs:
        both = sorted(a[i].losses.keys() & b[j].losses.keys())
        logs = np.log([[place.losses[seed] for seed in both] for place in (a[i], b[j])])
        deviations = logs - logs.mean(1, keepdims=True) if both else np.zeros((2, 0))
        products, freedom = products + deviations @ deviations.T, freedom + max(len(both) - 1, 0)
    by_seeds = _of_means(products / freedom, a, b, pairs) if freedom else None
    by_residuals = None
    if residuals is not None:
        scaled = [r * np.sqrt([len(p.losses) for p in places]) for r, places in zip(residuals, (a, b), strict=True)]
        crossed = sum(scaled[0][i] * scaled[1][j] for i, j in pairs)
        products = np.array([[scaled[0] @ scaled[0], crossed], [crossed, scaled[1] @ scaled[1]]])
        by_residuals = _of_means(products / spare, a, b, pairs)
    return Errors(by_seeds, freedom, by_residuals, spare, _of_triples([*a, *b], levels))


def _of_means(
    covariance: Float[np.ndarray, "2 2"], a: Sequence[Place], b: Sequence[Place], pairs: Sequence[tuple[int, int]]
) -> Float[np.ndarray, "k k"]:
    """The covariance of mean log losses by that of one run of A and one of B; the seeds that both have are shared."""
    counts = np.array([len(place.losses) for place in (*a, *b)], float)
    variances = np.repeat(np.diag(covariance), [len(a), len(b)])
    found = np.diag(variances / counts)
    for i, j in pairs:
        both = len(a[i].losses.keys() & b[j].losses.keys())
        k = len(a) + j
        found[i, k] = found[k, i] = covariance[0, 1] * both / counts[i] / counts[k]
    return found


def _of_triples(places: Sequence[Place], levels: int) -> Float[np.ndarray, "k k"] | None:
    """The covariance of mean log losses over triples, stratified by level; None where it can't be told."""
    known = [np.asarray(losses) for place in places for losses in place.triples.values()]
    if any(place.triples.keys() != place.losses.keys() for place in places) or len({x.size for x in known}) != 1:
        return None
    if known[0].size < 2 * levels or not all(np.isfinite(x).all() for x in known):
        return None
    relative = np.array([np.mean(list(place.triples.values()), axis=0) / place.loss for place in places])
    strata = [relative[:, k::levels] for k in range(levels)]
    return sum(np.cov(part) / part.shape[1] for part in strata) / levels**2
