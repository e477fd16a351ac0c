"""The job `design`: a pilot's folder in, a ladder, a config that parses and a page out; mistakes in one sentence."""

import json
import re
import subprocess
import sys
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
def told(folder):
    return design.run(asked(folder, width=0.08), PEAK)


def test_it_answers_with_a_ladder_that_keeps_its_width(folder, told):
    found = json.loads((folder / "design" / "design.json").read_text())
    cheapest = found["cheapest"]
    assert cheapest["width"] <= 0.08 and cheapest["kept"] >= 0.8
    assert cheapest["cost"] <= found["limit"] == pytest.approx(found["target_cost"])
    assert f"depths {', '.join(map(str, cheapest['depths']))}" in told
    assert "95 %" not in told.splitlines()[0] and told.startswith("What is the loss at depth=15")
    assert [row["cost"] for row in found["curve"]] == sorted(row["cost"] for row in found["curve"])
    assert len((folder / "design" / "curve.csv").read_text().splitlines()) == len(found["curve"]) + 1


def test_the_config_that_it_writes_is_the_ladder_with_the_pilot_s_settings(folder, told):
    found = json.loads((folder / "design" / "design.json").read_text())["cheapest"]
    written = flags.read_flags([f"--config={folder / 'design' / 'ladder.py'}"])
    runs = dict(configs.runs(written))
    assert len(runs) == len(found["depths"]) * found["seeds"]
    assert sorted({run.model.depth for run in runs.values()}) == found["depths"]
    assert written.workdir == f"{folder}_designed" and written.job == "study"
    assert written.validation.examples == found["validation_examples"]
    pilot = json.loads((folder / "study.json").read_text())["config"]
    changed = configs.differences(written.to_dict(), pilot)
    names = {said.split(" ")[0] for said in changed}  # the depth is an axis in both; 0 stands for a source's own size
    assert names <= {"model.depth", "validation.examples", "data.image_size", "data.channels"}


def test_the_page_holds_question_answer_curve_and_command(folder, told):
    page = (folder / "design" / "index.html").read_text()
    for part in ("What is the loss at depth=15", "The cheapest ladder", "<svg", "ladder.py", "Supposed: the law holds"):
        assert part in page
    assert (folder / "design" / "curve.png").stat().st_size > 1000


def test_a_ladder_has_the_seeds_that_are_asked_for(folder):
    found = design.answer(asked(folder, least_seeds=5), PEAK)
    assert {one.candidate.seeds for one in found.designs.curve} <= {6, 8}


def test_costs_are_in_the_unit_that_is_asked_for(folder):
    price = lambda **keys: design.price_of(asked(folder, **keys), PEAK)  # noqa: E731
    assert price()(7.2e15, 1e9) == 7.2e15
    assert price(unit="seconds")(7.2e15, 1e9) == 7.2e6
    assert price(unit="device_hours")(7.2e15, 1e9) == pytest.approx(7.2e15 / (494e12 * 0.4 * 3600))


def test_sizes_costs_and_noise_are_read_from_the_runs(folder):
    pilot = pilots.read(folder, 40, 0, lambda flops, speed: flops)
    assert pilot.parameters(20) == pytest.approx(1e4 * 20**3, rel=1e-6)
    assert pilot.flops(20) == pytest.approx(320 * 6e4 * 20**3, rel=1e-6)
    assert pilot.ground.cost(20, 16) > pilot.flops(20)
    assert pilot.speed(3) == pytest.approx(48 * 40 * 27e4 / 4)
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
        ({"budget": 1.0}, "pays for no ladder: the cheapest costs .* FLOPs"),
    ],
)
def test_a_question_without_an_answer_is_told_what_has_one(folder, keys, message):
    with pytest.raises(UserError, match=message):
        design.answer(asked(folder, **keys), PEAK)


def test_what_is_too_far_is_told_with_what_is_not(folder):
    found = design.answer(asked(folder, target="depth=300", width=0.03, budget=3e9), PEAK)
    from rfjax.study.reports.design import sentences

    said = " ".join(sentences(found))
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


def test_a_loss_that_rises_with_size_has_no_design(tmp_path):
    folder = write_study(tmp_path / "rising", noise=0.01, axes=SEEDED)
    for name in json.loads((folder / "study.json").read_text())["runs"]:
        change_lines(folder, name, lambda line: line | ({"loss": 1 / line["loss"]} if "loss" in line else {}))
    with pytest.raises(UserError, match=r"does not fall with size .*learning_rate"):
        design.answer(asked(folder), PEAK)


def test_the_job_needs_no_jax():
    code = "import sys; sys.modules['jax'] = None; import rfjax.study.design, rfjax.study.reports.design"
    subprocess.run([sys.executable, "-c", code + ", rfjax.planning.chips"], check=True)
