import csv
import json

import pages
import pytest
from synthetic import THREE, in_order, write_contest

from rfjax.study import reports
from rfjax.study.reports import paper


def page_of(drawn):
    page = reports.write_page(drawn).read_text()
    pages.check(page)
    return page


def test_the_report_of_the_papers_own_order(tmp_path):
    folder = write_contest(tmp_path / "s", in_order(list(paper.TABLE_1)), samples=True)
    drawn = reports.build_report(folder)
    page = page_of(drawn)
    for name in ("ranks", "fronts", "steps"):
        assert f"<figure id={name}" in page
        assert (folder / "report" / f"{name}.png").stat().st_size > 5000
    assert "rf/lognorm(0.00,1.00) has the best average rank: 1.00" in page
    assert "Spearman +1.00 (95 % interval +0." in page
    assert "<td>1.54</td><td>1.25</td><td>1.50</td>" in page
    assert "<b>44.39</b>" in page  # the paper's best in Table 2
    assert "<th>single object</th><th>colour</th>" in page
    assert "a cross and a triangle</th>" in page
    assert page.count("data:image/png;base64,") == 2 * (1 + 16) * 4
    record = json.loads((folder / "report" / "ranking.json").read_text())
    assert record["winners"] == ["rf/lognorm(0.00,1.00)"]
    assert record["agreement"]["Kendall"]["value"] == pytest.approx(1)
    assert {k: column["settings"] for k, column in record["columns"].items()} == {"all": 24, "five": 4, "fifty": 4}
    assert len(record["fronts"]) == 24
    with (folder / "report" / "ranks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["variant"] for row in rows] == list(paper.TABLE_1)
    assert (rows[0]["all"], rows[0]["paper_all"], rows[0]["place"]) == ("1.0", "1.54", "1.0")
    with (folder / "report" / "scores.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 16 * 24
    text = reports.summary(drawn, folder)
    assert "warning" not in text
    assert "correlate, over the 16 variants of both: Spearman +1.00" in text


def test_a_few_variants(tmp_path):
    four = (*THREE, "rf/lognorm(-1.00,0.20)")  # the last is not in the paper's table
    folder = write_contest(tmp_path / "s", in_order(four), variants=four, datasets=("shapes",))
    drawn = reports.build_report(folder)
    page = page_of(drawn)
    assert "Here it has 3.00, place 3" in page
    assert "One data set only, shapes" in page
    assert "In the paper's table but not ranked here: rf/lognorm(1.00,0.60)" in page.replace("&#x27;", "'")
    assert "No rank correlation with the paper: " in page


def test_pictures_that_are_not_finite(tmp_path):
    folder = write_contest(tmp_path / "s", in_order(THREE), variants=THREE, datasets=("shapes",))
    broken = {"score": None, "frechet": None, "problem": "8 of 128 pictures are not finite"}
    for path in folder.glob("runs/*/metrics.jsonl"):
        if json.loads((path.parent / "config.json").read_text())["flow"]["formulation"] == "rf":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            lines = [line | broken if line.get("setting") == "25@5.0" else line for line in lines]
            path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    drawn = reports.build_report(folder)
    page = page_of(drawn)
    assert "is last at 25@5.0 (ema): 8 of 128 pictures are not finite." in page
    assert "inf" not in (folder / "report" / "scores.csv").read_text()


def test_no_scores_is_one_clear_sentence(tmp_path):
    folder = write_contest(tmp_path / "s", in_order(THREE), variants=THREE)
    for path in folder.glob("runs/*/metrics.jsonl"):
        path.write_text("\n".join(line for line in path.read_text().splitlines() if '"scores"' not in line) + "\n")
    drawn = reports.build_report(folder)
    assert "No ranks yet: no run has left scores." in page_of(drawn)
    assert drawn.figures == {}
    for path in folder.glob("runs/*/metrics.jsonl"):
        path.unlink()
    drawn = reports.build_report(folder)
    assert "No ranks yet: no run has left scores." in page_of(drawn)
    assert "not started yet: " in reports.summary(drawn, folder)


def test_pictures_that_are_nowhere_finite_leave_no_table_in_silence(tmp_path):
    folder = write_contest(tmp_path / "s", in_order(THREE), variants=THREE, datasets=("shapes",))
    broken = {"score": None, "frechet": None, "problem": "all pictures are not finite", "parts": {}}
    for path in folder.glob("runs/*/metrics.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        if json.loads((path.parent / "config.json").read_text())["flow"]["formulation"] == "rf":
            path.write_text("\n".join(json.dumps(line | broken if "score" in line else line) for line in lines) + "\n")
    drawn = reports.build_report(folder)
    assert "Without rf, whose pictures are not finite." in page_of(drawn)
    assert drawn.findings.contest.ranked[-1] == "rf"
    for path in folder.glob("runs/*/metrics.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("\n".join(json.dumps(line | broken if "score" in line else line) for line in lines) + "\n")
    page_of(reports.build_report(folder))
