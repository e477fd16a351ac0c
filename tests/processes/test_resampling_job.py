import dataclasses
import json
import shutil
import time

import pytest
from tiny import run_job, tiny

from rfjax import config as configs
from rfjax import files
from rfjax.errors import UserError
from rfjax.study import locks, resampling, runner
from rfjax.training import provenance


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A finished study of two tiny models."""

    c = tiny()
    c.workdir = str(tmp_path_factory.mktemp("source"))
    configs.axes(c, {"model.depth": (1, 2)})
    assert run_job(runner, configs.parse(c), time.time()) == 0
    return c.workdir


def sampling_config(source, folder, **samples):
    c = configs.default()
    c.workdir = str(folder)
    c.study.update(report="sampling", source=source)
    c.sampling.update(count=6, shown=2, batch=4, settings=("2@3.0", "4@3.0"))
    c.sampling.update(samples)
    return configs.parse(c)


def lines(folder, run):
    text = (folder / "runs" / run / "metrics.jsonl").read_text()
    return [line for line in map(json.loads, text.splitlines()) if line["kind"] == "scores"]


def test_every_model_is_sampled_at_every_setting_once(source, tmp_path, capsys):
    assert run_job(resampling, sampling_config(source, tmp_path), time.time()) == 0
    for run in ("d1", "d2"):
        found = lines(tmp_path, run)
        assert [(line["setting"], line["steps"], line["count"]) for line in found] == [("2@3.0", 2, 6), ("4@3.0", 4, 6)]
        assert all(line["path_length"] > 0 and 0 <= line["score"] <= 1 for line in found)
        assert (tmp_path / "runs" / run / "samples" / "4@3.0.png").exists()
    assert "Table 6" in (tmp_path / "report" / "index.html").read_text()
    assert "d2: 2 settings drawn" in capsys.readouterr().out

    # The same command again draws nothing.
    assert run_job(resampling, sampling_config(source, tmp_path), time.time()) == 0
    assert "d2: complete already" in capsys.readouterr().out
    assert len(lines(tmp_path, "d2")) == 2


def test_a_stopped_sampling_study_goes_on_with_what_is_missing(source, tmp_path):
    assert run_job(resampling, sampling_config(source, tmp_path / "whole"), time.time()) == 0
    folder = tmp_path / "stopped"
    assert run_job(resampling, sampling_config(source, folder), time.time()) == 0
    path = folder / "runs" / "d2" / "metrics.jsonl"
    kept = [line for line in path.read_text().splitlines() if "4@3.0" not in line]
    path.write_text("\n".join(kept) + "\n")
    assert run_job(resampling, sampling_config(source, folder), time.time()) == 0
    assert lines(folder, "d2") == lines(tmp_path / "whole", "d2")


def test_a_sampling_study_stops_between_batches_and_where_its_lock_is_lost(source, tmp_path, monkeypatch):
    """Of two settings with two batches each, and some arrays to place for each batch."""
    asked = []

    def granted(self):
        asked.append(1)
        if len(asked) == 3 and lost:
            files.write(tmp_path / "runs" / "d1" / locks.NAME, "another")
        return len(asked) == 3 and not lost

    monkeypatch.setattr(resampling.Stop, "granted", granted)
    lost = False
    with pytest.raises(resampling.Interrupted, match="stopped while drawing samples of d1"):
        run_job(resampling, sampling_config(source, tmp_path), time.time())
    lost = bool(asked.clear() or True)
    with pytest.raises(UserError, match=r"d1: this job gave no sign of life .* another job has taken the run"):
        run_job(resampling, sampling_config(source, tmp_path), time.time())
    assert lines(tmp_path, "d1") == []
    assert {path.name for path in (tmp_path / "runs" / "d1").iterdir()} >= {locks.NAME}
    assert not (tmp_path / "runs" / "d1" / "result.json").exists()


def test_a_source_that_is_none_is_named(source, tmp_path):
    with pytest.raises(UserError, match="there is no study in"):
        run_job(resampling, sampling_config(str(tmp_path / "nowhere"), tmp_path), time.time())
    (tmp_path / "empty").mkdir()
    known = {"config": configs.default().to_dict(), "runs": ["d1"]}
    (tmp_path / "empty" / "study.json").write_text(json.dumps(known, default=list))
    with pytest.raises(UserError, match=r"no run of .* is complete"):
        run_job(resampling, sampling_config(str(tmp_path / "empty"), tmp_path), time.time())


def test_models_are_not_sampled_with_other_data_than_they_were_trained_on_unless_it_is_told(source, tmp_path):
    folder = shutil.copytree(source, tmp_path / "source")
    path = folder / "runs" / "d2" / "data.json"
    plain = json.loads(path.read_text())
    plain["data"]["validation"] |= {"count": 7, "content": "0" * 32}
    path.write_text(json.dumps(plain))
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"run d2 recorded on .*: the validation split has .* examples, and had 7"):
        run_job(resampling, sampling_config(str(folder), out), time.time())
    assert not out.exists()
    told = sampling_config(str(folder), out)
    told = dataclasses.replace(told, data=dataclasses.replace(told.data, changed="allow"))
    assert run_job(resampling, told, time.time()) == 0
    page = (out / "report" / "index.html").read_text()
    assert "d2: its data changed while it was trained" in page and "had 7" in page
    assert provenance.read(out / "runs" / "d1").data == provenance.read(folder / "runs" / "d1").data
