"""The surfaces L(N, D) that a pilot leaves possible: draws from their posterior, each with its own noise."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from rfjax.analysis.engine import EXPONENTS, TINY, Array
from rfjax.analysis.fitting import TooFewPoints

GRID = 40  # exponents of each axis, evenly spaced in log alpha and log beta
SHARES = np.linspace(0.0, 0.975, 14)  # of the variance that branches of one trunk have in common
ZOOMS = 4  # of the grid, to where the exponents are likely
UNLIKELY = 1e-5  # of the largest weight
BATCH, BATCHES = 20_000, 50  # proposals; those with E, A or B below 0 are dropped
FEWEST_EACH, FEWEST_GROUPS, FEWEST_SPARE = 3, 5, 3  # values of n and of d; independent runs; points beyond parameters
PARAMETERS = 5


@dataclass(frozen=True)
class SurfaceTruths:
    """Possible laws L = E + A (n / n0)^-alpha + B (d / d0)^-beta, one an entry.

    Attributes:
        theta: (E, A, B, alpha, beta), shape (m, 5).
        between: standard deviation of the log loss that branches of one trunk share, shape (m,); 0 where each run is
            trained apart.
        within: of what is a run's own, shape (m,).
        centre: (n0, d0), geometric means of the pilot's.
    """

    theta: Float[np.ndarray, "m 5"]
    between: Float[np.ndarray, " m"]
    within: Float[np.ndarray, " m"]
    centre: tuple[float, float]

    def __len__(self) -> int:
        return len(self.theta)

    @property
    def sigma(self) -> Float[np.ndarray, " m"]:
        """The standard deviation of one run's log loss about the surface."""
        return np.hypot(self.between, self.within)

    def loss(self, at: Float[np.ndarray, "... 2"]) -> Float[np.ndarray, "m ..."]:
        """The expected losses at (n, d)."""
        offset, a, b, alpha, beta = (part.reshape(-1, *[1] * (at.ndim - 1)) for part in self.theta.T)
        log_n, log_d = np.moveaxis(np.log(at / np.array(self.centre)), -1, 0)
        return offset + a * np.exp(-alpha * log_n) + b * np.exp(-beta * log_d)

    def some(self, which: slice) -> "SurfaceTruths":
        """Those at these places."""
        return SurfaceTruths(self.theta[which], self.between[which], self.within[which], self.centre)


def draw_surfaces(
    at: Float[np.ndarray, "k 2"],
    losses: Float[np.ndarray, " k"],
    groups: Sequence[object],
    count: int,
    rng: np.random.Generator,
) -> SurfaceTruths | None:
    """Draws surfaces from their posterior, given single runs; None where these hardly allow E, A and B above 0.

    As `truths.draw_truths`: given alpha, beta and the share of the variance that a group has in common, the law is
    linear in E, A and B, and (L - y) / y stands for log L - log y. So by generalised least squares, with R the
    correlation of the errors, the posterior of (alpha, beta, share) has weights |R|^-1/2 |X'R^-1 X|^-1/2
    SSR^-(k - 3)/2 on a grid, sigma^2 = SSR / chi^2 with k - 3 degrees of freedom, and E, A and B are normal (Gelman et
    al. 2013, section 14.7), those below 0 dropped. Priors: flat in E, A, B, log alpha, log beta, log sigma and the
    share, from 0 to 1. Groups of one run each leave nothing to share: it is 0.

    Args:
        at: parameters and examples of each run.
        losses: positive.
        groups: a label for each run; runs of one label share their trunk's luck.

    Raises:
        TooFewPoints: where sizes, budgets, groups or runs are too few.
    """
    names = list(dict.fromkeys(groups))
    needs = (
        (len(set(at[:, 0])), FEWEST_EACH, "sizes"),
        (len(set(at[:, 1])), FEWEST_EACH, "budgets"),
        (len(names), FEWEST_GROUPS, "independent runs"),
        (len(at), PARAMETERS + FEWEST_SPARE, "points"),
    )
    for have, need, what in needs:
        if have < need:
            raise TooFewPoints(f"a surface and its noise need {need} {what} or more, not {have}")
    member = np.array([[name == one for one in groups] for name in names], float)
    shares = SHARES if len(names) < len(at) else SHARES[:1]
    log_x = np.log(at)
    centre = log_x.mean(0)
    low, high = np.full(2, EXPONENTS[0]), np.full(2, EXPONENTS[1])
    for _ in range(ZOOMS):
        axes = [np.geomspace(*ends, GRID) for ends in zip(low, high, strict=True)]
        exponents = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
        found = _given(exponents, (log_x - centre, losses, member), shares)
        likely = np.argwhere(found.chance.max(1).reshape(GRID, GRID) > UNLIKELY)
        first, last = np.maximum(likely.min(0) - 1, 0), np.minimum(likely.max(0) + 1, GRID - 1)
        low, high = (np.array([axis[i] for axis, i in zip(axes, ends, strict=True)]) for ends in (first, last))
    kept: list[Array] = []
    for _ in range(BATCHES):
        kept.append(found.draw(len(at) - 3, rng))
        if sum(part.shape[1] for part in kept) >= count:
            drawn = np.concatenate(kept, 1)[:, :count]
            return SurfaceTruths(drawn[:5].T, drawn[5], drawn[6], tuple(np.exp(centre).tolist()))
    return None


@dataclass(frozen=True)
class _Posterior:
    """What the runs say at each pair of exponents (g, 2) and share (s,).

    Attributes:
        best: (E + A + B, A, B) by generalised least squares, shape (g, s, 3).
        root: Cholesky factor of X'R^-1 X, shape (g, s, 3, 3).
        squares: of the residuals, shape (g, s).
        chance: the posterior's weight, 1 at the most; shape (g, s).
    """

    exponents: Float[np.ndarray, "g 2"]
    shares: Float[np.ndarray, " s"]
    best: Float[np.ndarray, "g s 3"]
    root: Float[np.ndarray, "g s 3 3"]
    squares: Float[np.ndarray, "g s"]
    chance: Float[np.ndarray, "g s"]

    def draw(self, freedom: int, rng: np.random.Generator) -> Float[np.ndarray, "7 k"]:
        """(E, A, B, alpha, beta, between, within) of those proposals that have no negative E, A or B."""
        cell = rng.choice(self.chance.size, BATCH, p=(self.chance / self.chance.sum()).ravel())
        where = np.unravel_index(cell, self.chance.shape)
        sigma = np.sqrt(self.squares[where] / rng.chisquare(freedom, BATCH))
        luck = np.linalg.solve(self.root[where].mT, rng.normal(size=(BATCH, 3, 1)))[..., 0]
        sums, a, b = (self.best[where] + sigma[:, None] * luck).T
        offset, share = sums - a - b, self.shares[where[1]]
        noise = (sigma * np.sqrt(share), sigma * np.sqrt(1 - share))
        rows = np.stack([offset, a, b, *self.exponents[where[0]].T, *noise])
        return rows[:, np.minimum(np.minimum(offset, a), b) >= 0]


def _given(exponents: Array, measured: tuple[Array, Array, Array], shares: Array) -> _Posterior:
    """By generalised least squares of (L - y) / y.

    Args:
        exponents: shape (g, 2).
        measured: log of (n, d) / centre, losses, and whether group j holds run k, shape (j, k).
        shares: shape (s,).
    """
    log_x, losses, member = measured
    falls = np.expm1(-log_x * exponents[:, None])  # columns 1, fall - 1: well conditioned however small the exponent
    rows = np.concatenate([np.ones_like(falls[..., :1]), falls], -1) / losses[:, None]
    rows = np.concatenate([rows, np.ones_like(falls[..., :1])], -1)  # (g, k, 4), the last the target
    sums, size = member @ rows, member.sum(1)  # (g, j, 4)
    # R = (1 - s) I + s 11' within a group, so R^-1 = (I - s / (1 - s + s n) 11') / (1 - s)
    common = shares[:, None] / (1 - shares[:, None] + shares[:, None] * size)  # (s, j)
    between = (sums[..., :, None] * sums[..., None, :]).transpose(0, 2, 3, 1) @ common.T  # (g, 4, 4, s)
    gram = (rows.mT @ rows)[:, None] - np.moveaxis(between, -1, 1)
    gram = gram / (1 - shares)[:, None, None]
    inside, moment = gram[..., :3, :3], gram[..., :3, 3]
    inside = inside + 1e-15 * np.einsum("gsii->gs", inside)[..., None, None] * np.eye(3)
    root = np.linalg.cholesky(inside)
    best = np.linalg.solve(inside, moment[..., None])[..., 0]
    squares = np.maximum(gram[..., 3, 3] - (moment * best).sum(-1), TINY)
    log_r = ((size - 1)[None] * np.log(1 - shares)[:, None] + np.log1p((size - 1) * shares[:, None])).sum(1)
    freedom = len(losses) - 3
    weight = -freedom / 2 * np.log(squares) - np.log(np.einsum("gsii->gsi", root)).sum(-1) - log_r / 2
    return _Posterior(exponents, shares, best, root, squares, np.exp(weight - weight.max()))
