"""The validation loss beside what samples are worth."""

import math

from rfjax.analysis import Checkpoint, relate


def checkpoint(run, step, loss, score, frechet, stderr=math.nan, frechet_stderr=math.nan, floor=math.nan, count=0):
    errors, floors = {"score": stderr, "frechet": frechet_stderr}, {"score": math.nan, "frechet": floor}
    return Checkpoint(run, step, "10@3.0", 10, loss, {"score": score, "frechet": frechet}, errors, floors, count)


def related(found):
    return relate(found, {"score": "higher", "frechet": "lower"}, {"score"})


def test_constant_scores_have_a_reason_instead(tmp_path):
    pairs = tuple(checkpoint("d1", i, 0.1 * i, 0.5, float("nan")) for i in range(6))
    score, frechet = related(pairs)
    assert score.correlations == ()
    assert "tells no checkpoints apart: it is 0.5 everywhere" in score.reason
    assert "4 points or more, not 0" in frechet.reason


def checkpoints(values, **more):
    """Six runs with falling losses and these scores or distances, of 64 pictures each."""
    found = [checkpoint(f"d{i}", 9, 1 - 0.1 * i, v, v, count=64, **more) for i, v in enumerate(values)]
    return {relation.quantity: relation for relation in related(tuple(found))}


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
