"""The report of alignment, on studies whose speed-ups are known."""

import csv
import json
import math

import pages
import pytest
from synthetic import STEPS, write_repa

from rfjax.study import records, reports
from rfjax.study.reports import repa, repa_paper


def find(folder):
    return repa.analyse(records.read(folder))


def test_the_speed_up_is_the_one_that_the_curves_were_made_with(tmp_path):
    found = find(write_repa(tmp_path / "s"))
    assert [(arm.size, arm.label) for arm in found.arms] == [(2, "vanilla"), (2, "REPA"), (3, "vanilla"), (3, "REPA")]
    for arm in found.arms:
        if arm.label == "vanilla":
            assert arm.speed_ups == {}
            continue
        for key in ("loss", "score", "frechet", "cknna shapes", "accuracy"):
            steps, flops, whole = (arm.speed_ups[key][x].factor for x in ("step", "flops", "all_flops"))
            assert steps.value == pytest.approx(2, rel=0.01) and steps.low <= steps.value <= steps.high
            assert flops.value == pytest.approx(steps.value)
            assert whole.value == pytest.approx(steps.value * 6000 / 9000)  # 3,000 FLOPs beside 6,000


def test_what_is_not_reached_is_said(tmp_path):
    found = find(write_repa(tmp_path / "s", faster=0.8))
    assert all(arm.speed_ups["loss"]["step"].text() == "not reached" for arm in found.arms if arm.speed_ups)
    page = reports.write_page(reports.build_report(tmp_path / "s")).read_text()
    pages.check(page)
    assert "depth 2, REPA: not reached" in page and "<div class='verdict bad'>" in page


def test_the_page_and_its_tables(tmp_path):
    folder = write_repa(tmp_path / "s")
    built = reports.build_report(folder)
    page = reports.write_page(built).read_text()
    pages.check(page)
    assert "<div class='verdict good'>" in page
    assert "Times fewer steps than vanilla needs for its final validation loss: depth 2, REPA: " in page
    assert "In the paper SiT-XL/2 is 17.5 times faster" in page
    assert set(built.figures) == {"depth_2", "depth_3", "speed_up"}
    rows = list(csv.DictReader((folder / "report" / "curves.csv").open()))
    assert len(rows) == 12 * STEPS // 4 and {row["arm"] for row in rows} == {"vanilla", "REPA"}
    ups = list(csv.DictReader((folder / "report" / "speed_ups.csv").open()))
    assert {(row["reached"], row["seeds"], row["lower_bound"]) for row in ups} == {("3", "3", "False")}
    plain = json.loads((folder / "report" / "repa.json").read_text())
    assert [arm["name"] for arm in plain["arms"]] == ["vanilla", "REPA", "vanilla", "REPA"]
    assert "depth 2" in reports.summary(built, folder)


def test_weights_stand_beside_the_paper_s_with_their_correlation(tmp_path):
    axes = {"alignment.weight": (0.0, 0.25, 0.5, 0.75, 1.0), "training.seed": (0, 1)}
    paces = {"weight=0.25": 1.5, "weight=0.5": 2.0, "weight=0.75": 2.5, "weight=1": 3.0}
    found = find(write_repa(tmp_path / "s", axes=axes, **paces))
    assert [arm.label for arm in found.arms] == ["vanilla", "λ 0.25", "λ 0.5", "λ 0.75", "λ 1.0"]
    ((name, (ours, theirs, agreement)),) = found.orders.items()
    assert name == "weight (SiT-XL/2)" and theirs["0.5"] == 7.9 and set(ours) == set(theirs)
    assert 0.9 < agreement.correlations["Spearman"].value < 1  # the paper's last two are equal
    page = reports.write_page(reports.build_report(tmp_path / "s")).read_text()
    assert "Beside the paper: weight (SiT-XL/2)" in page


def test_runs_need_not_measure_the_same(tmp_path):
    folder = write_repa(tmp_path / "s", axes={"alignment.encoders": ((), ("shapes",)), "training.seed": (0, 1)})
    for run in (folder / "runs").glob("encoders=none*"):
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        kept = [line for line in lines if line["kind"] != "representations"]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    found = find(folder)
    assert {arm.label: "cknna shapes" in arm.final for arm in found.arms} == {"vanilla": False, "REPA": True}
    assert found.arms[1].speed_ups["cknna shapes"]["step"].text() == "no seed in common"
    pages.check(reports.write_page(reports.build_report(folder)).read_text())


def test_blocks_count_by_their_share_of_the_depth(tmp_path):
    axes = {"model.depth": (6,), "alignment.weight": (0.0, 0.5), "alignment.block": (2, 3, 4), "training.seed": (0,)}
    found = find(write_repa(tmp_path / "s", axes=axes))
    assert len(found.arms) == 4  # one vanilla
    ((ours, _, _),) = found.orders.values()
    assert set(ours) == {"vanilla", "8/24", "12/24", "16/24"}
    assert "One seed" in found.warnings[-1]


def test_a_study_that_has_only_begun(tmp_path):
    folder = write_repa(tmp_path / "s")
    for run in (folder / "runs").iterdir():
        path = run / "metrics.jsonl"
        path.write_text(path.read_text().splitlines()[0] + "\n")
    page = reports.write_page(reports.build_report(folder)).read_text()
    pages.check(page)
    assert "there is nothing to compare" in page


@pytest.mark.parametrize("folder", ["/w/dinov2-base", "facebook/dinov2-base", "DINOv2-Base"])
def test_published_encoders_have_the_paper_s_rows(folder):
    settings = {"encoders": [f"vision@{folder}"], "weight": 0.5}
    assert repa_paper.row_of("encoder (Table 2, SiT-L/2)", settings, 24) == "dinov2-b"
    assert repa_paper.TABLES["encoder (Table 2, SiT-L/2)"]["dinov2-b"] == 9.7
    assert math.isclose(7_000_000 / 400_000, repa_paper.SPEED_UP)
