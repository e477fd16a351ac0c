import json
import time

import jax
import pytest

from rfjax import config as configs
from rfjax.errors import UserError
from rfjax.study import runner
from rfjax.training import loop
from rfjax.training.stop import Interrupted


def study(c, **axes):
    configs.axes(c, axes or {"model.depth": (1, 2)})
    return configs.parse(c)


def test_a_study_skips_what_is_complete_isolates_what_fails_and_tries_it_again(
    tiny_config, tmp_path, monkeypatch, capsys
):
    config = study(tiny_config)
    trained, real = [], loop.train

    def train(run, display, stop):
        trained.append(run.name)
        if run.name == "d1" and len(trained) == 1:
            raise FloatingPointError("a cosmic ray")
        return real(run, display, stop)

    monkeypatch.setattr(loop, "train", train)
    assert runner.run_study(config, time.time()) == 1
    assert trained == ["d1", "d2"]
    folder = tmp_path / "study"
    assert (folder / "runs" / "d1" / "failure.txt").read_text().startswith("a cosmic ray\n")
    assert "d1: failed: a cosmic ray" in capsys.readouterr().out
    assert "a cosmic ray" in (folder / "report" / "index.html").read_text()
    before = (folder / "runs" / "d2" / "result.json").read_text()

    assert runner.run_study(config, time.time()) == 0
    assert trained == ["d1", "d2", "d1"]
    assert not (folder / "runs" / "d1" / "failure.txt").exists()
    assert (folder / "runs" / "d2" / "result.json").read_text() == before
    assert "d2: complete already" in capsys.readouterr().out
    known = json.loads((folder / "study.json").read_text())
    assert known["versions"]["jax"] == jax.__version__
    assert len((folder / "sittings.jsonl").read_text().splitlines()) == 2

    # Another config is refused, and nothing is touched.
    tiny_config.training.batch = 16
    with pytest.raises(UserError, match=r"training.batch is 8 there and 16 here"):
        runner.run_study(configs.parse(tiny_config), time.time())
    assert (folder / "runs" / "d2" / "result.json").read_text() == before


def test_only_trains_one_run_and_writes_no_report(tiny_config, tmp_path, monkeypatch):
    trained = []
    result = {"validation": {"ema": {"loss": 1.0, "stderr": 0.1}}, "size": {"parameters": 1}, "split_seconds": {}}
    monkeypatch.setattr(loop, "train", lambda run, display, stop: trained.append(run.name) or result)
    tiny_config.only = "d2"
    assert runner.run_study(study(tiny_config), time.time()) == 0
    assert trained == ["d2"]
    assert not (tmp_path / "study" / "report").exists()
    tiny_config.only = "d7"
    with pytest.raises(UserError, match=r"no run 'd7' \(did you mean 'd[12]'\?\)"):
        runner.run_study(configs.parse(tiny_config), time.time())


def test_an_interrupt_is_passed_on(tiny_config, monkeypatch):
    def train(run, display, stop):
        raise Interrupted("stopped at step 2 of 8")

    monkeypatch.setattr(loop, "train", train)
    with pytest.raises(Interrupted):
        runner.run_study(study(tiny_config), time.time())


def test_a_missing_data_set_and_a_wrong_batch_stop_before_anything_is_compiled(tiny_config, monkeypatch):
    monkeypatch.setattr(loop, "train", lambda *a: pytest.fail("it must not come to training"))
    tiny_config.data.update(name="folder", path="/nowhere")
    with pytest.raises(UserError, match="/nowhere"):
        runner.run_study(study(tiny_config), time.time())
    tiny_config.data.name = "shapes"
    tiny_config.training.batch = 12
    with pytest.raises(UserError, match=r"config.training.batch = 12 can't be divided over 8 devices: take 8 or 16"):
        runner.run_study(configs.parse(tiny_config), time.time())


def test_a_folder_that_cannot_be_written_is_named(tiny_config, tmp_path):
    (tmp_path / "file").write_text("")
    tiny_config.workdir = str(tmp_path / "file" / "study")
    with pytest.raises(UserError, match=r"work folder .*file/study can't be written"):
        runner.run_study(study(tiny_config), time.time())
