"""The report `transfer` of a folder that nobody trained."""

import csv
import json

import pytest
from synthetic import begin, by_level, write_run
from tiny import tiny

from rfjax import config as configs
from rfjax.study import records
from rfjax.study.reports import build_report, summary, write_page
from rfjax.study.reports.transfer_findings import analyse

RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
MOVES = {"standard": -1.0, "completep": 0.0}  # of the best rate, in powers of two a doubling


@pytest.fixture
def folder(tmp_path):
    c = tiny()
    c.workdir = str(tmp_path)
    axes = {"training.seed": (0, 1), "model.parameterisation": tuple(MOVES), "model.depth": (1, 2, 4)}
    configs.axes(c, {**axes, "optimizer.learning_rate": RATES})
    for name, config in begin(tmp_path, c, report="transfer"):
        depth, rate, seed = config.model.depth, config.optimizer.learning_rate, config.training.seed
        best = 4e-3 * depth ** MOVES[config.model.parameterisation] * (1 + 0.05 * seed)
        loss = 0.4 / depth + 0.02 * abs(rate / best - best / rate)
        size = dict.fromkeys(("parameters", "without_modulation", "active_per_token"), 10**4 * depth)
        size |= {"forward_flops": 10**6, "train_flops": 3 * 10**6}
        done = {"step": 8, "examples": 64, "flops": 10**9, "seconds": 1.0}
        lines = [{"kind": "start", "step": 0, "size": size, "steps": 8, "device": "cpu"}]
        lines += [
            {"kind": "validation", **done, "weights": w, "grid": "k/8", "loss": loss, "stderr": 0.01, **by_level(loss)}
            for w in ("raw", "ema")
        ]
        write_run(tmp_path, name, config, lines)
    return tmp_path


def test_the_page_says_which_moves_least(folder):
    built = build_report(folder)
    page = write_page(built).read_text()
    assert "Over depth 1 to 4, width with it, the best learning rate moves least with completep" in page
    said = json.loads((folder / "report" / "transfer.json").read_text())["parameterisations"]
    assert abs(said["completep"]["slope_per_doubling"]["value"]) < 0.1
    assert -1.2 < said["standard"]["slope_per_doubling"]["value"] < -0.6
    assert said["standard"]["penalty"]["value"] > 10 * said["completep"]["penalty"]["value"]
    rows = list(csv.DictReader((folder / "report" / "best_rates.csv").open()))
    assert len(rows) == 2 * 2 * 3 and (folder / "report" / "rates.png").exists()
    assert "moves least with completep" in summary(built, folder)


def test_what_is_missing_at_the_edge_and_diverged_is_told(folder):
    names = json.loads((folder / "study.json").read_text())["runs"]
    for name in names:
        if "d4" in name and "standard" in name and "lr0.001-" in name:
            (folder / "runs" / name / "failure.txt").write_text("the loss is nan\n")
            metrics = folder / "runs" / name / "metrics.jsonl"
            metrics.write_text("\n".join(metrics.read_text().splitlines()[:1]) + "\n")
    found = analyse(records.read(folder))
    assert found.found["standard"].diverged == 2
    assert any("2 runs diverged" in sentence for sentence in found.warnings)
    assert any("edge of the sweep at depth 4" in sentence for sentence in found.warnings)
