"""The report of captions, on studies whose differences are known."""

import csv
import json
from pathlib import Path

import numpy as np
import pages
import pytest
from scipy import stats
from synthetic import STEPS, begin, change_lines, finished, score_line, write_run
from tiny import tiny

from rfjax import config as configs
from rfjax import main
from rfjax.data.wording import SKILLS
from rfjax.study import records, reports
from rfjax.study.reports import captions, paper

CONFIG = Path(__file__).parents[3] / "configs" / "captions.py"
SHARES = {"data.synthetic_share": (0.0, 0.5)}
NOISE = {0: 0.01, 1: -0.02, 2: 0.03}


def write(folder, axes=SHARES, seeds=(0, 1, 2), groups=("",), higher=0.2):
    """Skill k of the first arm has 0.1 k + noise, of the second `higher` more, and 0.01 more with each seed."""
    c = tiny()
    c.workdir = str(folder)
    c.data.alt_text = 0.5
    c.training.update(steps=STEPS, batch=8)
    c.sampling.settings = ("10@3.0",)
    configs.axes(c, {**axes, "training.seed": seeds})
    ((axis, values),) = axes.items()
    section, key = axis.split(".")
    for name, config in begin(folder, c, "captions"):
        seed, second = config.training.seed, getattr(getattr(config, section), key) == values[1]
        more = NOISE[seed] + (higher + 0.01 * seed if second else 0)
        parts = {skill + group: 0.1 * k + more for group in groups for k, skill in enumerate(SKILLS)}
        lines = finished()
        if second:
            lines[1] |= {"captions_synthetic": 150 + seed, "captions_original": 170 - seed}
        for weights in ("raw", "ema"):
            score = float(np.mean([*parts.values()]))
            lines.append(score_line(weights, 10, 3.0, score, 0.5 - more, parts=parts))
        write_run(folder, name, config, lines)
    return folder


def find(folder):
    return captions.analyse(records.read(folder))


def test_differences_are_paired_by_seed(tmp_path):
    found = find(write(tmp_path / "s"))
    assert [arm.label for arm in found.arms] == ["alt text", "50 % alt text, 50 % whole captions"]
    assert [row.label for row in found.rows] == ["overall", *SKILLS, "Fréchet distance", "validation loss"]
    ((first, second),) = found.pairs
    each = 0.2 + 0.01 * np.arange(3)
    half = stats.t.ppf(0.975, 2) * each.std(ddof=1) / np.sqrt(3)  # far narrower than the noise between the seeds
    for key in ("overall", "part counting"):
        less = second.less(first, key)
        assert less == pytest.approx((each.mean(), each.mean() - half, each.mean() + half))
    assert first.mean("part position").value == pytest.approx(0.4 + np.mean([*NOISE.values()]))
    assert (first.counts, second.counts) == (None, (453, 507))


def test_differences_that_do_not_vary_have_no_interval(tmp_path):
    found = find(write(tmp_path / "s"))
    ((first, second),) = found.pairs
    assert second.less(first, "loss") == (0, None, None)


def test_the_page_stands_beside_the_paper(tmp_path):
    folder = write(tmp_path / "s")
    built = reports.build_report(folder)
    page = reports.write_page(built).read_text()
    pages.check(page)
    assert "<div class='verdict good'>" in page and set(built.figures) == {"skills"}
    assert "+21.0 points (95 % +18.5 to +23.5), 46.7 % from 25.7 %; 3 paired seeds." in page
    assert "In the paper: +6.5 points, 49.78 % from 43.27 %" in page
    assert "<td>position</td>" in page and "<td>6.50</td><td>18.00</td><td>+11.50</td>" in page
    assert "<td>453</td><td>507</td><td>0.472</td>" in page
    rows = list(csv.DictReader((folder / "report" / "scores.csv").open()))
    assert len(rows) == 6 and float(rows[5]["part colours"]) == pytest.approx(0.3 + 0.03 + 0.22)
    plain = json.loads((folder / "report" / "captions.json").read_text())
    assert plain["arms"][1]["less_first"]["overall"]["value"] == pytest.approx(0.21)
    assert plain["paper"]["overall"] == [43.27, 49.78]
    assert "Clearly higher with 50 %" in reports.summary(built, folder)


@pytest.mark.parametrize(("higher", "box"), [(-0.2, "bad"), (-0.01, "open")])
def test_the_box_says_what_the_interval_says(tmp_path, higher, box):
    page = reports.write_page(reports.build_report(write(tmp_path / "s", higher=higher))).read_text()
    assert f"<div class='verdict {box}'>" in page
    assert ("Clearly lower with" in page) == (box == "bad")


def test_other_words_have_an_overall_score_of_their_own(tmp_path):
    axes = {"text.encoder": ("words", "sentence")}
    folder = write(tmp_path / "s", axes=axes, groups=("", ", other words"))
    found = find(folder)
    assert [arm.label for arm in found.arms] == ["encoder words", "encoder sentence"]
    assert [row.key for row in found.overall] == ["overall", "overall, other words"]
    assert not found.table_4 and all(row.paper is None for row in found.rows)
    page = reports.write_page(reports.build_report(folder)).read_text()
    pages.check(page)
    assert "Overall, other words score, encoder sentence against encoder words: +21.0 points" in page
    assert "In the paper" not in page


def test_what_is_missing_is_said(tmp_path):
    folder = write(tmp_path / "s")
    change_lines(folder, "synthetic_share=0-seed1", lambda line: None if line["kind"] == "validation" else line)
    found = find(folder)
    assert any("different seeds (alt text: 0, 2; 50 % alt text" in sentence for sentence in found.warnings)
    ((first, second),) = found.pairs
    assert second.less(first, "overall").value == pytest.approx(0.21)  # of seeds 0 and 2
    pages.check(reports.write_page(reports.build_report(folder)).read_text())
    alone = write(tmp_path / "one", seeds=(0,))
    assert any(sentence.startswith("One seed") for sentence in find(alone).warnings)
    change_lines(alone, "synthetic_share=0-seed0", lambda line: None if line["kind"] == "scores" else line)
    page = reports.write_page(reports.build_report(alone)).read_text()
    pages.check(page)
    assert "there is nothing to compare" in page


def test_the_study_s_runs_differ_in_captions_alone():
    runs = [run for _, run in configs.runs(main.read_flags([f"--config={CONFIG}"]))]
    assert len(runs) == 10
    for first, second in zip(runs[:5], runs[5:], strict=True):
        changed = configs.differences(first.to_dict(), second.to_dict())
        assert [sentence.split()[0] for sentence in changed] == ["data.synthetic_share"]


def test_the_paper_s_table_is_the_one_of_the_facts():
    """Table 4, typed a second time; the overall score is the mean of the six skills."""
    original, mixed = zip(*(paper.TABLE_4[skill] for skill in SKILLS), strict=True)
    assert original == (95.00, 41.41, 33.44, 71.54, 6.50, 11.75) and mixed == (93.75, 52.53, 41.56, 68.09, 18.00, 24.75)
    assert np.mean(original) == pytest.approx(paper.TABLE_4["overall"][0], abs=0.01)
    assert np.mean(mixed) == pytest.approx(paper.TABLE_4["overall"][1], abs=0.01)
