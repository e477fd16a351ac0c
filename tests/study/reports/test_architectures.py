import csv
import json
import math

import numpy as np
import pages
import pytest
from synthetic import COST, PACE, write_architectures

from rfjax.study import records, reports
from rfjax.study.reports import architectures, paper


def find(folder):
    return architectures.analyse(records.read(folder))


def page_of(drawn):
    page = reports.write_page(drawn).read_text()
    pages.check(page)
    return page


def change(folder, name, edit):
    """Rewrites a run's lines; edit(line) gives a line or None."""
    path = folder / "runs" / name / "metrics.jsonl"
    lines = [edit(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text("\n".join(json.dumps(line) for line in lines if line) + "\n")


def test_the_multipliers_are_those_that_the_curves_were_made_with(tmp_path):
    found = find(write_architectures(tmp_path / "s", luck=0.0))
    for (row, column), m in found.race.multipliers["steps"].items():
        assert m.seeds == (0, 1, 2)
        # The bound of test_multipliers, h^2/8 a E / L: from step 12 on log x goes in steps of log(16 / 12) at most, and
        # L is above 0.29, so a straight line misses log x by less than 0.0036.
        assert abs(math.log(m.at_end.value / (PACE[row] / PACE[column]))) < 0.0036
        flops, factor = found.race.multipliers["flops"][row, column], COST[column] / COST[row]
        assert flops.at_end.value == pytest.approx(m.at_end.value * factor)
        assert flops.overall.value == pytest.approx(m.overall.value * factor)
        assert flops.at_end.value * found.race.multipliers["flops"][column, row].at_end.value == pytest.approx(1)
    assert found.race.ranked == tuple(reversed(paper.FIG_4))
    assert found.race.cheapest == ("mmdit", "mmdit3")  # the third set of weights costs more than it gives
    assert (found.race.beginning.step, found.race.beginning.steps) == (8, 40)
    assert list(found.race.beginning.losses) == list(reversed(paper.FIG_4))
    assert found.warnings == ()


def test_the_order_of_the_paper(tmp_path):
    found = find(write_architectures(tmp_path / "s"))
    assert list(found.race.entrants) == list(paper.FIG_4)
    assert {name: c.value for name, c in found.race.agreement.correlations.items()} == pytest.approx(
        {"Spearman": 1, "Kendall": 1}
    )
    assert found.race.agreement.orders_as_good == (1, 120)
    assert found.race.agreement.places["mmdit3"] == (1, 1)
    swapped = find(write_architectures(tmp_path / "t", PACE | {"mmdit": 2.9}, luck=0.0)).race.agreement
    assert swapped.correlations["Kendall"].value == pytest.approx(0.8)
    assert swapped.orders_as_good == (
        5,
        120,
    )  # the paper's own order, and four that swap one pair of neighbours
    reverse = {name: 1 / value for name, value in PACE.items()}
    assert find(write_architectures(tmp_path / "u", reverse, luck=0.0)).race.agreement.orders_as_good == (120, 120)


def test_the_page(tmp_path):
    folder = write_architectures(tmp_path / "s", samples=True)
    drawn = reports.build_report(folder)
    page = page_of(drawn)
    assert "<b>MM-DiT, 3 sets ends with the lowest validation loss, 0.29" in page
    assert "(95 % interval 0.29" in page
    assert "MM-DiT clearly needs the fewest FLOPs: " in page
    assert "Early, at step 8 of 40, MM-DiT, 3 sets leads" in page
    assert "in the paper: DiT &gt; UViT &gt; CrossDiT &gt; MM-DiT &gt; MM-DiT, 3 sets. Spearman +1.00" in page
    assert "of their 120 orders 1 agrees" in page
    assert page.count("data:image/png;base64,") == (1 + 5) * 4  # one seed of each
    assert set(drawn.figures) == {"curves"}
    assert drawn.figures["curves"][2]  # wide
    assert (folder / "report" / "curves.png").stat().st_size > 20_000
    fits = json.loads((folder / "report" / "fits.json").read_text())
    assert len(fits["multipliers"]) == 2 * 5 * 4
    assert fits["ranked"] == list(reversed(paper.FIG_4))
    with (folder / "report" / "multipliers.csv").open() as file:
        rows = {(row["of"], row["row"], row["column"]): row for row in csv.DictReader(file)}
    first = next(m for m in fits["multipliers"] if (m["of"], m["row"], m["column"]) == ("flops", "mmdit", "dit"))
    assert float(rows["flops", "mmdit", "dit"]["multiplier"]) == first["at_end"]["value"]
    assert first["at_end"]["low"] < first["at_end"]["value"] < first["at_end"]["high"]
    with (folder / "report" / "curves.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 15 * 10
    text = reports.summary(drawn, folder)
    assert "warning" not in text
    assert "how many times fewer FLOPs" in text


def test_missing_failed_and_unfinished_runs(tmp_path):
    folder = write_architectures(tmp_path / "s")
    (folder / "runs" / "dit-seed1" / "metrics.jsonl").unlink()
    change(folder, "uvit-seed2", lambda line: line if line["step"] <= 20 else None)
    for seed in range(3):
        (folder / "runs" / f"mmdit3-seed{seed}" / "metrics.jsonl").unlink()
    (folder / "runs" / "mmdit3-seed0" / "failure.txt").write_text("the device has no memory left\n")
    drawn = reports.build_report(folder)
    page = page_of(drawn)
    text = " ".join(drawn.findings.warnings)
    assert "mmdit3-seed0 failed: the device has no memory left" in text
    assert "uvit-seed2 is not finished (at step 20 of 40)" in text
    assert "not started yet: dit-seed1, mmdit3-seed1, mmdit3-seed2." in text
    assert "different seeds (DiT: 0, 2; UViT: 0, 1; CrossDiT: 0, 1, 2; MM-DiT: 0, 1, 2)" in text
    assert drawn.findings.race.ranked == ("mmdit", "crossdit", "uvit", "dit")
    assert drawn.findings.race.multipliers["flops"]["dit", "uvit"].seeds == (0,)
    assert "One seed: no interval." in page
    assert len(drawn.findings.race.entrants["uvit"].runs) == 3
    assert "2 of 3" in page


def test_one_seed_has_no_intervals(tmp_path):
    found = find(write_architectures(tmp_path / "s", seeds=(0,)))
    assert any(w.startswith("One seed: nothing tells luck from rule") for w in found.warnings)
    said = " ".join(architectures.describe(found))
    assert "(one seed) before MM-DiT: 0.0" in said
    assert "MM-DiT needs the fewest FLOPs: 1.1" in said
    assert all(m.at_end.low is None for table in found.race.multipliers.values() for m in table.values())


def test_without_scores_there_is_the_loss_alone(tmp_path):
    folder = write_architectures(tmp_path / "s", scores=False)
    drawn = reports.build_report(folder)
    page = page_of(drawn)
    assert "No scores: nothing was drawn" in page
    assert "Fréchet distance</th>" not in page
    assert drawn.findings.setting == ""
    assert drawn.findings.warnings == ()


def test_losses_that_are_not_finite(tmp_path):
    folder = write_architectures(tmp_path / "s")
    broken = {"loss": None, "score": None, "frechet": None}
    ema = lambda line: line.get("weights") == "ema"  # noqa: E731
    change(folder, "dit-seed0", lambda line: line | broken if ema(line) and line["step"] == 40 else line)
    change(folder, "uvit-seed0", lambda line: line | {"loss": None} if ema(line) and line["step"] == 12 else line)
    problem = {"score": None, "frechet": None, "problem": "3 of 64 pictures are not finite"}
    scores = lambda line: line["kind"] == "scores" and line["step"] == 40  # noqa: E731
    change(folder, "mmdit-seed1", lambda line: line | problem if scores(line) else line)
    drawn = reports.build_report(folder)
    page_of(drawn)
    text = " ".join(drawn.findings.warnings)
    assert (
        "dit-seed0 failed: the validation loss is not finite (NaN with ema weights at step 40): it is no part" in text
    )
    assert "uvit-seed0: the validation loss of step 12 is not finite" in text
    assert "mmdit-seed1 at step 40: 3 of 64 pictures are not finite." in text
    found = drawn.findings
    assert [run.seed for run in found.race.entrants["dit"].complete] == [1, 2]
    assert [p["step"] for p in found.race.entrants["uvit"].runs[0].points] == [4, 8, 16, 20, 24, 28, 32, 36, 40]
    ends = [run.final["score"] for run in found.race.entrants["mmdit"].runs]
    assert math.isnan(ends[1])
    assert found.race.entrants["mmdit"].final["score"].value == pytest.approx(np.mean([ends[0], ends[2]]))


def test_no_common_loss_is_said_and_is_no_number(tmp_path):
    pace = {"dit": 1.0, "crossdit": 1.5, "mmdit": 30.0}  # at its first checkpoint already where DiT ends
    drawn = reports.build_report(write_architectures(tmp_path / "s", pace, scores=False))
    page = page_of(drawn)
    m = drawn.findings.race.multipliers["flops"]["mmdit", "dit"]
    assert (m.at_end, m.seeds) == (None, ())
    assert "<td>no common loss</td>" in page
    assert "No rank correlation with the paper: " in page
    fits = json.loads((tmp_path / "s" / "report" / "fits.json").read_text())
    assert [f["at_end"] for f in fits["multipliers"] if {f["row"], f["column"]} == {"mmdit", "dit"}] == [None] * 4


def test_unknown_backbones_keep_their_name_and_what_differs_is_told(tmp_path):
    pace = {"<mamba>": 2.0, "dit": 1.0, "mmdit": 2.4}
    folder = write_architectures(tmp_path / "s", pace, scores=False, optimizer={"decay": "cosine"})
    path = folder / "runs" / "mmdit-seed1" / "config.json"
    config = json.loads(path.read_text())
    config["optimizer"]["learning_rate"] *= 2
    path.write_text(json.dumps(config))
    drawn = reports.build_report(folder)
    page = page_of(drawn)
    assert "&lt;mamba&gt;" in page
    assert "<mamba>" not in page
    assert list(drawn.findings.race.entrants)[-1] == "<mamba>"
    assert "<mamba>" not in drawn.findings.race.agreement.places
    text = " ".join(drawn.findings.warnings)
    assert "differ in more than backbone and seed (optimizer.learning_rate)" in text
    assert "The learning rate decays (cosine)" in text


def test_nothing_yet(tmp_path):
    folder = write_architectures(tmp_path / "s", scores=False)
    for path in folder.glob("runs/*/metrics.jsonl"):
        change(folder, path.parent.name, lambda line: line if line["step"] <= 8 else None)
    drawn = reports.build_report(folder)
    assert "No backbone has a complete run" in page_of(drawn)
    assert set(drawn.figures) == {"curves"}
    for path in folder.glob("runs/*/metrics.jsonl"):
        path.unlink()
    drawn = reports.build_report(folder)
    assert "No backbone has a complete run" in page_of(drawn)
    assert drawn.figures == {}
    assert "not started yet: dit-seed0, " in reports.summary(drawn, folder)


def test_each_backbone_stands_at_the_rate_with_its_lowest_loss(tmp_path):
    """The runs of the seeds 0, 1 and 2 are given three rates, as of a study with one seed and three rates."""
    folder = write_architectures(tmp_path / "s", luck=0.0)
    known = json.loads((folder / "study.json").read_text())
    known["config"]["study"]["axes"] = {"optimizer.learning_rate": [0.01, 0.02, 0.04]}
    (folder / "study.json").write_text(json.dumps(known))
    for path in folder.glob("runs/*/config.json"):
        config = json.loads(path.read_text())
        seed, config["training"]["seed"] = config["training"]["seed"], 0
        config["optimizer"]["learning_rate"] = 0.01 * 2**seed
        path.write_text(json.dumps(config))
        if seed != 1:  # a worse loss at the other rates
            scale = lambda line: line | ({"loss": 1.1 * line["loss"]} if "loss" in line else {})  # noqa: E731
            change(folder, path.parent.name, scale)
    drawn = reports.build_report(folder)
    page = page_of(drawn)
    assert {sweep.best for sweep in drawn.findings.rates.choices} == {0.02}
    assert all(b.runs[0].name.endswith("seed1") and len(b.runs) == 1 for b in drawn.findings.race.entrants.values())
    assert "<h2>Learning rates</h2>" in page
    assert "learning_rate)" not in " ".join(drawn.findings.warnings)
    assert drawn.findings.race.ranked == tuple(reversed(paper.FIG_4))


@pytest.mark.parametrize(
    "case",
    [
        {"pace": {"mmdit": 2.4}, "seeds": (0,)},  # one backbone, one seed
        {"pace": {"dit": 1.0, "mmdit": 1.0}, "luck": 0.0},  # equal values
        {"scores": False, "validation": {"examples": 8}},
    ],
)
def test_a_page_can_be_made_of_little_and_of_equal_values(tmp_path, case):
    folder = write_architectures(tmp_path / "s", **case)
    if "validation" in case:  # one example a level has no standard error
        for path in folder.glob("runs/*/metrics.jsonl"):
            change(folder, path.parent.name, lambda line: line | ({"stderr": None} if "stderr" in line else {}))
    page = page_of(reports.build_report(folder))
    assert ("is not known" in page) == case.get("scores", True)  # the floor of distances, which these lines lack


def test_scores_that_are_not_finite_are_named_and_leave_the_loss_in_its_place(tmp_path):
    folder = write_architectures(tmp_path / "s")
    broken = {"score": None, "frechet": None, "problem": "3 of 128 pictures are not finite"}
    change(folder, "dit-seed1", lambda line: line | broken if line["kind"] == "scores" and line["step"] == 40 else line)
    drawn = reports.build_report(folder)
    page_of(drawn)
    assert "dit-seed1 at step 40: 3 of 128 pictures are not finite." in drawn.findings.warnings
    assert len(drawn.findings.race.entrants["dit"].complete) == 3
