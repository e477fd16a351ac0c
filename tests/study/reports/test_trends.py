import json

import numpy as np
import pytest
from synthetic import ALPHA, STEPS, A, E, write_study

from rfjax.analysis import rate_exponent
from rfjax.errors import UserError
from rfjax.study import records
from rfjax.study.reports import scaling_findings


def test_the_law_and_the_held_out_verdict_come_from_the_lines(tmp_path):
    found = scaling_findings.analyse(records.read(write_study(tmp_path / "s", noise=0.002)))
    fit = found.trend.judged["power_offset"]
    assert fit.parameters["E"] == pytest.approx(E, rel=0.01)
    assert fit.parameters["alpha"] == pytest.approx(ALPHA, rel=0.05)
    assert fit.held_out.inside == (True,)
    assert fit.held_out.x == (216e4,)
    assert len(fit.points) == 5
    assert len(found.trend.whole["power_offset"].points) == 6
    assert found.trend.judged["power"].held_out.error[0] < -0.02  # the law without E runs low
    names = [record["law"] for record in scaling_findings.to_json(found)]
    assert names[:4] == ["power", "power_offset", "power", "power_offset"]
    json.dumps(scaling_findings.to_json(found), allow_nan=False)


def test_paired_differences_see_what_the_single_errors_hide(tmp_path):
    found = scaling_findings.analyse(records.read(write_study(tmp_path / "s")))
    for step in found.trend.steps:
        assert step.change.example_error < 5e-4  # the single losses have 0.01
    change = found.trend.steps[0].change
    assert change.value == pytest.approx(A * (8e4**-ALPHA - 1e4**-ALPHA), abs=4 * change.example_error)


def test_best_learning_rates_and_their_exponent(tmp_path):
    rates = (0.005, 0.01, 0.02, 0.04)
    axes = {"model.depth": (1, 2, 3), "optimizer.learning_rate": rates}
    found = scaling_findings.analyse(records.read(write_study(tmp_path / "s", axes=axes)))
    for sweep in found.sweeps:
        assert sweep.best == pytest.approx(0.02 * sweep.depth**-0.5, rel=1e-3)
        assert not sweep.at_edge
    slope, error = rate_exponent(found.sweeps)
    assert slope == pytest.approx(-0.5, abs=1e-3)
    assert error < 1e-3
    assert [point.x for point in found.trend.rungs] == [1e4, 8e4, 27e4]  # the best rate of each depth

    narrow = {"model.depth": (1, 2, 3), "optimizer.learning_rate": (0.04, 0.08, 0.16)}
    found = scaling_findings.analyse(records.read(write_study(tmp_path / "edge", axes=narrow)))
    assert any("edge of its sweep" in warning for warning in found.warnings)


def test_seeds_are_averaged_and_their_spread_enters_the_fit(tmp_path):
    axes = {"model.depth": (1, 2, 3, 4, 5), "training.seed": (0, 1, 2)}
    found = scaling_findings.analyse(records.read(write_study(tmp_path / "s", axes=axes, noise=0.01)))
    assert [point.seeds for point in found.trend.rungs] == [3] * 5
    logs = [np.log(point.losses) for point in found.trend.rungs]
    spread = found.trend.ladder.spread
    at = np.array([spread.at(point.x) for point in found.trend.rungs])
    assert np.sum([2 * np.var(values, ddof=1) / s**2 for values, s in zip(logs, at, strict=True)]) == pytest.approx(9)
    assert spread.degrees_of_freedom == 9  # 10, less one for its trend with size
    for fit in found.trend.judged.values():
        for point, made in zip(fit.points, found.trend.rungs, strict=False):
            assert point.stderr == pytest.approx(spread.at(made.x) * made.loss / np.sqrt(3))
        assert fit.scatter >= fit.typical_stderr * 0.999
    for step in found.trend.steps:
        assert step.change.seed_error > 2 * step.change.example_error
        assert step.falls == ("yes" if step.change.high < 0 else "not clearly")


def test_a_surface_is_fitted_to_the_checkpoints_along_each_run(tmp_path):
    found = scaling_findings.analyse(records.read(write_study(tmp_path / "s", surface=True)))
    assert found.surface.fit.parameters["E"] == pytest.approx(E, rel=0.2)
    assert found.surface.cuts
    assert found.surface.fit.record()["law"] == "surface"


def test_a_failed_rung_and_an_unfinished_one_are_told(tmp_path):
    folder = write_study(tmp_path / "s", noise=0.002)
    path = folder / "runs" / "d2" / "metrics.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:4]) + '\n{"kind": "tr')
    (folder / "runs" / "d3" / "failure.txt").write_text("the loss is not finite at step 8\n\nTraceback")
    path = folder / "runs" / "d3" / "metrics.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:4]) + "\n")
    found = scaling_findings.analyse(records.read(folder))
    assert [point.name for point in found.trend.rungs] == ["d1", "d4", "d5", "d6"]
    text = " ".join(found.warnings)
    assert "d3 failed: the loss is not finite at step 8" in text
    assert f"d2 is not finished (at step 8 of {STEPS})" in text
    assert "1 line(s) of metrics.jsonl were cut short" in text


def test_too_few_rungs_are_said_not_fitted(tmp_path):
    found = scaling_findings.analyse(records.read(write_study(tmp_path / "s", depths=(1, 2))))
    assert found.trend.judged == {}
    assert "too few finished rungs" in found.trend.reason


def test_no_study_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="there is no study in"):
        records.read(tmp_path)
