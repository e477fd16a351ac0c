"""safetensors files: bit-exact round trips, rows, shards, folders; one sentence for each way a file can be wrong."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfjax.errors import UserError
from rfjax.interop.pt import write_pt
from rfjax.interop.stored import DTYPES
from rfjax.interop.tensors import open_tensors, write_safetensors

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
    assert not list(folder.glob("*.partial"))


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
    for given_, fault in ((list(EXAMPLE.items())[:2], "did not come"), ([("b", np.zeros(1))], "manifest has None"),
                          ([("a.bias", np.zeros(3))], "float64")):  # fmt: skip
        with pytest.raises(ValueError, match=fault):
            write_safetensors(tmp_path / "x.safetensors", given_, EXAMPLE)
    strange = {"x": np.zeros(2, ml_dtypes.float8_e4m3fn)}
    with pytest.raises(UserError, match="float8_e4m3fn, which is not written"):
        write_safetensors(tmp_path / "x.safetensors", strange.items(), strange)
    assert not list(tmp_path.iterdir())


def header(**entries):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "0 bytes in all"),
        (b"\xff" * 20, "cut short or no safetensors file"),
        (struct.pack("<Q", 4) + b"nope", "corrupt header"),
        (struct.pack("<Q", 2) + b"[]", "corrupt header"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (header(a={"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}) + bytes(5), r"says \d+ bytes, the file has"),
        (header(a={"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}) + bytes(8), "gives a, F32"),
        (header(a={"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}), "gives a, F32"),
        (header(a={"dtype": "F32", "shape": [2]}) + bytes(8), "corrupt header"),
        (header(a={"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}) + bytes(8), "a as F8_E4M3: expected"),
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
    with pytest.raises(UserError, match=r"says that stop is in .*00002-of-00002\.safetensors"):
        open_tensors(tmp_path)
    index.write_text(text)
    second.unlink()
    with pytest.raises(UserError, match=r"names 2 files, and .*00002-of-00002\.safetensors is missing"):
        open_tensors(tmp_path)
    index.write_text("[]")
    with pytest.raises(UserError, match="weight_map"):
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
    with pytest.raises(UserError, match=r"x.onnx should end in .safetensors"):
        open_tensors(tmp_path / "x.onnx")
    path = write_safetensors(tmp_path / "x.safetensors", EXAMPLE.items(), EXAMPLE)
    with pytest.raises(UserError, match="no 'ema' in it"):
        open_tensors(path, "ema")
