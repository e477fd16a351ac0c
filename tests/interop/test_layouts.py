"""Whole networks to other projects' checkpoints and back, without torch; tests/parity has the outputs beside theirs."""

import dataclasses
import json
import pickle
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import arrays, jitted, random_parameters

from rfjax import config as configs
from rfjax import interop
from rfjax.errors import UserError
from rfjax.interop import __main__ as command
from rfjax.interop import dit, layouts, sd3
from rfjax.interop.tensors import open_tensors
from rfjax.training import weights
from rfjax.training.parts import make_parts
from rfjax.training.step import abstract_state
from rfjax.training.weights import Weights

MESH = configs.Mesh()


def network(layout, **changes):
    """A tiny network that a layout has a place for, with random weights everywhere."""
    model = {"depth": 3, "width": 64, "heads": 2, "patch": 2, "stored_positions": 5} | changes
    if layout in ("sd3", "sd3-file"):
        model = {"heads": 3, "width": 48, "qk_norm": True, "dual_blocks": 1} | model
        config = sd3.make_config(8, 4, (20, 12), model | {"heads": 3, "width": 48})
    elif layout == "dit-folder":
        config = dit.make_config("dit", (8, 4), 10, model | {"stored_positions": 0, "frequency_shift": 1})
    else:
        more = {"projectors": (6, 5), "projector_width": 16} if layout == "repa" else {}
        config = dit.make_config(layout, (10, 4), 10, model | {"learn_sigma": layout == "sit"} | more | {"heads": 1})
    parts = make_parts(config)
    shapes = weights.abstract(config, parts, weights.meshes.make_mesh(MESH))["projectors"]
    draw = np.random.default_rng(1)
    projectors = jax.tree.map(lambda x: jnp.asarray(draw.standard_normal(x.shape, np.float32)), shapes)
    return Weights(config, parts, random_parameters(parts.model, parts.inputs), 0, projectors)


def target(folder, layout):
    return folder / f"checkpoint{layouts.LAYOUTS[layout].file}"


def same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(
        lambda x, y: np.testing.assert_array_equal(np.asarray(x).view(np.uint8), np.asarray(y).view(np.uint8)), a, b
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_a_round_trip_is_exact_to_the_bit(tmp_path, layout, dtype):
    made = network(layout)
    path = interop.export(made, target(tmp_path, layout), layout, dtype)
    back = interop.read(path, "" if layout in ("sd3", "sd3-file", "dit-folder", "repa") else layout, MESH)
    sent = jax.tree.map(lambda x: x.astype(dtype), {"params": made.params, "projectors": made.projectors})
    same_bits({"params": back.params, "projectors": dict(back.projectors)}, sent)
    changed = {"data"} if layout == "sd3-file" else set()  # a single file does not tell the size of its images
    ours, theirs = made.config.to_dict(), back.config.to_dict()
    assert {name for name in ours if ours[name] != theirs[name]} <= changed


def test_a_second_export_writes_the_same_bytes(tmp_path):
    first = interop.export(network("sd3"), tmp_path / "a", "sd3", "float16", max_shard=100_000)
    interop.bring(first, tmp_path / "run")
    assert (
        command.main(["export", str(tmp_path / "run"), str(tmp_path / "b"), "--layout=sd3", "--shard-bytes=100000"])
        == 0
    )
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "b").iterdir())
    assert len(names) > 3  # several shards, their index and config.json
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_positions_by_formula_travel_as_a_table(tmp_path):
    made = network("sd3", stored_positions=0, largest_image=12, base_image=16)
    back = interop.read(interop.export(made, tmp_path / "a", "sd3"), "", MESH)
    assert back.parts.model.positions.stored == 6
    given = arrays(made.parts.inputs)
    wide = (jnp.concatenate([given[0], given[0]], axis=2)[:, :, :12], *given[1:])
    for inputs in (given, wide):
        ours, theirs = jitted(made.parts.model)(made.params, *inputs), jitted(back.parts.model)(back.params, *inputs)
        np.testing.assert_array_equal(theirs, ours)


def test_a_checkpoint_goes_to_the_devices_in_shards(tmp_path):
    made = network("sd3", width=48, heads=3)
    path = interop.export(made, tmp_path / "a", "sd3")
    back = interop.read(path, "", configs.Mesh(data=2, fsdp=4))
    same_bits(back.params, made.params)
    kernel = back.params["blocks"]["image"]["mlp"]["fc1"]["kernel"]
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(kernel.shape[0], 12, 192)}


def test_a_run_begins_with_what_was_imported(tmp_path, capsys):
    made = network("sit")
    path = interop.export(made, tmp_path / "sit.pt", "sit", "float16")
    assert command.main(["import", str(path), str(tmp_path / "run"), "--layout=sit"]) == 0
    assert f"{sum(x.size for x in jax.tree.leaves(made.params)):,} parameters" in capsys.readouterr().out
    back = weights.read(tmp_path / "run", MESH)
    assert {leaf.dtype for leaf in jax.tree.leaves(back.params)} == {jnp.dtype("float32")}
    same_bits(
        jax.tree.map(lambda x: x.astype("float16"), back.params),
        jax.tree.map(lambda x: x.astype("float16"), made.params),
    )
    with pytest.raises(UserError, match="run is not empty"):
        interop.bring(path, tmp_path / "run", "sit")


def test_sit_runs_the_other_way(tmp_path):
    """v(x, t) = -v_SiT(x, 1 - t): the same file as REPA's and as SiT's (facts of REPA, 1.1)."""
    path = interop.export(network("sit"), tmp_path / "sit.pt", "sit")
    sit, repa = (interop.read(path, layout, MESH) for layout in ("sit", "repa"))
    z, t, context, pooled = arrays(sit.parts.inputs)
    ours = jitted(sit.parts.model)(sit.params, z, t, context, pooled)
    np.testing.assert_array_equal(ours, -jitted(repa.parts.model)(repa.params, z, 1 - t, context, pooled))


# What a user may get wrong.


def test_a_file_that_may_be_anybody_s_asks_whose_it_is(tmp_path):
    path = interop.export(network("dit"), tmp_path / "a.pt", "dit")
    with pytest.raises(UserError, match="say whose it is by the layout dit, sit or repa"):
        interop.read(path, "", MESH)
    with pytest.raises(UserError, match=r"no layout 'sti' .did you mean 'sit'"):
        interop.read(path, "sti", MESH)
    with pytest.raises(UserError, match=r"no tensor model.diffusion_model.x_embedder"):
        interop.read(path, "sd3-file", MESH)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_layers", 4, "says num_layers = 4, and the weights beside it are of 3 blocks"),
        ("joint_attention_dim", 24, r"context_embedder.weight \(48, 20\) where \(48, 24\) was expected"),
        ("pos_embed_max_size", 7, r"pos_embed.pos_embed \(1, 25, 48\) where \(1, 49, 48\) was expected"),
        ("qk_norm", "layer_norm", "qk_norm = 'layer_norm', and rfjax knows"),
        ("qk_norm", None, "14 not expected .*norm_q.weight"),
        ("dual_attention_layers", [1], r"dual_attention_layers = \[1\]"),
        ("caption_projection_dim", 64, "heads x head dim = 48 and caption_projection_dim = 64"),
        ("_class_name", "FluxTransformer2DModel", "of a FluxTransformer2DModel: expected an SD3Transformer2DModel"),
    ],
)
def test_a_folder_whose_config_does_not_fit_its_weights(tmp_path, key, value, message):
    path = interop.export(network("sd3"), tmp_path / "a", "sd3") / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(UserError, match=message):
        interop.read(path.parent, "sd3", MESH)


def test_a_missing_tensor_is_named(tmp_path):
    made = network("sd3")
    path = interop.export(made, tmp_path / "a.safetensors", "sd3-file")
    with open_tensors(path) as tensors:
        found = interop.inspect(tensors)
        left = {name: tensors.read(name) for name in tensors.names if "blocks.1.x_block.attn.ln_k" not in name}
    interop.write_safetensors(path, left.items(), left)
    assert found.layout == "sd3-file"
    with pytest.raises(UserError, match=r"1 missing .*joint_blocks.1.x_block.attn.ln_k.weight"):
        interop.read(path, "", MESH)


def test_other_networks_in_a_single_file_are_left_alone(tmp_path):
    made = network("sd3-file")
    path = interop.export(made, tmp_path / "a.safetensors", "sd3-file")
    with open_tensors(path) as tensors:
        all_of_them = {name: tensors.read(name) for name in tensors.names} | {
            "first_stage_model.decoder.conv_in.weight": np.zeros((4, 4), np.float16)
        }
    interop.write_safetensors(path, all_of_them.items(), all_of_them)
    same_bits(interop.read(path, "", MESH).params, made.params)


def test_a_truncated_file_is_refused(tmp_path):
    path = interop.export(network("sd3"), tmp_path / "a", "sd3") / "diffusion_pytorch_model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(UserError, match=f"cut short or damaged: its header says {len(whole):,} bytes"):
        interop.read(path.parent, "", MESH)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pt_file_that_wants_to_run_code_does_not_run_it(tmp_path):
    path = tmp_path / "evil.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"pos_embed": Evil(tmp_path / "ran")}, protocol=2))
        archive.writestr("archive/version", "3\n")
    with pytest.raises(UserError, match=r"wants to call `.*open`, which is not a tensor"):
        interop.read(path, "sit", MESH)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("layout", "changes", "other", "message"),
    [
        ("sd3", {}, "sit", "'sit' is for dit and sit, not for a 'mmdit'"),
        ("sit", {}, "repa", "'repa' is for networks that are told t, and this one is told 1-t"),
        ("sit", {}, "sd3", "'sd3' is for mmdit, not for a 'sit'"),
        ("dit", {}, "dit-folder", "no table of positions, and this network has one of 5 a side"),
        ("dit-folder", {}, "dit", "no sinusoid with a shift of 1"),
        ("sd3", {"mlp_ratio": 2}, "sd3", "MLPs of ratio 4, and this model's is 2"),
        (
            "sd3",
            {"qk_norm": False, "depth": 2},
            "sd3-file",
            "takes to be 2 at depth 2 and width 48, and this network has 3",
        ),
        ("sit", {"width": 48}, "sit", "takes to be unknown at depth 3 and width 48"),
        ("sit", {"qk_norm": True}, "sit", "no RMSNorm of queries and keys"),
    ],
)
def test_a_network_that_a_layout_has_no_place_for(tmp_path, layout, changes, other, message):
    with pytest.raises(UserError, match=message):
        interop.export(network(layout, **changes), target(tmp_path, other), other)


def test_a_target_that_does_not_suit_the_layout(tmp_path):
    with pytest.raises(UserError, match=r"'sd3' is a folder, not .*a.pt"):
        interop.export(network("sd3"), tmp_path / "a.pt", "sd3")
    with pytest.raises(UserError, match=r"'sit' is a file that ends in .pt"):
        interop.export(network("sit"), tmp_path / "a", "sit")


def test_inspect_says_what_a_checkpoint_is(tmp_path, capsys):
    made = network("repa")
    path = interop.export(made, tmp_path / "a.pt", "repa", "float16")
    assert command.main(["inspect", str(path)]) == 0
    said = capsys.readouterr().out
    for words in ("repa", "depth 3, width 64, 1 heads, patch 2", "10 x 10 x 4", "10 classes", "told     t", "float16"):
        assert words in said
    assert command.main(["inspect", str(interop.export(network("dit"), tmp_path / "b.pt", "dit"))]) == 0
    assert "say whose it is" in capsys.readouterr().out


def fresh(parts):
    """A state of zeros."""
    shapes = abstract_state(parts, weights.meshes.make_mesh(MESH))
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype, device=x.sharding), shapes)


def test_starting_from_another_network_is_refused(tmp_path):
    made = network("sd3")
    weights.write(tmp_path / "run", made)
    state = fresh(made.parts)
    started = weights.start_from(tmp_path / "run", state, made.config)
    same_bits(started.params, made.params)
    same_bits(started.average, made.params)
    for changes, message in (
        ({"depth": 4}, "config.model.depth is 3 there and 4 here"),
        ({"dual_blocks": 0}, "config.model.dual_blocks is 1 there and 0 here"),
    ):
        config = dataclasses.replace(made.config, model=dataclasses.replace(made.config.model, **changes))
        other = fresh(make_parts(config))
        with pytest.raises(UserError, match=message):
            weights.start_from(tmp_path / "run", other, config)
    wider = dataclasses.replace(made.config, text=dataclasses.replace(made.config.text, width=24))
    other = fresh(make_parts(wider))
    with pytest.raises(UserError, match=r"context_embed/kernel of shape \(20, 48\), and here it is \(24, 48\)"):
        weights.start_from(tmp_path / "run", other, wider)
