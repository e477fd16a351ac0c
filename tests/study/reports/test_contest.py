import json

import pages
import pytest
from synthetic import THREE, in_order, write_contest

from rfjax.analysis import Setting
from rfjax.study import records, reports
from rfjax.study.reports import formulations, paper
from rfjax.study.reports.formulations_findings import analyse, canonical


def find(folder):
    return analyse(records.read(folder))


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
    assert canonical(written) == name


def test_known_scores_give_known_ranks(tmp_path):
    def quality(variant, dataset, weights, steps, guidance):
        # rf leads with few steps, eps/linear with many; lognorm has the best score but the worst distance: never last.
        ahead = {"rf": steps < 25, "eps/linear": steps >= 25}
        if variant in ahead:
            return (0.5, 2.0) if ahead[variant] else (0.4, 3.0)
        return (0.9, 9.0)

    found = find(write_contest(tmp_path / "s", quality, variants=THREE))
    assert len(found.contest.settings) == 24
    at = found.contest.columns["all"].by_setting
    assert at[Setting("shapes", "ema", 5, 5.0)] == {"rf": 1, "eps/linear": 2, "rf/lognorm(0.00,1.00)": 1}
    assert at[Setting("digits", "raw", 50, 2.5)] == {"rf": 2, "eps/linear": 1, "rf/lognorm(0.00,1.00)": 1}
    # Few steps: 5 and 10 of six settings. Second there for eps/linear, second in the other four for rf.
    assert found.contest.columns["all"].average == pytest.approx(
        {"rf/lognorm(0.00,1.00)": 1.0, "eps/linear": 1 + 2 / 6, "rf": 1 + 4 / 6}
    )
    assert found.contest.columns["five"].average == {"rf": 1.0, "rf/lognorm(0.00,1.00)": 1.0, "eps/linear": 2.0}
    assert found.contest.columns["fifty"].average == {"eps/linear": 1.0, "rf/lognorm(0.00,1.00)": 1.0, "rf": 2.0}
    for column in ("five", "fifty"):  # {EMA, raw} x two data sets at guidance 5, as the paper's quarters suggest
        assert {(s.guidance, s.weights, s.dataset) for s in found.contest.columns[column].by_setting} == {
            (5.0, w, d) for w in ("ema", "raw") for d in ("shapes", "digits")
        }
        assert len(found.contest.columns[column].by_setting) == 4
    assert found.contest.winners == ("rf/lognorm(0.00,1.00)",)
    assert found.contest.variants == ("rf/lognorm(0.00,1.00)", "eps/linear", "rf")
    assert found.contest.columns["all"].interval["rf"] is None  # one seed
    assert found.contest.columns["all"].spread["rf"] == pytest.approx(0.4815, abs=1e-4)  # 16 fronts of 24 are 2
    assert found.contest.agreements["all"].correlations == {}
    assert "4 points or more, not 3" in found.contest.agreements["all"].reason


def test_the_papers_own_order_correlates_fully_and_its_reverse_not(tmp_path):
    names = list(paper.TABLE_1)
    found = find(write_contest(tmp_path / "same", in_order(names)))
    assert found.contest.ranked == tuple(names)
    assert {name: c.value for name, c in found.contest.agreements["all"].correlations.items()} == pytest.approx(
        {"Spearman": 1, "Kendall": 1}
    )
    assert found.contest.agreements["all"].correlations["Spearman"].n == 16
    assert found.contest.agreements["all"].places == {name: (i, i) for i, name in enumerate(names, 1)}
    assert found.warnings == ()
    found = find(write_contest(tmp_path / "reverse", in_order(names[::-1])))
    assert found.contest.agreements["all"].correlations["Spearman"].value == pytest.approx(-1)
    assert found.contest.agreements["all"].places["rf/lognorm(0.00,1.00)"] == (16, 1)


def test_a_partial_study_ranks_what_is_there_and_says_what_is_missing(tmp_path):
    folder = write_contest(tmp_path / "s", in_order(THREE), variants=THREE)
    # On digits only one variant has got to its scores; one run of it has not begun, one failed, one has no scores.
    (run_of(folder, "rf", "digits") / "metrics.jsonl").unlink()
    failed = run_of(folder, "eps/linear", "digits")
    (failed / "metrics.jsonl").unlink()
    (failed / "failure.txt").write_text("the loss is not finite at step 8")
    found = find(folder)
    assert found.contest.ranked == THREE  # over the settings of shapes
    assert {setting.dataset for setting in found.contest.columns["all"].by_setting} == {"shapes"}
    assert len(found.contest.columns["five"].by_setting) == 2
    text = " ".join(found.warnings)
    assert f"{failed.name} failed: the loss is not finite at step 8" in text
    assert f"not started yet: {run_of(folder, 'rf', 'digits').name}." in text
    assert "Too few variants have scores on digits yet" in text
    # Now one variant lacks its scores on shapes: two remain.
    path, old = lines(folder, run_of(folder, "rf", "shapes").name)
    path.write_text("\n".join(line for line in old if '"scores"' not in line) + "\n")
    found = find(folder)
    assert found.contest.ranked == ("eps/linear", "rf/lognorm(0.00,1.00)")
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
    assert "five" not in found.contest.columns
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
    assert find(folder).contest.measures[setting]["rf"].values["score"] == 0.123
    path.write_text("\n".join([*old, json.dumps(again | {"frechet": None})]) + "\n")
    found = find(folder)
    assert "rf" not in found.contest.measures[setting]
    assert "name: no score and distance at 50@5.0 (ema): left out." in _told(found, path)
    problem = {"score": None, "frechet": None, "problem": "3 of 128 pictures are not finite"}
    for key in ("stderr", "parts"):
        again.pop(key)
    path.write_text("\n".join([*old, json.dumps(again | problem)]) + "\n")
    found = find(folder)  # in_order puts rf first; here it is last, and the others move up
    assert found.contest.columns["all"].by_setting[setting] == {"eps/linear": 1, "rf/lognorm(0.00,1.00)": 2, "rf": 3}
    assert not found.contest.measures[setting]["rf"].drawn
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
    assert (found.contest.columns, found.contest.ranked, found.contest.winners, found.contest.settings) == (
        {},
        (),
        (),
        (),
    )
    assert any(w.startswith("Complete, but without scores: ") for w in found.warnings)


def test_seeds_are_the_unit_of_an_interval_and_settings_are_none(tmp_path):
    """With seed 1 rf is last, with the others first: 24 settings that agree make no certainty of it."""
    luck = lambda c: 5.0 if (c.training.seed, c.flow.formulation) == (1, "rf") else 0.0  # noqa: E731
    quality = lambda variant, *setting: (0.5, {"rf": 1.0, "eps/linear": 2.0}.get(variant, 3.0))  # noqa: E731
    seeds = {"training.seed": (0, 1, 2)}
    found = find(write_contest(tmp_path / "s", quality, THREE, ("shapes",), axes=seeds, luck=luck))
    column = found.contest.columns["all"]
    assert found.contest.seeds == (0, 1, 2)
    assert column.average["rf"] == pytest.approx((1 + 3 + 1) / 3)
    low, high = column.interval["rf"]
    assert (low, high) == (1.0, pytest.approx(5 / 3 + 4.30265 * 2 / 3))  # s = 2 / sqrt(3), over sqrt(3)
    assert column.spread["rf"] == pytest.approx(0, abs=1e-12)  # all 12 settings agree
    text = " ".join(formulations.describe(found))
    assert "(95 % interval over 3 seeds 1.00 to " in text


def test_a_seed_that_few_have_got_to_is_left_out_by_name(tmp_path):
    folder = write_contest(tmp_path / "s", in_order(THREE), THREE, ("shapes",), axes={"training.seed": (0, 1)})
    for path in folder.glob("runs/*seed1*/metrics.jsonl"):
        if "rf-" not in path.parent.name or "lognorm" in path.parent.name:
            path.unlink()
    found = find(folder)
    assert found.contest.seeds == (0,)
    assert found.contest.ranked == THREE
    assert "Too few variants have scores with seed 1 yet: the ranks leave it out." in found.warnings


def test_each_variant_stands_at_the_rate_with_its_lowest_validation_loss(tmp_path):
    best = {"rf": 0.01, "eps/linear": 0.02, "rf/lognorm(0.00,1.00)": 0.04}
    loss = lambda c: 0.5 + abs(c.optimizer.learning_rate - best[c.flow.formulation])  # noqa: E731
    luck = lambda c: 100 * (loss(c) - 0.5)  # noqa: E731
    rates = {"optimizer.learning_rate": (0.01, 0.02, 0.04)}
    folder = write_contest(tmp_path / "s", in_order(THREE), THREE, ("shapes",), axes=rates, loss=loss, luck=luck)
    found = find(folder)
    assert {sweep.who: sweep.best for sweep in found.rates.choices} == best
    assert found.contest.ranked == THREE
    assert all(
        m.values["frechet"] == 1 + i
        for i, v in enumerate(THREE)
        for m in [found.contest.measures[found.contest.settings[0]][v]]
    )
    text = " ".join(found.warnings)
    assert "rf on shapes: the best learning rate, 0.01, is at the edge of those tried." in text
    assert "eps/linear on shapes: the best" not in text
    page = reports.write_page(reports.build_report(folder)).read_text()
    pages.check(page)
    assert "<h2>Learning rates</h2>" in page
    assert "compared at the one with their lowest validation loss" in page
    broken = next(path for path in folder.glob("runs/*/metrics.jsonl") if _is(path, "eps/linear", 0.02))
    broken.write_text(broken.read_text().replace('"loss": 0.5', '"loss": null'))
    again = find(folder)  # a rate that diverged is not chosen, and named
    assert {sweep.who: sweep.best for sweep in again.rates.choices}["eps/linear"] != 0.02
    assert "eps/linear on shapes: not all runs at the learning rate 0.02 have a final loss." in again.warnings


def _is(path, variant, rate):
    config = json.loads((path.parent / "config.json").read_text())
    return (config["flow"]["formulation"], config["optimizer"]["learning_rate"]) == (variant, rate)


def test_the_page_says_at_whose_rate_and_on_which_times(tmp_path):
    folder = write_contest(tmp_path / "s", in_order(list(paper.TABLE_1)))
    said = " ".join(formulations.describe(find(folder)))
    assert "One learning rate, 0.003, serves predictions of velocity, eps, F, v" in said
    assert "the comparison is at rf's rate" in said
    page = reports.write_page(reports.build_report(folder)).read_text()
    assert "karras for edm(0.00,0.60), edm(0.60,1.20), edm(-1.20,1.20); uniform for the others." in page
    assert "one seed: not known" in page
    assert "shapes not known, for these scores were made before it was measured" in page
    for path in folder.glob("runs/*/config.json"):  # of before there was the key's own
        path.write_text(path.read_text().replace('"schedule": "own"', '"schedule": "uniform"'))
    assert find(folder).contest.grids == {"uniform": list(paper.TABLE_1)}


def test_scores_on_their_floor_are_told(tmp_path):
    quality = lambda variant, *setting: (0.004 * THREE.index(variant), 1.0 + THREE.index(variant))  # noqa: E731
    more = {"frechet_stderr": 0.1, "frechet_floor": 0.5}
    folder = write_contest(tmp_path / "s", quality, THREE, ("shapes",), more=more)
    text = " ".join(find(folder).warnings)
    assert "The score does not tell the variants apart in 12 of 12 settings (shapes, ema, 5@5: values from 0 to" in text
    assert "Fréchet distance does not" not in text
    page = reports.write_page(reports.build_report(folder)).read_text()
    assert "shapes 0.5 for 128 pictures" in page
    assert "<b>1 ± 0.1</b>" in page


@pytest.mark.parametrize(
    "case", [{"variants": ("rf",)}, {"quality": (0.5, 1.0)}, {"more": {"stderr": None}}, {"few": True}]
)
def test_a_page_can_be_made_of_one_variant_one_setting_and_equal_values(tmp_path, case):
    variants = case.get("variants", THREE)
    quality = (lambda *a: case["quality"]) if "quality" in case else in_order(variants)
    folder = write_contest(tmp_path / "s", quality, variants, ("shapes",), more=case.get("more"))
    for path in folder.glob("runs/*/metrics.jsonl") if "few" in case else ():
        kept = ('"kind": "start"', '"train"', '"validation"', '"ema", "setting": "5@5')
        one = [line for line in path.read_text().splitlines() if any(word in line for word in kept)]
        path.write_text("\n".join(one) + "\n")
    drawn = reports.build_report(folder)
    pages.check(reports.write_page(drawn).read_text())
    assert (
        drawn.findings.contest.ranked == variants if "quality" not in case else len(drawn.findings.contest.ranked) == 3
    )
    for path in folder.glob("runs/*/metrics.jsonl"):
        path.write_text("\n".join(line for line in path.read_text().splitlines() if '"start"' in line) + "\n")
    pages.check(reports.write_page(reports.build_report(folder)).read_text())  # no run finished
