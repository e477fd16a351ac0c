import pages
import pytest
from synthetic import write_study

from rfjax.study import records, reports
from rfjax.study.reports import correlations


def test_checkpoints_are_paired_with_their_scores(tmp_path):
    study = records.read(write_study(tmp_path / "s", noise=0.002, scores=True))
    found = correlations.pairs(study.runs, "ema")
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
    notes = {c.note for r in correlations.relations(correlations.pairs(few.runs, "ema")) for c in r.correlations}
    assert any("too narrow" in note for note in notes)


def test_constant_scores_have_a_reason_instead(tmp_path):
    pairs = tuple(correlations.Pair("d1", i, "10@3.0", 10, 0.1 * i, 0.5, float("nan")) for i in range(6))
    score, frechet = correlations.relations(pairs)
    assert score.correlations == ()
    assert "tells no checkpoints apart: it is 0.5 everywhere" in score.reason
    assert "4 points or more, not 0" in frechet.reason


def checkpoints(values, **more):
    """Six runs with falling losses and these scores or distances, of 64 pictures each."""
    found = [
        correlations.Pair(f"d{i}", 9, "10@3.0", 10, 1 - 0.1 * i, v, v, count=64, **more) for i, v in enumerate(values)
    ]
    return {relation.quantity: relation for relation in correlations.relations(tuple(found))}


def test_a_score_on_its_floor_correlates_with_nothing_however_well_it_seems_to():
    few = checkpoints([0, 0, 1 / 64, 1 / 64, 1 / 64, 2 / 64], stderr=0.0, frechet_stderr=0.02)
    for relation in few.values():  # Spearman's is -0.94
        assert relation.correlations == ()
        assert "tells no checkpoints apart: values from 0 to 0.0312 are what errors of" in relation.reason
    many = checkpoints([0, 0.1, 0.2, 0.3, 0.4, 0.5], stderr=0.05, frechet_stderr=0.02)
    assert all(len(relation.correlations) == 2 for relation in many.values())
    unknown = checkpoints([0, 0.01, 0.02, 0.03, 0.04, 0.05])  # lines of before the errors were kept
    assert len(unknown["frechet"].correlations) == 2


def test_a_distance_as_small_as_that_of_true_pictures_is_no_finding():
    near = checkpoints([0.5, 0.4, 0.3, 0.2, 0.2, 0.1], stderr=0.01, frechet_stderr=0.01, floor=0.5)
    assert "no checkpoint is farther than as many true pictures, 0.5" in near["frechet"].reason
    assert near["score"].correlations


def test_a_checkpoint_without_a_finite_score_is_named():
    relation = checkpoints([0.1, float("nan"), 0.3, 0.4, 0.5, 0.6], stderr=0.01)["score"]
    assert relation.correlations[0].n == 5
    assert "At 10@3.0 without a finite score, and left out: d1 at step 9." in relation.correlations[0].note
