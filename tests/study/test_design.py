"""The job `design`: a pilot's folder in, a ladder, a config that parses and a page out; mistakes in one sentence."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic import change_lines, write_study
from tiny import tiny

from rfjax import config as configs
from rfjax import flags
from rfjax.errors import UserError
from rfjax.planning.chips import CHIPS
from rfjax.study import design
from rfjax.study import pilot as pilots
from rfjax.study.reports import design_words as words

WIDTH = 0.045
SEEDED = {"model.depth": (1, 2, 3, 4, 5), "training.seed": (0, 1, 2)}
PEAK = CHIPS["h100"].peak("float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("pilot") / "work", noise=0.02, axes=SEEDED)


def asked(folder: Path, **keys) -> configs.Config:
    c = tiny()
    c.workdir, c.job = str(folder), "design"
    c.design.update(target="depth=15", trials=20)
    c.design.update(keys)
    return configs.parse(c)


@pytest.fixture(scope="module")
def wanted(folder):
    return design.answer(asked(folder, width=WIDTH), PEAK)


@pytest.fixture(scope="module")
def told(folder, wanted):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(design, "answer", lambda *_: wanted)
        return design.run(asked(folder, width=WIDTH), PEAK)


@pytest.fixture(scope="module")
def narrowest(folder):
    return design.answer(asked(folder), PEAK)


def test_it_answers_with_a_ladder_that_keeps_its_width(folder, told):
    found = json.loads((folder / "design" / "design.json").read_text())
    cheapest = found["cheapest"]
    assert cheapest["width"] <= WIDTH and cheapest["kept"] >= 0.8
    assert 0 < cheapest["cost"] <= found["limit"] == pytest.approx(found["target_cost"])
    assert f"depths {', '.join(map(str, cheapest['depths']))}" in told
    assert "95 %" not in told.splitlines()[0] and told.startswith("What is the loss at depth=15")
    assert [row["cost"] for row in found["curve"]] == sorted(row["cost"] for row in found["curve"])
    assert len((folder / "design" / "curve.csv").read_text().splitlines()) == len(found["curve"]) + 1


def written_by(folder: Path) -> configs.Config:
    return flags.read_flags([f"--config={folder / 'design' / 'ladder.py'}"])


def test_the_config_that_it_writes_contains_the_pilot_and_goes_on_in_its_folder(folder, told):
    found = json.loads((folder / "design" / "design.json").read_text())["cheapest"]
    written = written_by(folder)
    runs, there = dict(configs.runs(written)), json.loads((folder / "study.json").read_text())
    assert written.workdir == str(folder) and written.job == "study"
    assert configs.differences(written.to_dict(), there["config"]) == []
    assert [sum(run.model.depth == d for run in runs.values()) for d in found["depths"]] == found["seeds"]
    assert set(there["runs"]) <= set(runs) and found["reused"] == len(there["runs"]) == 15
    for name in there["runs"]:
        plain = json.loads((folder / "runs" / name / "config.json").read_text())
        assert configs.differences(runs[name].to_dict(), plain) == []
    assert f"15 runs are the pilot's, and {len(runs) - 15} " in told


def test_a_ladder_costs_what_is_not_there_yet(wanted):
    found, ground = wanted, wanted.pilot.ground
    for one in (simulated.candidate for simulated in found.designs.curve):
        new = [n - 3 * (depth <= 5 and one.reused > 0) for depth, n in zip(one.depths, one.seeds, strict=True)]
        price = sum(n * ground.cost(d, one.examples) for d, n in zip(one.depths, new, strict=True))
        assert one.cost == pytest.approx(price, rel=1e-9, abs=1e-6) and one.reused in (0, 15)
        assert one.reused == 0 or one.examples == ground.examples
    assert found.designs.curve[0].candidate.cost == 0  # the pilot itself


def test_the_ladder_carries_its_promise(folder, told):
    study = written_by(folder).study
    assert (study.promise, study.promise_probability) == (WIDTH, 0.8)
    assert study.promise_at == "parameters=33750000"  # 1e4 x 15^3


def test_a_promise_without_a_wanted_width_is_that_of_the_narrowest(narrowest):
    found = narrowest
    assert found.designs.wanted is None and found.chosen is found.designs.affordable
    assert found.promised == pytest.approx(found.chosen.width(0.8), rel=1e-3)
    assert found.promised >= found.chosen.width(0.8)


def test_more_validation_examples_need_a_folder_of_their_own(folder, narrowest):
    found = narrowest
    one = replace(found.chosen.candidate, reused=0, examples=32, seeds=(3, 3, 2, 1, 1), depths=(1, 2, 3, 4, 5))
    text = design.config_text(replace(found, chosen=replace(found.chosen, candidate=one)))
    assert f"c.workdir = '{folder}_designed'" in text
    assert "seeds=(3, 3, 2, 1)" in text and "c.validation.update(batch=8, examples=32)" in text


def test_a_pilot_of_one_seed_is_contained_in_ladders_of_one_seed(tmp_path):
    folder = write_study(tmp_path / "work", noise=0.01, axes={"model.depth": (1, 2, 3, 4, 5, 6)})
    found = design.answer(asked(folder), PEAK)
    assert {one.candidate.reused for one in found.designs.curve if set(one.candidate.seeds) == {1}} >= {6}
    assert all(one.candidate.reused == 0 for one in found.designs.curve if set(one.candidate.seeds) != {1})
    one = replace(found.chosen.candidate, reused=6, seeds=(1,) * 7, depths=(1, 2, 3, 4, 5, 6, 7))
    text = design.config_text(replace(found, chosen=replace(found.chosen, candidate=one)))
    assert "seeds=" not in text and f"c.workdir = '{folder}'" in text


def test_the_page_holds_question_answer_curve_and_command(folder, told):
    page = (folder / "design" / "index.html").read_text()
    for part in ("What is the loss at depth=15", "The cheapest ladder", "<svg", "ladder.py", "Supposed: the law holds"):
        assert part in page
    assert (folder / "design" / "curve.png").stat().st_size > 1000


def test_a_ladder_has_the_seeds_that_are_asked_for(folder, narrowest, monkeypatch):
    monkeypatch.setattr(pilots, "read", lambda *_: narrowest.pilot)
    found = design.answer(asked(folder, least_seeds=5), PEAK)
    assert all(min(one.candidate.seeds) >= 5 for one in found.designs.curve)


def test_costs_are_in_the_unit_that_is_asked_for(folder):
    price = lambda **keys: design.price_of(asked(folder, **keys), PEAK)  # noqa: E731
    assert price()(7.2e15, 1e9) == 7.2e15
    assert price(unit="seconds")(7.2e15, 1e9) == 7.2e6
    assert price(unit="device_hours")(7.2e15, 1e9) == pytest.approx(7.2e15 / (494e12 * 0.4 * 3600))


def test_sizes_costs_and_noise_are_read_from_the_runs(folder):
    seen = []
    pilot = pilots.read(folder, 40, 0, lambda flops, speed: seen.append(speed) or flops)
    arm = pilot.arms[0]
    assert arm.parameters(20) == pytest.approx(1e4 * 20**3, rel=1e-6)
    assert arm.flops(20) == pytest.approx(320 * 6e4 * 20**3, rel=1e-6)
    assert pilot.ground.cost(20, 16) > arm.flops(20)
    assert pilot.ground.cost(3, 16) and seen[-1] == pytest.approx(48 * 40 * 27e4 / 4)
    assert pilots.target_of("parameters=8e7", pilot) == pytest.approx((8e7, 20), rel=1e-6)
    assert pilots.target_of("train_flops=1.536e11", pilot) == pytest.approx((8e7, 20), rel=1e-6)
    low, high = 1e-4, 0.02  # the noise is 2 % of A N^-alpha, a part of the loss
    assert low < pilot.noise < high and 0 <= pilot.ground.share <= 1


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"target": ""}, "config.design.target is empty"),
        ({"target": "parametrs=8e9"}, "did you mean 'parameters'"),
        ({"target": "parameters=nan"}, "names no size: write it like"),
        ({"target": "depth=4"}, "lies inside the pilot's ladder, whose largest rung has depth = 5: .*ask for depth=10"),
        ({"target": "depth=90000"}, "ask for depth=1e.04 or less"),
        ({"width": 1e-5}, "narrower than any ladder can promise: .*ask for 0"),
        ({"budget": 1.0, "least_seeds": 8}, "pays for no ladder: the cheapest costs .* FLOPs"),
    ],
)
def test_a_question_without_an_answer_is_told_what_has_one(folder, narrowest, monkeypatch, keys, message):
    monkeypatch.setattr(pilots, "read", lambda *_: narrowest.pilot)
    with pytest.raises(UserError, match=message):
        design.answer(asked(folder, **keys), PEAK)


def test_what_is_too_far_is_told_with_what_is_not(folder, narrowest, monkeypatch):
    monkeypatch.setattr(pilots, "read", lambda *_: narrowest.pilot)
    found = design.answer(asked(folder, target="depth=300", width=0.03, budget=3e9), PEAK)
    said = " ".join(words.sentences(found))
    assert found.designs.wanted is None and "Too far: no ladder of at most 3e+09 FLOPs" in said
    assert re.search(r"Not too far is about parameters|No size beyond the pilot", said)


def test_a_pilot_of_two_rungs_is_told_what_to_run(tmp_path):
    folder = write_study(tmp_path / "two", noise=0.01, axes={"model.depth": (1, 2), "training.seed": (0, 1)})
    with pytest.raises(UserError, match=r"has 2 finished rungs \(4 runs\).*run a study first with .*\(1,2,3,4,5\)"):
        design.answer(asked(folder), PEAK)


def test_runs_of_two_data_sets_are_no_ladder(tmp_path):
    axes = {"model.depth": (1, 2, 3, 4), "data.name": ("shapes", "digits")}
    folder = write_study(tmp_path / "mixed", noise=0.01, axes=axes)
    with pytest.raises(UserError, match=r"no rungs of one ladder .data.name is 'digits' there"):
        design.answer(asked(folder), PEAK)


def test_runs_of_two_grids_are_no_ladder(tmp_path):
    folder = write_study(tmp_path / "grids", noise=0.01, axes=SEEDED)
    change_lines(folder, "d3-seed1", lambda line: line | ({"grid": "k/16"} if "grid" in line else {}))
    with pytest.raises(UserError, match=r"different grids of t .d1-seed0 on k/8 and d3-seed1 on k/16."):
        design.answer(asked(folder), PEAK)


def test_a_loss_that_rises_with_size_has_no_design(tmp_path):
    folder = write_study(tmp_path / "rising", noise=0.01, axes=SEEDED)
    for name in json.loads((folder / "study.json").read_text())["runs"]:
        change_lines(folder, name, lambda line: line | ({"loss": 1 / line["loss"]} if "loss" in line else {}))
    with pytest.raises(UserError, match=r"does not fall with size .*learning_rate"):
        design.answer(asked(folder), PEAK)


def test_the_job_needs_no_jax():
    code = "import sys; sys.modules['jax'] = None; import rfjax.study.design, rfjax.study.reports.design"
    subprocess.run([sys.executable, "-c", code + ", rfjax.planning.chips"], check=True)
