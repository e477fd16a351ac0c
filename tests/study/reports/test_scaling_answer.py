"""The opening of the scaling report: question, answer, promise; and each rung's distance from its optimum."""

import pytest
from synthetic import write_study

from rfjax.study import records
from rfjax.study.reports import scaling, scaling_findings

SEEDS = {"model.depth": (1, 2, 3, 4, 5, 6), "training.seed": (0, 1)}


def find(folder):
    study = records.read(folder)
    return study, scaling_findings.analyse(study)


@pytest.mark.parametrize(("width", "verdict"), [(0.5, "kept"), (1e-5, "not kept")])
def test_the_promise_is_judged_at_the_held_out_rung(tmp_path, width, verdict):
    study, found = find(write_study(tmp_path / "s", axes=SEEDS, noise=0.01, promise=width))
    said = scaling.answer_of(found)
    assert said[0].startswith("What is the validation loss at d6 (2.16e+06 parameters), 1.7 times beyond the 5 rungs")
    assert said[1].startswith("Measured afterwards: 0.27")
    assert f"at most {width:.1%}, with probability 80%" in said[2]
    assert said[2].endswith(f" wide: {verdict}.")
    assert "10 runs of 5 rungs, on the law power_offset" in said[3]
    page = scaling.opening(study, found)
    assert page.index("What is the validation loss") < page.index("Measured afterwards") < page.index("L = ")
    assert set(said) <= set(scaling.lines(study, found))


def test_a_promise_beyond_the_ladder_is_asked_of_all_rungs(tmp_path):
    _, found = find(write_study(tmp_path / "s", axes=SEEDS, noise=0.01, promise=0.5, promise_at="parameters=1e7"))
    said = scaling.answer_of(found)
    assert said[0].startswith("What is the validation loss at 1e+07 parameters, 4.6 times beyond the 6 rungs")
    assert not any("Measured" in one for one in said)
    assert any(one.startswith("To narrow it to ") or one.startswith("More seeds alone") for one in said)


@pytest.mark.parametrize("at", ["train_flops=1e20", "depth=99", "parameters"])
def test_a_promise_that_cannot_be_judged_is_said(tmp_path, at):
    _, found = find(write_study(tmp_path / "s", promise=0.1, promise_at=at))
    assert found.judged is None
    assert any("promise at" in one and "is not judged" in one for one in found.warnings)


def test_an_interval_wider_than_the_loss_answers_nothing(tmp_path):
    _, found = find(write_study(tmp_path / "s", axes=SEEDS | {"model.depth": (1, 2, 3, 4, 6)}, noise=0.5, promise=0.5))
    assert found.judged.answer.width > 1
    said = scaling.answer_of(found)
    assert "The law leaves that open" in said[0] and "is wider than the loss itself" in said[0]
    assert any(one.endswith(": not kept.") for one in said) and not any("To narrow" in one for one in said)


def test_a_depth_of_the_ladder_names_its_rung(tmp_path):
    _, found = find(write_study(tmp_path / "s", promise=0.1, promise_at="depth=6"))
    assert found.judged.answer.rung == "d6"


def test_without_a_surface_there_is_no_distance_and_with_one_there_is(tmp_path):
    _, without = find(write_study(tmp_path / "a"))
    assert without.optimum == ()
    study, found = find(write_study(tmp_path / "b", axes=SEEDS, noise=0.001, surface=True))
    if found.surface.fit.parameters["B"] > 0:
        assert [one.name for one in found.optimum] == [rung.name for rung in found.trend.rungs]
        assert "Distance from the compute-optimal point" in "".join(scaling.sections(study, found))
        assert len(scaling.tables(study, found)["optimum"][1]) == 6
