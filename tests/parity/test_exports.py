"""Exports are opened by the other projects' own code and compute the same; round trips are exact to the bit."""

import dataclasses

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import DiTTransformer2DModel, SD3Transformer2DModel
from parity import torch_side
from parity_cases import CASES, DIT, PT, SD3, Case, bring, ours, uniform
from tiny import tiny

from rfjax import config as configs
from rfjax import interop
from rfjax.training.mesh import make_mesh
from rfjax.training.spec import make_run_spec
from rfjax.training.weights import Weights, abstract

CLASSES = {"sd3": SD3Transformer2DModel, "dit-folder": DiTTransformer2DModel}
SMALL_SHARDS = 20_000  # bytes


def loaded(layout, folder):
    """A diffusers folder opened by diffusers, which must miss nothing and find nothing that it does not know."""
    module, info = CLASSES[layout].from_pretrained(folder, output_loading_info=True, use_safetensors=True)
    assert not any(info.values()), info
    return module.eval()


@pytest.fixture
def same(compared):
    """(name, case, weights, module, seed) -> nothing: our network and a module give the same."""

    def check(name, case, made, module, seed=0):
        given = case.inputs(seed)
        compared(name, ours(case, made, given), torch_side.theirs(case, module, given))

    return check


@pytest.mark.parametrize("case", [*SD3, *DIT], ids=str)
@pytest.mark.parametrize("shard", [0, SMALL_SHARDS], ids=["whole", "sharded"])
def test_diffusers_opens_an_exported_folder(case, shard, tmp_path, same):
    module = torch_side.module(case, 0)
    made = bring(case, torch_side.save(case, module, tmp_path))
    folder = interop.export(made, tmp_path / "out", case.layout, **({"max_shard": shard} if shard else {}))
    assert (len(list(folder.glob("*.safetensors"))) > 1) == bool(shard)
    opened = loaded(case.layout, folder)
    assert_bits(opened.state_dict(), module.state_dict())
    settings = {key: value for key, value in case.settings.items() if not key.startswith("_")}
    known = dict(opened.config)
    known["dual_attention_layers"] = tuple(known.get("dual_attention_layers", ()))
    assert {key: known[key] for key in settings} == settings
    if not shard:
        same(f"{case.layout} exported", case, made, opened)


# The original file does not say how many heads there are: as many as blocks, by its own code, or told by the QK-norm.
FILES = [c for c in SD3 if c.settings["qk_norm"] or c.settings["num_layers"] == c.settings["num_attention_heads"]]


@pytest.mark.parametrize("case", FILES, ids=str)
def test_diffusers_opens_an_exported_single_file(case, tmp_path, same):
    module = torch_side.module(case, 0)
    made = bring(case, torch_side.save(case, module, tmp_path))
    file = interop.export(made, tmp_path / "sd3.safetensors", "sd3-file")
    opened = SD3Transformer2DModel.from_single_file(str(file), config=str(tmp_path), local_files_only=True).eval()
    assert_bits(opened.state_dict(), module.state_dict())
    again = interop.read(file, "sd3-file", configs.Mesh())
    same("sd3-file exported", case, again, opened)


@pytest.mark.parametrize("case", PT, ids=str)
def test_torch_opens_an_exported_file(case, tmp_path, same):
    module, other = torch_side.module(case, 0), torch_side.module(case, 1)
    made = bring(case, torch_side.save(case, module, tmp_path))
    file = interop.export(made, tmp_path / "out.pt", case.layout)
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert_bits(other.state_dict(), module.state_dict())
    same(f"{case.layout} exported", case, made, other)


# Networks that were made here


def trained(backbone, image, seed, **changes):
    """A network as a run of ours leaves it, with random weights."""
    c = tiny()
    c.model.update(backbone=backbone, **changes)
    c.data.update(name="none", image_size=image, channels=3)
    if backbone in ("dit", "sit"):
        c.text.update(encoder="labels", pooled_width=5)
    config = configs.from_dict(c.to_dict())
    configs.check(config)
    spec = make_run_spec(config)
    shapes = abstract(spec, make_mesh(configs.Mesh()))

    def fill(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        inputs = leaf.shape[-4 if "qkv/" in name else -2] if name.endswith("kernel") else 100
        scale = inputs**-0.5
        return (name.endswith("scale") + scale * uniform(name, leaf.shape, seed)).astype(np.float32)

    return Weights(config, spec, jax.tree_util.tree_map_with_path(fill, shapes), 0)


def shown(made, layout, image):
    """A case for the inputs of a network that was made here; its gradients' names are those of the layout."""
    inputs, model = made.spec.inputs, made.spec.model
    (length, width), (pooled,), channels = inputs.cond.context.shape, inputs.cond.pooled.shape, inputs.shape[-1]
    settings = {"in_channels": channels, "out_channels": channels, "joint_attention_dim": width}
    settings |= {"pooled_projection_dim": pooled, "num_embeds_ada_norm": getattr(model, "classes", 0)}
    return Case(f"trained-{layout}", layout, settings, image, length)


def compared_inputs(compared, name, found, expected):
    """Without the weights' gradients: a layout has names for those of networks with a table of positions alone."""
    compared(name, found, {key: expected[key] for key in expected if not key.startswith("grad/weight/")})


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("image", "changes"),
    [
        ((16, 16), {"qk_norm": True}),
        ((16, 16), {"depth": 3, "dual_blocks": 2, "patch": 2}),
        ((8, 24), {"largest_image": 24, "base_image": 8}),
        ((4, 20), {"largest_image": 24, "depth": 1}),
    ],
    ids=["plain", "dual", "wide-image", "odd-crop"],
)
def test_diffusers_opens_an_mmdit_that_was_trained_here(image, changes, seed, tmp_path, compared):
    made = trained("mmdit", 16, seed, **changes)
    assert not made.spec.model.positions.stored  # by formula
    case = shown(made, "sd3", image)
    given = case.inputs(seed)
    folder = interop.export(made, tmp_path / "out", "sd3")
    module = loaded("sd3", folder)
    expected = torch_side.theirs(case, module, given)
    compared_inputs(compared, "sd3 trained here", ours(case, made, given, of_weights=False), expected)
    back = interop.read(folder, "", configs.Mesh())
    compared("sd3 trained here, exported and imported", ours(case, back, given), expected)


@pytest.mark.parametrize("sigma", [False, True])
def test_diffusers_opens_a_dit_that_was_trained_here(sigma, tmp_path, compared):
    made = trained("dit", 16, 0, frequency_shift=1, time="1000t-1", learn_sigma=sigma)
    case = shown(made, "dit-folder", (16, 16))
    case = dataclasses.replace(case, settings=case.settings | {"out_channels": 6 if sigma else 3})
    given = case.inputs(0)
    module = loaded("dit-folder", interop.export(made, tmp_path / "out", "dit-folder"))
    compared("dit-folder trained here", ours(case, made, given), torch_side.theirs(case, module, given))


@pytest.mark.parametrize("layout", ["sit", "repa", "dit"])
def test_a_table_is_written_for_positions_by_formula(layout, tmp_path, compared):
    times = {"sit": "1-t", "repa": "t", "dit": "1000t-1"}
    more = {"projectors": (9,), "projector_width": 12} if layout == "repa" else {}
    made = trained("sit", 16, 0, time=times[layout], width=64, heads=1, **more)
    case = shown(made, layout, (16, 16))
    given = case.inputs(0)
    file = interop.export(made, tmp_path / "x.pt", layout)
    module = torch_side.SiT(16, 4, 3, 3, 2, 64, 1, 5, *more.values()).eval()
    module.load_state_dict(torch.load(file, weights_only=True), strict=True)
    expected = torch_side.theirs(case, module, given)
    compared_inputs(compared, f"{layout} trained here", ours(case, made, given, of_weights=False), expected)


# Round trips


def bits(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def assert_bits(found, expected):
    assert set(found) == set(expected), set(found) ^ set(expected)
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert bits(found[name]) == bits(tensor), name


KINDS = {torch.float32: np.float32, torch.float16: np.float16, torch.bfloat16: ml_dtypes.bfloat16}
ROUND = [CASES[name] for name in ("sd3-plain", "sd3-dual-first", "sd3-dual-one-block", "dit-folder-sigma")] + list(PT)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("case", ROUND, ids=str)
def test_round_trips_are_exact_to_the_bit(case, kind, tmp_path):
    module = torch_side.module(case, 0).to(kind)
    (tmp_path / "in").mkdir()
    made = bring(case, torch_side.save(case, module, tmp_path / "in"))
    assert {leaf.dtype for leaf in jax.tree.leaves(made.params)} == {np.dtype(KINDS[kind])}
    if case.layout in CLASSES:
        out = interop.export(made, tmp_path / "out", case.layout, max_shard=SMALL_SHARDS)
        found = {}
        for file in out.glob("*.safetensors"):
            found |= safetensors.torch.load_file(file)
    else:
        found = torch.load(interop.export(made, tmp_path / "out.pt", case.layout), weights_only=True)
    assert_bits(found, module.state_dict())


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("name", ["sd3-wide-image", "sd3-qk-norm", "sd3-dual-first", "sd3-dual-all"])
def test_round_trips_of_the_single_file_are_exact_to_the_bit(name, kind, tmp_path):
    case = CASES[name]
    made = bring(case, torch_side.save(case, torch_side.module(case, 0), tmp_path))
    shapes = safetensors.torch.load_file(interop.export(made, tmp_path / "shapes.safetensors", "sd3-file"))
    torch.manual_seed(0)  # any finite bits, in a file of safetensors' own
    tensors = {name: torch.randn(value.shape).to(kind) for name, value in shapes.items()}
    (tmp_path / "alone").mkdir()
    safetensors.torch.save_file(tensors, tmp_path / "alone" / "in.safetensors")
    made = interop.read(tmp_path / "alone" / "in.safetensors", "", configs.Mesh())
    found = safetensors.torch.load_file(interop.export(made, tmp_path / "out.safetensors", "sd3-file"))
    assert_bits(found, tensors)
