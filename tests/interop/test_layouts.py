"""Whole networks to other projects' checkpoints and back, without torch; tests/parity has the outputs beside theirs."""

import dataclasses
import functools
import json
import os
import pickle
import subprocess
import sys
import zipfile

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from networks import arrays, jitted, random_parameters

from rfjax import config as configs
from rfjax import interop
from rfjax.errors import UserError
from rfjax.interop import CheckpointInfo, dit, layouts, recognition, sd3
from rfjax.interop import __main__ as command
from rfjax.tensors import transfer
from rfjax.tensors.opening import open_tensors
from rfjax.tensors.pt import write_pt
from rfjax.training import weights
from rfjax.training.spec import make_run_spec
from rfjax.training.state import abstract_state
from rfjax.training.weights import Weights

MESH = configs.Mesh()


@functools.cache
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
        heads = {"heads": changes.get("heads", 1)}
        config = dit.make_config(layout, (10, 4), 10, model | {"learn_sigma": layout == "sit"} | more | heads)
    spec = make_run_spec(config)
    return Weights(config, spec, random_parameters(spec.model, spec.inputs), 0)


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
    same_bits(back.params, jax.tree.map(lambda x: x.astype(dtype), made.params))
    assert ("projector_1" in back.params) == (layout == "repa")
    changed = {"data"} if layout == "sd3-file" else set()  # a single file does not tell the size of its images
    ours, theirs = made.config.to_dict(), back.config.to_dict()
    assert {name for name in ours if ours[name] != theirs[name]} <= changed


def test_a_second_export_writes_the_same_bytes(tmp_path):
    first = interop.export(network("sd3"), tmp_path / "a", "sd3", "float16", max_shard=100_000)
    interop.import_checkpoint(first, tmp_path / "run")
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
    assert back.spec.model.positions.stored == 6
    given = arrays(made.spec.inputs)
    wide = (jnp.concatenate([given[0], given[0]], axis=2)[:, :, :12], *given[1:])
    for inputs in (given, wide):
        ours, theirs = jitted(made.spec.model)(made.params, *inputs), jitted(back.spec.model)(back.params, *inputs)
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
    back = weights.read_weights(tmp_path / "run", MESH)
    assert {leaf.dtype for leaf in jax.tree.leaves(back.params)} == {jnp.dtype("float32")}
    same_bits(
        jax.tree.map(lambda x: x.astype("float16"), back.params),
        jax.tree.map(lambda x: x.astype("float16"), made.params),
    )
    with pytest.raises(UserError, match="run is not empty"):
        interop.import_checkpoint(path, tmp_path / "run", "sit")


def test_sit_runs_the_other_way(tmp_path):
    """v(x, t) = -v_SiT(x, 1 - t): the same file as REPA's and as SiT's (facts of REPA, 1.1)."""
    path = interop.export(network("sit"), tmp_path / "sit.pt", "sit")
    sit, repa = (interop.read(path, layout, MESH) for layout in ("sit", "repa"))
    z, t, cond = arrays(sit.spec.inputs)
    ours = jitted(sit.spec.model)(sit.params, z, t, cond)
    np.testing.assert_array_equal(ours, -jitted(repa.spec.model)(repa.params, z, 1 - t, cond))


# What a user may get wrong.


def test_a_file_that_may_be_anybody_s_asks_whose_it_is(tmp_path):
    path = interop.export(network("dit"), tmp_path / "a.pt", "dit")
    with pytest.raises(UserError, match="choose the layout dit, sit or repa"):
        interop.read(path, "", MESH)
    with pytest.raises(UserError, match=r"no layout 'sti' .did you mean 'sit'"):
        interop.read(path, "sti", MESH)
    with pytest.raises(UserError, match=r"no tensor model.diffusion_model.x_embedder"):
        interop.read(path, "sd3-file", MESH)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_layers", 4, "has num_layers = 4, but the weights beside it have 3 blocks"),
        ("joint_attention_dim", 24, r"context_embedder.weight \(48, 20\) where \(48, 24\) was expected"),
        ("pos_embed_max_size", 7, r"pos_embed.pos_embed \(1, 25, 48\) where \(1, 49, 48\) was expected"),
        ("qk_norm", "layer_norm", "qk_norm = 'layer_norm', and rfjax knows"),
        ("qk_norm", None, "14 unexpected .*norm_q.weight"),
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


def write_any(path, tensors):
    """A safetensors file of (kind, shape, bytes) by name, whatever the kind."""
    header, end = {}, 0
    for name, (kind, shape, data) in tensors.items():
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(data for *_, data in tensors.values()))
    return path


def test_sd3_s_all_in_one_file_is_read_for_its_network_alone(tmp_path, capsys):
    """sd3_medium_incl_clips_t5xxlfp8: the network and CLIP in half precision, T5 in eight bits, which nobody needs."""
    made = network("sd3-file")
    half = jax.tree.map(lambda x: x.astype(jnp.float16), made.params)
    path = interop.export(dataclasses.replace(made, params=half), tmp_path / "a.safetensors", "sd3-file")
    with open_tensors(path) as tensors:
        whole = {name: ("F16", tensors.shape(name), tensors.read(name).tobytes()) for name in tensors.names}
    whole |= {
        "first_stage_model.decoder.conv_in.weight": ("F16", (4, 4), bytes(32)),
        "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.weight": ("F16", (2, 2), bytes(8)),
        "text_encoders.t5xxl.transformer.shared.weight": ("F8_E4M3", (3, 5), bytes(15)),
        "text_encoders.t5xxl.transformer.encoder.final_layer_norm.weight": ("F6_UNHEARD_OF", (4,), bytes(3)),
    }
    file = write_any(tmp_path / "all.safetensors", whole)
    same_bits(interop.read(file, "", MESH).params, half)
    assert command.main(["inspect", str(file)]) == 0
    assert "float8_e4m3fn (1 tensors), F6_UNHEARD_OF (1 tensors)" in capsys.readouterr().out
    strange = next(name for name in whole if "context_embedder.weight" in name)
    whole[strange] = ("F6_UNHEARD_OF", *whole[strange][1:])
    with pytest.raises(
        UserError, match=r"1 of an unknown type \(model.diffusion_model.context_embedder.weight in F6_UN"
    ):
        interop.read(write_any(file, whole), "", MESH)


def test_a_network_in_eight_bits_is_widened_without_loss(tmp_path):
    made, eight = network("sd3-file"), ml_dtypes.float8_e4m3fn
    small = jax.tree.map(lambda x: np.asarray(x).astype(eight), made.params)
    path = interop.export(made, tmp_path / "a.safetensors", "sd3-file")
    with open_tensors(path) as tensors:
        whole = {name: tensors.read(name).astype(eight) for name in tensors.names}
    path = write_any(path, {name: ("F8_E4M3", array.shape, array.tobytes()) for name, array in whole.items()})
    same_bits(interop.read(path, "", MESH).params, jax.tree.map(lambda x: jnp.asarray(x.astype(jnp.bfloat16)), small))
    brought = interop.import_checkpoint(path, tmp_path / "run")
    same_bits(brought.params, jax.tree.map(lambda x: jnp.asarray(x.astype(np.float32)), small))
    target = ["export", str(tmp_path / "run"), str(tmp_path / "b"), "--layout=sd3"]
    assert command.main(target) == 0
    with open_tensors(tmp_path / "b") as tensors:
        assert {tensors.kind(name) for name in tensors.names} == {"bfloat16"}


def test_heads_that_no_width_tells_are_said(tmp_path, capsys):
    """A width that is no multiple of 64; the numbers are those of a network with as many heads."""
    made = network("sit", width=48, heads=3)
    where = dit.layout(made.spec.model, made.spec.inputs)
    leaves = interop.flat(made.params)
    write_pt(tmp_path / "a.pt", transfer.dump(leaves, where), transfer.specs(leaves, where))
    with pytest.raises(UserError, match=r"width 48: no size of DiT's and no multiple of 64.*with --heads"):
        interop.read(tmp_path / "a.pt", "sit", MESH)
    with pytest.raises(UserError, match="--heads=5 does not divide it"):
        command.main(["inspect", str(tmp_path / "a.pt"), "--layout=sit", "--heads=5"])
    with pytest.raises(UserError, match="--heads=-1 must be"):
        command.main(["inspect", str(tmp_path / "a.pt"), "--layout=sit", "--heads=-1"])
    assert command.main(["import", str(tmp_path / "a.pt"), str(tmp_path / "run"), "--layout=sit", "--heads=3"]) == 0
    back = weights.read_weights(tmp_path / "run", MESH)
    assert back.config.model.heads == back.spec.model.heads == 3
    same_bits(back.params, made.params)
    path = interop.export(network("sd3"), tmp_path / "b", "sd3")
    with pytest.raises(UserError, match="'sd3' stores the number of heads"):
        command.main(["inspect", str(path), "--heads=3"])


def test_variants_and_files_elsewhere_by_hand(tmp_path, capsys):
    made = network("sd3")
    folder = interop.export(made, tmp_path / "a", "sd3")
    half = interop.export(made, tmp_path / "b", "sd3", "float16") / "diffusion_pytorch_model.safetensors"
    (folder / "diffusion_pytorch_model.fp16.safetensors").symlink_to(half)
    assert command.main(["inspect", str(folder)]) == 0
    assert "float32 (" in capsys.readouterr().out
    words = ["inspect", str(folder), "--variant=fp16"]
    with pytest.raises(UserError, match=r"outside its folder: copy the file into the folder, or .* --allow-outside"):
        command.main(words)
    assert command.main([*words, "--allow-outside"]) == 0
    assert "float16 (" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("layout", "value", "message"),
    [
        ("sd3", {"num_layers": 10**12}, "num_layers = 1000000000000 must be a whole number from 1 to"),
        ("sd3", {"num_layers": None}, "num_layers = None must be"),
        ("sd3", {"patch_size": 0}, "patch_size = 0 must be"),
        ("sd3", {"num_attention_heads": "3"}, "num_attention_heads = '3' must be"),
        ("sd3", {"sample_size": 8.5}, "sample_size = 8.5 must be"),
        ("sd3", {"dual_attention_layers": {"a": 1}}, "dual_attention_layers = "),
        ("sd3", {"qk_norm": ["\x1b[2J"]}, r"qk_norm = \['\\x1b"),
        ("sd3", {"_class_name": [1]}, "is of a .1.: expected an SD3Transformer2DModel"),
        ("dit-folder", {"num_layers": 4}, "has num_layers = 4, but the weights beside it have 3 blocks"),
        ("dit-folder", {"attention_head_dim": -4}, "attention_head_dim = -4 must be"),
        ("dit-folder", {"num_embeds_ada_norm": True}, "num_embeds_ada_norm = True must be"),
    ],
)
def test_nonsense_in_a_config_is_named(tmp_path, layout, value, message):
    path = interop.export(network(layout), tmp_path / "a", layout) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | value))
    with pytest.raises(UserError, match=message):
        interop.read(path.parent, layout, MESH)


def test_a_config_that_is_no_json_object_is_named(tmp_path):
    path = interop.export(network("sd3"), tmp_path / "a", "sd3") / "config.json"
    for text, message in (("[" * 99999, "json nests lists"), ("3", "holds a whole number"), ("{", "is not JSON")):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            interop.read(path.parent, "", MESH)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"config.json is a FIFO"):
        interop.read(path.parent, "", MESH)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"x_embedder.proj.weight": (0, 4, 2, 2)}, r"x_embedder.proj.weight of shape \(0, 4, 2, 2\): expected 4 axes"),
        ({"x_embedder.proj.weight": (64, 4)}, "expected 4 axes that are not empty"),
        ({"blocks.7.attn.qkv.weight": (3, 1)}, "has a block number 7 but no block number 3"),
        ({"blocks.999999999999.x": (1,)}, "1 unexpected"),
        ({"pos_embed": (1, 24, 64)}, r"pos_embed \(1, 24, 64\) where \(1, 25, 64\)"),
    ],
)
def test_shapes_that_tell_nonsense_are_named(tmp_path, shapes, message):
    made = network("sit")
    where = interop.layout_of(CheckpointInfo("sit", made.config), made.spec)
    tensors = {name: np.zeros(shape, np.float16) for name, shape in (transfer.manifest(where) | shapes).items()}
    write_pt(tmp_path / "a.pt", tensors.items(), tensors)
    with pytest.raises(UserError, match=message):
        interop.read(tmp_path / "a.pt", "sit", MESH)


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
    with pytest.raises(UserError, match=r"wants to call `.*open`, but only tensors"):
        interop.read(path, "sit", MESH)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("layout", "changes", "other", "message"),
    [
        ("sd3", {}, "sit", "'sit' stores dit and sit, not 'mmdit'"),
        ("sit", {}, "repa", "'repa' stores networks with config.model.time = t, and this one has 1-t"),
        ("sit", {}, "sd3", "'sd3' stores mmdit, not 'sit'"),
        ("dit", {}, "dit-folder", "no table of positions, and this network has one of side 5"),
        ("dit-folder", {}, "dit", "no sinusoid with a shift of 1"),
        ("sd3", {"mlp_ratio": 2}, "sd3", "MLPs of ratio 4, but this model has ratio 2"),
        (
            "sd3",
            {"qk_norm": False, "depth": 2},
            "sd3-file",
            "assume 2 at depth 2 and width 48, but this network has 3",
        ),
        ("sit", {"width": 48}, "sit", "assume no number at depth 3 and width 48"),
        ("sit", {"qk_norm": True}, "sit", "no RMSNorm of queries and keys"),
        ("sit", {"modulation": "token"}, "sit", r"stores adaLN's weights, and this network has none"),
        ("sd3", {"modulation": "none"}, "sd3", r"config.model.modulation = 'none'"),
    ],
)
def test_a_network_that_a_layout_has_no_place_for(tmp_path, layout, changes, other, message):
    with pytest.raises(UserError, match=message):
        interop.export(network(layout, **changes), target(tmp_path, other), other)


def test_a_target_that_does_not_suit_the_layout(tmp_path):
    with pytest.raises(UserError, match=r"'sd3' needs a folder, not .*a.pt"):
        interop.export(network("sd3"), tmp_path / "a.pt", "sd3")
    with pytest.raises(UserError, match=r"'sit' needs a file that ends in .pt"):
        interop.export(network("sit"), tmp_path / "a", "sit")


def test_inspect_says_what_a_checkpoint_is(tmp_path, capsys):
    made = network("repa")
    path = interop.export(made, tmp_path / "a.pt", "repa", "float16")
    assert command.main(["inspect", str(path)]) == 0
    said = capsys.readouterr().out
    for words in (
        "repa",
        "depth 3, width 64, 1 heads, patch 2",
        "10 x 10 x 4",
        "10 classes",
        "time        t",
        "float16",
    ):
        assert words in said
    with pytest.raises(UserError, match="choose the layout dit, sit or repa"):
        command.main(["inspect", str(interop.export(network("dit"), tmp_path / "b.pt", "dit"))])
    assert "tensors: float32 (" in capsys.readouterr().out


def test_inspect_ends_with_code_2_where_a_checkpoint_is_not_known(tmp_path):
    """What it has is said all the same; the sentence goes to stderr."""
    made = {"module.blocks.0.attn.qkv.weight": np.zeros((6, 2), np.float32), "head\x1b[2J": np.zeros(1, np.int64)}
    path = interop.write_safetensors(tmp_path / "x.safetensors", made.items(), made)
    done = subprocess.run(
        [sys.executable, "-m", "rfjax.interop", "inspect", str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "2 tensors: " in done.stdout and "float32 (1)" in done.stdout
    assert "it has 2 tensors (head, module.blocks.0.attn.qkv.weight); nearest is" in done.stderr
    assert "after the prefix 'module.'; it lacks" in done.stderr


def test_a_folder_that_can_t_be_written_is_a_sentence(tmp_path):
    path = interop.export(network("repa"), tmp_path / "a.pt", "repa")
    for words in (["import", str(path), str(path / "run")], ["inspect", str(path / "x")]):
        with pytest.raises(UserError, match=r"a.pt.* can't be used: Not a directory|there is no .*a.pt/x"):
            command.main(words)
    with pytest.raises(UserError, match="--shard-bytes=0 must be"):
        command.main(["export", str(tmp_path), str(tmp_path / "b"), "--layout=sd3", "--shard-bytes=0"])


@pytest.mark.parametrize(
    "text", ["[", "5", "{}", '{"dtypes": 5}', '{"dtypes": {"a": "float99"}}', '{"dtypes": {"a": []}}', "[" * 99999]
)
def test_a_damaged_record_of_where_weights_come_from_is_named(tmp_path, text):
    (tmp_path / interop.ORIGIN).write_text(text)
    with pytest.raises(UserError, match=r"origin.json .*: import the checkpoint again, or remove the file"):
        interop.origin(tmp_path)


def test_inspect_says_what_an_import_would_say(tmp_path):
    path = interop.export(network("sd3"), tmp_path / "a", "sd3") / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"joint_attention_dim": 24}))
    with pytest.raises(UserError, match=r"context_embedder.weight .48, 20. where .48, 24. was expected"):
        command.main(["inspect", str(path.parent)])


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_a_network_that_lacks_a_few_tensors_is_nearest_to_its_own_layout(tmp_path, layout):
    names = set(
        transfer.manifest(interop.layout_of(CheckpointInfo(layout, network(layout).config), network(layout).spec))
    )
    kept = {name for name in names if "attn" in name or "mlp" in name or "projectors" in name}
    said = recognition.compare({f"_orig_mod.{name}" for name in kept})
    same = {"dit": "dit", "sit": "dit"}.get(layout, layout)  # the two have one set of names
    assert f"nearest is {same}, of which it has" in said and "after the prefix '_orig_mod.'; it lacks " in said
    assert f"it has {len(kept)} tensors (" in said
    assert recognition.compare(["conv1.weight"]).endswith("and none of these layouts has such names")


def fresh(spec):
    """A state of zeros."""
    shapes = abstract_state(spec, weights.meshes.make_mesh(MESH))
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype, device=x.sharding), shapes)


def test_starting_from_another_network_is_refused(tmp_path):
    made = network("sd3")
    weights.write(tmp_path / "run", made)
    state = fresh(made.spec)
    started = weights.start_from(tmp_path / "run", state, made.spec, made.config)
    same_bits(started.params, made.params)
    same_bits(started.ema_params, made.params)
    for changes, message in (
        ({"depth": 4}, "config.model.depth is 3 there and 4 here"),
        ({"dual_blocks": 0}, "config.model.dual_blocks is 1 there and 0 here"),
    ):
        config = dataclasses.replace(made.config, model=dataclasses.replace(made.config.model, **changes))
        spec = make_run_spec(config)
        with pytest.raises(UserError, match=message):
            weights.start_from(tmp_path / "run", fresh(spec), spec, config)
    wider = dataclasses.replace(made.config, text=dataclasses.replace(made.config.text, width=24))
    spec = make_run_spec(wider)
    with pytest.raises(UserError, match=r"context_embed/kernel of shape \(20, 48\), and here it is \(24, 48\)"):
        weights.start_from(tmp_path / "run", fresh(spec), spec, wider)
