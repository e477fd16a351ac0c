"""What a metric gives is data: a third quantity, or one alone, needs no change in any report."""

import csv
import json

import pages
import pytest
from synthetic import THREE, in_order, write_architectures, write_contest, write_sampling, write_study

from rfjax.evaluation.quantity import STANDARD, Quantity
from rfjax.study import records, reports

CLIP = Quantity("clip", "CLIP score", "higher", error="clip_stderr")
STUDIES = {
    "scaling": lambda folder: write_study(folder, noise=0.002, scores=True),
    "formulations": lambda folder: write_contest(folder, in_order(THREE), THREE, ("shapes",)),
    "sampling": lambda folder: write_sampling(folder, lambda depth, steps: 0.5 - 0.1 / (depth * steps)),
    "architectures": write_architectures,
}
TABLES = {"scaling": "quality", "formulations": "scores", "sampling": "sampling", "architectures": "curves"}


def change(folder, quantities, edit):
    """Writes the runs' lines anew: the quantities at the start, and every line of scores as edit(line)."""
    plain = [quantity.to_plain() for quantity in quantities]
    for path in folder.glob("runs/*/metrics.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        changes = {"start": lambda line: line | {"quantities": plain}, "scores": edit}
        lines = [changes.get(line["kind"], lambda line: line)(line) for line in lines]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("kind", STUDIES)
def test_a_third_quantity_has_its_columns_figures_and_ranks(tmp_path, kind):
    folder = STUDIES[kind](tmp_path / "study")
    change(folder, (*STANDARD, CLIP), lambda line: line | {"clip": 0.3 + line["score"] / 10, "clip_stderr": 0.001})
    built = reports.build_report(folder)
    page = reports.write_page(built).read_text()
    pages.check(page)
    assert "CLIP score" in page
    with (folder / "report" / f"{TABLES[kind]}.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["clip"]]
    assert float(rows[0]["clip"]) == pytest.approx(0.3 + float(rows[0]["score"]) / 10)
    assert all(run.quantities == (*STANDARD, CLIP) for run in records.read(folder).runs)


def test_a_third_quantity_takes_part_in_the_ranking(tmp_path):
    folder = STUDIES["formulations"](tmp_path / "study")
    change(folder, (*STANDARD, CLIP), lambda line: line | {"clip": 1.0 - line["score"]})  # the order turned round
    assert set(reports.build_report(folder).findings.contest.columns["all"].average.values()) == {1.0}


@pytest.mark.parametrize("kind", STUDIES)
@pytest.mark.parametrize("key", ["score", "clip"])
def test_a_study_without_a_distance_has_a_report(tmp_path, kind, key):
    folder = STUDIES[kind](tmp_path / "study")
    only = STANDARD[:1] if key == "score" else (CLIP,)
    change(folder, only, lambda line: {k: v for k, v in line.items() if "frechet" not in k} | {"clip": line["score"]})
    built = reports.build_report(folder)
    page = reports.write_page(built).read_text()
    pages.check(page)
    assert "Fréchet" not in page.partition("How this was made")[0]
    assert reports.summary(built, folder)


def test_runs_from_before_quantities_have_the_standard_ones_and_spoilt_ones_are_told(tmp_path):
    folder = write_study(tmp_path / "study", depths=(1, 2))
    assert [run.quantities for run in records.read(folder).runs] == [STANDARD] * 2
    path = folder / "runs" / "d1" / "metrics.jsonl"
    for spoilt in ([5], [{"key": "clip"}], 5, [{"key": "clip", "label": "c", "better": "more"}]):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        lines[0]["quantities"] = spoilt
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        study = records.read(folder)
        assert study.runs[0].quantities == STANDARD
        assert any(said.startswith("d1: its 'quantities' can't be read") for said in study.states())


def test_quantities_come_back_from_json():
    for quantity in (*STANDARD, CLIP):
        assert Quantity.from_plain(json.loads(json.dumps(quantity.to_plain())) | {"later": 1}) == quantity


def test_a_report_of_one_s_own_needs_no_entry(tmp_path, monkeypatch):
    (tmp_path / "own_report.py").write_text(
        "import dataclasses\nfrom rfjax.study.reports.scaling import REPORT\n"
        "OWN = dataclasses.replace(REPORT, file='own.json', subtitle=lambda study: 'a report of my own')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    folder = write_study(tmp_path / "study", depths=(1, 2))
    known = json.loads((folder / "study.json").read_text())
    known["config"]["study"]["report"] = "own_report:OWN"
    (folder / "study.json").write_text(json.dumps(known))
    page = reports.write_page(reports.build_report(folder)).read_text()
    assert "a report of my own" in page
    assert (folder / "report" / "own.json").exists()
