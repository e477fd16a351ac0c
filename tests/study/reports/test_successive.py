"""The report's part on successive rungs and the choice among laws, L(N, D) by level, and what bad ladders say."""

import csv
import json

import numpy as np
import pages
import pytest
from synthetic import change_lines, write_study

from rfjax.study import records, reports
from rfjax.study.reports import scaling_findings, scaling_successive


def lower(factor):
    """Multiplies the loss of a run's validation lines."""
    return lambda line: line | {"loss": line["loss"] * factor} if line["kind"] == "validation" else line


def test_the_report_shows_successive_rungs_the_choice_and_the_levels(tmp_path):
    folder = write_study(tmp_path / "s", noise=0.002, surface=True)
    drawn = reports.build_report(folder)
    page = reports.write_page(drawn).read_text()
    pages.check(page)
    for name in ("successive", "surface_by_level"):
        assert f"<figure id={name}" in page
    assert "<h2>Which law?</h2>" in page and "<h2>Each rung from the smaller ones</h2>" in page
    assert "<td>mean by weight</td>" in page
    assert "<h2>L(N, D) by level</h2>" in page
    with (folder / "report" / "successive.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = drawn.findings.one.trend.choice
    assert [(row["law"], row["label"]) for row in rows] == [
        *(("power", name) for name in ("d4", "d5", "d6")),
        *(("power_offset", name) for name in ("d5", "d6")),
        ("broken_power", "d6"),
    ]
    assert float(rows[4]["predicted"]) == found.ahead["power_offset"][1].predicted
    last = json.loads((folder / "report" / "fits.json").read_text())[-1]
    assert last["law"] == "choice"
    assert last["best"] == found.best
    assert sum(last["weights"].values()) == pytest.approx(1)
    surfaces = {row.name: row for row in drawn.findings.one.surface.levels}
    assert surfaces["t = 0"].fit.law == "surface_floor"
    assert surfaces["t = 0"].irreducible[0] == 1.0
    assert surfaces["t = 0.5"].fit.law == "surface"


@pytest.mark.parametrize("law", ["broken_power", "best"])
def test_the_headline_may_be_another_law(tmp_path, law):
    found = scaling_findings.analyse(records.read(write_study(tmp_path / "s", noise=0.002, law=law)))
    if law == "broken_power":
        assert found.trend.main == "broken_power"
        assert found.trend.judged[law].held_out.x == (216e4,)
    else:
        assert found.trend.main in ("power_offset", "broken_power")
        assert "d6" not in found.trend.reason
    assert found.trend.main in found.trend.checks
    short = scaling_findings.analyse(records.read(write_study(tmp_path / "t", depths=(1, 2, 3, 4, 5), law=law)))
    assert short.trend.main == "power_offset"
    assert law == "best" or "the broken_power law has 4 parameters and needs 5 points" in short.trend.reason


def test_two_rungs_say_what_they_can_and_what_works(tmp_path):
    folder = write_study(tmp_path / "s", depths=(1, 2))
    page = reports.write_page(reports.build_report(folder)).read_text()
    pages.check(page)
    assert "There are too few finished rungs for a law" in page
    assert "Three rungs give a power law (config.study.hold_out = 0 keeps none out)" in page
    assert "d1 → d2" in page


def test_a_loss_that_rises_with_size_is_said_with_what_to_try(tmp_path):
    folder = write_study(tmp_path / "s", noise=0.002)
    for depth in range(1, 7):
        change_lines(folder, f"d{depth}", lower(depth))
    drawn = reports.build_report(folder)
    pages.check(reports.write_page(drawn).read_text())
    [said] = [sentence for sentence in drawn.findings.warnings if "does not fall with size" in sentence]
    assert "config.study.axes.optimizer.learning_rate" in said


def test_runs_of_another_grid_or_data_set_are_no_part_of_the_law(tmp_path):
    folder = write_study(tmp_path / "s", noise=0.002)
    change_lines(folder, "d2", lambda line: line | {"grid": "(k+0.5)/8"} if "grid" in line else line)
    path = folder / "runs" / "d5" / "config.json"
    config = json.loads(path.read_text())
    config["data"]["name"] = "digits"
    path.write_text(json.dumps(config))
    drawn = reports.build_report(folder)
    pages.check(reports.write_page(drawn).read_text())
    trend = drawn.findings.one.trend
    assert [rung.name for rung in trend.rungs] == ["d1", "d3", "d4", "d6"]
    said = {one.name: one.reason for one in trend.ladder.lost}
    assert "on the grid (k+0.5)/8 of 8 levels, those of the law the grid k/8 of 8 levels" in said["d2"]
    assert "the data set digits, those of the law" in said["d5"]
    assert all(np.isfinite(point.loss) for point in trend.whole["power"].points)
    assert trend.whole["power"].left_out == ()


def test_a_ladder_that_predicts_no_rung_has_no_table(tmp_path):
    found = scaling_findings.analyse(records.read(write_study(tmp_path / "s", depths=(1, 2, 3), hold_out=0)))
    assert "none was predicted" in scaling_successive.section(found.trend)
