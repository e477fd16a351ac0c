"""The laws that a short ladder leaves possible: draws from their posterior, each with its own noise between runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from rfjax.analysis.engine import EXPONENTS, TINY, Array
from rfjax.analysis.fitting import PARAMETERS, TooFewPoints
from rfjax.analysis.many_spreads import FLAT, Course

GRID = 300  # exponents of the posterior, evenly spaced in log alpha
BATCH, BATCHES = 20_000, 50  # proposals; those with E or A below 0 are dropped
ZOOMS = 4  # of the grid, to where alpha is likely: with little noise that is far less than a step of the first
UNLIKELY = 1e-6  # of the largest weight
FEWEST_SPARE = 3  # runs beyond the parameters of the law: below this the noise may be anything


@dataclass(frozen=True)
class Truths:
    """Possible laws L = E + A (x / centre)^-alpha, one an entry.

    Attributes:
        offset, amplitude, alpha: E, A and alpha, shape (m,).
        sigma: standard deviation of one run's log loss, where `course` is 1, shape (m,).
        centre: geometric mean of the pilot's sizes.
        course: of the noise with size.
    """

    offset: Float[np.ndarray, " m"]
    amplitude: Float[np.ndarray, " m"]
    alpha: Float[np.ndarray, " m"]
    sigma: Float[np.ndarray, " m"]
    centre: float
    course: Course = FLAT

    def __len__(self) -> int:
        return self.sigma.size

    def loss(self, x: Float[np.ndarray, " k"]) -> Float[np.ndarray, "m k"]:
        """The expected losses at sizes x."""
        return self.offset[:, None] + self.amplitude[:, None] * self._falls(x)

    def jacobian(self, x: Float[np.ndarray, " k"], law: str) -> Float[np.ndarray, "m k p"]:
        """Derivatives of the logarithm of `loss` by ([E], A, alpha), where the law has an E."""
        falls = self._falls(x)
        columns = [np.ones_like(falls), falls, -self.amplitude[:, None] * falls * np.log(x / self.centre)]
        return np.stack(columns[-len(PARAMETERS[law]) :], axis=-1) / self.loss(x)[..., None]

    def some(self, which: slice) -> "Truths":
        """Those at these places."""
        parts = (self.offset, self.amplitude, self.alpha, self.sigma)
        return Truths(*(part[which] for part in parts), self.centre, self.course)

    def noise(self, x: Float[np.ndarray, " k"]) -> Float[np.ndarray, "m k"]:
        """The standard deviation of one run's log loss at sizes x."""
        return self.sigma[:, None] * self.course.at(x)

    def _falls(self, x: Array) -> Array:
        return np.exp(-self.alpha[:, None] * np.log(x / self.centre))


def draw_truths(
    x: Sequence[float],
    losses: Sequence[float],
    law: str,
    count: int,
    rng: np.random.Generator,
    *,
    course: Course = FLAT,
) -> Truths | None:
    """Draws laws from their posterior, given single runs; None where the runs hardly allow a loss that falls with size.

    Relative noise with a known course over size. Given alpha the law is linear in E and A, and (L - y) / y stands for
    log L - log y, so the posterior is exact up to that: alpha from a grid with weights |X'X|^-1/2 SSR^-(n - l)/2,
    sigma^2 = SSR / chi^2 with n - l degrees of freedom, E and A normal (Gelman et al. 2013, section 14.2), those below
    0 dropped.
    Priors: flat in E, A, log alpha and log sigma.

    Args:
        x: the size of each run, shape (n,).
        losses: positive, shape (n,). Seeds are runs of their own.
        law: "power" or "power_offset".
        count: how many to draw.
        course: of the noise with size; by default it is equally large at all.

    Raises:
        TooFewPoints: where sizes or runs are too few.
    """
    sizes, y = np.asarray(x, float), np.asarray(losses, float)
    parameters = len(PARAMETERS[law])
    if len(set(sizes)) <= parameters or y.size < parameters + FEWEST_SPARE:
        raise TooFewPoints(
            f"the {law} law and its noise need {parameters + 1} sizes and {parameters + FEWEST_SPARE} runs or more, "
            f"not {len(set(sizes))} and {y.size}"
        )
    centre = float(np.exp(np.log(sizes).mean()))
    linear = parameters - 1
    freedom, (low, high) = y.size - linear, EXPONENTS
    for _ in range(ZOOMS):
        alphas = np.geomspace(low, high, GRID)
        best, r, squares = _given(alphas, np.log(sizes / centre), (y, course.at(sizes)), linear)
        weight = -freedom / 2 * np.log(squares) - np.log(np.abs(np.diagonal(r, axis1=-2, axis2=-1))).sum(-1)
        chance = np.exp(weight - weight.max())
        likely = np.flatnonzero(chance > UNLIKELY)
        low, high = alphas[max(likely[0] - 1, 0)], alphas[min(likely[-1] + 1, GRID - 1)]
    kept: list[Array] = []
    for _ in range(BATCHES):
        at = rng.choice(GRID, BATCH, p=chance / chance.sum())
        sigma = np.sqrt(squares[at] / rng.chisquare(freedom, BATCH))
        drawn = best[at] + np.linalg.solve(r[at], sigma[:, None, None] * rng.normal(size=(BATCH, linear, 1)))[..., 0]
        good = (drawn >= 0).all(-1)
        offset = drawn[:, 0] if linear == 2 else np.zeros(BATCH)
        kept.append(np.stack([offset, drawn[:, -1], alphas[at], sigma])[:, good])
        if sum(part.shape[1] for part in kept) >= count:
            return Truths(*np.concatenate(kept, 1)[:, :count], centre, course)
    return None


def _given(alphas: Array, log_x: Array, measured: tuple[Array, Array], linear: int) -> tuple[Array, Array, Array]:
    """For each exponent (g,): the best ([E], A) (g, l), r of X = q r (g, l, l), and the sum of squares (g,).

    Args:
        measured: losses, and their relative noise.
    """
    y, noise = measured
    falls = np.exp(-alphas[:, None] * log_x)
    basis = np.stack([np.ones_like(falls), falls][-linear:], -1) / (y * noise)[:, None]
    q, r = np.linalg.qr(basis)
    best = np.linalg.solve(r, (q / noise[:, None]).sum(-2)[..., None])[..., 0]
    return best, r, np.maximum((((basis @ best[..., None])[..., 0] - 1 / noise) ** 2).sum(-1), TINY)
