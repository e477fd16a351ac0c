"""Published Vision Transformers: their features beside transformers' (recorded by `make parity RECORD=1`), the
resampling of positions, the count of FLOPs, and what is said of files that hold something else."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import vision_cases
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny
from vision_cases import CASES, MOCO, RECORDED, TOLERANCE, difference, opened, ours, recorded, weights, write

from rfjax import config as configs
from rfjax.encoders.features import FeatureEncoder, make_feature_encoder
from rfjax.encoders.vision import encoder as module
from rfjax.encoders.vision import features, open_encoder
from rfjax.encoders.vision.families import describe
from rfjax.encoders.vision.loading import MISSPELT
from rfjax.encoders.vision.parts import parts
from rfjax.encoders.vision.resampling import RULES, resample_table, resize_matrix
from rfjax.encoders.vision.vit import rotate, rotations
from rfjax.errors import UserError
from rfjax.models.counting import jaxpr_flops, traced_matmul_flops
from rfjax.tensors.pt import write_pt
from rfjax.tensors.safetensors import write_safetensors
from rfjax.training import mesh as meshes
from rfjax.training.encode import EncodeStage

BY_NAME = {case.name: case for case in CASES}
LIMIT = 200_000  # bytes of all recordings


def saved(name, folder):
    """The case's files; returns (tensors, config, what is to be opened)."""
    shapes, config, _ = recorded(name)
    folder.mkdir(exist_ok=True)
    tensors = weights(shapes)
    return tensors, config, write(folder, tensors, config)


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    """An encoder on 4 x 6 tokens, with layer scales, a class token and resampled positions."""
    return opened(BY_NAME["dinov2"], saved("dinov2", tmp_path_factory.mktemp("dinov2"))[2])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_features_are_those_of_transformers(case, tmp_path):
    *_, path = saved(case.name, tmp_path)
    assert difference(ours(case, path), recorded(case.name)[2]) <= TOLERANCE


def test_recordings_are_those_of_the_cases_and_small():
    files = {path.stem: path.stat().st_size for path in RECORDED.iterdir()}
    assert set(files) == set(BY_NAME)
    assert sum(files.values()) < LIMIT


@pytest.mark.parametrize("case", CASES, ids=str)
def test_flops_are_those_of_the_traced_program(case, tmp_path):
    encoder = opened(case, saved(case.name, tmp_path)[2])
    image = jax.ShapeDtypeStruct((1, *encoder.image), jnp.uint8)
    tree = encoder.abstract_weights()
    jax.tree.map(lambda x, y: np.testing.assert_equal((x.shape, x.dtype), (y.shape, y.dtype)), tree, encoder.weights())
    assert traced_matmul_flops(lambda w, x: encoder.encode(w, {"image": x}, None), tree, image) == encoder.flops


# Positions and pictures on other grids


@pytest.mark.parametrize(
    ("rule", "target", "source", "row"),
    [  # facts of torch's three ways, the last of DINOv2's own code
        ("bicubic", 16, 37, [0.326126, 0.784904, -0.111031]),
        ("antialias", 16, 37, [0.387186, 0.441451, 0.209256, -0.003057, -0.031817, -0.003020]),
        ("offset", 16, 37, [0.333955, 0.776929, -0.110883]),
        ("bicubic", 16, 14, [1.041199, -0.041199]),
        ("antialias", 16, 14, [1.028517, -0.028517]),
    ],
)
def test_first_rows_of_the_matrices(rule, target, source, row):
    found = resize_matrix(target, source, rule)[0]
    np.testing.assert_allclose(found, row + [0.0] * (source - len(row)), rtol=0, atol=1e-6)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(RULES))
def test_constants_stay(target, source, rule):
    np.testing.assert_allclose(resize_matrix(target, source, rule).sum(1), 1, rtol=0, atol=1e-12)


@given(st.integers(1, 40), st.sampled_from(["bicubic", "antialias"]))
def test_the_same_length_changes_nothing(length, rule):
    np.testing.assert_array_equal(resize_matrix(length, length, rule), np.eye(length))


@pytest.mark.parametrize(("target", "source"), [(16, 37), (16, 14), (5, 9), (12, 4)])
def test_antialias_is_that_of_jax(target, source):
    """Both are PIL's. jax has no `bicubic`: its kernel has another parameter."""
    expected = jax.image.resize(jnp.eye(source), (target, source), "cubic", antialias=True)
    np.testing.assert_allclose(resize_matrix(target, source, "antialias"), expected, rtol=0, atol=5e-7)


def test_a_table_is_resampled_along_rows_and_columns():
    rows, columns = np.arange(4.0)[:, None, None], np.arange(4.0)[None, :, None]
    table = np.concatenate(np.broadcast_arrays(rows, columns, rows * columns), axis=-1)
    found = resample_table(table, (3, 6), "bicubic").reshape(3, 6, 3)
    np.testing.assert_allclose(found[..., 0], np.repeat(found[:, :1, 0], 6, 1), atol=1e-12)
    np.testing.assert_allclose(found[..., 1], np.repeat(found[:1, :, 1], 3, 0), atol=1e-12)
    np.testing.assert_allclose(found[..., 2], found[..., 0] * found[..., 1], atol=1e-12)


@given(st.integers(0, 4), st.integers(0, 4))
def test_rotated_products_depend_on_the_distance_alone(i, j):
    cos, sin = rotations((1, 7), 8, 100.0)
    q, k = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)
    full = lambda x: rotate(jnp.broadcast_to(jnp.asarray(x), (1, 8, 1, 8)), cos, sin)[0, :, 0]  # noqa: E731
    q, k = full(q), full(k)
    np.testing.assert_array_equal(q[0], np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)[0])
    at = lambda i, j: float(q[1 + i] @ k[1 + j])  # noqa: E731
    assert abs(at(i, j) - at(i + 2, j + 2)) < 2e-5


@given(st.integers(1, 1024), st.integers(1, 1024))
def test_tokens_are_square(height, width):
    rows, columns = module.tokens_of(height, width)
    assert min(rows, columns) == max(16, min(height, width) // 16)
    assert columns / rows == pytest.approx(width / height, abs=max(1 / rows, width / height / rows))


@pytest.mark.parametrize(
    ("picture", "tokens"),
    [
        ((256, 256), (16, 16)),
        ((512, 512), (32, 32)),
        ((32, 32), (16, 16)),
        ((28, 56), (16, 32)),
        ((512, 256), (32, 16)),
    ],
)
def test_tokens_by_repas_rule(picture, tokens):
    assert module.tokens_of(*picture) == tokens


# What users see


def test_pictures_may_be_bytes_or_floats_and_in_batches_of_any_size(dinov2):
    images = BY_NAME["dinov2"].images[[0, 1, 1, 0, 1]]
    weights = dinov2.weights()
    found = features(dinov2, images, weights, batch=2)
    assert found.shape == (5, 24, 32) and found.dtype == np.float32
    same = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5 * abs(found).max())
    same(features(dinov2, images / np.float32(255), weights, batch=2), found)
    same(found[[0, 1]], found[[3, 4]])
    assert features(dinov2, images[:0], weights).shape == (0, 24, 32)


def test_bfloat16_products_change_little(dinov2):
    """Features are float32 still, and within a few units of bfloat16's last place, 2^-8: 0.007 was measured."""
    narrow = dataclasses.replace(dinov2, dtype="bfloat16")
    found = features(narrow, BY_NAME["dinov2"].images)
    assert found.dtype == np.float32
    assert 1e-4 < difference(found, recorded("dinov2")[2]) < 4 / 256


def test_grey_pictures_are_three_equal_channels(dinov2):
    grey = jnp.asarray(BY_NAME["dinov2"].images[..., :1])
    np.testing.assert_allclose(dinov2.pixels(grey), dinov2.pixels(jnp.repeat(grey, 3, axis=-1)), rtol=0, atol=2e-6)


def test_a_run_names_its_encoder(dinov2):
    c = tiny()
    config = configs.parse(c)
    encoder = make_feature_encoder(f"vision@{dinov2.path}#4", config)
    assert isinstance(encoder, FeatureEncoder) and hash(encoder) == hash(encoder)
    assert (encoder.grid, encoder.size, encoder.width, encoder.reads) == ((4, 4), (28, 28), 32, ("image",))
    assert encoder.image == (16, 16, 3)


def test_pictures_lie_beside_latents_of_an_eighth_of_their_side(dinov2):
    config = configs.parse(tiny())
    latents = dataclasses.replace(config.data, name="latents", image_size=32, channels=4)
    encoder = make_feature_encoder(f"vision@{dinov2.path}", dataclasses.replace(config, data=latents))
    assert (encoder.image, encoder.grid) == ((256, 256, 3), (16, 16))


def test_the_program_does_not_grow_with_the_depth(tmp_path):
    tensors, config, _ = saved("dinov2", tmp_path)

    def lines(depth):
        held = {k: v for k, v in tensors.items() if ".layer." not in k or int(k.split(".")[2]) < depth}
        folder = tmp_path / str(depth)
        folder.mkdir()
        encoder = opened(BY_NAME["dinov2"], write(folder, held, config | {"num_hidden_layers": depth}))
        run = jax.make_jaxpr(lambda w, x: encoder.encode(w, {"image": x}, None))
        jaxpr = run(encoder.weights(), jax.ShapeDtypeStruct((1, *encoder.image), jnp.uint8))
        return len(str(jaxpr).splitlines()), jaxpr_flops(jaxpr.jaxpr)

    (one, small), (three, large) = lines(1), lines(3)
    assert one == three and small < large


def test_weights_are_spread_over_the_mesh_and_give_the_same_features(dinov2):
    mesh = meshes.make_mesh(configs.Mesh(data=2, fsdp=2, tensor=2))
    stage = EncodeStage.place((dinov2,), mesh)
    blocks = stage.weights[0]["blocks"]
    kernels = [blocks["qkv"]["linear"], blocks["out"], blocks["mlp"]["fc1"], blocks["mlp"]["fc2"]]
    assert all("fsdp" in one["kernel"].sharding.spec for one in kernels)
    images = np.repeat(BY_NAME["dinov2"].images, 4, axis=0)
    batch = meshes.put_rows({"image": images, "slot": np.arange(8)}, 8, mesh)
    found = np.asarray(stage(batch, jnp.uint32(0), jnp.int32(0))[dinov2.name])
    assert difference(found[::4], recorded("dinov2")[2]) <= TOLERANCE


# Files


def same_weights(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found.weights(), expected.weights())


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_a_tower_alone_is_read_with_and_without_its_prefix(name, tmp_path):
    case = BY_NAME[name]
    tensors, config, whole = saved(name, tmp_path / "whole")
    tower = {k: v for k, v in tensors.items() if k.startswith("vision_model.")}
    alone = config["vision_config"] | {"model_type": f"{name}_vision_model"}
    for folder, start in (("with", "vision_model."), ("without", "")):
        (tmp_path / folder).mkdir()
        renamed = {start + k.removeprefix("vision_model."): v for k, v in tower.items()}
        path = write(tmp_path / folder, renamed, alone)
        same_weights(opened(case, path), opened(case, whole))


def test_what_equals_a_default_is_filled_in():
    """Of a full SigLIP, whose config has no more of the vision tower than this."""
    base = describe({"model_type": "siglip", "vision_config": {"model_type": "siglip_vision_model"}}, "config.json")
    arch = base.arch
    assert (arch.width, arch.depth, arch.heads, arch.hidden, arch.patch, base.side) == (768, 12, 12, 3072, 16, 14)
    assert (arch.activation, arch.epsilon, arch.cls, arch.final_norm) == ("gelu_tanh", 1e-6, False, True)


def test_shards_are_read_through_their_index(tmp_path):
    case = BY_NAME["dinov2"]
    tensors, config, whole = saved("dinov2", tmp_path / "whole")
    shards = tmp_path / "shards"
    shards.mkdir()
    write_safetensors(shards, tensors.items(), tensors, max_shard_bytes=20_000)
    assert len(list(shards.glob("*.safetensors"))) > 2
    (shards / "config.json").write_text(json.dumps(config), encoding="utf-8")
    same_weights(opened(case, shards), opened(case, whole))
    same_weights(opened(case, next(shards.glob("*.index.json"))), opened(case, whole))


def test_mocos_misspelt_names_are_mended(tmp_path):
    case = BY_NAME["mocov3"]
    shapes, _, _ = recorded("mocov3")
    block = {name: shape for name, shape in shapes.items() if ".blocks.0." in name}
    deep = shapes | {n.replace(".0.", f".{i}.", 1): s for i in range(3, 15) for n, s in block.items()}
    tensors = weights(deep)

    def spoilt(name):
        for wrong, right in MISSPELT.items():
            name = name.replace(right, wrong)
        return name

    assert sum(spoilt(name) != name for name in tensors) == 8
    for file, named in (("right", lambda name: name), ("wrong", spoilt)):
        held = {named(name): value for name, value in tensors.items()} | {"module.predictor.0.weight": np.ones(3)}
        write_pt(tmp_path / f"{file}.pth.tar", held.items(), held)
    encoders = [opened(case, tmp_path / f"{file}.pth.tar") for file in ("right", "wrong")]
    assert encoders[0].what.arch.depth == 15
    same_weights(*encoders)


@pytest.mark.parametrize(
    ("settings", "count"),
    [  # exact, from instances of transformers; those of DINOv2 and DINOv3 have a mask token, of one more width
        ({"model_type": "dinov2", "image_size": 518}, 86_580_480 - 768),
        ({"model_type": "dinov2", "image_size": 518, "hidden_size": 1536, "num_hidden_layers": 40,
          "num_attention_heads": 24, "use_swiglu_ffn": True}, 1_136_480_768 - 1536),
        ({"model_type": "dinov2_with_registers", "image_size": 518, "patch_size": 14}, 86_583_552 - 768),
        ({"model_type": "dinov3_vit", "num_register_tokens": 4}, 21_596_544 - 384),
        ({"model_type": "dinov3_vit", "num_register_tokens": 4, "use_gated_mlp": True}, 28_692_864 - 384),
        ({"model_type": "dinov3_vit", "num_register_tokens": 4, "hidden_size": 1280, "intermediate_size": 5120,
          "num_hidden_layers": 32, "num_attention_heads": 20, "use_gated_mlp": True}, 840_592_640 - 1280),
        ({"model_type": "vit_mae", "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
          "intermediate_size": 4096}, 303_301_632 - 2 * 1024),  # less the last norm
        ({"model_type": "ijepa", "hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16,
          "intermediate_size": 5120, "patch_size": 14}, 630_762_240),
        ({"model_type": "vit"}, 85_798_656),
        ({"model_type": "clip", "vision_config": {"hidden_size": 1024, "num_hidden_layers": 24, "patch_size": 14,
          "num_attention_heads": 16, "intermediate_size": 4096}}, 303_179_776 - 2 * 1024),
    ],
)  # fmt: skip
def test_parameters_of_published_encoders(settings, count):
    sizes = {part.name: int(np.prod(part.shape)) for part in parts(describe(settings, "config.json"))}
    assert sum(sizes.values()) == count


def drop(word):
    return lambda tensors, config: ({k: v for k, v in tensors.items() if word not in k}, config)


def put(**changes):
    return lambda tensors, config: (tensors, {k: v for k, v in (config | changes).items() if v != "gone"})


def squeeze(tensors, config):
    return tensors | {"layernorm.weight": tensors["layernorm.weight"][:-1]}, config


def add(tensors, config):
    return tensors | {"encoder.layer.0.adapter.weight": np.ones(3, np.float32)}, config


BAD = {
    "no-config": (lambda tensors, config: (tensors, None), "has no config.json"),
    "no-weights": (lambda tensors, config: ({}, config), "holds no .safetensors file"),
    "unknown-kind": (
        put(model_type="resnet"),
        "has model_type 'resnet', and the encoders that can be read are clip, clip_vision_model, dinov2, ",
    ),
    "no-kind": (put(model_type="gone"), "has model_type None"),
    "other-kind": (put(model_type="ijepa"), "lacks"),
    "missing": (drop("layer.1.mlp.fc2.bias"), "lacks 1 of its 60 tensors, such as encoder.layer.1.mlp.fc2.bias"),
    "missing-patches": (drop("projection.weight"), "lacks dinov2.embeddings.patch_embeddings.projection.weight"),
    "misshapen": (squeeze, r"whose layernorm.weight has the shape \(32,\); in .* it has \(31,\)"),
    "surplus": (add, "holds 1 tensors more than that, such as encoder.layer.0.adapter.weight"),
    "shallower": (put(num_hidden_layers=2), "holds 18 tensors more than that"),
    "deeper": (put(num_hidden_layers=4), "lacks 18 of its 78 tensors"),
    "wider": (put(hidden_size=64), r"has the shape \(64, 3, 7, 7\)"),
    "patch": (put(patch_size=5), r"patches of 5 pixels \(patch_size\) do not divide an image_size of 28"),
    "heads": (put(num_attention_heads=5), "5 attention heads do not divide the hidden_size 32"),
    "grey": (put(num_channels=1), "has num_channels = 1"),
    "no-size": (put(hidden_size="wide"), "has hidden_size = 'wide': it must be a whole number from 1 to 65536"),
    "oblong": (put(image_size=[28, 35]), r"has image_size = \[28, 35\]"),
    "epsilon": (put(layer_norm_eps=-1.0), "has layer_norm_eps = -1.0: it must be a number above 0"),
    "activation": (put(hidden_act="gelo"), "has hidden_act 'gelo', which is not known here"),
    "tower": (put(model_type="clip", vision_config=7), "has a vision_config that is no object"),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_hold_something_else(name, tmp_path):
    change, message = BAD[name]
    shapes, config, _ = recorded("dinov2")
    tensors, config = change(weights(shapes), config)
    if tensors:
        vision_cases.write(tmp_path, tensors, config or {"a": 1})
    else:
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if config is None:
        (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match=message):
        opened(BY_NAME["dinov2"], tmp_path)


def test_a_file_of_another_project(tmp_path):
    tensors = {"blocks.0.attn.qkv.weight": np.ones((96, 32), np.float32)}
    for file, value in (("other", tensors), ("moco", {f"{MOCO}patch_embed.proj.weight": np.ones((33, 3, 7, 7))})):
        write_pt(tmp_path / f"{file}.pth", value.items(), value)
    open_ = functools.partial(open_encoder, image=(32, 32, 3))
    with pytest.raises(UserError, match=r"holds no encoder of the kind MoCo v3: it lacks module.base_encoder.patch"):
        open_(tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"has the width 33, and MoCo v3 stores no number of heads"):
        open_(tmp_path / "moco.pth")
    with pytest.raises(UserError, match="lacks 17 of its 18 tensors"):
        open_(tmp_path / "moco.pth", heads=3)
    with pytest.raises(UserError, match=r"there is no .*: give a folder with config.json"):
        open_(tmp_path / "nothing")


def test_files_that_changed_since(tmp_path):
    tensors, config, path = saved("dinov2", tmp_path)
    encoder = opened(BY_NAME["dinov2"], path)
    write(tmp_path, tensors, config | {"layer_norm_eps": 1e-5})
    with pytest.raises(UserError, match="has changed: it holds another encoder than before"):
        encoder.weights()


def test_a_config_alone_is_enough_for_a_plan(tmp_path):
    where = tmp_path / "config.json"
    where.write_text(json.dumps({"model_type": "dinov2", "image_size": 518}), encoding="utf-8")
    encoder = open_encoder(where, (256, 256, 3))
    sizes = [leaf.size for leaf in jax.tree.leaves(encoder.abstract_weights())]
    # One table of 16 x 16 in place of 1 + 37 x 37, and no mask token; the class token has its position in it.
    assert sum(sizes) == 86_580_480 - 768 - (1 + 37**2 - 16**2) * 768
    # 12 blocks of 257 tokens: 12 D^2 and, for the attention, 2 T D for each; the patches; 256 x 256 to 224 x 224.
    macs = 12 * 257 * (12 * 768**2 + 2 * 257 * 768) + 256 * 588 * 768 + 3 * 224 * 256 * (256 + 224)
    assert encoder.flops == 2 * macs
    with pytest.raises(UserError, match=r"describes an encoder without its weights: name the folder"):
        encoder.weights()


def test_colours_of_the_folder_come_before_those_of_the_family(tmp_path):
    *_, path = saved("dinov2", tmp_path)
    where = path / "preprocessor_config.json"
    where.write_text(json.dumps({"image_mean": [0.430, 0.411, 0.296]}), encoding="utf-8")
    assert opened(BY_NAME["dinov2"], path).colours == ((0.430, 0.411, 0.296), (0.229, 0.224, 0.225))
    where.write_text(json.dumps({"image_std": [0.5, 0.5, 0]}), encoding="utf-8")
    with pytest.raises(UserError, match=r"has image_std = .*: it must be three numbers above 0"):
        opened(BY_NAME["dinov2"], path)


@pytest.mark.parametrize("argument", ["", "#4", "folder#four", "folder#0"])
def test_an_argument_that_says_nothing(argument):
    with pytest.raises(UserError, match="must be written vision@FOLDER"):
        make_feature_encoder(f"vision@{argument}", configs.parse(tiny()))


def test_pictures_that_can_not_be_encoded(dinov2):
    with pytest.raises(UserError, match=r"encodes pictures \(H, W, 1 or 3\), and an example is \(4, 16, 16, 3\)"):
        open_encoder(dinov2.path, (4, 16, 16, 3))
    with pytest.raises(UserError, match=r"'bicubik' is no rule of resampling .did you mean 'bicubic'"):
        open_encoder(dinov2.path, (16, 16, 3), rule="bicubik")
    with pytest.raises(UserError, match="encodes pictures, and the data set has latent"):
        dinov2.prepare({"latent": np.zeros((1, 4, 4, 4))}, [""])
