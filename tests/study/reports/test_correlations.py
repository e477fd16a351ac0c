import pages
import pytest
from synthetic import write_study

from rfjax.analysis import main_setting
from rfjax.evaluation.quantity import STANDARD
from rfjax.study import records, reports
from rfjax.study.reports import scaling_findings
from rfjax.study.reports.compare import checkpoints


def test_checkpoints_are_paired_with_their_scores(tmp_path):
    study = records.read(write_study(tmp_path / "s", noise=0.002, scores=True))
    found = checkpoints(study.runs, "ema", STANDARD)
    assert len(found) == 6 * 5 * 2  # rungs x validations x settings
    assert main_setting(found) == "25@3.0"
    for pair in found:
        assert pair.values["score"] == pytest.approx(1 - pair.loss)
        assert pair.values["frechet"] == pytest.approx(pair.loss**3)
    by_name = {(r.setting, r.quantity): r for r in scaling_findings.analyse(study).relations}
    pearson, spearman = by_name["25@3.0", "score"].correlations
    assert (pearson.value, spearman.value) == pytest.approx((-1, -1))
    pearson, spearman = by_name["10@3.0", "frechet"].correlations
    assert spearman.value == pytest.approx(1)
    assert 0.9 < pearson.value < 1  # a cube is no line
    assert (pearson.n, pearson.groups) == (30, 6)


def test_the_scaling_report_shows_them_where_there_are_scores(tmp_path):
    drawn = reports.build_report(write_study(tmp_path / "with", noise=0.002, scores=True))
    page = reports.write_page(drawn).read_text()
    pages.check(page)
    assert "<figure id=loss_and_quality class=wide>" in page
    assert "<td>-1.00 (-1.00 to -" in page
    assert (tmp_path / "with" / "report" / "quality.csv").read_text().count("\n") == 61
    few = records.read(write_study(tmp_path / "few", depths=(1,), scores=True))
    notes = {c.note for r in scaling_findings.analyse(few).relations for c in r.correlations}
    assert any("too narrow" in note for note in notes)
