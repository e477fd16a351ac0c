"""From votes to the page: what is found, what is said, and what is refused."""

import csv
import dataclasses
import html
import json
import math

import numpy as np
import pages
import pytest
from preference_cases import vote
from scipy.stats import binomtest

from rfjax.analysis.correlation import Correlation
from rfjax.errors import UserError
from rfjax.preferences import report
from rfjax.preferences.__main__ import main
from rfjax.preferences.findings import analyse, describe, duels
from rfjax.preferences.votes import Votes, read_votes

STRENGTH = {"d3": 0.0, "d6": 0.8, "d9": 1.2, "d12": 2.0}
LOSSES = {"d3": 0.30, "d6": 0.27, "d9": 0.26, "d12": 0.25}


def simulated(prompts=30, raters=2, questions=("quality", "following"), bias=0.0, ties=0.1, seed=0):
    """Votes by models' strengths; bias: added to what is left. Every tenth prompt comes again with sides swapped."""
    rng, names, found = np.random.default_rng(seed), list(STRENGTH), []
    for question in questions:
        for rater in range(raters):
            for prompt in range(prompts):
                for i, j in ((a, b) for a in range(4) for b in range(a)):
                    sides = [names[i], names[j]] if rng.random() < 0.5 else [names[j], names[i]]
                    for repeat in (False, True)[: 1 + (prompt % 10 == 0)]:
                        gap = STRENGTH[sides[0]] - STRENGTH[sides[1]] + bias
                        choice = "left" if rng.random() < 1 / (1 + math.exp(-gap)) else "right"
                        choice = "tie" if rng.random() < ties else choice
                        found.append(
                            vote(
                                pair=f"{i}{j}{prompt}", prompt=f"prompt {prompt}", question=question, choice=choice,
                                rater=f"r{rater}", left=sides[0], right=sides[1], repeat=repeat,
                                ms=int(rng.integers(500, 4000)),
                            )
                        )  # fmt: skip
                        sides = sides[::-1]
    return Votes(tuple(found))


@pytest.fixture(scope="module")
def findings():
    return analyse(simulated(), LOSSES)


def test_counts_and_shares_are_those_of_the_votes(findings):
    votes = [one for one in simulated().counted if one.question == "quality"]
    once = [one for one in votes if not one.repeat]
    asked = findings.asked[0]
    assert [one.question for one in findings.asked] == ["quality", "following"]
    assert (asked.votes, asked.raters, asked.prompts) == (len(once), 2, 30) == (360, 2, 30)
    ties = sum(one.choice == "tie" for one in once)
    expected = binomtest(ties, 360).proportion_ci(0.95, "wilson")
    assert (asked.ties.value, asked.ties.low, asked.ties.high) == pytest.approx(
        (ties / 360, expected.low, expected.high)
    )
    wins = sum(one.chosen == "d12" for one in once) + sum(
        one.choice == "tie" and "d12" in (one.left, one.right) for one in once
    ) / 2  # fmt: skip
    assert asked.ratings.points[asked.ratings.names.index("d12")].sum() == wins
    assert asked.agreement.units == 180 and asked.ratings.resampled == "prompts"
    assert len(duels(votes)) == len(once)


def test_true_strengths_lie_in_the_intervals():
    """Twelve differences, 95 % each: 8 or more hold with a probability of 0.9998 were they independent."""
    findings = analyse(simulated(ties=0.0), {})
    held = []
    for asked in findings.asked:
        for i, one in enumerate(STRENGTH):
            for other in list(STRENGTH)[:i]:
                _, low, high = asked.ratings.ahead(one, other)
                held.append(low <= 400 / math.log(10) * (STRENGTH[one] - STRENGTH[other]) <= high)
    assert sum(held) >= 8


def test_what_is_said_of_the_first_two():
    votes = [vote(pair=str(i), prompt=str(i), choice="left" if i % 2 else "right") for i in range(40)]
    assert "can't be told apart: +0 points (95 %" in describe(analyse(Votes(tuple(votes)), {}).asked[0])[0]
    votes = [vote(pair=str(i), prompt=str(i)) for i in range(9)]  # 9.5 points to 0.5, with the virtual tie
    said = "Quality: one is rated above two by 512 points, without an interval, from 9 votes."
    assert describe(analyse(Votes(tuple(votes)), {}).asked[0]) == (said, 0)


def test_a_rater_who_prefers_a_side_is_named_and_one_who_is_steady_is_not(findings):
    assert findings.warnings == ()
    found = analyse(simulated(bias=1.5), {})
    assert any(line.startswith("r0 chose the left picture in 7") for line in found.warnings)
    own = found.raters[0]
    assert own.same.of == 2 * 3 * 6 and 0 < own.same.value < 1 and own.left.low > 0.5
    assert found.everyone.votes == sum(rater.votes for rater in found.raters)


def test_self_agreement_is_of_the_same_model_not_of_the_same_side():
    same = vote(choice="left"), vote(choice="right", left="two", right="one", repeat=True)
    other = vote(choice="left", pair="1"), vote(choice="left", left="two", right="one", repeat=True, pair="1")
    bad = vote(choice="bad", pair="2"), vote(choice="tie", left="two", right="one", repeat=True, pair="2")
    found = analyse(Votes((*same, *other, *bad)), {}).raters[0].same
    assert (found.of, found.value) == (3, pytest.approx(1 / 3))


def test_ratings_follow_the_loss(findings):
    found = findings.asked[0].correlation
    assert isinstance(found, Correlation) and found.value == -1 and found.n == 4
    few = analyse(simulated(), {"d3": 1.0}).asked[0].correlation
    assert few == "a correlation with an interval needs 4 points or more, not 1"
    names = {"d3": "d3@100", "d6": "d3@200", "d9": "d6@100", "d12": "d6@200"}
    renamed = [dataclasses.replace(v, left=names[v.left], right=names[v.right]) for v in simulated().counted]
    found = analyse(Votes(tuple(renamed)), {names[name]: loss for name, loss in LOSSES.items()}).asked[0].correlation
    assert "come from 2 groups" in found.note
    for losses, said in (({"d4": 1.0}, "none of the models .did you mean"), ({"d3": math.nan}, "must be finite")):
        with pytest.raises(UserError, match=said):
            analyse(simulated(prompts=1), losses)
    with pytest.raises(UserError, match="no votes yet"):
        analyse(Votes((vote(repeat=True),)), {})


def write_votes(path, votes):
    path.write_bytes(b"".join(one.line() for one in votes.counted))
    return path


def test_the_report_s_files(tmp_path, capsys):
    path = write_votes(tmp_path / "votes.jsonl", simulated())
    losses = [f"{name}={value}" for name, value in LOSSES.items()]
    assert main(["report", "--votes", str(path), "--losses", *losses, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "Quality: d12 is rated above d9 by" in said and "report: " in said
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    pages.check(page)
    for words in ("Krippendorff's alpha", "against d3", "same on repeats", "Spearman's correlation", "votes a pair"):
        assert words in html.unescape(page), words
    assert (tmp_path / "out" / "ratings.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "out" / "ratings.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 and rows[0]["model"] == "d12" and float(rows[0]["low"]) < float(rows[0]["rating"])
    found = json.loads((tmp_path / "out" / "ratings.json").read_text(encoding="utf-8"))
    assert found["questions"]["quality"]["models"]["d12"]["rating"] == pytest.approx(float(rows[0]["rating"]), abs=0.01)
    assert len(found["questions"]["quality"]["pairs"]) == 6 and found["losses"] == LOSSES


@pytest.mark.parametrize(
    ("votes", "said"),
    [
        ([vote()], "one took every point from the other models"),
        ([vote(), vote(pair="1", left="three", right="four")], "were never compared"),
        ([vote(choice="bad")], "can't be given"),
        ([vote(question="charm", prompt="<script>alert(1)</script>", rater="<b>x", left="a&b")], "charm"),
    ],
)
def test_few_votes_make_a_page_too(tmp_path, votes, said):
    path = write_votes(tmp_path / "votes", Votes(tuple(votes)))
    report.write(read_votes([path]), {}, tmp_path / "out", ["report"])
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    pages.check(page)
    assert said in html.unescape(page) and "<b>x" not in page
    json.loads((tmp_path / "out" / "ratings.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report", "--votes", "nowhere", "--out", "out"], "nowhere is not there"),
        (["report", "--votes", "votes", "--out", "votes"], "votes is a file, where the report's folder"),
        (["report", "--votes", "votes", "--out", "votes/x"], "can't be written to votes/x"),
        (["report", "--votes", "votes", "--out", "out", "--losses", "one"], "--losses 'one' must be NAME=VALUE"),
        (["report", "--votes", "votes", "--out", "out", "--losses", "one=x"], "--losses one=x must be a number"),
        (["serve", "--votes", "v", "--samples", "a=x", "a=y"], "--samples has 'a' twice"),
        (["serve", "--votes", "v", "--samples", "a=x", "b=y"], "x is not there"),
        (["serve", "--votes", "v", "--samples", "a=x", "--questions", "qualty"], "did you mean 'quality'"),
        (["serve", "--votes", "v", "--samples", "a=x", "--questions", "quality", "quality"], "has one twice"),
        (["serve", "--votes", "v", "--samples", "a=x", "--repeats", "2"], "--repeats 2 must be a share"),
        (["serve", "--votes", "v", "--samples", "a=x", "--limit", "-1"], "--limit -1 must be 0 or more"),
        (["serve", "--votes", "v", "--samples", "a=x", "--port", "70000"], "--port 70000 must be a port"),
    ],
)
def test_mistakes_are_said_in_a_sentence(tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    write_votes(tmp_path / "votes", Votes((vote(),)))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError) as error:
        main(words)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert sorted(tmp_path.iterdir()) == before
