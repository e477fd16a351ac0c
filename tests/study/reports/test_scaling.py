import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pages
import pytest
from synthetic import change_lines, write_study

from rfjax.errors import UserError
from rfjax.study import records, reports
from rfjax.study.reports import scaling, scaling_figures, scaling_findings

ROOT = Path(__file__).parents[3]


def test_a_report_is_whole_and_self_contained(tmp_path):
    drawn = reports.build_report(write_study(tmp_path / "s", noise=0.002, surface=True))
    page = reports.write_page(drawn).read_text()
    for name in ("trend", "loss_against_flops", "loss_against_steps", "loss_by_level", "left_out", "isoflops"):
        assert f"<figure id={name}" in page
        assert (tmp_path / "s" / "report" / f"{name}.png").stat().st_size > 5000
    assert "predicted the held-out rung" in page
    pages.check(page)
    assert "make study" in page
    fits = json.loads((tmp_path / "s" / "report" / "fits.json").read_text())
    assert [fit["law"] for fit in fits[:5]] == ["power", "power_offset", "power", "power_offset", "surface"]
    assert len(fits[3]["checks"]["left_out"]) == 6
    assert all("D = 320 examples" in fit["offset_means"] for fit in fits[:4])
    assert [fit["of"] for fit in fits[5:7]] == ["validation loss, t = 0", "validation loss, t = 0.125"]
    assert fits[1]["held_out"]["inside"] == [True]
    with (tmp_path / "s" / "report" / "rungs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["d1", "d2", "d3", "d4", "d5", "d6"]
    assert rows[0]["parameters"] == "10000"
    text = reports.summary(drawn, tmp_path / "index.html")
    assert "power_offset, at D = 320 examples: L = 0.2" in text


def test_names_cannot_inject_markup(tmp_path):
    drawn = reports.build_report(write_study(tmp_path / "s", depths=(1,), name="<script>alert(1)</script>"))
    assert "<script>" not in reports.write_page(drawn).read_text()


def test_the_report_job_needs_neither_jax_nor_the_checkpoints(tmp_path):
    folder = write_study(tmp_path / "s", noise=0.002)
    code = (
        "import sys; sys.modules['jax'] = None; sys.modules['flax'] = None; from rfjax import main; "
        f"sys.exit(main.main(['--config=configs/scaling.py', '--config.job=report', '--config.workdir={folder}']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "report: " in done.stdout
    assert (folder / "report" / "index.html").exists()


def test_time_is_told_with_the_sitting_that_made_the_report(tmp_path):
    folder = write_study(tmp_path / "s", depths=(1,))
    drawn = reports.build_report(folder)
    assert "in all" not in reports.summary(drawn, folder)
    line = {"date": "today", "seconds": 10.0, "split": {"training": 7.5, "report": 2.5}}
    (folder / "sessions.jsonl").write_text(json.dumps(line) + "\n")  # the runner notes it after drawing
    assert "10 s in all: training 8 s, report 2 s; 25% outside training steps" in reports.summary(drawn, folder)
    assert "<td>training</td><td>7.5</td><td>75%</td>" in reports.write_page(drawn).read_text()


def test_a_report_of_another_version_is_refused_and_none_means_scaling(tmp_path):
    folder = write_study(tmp_path / "s", depths=(1,))
    known = json.loads((folder / "study.json").read_text())
    known["config"]["study"].pop("report")
    (folder / "study.json").write_text(json.dumps(known))
    assert reports.build_report(folder).report is scaling.REPORT
    known["config"]["study"]["report"] = "sampl"
    (folder / "study.json").write_text(json.dumps(known))
    with pytest.raises(
        UserError,
        match=r"study.json: config.study.report = 'sampl' is not one of its choices \(did you mean 'sampling'\?\)",
    ):
        reports.build_report(folder)


def test_training_and_validation_losses_have_axes_of_their_own(tmp_path):
    """They are means over different t, weights and texts: on one axis their distance looks like overfitting."""
    study = records.read(write_study(tmp_path / "s", depths=(1, 2)))
    found = scaling_findings.analyse(study)
    for along in ("step", "flops"):
        left, right = scaling_figures.draw_losses(study, found, along).axes
        assert left.get_ylabel() == "training loss"
        assert "raw weights" in left.get_title()
        assert "texts dropped" in left.get_title()
        assert right.get_ylabel() == "validation loss"
        assert "even levels of t (k/8), ema weights" in right.get_title()
        plt.close("all")


@pytest.mark.parametrize("odd", ["no training line", "no run", "all lost"])
def test_a_report_lives_with_whatever_runs_left(tmp_path, odd):
    folder = write_study(tmp_path / "s", depths=(1, 2))
    for name in ("d1", "d2"):
        if odd == "no training line":  # while the first run compiles, or when it failed at once
            change_lines(folder, name, lambda line: line if line["kind"] == "start" else None)
        elif odd == "no run":
            shutil.rmtree(folder / "runs" / name)
        else:
            change_lines(folder, name, lambda line: line | {"loss": None} if "loss" in line else line)
    drawn = reports.build_report(folder)
    page = reports.write_page(drawn).read_text()
    pages.check(page)
    assert "too few finished rungs" in page
    assert json.loads((folder / "report" / "fits.json").read_text())[0]["law"] is None
    assert reports.summary(drawn, folder)
