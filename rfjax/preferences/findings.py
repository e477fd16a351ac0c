"""What the votes say: ratings by question, agreement of raters with each other and themselves, their habits."""

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rfjax.analysis.correlation import Correlation, spearman
from rfjax.analysis.fitting import TooFewPoints
from rfjax.analysis.raters import Agreement, agreement
from rfjax.analysis.ratings import Duel, Ratings, half_width, listed, rate, wilson
from rfjax.errors import UserError, nearest, one_line
from rfjax.preferences.pairs import QUESTIONS
from rfjax.preferences.votes import Vote, Votes

POINTS = {"left": 1.0, "right": 0.0, "tie": 0.5, "bad": 0.5}  # of the left model


@dataclass(frozen=True)
class Share:
    """A share of votes with Wilson's 95 % interval; NaN of none."""

    of: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Asked:
    """What the votes on one question say.

    Attributes:
        votes: repeats are not among them.
        ties, bad: votes for neither, because both are good, or bad.
        raters, prompts: how many.
        agreement: of raters on the same pair; a value is the model that won, a tie, or both bad.
        correlation: Spearman's, of ratings and validation losses, or why there is none; "" without losses.
    """

    question: str
    ratings: Ratings
    votes: int
    ties: Share
    bad: Share
    raters: int
    prompts: int
    agreement: Agreement
    correlation: Correlation | str


@dataclass(frozen=True)
class Rater:
    """One rater's habits; same: repeats with the first time's answer; left: of the votes for one picture; seconds: the
    median of a vote."""

    name: str
    votes: int
    same: Share
    left: Share
    neither: Share
    seconds: float


@dataclass(frozen=True)
class Findings:
    """All of it; losses: model -> validation loss."""

    asked: tuple[Asked, ...]
    raters: tuple[Rater, ...]
    everyone: Rater
    losses: Mapping[str, float]
    warnings: tuple[str, ...]


def analyse(votes: Votes, losses: Mapping[str, float]) -> Findings:
    """Reads the votes.

    Args:
        losses: model -> validation loss, of some or all of them.

    Raises:
        UserError: if there are no votes, or a loss is of none of the models, or not finite.
    """
    if all(vote.repeat for vote in votes.counted):
        raise UserError("there are no votes yet: `python -m rfjax.preferences serve` collects them")
    models = sorted({model for vote in votes.counted for model in (vote.left, vote.right)})
    for name, value in losses.items():
        if name not in models:
            raise UserError(f"--losses '{one_line(name)}' is none of the models{nearest(name, models)}")
        if not math.isfinite(value):
            raise UserError(f"--losses {name}={value} must be finite")
    questions = sorted({vote.question for vote in votes.counted if not vote.repeat}, key=_place)
    by_rater: dict[str, list[Vote]] = defaultdict(list)
    for vote in votes.counted:
        by_rater[vote.rater].append(vote)
    asked = tuple(_asked([v for v in votes.counted if v.question == name], name, losses) for name in questions)
    raters = tuple(habits(name, by_rater[name]) for name in sorted(by_rater))
    everyone = habits("all", votes.counted)
    return Findings(asked, raters, everyone, losses, tuple(_warnings(votes, asked, raters)))


def share(count: float, of: int) -> Share:
    """A share of votes with its interval."""
    if not of:
        return Share(0, math.nan, math.nan, math.nan)
    low, high = wilson(count, of)
    return Share(of, count / of, float(low), float(high))


def duels(votes: Sequence[Vote]) -> list[Duel]:
    """The votes as points; a prompt is what is resampled."""
    return [Duel(v.left, v.right, POINTS[v.choice], v.prompt, v.rater) for v in votes if not v.repeat]


def answer(vote: Vote) -> str:
    """What a vote says whatever the sides: the model that won, in quotes, or tie, or bad."""
    return vote.choice if vote.chosen is None else repr(vote.chosen)


def habits(name: str, votes: Sequence[Vote]) -> Rater:
    """How a rater votes."""
    first = {vote.key[:3]: answer(vote) for vote in votes if not vote.repeat}
    again = [(answer(vote), first[vote.key[:3]]) for vote in votes if vote.repeat and vote.key[:3] in first]
    decided = [vote for vote in votes if vote.chosen is not None]
    return Rater(
        name,
        len(votes),
        share(sum(now == before for now, before in again), len(again)),
        share(sum(vote.choice == "left" for vote in decided), len(decided)),
        share(len(votes) - len(decided), len(votes)),
        statistics.median(vote.ms for vote in votes) / 1000,
    )


def _asked(votes: Sequence[Vote], question: str, losses: Mapping[str, float]) -> Asked:
    once = [vote for vote in votes if not vote.repeat]
    models = sorted({model for vote in once for model in (vote.left, vote.right)})
    ratings = rate(duels(once), models)
    counts, judged = Counter(vote.choice for vote in once), defaultdict(list)
    for vote in once:
        judged[vote.pair].append(answer(vote))
    return Asked(
        question,
        ratings,
        len(once),
        share(counts["tie"], len(once)),
        share(counts["bad"], len(once)),
        len({vote.rater for vote in once}),
        len({vote.prompt for vote in once}),
        agreement(judged.values()),
        _correlation(ratings, losses) if losses else "",
    )


def _correlation(ratings: Ratings, losses: Mapping[str, float]) -> Correlation | str:
    """Checkpoints of one run, named RUN@STEP, are no independent points."""
    names = [name for name in ratings.names if name in losses]
    found = [float(ratings.rating[ratings.names.index(name)]) for name in names]
    try:
        return spearman([losses[name] for name in names], found, groups=[name.partition("@")[0] for name in names])
    except TooFewPoints as error:
        return str(error).removesuffix(".")


def _warnings(votes: Votes, asked: Sequence[Asked], raters: Sequence[Rater]) -> list[str]:
    said = [f"{one.question}: {note}" for one in asked for note in one.ratings.notes]
    if votes.damaged:
        said.append(f"{votes.damaged} lines of the votes are damaged and don't count.")
    if votes.doubled:
        said.append(f"{votes.doubled} votes are on what the rater had voted on before; the first counts.")
    for rater in raters:
        if rater.left.low > 0.5 or rater.left.high < 0.5:
            said.append(f"{rater.name} chose the left picture in {in_percent(rater.left)}: sides were random.")
    return said


def in_percent(found: Share) -> str:
    """A share with its interval, in words."""
    return f"{found.value:.0%} ({found.low:.0%} to {found.high:.0%}) of {found.of:,} votes"


def describe(one: Asked) -> tuple[str, int]:
    """The first two models of a question in a sentence, and whether their difference is clear: 1, or 0."""
    r = one.ratings
    order = sorted(range(len(r.names)), key=lambda i: -r.rating[i])
    top, second = (r.names[i] for i in order[:2])
    value, low, high = r.ahead(top, second)
    if not math.isfinite(low):
        found, clear = f"is rated above {second} by {value:.0f} points, without an interval", False
    else:
        clear = low > 0
        found = (
            f"is rated above {second} by {value:.0f}" if clear else f"and {second} can't be told apart: {value:+.0f}"
        )
        found += f" points (95 % {low:+.0f} to {high:+.0f})"
    return f"{one.question.capitalize()}: {top} {found}, from {one.votes:,} votes.", int(clear)


def resolution(one: Asked) -> str:
    """What this many votes can tell of two models."""
    r = one.ratings
    counts = sorted(int(r.votes[i, j]) for i in range(len(r.names)) for j in range(i) if r.votes[i, j] > 0)
    middle = statistics.median_low(counts)
    return (
        f"{one.question.capitalize()}: {middle} votes a pair (the median) tell a win rate near one half to ± "
        f"{100 * half_width(middle):.1f} points at best, as if each vote were independent; {one.raters} "
        f"rater{'s'[: one.raters - 1]} judged {one.prompts} prompt{'s'[: one.prompts - 1]}."
    )


def to_json(findings: Findings) -> dict[str, Any]:
    """Plain values of all numbers."""
    asked = {}
    for one in findings.asked:
        r, pairs = one.ratings, []
        for i, first in enumerate(r.names):
            for j, second in enumerate(r.names):
                if i < j and r.votes[i, j] > 0:
                    value, low, high = r.ahead(first, second)
                    rates = {"rate": r.rate[i, j], "rate_low": r.rate_low[i, j], "rate_high": r.rate_high[i, j]}
                    ahead = {"ahead": value, "ahead_low": low, "ahead_high": high}
                    plain = {name: float(number) for name, number in (rates | ahead).items()}
                    pairs.append({"first": first, "second": second, "votes": int(r.votes[i, j]), **plain})
        models = {
            name: {"rating": float(r.rating[i]), "low": float(r.low[i]), "high": float(r.high[i])}
            for i, name in enumerate(r.names)
        }
        found = one.correlation
        asked[one.question] = {
            "votes": one.votes, "raters": one.raters, "prompts": one.prompts, "resampled": r.resampled,
            "models": models, "pairs": pairs, "ties": vars(one.ties), "both_bad": vars(one.bad),
            "agreement": vars(one.agreement), "notes": list(r.notes),
            "loss_correlation": vars(found) if isinstance(found, Correlation) else found,
        }  # fmt: skip
    raters = [
        {**vars(r), "same": vars(r.same), "left": vars(r.left), "neither": vars(r.neither)} for r in findings.raters
    ]
    return {"questions": asked, "raters": raters, "losses": dict(findings.losses), "warnings": list(findings.warnings)}


def _place(question: str) -> tuple[int, str]:
    names = list(QUESTIONS)
    return names.index(question) if question in names else len(names), question


def subtitle(findings: Findings) -> str:
    """Who was compared, by how many votes."""
    best: dict[str, float] = {}
    for one in findings.asked:
        for name, rating in zip(one.ratings.names, one.ratings.rating.tolist(), strict=True):
            best[name] = max(rating, best.get(name, rating))
    once, raters = sum(one.votes for one in findings.asked), len(findings.raters)
    again = findings.everyone.votes - once
    names = listed(sorted(best, key=lambda name: -best[name]))
    return f"{names}: {once:,} votes and {again:,} repeats by {raters} rater{'s'[: raters - 1]}"
