import csv
import json
import re
import subprocess
import sys
from pathlib import Path

from synthetic import write_study

from rfjax.study import report

ROOT = Path(__file__).parents[2]


def test_a_report_is_whole_and_self_contained(tmp_path):
    drawn = report.draw(write_study(tmp_path / "s", noise=0.002, surface=True))
    page = report.write(drawn).read_text()
    for name in ("trend", "loss_against_flops", "loss_against_steps", "loss_by_level", "isoflops"):
        assert f"<figure id={name}>" in page
        assert (tmp_path / "s" / "report" / f"{name}.png").stat().st_size > 5000
    assert "predicted the held-out rung" in page
    links = re.findall(r"(?:src|href)=['\"]?(?!data:|#)([^'\" >]+)", re.sub(r"<svg.*?</svg>", "", page, flags=re.S))
    assert links == []
    assert "make study" in page
    fits = json.loads((tmp_path / "s" / "report" / "fits.json").read_text())
    assert [fit["law"] for fit in fits] == ["power", "power_offset", "power", "power_offset", "surface"]
    assert fits[1]["held_out"]["inside"] == [True]
    with (tmp_path / "s" / "report" / "rungs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["d1", "d2", "d3", "d4", "d5", "d6"]
    assert rows[0]["parameters"] == "10000"
    text = report.summary(drawn, tmp_path / "index.html")
    assert "power_offset: L = 0.2" in text


def test_names_cannot_inject_markup(tmp_path):
    drawn = report.draw(write_study(tmp_path / "s", name="<script>alert(1)</script>"))
    assert "<script>" not in report.write(drawn).read_text()


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
