"""The job `design` for two designs, and for a ladder whose steps follow depth."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic import E, change_lines, write_study
from tiny import tiny

from rfjax import config as configs
from rfjax import flags
from rfjax.errors import UserError
from rfjax.study import design
from rfjax.study.pilot_costs import correlation
from rfjax.study.reports import design_words as words

LOGNORM = "rf/lognorm(0.00,1.00)"
AXES = {"model.depth": (1, 2, 3, 4, 5), "flow.formulation": ("rf", LOGNORM), "training.seed": (0, 1, 2)}
WIDTH = 1.0
SHARE = 0.8  # of what the first design's loss has above E that the second has


def less(loss: float) -> float:
    return E + SHARE * (loss - E)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = write_study(tmp_path_factory.mktemp("two") / "work", noise=0.003, axes=AXES)
    for name in json.loads((found / "study.json").read_text())["runs"]:
        if "lognorm" in name:
            change_lines(found, name, lambda line: line | ({"loss": less(line["loss"])} if "loss" in line else {}))
    return found


def asked(folder: Path, **keys) -> configs.Config:
    c = tiny()
    c.workdir, c.job = str(folder), "design"
    c.design.update(target="depth=12", compare="flow.formulation", trials=20)
    c.design.update(keys)
    return configs.parse(c)


@pytest.fixture(scope="module")
def found(folder):
    return design.answer(asked(folder, width=WIDTH), 1e12)


def test_it_asks_for_the_multiplier_and_contains_the_runs_of_both(folder, found, monkeypatch):
    monkeypatch.setattr(design, "answer", lambda *_: found)
    told = design.run(asked(folder, width=WIDTH), 1e12)
    assert told.startswith(
        f"How many times less compute does {LOGNORM} need than rf for its loss at depth=12 (training"
    )
    written = flags.read_flags([f"--config={folder / 'design' / 'ladder.py'}"])
    runs = dict(configs.runs(written))
    there = set(json.loads((folder / "study.json").read_text())["runs"])
    assert there <= set(runs) and written.workdir == str(folder)
    found = json.loads((folder / "design" / "design.json").read_text())
    assert found["arms"] == ["rf", LOGNORM] and len(runs) == 2 * sum(found["cheapest"]["seeds"])
    assert found["cheapest"]["reused"] == 30 and found["cheapest"]["width"] <= WIDTH
    assert "tell the two apart: their interval leaves out 1" in told and written.study.promise == 0
    assert written.study.compare == "flow.formulation"
    assert written.study.compare_target == f"train_flops={found['promised']['at']:.10g}"


def test_two_that_do_not_differ_are_not_told_apart(tmp_path):
    same = write_study(tmp_path / "same", noise=0.01, axes=AXES)
    said = " ".join(words.sentences(design.answer(asked(same), 1e12)))
    assert "no ladder that was simulated tells the two apart with probability 80%" in said


def test_costs_are_of_both_designs_and_of_what_is_not_there_yet(found):
    once = found.pilot.ground
    assert found.target_cost == pytest.approx(2 * once.sides[0].cost(12, 16))
    contains = [one for one in found.designs.curve if one.candidate.reused]
    assert contains
    for one in (simulated.candidate for simulated in contains):
        new = [n - 3 * (depth <= 5) for depth, n in zip(one.depths, one.seeds, strict=True)]
        price = sum(n * once.cost(d, one.examples) for d, n in zip(one.depths, new, strict=True))
        assert one.cost == pytest.approx(price, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize(
    ("compare", "message"),
    [
        ("flow.formulatoin", "is no axis of the pilot in .*did you mean 'flow.formulation'"),
        ("model.backbone", r"its axes are flow.formulation.*run a pilot with --config.study.axes.model.backbone"),
    ],
)
def test_an_axis_that_is_not_there_is_told(folder, compare, message):
    with pytest.raises(UserError, match=message):
        design.answer(asked(folder, compare=compare), 1e12)


def test_losses_of_two_quantities_have_no_multiplier(tmp_path):
    other = write_study(tmp_path / "other", noise=0.01, axes=AXES | {"flow.formulation": ("rf", "eps/linear")})
    with pytest.raises(UserError, match=r"can.t compare rf and eps/linear: .* on different scales"):
        design.answer(asked(other), 1e12)


def test_three_values_are_not_two(tmp_path):
    axes = AXES | {"flow.formulation": ("rf", LOGNORM, "rf/mode(1.29)")}
    three = write_study(tmp_path / "three", noise=0.01, axes=axes)
    with pytest.raises(UserError, match=r"needs finished runs of two values, and .* has those of 3"):
        design.answer(asked(three), 1e12)


def test_without_compare_two_designs_are_no_ladder_and_the_key_is_named(folder):
    with pytest.raises(UserError, match=r"no rungs of one ladder .flow.formulation is .*config.design.compare"):
        design.answer(asked(folder, compare=""), 1e12)


def test_the_correlation_is_that_of_runs_of_one_seed():
    rng, shared = np.random.default_rng(0), 0.8
    first = {d: {s: float(np.exp(0.01 * rng.normal())) for s in range(40)} for d in (1, 2, 3)}
    second = {
        d: {s: y**shared * float(np.exp(0.01 * np.sqrt(1 - shared**2) * rng.normal())) for s, y in row.items()}
        for d, row in first.items()
    }
    freedom = 3 * 39
    assert correlation(first, second) == pytest.approx(shared, abs=4 * (1 - shared**2) / np.sqrt(freedom))
    assert correlation(first, {d: {0: 1.0} for d in first}) == 0  # one seed says nothing


def test_a_ladder_whose_steps_follow_depth(tmp_path):
    folder = write_study(
        tmp_path / "rule", noise=0.01, axes={"model.depth": (1, 2, 3, 4, 5), "training.seed": (0, 1, 2)}
    )
    exponent, base = 1.0, 40
    path = folder / "study.json"
    known = json.loads(path.read_text())
    known["config"]["training"]["steps_exponent"] = exponent
    path.write_text(json.dumps(known))
    for name in known["runs"]:
        depth = int(name[1])
        own = folder / "runs" / name / "config.json"
        config = json.loads(own.read_text())
        config["training"]["steps"] = base * depth
        own.write_text(json.dumps(config))

        def longer(line, d=depth):
            times = {"step": d, "examples": d} | ({"steps": d} if line["kind"] == "start" else {})
            return line | {key: line[key] * n for key, n in times.items() if key in line}

        change_lines(folder, name, longer)
    found = design.answer(asked(folder, compare="", target="depth=15"), 1e12)
    assert found.pilot.seen(15) == 8 * base * 15 and found.chosen.candidate.reused == 15
    assert found.pilot.arms[0].flops(15) == pytest.approx(6e4 * 15**3 * 8 * base * 15, rel=1e-3)
    assert "320 to 1,600 examples each" in " ".join(words.sentences(found))
    bigger = replace(found.chosen.candidate, depths=(1, 2, 3, 4, 5, 8), seeds=(3,) * 5 + (1,))
    path.with_name("ladder.py").write_text(
        design.config_text(replace(found, chosen=replace(found.chosen, candidate=bigger)))
    )
    runs = dict(configs.runs(flags.read_flags([f"--config={path.with_name('ladder.py')}"])))
    assert runs["d8-seed0"].training.steps == base * 8 and set(known["runs"]) < set(runs)
