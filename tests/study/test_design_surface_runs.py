"""A grid that goes on from its pilot trains what is not there, and no finished run again."""

import time

import pytest
from synthetic_surface import BUDGETS, asked, write_surface
from tiny import run_job

from rfjax import config as configs
from rfjax.errors import Exit
from rfjax.jsonl import write_json
from rfjax.study import records, runner
from rfjax.training import loop

RESULT = {"status": "complete", "validation": {}, "size": {"parameters": 1}, "split_seconds": {}}


@pytest.mark.job
def test_a_longer_budget_trains_new_trunks_and_keeps_the_pilots_runs_as_branches(tmp_path, monkeypatch):
    trained = []

    def train(run, display, stop):
        trained.append((run.name, run.trunk and run.trunk.name, run.first))
        write_json(run.folder / "result.json", RESULT)
        return RESULT

    monkeypatch.setattr(loop, "train", train)
    folder = write_surface(tmp_path / "work", depths=(1, 2, 3), seeds=(2, 1))
    there = records.read_study(folder)["runs"]
    for name in there:
        write_json(folder / "runs" / name / "result.json", RESULT)
    ladder = configs.parse(asked(folder, depths=(1, 2, 3), budgets=(*BUDGETS, 170), seeds=(3, 1), promise=0.1))
    assert run_job(runner, ladder, time.time()) == Exit.DONE
    names = [name for name, *_ in trained]
    trunks = ["d1-steps170-seed0", "d1-steps170-seed1", "d1-steps170-seed2", "d2-steps170-seed0", "d3-steps170-seed0"]
    assert names[:5] == trunks and not set(names) & set(there)
    branches = [(f"d1-steps{steps}-seed2", "d1-steps170-seed2", steps - steps // 5) for steps in BUDGETS]
    assert trained[5:] == branches
    assert set(there) <= set(records.read_study(folder)["runs"])
    trained.clear()
    assert run_job(runner, ladder, time.time()) == Exit.DONE
    assert not trained
