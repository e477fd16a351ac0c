"""Designs of a study side by side: `study.compare`."""

import csv
import json
import re

import numpy as np
import pytest
from synthetic import ALPHA, STEPS, A, change_lines, write_study

from rfjax import config as configs
from rfjax.study import records, reports
from rfjax.study.reports import scaling, scaling_compare

RF = ("rf", "rf/lognorm(0.00,1.00)")
BETTER = 1.5  # how many times fewer parameters, and as many times less compute, the second needs for any loss


def write_designs(
    folder, axis="flow.formulation", values=RF, seeds=(0, 1, 2), depths=(1, 2, 3, 4, 5), better=BETTER, **study
):
    """Two ladders of the same law, but that the second design has that of `better` times its size."""
    axes = {axis: values, "model.depth": depths, "training.seed": seeds}
    axes = {name: choices for name, choices in axes.items() if choices}
    write_study(folder, axes=axes, noise=0.003, compare=axis, **study)
    for run in records.read(folder).runs:
        if configs.design_of(run.config, (axis,)) != str(values[1]):
            continue
        n = run.size["parameters"]
        shift = A * ((better * n) ** -ALPHA - n**-ALPHA)

        def change(line, shift=shift):
            line |= {key: line[key] + shift for key in ("loss",) if key in line}
            return line | ({"losses": [loss + shift for loss in line["losses"]]} if "losses" in line else {})

        change_lines(folder, run.name, change)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return reports.build_report(write_designs(tmp_path_factory.mktemp("designs") / "s"))


def test_the_multiplier_is_that_of_the_laws_that_made_the_losses(built):
    (pair,) = built.findings.comparison.pairs
    assert (pair.a, pair.b) == RF
    assert pair.target.compute.low < BETTER < pair.target.compute.high < 2 * BETTER
    assert pair.target.size == pytest.approx(pair.target.compute)  # FLOPs are 6 N in these runs
    assert pair.target.clear and pair.target.seeds == 0
    assert [rung.name for rung in pair.rungs] == [f"depth {d}" for d in (1, 2, 3, 4, 5)]
    n = 1e4 * np.arange(1, 6) ** 3
    true = np.log((0.25 + A * (BETTER * n) ** -ALPHA) / (0.25 + A * n**-ALPHA))
    inside = [abs(rung.difference.value - at) < rung.difference.half for rung, at in zip(pair.rungs, true, strict=True)]
    assert sum(inside) >= 4
    assert all(rung.seeds == 3 and rung.difference.triples is not None for rung in pair.rungs)


def test_the_page_says_it_and_the_files_hold_it(built):
    page = reports.write_page(built).read_text()
    assert f"{RF[1]} needs 1." in page and "times less compute than rf" in page
    assert "All other parts of this page are of the first, rf, alone" in page
    assert page.index("At the target") < page.index("<h2>Rungs</h2>")
    said = "\n".join(built.report.lines(built.study, built.findings))
    assert "Designs by flow.formulation:" in said and "times less compute than rf" in said
    folder = built.study.folder / "report"
    with (folder / "compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows].count("rung") == 5
    (target,) = (row for row in rows if row["kind"] == "target")
    (pair,) = built.findings.comparison.pairs
    assert float(target["compute_high"]) == pair.target.compute.high
    fits = json.loads((folder / "fits.json").read_text())
    assert [one["design"] for one in fits if "design" in one] == list(RF)
    (record,) = (one["pair"] for one in fits if "pair" in one)
    assert record["target"]["compute"][0] == pytest.approx(pair.target.compute.value)
    assert (folder / "compare.png").stat().st_size > 10_000


def test_the_law_of_one_ladder_is_that_of_the_first_design(built):
    assert len(built.findings.one.trend.rungs) == 5
    assert {run.name for rung in built.findings.one.trend.rungs for run in rung.runs} == {
        run.name for run in built.study.runs if run.config["flow"]["formulation"] == "rf"
    }
    assert not [said for said in built.findings.warnings if "Of several settings" in said]


def test_other_designs_are_not_missing_and_warnings_name_their_design(built):
    assert not [said for said in built.findings.warnings if "not started" in said]
    own = [said for said in built.findings.one.warnings if said not in built.study.states()]
    assert all(f"rf: {said}" in built.findings.warnings and said not in built.findings.warnings for said in own)


def test_the_cheaper_design_along_the_runs_is_named_whichever_comes_first(tmp_path):
    for better, name in ((BETTER, RF[1]), (1 / BETTER, RF[0])):
        (pair,) = scaling_compare.analyse_designs(records.read(write_designs(tmp_path / name[:4], better=better))).pairs
        found = re.search(r"along these runs (\S+) needs ([\d.]+) ", scaling_compare.at_rungs(pair))
        assert found[1] == name and float(found[2]) > 1


def test_the_edge_of_what_was_tried_is_said():
    study = {"axes": {"optimizer.learning_rate": [0.01, 0.02, 0.04], "training.seed": [0, 1, 2]}}
    chosen = {f"d{i}": {"optimizer": {"learning_rate": rate}} for i, rate in enumerate((0.04, 0.02, 0.01, 0.01))}
    low, high = scaling_compare._edges("optimizer.learning_rate", study, chosen)
    assert low == "d2 and d3 take the lowest optimizer.learning_rate that was tried, 0.01: a lower may do better."
    assert high.startswith("d0 takes the highest")
    assert not scaling_compare._edges("training.seed", study, {"d0": {"training": {"seed": 0}}})


def test_an_interval_without_bounds_is_said():
    assert scaling_compare.span(2.3, 0.0, float("inf")) == "2.3 (no bound either way)"
    assert scaling_compare.span(2.3, 1.2, float("inf")) == "2.3 (1.2 or more)"
    assert scaling_compare.span(2.3, 0.0, 4.0) == "2.3 (4 or less)"


def test_without_compare_the_report_is_of_one_ladder(tmp_path):
    built = reports.build_report(write_study(tmp_path / "s"))
    assert built.findings.comparison is None
    assert "compare" not in built.figures and not (tmp_path / "s" / "report" / "compare.csv").exists()
    assert built.report.opening(built.study, built.findings) == scaling.opening(built.study, built.findings.one)


def test_designs_that_are_alike_can_t_be_told_apart_and_more_seeds_are_named(tmp_path):
    found = reports.build_report(write_designs(tmp_path / "s", better=1.01)).findings.comparison
    (pair,) = found.pairs
    assert not pair.target.clear and pair.target.seeds is None
    said = scaling_compare.sentence(pair, "parameters")
    assert said.startswith(f"rf and {RF[1]} can't be told apart by compute") and "up to 99 seeds" in said


def test_a_target_beyond_the_ladders(tmp_path):
    for target, x in (("parameters=1e7", 1e7), (f"train_flops={6e7 * 8 * STEPS}", 1e7)):
        folder = write_designs(tmp_path / target[:5], compare_target=target)
        found = scaling_compare.analyse_designs(records.read(folder))
        (pair,) = found.pairs
        assert pair.target.x == pytest.approx(x) and pair.target.beyond == pytest.approx(8)
        assert pair.target.compute.low < BETTER < pair.target.compute.high
        assert "8 times its largest rung" in scaling_compare.sentence(pair, "parameters")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"depths": (1, 2, 3)}, "are not compared at the target: rf has no law: the power_offset law has 3 parameters"),
        ({"seeds": (0,)}, "fewer than two seeds in common at every rung"),
        ({"values": ("rf", "rf/cosmap", "eps/linear")}, "rf and eps/linear are not compared: .* different scales"),
        ({"axis": "validation.levels", "values": ("k/8", "(k+0.5)/8")}, "validated on different grids of t"),
        ({"axis": "data.image_size", "values": (16, 32)}, r"other data \(config.data.image_size differs\)"),
        ({"axis": "validation.examples", "values": (64, 128)}, r"other data \(config.validation.examples differs\)"),
    ],
)
def test_what_can_t_be_compared_is_said(tmp_path, more, message):
    folder = write_designs(tmp_path / "s", **more)
    if more.get("axis") == "validation.levels":
        for run in records.read(folder).runs:
            grid = run.config["validation"]["levels"]
            change_lines(folder, run.name, lambda line, grid=grid: line | ({"grid": grid} if "grid" in line else {}))
    built = reports.build_report(folder)
    reports.write_page(built)
    assert any(re.search(message, said) for said in built.findings.warnings)
