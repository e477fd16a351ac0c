import dataclasses
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import begun_run, run_job

from rfjax import config as configs
from rfjax import files
from rfjax.errors import Exit, UserError
from rfjax.jsonl import write_json
from rfjax.study import locks, runner
from rfjax.study.folder import Turn
from rfjax.training import loop, provenance
from rfjax.training.run import Run
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
    assert run_job(runner, config, time.time()) == Exit.FAILED
    assert trained == ["d1", "d2"]
    folder = tmp_path / "study"
    assert (folder / "runs" / "d1" / "failure.txt").read_text().startswith("a cosmic ray\n")
    assert "d1: failed: a cosmic ray" in capsys.readouterr().out
    assert "a cosmic ray" in (folder / "report" / "index.html").read_text()
    before = (folder / "runs" / "d2" / "result.json").read_text()

    assert run_job(runner, config, time.time()) == 0
    assert trained == ["d1", "d2", "d1"]
    assert not (folder / "runs" / "d1" / "failure.txt").exists()
    assert (folder / "runs" / "d2" / "result.json").read_text() == before
    assert "d2: complete already" in capsys.readouterr().out
    known = json.loads((folder / "study.json").read_text())
    assert known["versions"]["jax"] == jax.__version__
    assert len((folder / "sessions.jsonl").read_text().splitlines()) == 2

    # Another config is refused, and nothing is touched.
    tiny_config.training.batch = 16
    with pytest.raises(UserError, match=r"training.batch is 8 there and 16 here"):
        run_job(runner, configs.parse(tiny_config), time.time())
    assert (folder / "runs" / "d2" / "result.json").read_text() == before


def test_only_trains_one_run_and_writes_no_report(tiny_config, tmp_path, monkeypatch):
    trained = []
    result = {"validation": {"ema": {"loss": 1.0, "stderr": 0.1}}, "size": {"parameters": 1}, "split_seconds": {}}
    monkeypatch.setattr(loop, "train", lambda run, display, stop: trained.append(run.name) or result)
    tiny_config.only = "d2"
    assert run_job(runner, study(tiny_config), time.time()) == 0
    assert trained == ["d2"]
    assert not (tmp_path / "study" / "report").exists()
    tiny_config.only = "d7"
    with pytest.raises(UserError, match=r"no run 'd7' \(did you mean 'd[12]'\?\)"):
        run_job(runner, configs.parse(tiny_config), time.time())


def test_an_interrupt_is_passed_on(tiny_config, monkeypatch):
    def train(run, display, stop):
        raise Interrupted("stopped at step 2 of 8")

    monkeypatch.setattr(loop, "train", train)
    with pytest.raises(Interrupted):
        run_job(runner, study(tiny_config), time.time())


def test_a_missing_data_set_and_a_wrong_batch_stop_before_anything_is_compiled(tiny_config, monkeypatch):
    monkeypatch.setattr(loop, "train", lambda *a: pytest.fail("it must not come to training"))
    tiny_config.data.update(name="folder", path="/nowhere")
    with pytest.raises(UserError, match="/nowhere"):
        run_job(runner, study(tiny_config), time.time())
    tiny_config.data.name = "shapes"
    tiny_config.training.batch = 12
    with pytest.raises(UserError, match=r"config.training.batch = 12 can't be divided over 8 devices: take 8 or 16"):
        run_job(runner, configs.parse(tiny_config), time.time())


def test_a_folder_that_cannot_be_written_is_named(tiny_config, tmp_path):
    (tmp_path / "file").write_text("")
    tiny_config.workdir = str(tmp_path / "file" / "study")
    with pytest.raises(UserError, match=r"work folder .*file/study can't be written"):
        run_job(runner, study(tiny_config), time.time())


RESULT = {
    "status": "complete",
    "validation": {"ema": {"loss": 1.0, "stderr": 0.1}},
    "size": {"parameters": 1},
    "split_seconds": {},
}


def trains(monkeypatch, *, writes=True):
    """Training that takes no time; returns the names of what was trained."""
    trained = []

    def train(run, display, stop):
        assert (run.folder / locks.NAME).exists()
        trained.append(run.name)
        if writes:
            write_json(run.folder / "config.json", run.config.to_dict())
            write_json(run.folder / "result.json", RESULT)
        return RESULT

    monkeypatch.setattr(loop, "train", train)
    return trained


def test_a_run_that_another_job_has_is_left_to_it(tiny_config, tmp_path, monkeypatch, capsys):
    trained, runs = trains(monkeypatch), tmp_path / "study" / "runs"
    (runs / "d1").mkdir(parents=True)
    with locks.take(runs / "d1", 5.0):
        assert run_job(runner, study(tiny_config), time.time()) == Exit.DONE
        said = capsys.readouterr().out
        holder = re.escape(f"{files.machine().host}, process {os.getpid()}")
        assert re.search(rf"d1: another job has it \({holder}, sign of life \d s ago\)", said)
        assert "left to other jobs: d1" in said
        assert "not started yet: d1" in (tmp_path / "study" / "report" / "index.html").read_text()
        tiny_config.only = "d1"
        with pytest.raises(UserError, match=rf"d1: another job has it \(.*process {os.getpid()}.*\): wait for it, or"):
            run_job(runner, study(tiny_config), time.time())
    assert trained == ["d2"]
    assert run_job(runner, study(tiny_config), time.time()) == Exit.DONE
    assert trained == ["d2", "d1"]
    assert not list(runs.glob("*/lock.json"))


def test_a_run_is_looked_at_again_in_the_end(tiny_config, tmp_path, monkeypatch):
    runs = tmp_path / "study" / "runs"
    (runs / "d1").mkdir(parents=True)
    other, trained = locks.take(runs / "d1", 5.0), []
    monkeypatch.setattr(loop, "train", lambda run, *rest: trained.append(run.name) or other.release() or RESULT)
    assert run_job(runner, study(tiny_config), time.time()) == Exit.DONE
    assert trained == ["d2", "d1"]


def test_a_run_that_another_job_finished_meanwhile_is_not_trained_again(tiny_config, tmp_path, monkeypatch):
    trained, real = trains(monkeypatch), locks.take

    def take(folder, *rest):
        if folder.name == "d2":
            write_json(folder / "result.json", RESULT)
        return real(folder, *rest)

    monkeypatch.setattr(locks, "take", take)
    assert run_job(runner, study(tiny_config), time.time()) == Exit.DONE
    assert trained == ["d1"]
    assert not list(tmp_path.glob("study/runs/*/lock.json"))


def test_the_lock_of_a_job_that_was_killed_is_taken_over_and_its_litter_removed(
    tiny_config, tmp_path, monkeypatch, capsys
):
    trained, folder = trains(monkeypatch), tmp_path / "study" / "runs" / "d2"
    folder.mkdir(parents=True)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    known = dataclasses.replace(locks.holder(), pid=gone.pid, started=files.started(gone.pid))
    gone.wait()
    write_json(folder / locks.NAME, dataclasses.asdict(known))
    name = files.partial_name(folder / "result.json").name
    litter = folder / name.replace(str(os.getpid()), str(gone.pid))
    litter.write_text("{")
    assert run_job(runner, study(tiny_config), time.time()) == Exit.DONE
    assert trained == ["d1", "d2"]
    assert re.search(
        r"d2: the lock of another job \(.*\) is void \(that process is gone\): taken over", capsys.readouterr().out
    )
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "result.json"]


def test_a_job_that_may_be_dead_is_waited_for(tiny_config, tmp_path, monkeypatch, capsys):
    """Two at once: one of this machine before it was started again, and one that seems to be so and is alive."""
    trained, runs = trains(monkeypatch), tmp_path / "study" / "runs"
    tiny_config.cluster.stale_minutes = 0.2  # void after 2.4 s, for it seems to be replaced by this one
    earlier = dataclasses.asdict(dataclasses.replace(locks.holder(), boot="earlier"))
    for name in ("d1", "d2"):
        write_json(runs / name / locks.NAME, earlier)
    os.utime(runs / "d1" / locks.NAME, (time.time(), time.time() - 1.5))
    over = threading.Event()

    def live():
        while not over.wait(0.1):
            os.utime(runs / "d2" / locks.NAME)

    thread = threading.Thread(target=live)
    thread.start()
    try:
        assert run_job(runner, study(tiny_config), time.time()) == Exit.DONE
    finally:
        over.set()
        thread.join()
    said = capsys.readouterr().out
    assert trained == ["d1"]
    assert re.search(r"d2: another job has it .*; it may be dead: waiting for a sign of life", said)
    assert "d1: the lock of another job" in said
    assert "d2: another job has it" in said


def test_a_job_that_lost_its_lock_stops(tiny_config, tmp_path, monkeypatch):
    def train(run, display, stop):
        files.write(run.folder / locks.NAME, "another")
        deadline = time.monotonic() + 5
        while not stop.requested and time.monotonic() < deadline:
            time.sleep(0.02)
        raise Interrupted("stopped at step 2 of 8")

    monkeypatch.setattr(loop, "train", train)
    tiny_config.cluster.stale_minutes = 0.05
    with pytest.raises(UserError, match=r"d1: this job gave no sign of life for 0.05 minutes, and another job"):
        run_job(runner, study(tiny_config), time.time())
    assert (tmp_path / "study" / "runs" / "d1" / locks.NAME).read_text() == "another"


def content(folder):
    """All files below a folder with their bytes, but for TensorBoard's."""
    found = (path for path in folder.rglob("*") if path.is_file() and "tensorboard" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.mark.parametrize("way", ["taken", "finished and given back"])
def test_a_job_that_went_on_after_its_lock_was_taken_writes_nothing_more(tiny_config, tmp_path, monkeypatch, way):
    """As after SIGSTOP and SIGCONT: the thread that gives signs of life, one in 20 s, has not run yet."""
    run, seen, asked = tmp_path / "study" / "runs" / "run", {}, []

    def granted(self):
        asked.append(1)
        if len(asked) == 3:
            if way == "taken":
                files.write(run / locks.NAME, "another")
            else:
                (run / locks.NAME).unlink()
                later = time.time() + 1000
                monkeypatch.setattr(locks.time, "time", lambda: later)
            seen.update(content(run))
        return False

    monkeypatch.setattr(loop.Stop, "granted", granted)
    tiny_config.training.update(steps=8, log_every=1, checkpoint_every=1)
    with pytest.raises(UserError, match=r"run: this job gave no sign of life for 5 minutes, and another job has taken"):
        run_job(runner, configs.parse(tiny_config), time.time())
    assert any(name.startswith("checkpoints/1/") for name in seen)  # and the second was being written
    after = {name: text for name, text in content(run).items() if ".orbax-checkpoint-tmp" not in name}
    assert {name.split("/")[1] for name in after if name.startswith("checkpoints")} <= {"1", "2"}
    assert all(after[name] == text for name, text in seen.items() if "tmp" not in name)
    assert "failure.txt" not in after
    assert "result.json" not in after


def test_spoilt_files_are_named_and_made_again(tiny_config, tmp_path, monkeypatch, capsys):
    trained, folder = trains(monkeypatch), tmp_path / "study"
    config = study(tiny_config, **{"model.depth": (1, 2, 3, 4)})
    assert run_job(runner, config, time.time()) == Exit.DONE
    runs = folder / "runs"
    whole = content(folder)
    (folder / "study.json").write_bytes(b"")  # as after a power cut
    (runs / "d1" / "result.json").write_bytes(b"")
    (runs / "d2" / "config.json").write_text('{"model": ')
    result = RESULT | {"step": 8, "validation": {"raw": {"loss": None}, "ema": {"loss": 1.0}}}
    write_json(runs / "d3" / "result.json", result)  # as older versions wrote it
    (runs / "d4" / "failure.txt").mkdir()
    (folder / "sessions.jsonl").unlink()
    (folder / "sessions.jsonl").mkdir()
    capsys.readouterr()
    trained.clear()
    assert run_job(runner, config, time.time()) == Exit.DONE
    said = capsys.readouterr().out
    assert trained == ["d1", "d3"]
    for words in (
        r"study.json is empty: .*it is written again", r"d1/result.json is empty: the same command makes it again",
        r"d2/config.json is not JSON .*: it is written again", r"the validation loss is not finite \(NaN with raw",
        r"this session's time can't be recorded: .*sessions.jsonl is a folder",
    ):  # fmt: skip
        assert re.search(words, said), words
    for name in ("study.json", "runs/d1/result.json", "runs/d2/config.json", "runs/d3/result.json"):
        assert json.loads(content(folder)[name]).keys() == json.loads(whole[name]).keys()


@pytest.mark.parametrize("error", [Interrupted("x"), KeyboardInterrupt(), files.FullDisk("no room"), SystemExit(3)])
def test_whatever_ends_a_job_its_lock_is_given_back(tiny_config, tmp_path, monkeypatch, error):
    def train(run, display, stop):
        raise error

    monkeypatch.setattr(loop, "train", train)
    with pytest.raises(type(error)):
        run_job(runner, study(tiny_config), time.time())
    assert not list(tmp_path.glob("study/runs/*/lock.json"))
    assert not list(tmp_path.glob("study/runs/*/failure.txt"))


def test_other_processes_of_a_job_write_nothing_and_do_as_process_0_says(tiny_config, tmp_path, monkeypatch, capsys):
    answers = iter([Turn.HELD, Turn.WAIT, Turn.OURS, Turn.HELD])
    asked = []
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr("rfjax.study.folder.from_first", lambda number: asked.append(number) or next(answers))

    def train(run, display, stop):
        raise FloatingPointError("a cosmic ray")

    monkeypatch.setattr(loop, "train", train)
    (tmp_path / "study").mkdir()
    assert run_job(runner, study(tiny_config), time.time()) == Exit.FAILED
    assert asked == [Turn.FAILED] * 4
    assert capsys.readouterr().out == ""
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["study", "study/runs"]


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("training", {"start_from": "nonsense"}, "config.training.start_from: nonsense is not the folder of a run"),
        ("model", {"attention": "cudnn", "precision": "bfloat16"}, "'cudnn' needs NVIDIA GPUs"),
        ("flow", {"formulation": "rf/lognrm(0,1)"}, "did you mean 'rf/lognorm'"),
        ("mesh", {"fsdp": 7}, "does not make up the 8 devices"),
        ("training", {"batch": 12}, "training.batch"),
        ("training", {"trainable": "nothing"}, "'nothing' matches the path of no weight, such as "),
        ("training", {"trainable": "("}, "config.training.trainable is no regular expression"),
        ("training", {"measurements": ("validaton",)}, "did you mean 'validation'"),
        ("training", {"measurements": ("validation@x",)}, "is not written NAME or NAME@STEPS"),
        ("sampling", {"metrics": ("shape",)}, "did you mean 'shapes'"),
        ("data", {"codec": "no_such_module:Codec"}, "the module 'no_such_module' can't be imported"),
    ],
)
def test_what_can_t_be_done_is_refused_before_anything_is_written(tiny_config, tmp_path, section, values, words):
    tiny_config[section].update(values)
    with pytest.raises(UserError, match=words):
        run_job(runner, configs.parse(tiny_config), time.time())
    assert list(tmp_path.iterdir()) == []


def test_a_validation_set_that_is_too_small_is_refused_before_anything_is_written(tiny_config, tmp_path):
    tiny_config.data.update(name="digits", image_size=8, channels=1)
    tiny_config.validation.examples = 2**24
    with pytest.raises(UserError, match="fewer than config"):
        run_job(runner, configs.parse(tiny_config), time.time())
    assert list(tmp_path.iterdir()) == []


def test_the_weights_to_start_from_must_fit_before_anything_is_written(tiny_config, tmp_path):
    begun_run(tmp_path / "other", configs.parse(tiny_config))
    tiny_config.model.depth = 1
    tiny_config.training.start_from = str(tmp_path / "other")
    with pytest.raises(UserError, match=r"holds another network: config\.model\.depth is 2 there and 1 here"):
        run_job(runner, configs.parse(tiny_config), time.time())
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def latents_study(c, folder):
    """A study of two runs on 40 latents, of which the first is trained, by its folder."""
    rng = np.random.default_rng(0)
    for split in ("train", "validation"):
        (folder / split).mkdir(parents=True)
        np.save(folder / split / "latents.npy", rng.normal(size=(40, 4, 4, 2)).astype(np.float16))
        np.save(folder / split / "labels.npy", np.arange(40) % 3)
    c.data.update(name="latents", path=str(folder), image_size=4, channels=2)
    config = study(c)
    (name, one), *_ = configs.runs(config)
    run = Run(name, one, Path(config.workdir) / "runs" / name)
    provenance.open_and_admit(run, print)
    (run.folder / "checkpoints" / "8").mkdir(parents=True)
    return config


def test_a_study_whose_data_changed_is_refused_before_anything_is_written_unless_it_is_told(
    tiny_config, tmp_path, monkeypatch
):
    config = latents_study(tiny_config, tmp_path / "data")
    labels = tmp_path / "data" / "train" / "labels.npy"
    whole = np.load(labels)
    np.save(tmp_path / "data" / "train" / "latents.npy", np.load(labels.with_name("latents.npy"))[:-1])
    np.save(labels, whole[:-1])
    tiny_config.only = "d2"  # a job of its own, on a machine with other files
    before = sorted(Path(config.workdir).rglob("*"))
    with pytest.raises(UserError, match=r"run d1 recorded .*: the training split has 39 examples, and had 40"):
        run_job(runner, study(tiny_config), time.time())
    assert sorted(Path(config.workdir).rglob("*")) == before

    trained = []
    result = {"validation": {"ema": {"loss": 1.0, "stderr": 0.1}}, "size": {"parameters": 1}, "split_seconds": {}}
    monkeypatch.setattr(loop, "train", lambda run, display, stop: trained.append(run.name) or result)
    tiny_config.data.changed = "allow"
    assert run_job(runner, study(tiny_config), time.time()) == Exit.DONE
    assert trained == ["d2"]


def test_batches_beyond_memory_are_refused_before_anything_is_written(tiny_config, tmp_path, monkeypatch):
    config = latents_study(tiny_config, tmp_path / "data")
    before = sorted(Path(config.workdir).rglob("*"))
    monkeypatch.setattr(runner.paths.memory, "installed", lambda: 8 * 4 * 4 * 2)
    with pytest.raises(UserError, match=r"batches of 8 images .* GiB of memory, and there are .*training\.batch"):
        run_job(runner, config, time.time())
    assert sorted(Path(config.workdir).rglob("*")) == before
