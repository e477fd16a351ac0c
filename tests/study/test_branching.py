"""A study whose runs branch: trunks first, several jobs, refusals, and L(N, D) from the branches' ends."""

import time

import pytest
from synthetic import STEPS, change_lines, write_study
from tiny import run_job

from rfjax import config as configs
from rfjax.errors import Exit, UserError
from rfjax.jsonl import write_json
from rfjax.study import locks, records, runner
from rfjax.study.reports import scaling, scaling_findings
from rfjax.training import loop
from rfjax.training.checkpoint_files import is_finished

RESULT = {"status": "complete", "validation": {}, "size": {"parameters": 1}, "split_seconds": {}}


def branched(c, **axes):
    c.optimizer.update(decay="wsd", decay_share=0.2)
    c.study.branches = True
    c.training.steps = 40
    configs.axes(c, {"model.depth": (1, 2), "training.steps": (20, 40)} | axes)
    return configs.parse(c)


@pytest.fixture
def trained(monkeypatch):
    """Training that takes no time: the names of what was trained."""
    names = []

    def train(run, display, stop):
        names.append(run.name)
        write_json(run.folder / "result.json", RESULT)
        return RESULT

    monkeypatch.setattr(loop, "train", train)
    return names


def test_trunks_come_before_their_branches_and_keep_what_these_need(tiny_config, tmp_path, trained):
    config = branched(tiny_config)
    made = {run.name: run for run in runner.make_runs(config)}
    assert made["d1-steps20"].trunk == tmp_path / "study" / "runs" / "d1-steps40"
    assert made["d1-steps20"].first == 16
    assert made["d1-steps40"].trunk is None
    assert (made["d1-steps40"].first, made["d1-steps40"].kept) == (0, (16,))
    assert run_job(runner, config, time.time()) == Exit.DONE
    assert trained == ["d1-steps40", "d2-steps40", "d1-steps20", "d2-steps20"]


def test_a_branch_waits_for_the_trunk_that_another_job_trains(tiny_config, tmp_path, trained, capsys):
    config, trunk = branched(tiny_config), tmp_path / "study" / "runs" / "d1-steps40"
    trunk.mkdir(parents=True)
    with locks.take(trunk, 5.0):
        assert run_job(runner, config, time.time()) == Exit.DONE
        said = capsys.readouterr().out
        assert "d1-steps20 (begins with step 16 of d1-steps40, which is not trained yet)" in said
        assert trained == ["d2-steps40", "d2-steps20"]
        tiny_config.only = "d1-steps20"
        with pytest.raises(UserError, match="d1-steps20 begins with step 16 of d1-steps40, which is not trained yet: "):
            run_job(runner, configs.parse(tiny_config), time.time())
        (trunk / "checkpoints" / "16" / "run").mkdir(parents=True)  # as soon as the other job has come so far
        (trunk / "checkpoints" / "16" / "_CHECKPOINT_METADATA").write_text("{}")
        assert is_finished(trunk / "checkpoints" / "16")
        assert run_job(runner, config, time.time()) == Exit.DONE
    assert trained == ["d2-steps40", "d2-steps20", "d1-steps20"]


def test_branches_join_runs_that_differ_in_their_steps_alone(tiny_config):
    config = branched(tiny_config, **{"training.seed": (0, 1), "training.steps": (20, 40, 30)})
    found = configs.branches(configs.runs(config))
    assert len(found) == 2 * 2 * 2
    assert found["d2-seed1-steps30"] == configs.Branch("d2-seed1-steps40", 24)
    tiny_config.study.branches = False
    assert configs.branches(configs.runs(configs.parse(tiny_config))) == {}


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("optimizer", {"decay": "cosine"}, "config.study.branches needs config.optimizer.decay = 'wsd', not 'cosine'"),
        ("training", {"select": "best"}, "config.study.branches works with config.training.select = 'last'"),
        ("optimizer", {"warmup": 17}, "would start at step 16 of config.training.steps = 20, before the warm-up ends"),
        ("optimizer", {"decay_share": 1.0}, "would start at step 0"),
        ("study", {"axes": {"model": {"depth": (1, 2)}}}, "config.study.branches needs runs that differ in their num"),
    ],
)
def test_what_can_not_branch_is_refused(tiny_config, section, values, words):
    branched(tiny_config)
    if section == "study":
        with tiny_config.unlocked():
            tiny_config.study.axes = values["axes"]
    else:
        tiny_config[section].update(values)
    with pytest.raises(UserError, match=words):
        configs.parse(tiny_config)


BUDGETS = (8, 16, 24, 32, STEPS)


def write_branched(folder):
    """A study of branches that end on the surface E + A N^-0.5 + 20 D^-1.5, less a constant."""
    write_study(folder, axes={"model.depth": (1, 2, 3, 4, 5, 6), "training.steps": BUDGETS})
    for name in records.read_study(folder)["runs"]:
        depth, steps = name.split("-steps")
        first = 0 if int(steps) == STEPS else int(steps) * 3 // 4
        own = {"trunk": f"{depth}-steps{STEPS}", "trunk_step": first} if first else {}

        def change(line, steps=int(steps), first=first, own=own):
            if line["kind"] == "start":
                return line | {"steps": steps} | own
            if line["kind"] == "examples":
                return line | {"step": steps}
            return line if first <= line["step"] <= steps else None

        change_lines(folder, name, change)
    return folder


def test_the_surface_takes_the_ends_of_the_branches_and_says_what_they_saved(tmp_path):
    found = scaling_findings.analyse(records.read(write_branched(tmp_path / "s")))
    assert found.surface.fit is None  # not asked for
    folder = write_branched(tmp_path / "t")
    study = records.read(folder)
    study.study["config"]["study"]["surface"] = True
    found = scaling_findings.analyse(study)
    assert [rung.name for rung in found.trend.rungs] == [f"d{d}-steps{STEPS}" for d in range(1, 7)]
    fit = found.surface.fit
    assert len(fit.points) == 5 * len(BUDGETS)  # the largest rung is held out
    assert {point.inputs[1] for point in fit.points} == {8.0 * steps for steps in BUDGETS}
    assert fit.parameters["alpha"] == pytest.approx(0.5, abs=0.01)
    assert fit.parameters["beta"] == pytest.approx(1.5, abs=0.01)
    assert found.surface.cuts
    share = (STEPS + sum(steps - steps * 3 // 4 for steps in BUDGETS[:-1])) / sum(BUDGETS)
    assert "Trunks (6) and branches (24) took" in found.on_branches
    assert f"{share:.2f} of what these runs would take trained apart" in found.on_branches
    assert found.on_branches in scaling.lines(study, found)
    assert "Its points are the ends of trunks and branches" in "".join(scaling.sections(study, found))
