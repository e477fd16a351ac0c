"""The job `representations`, on a study, on one run, and on weights of other projects."""

import dataclasses
import json
import shutil
import time

import pytest
from tiny import begun_run, run_job, tiny

from rfjax import config as configs
from rfjax import interop
from rfjax.config import Mesh
from rfjax.errors import UserError
from rfjax.jsonl import write_json
from rfjax.study import representations, runner
from rfjax.training import weights


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A finished study of two tiny models, which measured its last steps itself."""
    c = tiny()
    c.workdir = str(tmp_path_factory.mktemp("source"))
    c.study.report = "representations"
    c.sampling.count = 0
    c.training.update(keep_checkpoints=9, measurements=("representations",))
    c.representations.update(asked())
    configs.axes(c, {"training.seed": (0, 1)})
    assert run_job(runner, configs.parse(c), time.time()) == 0
    return c.workdir


def asked(**more):
    return {
        "encoders": ("colours:make",), "examples": 40, "batch": 8, "k": 5, "levels": (0.0, 0.5), "probe_examples": 60
    } | more  # fmt: skip


def job_config(source, folder, data=None, **more):
    c = configs.default()
    c.job, c.workdir = "representations", str(folder)
    c.study.update(report="representations", source=str(source))
    c.data.update(data or {})
    c.representations.update(asked(**more))
    return configs.parse(c)


def lines(folder, run):
    text = (folder / "runs" / run / "metrics.jsonl").read_text()
    return [line for line in map(json.loads, text.splitlines()) if line["kind"] == "representations"]


def test_every_checkpoint_of_every_run_is_measured_once_as_along_the_run(source, tmp_path, capsys):
    config = job_config(source, tmp_path, weights="both")
    assert run_job(representations, config, time.time()) == 0
    for run in ("seed0", "seed1"):
        found = lines(tmp_path, run)
        expected = [(step, kind, t) for step in (4, 8) for kind in ("raw", "ema") for t in (0.0, 0.5)]
        assert [(line["step"], line["weights"], line["t"]) for line in found] == expected
        own = [{**line, "seconds": 0} for line in found if (line["step"], line["weights"]) == (8, "ema")]
        theirs = [{**line, "seconds": 0} for line in lines(tmp_path.parent / source, run)]
        assert own == theirs
    assert "CKNNA with colours:make" in (tmp_path / "report" / "index.html").read_text()
    assert "seed1: 8 lines" in capsys.readouterr().out
    # The same command measures nothing again; without some of its lines, those.
    assert run_job(representations, config, time.time()) == 0
    assert "seed1: complete already" in capsys.readouterr().out
    path, whole = tmp_path / "runs" / "seed1" / "metrics.jsonl", lines(tmp_path, "seed1")
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if '"t=0.5"' not in line))
    assert run_job(representations, config, time.time()) == 0
    key = lambda line: (line["step"], line["weights"], line["t"])  # noqa: E731
    assert sorted(lines(tmp_path, "seed1"), key=key) == sorted(whole, key=key)
    # Other settings do not join these lines.
    with pytest.raises(UserError, match=r"holds another study: representations.k is 5 there and 6 here"):
        run_job(representations, job_config(source, tmp_path, weights="both", k=6), time.time())


def test_one_run_is_measured_alone(source, tmp_path):
    folder = f"{source}/runs/seed1"
    assert run_job(representations, job_config(folder, tmp_path, probe="none"), time.time()) == 0
    found = lines(tmp_path, "seed1")
    assert [(line["step"], line["t"]) for line in found] == [(4, 0.0), (4, 0.5), (8, 0.0), (8, 0.5)]
    assert "accuracy" not in found[0] and len(found[0]["cknna"]["colours:make"]) == 2


def test_another_project_s_checkpoint_is_measured_on_the_data_that_are_named(tmp_path):
    c = tiny()
    c.model.update(backbone="dit", depth=2, width=16, heads=2, patch=4, time="1000t-1", frequency_shift=1)
    c.text.update(encoder="labels", pooled_width=32)
    c.sampling.count = 0
    begun_run(tmp_path / "run", configs.parse(c))
    read = weights.read_weights(tmp_path / "run", Mesh())
    path = interop.export(read, tmp_path / "tiny", "dit-folder")
    data = {"name": "shapes", "image_size": 16, "channels": 3}
    out = tmp_path / "out"
    assert run_job(representations, job_config(path, out, data=data, encoders=("shapes",)), time.time()) == 0
    (first, second) = lines(out, "tiny")
    assert (first["step"], first["t"], second["t"]) == (0, 0.0, 0.5) and len(first["accuracy"]) == 2
    with pytest.raises(UserError, match=r"this network came without data .config.data.name = 'none'"):
        run_job(representations, job_config(path, tmp_path / "none", data={"name": "none"}), time.time())


def test_a_source_without_weights_is_named(source, tmp_path):
    with pytest.raises(UserError, match="must be the folder of a study or of a run, or a checkpoint"):
        run_job(representations, job_config(tmp_path / "nowhere", tmp_path / "out"), time.time())
    folder = shutil.copytree(source, tmp_path / "source")
    for run in ("seed0", "seed1"):
        shutil.rmtree(folder / "runs" / run / "checkpoints")
    with pytest.raises(UserError, match=r"no run of .* has a checkpoint yet"):
        run_job(representations, job_config(folder, tmp_path / "out"), time.time())
    with pytest.raises(UserError, match="needs at least 6 examples, and got 5"):
        run_job(representations, job_config(source, tmp_path / "out", examples=5), time.time())
    assert not (tmp_path / "out").exists()


def test_a_run_without_checkpoints_is_left_out_with_a_sentence(source, tmp_path):
    folder = shutil.copytree(source, tmp_path / "source")
    shutil.rmtree(folder / "runs" / "seed0" / "checkpoints")
    found, warnings = representations.find(job_config(folder, tmp_path / "out"))
    assert [subject.run.name for subject in found] == ["seed1"] and found[0].steps == (4, 8)
    assert warnings == ["seed0 is left out because it has no checkpoint"]


def test_data_that_changed_since_are_refused(source, tmp_path):
    folder = shutil.copytree(source, tmp_path / "source")
    path = folder / "runs" / "seed1" / "data.json"
    plain = json.loads(path.read_text())
    plain["data"]["validation"] |= {"content": "0" * 32}
    write_json(path, plain)
    config = job_config(folder, tmp_path / "out")
    with pytest.raises(UserError, match="seed1"):
        representations.find(config)
    allowed = dataclasses.replace(config, data=dataclasses.replace(config.data, changed="allow"))
    assert len(representations.find(allowed)[0]) == 2
