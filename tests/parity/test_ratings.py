"""Ratings and agreement beside evalica's, and choix's where it is installed."""

import math

import numpy as np
import pytest

from rfjax.analysis import ratings
from rfjax.analysis.raters import agreement
from rfjax.analysis.ratings import Duel, bradley_terry, points_matrix

evalica = pytest.importorskip("evalica", reason="pip install --no-deps evalica pandas")

BETA = np.array([0.9, 0.2, 0.0, -0.4, -0.7])
NAMES = [f"m{i}" for i in range(len(BETA))]


def votes(seed, count=600, ties=0.2):
    """Votes on pairs at random, a fifth of them ties."""
    rng, found = np.random.default_rng(seed), []
    for number in range(count):
        i, j = rng.choice(len(BETA), 2, replace=False)
        won = float(rng.random() < 1 / (1 + math.exp(BETA[j] - BETA[i])))
        found.append(Duel(NAMES[i], NAMES[j], 0.5 if rng.random() < ties else won, str(number), "r"))
    return found


WINNER = {1.0: evalica.Winner.X, 0.0: evalica.Winner.Y, 0.5: evalica.Winner.Draw}


@pytest.mark.parametrize("seed", range(5))
def test_bradley_terry_is_evalica_s(seed):
    duels = votes(seed)
    sides, winners = zip(*((d.first, d.second) for d in duels), strict=True), [WINNER[d.points] for d in duels]
    first, second = sides
    found = evalica.bradley_terry(first, second, winners, tolerance=1e-12, limit=100_000).scores
    theirs = ratings.SPREAD * np.log([found[name] for name in NAMES])
    ours = ratings.SPREAD * bradley_terry(points_matrix(duels, NAMES))
    assert ours - ours.mean() == pytest.approx(theirs - theirs.mean(), abs=1e-9)  # measured: 8e-12 points


def test_bradley_terry_is_choix_s():
    choix = pytest.importorskip("choix")
    place, duels = {name: i for i, name in enumerate(NAMES)}, votes(0, ties=0.0)
    wins = [(place[d.first], place[d.second])[:: 1 if d.points else -1] for d in duels]
    theirs = choix.opt_pairwise(len(NAMES), wins, alpha=0.0, tol=1e-12)
    ours = bradley_terry(points_matrix(duels, NAMES))
    assert ours == pytest.approx(theirs - theirs.mean(), abs=1e-5)


def test_what_evalica_answers_silently_is_refused():
    """One strength for all where a model is unbeaten; strengths of groups that never met."""
    won = evalica.Winner.X
    found = evalica.bradley_terry(["a"] * 9, ["b"] * 9, [won] * 9).scores
    assert found["a"] == found["b"]
    apart = "aaabcccdd"
    found = evalica.bradley_terry(
        [*apart], [{"a": "b", "b": "a", "c": "d", "d": "c"}[x] for x in apart], [won] * 9
    ).scores
    assert np.isfinite(found).all()
    for points in ([[0, 9.0], [0, 0]], [[0, 3.0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 3], [0, 0, 2, 0]]):
        with pytest.raises(ValueError, match="infinite"):
            bradley_terry(np.array(points))


def test_krippendorff_s_alpha_is_evalica_s():
    rng = np.random.default_rng(0)
    table = rng.choice([0.0, 1, 2, 3], (3, 60), p=[0.4, 0.3, 0.2, 0.1])
    table[1] = np.where(rng.random(60) < 0.6, table[0], table[1])
    table[rng.random((3, 60)) < 0.2] = np.nan
    units = [[value for value in column if not math.isnan(value)] for column in table.T]
    import pandas as pd

    theirs = evalica.alpha(pd.DataFrame(table), "nominal").alpha
    assert agreement(units).alpha == pytest.approx(theirs, abs=1e-12)
