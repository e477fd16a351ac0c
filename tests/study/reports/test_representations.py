"""The report of hidden states, from lines that tell a known story."""

import csv
import json
import math

import pages
import pytest
from synthetic import begin, change_lines, write_run
from tiny import tiny

from rfjax import config as configs
from rfjax.analysis.binomial import share_interval
from rfjax.study import records, reports
from rfjax.study.reports import representations as report

DEPTH, STEPS = 6, (0, 100, 200)
SIZE = {"parameters": 10, "without_modulation": 10, "active_per_token": 10, "forward_flops": 2, "train_flops": 6}
ENCODERS = ("shapes", "vision@/some/folder/dinov2")


def values(weight, t, step, encoder=0):
    """CKNNA rises with steps, falls with noise, and peaks at block 4; aligned runs peak at block 2, and higher."""
    peak = 2 if weight else 4
    top = (0.2 + 0.3 * weight) * step / 200 * (1 - t) / (1 + encoder)
    return [top / (1 + abs(block - peak)) for block in range(1, DEPTH + 1)]


def line(weight, t, step):
    found = {name: values(weight, t, step, i) for i, name in enumerate(ENCODERS)}
    return {
        "kind": "representations", "step": step, "examples": 8 * step, "flops": 48 * step, "weights": "ema",
        "setting": f"t={t:g}", "t": t, "count": 400, "k": 10, "variant": "reference", "cknna": found,
        "probe": "logistic", "accuracy": [0.25 + value for value in values(weight, t, step)], "classes": 32,
        "trained_on": 1000,
    }  # fmt: skip


@pytest.fixture
def study(tmp_path):
    c = tiny()
    c.workdir = str(tmp_path)
    c.model.update(depth=DEPTH, width_per_depth=8)
    c.alignment.update(encoders=("shapes",))
    configs.axes(c, {"alignment.weight": (0.0, 0.5)})
    for name, config in begin(tmp_path, c, report="representations"):
        lines = [{"kind": "start", "step": 0, "size": SIZE, "steps": 200, "device": "cpu"}]
        lines += [line(config.alignment.weight, t, step) for step in STEPS for t in (0.0, 0.5)]
        write_run(tmp_path, name, config, lines)
        (tmp_path / "runs" / name / "result.json").write_text(json.dumps({"status": "complete"}))
    return tmp_path


def built(folder):
    made = reports.build_report(folder)
    path = reports.write_page(made)
    pages.check(path.read_text())
    return made, path.read_text(), reports.summary(made, path)


def test_each_quantity_has_its_best_block_and_the_aligned_one(study):
    made, page, said = built(study)
    found = made.findings
    assert found.quantities == (*ENCODERS, report.PROBE) and found.levels == (0.0, 0.5)
    assert found.chance == 1 / 32 and found.warnings == ()
    by_run = {curve.run: curve for curve in found.of("shapes", 0.0)}
    assert {name: (c.best, c.block, c.aligned, c.steps) for name, c in by_run.items()} == {
        "weight=0": (4, 2, False, STEPS),  # followed where the run of the same depth is aligned
        "weight=0.5": (2, 2, True, STEPS),
    }
    assert "CKNNA with shapes is highest in weight=0.5, after block 2 of 6 at t = 0: 0.350." in page
    assert "CKNNA with dinov2" in page and "Probe accuracy is highest in weight=0.5" in page
    assert "weight=0  t = 0     CKNNA with shapes: 0.200 at block 4, 0.067 at block 2" in said
    low, high = share_interval(0.6, 400)
    assert f"60.0 % [{100 * low:.1f}, {100 * high:.1f}]" in page
    assert set(made.figures) == {f"{name}_{x}" for name in ("cknna_1", "cknna_2", "probe") for x in ("blocks", "steps")}


def test_the_table_holds_every_value(study):
    built(study)
    with (study / "report" / "representations.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3 * 2 * len(STEPS) * DEPTH
    row = rows[[(r["run"], r["quantity"], r["t"], r["step"], r["block"]) for r in rows].index(
        ("weight=0.5", "shapes", "0.5", "200", "2"))]  # fmt: skip
    assert float(row["value"]) == pytest.approx(values(0.5, 0.5, 200)[1]) and row["low"] == ""
    plain = json.loads((study / "report" / "representations.json").read_text())
    assert len(plain["curves"]) == 12 and plain["curves"][0]["values"]["200"] == values(0.0, 0.0, 200)


def test_without_alignment_each_run_is_followed_at_its_own_best(study):
    for name in ("weight=0", "weight=0.5"):
        path = study / "runs" / name / "config.json"
        plain = json.loads(path.read_text())
        plain["alignment"]["encoders"] = []
        path.write_text(json.dumps(plain))
    found = report.analyse(records.read(study))
    assert {(c.run, c.block, c.aligned) for c in found.of("shapes", 0.5)} == {
        ("weight=0", 4, False), ("weight=0.5", 2, False)
    }  # fmt: skip


def test_values_that_are_not_there_are_dashes(study):
    def spoil(one):
        if one["kind"] != "representations":
            return one
        if one["step"] == 200:
            one["cknna"]["shapes"] = ["NaN"] * DEPTH
            one["cknna"][ENCODERS[1]] = [0.5]  # of another network
            one["accuracy"] = ["NaN"] * DEPTH
        return {**one, "t": "much"} if one["step"] == 100 else one

    change_lines(study, "weight=0.5", spoil)
    made, page, _ = built(study)
    own = [curve for curve in made.findings.curves if curve.run == "weight=0.5"]
    assert {(curve.quantity, curve.steps) for curve in own} == {
        ("shapes", (0, 200)), (ENCODERS[1], (0,)), (report.PROBE, (0, 200))
    }  # fmt: skip
    assert "2 line(s) of metrics.jsonl were cut short or spoilt" in page and "not known" in page


def test_a_study_that_measured_nothing_yet_says_so(study):
    for name in ("weight=0", "weight=0.5"):
        change_lines(study, name, lambda one: one if one["kind"] != "representations" else None)
    made, page, _ = built(study)
    assert "Nothing is measured yet." in page and not made.figures


def test_several_ways_of_measuring_are_named(study):
    change_lines(study, "weight=0", lambda one: {**one, "k": 5} if one["kind"] == "representations" else one)
    (warning,) = report.analyse(records.read(study)).warnings
    assert warning.startswith("Lines were measured in several ways: 400 validation pictures; CKNNA of 10 neighbours")


def test_it_reads_lines_alone_and_the_run_keeps_other_reports_whole(study):
    (first, _) = records.read(study).runs
    assert [one["t"] for one in first.representations] == [0.0, 0.5] * 3


@pytest.mark.parametrize(("share", "count", "wanted"), [(0.5, 100, (0.4038, 0.5962)), (0.0, 50, (0.0, 0.0713))])
def test_the_interval_is_wilson_s(share, count, wanted):
    z = 1.959964
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    assert share_interval(share, count) == pytest.approx((middle - half, middle + half), abs=1e-6)
    assert share_interval(share, count) == pytest.approx(wanted, abs=1e-4)
    assert all(map(math.isnan, share_interval(math.nan, count)))
