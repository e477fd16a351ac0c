"""The job `design` with token budgets: a study of depths and budgets in, a grid, its config and a verdict out."""

import json
import re
from pathlib import Path

import pytest
from synthetic import begin
from synthetic_surface import BATCH, BUDGETS, DEPTHS, asked, loss, parameters, write_runs, write_surface

from rfjax import config as configs
from rfjax import flags
from rfjax.errors import UserError
from rfjax.study import design, pilot_surface, records, targets
from rfjax.study.reports import design_words as words
from rfjax.study.reports import scaling, scaling_findings

PEAK, TARGET, WIDTH = 1e12, "depth=9,examples=4000", 0.0205


def job(folder: Path, options=None, **keys) -> configs.Config:
    c = asked(folder, **(options or {}))
    c.job = "design"
    c.design.update(target=TARGET, trials=20)
    c.design.update(keys)
    return configs.parse(c)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_surface(tmp_path_factory.mktemp("pilot") / "work")


@pytest.fixture(scope="module")
def told(folder):
    return design.run(job(folder, width=WIDTH), PEAK)


@pytest.fixture(scope="module")
def answered(folder, told):
    return json.loads((folder / "design" / "design.json").read_text())


def test_it_answers_with_depths_and_budgets_that_keep_the_width(folder, told, answered):
    cheapest = answered["cheapest"]
    assert cheapest["width"] <= WIDTH and cheapest["kept"] >= 0.8
    assert 0 < cheapest["cost"] <= answered["limit"] == pytest.approx(answered["target_cost"])
    assert answered["x"] == pytest.approx([parameters(9), 4000]) and answered["depth"] == pytest.approx(9)
    assert 2 * parameters(cheapest["depths"][-1]) <= parameters(9)
    assert cheapest["budgets"][-1] * BATCH <= 4000
    lines = told.splitlines()
    assert lines[0].startswith(f"What is the loss at {TARGET} (parameters 7.29e+06, depth 9, on 4,000 examples)")
    assert f"each trained for {', '.join(map(str, cheapest['budgets']))} steps" in lines[1]
    assert "by its trunk, which its branches share" in told and "examples are fresh" in told
    rows = (folder / "design" / "curve.csv").read_text().splitlines()
    assert rows[0].startswith("cost,depths,seeds,budgets,examples") and len(rows) == len(answered["curve"]) + 1
    page = (folder / "design" / "index.html").read_text()
    for part in ("The cheapest ladder", "<svg", "ladder.py", "training.steps", "Supposed: the law E + A N^-alpha"):
        assert part in page


def test_a_target_is_trained_once_for_its_flops(folder, answered):
    """6 FLOPs a parameter and example, and one validation of 16 triples, forward alone, of both kinds of weights."""
    assert answered["target_cost"] == pytest.approx(parameters(9) * (6 * 4000 + 2 * 2 * 16), rel=1e-6)


def test_its_config_runs_and_goes_on_in_the_folder_of_the_pilot(folder, answered):
    written, found = flags.read_flags([f"--config={folder / 'design' / 'ladder.py'}"]), answered["cheapest"]
    study = written.study
    assert written.workdir == str(folder) and study.surface and study.branches
    assert study.promise == WIDTH and study.promise_at == "parameters=7290000,examples=4000"
    assert study.axes["model.depth"] == tuple(found["depths"])
    assert study.axes["training.steps"] == tuple(found["budgets"])
    runs, there = dict(configs.runs(written)), json.loads((folder / "study.json").read_text())["runs"]
    assert len(runs) == sum(found["seeds"]) * len(found["budgets"])
    contained = [name for name in there if name in runs]
    assert len(contained) == found["reused"] > 0
    for name in contained:
        plain = json.loads((folder / "runs" / name / "config.json").read_text())
        assert configs.differences(runs[name].to_dict(), plain) == []


def findings(folder: Path, c, **keys) -> tuple[records.Records, scaling_findings.Findings]:
    """The report of the study `c` in this folder, its missing runs done."""
    c.study.update(keys)
    write_runs(folder, begin(folder, c))
    study = records.read(folder)
    return study, scaling_findings.analyse(study)


@pytest.mark.parametrize(("promise", "verdict"), [(0.05, "kept"), (0.001, "not kept")])
def test_the_report_judges_the_promise_by_the_surface(tmp_path, promise, verdict):
    folder = write_surface(tmp_path / "work")
    more = asked(folder, depths=(*DEPTHS, 7), budgets=(*BUDGETS, 170), seeds=(3, 2, 2, 2, 2, 1))
    study, found = findings(folder, more, promise=promise, promise_at="parameters=7.29e6,examples=4000")
    said = scaling.answer_of(found)
    one = found.judged
    assert one.low < loss(parameters(9), 4000) < one.high
    assert said[0].startswith(
        "What is the validation loss of 7.29e+06 parameters on 4,000 examples, 2.1 times the size"
    )
    assert said[1].endswith(f" wide: {verdict}.") and "with probability 80%" in said[1]
    # the pilot's trunks have become branches of longer ones: with these they are one group each
    assert "60 runs of 6 sizes and 5 budgets in 12 independent groups" in said[2]
    assert {rung.name: rung.seeds for rung in found.trend.rungs}["d1-steps170"] == 3
    page = scaling.opening(study, found)
    assert page.index("What is the validation loss") < page.index("Promised")
    assert set(said) <= set(scaling.lines(study, found))
    assert scaling_findings.to_json(found)[-1]["objective"] == "log_squares"


def test_a_branch_does_not_stand_for_a_trunk_that_can_not_be_read(tmp_path):
    folder = write_surface(tmp_path / "work", seeds=(1,), hold_out=0)
    (folder / "runs" / "d2-steps100-seed0" / "config.json").write_text("{")
    found = scaling_findings.analyse(records.read(folder))
    assert [rung.name for rung in found.trend.rungs] == [f"d{depth}-steps100-seed0" for depth in (1, 3, 4, 5)]
    assert {point.label.split("-")[0] for point in found.surface.fit.points} == {"d1", "d3", "d4", "d5"}


def test_a_target_that_was_trained_is_no_part_of_its_own_answer(tmp_path):
    folder = tmp_path / "work"
    c = asked(folder, depths=(1, 2, 3, 4, 5, 6), promise=0.1, promise_at="depth=6,examples=800")
    _, found = findings(folder, c)
    said = scaling.answer_of(found)
    assert re.search(r"Measured afterwards \(d6-steps100-seed0, d6-steps100-seed1\): 0\.\d+, inside", said[1])
    assert max(point.inputs[0] for point in found.judged.fit.points) == parameters(5)


def test_runs_trained_apart_are_points_and_groups_of_their_own(tmp_path):
    folder = write_surface(tmp_path / "work", branches=False, seeds=(1,), promise_at="depth=5,examples=4000")
    _, found = findings(folder, asked(folder, branches=False, seeds=(1,)), promise_at="parameters=1e7,examples=4000")
    assert found.judged.fit.degrees_of_freedom + 1 == len(DEPTHS) * len(BUDGETS) == len(found.judged.fit.points)
    pilot = design.answer(job(folder, {"branches": False, "seeds": (1,)}), PEAK).pilot
    assert not pilot.ground.branched and not pilot.ground.truths.between.any()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"promise_at": "parameters=1e7,examples=4000", "surface": False}, "config.study.surface = False fits none"),
        ({"promise_at": "depth=99,examples=4000"}, "no run has that depth"),
        ({"promise_at": "parameters=1e7,examples="}, "is no size"),
    ],
)
def test_a_promise_that_no_surface_can_judge_is_said(folder, keys, words):
    study = records.read(folder)
    study.study["config"]["study"] |= keys
    found = scaling_findings.analyse(study)
    assert found.judged is None and any("is not judged" in one and words in one for one in found.warnings)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"target": "parameters=1e7,exmples=5e3"}, "did you mean 'examples'.*write it like parameters=8e9,examples="),
        ({"target": "train_flops=1e20,examples=5e3"}, "names FLOPs and examples"),
        ({"target": "examples=5e3"}, "names no size with its examples"),
        ({"target": "depth=4,examples=600"}, "lies inside the pilot's grid, .*ask for depth=4,examples=1.6e"),
        ({"target": "depth=9,examples=100"}, "fewer examples than the pilot's shortest runs, 160: ask for"),
        ({"target": "parameters=10,examples=5e3"}, "smaller than the pilot's smallest model, of parameters = 1e"),
        ({"target": "depth=90000,examples=5e3"}, "ask for depth=1e.04 or less"),
        ({"width": 1e-4}, "narrower than any ladder can promise: .*ask for 0"),
        ({"budget": 1.0, "least_seeds": 8}, "pays for no ladder: the cheapest costs .* FLOPs"),
        ({"compare": "model.backbone"}, "names examples: leave one of them out"),
        ({"target": "depth=9"}, "say on how many examples the target is trained"),
    ],
)
def test_a_question_without_an_answer_is_told_what_has_one(folder, keys, message):
    with pytest.raises(UserError, match=message):
        design.answer(job(folder, **keys), PEAK)


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("study", {"surface": False}, "run a pilot like --config=configs/scaling.py:surface, or leave examples= out"),
        ("study", {"axes": {"model.depth": DEPTHS}}, "fits no surface L.N, D. over depths and token budgets"),
        ("study", {"objective": "squares"}, "set config.study.objective = 'log_squares' in the pilot, not 'squares'"),
        ("training", {"steps_exponent": 0.5}, "steps that follow depth"),
    ],
)
def test_another_study_is_told_which_one_is_a_pilot(folder, monkeypatch, section, values, message):
    read = records.read

    def changed(folder):
        study = read(folder)
        study.study["config"][section] |= values
        return study

    monkeypatch.setattr(records, "read", changed)
    with pytest.raises(UserError, match=message):
        design.answer(job(folder), PEAK)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": (1, 2), "seeds": (3,)}, r"6 trunks of 2 depths and 4 budgets, and .* need 3 sizes or more, not 2"),
        ({"budgets": (20, 100)}, r"10 trunks of 5 depths and 2 budgets, and .* need 3 budgets or more, not 2"),
        ({"depths": (1, 2, 3, 4), "seeds": (1,)}, r"4 trunks .* need 5 independent runs or more, not 4: run a pilot"),
        ({"surface": lambda n, d: 0.5 * n**0.05 + d**-0.5}, "does not fall with size .*learning_rate"),
        ({"surface": lambda n, d: n**-0.3 + 0.5 * d**0.05}, "does not fall with data .*lower learning rate"),
    ],
)
def test_a_pilot_that_tells_no_surface_is_refused(tmp_path, options, message):
    folder = write_surface(tmp_path / "work", **options)
    options = {key: value for key, value in options.items() if key != "surface"}
    with pytest.raises(UserError, match=message):
        design.answer(job(folder, options), PEAK)


def test_what_is_too_far_is_told_with_what_is_not(folder):
    found = design.answer(job(folder, target="depth=60,examples=1e5", width=0.018, budget=5e10), PEAK)
    said = " ".join(words.sentences(found))
    assert found.designs.wanted is None and "Too far: no ladder of at most 5e+10 FLOPs" in said
    assert re.search(r"Not too far is about parameters .* on .* examples|No size beyond the pilot", said)
    if found.designs.reach:
        n, d = found.pilot.ground.at(found.goes_to)
        assert f"promise_at='parameters={n:.10g},examples={d:.10g}'" in design.config_text(found)


def test_targets_are_read_in_one_place():
    assert targets.parse("depth=38") == targets.Target("depth", 38.0)
    assert targets.parse("examples=2e5, parameters=1e7") == targets.Target("parameters", 1e7, 2e5)
    for text in ("", "depth", "depth=nan", "depth=1,depth=2", "depth=1,parameters=2", "examples=5", "depth=-1"):
        assert targets.parse(text) is None


def test_names_with_seeds_elsewhere_are_trained_anew(tmp_path):
    """A pilot whose seeds are an axis before the budgets has other names than `study.seeds` makes."""
    folder = tmp_path / "work"
    c = asked(folder, seeds=())
    with c.unlocked():
        c.study.axes = {}
    configs.axes(c, {"model.depth": DEPTHS, "training.seed": (0, 1), "training.steps": BUDGETS})
    write_runs(folder, begin(folder, c))
    draw = (20, 0)
    pilot = pilot_surface.read(folder, TARGET, targets.parse(TARGET), draw, lambda flops, speed: flops)
    assert not pilot.ground.named and pilot.ground.sides[0].done == {}
