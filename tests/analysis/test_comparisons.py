"""The numbers behind comparisons: rates, drops, leads, who is early, contests of variants."""

import math

import pytest

from rfjax.analysis import Measure, Setting, analyse_contest, choose_rate, mean_measure, sweep_rates
from rfjax.analysis.few_steps import drop
from rfjax.analysis.multipliers import beginning, leads


def test_a_rate_that_lacks_a_seed_is_not_chosen_however_low():
    found = choose_rate("rf", "shapes", {0.1: [0.5, 0.7], 0.2: [0.1], 0.4: [0.9, 0.9]}, 1.0)
    assert (found.best, found.out) == (0.1, (0.2,))
    assert [said.partition(": ")[2] for said in found.warnings] == [
        "not all runs at the learning rate 0.2 have a final loss.",
        "the best learning rate, 0.1, is at the edge of those tried.",
    ]
    none = choose_rate("rf", "shapes", {0.1: [], 0.2: []}, 1.0)
    assert none.best is None
    assert none.to_plain()["losses"] == {0.1: None, 0.2: None}


def test_a_parabola_finds_the_best_rate_in_the_logarithm():
    best = 0.03
    losses = {2: {rate: [math.log(rate / best) ** 2] for rate in (0.01, 0.02, 0.04, 0.08)} | {0.16: []}}
    (sweep,) = sweep_rates(losses)
    assert sweep.best == pytest.approx(best)
    assert (sweep.lost, sweep.at_edge) == ((0.16,), False)


def test_a_drop_and_its_error():
    found = drop(0.4, 0.03, 0.5, 0.04)
    assert found["drop"] == pytest.approx(20)
    assert found["drop_stderr"] == pytest.approx(100 * math.hypot(0.03 / 0.5, 0.4 * 0.04 / 0.5**2))


def test_leads_pair_seeds_and_the_beginning_is_a_quarter():
    found = leads({"a": {0: 1.0, 1: 2.0}, "b": {1: 2.5, 2: 9.0}, "c": {3: 1.0}}, ("a", "b", "c"))
    assert found == {("a", "b"): (0.5, None, None)}
    early = beginning({"a": [{2: 5.0, 8: 1.0}], "b": [{2: 3.0}, {2: 5.0}]}, steps=8)
    assert (early.step, early.losses) == (2, {"b": 4.0, "a": 5.0})
    assert beginning({"a": [{}]}, steps=8) is None


def measure(seed, score, frechet):
    values = {"score": score, "frechet": frechet}
    none = dict.fromkeys(values, math.nan)
    return Measure(values, none, none, {"score": {"red": score}}, 1.0, 40, 128, "uniform", {seed: values})


def test_a_contest_ranks_the_means_of_seeds_by_front():
    found = {
        Setting("shapes", "ema", 5, 5.0): {
            "rf": mean_measure([measure(0, 0.9, 1.0), measure(0, 0.7, 3.0)]),  # one seed twice: their mean
            "eps/linear": measure(0, 0.5, 4.0),
        }
    }
    contest = analyse_contest(found, {"score": "higher", "frechet": "lower"}, {"all": {}, "five": {}, "fifty": {}})
    assert contest.measures[contest.settings[0]]["rf"].by_seed == {0: {"score": pytest.approx(0.8), "frechet": 2.0}}
    assert contest.columns["all"].average == {"rf": 1.0, "eps/linear": 2.0}
    assert (contest.winners, set(contest.columns)) == (("rf",), {"all", "five"})
    assert contest.gaps(3, ((5, 5.0), (50, 1.0)))[1].startswith("Settings of the paper's that nothing was measured at")
