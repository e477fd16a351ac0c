import json
import math

import pages
import pytest
from synthetic import write_sampling

from rfjax.study import records, reports
from rfjax.study.reports import sampling


def find(folder):
    return sampling.analyse(records.read(folder))


def test_drops_and_their_errors(tmp_path):
    found = find(write_sampling(tmp_path / "s", lambda d, k: 0.5 * (1 - 0.1 / k * (7 - d)) / (1 - 0.002 * (7 - d))))
    assert found.steps == (5, 10, 20, 50)
    assert found.guidance == 5.0
    for row in found.rows:
        best = row.cells[50]["score"]
        assert best == pytest.approx(0.5)
        few = row.cells[5]
        assert few["drop"] == pytest.approx(100 * (best - few["score"]) / best)
        assert few["drop_stderr"] == pytest.approx(100 * 0.01 / best * math.hypot(1, few["score"] / best))
        assert (row.cells[50]["drop"], row.cells[50]["drop_stderr"]) == (0, 0)
    assert found.verdict.drops.value == pytest.approx(-1)
    assert found.verdict.text.startswith("Larger models lose less with 5 steps instead of 50")
    assert found.verdict.lengths.value == pytest.approx(-1)
    assert found.warnings == ()


def test_the_opposite_and_neither(tmp_path):
    worse = find(write_sampling(tmp_path / "a", lambda d, k: 0.5 - 0.02 * d / k))
    assert worse.verdict.text.startswith("Larger models lose more")
    zigzag = find(write_sampling(tmp_path / "b", lambda d, k: 0.5 - (0.1 + 0.02 * (d % 2)) / k))
    assert zigzag.verdict.text.startswith("No clear relation")
    few = find(write_sampling(tmp_path / "c", lambda d, k: 0.5 - 0.1 / k, depths=(2, 4, 6)))
    assert few.verdict.drops is None
    assert "too few depths" in few.verdict.text


def test_the_page(tmp_path):
    folder = write_sampling(tmp_path / "s", lambda d, k: 0.5 - 0.1 / (d * k))
    drawn = reports.build_report(folder)
    page = reports.write_page(drawn).read_text()
    pages.check(page)
    assert "<td>4.30</td><td>0.86</td><td>0.21</td>" in page
    assert "191.13" in page
    assert set(drawn.figures) == {"drop", "path_length"}
    record = json.loads((folder / "report" / "sampling.json").read_text())
    assert record["runs"][0]["steps"]["50"]["path_length"] == pytest.approx(20 - 1 - 0.02)
    assert (folder / "report" / "sampling.csv").read_text().count("\n") == 1 + 6 * 4
    assert "score lost: 5 steps" in reports.summary(drawn, folder)


def test_what_is_missing_is_told(tmp_path):
    folder = write_sampling(tmp_path / "s", lambda d, k: 0.5 - 0.1 / k, depths=(1, 2, 3, 4, 5), frechet=None)
    path = folder / "runs" / "d2" / "metrics.jsonl"
    kept = [line for line in path.read_text().splitlines() if '"50@5.0"' not in line]
    path.write_text("\n".join(kept) + "\n")
    (folder / "runs" / "d4" / "metrics.jsonl").unlink()
    drawn = reports.build_report(folder)
    pages.check(reports.write_page(drawn).read_text())
    assert [row.depth for row in drawn.findings.rows] == [1, 3, 5]
    text = " ".join(drawn.findings.warnings)
    assert "d2 has no score at 50 steps: it is left out" in text
    assert "not started yet: d4." in text
    for path in folder.glob("runs/*/metrics.jsonl"):
        path.unlink()
    drawn = reports.build_report(folder)
    pages.check(reports.write_page(drawn).read_text())
    assert "there is nothing to compare" in drawn.findings.verdict.text


def test_what_is_not_measured_and_what_is_luck_is_named(tmp_path):
    more = {"frechet_floor": 0.04, "stderr": 0.02, "grid": "uniform"}
    folder = write_sampling(
        tmp_path / "s", lambda d, k: 0.03 if d == 1 else 0.5 - 0.1 / k, depths=(1, 2, 3, 4, 5), **more
    )
    path = folder / "runs" / "d3" / "metrics.jsonl"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if '"10@5.0"' not in line) + "\n")
    drawn = reports.build_report(folder)
    page = reports.write_page(drawn).read_text()
    pages.check(page)
    text = " ".join(drawn.findings.warnings)
    assert "d3 has no score at 10 steps: a dash." in text
    assert "d1 scores 0.030 ± 0.020 at 50 steps, which is not clearly above 0" in text
    assert text.count("not clearly above 0") == 1
    assert "Grid of sampling times: uniform." in page
    assert "The distance of as many true pictures, its floor, is 0.04 for 128 pictures." in page


@pytest.mark.parametrize("more", [{}, {"stderr": None}, {"path_length": None}])
def test_a_page_can_be_made_of_one_run_one_setting_and_equal_scores(tmp_path, more):
    for i, options in enumerate([{"depths": (2,)}, {"steps": (50,)}, {}]):
        folder = write_sampling(tmp_path / str(i), lambda d, k: 0.5, **options, **more)
        pages.check(reports.write_page(reports.build_report(folder)).read_text())
