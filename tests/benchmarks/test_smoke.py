"""The programs of benchmarks/, which are run by hand: each imports and says how it is called; some work, made small."""

import functools
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import compile as compiling
from benchmarks import fit, page, race, study, versions

FOLDER = Path(__file__).parents[2] / "benchmarks"
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


@pytest.fixture
def shown(monkeypatch):
    """What a program put on the page: name -> lines."""
    found = {}
    monkeypatch.setattr(page, "show", lambda name, lines: found.update({name: list(lines)}))
    return found


def rows(lines):
    """The rows of Markdown's tables, as lists of cells, without heads and rules."""
    return [line.strip("| ").split(" | ") for line in lines if line.startswith("| ") and "---" not in line]


@pytest.mark.parametrize("name", MODULES)
def test_imports_without_the_peers_and_says_how_it_is_called(name, monkeypatch):
    for peer in ("torch", "diffusers", "safetensors"):
        monkeypatch.setitem(sys.modules, peer, None)  # importing it raises
    monkeypatch.delitem(sys.modules, f"benchmarks.{name}", raising=False)
    module = importlib.import_module(f"benchmarks.{name}")
    assert module.__doc__
    program = "__main__" in (FOLDER / f"{name}.py").read_text()
    assert not program or f"python -m benchmarks.{name}" in module.__doc__


def test_a_section_is_replaced_and_the_others_stay():
    before = "# A\n<!-- one -->\nold\n<!-- /one -->\nbetween\n<!-- two -->\n<!-- /two -->\nend\n"
    once = page.placed(before, "one", "new\n")
    assert once == before.replace("old\n", "new\n")
    assert page.placed(once, "one", "new\n") == once
    assert page.placed(before, "two", "more\n") == before.replace("<!-- two -->\n", "<!-- two -->\nmore\n")


@pytest.mark.parametrize("name", ["on", "three"])
def test_an_unknown_section_is_refused(name):
    with pytest.raises(ValueError, match=f"no section {name}"):
        page.placed("<!-- one -->\n<!-- /one -->\n", name, "new\n")


def test_the_page_has_a_section_for_each_of_these():
    text = page.PAGE.read_text()
    for name in ("train_step", "train_step_gpu", "changes", "sampling", "compile", "data", "study", "fit"):
        page.placed(text, name, "")


def test_only_record_writes_the_page(tmp_path, monkeypatch, capsys):
    file = tmp_path / "page.md"
    file.write_text("<!-- fit -->\n<!-- /fit -->\n")
    monkeypatch.setattr(sys, "argv", ["fit", "seeds=1"])
    page.show("fit", ["found"], file)
    assert "found" not in file.read_text()
    monkeypatch.setattr(sys, "argv", ["fit", "seeds=1", "--record"])
    page.show("fit", ["found"], file)
    assert "`python -m benchmarks.fit seeds=1`\n\nfound\n" in file.read_text()
    assert "found" in capsys.readouterr().out


def test_a_race_goes_on_without_who_fails_to_start():
    contenders = [
        race.Contender("steady", functools.partial, (float, "0.25")),  # its work returns 0.25
        race.Contender("broken", int, ("no number",)),
        race.Contender("told", functools.partial, (functools.partial(float, "0.5"),), {"TOLD": "yes"}),
    ]
    steady, broken, told = race.race(contenders, rounds=2)
    assert steady.seconds == [0.25, 0.25]
    assert not steady.failure
    assert told.median == 0.5
    assert broken.seconds == []
    assert broken.failure.startswith("ValueError: invalid literal")
    assert race.ratios(steady, told) == [2.0, 2.0]


def test_the_spread_of_values():
    assert race.spread([3.0, 1.0, 2.0], digits=1) == "2.0 (1.0 to 3.0)"
    assert race.spread([]) == "-"


def test_fits(shown):
    fit.main(["seeds=1", "starts=2"])
    found = rows(shown["fit"])
    assert len(found) == 3 * 7  # a head and six contenders for each law
    by_law = [found[i + 1 : i + 7] for i in range(0, 21, 7)]
    for own, huber, *_ in by_law:
        assert own[0] == "rfjax, log_squares"
        assert huber[0] == "rfjax, log_huber"
        assert huber[-3:-1] == ["0", "0"]  # none failed, none above the lowest


def test_the_plain_gradient_is_exact():
    (task,) = fit.TASKS["surface"]
    log_x, log_y = np.log(task.points), np.log(task.loss(task.points))
    theta = fit.guess(log_x, log_y)
    _, gradient = fit.objective(theta, log_x, log_y)
    for i, step in enumerate(1e-6 * np.eye(theta.size)):
        above, below = (fit.objective(theta + sign * step, log_x, log_y)[0] for sign in (1, -1))
        assert gradient[i] == pytest.approx((above - below) / 2e-6, rel=1e-4, abs=1e-9)


@pytest.mark.job
def test_compilation(shown, monkeypatch):
    monkeypatch.setattr(compiling.jax, "clear_caches", lambda: None)  # the other tests need them
    compiling.run(["quick", "dit"])
    head, dit, _, own, *others = rows(shown["compile"])
    assert (head[0], dit[0]) == ("backbone", "dit")
    assert own[0] == "XLA's own"
    assert len(others) == len(compiling.OPTIONS) - 1


def test_a_study_is_accounted_for(tmp_path):
    for name, seconds in (("cold", 10.0), ("warm", 4.0)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "study.json").write_text(json.dumps({"config": {}, "runs": []}))
        line = {
            "seconds": seconds,
            "split": {"start-up": 1.0, "training": seconds / 2},
            "compilations": {"update": {"count": 1, "seconds": 2}},
        }
        (folder / "sessions.jsonl").write_text(json.dumps(line) + "\n")
    found = {
        side: [study.spent(tmp_path / side.split()[0], wall)]
        for side, wall in zip(study.SIDES, (10.0, 4.0), strict=True)
    }
    lines = study.table(found)
    cells = {row[0]: row[1:] for row in rows(lines)}
    assert cells["training steps"] == ["5.0 (5.0 to 5.0)", "50.0%", "2.0 (2.0 to 2.0)", "50.0%"]
    assert cells["the rest"] == ["4.0 (4.0 to 4.0)", "40.0%", "1.0 (1.0 to 1.0)", "25.0%"]
    assert "cold cache 1 in 2.0 s (update 2.0 s)" in lines[-1]


def test_a_study_that_fails_says_why(tmp_path):
    with pytest.raises(RuntimeError, match="has no key"):
        study.study(tmp_path / "study", tmp_path / "cache", ["d1"], ["training.stepps=2"])


def test_versions_are_compared_by_what_their_runs_wrote(tmp_path):
    """An older checkout has sittings.jsonl, and an activity that the other lacks has no ratio."""
    found = {}
    for name, step, file in (("new", 0.2, "sessions.jsonl"), ("old", 0.1, "sittings.jsonl")):
        folder = tmp_path / name
        (folder / "runs" / "d2").mkdir(parents=True)
        lines = [{"kind": "start", "step": 0}]
        lines += [{"kind": "train", "step": n, "seconds": 5 + step * n} for n in (10, 20, 60)]
        (folder / "runs" / "d2" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        session = {"split": {"training": 15.0, "data": 1.0, "checkpoints": 3.0, name: 1.0}}
        (folder / file).write_text(json.dumps(session) + "\n")
        found[name] = [versions.read(folder, 20.0 if name == "new" else 26.0)]
    cells = {row[0]: row[1:] for row in rows(versions.table(found["new"], found["old"]))}
    assert cells[versions.STEP] == ["200.0 (200.0 to 200.0)", "100.0 (100.0 to 100.0)", "2.000 (2.000 to 2.000)"]
    assert cells["checkpoints"][-1] == "1.000 (1.000 to 1.000)"
    assert cells[versions.REST][:2] == ["4.00 (4.00 to 4.00)", "10.00 (10.00 to 10.00)"]
    assert cells["new"] == ["1.00 (1.00 to 1.00)", "0.00 (0.00 to 0.00)", "-"]


def test_versions_name_the_run_that_fails(tmp_path):
    with pytest.raises(RuntimeError, match=r"rfjax\.main .* ended with"):
        versions.main([str(tmp_path), "--rounds=0", "--depth=0"])
