"""From a pilot over a design to its ladder and the report, with runs that train: the pilot's are not trained again."""

import json
import time
from dataclasses import replace

import pytest
from synthetic import change_lines
from tiny import run_job, tiny

from rfjax import config as configs
from rfjax import flags
from rfjax.study import design, runner

DEPTHS, SEEDS = (1, 2, 3, 4), (2, 2, 1, 1)


@pytest.mark.job
def test_a_ladder_goes_on_where_its_pilot_stopped(tmp_path):
    c = tiny()
    c.workdir = str(tmp_path / "work")
    c.study.seeds = SEEDS
    c.sampling.count = 0
    configs.axes(c, {"model.depth": DEPTHS})
    assert run_job(runner, configs.parse(c), time.time()) == 0
    folder = tmp_path / "work"
    pilot = [f"d{d}-seed{s}" for d, n in zip(DEPTHS, SEEDS, strict=True) for s in range(n)]
    for name in pilot:  # eight steps teach nothing: a law of known noise stands for what longer runs would give
        depth, seed = int(name[1]), int(name[-1])
        loss = 0.3 + 0.2 / depth * (1 + 0.01 * (-1) ** (depth + seed))
        change_lines(
            folder, name, lambda line, loss=loss: line | ({"loss": loss} if line["kind"] == "validation" else {})
        )
    done = {name: (folder / "runs" / name / "result.json").stat().st_mtime_ns for name in pilot}

    c.job = "design"
    c.design.update(target="depth=12", trials=20)
    found = design.answer(configs.parse(c), 1e12)
    ladders = [one.candidate for one in found.designs.curve]
    assert {one.reused for one in ladders if one.examples == c.validation.examples} == {len(pilot)}
    one = replace(next(one for one in ladders if one.reused), depths=(*DEPTHS, 5), seeds=(*SEEDS, 1))
    path = tmp_path / "ladder.py"
    path.write_text(design.config_text(replace(found, chosen=replace(found.chosen, candidate=one))))

    ladder = flags.read_flags([f"--config={path}"])
    assert run_job(runner, ladder, time.time()) == 0
    study = json.loads((folder / "study.json").read_text())
    assert study["runs"] == [*pilot, "d5-seed0"] and study["config"]["study"]["promise"] == found.promised > 0
    assert done == {name: (folder / "runs" / name / "result.json").stat().st_mtime_ns for name in pilot}
    fits = json.loads((folder / "report" / "fits.json").read_text())
    whole = next(fit for fit in fits if fit["rungs"] == "all" and fit["law"] == "power_offset")
    assert len(whole["points"]) == 5
    assert [point["label"] for point in whole["points"]][-1] == "d5"
    assert run_job(runner, ladder, time.time()) == 0  # again: nothing is left to do
