import json
import math
import time

import pytest

from rfjax.training.logs import Clock, Metrics, read_lines, write_json


def test_lines_are_strict_json_and_survive_a_cut(tmp_path):
    metrics = Metrics(tmp_path, active=True)
    metrics.write("train", 1, loss=0.5, grad_norm=math.inf)
    metrics.close()
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"kind": "tra')
    metrics = Metrics(tmp_path, active=True, start=1)
    metrics.write("train", 2, loss=float("nan"))
    metrics.close()
    lines, skipped = read_lines(path)
    assert lines == [
        {"kind": "train", "step": 1, "loss": 0.5, "grad_norm": None},
        {"kind": "train", "step": 2, "loss": None},
    ]
    assert skipped == 1


def test_other_processes_write_nothing(tmp_path):
    metrics = Metrics(tmp_path / "run", active=False)
    metrics.write("train", 1, loss=0.5)
    metrics.close()
    assert not (tmp_path / "run").exists()


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "a" / "result.json", {"x": 1, "y": (float("nan"),)})
    assert json.loads((tmp_path / "a" / "result.json").read_text()) == {"x": 1, "y": [None]}
    with pytest.raises(TypeError):
        write_json(tmp_path / "a" / "result.json", {"x": object()})
    assert json.loads((tmp_path / "a" / "result.json").read_text())["x"] == 1
    assert len(list((tmp_path / "a").iterdir())) == 1


def test_inner_activities_pause_outer_ones():
    clock = Clock()
    start = time.perf_counter()
    with clock("training"):
        time.sleep(0.02)
        with clock("data"):
            time.sleep(0.03)
        time.sleep(0.02)
    charged, whole = sum(clock.total().values()), time.perf_counter() - start
    assert clock.seconds["data"] >= 0.03
    assert clock.seconds["training"] >= 0.04
    assert clock.seconds["training"] <= whole - 0.03  # what was inside is not charged twice
    assert charged <= whole
