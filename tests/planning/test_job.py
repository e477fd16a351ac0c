import dataclasses
import json
import math
import os
import time

import jax
import pipelines
import pytest

from rfjax import config as configs
from rfjax import main, models
from rfjax.errors import UserError
from rfjax.models.blocks import STACKS
from rfjax.planning import advice, job, plan_text, tracing
from rfjax.planning.chips import CHIPS
from rfjax.training import mesh as meshes
from rfjax.training.spec import make_run_spec
from rfjax.training.state import abstract_state

DEVICES = 8


@pytest.fixture
def config(tiny_config):
    tiny_config.mesh.update(data=2, fsdp=4)
    tiny_config.model.remat = "full"
    tiny_config.data.update(name="folder", path="/nowhere", image_size=16, channels=3)  # nobody opens it
    return tiny_config


def planned(c, **changes):
    config = advice.changed(configs.parse(c), changes)
    return job.plan_run("run", config, job.virtual_devices(DEVICES), job.Progress(lambda doing: None))


@pytest.fixture
def uncompiled(monkeypatch):
    """Compiling takes seconds, and most of a plan does not need it."""
    monkeypatch.setattr(job, "compile_step", lambda config, step, devices: None)


def shares(config):
    """path -> (bytes on one device, whether fsdp shares it) of each weight."""
    mesh = meshes.make_mesh(config.mesh)
    params = abstract_state(make_run_spec(config), mesh).params
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        axes = [axis for axis in leaf.sharding.spec if axis]
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        found[name] = 4 * leaf.size // math.prod(mesh.shape[axis] for axis in axes), "fsdp" in axes
    return found


@pytest.mark.job
def test_a_plan_equals_closed_forms_and_what_is_compiled(config, monkeypatch):
    monkeypatch.setattr(job, "_advice", lambda *a: ())
    config.model.depth = 3  # two blocks in a loop, and the last
    plan, run = planned(config), configs.parse(config)
    memory, found = plan.memory, shares(run)
    assert plan.parameters == models.measure(make_run_spec(run).model, make_run_spec(run).inputs).parameters
    assert memory.parameters == memory.gradients == memory.ema == sum(size for size, _ in found.values())
    assert 0 <= memory.optimizer - 2 * memory.parameters < 16  # and AdamW's counters
    # An example, encoded: 16 x 16 x 3 bytes, as many floats of noise, text of 8 x 8 and 8 floats, ten coefficients ...
    assert memory.batch == 16 * 16 * 3 * (1 + 4) + 4 * (8 * 8 + 8 + 10 + 1) + 1
    state = 4 * memory.parameters + memory.optimizer - 2 * memory.parameters
    assert state < memory.traced_peak
    assert 0.5 < memory.traced_peak / memory.compiled_peak < 2
    # What is donated counts once: the new state would not fit in what lies between.
    assert memory.compiled_peak < state + memory.batch + memory.activations + 2 * memory.traced_peak
    # ZeRO-3: in every block weights are gathered twice, elsewhere once, and all gradients are scattered once.
    whole = {name: 4 * size for name, (size, shared) in found.items() if shared}
    blocks = sum(size for name, size in whole.items() if name.split("/")[0] in STACKS)
    lines = {(line.kind, line.axes): line for line in plan.traffic}
    gathered, scattered = (lines[kind, "fsdp"] for kind in ("all-gather", "reduce-scatter"))
    last = sum(size for name, size in whole.items() if name.startswith("last_block"))
    assert scattered.requested == sum(whole.values()) * 3 / 4
    assert gathered.requested == (blocks + sum(whole.values())) * 3 / 4
    # In float32 XLA sends what was asked for, and nothing else of any size; the last block's weights are not gathered
    # for the backward pass, since that begins where the forward pass ends.
    for line in lines.values():
        asked = line.requested - (last * 3 / 4 if line is gathered else 0)
        assert line.compiled == pytest.approx(asked, rel=0.02, abs=512), line
    assert plan.fits
    assert 1 < plan.cost.program_flops / plan.cost.model_flops < 4 / 3
    assert plan.cost.step_seconds == plan.cost.model_flops / (8 * CHIPS["h100"].peak("float32") * 0.4)
    shown = plan_text.format_plan(plan, run)
    assert "fits: 0% of the 68.55 GiB available" in shown
    assert "float32 as TF32" in shown


@pytest.mark.parametrize("backbone", ["uvit", "crossdit"])
def test_a_plan_counts_what_the_network_counts(config, backbone, monkeypatch, uncompiled):
    """A convolution is work too; a step is below three forward passes by the gradients that nothing asks for."""
    monkeypatch.setattr(job, "_advice", lambda *a: ())
    config.model.update(backbone=backbone, remat="none")
    cost = planned(config).cost
    assert 0.99 < cost.program_flops / cost.model_flops <= 1


def test_the_order_of_recomputation_is_that_of_memory(config):
    devices = job.virtual_devices(DEVICES)
    steps = [tracing.trace(advice.changed(configs.parse(config), {"model.remat": r}), devices) for r in advice.REMAT]
    kept = [step.memory.activations for step in steps]
    again = [step.program.recomputed for step in steps]
    assert kept == sorted(kept, reverse=True)
    assert again == sorted(again)
    assert again[0] == 0 < again[-1]


def test_what_does_not_fit_is_told_how(config, monkeypatch, uncompiled):
    config.mesh.update(data=4, fsdp=2)
    config.model.heads = 1
    small = tracing.trace(configs.parse(config), job.virtual_devices(DEVICES)).memory.traced_peak * 0.9
    monkeypatch.setitem(job.CHIPS, "h100", dataclasses.replace(CHIPS["h100"], memory=small))
    monkeypatch.setattr(job, "VERIFY_SECONDS", 0)
    plan = planned(config)
    assert not plan.fits
    (change,) = plan.changes
    assert change.flags == "--config.mesh.data=1 --config.mesh.fsdp=8"
    assert change.fits
    assert change.peak <= plan.limit
    shown = plan_text.format_plan(plan, configs.parse(config))
    assert "DOES NOT FIT" in shown
    assert f"(traced): fits\n      {change.flags}" in shown


def test_advice_goes_from_the_cheapest_to_all_together(config):
    run = dataclasses.replace(configs.parse(config), training=configs.Training(batch=32))
    run = advice.changed(run, {"model.remat": "dots", "mesh.data": 4, "mesh.fsdp": 2})
    mesh = {"data": 4, "fsdp": 2, "tensor": 1}

    def measure(other):
        remat = {"none": 0.5, "dots": 1, "linears": 2, "full": 4}[other.model.remat]
        return 800 // other.mesh.fsdp + int(1600 / remat) // other.training.accumulate

    assert measure(run) == 2000
    (spread,) = advice.suggest(run, mesh, 1700, 2000, measure)[:1]
    assert (spread.settings, spread.peak, spread.fits) == ({"mesh.data": 1, "mesh.fsdp": 8}, 1700, True)
    changes = advice.suggest(run, mesh, 350, 2000, measure)
    assert [change.fits for change in changes] == [False] * (len(changes) - 1) + [True]
    assert changes[-1].settings == {"mesh.data": 1, "mesh.fsdp": 8, "model.remat": "full", "training.accumulate": 2}
    more = advice.suggest(run, mesh, 120, 2000, measure)[-1]
    assert more.settings["plan.devices"] == 16
    assert not more.traced
    assert more.fits
    (room,) = advice.suggest_less_recomputation(advice.changed(run, {"model.remat": "full"}), 1500, measure)
    assert room.settings == {"model.remat": "linears"}
    assert advice.suggest_less_recomputation(run, 350, lambda other: 400) == ()


def test_the_job_writes_a_file_whatever_the_folder_holds(config, tmp_path, uncompiled, capsys):
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "study.json").write_text('{"config": "of another study"}')
    config.plan.devices = DEVICES
    configs.axes(config, {"model.depth": (2,), "training.seed": (0, 1)})
    assert job.run(configs.parse(config), time.time()) == 0
    plan, twin = json.loads((folder / "plan.json").read_text())["plans"]
    assert (plan["name"], twin.pop("name")) == ("d2-seed0", "d2-seed1")
    assert twin.items() <= plan.items()
    assert plan["memory"]["parameters"] == sum(
        s for s, _ in shares(dict(configs.runs(configs.parse(config)))["d2-seed0"]).values()
    )
    assert plan["mesh"] == {"data": 2, "fsdp": 4, "tensor": 1}
    assert sorted(path.name for path in folder.iterdir()) == ["plan.json", "study.json"]
    said = capsys.readouterr().out
    assert "d2-seed0: tracing the training step" in said
    assert "d2-seed1: the same as d2-seed0" in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"plan.devices": 9}, "config.plan.devices = 9, but JAX was started with 8: set XLA_FLAGS"),
        ({"mesh.data": 3}, "does not make up the 8 devices"),
        ({"training.batch": 12}, r"config.training.batch = 12 can't be divided over 8 devices"),
    ],
)
def test_mistakes_are_found_before_anything_is_traced(config, changes, words, monkeypatch):
    monkeypatch.setattr(job, "plan_run", lambda *a: pytest.fail("it must not come to a plan"))
    with pytest.raises(UserError, match=words):
        job.run(advice.changed(configs.parse(config), changes), time.time())


def test_a_run_that_is_not_there(config):
    config.only = "d7"
    configs.axes(config, {"model.depth": (1, 2)})
    with pytest.raises(UserError, match=r"no run 'd7'"):
        job.run(configs.parse(config), time.time())


def test_fewer_copies_stand_for_many(config):
    run = configs.parse(config)
    mesh = meshes.make_mesh(run.mesh)
    assert tracing.fewer_copies(run, mesh) is run
    smaller = tracing.fewer_copies(run, mesh, most=7)
    assert (smaller.mesh.data, smaller.mesh.fsdp, smaller.training.batch) == (1, 4, run.training.batch // 2)
    assert tracing.fewer_copies(run, mesh, most=3) is None


def test_virtual_devices_keep_other_flags(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8 --xla_dump_to=/x")
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    main._virtual_devices(256)
    assert os.environ["XLA_FLAGS"] == "--xla_dump_to=/x --xla_force_host_platform_device_count=256"
    assert os.environ["JAX_PLATFORMS"] == "cpu"


def test_sizes_and_times():
    assert [plan_text.format_bytes(n) for n in (0, 1023, 1536, 3 * 2**40)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "3,072.00 GiB",
    ]
    assert [plan_text.format_seconds(s) for s in (0.5, 100, 7200, 864000)] == ["500 ms", "100 s", "2 hours", "10 days"]


@pytest.mark.parametrize(("stored", "size"), [("float32", 4), ("float16", 2)])
def test_latents_are_planned_as_they_are_stored_and_the_plan_says_so(config, uncompiled, monkeypatch, stored, size):
    monkeypatch.setattr(job, "_advice", lambda *a: ())
    config.data.update(name="latents", image_size=8, channels=4)
    config.plan.latents = stored
    plan, run = planned(config), configs.parse(config)
    # As above, for an example: latents of `size` bytes, floats of noise, text, coefficients, a time and a drop.
    assert plan.memory.batch == 8 * 8 * 4 * (size + 4) + 4 * (8 * 8 + 8 + 10 + 1) + 1
    assert f"exact: examples (latents as {stored}: config.plan.latents), noise and times" in plan_text.format_plan(
        plan, run
    )


def test_pictures_are_planned_as_bytes_whatever_latents_are(config):
    config.plan.latents = "float16"
    run = configs.parse(config)
    spec, mesh = make_run_spec(run), meshes.make_mesh(run.mesh)
    assert tracing.arguments(run, spec, mesh)[0]["z"].dtype == "uint8"


def test_a_plan_counts_frozen_text_encoders_by_their_shards(config, tmp_path):
    """Of their config.json alone: no weights are there."""
    folder = pipelines.write_text(tmp_path)
    for path in folder.rglob("*.safetensors"):
        path.unlink()
    config.text.update(encoder="sd3", path=str(folder), length=97, width=0, pooled_width=0)
    run = configs.parse(config)
    spec, mesh = make_run_spec(run), meshes.make_mesh(run.mesh)
    leaves = jax.tree.leaves(meshes.with_shardings(spec.text.abstract_weights(), mesh))
    local = sum(4 * math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in leaves)
    assert tracing.frozen_bytes(spec, mesh) == local < 4 * sum(leaf.size for leaf in leaves)
    config.text.precision = "bfloat16"
    assert tracing.frozen_bytes(make_run_spec(configs.parse(config)), mesh) < 0.7 * local
