"""A prompt suite: which files lie where, exactly so many, and what becomes of them when the job is stopped."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import suite_cases
from PIL import Image
from tiny import begun_run, run_job, tiny

from rfjax import config as configs
from rfjax import main
from rfjax.errors import UserError
from rfjax.evaluation import sampler
from rfjax.study import generate, suites

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The folder of a run that reads text."""
    c = tiny()
    c.model.depth = 1
    folder = tmp_path_factory.mktemp("source") / "d1"
    begun_run(folder, configs.parse(c))
    return folder


def make(folder, source, prompts, name="geneval", results="", per_prompt=0, **values):
    c = configs.default()
    c.update(job="suite", workdir=str(folder))
    c.suite.update(name=name, prompts=str(prompts), results=str(results), per_prompt=per_prompt)
    c.generate.update(source=str(source), steps=2, batch=5)
    c.generate.update(values)
    return run_job(suites, configs.parse(c), time.time())


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_geneval_is_drawn_scored_and_reported(source, tmp_path, capsys):
    prompts, work = suite_cases.geneval(tmp_path), tmp_path / "work"
    assert make(work, source, prompts) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "24 pictures of GenEval are drawn" in out and "evaluate_images.py" in out
    files = contents(work / "images")
    assert sorted(files) == sorted(
        [f"{n:05}/{path}" for n in range(6) for path in ("metadata.jsonl", *(f"samples/000{j}.png" for j in range(4)))]
    )
    pictures = {name: data for name, data in files.items() if name.endswith(".png")}
    assert len(set(pictures.values())) == 24
    assert json.loads(files["00003/metadata.jsonl"]) == suite_cases.GENEVAL[3]
    about = json.loads((work / "suite.json").read_text())["settings"]
    assert (about["prompts"], about["per_prompt"], about["steps"], about["seed"]) == (6, 4, 2, 0)

    # The job `generate` draws the same pictures of the same texts and seed.
    c = configs.default()
    c.update(job="generate", workdir=str(tmp_path / "few"))
    c.generate.update(source=str(source), steps=2, batch=5)
    c.generate.prompts = tuple(line["prompt"] for line in suite_cases.GENEVAL for _ in range(4))
    assert run_job(generate, configs.parse(c), time.time()) == 0
    few = np.load(next((tmp_path / "few").glob("*.npz")))["images"]
    for n in range(24):
        here = np.asarray(Image.open(work / "images" / f"{n // 4:05}/samples/{n % 4:04}.png"))
        np.testing.assert_array_equal(here, few[n])

    # The scorer's file is found, and nothing is drawn; a file that is named is read from elsewhere.
    rows = [suite_cases.geneval_row(n, j, right=j < n) for n in range(6) for j in range(4)]
    suite_cases.geneval_results(work / "results.jsonl", rows)
    before = {path: path.stat().st_mtime_ns for path in (work / "images").rglob("*.png")}
    assert make(work, source, prompts) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "6 of 6 prompts are drawn" in out and "GenEval, overall: 0.500" in out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    with pytest.raises(UserError, match="is of the prompt"):
        other = suite_cases.geneval_results(tmp_path / "r.jsonl", [suite_cases.geneval_row(0, 0, prompt="another")])
        make(work, source, prompts, results=other)
    # Without a model, results alone are read.
    assert make(tmp_path / "read", "", prompts, results=work / "results.jsonl") == 0
    assert "overall: 0.500" in " ".join(capsys.readouterr().out.split())


def test_a_stopped_job_goes_on_and_ends_in_the_same_bytes(source, tmp_path, monkeypatch):
    prompts = suite_cases.geneval(tmp_path)
    assert make(tmp_path / "whole", source, prompts, per_prompt=3) == 0
    drawn = []

    def fails(*arguments, **settings):
        drawn.append(arguments[1].tolist())
        if len(drawn) == 3:
            raise MemoryError
        return sampler.sample_batch(*arguments, **settings)

    monkeypatch.setattr(suites, "sample_batch", fails)
    assert make(tmp_path / "other", source, prompts, per_prompt=3) == 1  # written down, as any task that fails
    there = contents(tmp_path / "other" / "images")
    assert {name.partition("/")[0] for name in there} == {"00000", "00001", "00002"}  # of 10 pictures; the 10th is lost
    assert make(tmp_path / "other", source, prompts, per_prompt=3) == 0
    assert contents(tmp_path / "other" / "images") == contents(tmp_path / "whole" / "images")
    assert [rows[0] for rows in drawn] == [0, 5, 10, 5, 10, 15]
    assert drawn[-1] == [15, 16, 17, 0, 0]

    # A file that is lost is drawn again, in the batch that it was in, and no other is touched.
    lost = tmp_path / "other" / "images" / "00004" / "samples" / "0001.png"
    lost.unlink()
    assert make(tmp_path / "other", source, prompts, per_prompt=3) == 0
    assert [rows[0] for rows in drawn[6:]] == [10]
    assert contents(tmp_path / "other" / "images") == contents(tmp_path / "whole" / "images")


def test_the_layouts_of_the_other_suites(source, tmp_path):
    (tmp_path / "cb").mkdir()
    assert make(tmp_path / "a", source, suite_cases.compbench(tmp_path / "cb"), "compbench", per_prompt=2) == 0
    names = sorted(contents(tmp_path / "a" / "images"))
    assert len(names) == 8 and "color/samples/a teal door and a pink mat_000001.png" in names
    assert "color/samples/half\u2215half tea and a_b cake_000003.png" in names
    assert max(len(Path(name).name.encode()) for name in names) == 255

    assert make(tmp_path / "b", source, suite_cases.parti(tmp_path), "parti") == 0
    assert len(list((tmp_path / "b" / "images").rglob("*.png"))) == 3

    assert make(tmp_path / "c", source, suite_cases.dpg(tmp_path / "dpg_bench"), "dpg") == 0
    assert sorted(contents(tmp_path / "c" / "images")) == ["lamp3.png", "moth7.png"]
    assert Image.open(tmp_path / "c" / "images" / "moth7.png").size == (32, 32)
    assert make(tmp_path / "d", source, tmp_path / "dpg_bench", "dpg", per_prompt=1) == 0
    grid, single = (np.asarray(Image.open(tmp_path / name / "images" / "lamp3.png")) for name in "cd")
    assert np.abs(grid[:16, :16].astype(int) - single).max() <= 1  # its first cell is the picture of the same index


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"prompts": ""}, "config.suite.prompts must name GenEval's evaluation_metadata.jsonl"),
        ({"prompts": "nowhere"}, "there is no nowhere"),
        ({"source": ""}, "config.generate.source must name"),
        ({"source": "nowhere"}, "there is no nowhere"),
        ({"name": "dpg", "per_prompt": 2}, "the scorer of DPG-Bench reads 1 or 4 pictures"),
        ({"results": "nowhere"}, "/nowhere: name what the official scorer wrote"),
        ({"height": 6}, "is not a multiple of the model's patch"),
    ],
)
def test_a_mistake_is_one_sentence_before_a_folder_is_made(source, tmp_path, values, words):
    given = {"source": source, "prompts": suite_cases.geneval(tmp_path)} | values
    with pytest.raises(UserError) as error:
        make(tmp_path / "work", **given)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "work").exists()


def test_a_folder_of_other_pictures_is_refused(source, tmp_path):
    prompts, work = suite_cases.geneval(tmp_path), tmp_path / "work"
    assert make(work, source, prompts, per_prompt=1) == 0
    for values, words in (
        ({"steps": 3}, "steps is 2 there and 3 here"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"per_prompt": 2}, "per_prompt is 1 there and 2 here"),
        ({"weights": "raw"}, "weights is 'ema' there and 'raw' here"),
    ):
        with pytest.raises(UserError, match=f"holds other pictures: .*{words}.*choose another folder"):
            make(work, source, prompts, **{"per_prompt": 1} | values)
    prompts.write_text(prompts.read_text().replace("bench", "sofa"))
    with pytest.raises(UserError, match="texts is"):
        make(work, source, prompts, per_prompt=1)


def test_a_model_of_class_labels_is_refused(tmp_path):
    c = tiny()
    c.model.update(depth=1, backbone="sit", heads=2)
    c.data.update(name="digits", image_size=8, channels=1)
    c.text.update(encoder="labels", pooled_width=10)
    begun_run(tmp_path / "labels", configs.parse(c))
    with pytest.raises(UserError, match="this model takes class labels, and a suite has prompts"):
        make(tmp_path / "work", tmp_path / "labels", suite_cases.geneval(tmp_path))


def test_the_config_reaches_the_job(source, tmp_path):
    file = f"--config={ROOT / 'configs' / 'suites.py'}"
    config = main.read_flags([file])
    assert (config.job, config.suite.name, config.generate.steps, config.generate.guidance) == (
        "suite",
        "geneval",
        50,
        5,
    )
    flags = {"workdir": tmp_path / "w", "generate.source": source, "suite.prompts": suite_cases.geneval(tmp_path)}
    words = [f"--config.{name}={value}" for name, value in flags.items()]
    assert main.main([file, *words, "--config.generate.steps=1", "--config.suite.per_prompt=1"]) == 0
    assert len(list((tmp_path / "w" / "images").rglob("*.png"))) == 6
    assert main.main([file, f"--config.workdir={tmp_path / 'w'}", "--config.job=report"]) == 0
