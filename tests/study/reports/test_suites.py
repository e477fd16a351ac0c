"""The page of a prompt suite: scores with both intervals beside Table 5, what is missing, and what is refused."""

import json

import numpy as np
import pages
import pytest
import suite_cases
from tiny import tiny

from rfjax import config as configs
from rfjax.errors import UserError
from rfjax.evaluation.suites import find_suite
from rfjax.jsonl import write_json
from rfjax.study import reports, suite_files
from rfjax.study.reports import suites_findings, suites_paper

FACTS = {"command": "x", "commit": "x", "date": "x", "python": "3", "versions": {}, "devices": "1", "machine": "x"}
SAMPLING = {"source": "m", "sampler": "euler", "steps": 50, "guidance": 5.0, "seed": 0, "weights": "ema"}


def write(root, name, prompts, count, drawn=True, results=""):
    """The folder of a suite that was drawn."""
    c = tiny()
    c.job = "suite"
    c.suite.update(name=name, prompts=str(prompts), per_prompt=count, results=str(results))
    c.study.update(name="suite", report="suites")
    suite = find_suite(name)
    found = suite.read(prompts)
    write_json(root / "study.json", {"config": configs.parse(c).to_dict(), "runs": [], **FACTS})
    about = {"suite": name, "prompts": len(found), "per_prompt": count, **SAMPLING}
    write_json(root / "suite.json", {"settings": about})
    suite_files.write_prompts(root, found)
    for one in suite.files(found, count) if drawn else ():
        suite_files.write(root, one, np.full((count, 8, 8, 3), 90, np.uint8))
    return root


def page(root):
    built = reports.build_report(root)
    text = reports.write_page(built).read_text()
    pages.check(text)
    return built.findings, text, json.loads((root / "report" / "suites.json").read_text())


@pytest.fixture
def geneval(tmp_path):
    return write(tmp_path / "work", "geneval", suite_cases.geneval(tmp_path), 4)


def test_before_the_scorer_has_run_the_page_says_how_to(geneval):
    found, text, plain = page(geneval)
    assert (found.overall, found.missing, plain["overall"]) == (None, 0, None)
    assert "evaluate_images.py" in text and "GenEval: 6 prompts, 24 pictures are drawn." in text
    assert text.count("<img") == 4 * 5  # four pictures of the first prompt of each skill


def test_scores_by_skill_stand_beside_table_5(geneval):
    right = {0: 4, 1: 2, 2: 1, 3: 0, 4: 4, 5: 1}  # of four pictures each
    rows = [suite_cases.geneval_row(n, j, right=j < right[n]) for n in range(6) for j in range(4)]
    suite_cases.geneval_results(geneval / "results.jsonl", rows)
    found, text, plain = page(geneval)
    scores = {row.skill: row.clustered.value for row in found.rows}
    assert scores == {"single_object": 1, "two_object": 0.5, "counting": 0.25, "position": 0, "colors": 5 / 8}
    assert found.overall.value == pytest.approx(np.mean(list(scores.values())))  # 0.475, not 12 of 24
    assert found.right_prompts == pytest.approx(5 / 6)
    colors = next(row for row in found.rows if row.skill == "colors")
    assert (colors.pictures, colors.prompts, colors.clustered[1:]) == (8, 2, (0.25, 1.0))
    # Wilson's interval of 5 of 8: (p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n), z = 1.96.
    assert colors.wilson == pytest.approx((0.3057, 0.8632), abs=1e-3)
    assert found.overall.low is None  # skills of a single prompt have no spread
    assert "Beside the paper&#x27;s Table 5" in text and "<b>0.47</b>" in text.replace("0.48", "0.47")
    assert "GenEval has 553 prompts of 4 pictures; here are 6 of 4." in text and "8 pixels wide" in text
    assert text.count("euler, 50 steps, guidance 5, seed 0, 4 pictures a prompt") == 2
    assert plain["skills"]["colors"]["wilson"] == pytest.approx(colors.wilson)
    assert (geneval / "report" / "suites.csv").read_text().count("\n") == 7


def test_what_is_missing_is_counted(geneval):
    (geneval / "images/00001/samples/0002.png").unlink()
    rows = [suite_cases.geneval_row(n, j) for n in range(6) for j in range(4) if (n, j) != (1, 2)]
    suite_cases.geneval_results(geneval / "results.jsonl", rows)
    found, *_ = page(geneval)
    assert found.missing == 1
    assert any(text.startswith("1 of 24 files of pictures are missing") for text in found.warnings)
    assert any(text.startswith("1 of 24 pictures have no answer in") for text in found.warnings)


def test_results_of_other_prompts_are_a_warning_and_not_a_score(geneval):
    suite_cases.geneval_results(geneval / "results.jsonl", [suite_cases.geneval_row(0, 0, prompt="another")])
    found, text, _ = page(geneval)
    assert found.overall is None and "The official results can&#x27;t be used" in text


def test_compbench_is_a_mean_of_shares_over_categories(tmp_path):
    root = write(tmp_path / "work", "compbench", suite_cases.compbench(tmp_path), 2)
    suite_cases.answers(root / "images/color/annotation_blip/vqa_result.json", ["0.2500", "1.0000", "0.0000", "0.5000"])
    suite_cases.answers(root / "images/spatial/labels/annotation_obj_detection_2d/vqa_result.json", [0.75, 0.25])
    found, text, _ = page(root)
    assert {row.skill: (row.clustered.value, row.wilson) for row in found.rows} == {
        "color": (0.4375, None), "spatial": (0.5, None),
    }  # fmt: skip
    assert found.overall.value == pytest.approx((0.4375 + 0.5) / 2)
    assert "No scorer has judged complex" in text and "U+2215" in text


def test_dpg_is_a_mean_over_pictures_times_100(tmp_path):
    shares = {"lamp3": [1.0, 0.5, 0.5, 0.0], "moth7": [1.0, 1.0, 1.0, 0.5]}
    results = suite_cases.dpg_results(tmp_path / "x.txt", shares)
    root = write(tmp_path / "work", "dpg", suite_cases.dpg(tmp_path / "dpg_bench"), 4, results=results)
    found, text, _ = page(root)
    assert (found.overall.value, found.side, found.rows) == (0.6875, 8, ())
    assert found.overall[1:] == (0.5, 0.875)  # of two prompts, a percentile interval goes from one to the other
    assert "DPG-Bench, overall: 68.8 (95 % 50.0 to 87.5)" in text
    assert [(row.skill, row.clustered.value, row.pictures) for row in found.given] == [
        ("attribute", 0.5, 2), ("entity", 1.0, 1),
    ]  # fmt: skip


def test_parti_has_no_scorer(tmp_path):
    found, text, _ = page(write(tmp_path / "work", "parti", suite_cases.parti(tmp_path), 1))
    assert found.overall is None and "let people compare" in text


def test_a_damaged_list_of_prompts_is_refused(geneval):
    (geneval / "prompts.jsonl").write_text('{"number": 1}\n')
    with pytest.raises(UserError, match=r"prompts.jsonl, line 1 is damaged"):
        reports.build_report(geneval)
    (geneval / "prompts.jsonl").unlink()
    with pytest.raises(UserError, match=r"has no prompts.jsonl: run the job 'suite' first"):
        reports.build_report(geneval)


def test_table_5_is_consistent():
    """Its overall score is the mean of the six tasks, to the rounding of its two decimals."""
    for row in suites_paper.TABLE_5.values():
        assert row.overall == pytest.approx(np.mean(row[1:]), abs=0.011)
    assert suites_paper.Scores._fields[1:] == tuple(find_suite_tasks())


def find_suite_tasks():
    from rfjax.evaluation.suites.geneval import TASKS

    return TASKS


def test_differences_from_the_protocol_are_said():
    same = {"prompts": 553, "per_prompt": 4, **SAMPLING}
    assert len(suites_paper.differences(same, 1024)) == 1  # the seed of each prompt
    other = " ".join(suites_paper.differences(same | {"steps": 28, "guidance": 7.0, "per_prompt": 1}, 256))
    for words in ("of 4 pictures; here are 553 of 1", "took euler in 28 steps at guidance 7", "256 pixels wide"):
        assert words in other
    assert "not drawn here" in suites_paper.differences({"prompts": 553, "per_prompt": 4}, None)[-1]
    assert suites_findings.GENEVAL == "geneval"
