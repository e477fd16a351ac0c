"""A run stopped at any moment and started again goes on to the same bits."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from tiny import tiny

from rfjax import config as configs
from rfjax import flow
from rfjax.errors import UserError
from rfjax.evaluation import pictures
from rfjax.study import records
from rfjax.training import loop, stop
from rfjax.training import step as steps
from rfjax.training.checkpoints import Checkpoints
from rfjax.training.parts import make_parts
from rfjax.training.step import abstract_state


class StopAt(stop.Stop):
    """A signal that comes at a step, or a crash."""

    def __init__(self, at, crash=False):
        super().__init__()
        self.at, self.crash = at, crash

    def granted(self, step):
        if step == self.at and self.crash:
            raise MemoryError("killed")
        return step == self.at


class Silent:
    """A display that shows nothing."""

    def update(self, step, loss, examples_per_second, flops_per_second):
        pass

    def say(self, activity):
        pass


def make_run(folder, **sections):
    c = tiny()
    for section, values in ({"training": {"validate_every": 4}} | sections).items():
        c[section].update(values)
    return loop.Run("run", configs.parse(c), folder)


def final_state(run):
    mesh = loop.meshes.make_mesh(run.config.mesh)
    parts = make_parts(run.config)
    saved = Checkpoints(run.folder / "checkpoints", 2)
    source = loop.data.open_source(run.config.data, "train")
    batches = loop.data.batches(source, parts.encoder, batch=8, seed=0)
    state, _ = saved.restore(abstract_state(parts, mesh), batches)
    saved.close()
    return jax.device_get(state), next(batches)["image"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("whole"))
    return run, loop.train(run, Silent(), stop.Stop())


def same_bits(run, other):
    (a, next_a), (b, next_b) = final_state(run), final_state(other)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(next_a, next_b)
    ours, theirs = (records._read_rung(r.folder) for r in (run, other))
    assert [line["loss"] for line in ours.train] == [line["loss"] for line in theirs.train]
    for weights in ("raw", "ema"):
        assert [line["loss"] for line in ours.curve(weights)] == [line["loss"] for line in theirs.curve(weights)]
        np.testing.assert_array_equal(ours.examples[weights], theirs.examples[weights])


def test_a_run_leaves_what_the_design_says(whole):
    run, result = whole
    assert json.loads((run.folder / "result.json").read_text())["status"] == "complete"
    assert configs.from_dict(json.loads((run.folder / "config.json").read_text())) == run.config
    assert {p.name for p in (run.folder / "samples").iterdir()} >= {"ema.png", "raw.png", "ema_tiles.png"}
    assert list((run.folder / "tensorboard").iterdir())
    rung = records._read_rung(run.folder)
    assert [line["step"] for line in rung.train] == [2, 4, 6, 8]
    assert [line["step"] for line in rung.curve("ema")] == [4, 8]
    last = rung.final("ema")
    assert last["examples"] == 64
    assert last["flops"] == 64 * rung.size["train_flops"]
    assert last["loss"] == pytest.approx(rung.examples["ema"].reshape(-1, 8).mean(), abs=1e-6)
    assert result["validation"]["ema"]["loss"] == last["loss"]


@pytest.mark.parametrize("at", [3, 4])
def test_a_stopped_run_goes_on_to_the_same_bits(whole, tmp_path, at):
    run = make_run(tmp_path)
    with pytest.raises(stop.Interrupted, match=f"stopped at step {at} of 8"):
        loop.train(run, Silent(), StopAt(at))
    loop.train(run, Silent(), stop.Stop())
    same_bits(run, whole[0])


@pytest.mark.parametrize("at", [2, 7])
def test_a_killed_run_goes_on_to_the_same_bits(whole, tmp_path, at):
    run = make_run(tmp_path)
    with pytest.raises(MemoryError):
        loop.train(run, Silent(), StopAt(at, crash=True))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 8, "lo')  # the killed process was writing
    loop.train(run, Silent(), stop.Stop())
    same_bits(run, whole[0])
    assert records._read_rung(tmp_path).skipped == 1


def test_a_damaged_checkpoint_is_named_and_the_one_before_serves(whole, tmp_path):
    shutil.copytree(whole[0].folder, tmp_path / "run")
    run = dataclasses.replace(whole[0], folder=tmp_path / "run")
    (run.folder / "result.json").unlink()
    for path in (run.folder / "checkpoints" / "8" / "run").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"checkpoints/8 can't be read .* remove that folder to go on"):
        loop.train(run, Silent(), stop.Stop())
    shutil.rmtree(run.folder / "checkpoints" / "8")
    loop.train(run, Silent(), stop.Stop())
    same_bits(run, whole[0])


def test_another_config_in_the_folder_is_refused(whole):
    other = make_run(whole[0].folder, training={"batch": 16})
    with pytest.raises(UserError, match=r"another config: training.batch is 8 there and 16 here"):
        other.result()
    assert whole[0].result()["step"] == 8


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    run = make_run(tmp_path, optimizer={"learning_rate": 1e30, "warmup": 0, "clip": 0.0})
    with pytest.raises(loop.Diverged, match=r"lower config.optimizer.learning_rate"):
        loop.train(run, Silent(), stop.Stop())
    assert records._read_rung(tmp_path).train[-1]["loss"] is None or not (tmp_path / "result.json").exists()


def test_shapes_that_differ_from_the_config_are_named(tmp_path):
    run = make_run(tmp_path, data={"name": "digits", "image_size": 8, "channels": 1}, model={"patch": 2})
    loop.check_shapes(loop.data.open_source(run.config.data, "train"), run.config, make_parts(run.config))
    wrong = dataclasses.replace(run.config, data=dataclasses.replace(run.config.data, channels=3))
    with pytest.raises(
        UserError, match=r"'image' of the data set has shape \(8, 8, 1\), but the config says \(8, 8, 3\)"
    ):
        loop.check_shapes(loop.data.open_source(run.config.data, "train"), run.config, make_parts(wrong))


def test_the_best_step_is_sampled(tmp_path):
    """SD3 App. B.3: samples come from the step with the lowest validation loss under averaged weights."""
    run = make_run(tmp_path, training={"validate_every": 4, "select": "best", "keep_checkpoints": 1})
    result = loop.train(run, Silent(), stop.Stop())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    ema = {line["step"]: line["loss"] for line in lines if line["kind"] == "validation" and line["weights"] == "ema"}
    assert set(ema) == {4, 8}
    assert result["selected_step"] == min(ema, key=ema.get)
    assert {line["step"] for line in lines if line["kind"] == "scores"} == {result["selected_step"]}

    # Make the earlier one the best: its checkpoint was kept, though one alone is asked for.
    text = (tmp_path / "metrics.jsonl").read_text().splitlines()
    changed = [json.dumps(json.loads(line) | {"loss": 1e-3}) if '"step": 4' in line else line for line in text]
    (tmp_path / "metrics.jsonl").write_text("\n".join(changed) + "\n")
    (tmp_path / "result.json").unlink()
    again = loop.train(run, Silent(), stop.Stop())
    assert again["selected_step"] == 4
    assert again["scores"] != result["scores"]


def test_scores_along_a_run_are_those_of_its_averaged_weights(tmp_path):
    run = make_run(tmp_path, samples={"along": True, "settings": ("2@3.0", "3@1.0"), "weights": "ema"})
    loop.train(run, Silent(), stop.Stop())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    found = [(line["step"], line["weights"], line["setting"]) for line in lines if line["kind"] == "scores"]
    assert found == [(4, "ema", "2@3.0"), (8, "ema", "2@3.0"), (8, "ema", "3@1.0")]


def test_runs_that_differ_in_formulation_and_data_share_their_programs(tmp_path):
    parts, programs = [], []
    for i, name in enumerate(("rf/lognorm(0.00,1.00)", "eps/linear", "edm(0.00,0.60)")):
        run = make_run(tmp_path / str(i), flow={"formulation": name})
        loop.train(run, Silent(), stop.Stop())
        parts.append(make_parts(run.config))
        model, image = parts[i].model, parts[i].inputs.image
        sampler = pictures.jit_sampler(model, "euler", "linear", flow.Guidance(0.0), image)
        trained = len([key for key in steps._COMPILED if key[0] == parts[i]])
        programs.append((trained, sampler._cache_size(), steps.jit_network(model)._cache_size()))
    assert parts[0] == parts[1] == parts[2]
    assert programs[0] == programs[1] == programs[2]
    assert programs[0][0] == 1
