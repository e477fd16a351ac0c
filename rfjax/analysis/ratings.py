"""Ratings from pairwise votes (SD3, Figs. 7 and 8): Bradley-Terry strengths and win rates.

A vote gives one point: to the winner, or half to each side where both are equally good or equally bad. The strengths
beta maximise the sum over ordered pairs (i, j) of w_ij log sigma(beta_i - beta_j), where w_ij are i's points against j
(Bradley and Terry 1952). A rating is 1000 + 400 / ln 10 * beta, as in chess: 100 more mean 64 % of the points, 200 mean
76 %. The mean of all ratings is 1000.

Finite strengths exist only where each model is reached from each other by a chain of models that took points from the
next one (Ford 1957). Where they don't, `connection` says who is unbeaten, winless or never compared, and a prior of one
virtual tie between every two models makes the strengths finite; no interval is given for these models then.

Several votes on one prompt are no independent votes: intervals resample whole prompts, and raters too where there are
enough of them (a weight for each prompt times one for each rater, Owen 2007), and are percentiles. Measured coverage of
the 95 % intervals, four models of which each prompt suits some better (a normal effect of 1 on the strengths), 200
simulations: with 3 raters 89 % over 8 prompts, 93 % over 20 and 40, 94 % over 128; 97 % with 8 raters, 40 prompts.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from rfjax.analysis.fit import LEVEL

MEAN, SPREAD = 1000.0, 400 / math.log(10)  # of ratings: the chess federations' scale
PRIOR = 1.0  # virtual ties between every two models, where the votes alone leave a strength infinite
FEWEST_PROMPTS, FEWEST_RATERS = 5, 5  # that a bootstrap needs
ROUGH_PROMPTS = 20  # with fewer, percentiles are too narrow: `rate` says so
RESAMPLES = 1000
MOST_STEPS, TOLERANCE = 200, 1e-9  # of Newton; the last step, which converges quadratically
CHUNK = 2**22  # weights of resamples at a time: 32 MB
Z = float(stats.norm.ppf((1 + LEVEL) / 2))


class Duel(NamedTuple):
    """A vote; points: of the first model, 1, 0.5 or 0."""

    first: str
    second: str
    points: float
    prompt: str
    rater: str


@dataclass(frozen=True)
class Ratings:
    """What the votes say of m models.

    Attributes:
        names: of the models, (m,), in the order of all arrays.
        rating: 1000 + 400 / ln 10 * beta, (m,).
        low, high: the 95 % interval, (m,); NaN where there is none.
        points: w, of the row's model against the column's, (m, m).
        rate: points over votes, (m, m); NaN where two were never compared.
        rate_low, rate_high: the 95 % interval, (m, m): at each end the wider of Wilson's and the bootstrap's.
        resamples: ratings of the bootstrap, (b, m).
        resampled: what it drew: "prompts", "prompts and raters", or "" where there was too little to draw.
        notes: sentences on what the numbers can't tell.
    """

    names: tuple[str, ...]
    rating: Float[np.ndarray, " m"]
    low: Float[np.ndarray, " m"]
    high: Float[np.ndarray, " m"]
    points: Float[np.ndarray, "m m"]
    rate: Float[np.ndarray, "m m"]
    rate_low: Float[np.ndarray, "m m"]
    rate_high: Float[np.ndarray, "m m"]
    resamples: Float[np.ndarray, "b m"]
    resampled: str
    notes: tuple[str, ...]

    @property
    def votes(self) -> Float[np.ndarray, "m m"]:
        """Of each pair."""
        return self.points + self.points.T

    def ahead(self, first: str, second: str) -> tuple[float, float, float]:
        """The difference of two ratings and its 95 % interval, NaN where there is none."""
        i, j = self.names.index(first), self.names.index(second)
        value = float(self.rating[i] - self.rating[j])
        if not np.isfinite([self.low[i], self.low[j]]).all():
            return value, math.nan, math.nan
        low, high = percentiles(self.resamples[:, i] - self.resamples[:, j])
        return value, float(low), float(high)


def points_matrix(duels: Iterable[Duel], names: Sequence[str]) -> Float[np.ndarray, "m m"]:
    """The points of the row's model against the column's."""
    place, points = {name: i for i, name in enumerate(names)}, np.zeros((len(names), len(names)))
    for duel in duels:
        points[place[duel.first], place[duel.second]] += duel.points
        points[place[duel.second], place[duel.first]] += 1 - duel.points
    return points


def bradley_terry(points: Float[np.ndarray, "*b m m"], prior: float = 0.0) -> Float[np.ndarray, "*b m"]:
    """The strengths beta of mean 0, by Newton, of one matrix of points or of many at once.

    A step is cut so that no difference of two strengths changes by more than 1. Then the likelihood grows at every
    step, since the third derivative of log sigma is at most the second in size.

    Args:
        points: of the row's model against the column's; the diagonal doesn't count.
        prior: virtual ties between every two models; without them the finite strengths must exist (`connection`).

    Raises:
        ValueError: if the strengths are infinite.
    """
    m = points.shape[-1]
    won = (points + prior / 2) * (1 - np.eye(m))
    if not _connected(won).all():
        raise ValueError("Bradley-Terry strengths are infinite here: a model is unbeaten, winless or never compared")
    played = won + np.swapaxes(won, -1, -2)
    beta = np.zeros(points.shape[:-1])
    for _ in range(MOST_STEPS):
        p = 1 / (1 + np.exp(beta[..., None, :] - beta[..., :, None]))
        gradient, weight = (won - played * p).sum(-1), played * p * (1 - p)
        # The Hessian is a Laplacian, which sees no common shift; the constant fixes it, at the Hessian's own scale.
        shift = weight.sum((-1, -2))[..., None, None] / m**2
        hessian = weight.sum(-1)[..., None] * np.eye(m) - weight + shift
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        size = np.ptp(step, axis=-1, keepdims=True)
        beta = beta + step / np.maximum(size, 1)
        if np.max(size, initial=0.0) < TOLERANCE:
            break
    return beta - beta.mean(-1, keepdims=True)


def connection(points: Float[np.ndarray, "m m"], names: Sequence[str]) -> tuple[list[str], Bool[np.ndarray, " m"]]:
    """Why finite strengths do not exist, in sentences (none where they do); and which models are to blame."""
    groups, label = connected_components(csr_array(points + points.T > 0), directed=False)
    said, blamed = [], np.zeros(len(names), bool)
    if groups > 1:
        parts = " | ".join(listed([n for n, at in zip(names, label, strict=True) if at == g]) for g in range(groups))
        what = "These were never compared with each other, not even through others"
        said.append(f"{what}: {parts}; ratings compare within a group only.")
        blamed[:] = True
    _, label = connected_components(csr_array(points > 0), directed=True, connection="strong")
    sizes = np.bincount(label)
    main = sizes.argmax() if sizes.max() > 1 and (sizes == sizes.max()).sum() == 1 else None  # the others are the odd
    for g in dict.fromkeys(label.tolist()):
        own = label == g
        if g == main:
            continue
        taken, lost = points[own][:, ~own].sum(), points[~own][:, own].sum()
        if (taken > 0) == (lost > 0):  # of the middle, or without votes
            continue
        who, many = listed([n for n, at in zip(names, own, strict=True) if at]), own.sum() > 1
        what, end = ("every point", "upper") if taken else ("no point", "lower")
        whose = "their ratings have" if many else "its rating has"
        said.append(f"{who} took {what} from the other models, so {whose} no {end} limit.")
        blamed |= own
    return said, blamed


def wilson(points: Float[np.ndarray, "*s"], votes: Float[np.ndarray, "*s"]) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % interval of points / votes, half points too; NaN without votes."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share = points / votes
        centre = (share + Z**2 / (2 * votes)) / (1 + Z**2 / votes)
        half = Z / (1 + Z**2 / votes) * np.sqrt(share * (1 - share) / votes + Z**2 / (4 * votes**2))
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def half_width(votes: float) -> float:
    """Of Wilson's 95 % interval of a win rate at one half, from independent votes."""
    return Z / (2 * math.sqrt(votes + Z**2))


def rate(duels: Sequence[Duel], names: Sequence[str], seed: int = 0) -> Ratings:
    """Ratings and win rates of models with intervals."""
    points = points_matrix(duels, names)
    notes, blamed = connection(points, names)
    if notes:
        notes.append("Ratings here hold one virtual tie between every two models, which makes them finite.")
    drawn, resampled = _resamples(duels, names, seed)
    open_ends = ~_connected(drawn)
    drawn_ratings = MEAN + SPREAD * bradley_terry(drawn + PRIOR * open_ends[:, None, None] / 2)
    low, high = percentiles(drawn_ratings) if resampled else np.full((2, len(names)), math.nan)
    if resampled and not notes and open_ends.mean() > (1 - LEVEL) / 2:
        notes.append(
            f"In {open_ends.mean():.0%} of the resamples a model was unbeaten, winless or not compared; one virtual "
            "tie between every two models bounds it there, so the wide ends of these intervals are the tie's."
        )
    prompts = len({duel.prompt for duel in duels})
    if duels and prompts < ROUGH_PROMPTS:
        what = "are too narrow" if resampled else "can't be given"
        notes.append(f"Intervals over {prompts} prompt{'s'[: prompts - 1]} {what}: {ROUGH_PROMPTS} or more mend it.")
    with np.errstate(invalid="ignore"):
        rates, drawn_rates = points / (points + points.T), drawn / (drawn + np.swapaxes(drawn, 1, 2))
    rate_low, rate_high = wilson(points, points + points.T)
    if resampled:
        among = np.where(np.isfinite(drawn_rates), drawn_rates, rates)
        lower, upper = percentiles(among)
        rate_low, rate_high = np.minimum(rate_low, lower), np.maximum(rate_high, upper)
    return Ratings(
        tuple(names),
        MEAN + SPREAD * bradley_terry(points, PRIOR if blamed.any() else 0.0),
        np.where(blamed, math.nan, low),
        np.where(blamed, math.nan, high),
        points,
        rates,
        rate_low,
        rate_high,
        drawn_ratings,
        resampled,
        tuple(notes),
    )


def listed(names: Sequence[str]) -> str:
    """Names in a sentence."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def percentiles(values: Float[np.ndarray, "b ..."]) -> Float[np.ndarray, "2 ..."]:
    """The two ends of the central 95 %."""
    return np.percentile(values, [50 * (1 - LEVEL), 50 * (1 + LEVEL)], axis=0)


def _connected(points: Float[np.ndarray, "*b m m"]) -> Bool[np.ndarray, "*b"]:
    """Whether a chain of taken points leads from each model to each other."""
    reached = (points > 0) | np.eye(points.shape[-1], dtype=bool)
    for _ in range(max(points.shape[-1] - 1, 1).bit_length()):
        reached = np.matmul(reached, reached)
    return reached.all((-1, -2))


def _resamples(duels: Sequence[Duel], names: Sequence[str], seed: int) -> tuple[Float[np.ndarray, "b m m"], str]:
    """Points where prompts, and raters if there are enough, are drawn with replacement; and what was drawn."""
    m, rng = len(names), np.random.default_rng(seed)
    place = {name: i for i, name in enumerate(names)}
    prompts = {prompt: i for i, prompt in enumerate(dict.fromkeys(duel.prompt for duel in duels))}
    raters = {rater: i for i, rater in enumerate(dict.fromkeys(duel.rater for duel in duels))}
    if len(prompts) < FEWEST_PROMPTS:
        return np.zeros((0, m, m)), ""
    cells = {key: i for i, key in enumerate(dict.fromkeys((duel.prompt, duel.rater) for duel in duels))}
    rows = [cells[duel.prompt, duel.rater] for duel in duels]
    sides = [(place[d.first], place[d.second]) for d in duels]
    columns = [i * m + j for i, j in sides] + [j * m + i for i, j in sides]
    values = [d.points for d in duels] + [1 - d.points for d in duels]
    table = csr_array((values, (rows + rows, columns)), shape=(len(cells), m * m))  # what falls together is summed
    of_prompt, of_rater = np.array([(prompts[prompt], raters[rater]) for prompt, rater in cells]).T
    both, found = len(raters) >= FEWEST_RATERS, []
    per = max(CHUNK // len(cells), 1)
    for start in range(0, RESAMPLES, per):
        count = min(per, RESAMPLES - start)
        weights = rng.multinomial(len(prompts), np.full(len(prompts), 1 / len(prompts)), count)[:, of_prompt]
        if both:
            weights = weights * rng.multinomial(len(raters), np.full(len(raters), 1 / len(raters)), count)[:, of_rater]
        found.append(weights @ table)
    return np.concatenate(found).reshape(-1, m, m), "prompts and raters" if both else "prompts"
