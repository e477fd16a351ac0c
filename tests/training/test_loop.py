"""A run stopped at any moment and started again goes on to the same bits."""

import dataclasses
import itertools
import json
import shutil

import jax
import numpy as np
import pytest
from tiny import tiny

from rfjax import config as configs
from rfjax import data, jsonl
from rfjax.compiling import Compilations
from rfjax.errors import Exit, UserError
from rfjax.study import records
from rfjax.training import checkpoints, context, fingerprint, loop, recovery, stop
from rfjax.training import state as states
from rfjax.training.checkpoints import Checkpoints
from rfjax.training.measurements import validation
from rfjax.training.spec import make_run_spec
from rfjax.training.state import abstract_state


class StopAt(stop.Stop):
    """A signal, or a crash, when the run asks for the n-th time: once a step, and within what it measures."""

    def __init__(self, at, crash=False):
        super().__init__()
        self.at, self.crash, self.asked = at, crash, 0

    def granted(self):
        self.asked += 1
        if self.asked == self.at and self.crash:
            raise MemoryError("killed")
        return self.asked == self.at


class Silent:
    """A display that shows nothing, and keeps warnings."""

    def __init__(self):
        self.warnings = []

    def warn(self, sentence):
        self.warnings.append(sentence)

    def update(self, step, loss, examples_per_second, flops_per_second):
        pass

    def say(self, activity):
        pass


def make_run(folder, **sections):
    c = tiny()
    own = {"training": {"validate_every": 4}, "data": {"alt_text": 0.5, "synthetic_share": 0.5}}
    for section, values in (own | sections).items():
        c[section].update(values)
    return loop.Run("run", configs.parse(c), folder)


def final_state(run):
    mesh = loop.meshes.make_mesh(run.config.mesh)
    parts = make_run_spec(run.config)
    saved = Checkpoints(run.folder / "checkpoints", 2)
    state, _ = saved.restore(abstract_state(parts, mesh))
    saved.close()
    return jax.device_get(state)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("whole"))
    return run, loop.train(run, Silent(), stop.Stop())


def same_bits(run, other):
    for x, y in zip(*(jax.tree.leaves(final_state(each)) for each in (run, other)), strict=True):
        np.testing.assert_array_equal(x, y)
    ours, theirs = (records.read_run(r.folder) for r in (run, other))
    for key in ("loss", "captions_synthetic", "captions_original"):
        assert [line[key] for line in ours.train] == [line[key] for line in theirs.train]
    for weights in ("raw", "ema"):
        assert [line["loss"] for line in ours.curve(weights)] == [line["loss"] for line in theirs.curve(weights)]
        np.testing.assert_array_equal(ours.examples[weights], theirs.examples[weights])


def test_a_run_leaves_what_the_design_says(whole):
    run, result = whole
    assert json.loads((run.folder / "result.json").read_text())["status"] == "complete"
    assert configs.from_dict(json.loads((run.folder / "config.json").read_text())) == run.config
    assert {p.name for p in (run.folder / "samples").iterdir()} >= {"ema.png", "raw.png", "ema_tiles.png"}
    assert list((run.folder / "tensorboard").iterdir())
    rung = records.read_run(run.folder)
    assert [line["step"] for line in rung.train] == [2, 4, 6, 8]
    assert [line["step"] for line in rung.curve("ema")] == [4, 8]
    last = rung.final("ema")
    assert last["examples"] == 64
    assert last["flops"] == 64 * rung.size["train_flops"]
    assert last["loss"] == pytest.approx(rung.examples["ema"].reshape(-1, 8).mean(), abs=1e-6)
    assert result["validation"]["ema"]["loss"] == last["loss"]


def test_along_a_run_the_first_triples_make_a_curve_of_their_own(tmp_path):
    """All triples are measured at the end; repeats of a model draw no pictures where they are told so."""
    few = {"validation": {"along": 8}, "sampling": {"seeds": 1}, "training": {"validate_every": 4, "seed": 1}}
    result = loop.train(make_run(tmp_path, **few), Silent(), stop.Stop())
    rung = records.read_run(tmp_path)
    assert [(line["step"], line["weights"], line["triples"]) for line in rung.validation] == [
        (4, "ema", 8), (8, "raw", 16), (8, "ema", 16),
    ]  # fmt: skip
    curve, final = rung.curve("ema"), rung.final("ema")
    assert [line["triples"] for line in curve] == [8, 8]
    assert final["loss"] == result["validation"]["ema"]["loss"] == pytest.approx(rung.examples["ema"].mean(), abs=1e-6)
    assert curve[-1]["loss"] == pytest.approx(rung.examples["ema"][:8].mean(), abs=1e-6)
    assert curve[-1]["levels"] == pytest.approx(rung.examples["ema"][:8], abs=1e-6)
    assert validation.averaged_loss([("validation", final)]) == curve[-1]["loss"]  # so that the best step is paired too
    assert not (rung.scores or rung.samples or (tmp_path / "samples").exists())


def test_captions_are_counted_by_kind(whole):
    run, _ = whole
    source = data.open_source(run.config.data, "train")
    batches = data.batches(source, lambda examples: {}, data.Order(8, 0, synthetic=0.5), names=())
    found = [int(next(batches)[data.SYNTHETIC].sum()) for _ in range(8)]
    lines = records.read_run(run.folder).train
    pairs = [(line["captions_synthetic"], line["captions_original"]) for line in lines]
    assert pairs == [(n, 16 - n) for n in np.reshape(found, (4, 2)).sum(1).tolist()]
    assert len(set(pairs)) > 1 and all(type(number) is int for pair in pairs for number in pair)


# Eight steps with a validation of two batches for each of two kinds of weights after step 4, and at the end.
@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (3, "at step 3 of 8"),
        (4, "at step 4 of 8"),
        (7, "while measuring the val"),
        (11, "at step 7"),
        (15, "while mea"),
    ],
)
def test_a_stopped_run_goes_on_to_the_same_bits(whole, tmp_path, asked, words):
    run = make_run(tmp_path)
    with pytest.raises(stop.Interrupted, match=words) as stopped:
        loop.train(run, Silent(), StopAt(asked))
    assert stopped.value.code == Exit.PREEMPTED
    loop.train(run, Silent(), stop.Stop())
    same_bits(run, whole[0])
    lines, _ = jsonl.read_lines(run.folder / "metrics.jsonl")
    steps = [line["step"] for line in lines if line["kind"] == "validation"]
    assert len(steps) == len(set(steps)) * 2 + (asked in (7, 15))  # measured again only where it was interrupted


@pytest.mark.parametrize("asked", [2, 11])
def test_a_killed_run_goes_on_to_the_same_bits(whole, tmp_path, asked):
    run = make_run(tmp_path)
    with pytest.raises(MemoryError):
        loop.train(run, Silent(), StopAt(asked, crash=True))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 8, "lo')  # the killed process was writing
    loop.train(run, Silent(), stop.Stop())
    same_bits(run, whole[0])
    assert records.read_run(tmp_path).skipped == 0


def largest_file(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def cut(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty_folder(folder):
    shutil.rmtree(folder / "run")


def lose_a_file(folder):
    largest_file(folder).unlink()


def overwrite(folder):
    path = largest_file(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = b"\x55" * 64
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, empty_folder, lose_a_file, overwrite])
def test_a_damaged_checkpoint_is_named_and_the_one_before_serves(whole, tmp_path, damage):
    shutil.copytree(whole[0].folder, tmp_path / "run")
    run = dataclasses.replace(whole[0], folder=tmp_path / "run")
    (run.folder / "result.json").unlink()
    damage(run.folder / "checkpoints" / "8")
    display = Silent()
    loop.train(run, display, stop.Stop())
    same_bits(run, whole[0])
    assert "run/checkpoints/8 " in display.warnings[0] and "the one before it serves" in display.warnings[0]
    assert (run.folder / "checkpoints.damaged" / "8").is_dir()


def test_numbers_that_changed_are_noticed_by_their_fingerprint(whole):
    state = final_state(whole[0])
    known = np.asarray(fingerprint.fingerprint(state))
    leaves, tree = jax.tree.flatten(state)
    for i in range(0, len(leaves), 7):
        changed = np.array(leaves[i])
        flat = changed.reshape(-1).view(np.uint32)
        flat[-1] ^= 1 << 3
        others = [*leaves[:i], changed, *leaves[i + 1 :]]
        differ = np.asarray(fingerprint.fingerprint(jax.tree.unflatten(tree, others))) != known
        assert differ.tolist() == [j == i for j in range(len(leaves))]
    swapped = jax.tree.map(lambda x: x[..., ::-1] if x.ndim and (x != x[..., ::-1]).any() else x, state)
    differ = np.asarray(fingerprint.fingerprint(swapped)) != known
    assert differ.sum() > 0.5 * len(leaves)
    mesh = loop.meshes.make_mesh(configs.Mesh(2, 2, 2))
    spread = jax.device_put(state, loop.meshes.shard_tree(state, mesh))
    np.testing.assert_array_equal(fingerprint.fingerprint(spread), known)
    np.testing.assert_array_equal(fingerprint.fingerprint_on_devices(spread), known)


@pytest.mark.job
def test_a_run_goes_on_with_another_mesh(whole, tmp_path):
    """Eight devices sharing the batch, then four sharing weights and heads: the same within rounding."""
    run = make_run(tmp_path)
    with pytest.raises(stop.Interrupted):
        loop.train(run, Silent(), StopAt(4))
    other = make_run(tmp_path, mesh={"data": 2, "fsdp": 2, "tensor": 2})
    assert not other.complete()
    again = loop.train(other, Silent(), stop.Stop())
    loss = whole[1]["validation"]["raw"]["loss"]
    assert again["validation"]["raw"]["loss"] == pytest.approx(loss, rel=1e-6)  # measured: 1.3e-8


def test_a_full_disk_ends_a_run_with_a_sentence(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(UserError, match=r"a checkpoint takes 0.4 MB, and .*checkpoints has 0.0 MB left: make room"):
        loop.train(run, Silent(), stop.Stop())
    monkeypatch.undo()
    assert loop.train(run, Silent(), stop.Stop())["step"] == 8


def test_another_config_in_the_folder_is_refused(whole):
    other = make_run(whole[0].folder, training={"batch": 16})
    with pytest.raises(UserError, match=r"another config: training.batch is 8 there and 16 here"):
        other.complete()
    assert whole[0].complete()


def spoil(monkeypatch, *numbers):
    """Makes training batches with these numbers worthless."""
    real = loop.data.batches

    def batches(source, prepare, order, rows, start, *, names):
        kept = (k for k in itertools.count() if k not in order.skip)
        made = real(source, prepare, order, rows, start, names=names)
        numbered = zip(itertools.islice(kept, start, None), made, strict=False)
        for number, batch in numbered:
            bad = np.full_like(batch["image"], np.nan, np.float32)
            yield {**batch, "image": bad if number in numbers else batch["image"].astype(np.float32)}

    monkeypatch.setattr(loop.data, "batches", batches)


def test_a_loss_that_is_not_finite_stops_the_run_with_step_and_checkpoint(tmp_path, monkeypatch):
    spoil(monkeypatch, 6)
    run = make_run(tmp_path)
    with pytest.raises(loop.Diverged, match=r"the loss is nan at step 7, after the checkpoint of step 4: lower config"):
        loop.train(run, Silent(), stop.Stop())
    assert not (tmp_path / "result.json").exists()
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"4"}


def test_a_validation_loss_that_is_not_finite_fails_the_run(whole, tmp_path, monkeypatch):
    """Of a run that is trained to its end: it measures, and has no result; nor when it tries again."""
    shutil.copytree(whole[0].folder, tmp_path / "run")
    run = dataclasses.replace(whole[0], folder=tmp_path / "run")
    (run.folder / "result.json").unlink()
    real, calls = validation.validation.measure, itertools.count()

    def measure(*arguments, **more):
        found = real(*arguments, **more)
        return dataclasses.replace(found, loss=np.inf) if next(calls) % 2 else found

    monkeypatch.setattr(validation.validation, "measure", measure)
    for _ in range(2):
        with pytest.raises(validation.NotFinite, match=r"loss is not finite \(inf with ema weights at step 8\)"):
            loop.train(run, Silent(), stop.Stop())
        assert not run.complete()


def test_with_recovery_the_batch_is_skipped_and_said(tmp_path, monkeypatch):
    spoil(monkeypatch, 1, 6)
    run, display = make_run(tmp_path, recovery={"skips": 2}), Silent()
    result = loop.train(run, display, stop.Stop())
    assert np.isfinite(result["validation"]["raw"]["loss"])
    assert display.warnings == [
        "run: the loss is nan at step 2: goes back to step 0 and skips batch 1",
        "run: the loss is nan at step 6: goes back to step 4 and skips batch 6",
    ]
    assert [(s.step, s.batch, s.back_to) for s in recovery.read(tmp_path)] == [(2, 1, 0), (6, 6, 4)]

    # A fresh run that never saw those batches ends at the same bits.
    whole = make_run(tmp_path / "whole")
    recovery.write(whole.folder, recovery.read(tmp_path))
    loop.train(whole, Silent(), stop.Stop())
    same_bits(run, whole)

    again = make_run(tmp_path / "again", recovery={"skips": 1})
    with pytest.raises(loop.Diverged, match=r"step 6, after the checkpoint of step 4 and 1 batch"):
        loop.train(again, Silent(), stop.Stop())


def test_a_loss_explodes_when_it_is_many_times_the_recent_ones():
    health = states.Health(jax.numpy.full(states.RECENT, jax.numpy.inf), 0, 0.0)
    assert int(health.after(1e9, True, 5, 10.0).bad_step) == 0  # nothing to compare with yet
    known = health.replace(recent=jax.numpy.arange(1.0, states.RECENT + 1))
    assert int(known.after(79.0, True, 5, 10.0).bad_step) == 0
    bad = known.after(81.0, True, 5, 10.0)
    assert (int(bad.bad_step), float(bad.bad_loss)) == (5, 81.0)
    assert int(bad.after(jax.numpy.nan, False, 6, 10.0).bad_step) == 5
    assert int(known.after(81.0, True, 5, 0.0).bad_step) == 0
    assert int(known.after(81.0, False, 5, 0.0).bad_step) == 5


@pytest.mark.job
def test_attention_is_measured_block_by_block(tmp_path):
    run = make_run(tmp_path, training={"attention_every": 4, "validate_every": 0}, model={"depth": 3})
    loop.train(run, Silent(), stop.Stop())
    lines, _ = jsonl.read_lines(tmp_path / "metrics.jsonl")
    found = [line for line in lines if line["kind"] == "attention"]
    assert [line["step"] for line in found] == [0, 4]
    for line in found:
        assert len(line["entropy"]) == len(line["largest_logit"]) == 3
        assert all(0 < value <= np.log(16 + 8) + 1e-5 for value in line["entropy"])
        assert line["entropy_last_5"] == pytest.approx(np.mean(line["entropy"]))


def test_shapes_that_differ_from_the_config_are_named(tmp_path):
    run = make_run(tmp_path, data={"name": "digits", "image_size": 8, "channels": 1}, model={"patch": 2})
    source = data.open_source(run.config.data, "train")
    context.check_shapes(source, make_run_spec(run.config))
    wrong = dataclasses.replace(run.config, data=dataclasses.replace(run.config.data, channels=3))
    with pytest.raises(
        UserError, match=r"'image' of the data set has shape \(8, 8, 1\), but the config says \(8, 8, 3\)"
    ):
        context.check_shapes(source, make_run_spec(wrong))


def test_the_best_step_is_sampled(tmp_path):
    """SD3 App. B.3: samples come from the step with the lowest validation loss under averaged weights."""
    run = make_run(tmp_path, training={"validate_every": 4, "select": "best", "keep_checkpoints": 1})
    result = loop.train(run, Silent(), stop.Stop())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    ema = {line["step"]: line["loss"] for line in lines if line["kind"] == "validation" and line["weights"] == "ema"}
    assert set(ema) == {4, 8}
    assert result["selected_step"] == min(ema, key=ema.get)
    assert {line["step"] for line in lines if line["kind"] == "scores"} == {result["selected_step"]}


def test_the_best_step_is_known_from_the_checkpoint_whatever_the_log_says(tmp_path, monkeypatch):
    """Its checkpoint is kept, though one alone is asked for, and a run that goes on without its log finds it."""
    run = make_run(tmp_path, training={"validate_every": 4, "select": "best", "keep_checkpoints": 1})
    real = validation.Validation.run

    def lower(self, context, state, at):
        for kind, values in real(self, context, state, at):
            yield kind, values | ({"loss": 1e-3} if at.step == 4 and kind == "validation" else {})

    monkeypatch.setattr(validation.Validation, "run", lower)
    with pytest.raises(stop.Interrupted):
        loop.train(run, Silent(), StopAt(11))
    (tmp_path / "metrics.jsonl").unlink()
    result = loop.train(run, Silent(), stop.Stop())
    assert result["selected_step"] == 4
    lines, _ = jsonl.read_lines(tmp_path / "metrics.jsonl")
    assert {line["step"] for line in lines if line["kind"] == "scores"} == {4}


def test_scores_along_a_run_are_those_of_its_averaged_weights(tmp_path):
    run = make_run(tmp_path, sampling={"along": True, "settings": ("2@3.0", "3@1.0"), "weights": "ema"})
    loop.train(run, Silent(), stop.Stop())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    found = [(line["step"], line["weights"], line["setting"]) for line in lines if line["kind"] == "scores"]
    assert found == [(4, "ema", "2@3.0"), (8, "ema", "2@3.0"), (8, "ema", "3@1.0")]


def test_runs_that_differ_in_formulation_share_their_programs(tmp_path):
    specs, heard = [], Compilations()
    for i, name in enumerate(("rf/lognorm(0.00,1.00)", "eps/linear", "edm(0.00,0.60)")):
        run = make_run(tmp_path / str(i), flow={"formulation": name})
        loop.train(run, Silent(), stop.Stop())
        specs.append(make_run_spec(run.config))
        counts = {name: len(heard.programs.get(name, ())) for name in ("update", "apply", "run", "encode", "sample")}
        if i == 0:
            first = counts
    assert specs[0] == specs[1] == specs[2]
    assert counts == first  # those of the first run serve them all


def test_a_share_of_synthetic_captions_that_are_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="has a synthetic caption: set it to 0, or name data with both kinds"):
        loop.train(make_run(tmp_path, data={"synthetic_share": 0.5}), Silent(), stop.Stop())
