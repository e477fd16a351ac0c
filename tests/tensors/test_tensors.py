"""safetensors files: bit-exact round trips, rows, shards, folders; one sentence for each way a file can be wrong."""

import json
import os
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfjax.errors import UserError
from rfjax.tensors.opening import open_tensors
from rfjax.tensors.pt import write_pt
from rfjax.tensors.safetensors import write_safetensors
from rfjax.tensors.stored import DTYPES

EXAMPLE = {
    "a.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "a.bias": np.arange(3, dtype=np.float16),
    "step": np.array(7, np.int64),
}


def bits(array):
    return np.ascontiguousarray(array).tobytes()


@st.composite
def arrays(draw):
    dtype, shape = draw(st.sampled_from(list(DTYPES.values()))), tuple(draw(st.lists(st.integers(0, 5), max_size=3)))
    raw = np.random.default_rng(draw(st.integers(0, 99))).integers(
        0, 256, int(np.prod(shape)) * dtype.itemsize, np.uint8
    )
    return (raw & 1 if dtype.kind == "b" else raw).view(dtype).reshape(shape)  # any bits: NaN and infinities too


@given(st.dictionaries(st.text(max_size=8), arrays(), max_size=6), st.integers(1, 200), st.randoms())
def test_what_is_written_is_read_bit_for_bit(tmp_path_factory, tensors, most, order):
    folder = tmp_path_factory.mktemp("written")
    shuffled = list(tensors.items())
    order.shuffle(shuffled)
    write_safetensors(folder, shuffled, tensors, max_shard_bytes=most)
    with open_tensors(folder) as found:
        assert set(found.names) == set(tensors)
        for name, array in tensors.items():
            assert (found.shape(name), found.dtype(name)) == (array.shape, array.dtype)
            assert bits(found.read(name)) == bits(array)
            for rows in found.bands(name):
                assert bits(found.read(name, rows)) == bits(array if rows is None else array[slice(*rows)])
    assert not list(folder.glob(".*.partial"))


def test_rows_are_read_alone(tmp_path):
    tensors = {"wide": np.random.default_rng(0).normal(size=(400, 5)).astype(ml_dtypes.bfloat16)}
    with open_tensors(write_safetensors(tmp_path / "x.safetensors", tensors.items(), tensors)) as found:
        assert bits(found.read("wide", (3, 17))) == bits(tensors["wide"][3:17])
        assert found.read("wide", (3, 3)).shape == (0, 5)
        assert found.where("wide") == tmp_path / "x.safetensors"


def test_shards_have_hugging_faces_names_and_an_index(tmp_path):
    index = write_safetensors(tmp_path, EXAMPLE.items(), EXAMPLE, max_shard_bytes=54)
    assert json.loads(index.read_text()) == {
        "metadata": {"total_size": 62},
        "weight_map": {
            "a.weight": "diffusion_pytorch_model-00001-of-00002.safetensors",
            "a.bias": "diffusion_pytorch_model-00001-of-00002.safetensors",
            "step": "diffusion_pytorch_model-00002-of-00002.safetensors",
        },
    }
    assert index.name == "diffusion_pytorch_model.safetensors.index.json"
    with open_tensors(index) as found:
        assert found.names == tuple(EXAMPLE)


def test_data_is_aligned_to_its_width_and_the_header_to_eight_bytes(tmp_path):
    tensors = {"odd": np.zeros(3, np.uint8), "wide": np.zeros(2, np.float64), "half": np.zeros(1, np.float16)}
    data = write_safetensors(tmp_path / "x.safetensors", tensors.items(), tensors).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert length % 8 == 0 and header.pop("__metadata__") == {"format": "pt"}
    assert all(header[name]["data_offsets"][0] % array.itemsize == 0 for name, array in tensors.items())


def test_folders(tmp_path):
    inner = write_safetensors(tmp_path / "transformer", EXAMPLE.items(), EXAMPLE)
    with open_tensors(tmp_path) as found:
        assert found.source == inner
    for name in ("one", "two"):
        write_safetensors(tmp_path / f"{name}.safetensors", EXAMPLE.items(), EXAMPLE)
    with pytest.raises(UserError, match=r"several checkpoints \(one.safetensors, two.safetensors\)"):
        open_tensors(tmp_path)
    with pytest.raises(UserError, match="holds other weights already"):
        write_safetensors(tmp_path, EXAMPLE.items(), EXAMPLE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty holds no .safetensors file"):
        open_tensors(tmp_path / "empty")


def test_torch_files_open_too(tmp_path):
    write_pt(tmp_path / "x.pt", EXAMPLE.items(), EXAMPLE)
    with open_tensors(tmp_path / "x.pt") as found:
        assert {name: bits(found.read(name)) for name in found.names} == {name: bits(x) for name, x in EXAMPLE.items()}


def test_a_broken_write_leaves_nothing(tmp_path):
    for given_, fault in ((list(EXAMPLE.items())[:2], "are missing"), ([("b", np.zeros(1))], "manifest has None"),
                          ([("a.bias", np.zeros(3))], "float64")):  # fmt: skip
        with pytest.raises(ValueError, match=fault):
            write_safetensors(tmp_path / "x.safetensors", given_, EXAMPLE)
    strange = {"x": np.zeros(2, ml_dtypes.float8_e4m3fn)}
    with pytest.raises(UserError, match="float8_e4m3fn, which can't be written"):
        write_safetensors(tmp_path / "x.safetensors", strange.items(), strange)
    assert not list(tmp_path.iterdir())


def header(**entries):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


def deep(text):
    return struct.pack("<Q", len(text)) + text


def twice(value):
    return deep(b'{"a":' + value + b',"a":' + value + b"}")


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "0 bytes in all"),
        (b"\xff" * 20, "cut short or no safetensors file"),
        (struct.pack("<Q", 4) + b"nope", "header is not JSON"),
        (struct.pack("<Q", 2) + b"[]", "header holds a list, not an object"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (header(a={"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}) + bytes(5), r"says \d+ bytes, the file has"),
        (header(a={"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}) + bytes(8), "gives a, F32"),
        (header(a={"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}), "gives a, F32"),
        (header(a={"dtype": "F32", "shape": [2]}) + bytes(8), "header is corrupt at a: KeyError"),
        (header(a=5), "header is corrupt at a"),
        (header(a={"dtype": "F32", "shape": 2, "data_offsets": [0, 8]}) + bytes(8), "header is corrupt at a"),
        (header(a={"dtype": [], "shape": [2], "data_offsets": [0, 8]}) + bytes(8), "header is corrupt at a"),
        (header(a={"dtype": "F32", "shape": [True, 2], "data_offsets": [0, 8]}) + bytes(8), "header is corrupt at a"),
        (header(a={"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}) + bytes(8), "header is corrupt at a"),
        (header(a={"dtype": "F32", "shape": [1] * 99, "data_offsets": [0, 4]}) + bytes(4), "99 axes"),
        (header(a={"dtype": "F32", "shape": [0, 10**30], "data_offsets": [0, 0]}), "header is corrupt at a"),
        (header(a={"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
                b={"dtype": "U8", "shape": [4], "data_offsets": [2, 6]}) + bytes(6), "b, bytes 2 to 6, overlaps"),
        (header(a={"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
                b={"dtype": "U8", "shape": [4], "data_offsets": [6, 10]}) + bytes(10), "b, bytes 6 to 10, lies 2 b"),
        (twice(b'{"dtype":"U8","shape":[4],"data_offsets":[0,4]}') + bytes(4), "names a more than once"),
        (deep(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "more than 4 deep"),
        (deep(b'{"a":' * 100_000), "more than 4 deep"),
        (struct.pack("<Q", 2**40) + bytes(20), "a header of 1,099,511,627,776 bytes in a file of 28"),
    ],
)  # fmt: skip
def test_damaged_files_are_named(tmp_path, data, fault):
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(UserError, match=rf"x\.safetensors.*{fault}"):
        open_tensors(tmp_path / "x.safetensors")


def test_damaged_indices_are_named(tmp_path):
    index = write_safetensors(tmp_path, EXAMPLE.items(), EXAMPLE, max_shard_bytes=54)
    second = tmp_path / "diffusion_pytorch_model-00002-of-00002.safetensors"
    text = index.read_text()
    index.write_text(text.replace('"step"', '"stop"'))
    with pytest.raises(UserError, match=r"names .*00002-of-00002\.safetensors as the file of stop"):
        open_tensors(tmp_path)
    index.write_text(text)
    second.unlink()
    with pytest.raises(UserError, match=r"names 2 files, and .*00002-of-00002\.safetensors is missing"):
        open_tensors(tmp_path)
    for content, fault in (
        ("[]", "holds a list"), ("{}", "weight_map"), ('{"weight_map": {"a": 5}}', "weight_map"),
        ('{"weight_map":' * 9999, "more than 4 deep"), ("", "is empty"),
        ('{"weight_map": {"a": "x\\u0000y"}}', "a character that no file name can have"),
    ):  # fmt: skip
        index.write_text(content)
        with pytest.raises(UserError, match=fault):
            open_tensors(index)


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    path = write_safetensors(tmp_path / "x.safetensors", EXAMPLE.items(), EXAMPLE)
    with open_tensors(path) as found:
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(UserError, match=r"\d+ bytes are missing"):
            [found.read(name) for name in found.names]


def test_what_is_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match=r"there is no .*nowhere"):
        open_tensors(tmp_path / "nowhere")
    (tmp_path / "x.onnx").write_bytes(b"")
    with pytest.raises(UserError, match=r"x.onnx must end in .safetensors"):
        open_tensors(tmp_path / "x.onnx")
    path = write_safetensors(tmp_path / "x.safetensors", EXAMPLE.items(), EXAMPLE)
    with pytest.raises(UserError, match="no part 'ema'"):
        open_tensors(path, "ema")


def test_a_type_that_is_not_read_matters_only_where_it_is_asked_for(tmp_path):
    """SD3's own file has a T5 in eight bits beside the network; others hold types that numpy does not know."""
    values = np.arange(-8, 8).astype(ml_dtypes.float8_e4m3fn)
    data = header(
        w={"dtype": "F8_E4M3", "shape": [16], "data_offsets": [0, 16]},
        t5={"dtype": "F4_SOMETHING", "shape": [64], "data_offsets": [16, 48]},
        fine={"dtype": "U8", "shape": [4], "data_offsets": [48, 52]},
    )
    (tmp_path / "x.safetensors").write_bytes(data + values.tobytes() + bytes(36))
    with open_tensors(tmp_path / "x.safetensors") as found:
        np.testing.assert_array_equal(found.read("w").astype(np.float32), np.arange(-8, 8))
        assert [found.kind(name) for name in found.names] == ["float8_e4m3fn", "F4_SOMETHING", "uint8"]
        assert found.read("fine").tolist() == [0] * 4
        with pytest.raises(UserError, match="stores t5 as F4_SOMETHING: expected one of"):
            found.read("t5")


FULL, HALF = {"w": np.ones(4, np.float32), "v": np.ones(4, np.float32)}, {"w": np.ones(4, np.float16)}
HALF |= {"v": np.ones(4, np.float16)}


def sharded(folder, tensors, names, index):
    """Two shards of these names, and perhaps an index."""
    for name, file in zip(tensors, names, strict=True):
        write_safetensors(folder / file, [(name, tensors[name])], {name: tensors[name]})
    if index:
        (folder / index).write_text(json.dumps({"weight_map": dict(zip(tensors, names, strict=True))}))


WHERE = "diffusion_pytorch_model{}-0000{}-of-00002{}.safetensors"


@pytest.mark.parametrize(
    ("names", "index"),
    [
        ([WHERE.format(".fp16", i, "") for i in (1, 2)], "diffusion_pytorch_model.safetensors.index.fp16.json"),
        ([WHERE.format(".fp16", i, "") for i in (1, 2)], "diffusion_pytorch_model.fp16.safetensors.index.json"),
        ([WHERE.format("", i, ".fp16") for i in (1, 2)], "diffusion_pytorch_model.safetensors.index.fp16.json"),
        ([WHERE.format(".fp16", i, "") for i in (1, 2)], ""),  # shards alone, without their index
        ([f"model.fp16-0000{i}-of-00002.safetensors" for i in (1, 2)], "model.safetensors.index.fp16.json"),
    ],
)
def test_a_folder_with_variants(tmp_path, names, index):
    """Full precision is preferred, a variant taken where it is alone or asked for."""
    sharded(tmp_path, HALF, names, index)
    with open_tensors(tmp_path) as found:
        assert found.dtype("w") == found.dtype("v") == np.float16
    if index:
        with open_tensors(tmp_path / index) as found:
            assert found.dtype("w") == np.float16
    stem = names[0].split(".")[0].split("-")[0]
    write_safetensors(tmp_path / f"{stem}.safetensors", FULL.items(), FULL)
    for variant, kind in (("", np.float32), ("fp16", np.float16)):
        with open_tensors(tmp_path, variant=variant) as found:
            assert found.dtype("w") == kind
    with pytest.raises(UserError, match=r"no variant 'fp61' .did you mean 'fp16'"):
        open_tensors(tmp_path, variant="fp61")
    with pytest.raises(UserError, match="is one of 2 shards: give their folder"):
        open_tensors(tmp_path / names[0])


def test_variants_that_leave_a_choice_or_lack_a_part(tmp_path):
    sharded(tmp_path, HALF, [WHERE.format(".fp16", i, "") for i in (1, 2)], "")
    write_safetensors(tmp_path / "diffusion_pytorch_model.non_ema.safetensors", FULL.items(), FULL)
    with pytest.raises(UserError, match="only the variants fp16, non_ema: choose one with --variant"):
        open_tensors(tmp_path)
    (tmp_path / WHERE.format(".fp16", 1, "")).unlink()
    with pytest.raises(UserError, match="lacks 1 of the 2 shards of diffusion_pytorch_model, first number 1"):
        open_tensors(tmp_path, variant="fp16")
    index = {"weight_map": {"w": WHERE.format("", 1, ""), "v": WHERE.format("", 2, "")}}
    (tmp_path / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"is missing beside it \(it also holds the variants fp16, non_ema"):
        open_tensors(tmp_path)
    with pytest.raises(UserError, match="is a file, but only folders have variants"):
        open_tensors(tmp_path / "diffusion_pytorch_model.non_ema.safetensors", variant="fp16")


# Files that are not where, or what, they should be.


def test_an_index_does_not_lead_out_of_its_folder(tmp_path):
    folder, secret = tmp_path / "model", tmp_path / "secret.safetensors"
    write_safetensors(secret, EXAMPLE.items(), EXAMPLE)
    folder.mkdir()
    (folder / "up").symlink_to(tmp_path)
    index = folder / "model.safetensors.index.json"
    for name in (str(secret), "../secret.safetensors", "up/secret.safetensors", "link.safetensors"):
        if name == "link.safetensors":
            (folder / name).symlink_to(secret)
        index.write_text(json.dumps({"weight_map": dict.fromkeys(EXAMPLE, name)}))
        for path in (folder, index):
            with pytest.raises(UserError, match=r"index.json has '.*', which is .*secret.safetensors, outside "):
                open_tensors(path)
            with open_tensors(path, outside=True) as found:
                assert bits(found.read("a.weight")) == bits(EXAMPLE["a.weight"])
    index.unlink()
    with pytest.raises(UserError, match="outside its folder"):
        open_tensors(folder)
    with open_tensors(folder / "link.safetensors") as found:  # a link that the user names is the user's
        assert set(found.names) == set(EXAMPLE)


@pytest.mark.parametrize("inner", ["", "transformer"])
def test_the_links_of_hugging_faces_cache_are_read(tmp_path, inner):
    """snapshots/REVISION/file -> ../../blobs/HASH, by relative links."""
    model = tmp_path / "hub" / "models--org--name"
    folder = model / "snapshots" / "0123abcd" / inner
    folder.mkdir(parents=True)
    index = write_safetensors(tmp_path / "made", EXAMPLE.items(), EXAMPLE, max_shard_bytes=54)
    (model / "blobs").mkdir()
    for number, file in enumerate(sorted(index.parent.iterdir())):
        file.rename(model / "blobs" / f"{number:064x}")
        link = folder / file.name
        link.symlink_to(os.path.relpath(model / "blobs" / f"{number:064x}", folder))
    for path in (model / "snapshots" / "0123abcd", folder / index.name):
        with open_tensors(path) as found:
            assert {name: bits(found.read(name)) for name in found.names} == {n: bits(x) for n, x in EXAMPLE.items()}


def test_a_header_that_would_fill_memory_is_not_read(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", 2**25))
    os.truncate(path, 2**26)  # no blocks on the disk
    with pytest.raises(UserError, match=r"a header of 33,554,432 bytes, and at most 16,777,216 are read"):
        open_tensors(path)


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt", "model.safetensors.index.json"])
def test_a_pipe_or_a_device_is_not_read(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=r"is a FIFO|is no regular file"):
        open_tensors(tmp_path / name)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"is a device|is no regular file"):
        open_tensors(tmp_path / name)
