"""Two processes draw and measure a run's pictures together and are killed on the way, against one process alone."""

import json

import pytest
from local_jobs import BATCHES, COUNT, digits_run, finish, kill_when, start

SETTINGS = {
    "evaluate.reference_count": 40,
    "sampling.metrics": "('own','toy_embedder:FD')",
    "sampling.settings": "('2@1.0',)",
    "archive.labels": "balanced",
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return digits_run(tmp_path_factory.mktemp("source") / "digits")


def begin(folder, run, processes, devices):
    flags = SETTINGS | {"evaluate.source": run}
    words = [f"--config.{name}={value}" for name, value in flags.items()]
    return start(folder, run, processes, devices, "evaluate", words)


def record(folder):
    (path,) = (folder / "sets").glob("*/metrics.json")
    found = json.loads(path.read_text())
    return {key: found[key] for key in ("name", "count", "scores", "protocols", "captions")}


def test_two_processes_that_are_killed_find_what_one_finds(source, tmp_path):
    whole = tmp_path / "whole"
    finish(begin(whole, source, 1, 4))
    folder = tmp_path / "killed"
    place = folder / "sets" / f"{source.name}_step1_ema_2@1.0"
    kill_when(begin(folder, source, 2, 2), place / "parts" / "000004.npz")
    assert 5 <= len(list((place / "parts").glob("*.npz"))) < BATCHES
    assert not (place / "metrics.json").exists()
    finish(begin(folder, source, 2, 2))
    found, expected = record(folder), record(whole)
    assert found["count"] == COUNT
    assert {name: value for name, value in found.items() if name != "scores"} == {
        name: value for name, value in expected.items() if name != "scores"
    }
    for name, value in expected["scores"].items():
        assert found["scores"][name] == (pytest.approx(value, rel=1e-5) if isinstance(value, float) else value)
    assert (folder / "report" / "index.html").is_file()
