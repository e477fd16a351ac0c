"""The recipes of docs/extending.md, followed from outside of rfjax: one module, and names in a config."""

import json
import re
import time
from pathlib import Path

import jax
import pytest
from tiny import run_job, tiny

from rfjax import config as configs
from rfjax.evaluation.quantity import STANDARD
from rfjax.jsonl import read_lines
from rfjax.models import measure
from rfjax.models.counting import traced_matmul_flops
from rfjax.study import records, runner
from rfjax.training.spec import make_run_spec

ROOT = Path(__file__).parents[2]


def everything_own(folder):
    c = tiny()
    c.workdir = str(folder)
    c.data.update(name="extending.toys:open_source", image_size=16, channels=3, flip=True)
    c.encoders = ("extending.toys:make_encoder",)
    c.training.update(
        objective="extending.toys:make_objective",
        measurements=("validation@4", "samples", "extending.toys:Norm"),
        validate_every=0,
    )
    with c.unlocked():
        c.options.weight = 0.25
    c.sampling.metrics = ("extending.toys:make_metric",)
    c.model.backbone = "extending.toys:AttentionOnly"
    configs.axes(c, {"options.weight": (0.0, 0.25)})
    return configs.parse(c)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toys")
    config = everything_own(folder)
    assert run_job(runner, config, time.time()) == 0
    return folder, config


def test_a_study_of_a_user_s_own_modules_trains_and_is_reported(study):
    folder, _ = study
    names = sorted(path.name for path in (folder / "runs").iterdir())
    assert names == ["weight=0", "weight=0.25"]
    lines = [json.loads(line) for line in (folder / "runs" / names[1] / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["kind"] == "train"]
    for line in train:
        assert line["loss"] == pytest.approx(line["denoising"] + 0.25 * line["alignment"], rel=1e-5)
    assert [line["step"] for line in lines if line["kind"] == "validation"] == [4, 4, 8, 8]
    plain, _ = read_lines(folder / "runs" / names[0] / "metrics.jsonl")
    assert train[-1]["alignment"] < [line for line in plain if line["kind"] == "train"][-1]["alignment"]
    result = json.loads((folder / "runs" / names[1] / "result.json").read_text())
    assert result["norm"] > 0 and 0 < result["scores"]["ema 2@3.0"]["darkness"] < 1
    assert (folder / "report" / "index.html").exists()


def test_the_report_knows_a_user_s_quantity(study):
    folder, _ = study
    (first, _) = records.read(folder).runs
    assert [(one.key, one.label, one.better) for one in first.quantities] == [("darkness", "mean darkness", "lower")]
    assert first.quantities != STANDARD


def test_a_head_is_no_part_of_the_size_and_the_flops_are_counted(study):
    _, config = study
    (_, run), _ = configs.runs(config)
    spec = make_run_spec(run)
    size = measure(spec.model, spec.inputs)
    bare = measure(spec.model.clone(readouts=()), spec.inputs)
    assert size == bare
    params = jax.eval_shape(spec.model.init, jax.random.key(0), *spec.inputs.abstract(1))
    assert traced_matmul_flops(spec.model.apply, params, *spec.inputs.abstract(1)) == size.forward_flops
    assert {"toy_head"} < set(params["params"])


def test_each_recipe_names_at_most_three_files():
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    recipes = re.split(r"^## ", text, flags=re.M)[1:]
    for wanted in ("data source", "backbone", "loss", "metric", "frozen encoder", "report"):
        (recipe,) = [recipe for recipe in recipes if wanted in recipe.splitlines()[0].lower()]
        files = re.findall(r"^- `([^`]+)`", recipe, flags=re.M)
        assert 1 <= len(files) <= 3, (wanted, files)
        for file in files:
            if not file.startswith("my_") and "NAME" not in file:
                assert (ROOT / file).exists(), file


def test_options_are_an_axis_and_survive_a_file(study):
    folder, _ = study
    found = json.loads((folder / "runs" / "weight=0.25" / "config.json").read_text())
    assert found["options"] == {"weight": 0.25}
    assert configs.from_dict(found).options == {"weight": 0.25}
