import pages
import pytest
from synthetic import write_study

from rfjax.study import records, reports
from rfjax.study.reports import correlations


def test_checkpoints_are_paired_with_their_scores(tmp_path):
    study = records.read(write_study(tmp_path / "s", noise=0.002, scores=True))
    found = correlations.pairs(study.rungs, "ema")
    assert len(found) == 6 * 5 * 2  # rungs x validations x settings
    assert correlations.main_setting(found) == "25@3.0"
    for pair in found:
        assert pair.score == pytest.approx(1 - pair.loss)
        assert pair.frechet == pytest.approx(pair.loss**3)
    by_name = {(r.setting, r.quantity): r for r in correlations.relations(found)}
    pearson, spearman = by_name["25@3.0", "score"].correlations
    assert (pearson.value, spearman.value) == pytest.approx((-1, -1))
    pearson, spearman = by_name["10@3.0", "frechet"].correlations
    assert spearman.value == pytest.approx(1)
    assert 0.9 < pearson.value < 1  # a cube is no line
    assert (pearson.n, pearson.groups) == (30, 6)


def test_the_scaling_report_shows_them_where_there_are_scores(tmp_path):
    drawn = reports.draw(write_study(tmp_path / "with", noise=0.002, scores=True))
    page = reports.write(drawn).read_text()
    pages.check(page)
    assert "<figure id=loss_and_quality class=wide>" in page
    assert "<td>-1.00 (-1.00 to -" in page
    assert (tmp_path / "with" / "report" / "quality.csv").read_text().count("\n") == 61
    few = records.read(write_study(tmp_path / "few", depths=(1,), scores=True))
    notes = {c.note for r in correlations.relations(correlations.pairs(few.rungs, "ema")) for c in r.correlations}
    assert any("too narrow" in note for note in notes)


def test_constant_scores_have_a_reason_instead(tmp_path):
    pairs = tuple(correlations.Pair("d1", i, "10@3.0", 10, 0.1 * i, 0.5, float("nan")) for i in range(6))
    score, frechet = correlations.relations(pairs)
    assert score.correlations == ()
    assert "same value" in score.reason
    assert "4 points or more, not 0" in frechet.reason
