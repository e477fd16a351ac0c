import json

import pytest
from synthetic import THREE, in_order, write_contest

from rfjax.study import records
from rfjax.study.reports import contest, paper
from rfjax.study.reports.contest import Setting


def find(folder):
    return contest.find(records.read(folder))


def lines(folder, name):
    path = folder / "runs" / name / "metrics.jsonl"
    return path, path.read_text().splitlines()


def run_of(folder, variant, dataset):
    for path in (folder / "runs").iterdir():
        config = json.loads((path / "config.json").read_text())
        if config["flow"]["formulation"] == variant and config["data"]["name"] == dataset:
            return path
    raise AssertionError(variant)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("rf/lognorm(0, 1)", "rf/lognorm(0.00,1.00)"),
        ("rf/mode(1.2917)", "rf/mode(1.29)"),
        ("edm(-1.2,1.20)", "edm(-1.20,1.20)"),
        ("rf/lognorm(-0.0, 1.0)", "rf/lognorm(0.00,1.00)"),
        ("rf/mode(0)", "rf"),
        ("eps/linear", "eps/linear"),
    ],
)
def test_names_are_the_papers(written, name):
    assert contest.canonical(written) == name


def test_known_scores_give_known_ranks(tmp_path):
    def quality(variant, dataset, weights, steps, guidance):
        # rf leads with few steps, eps/linear with many; lognorm has the best score but the worst distance: never last.
        ahead = {"rf": steps < 25, "eps/linear": steps >= 25}
        if variant in ahead:
            return (0.5, 2.0) if ahead[variant] else (0.4, 3.0)
        return (0.9, 9.0)

    found = find(write_contest(tmp_path / "s", quality, variants=THREE))
    assert len(found.settings) == 24
    at = found.columns["all"].by_setting
    assert at[Setting("shapes", "ema", 5, 5.0)] == {"rf": 1, "eps/linear": 2, "rf/lognorm(0.00,1.00)": 1}
    assert at[Setting("digits", "raw", 50, 2.5)] == {"rf": 2, "eps/linear": 1, "rf/lognorm(0.00,1.00)": 1}
    # Few steps: 5 and 10 of six settings. Second there for eps/linear, second in the other four for rf.
    assert found.columns["all"].average == pytest.approx(
        {"rf/lognorm(0.00,1.00)": 1.0, "eps/linear": 1 + 2 / 6, "rf": 1 + 4 / 6}
    )
    assert found.columns["five"].average == {"rf": 1.0, "rf/lognorm(0.00,1.00)": 1.0, "eps/linear": 2.0}
    assert found.columns["fifty"].average == {"eps/linear": 1.0, "rf/lognorm(0.00,1.00)": 1.0, "rf": 2.0}
    for column in ("five", "fifty"):  # {EMA, raw} x two data sets at guidance 5, as the paper's quarters suggest
        assert {(s.guidance, s.weights, s.dataset) for s in found.columns[column].by_setting} == {
            (5.0, w, d) for w in ("ema", "raw") for d in ("shapes", "digits")
        }
        assert len(found.columns[column].by_setting) == 4
    assert found.winners == ("rf/lognorm(0.00,1.00)",)
    assert found.variants == ("rf/lognorm(0.00,1.00)", "eps/linear", "rf")
    low, high = found.columns["all"].interval["rf"]
    assert 1 < low < 1 + 4 / 6 < high
    assert found.agreement == {}
    assert "4 points or more, not 3" in found.reason


def test_the_papers_own_order_correlates_fully_and_its_reverse_not(tmp_path):
    names = list(paper.TABLE_1)
    found = find(write_contest(tmp_path / "same", in_order(names)))
    assert found.ranked == tuple(names)
    assert {name: c.value for name, c in found.agreement.items()} == pytest.approx({"Spearman": 1, "Kendall": 1})
    assert found.agreement["Spearman"].n == 16
    assert found.places["all"] == {name: (i, i) for i, name in enumerate(names, 1)}
    assert found.warnings == ()
    found = find(write_contest(tmp_path / "reverse", in_order(names[::-1])))
    assert found.agreement["Spearman"].value == pytest.approx(-1)
    assert found.places["all"]["rf/lognorm(0.00,1.00)"] == (16, 1)


def test_ties_share_their_place():
    assert contest.places({"a": 1.0, "b": 1.0, "c": 2.0, "z": 0.0}, {"a": 3.0, "b": 1.0, "c": 2.0}) == {
        "a": (1.5, 3.0),
        "b": (1.5, 1.0),
        "c": (3.0, 2.0),
    }


def test_a_partial_study_ranks_what_is_there_and_says_what_is_missing(tmp_path):
    folder = write_contest(tmp_path / "s", in_order(THREE), variants=THREE)
    # On digits only one variant has got to its scores; one run of it has not begun, one failed, one has no scores.
    (run_of(folder, "rf", "digits") / "metrics.jsonl").unlink()
    failed = run_of(folder, "eps/linear", "digits")
    (failed / "metrics.jsonl").unlink()
    (failed / "failure.txt").write_text("the loss is not finite at step 8")
    found = find(folder)
    assert found.ranked == THREE  # over the settings of shapes
    assert {setting.dataset for setting in found.columns["all"].by_setting} == {"shapes"}
    assert len(found.columns["five"].by_setting) == 2
    text = " ".join(found.warnings)
    assert f"{failed.name} failed: the loss is not finite at step 8" in text
    assert f"not started yet: {run_of(folder, 'rf', 'digits').name}." in text
    assert "Too few variants have scores on digits yet" in text
    # Now one variant lacks its scores on shapes: two remain.
    path, old = lines(folder, run_of(folder, "rf", "shapes").name)
    path.write_text("\n".join(line for line in old if '"scores"' not in line) + "\n")
    found = find(folder)
    assert found.ranked == ("eps/linear", "rf/lognorm(0.00,1.00)")
    text = " ".join(found.warnings)
    assert f"Complete, but without scores: {path.parent.name}." in text
    assert "2 of the study's 3 variants are ranked" in text
    assert "not comparable" in text


def test_settings_that_nobody_has_are_told(tmp_path):
    folder = write_contest(tmp_path / "s", in_order(THREE), variants=THREE, datasets=("shapes",))
    for variant in THREE:
        path, old = lines(folder, run_of(folder, variant, "shapes").name)
        path.write_text("\n".join(s for s in old if '"5@5.0"' not in s and '"weights": "raw", "set' not in s) + "\n")
    found = find(folder)
    assert "five" not in found.columns
    text = " ".join(found.warnings)
    assert "nothing was measured at: shapes, ema, 5@5." in text
    assert "One weights only, ema" in text
    assert "One data set only, shapes" in text


def test_the_last_line_of_a_setting_counts_and_broken_scores_are_left_out(tmp_path):
    folder = write_contest(tmp_path / "s", in_order(THREE), variants=THREE, datasets=("shapes",))
    path, old = lines(folder, run_of(folder, "rf", "shapes").name)
    again = json.loads(next(line for line in old if '"ema", "setting": "50@5.0"' in line))
    # Scores along the run, at a later step; then those of the best step, written last.
    path.write_text("\n".join([*old, *(json.dumps(again | new) for new in ({"step": 99}, {"score": 0.123}))]) + "\n")
    setting = Setting("shapes", "ema", 50, 5.0)
    assert find(folder).measures[setting]["rf"].score == 0.123
    path.write_text("\n".join([*old, json.dumps(again | {"frechet": None})]) + "\n")
    found = find(folder)
    assert "rf" not in found.measures[setting]
    assert "name: no score and distance at 50@5.0 (ema): left out." in _told(found, path)
    problem = {"score": None, "frechet": None, "problem": "3 of 128 pictures are not finite"}
    for key in ("stderr", "parts"):
        again.pop(key)
    path.write_text("\n".join([*old, json.dumps(again | problem)]) + "\n")
    found = find(folder)  # in_order puts rf first; here it is last, and the others move up
    assert found.columns["all"].by_setting[setting] == {"eps/linear": 1, "rf/lognorm(0.00,1.00)": 2, "rf": 3}
    assert not found.measures[setting]["rf"].drawn
    assert "name is last at 50@5.0 (ema): 3 of 128 pictures are not finite." in _told(found, path)


def _told(found, path):
    return [warning.replace(path.parent.name, "name") for warning in found.warnings]


def test_no_scores_at_all(tmp_path):
    folder = write_contest(tmp_path / "s", in_order(THREE), variants=THREE)
    for variant in THREE:
        for dataset in ("shapes", "digits"):
            path, old = lines(folder, run_of(folder, variant, dataset).name)
            path.write_text("\n".join(line for line in old if '"scores"' not in line) + "\n")
    found = find(folder)
    assert (found.columns, found.ranked, found.winners, found.settings) == ({}, (), (), ())
    assert any(w.startswith("Complete, but without scores: ") for w in found.warnings)
