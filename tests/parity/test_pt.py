"""Files between torch and safetensors themselves and rfjax.interop, bit for bit, both ways."""

import argparse
import collections

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from rfjax.errors import UserError
from rfjax.tensors.opening import open_tensors
from rfjax.tensors.pt import STORAGE_NAMES, open_pt, write_pt
from rfjax.tensors.safetensors import write_safetensors
from rfjax.tensors.stored import DTYPES


def bits(tensor):
    """The bytes of a torch tensor."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def assert_same(found, tensors):
    assert list(found.names) == list(tensors)
    for name, tensor in tensors.items():
        array = found.read(name)
        assert (array.dtype.name, array.shape) == (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)), name
        assert array.tobytes() == bits(tensor), name


def arrays(dtypes):
    """An array of every dtype and several shapes, of any bits."""
    rng, made = np.random.default_rng(0), {}
    for dtype in map(np.dtype, dtypes):
        for shape in ((), (3,), (0, 4), (5, 7), (2, 3, 4, 5)):
            raw = rng.integers(0, 2 if dtype.kind == "b" else 256, int(np.prod(shape)) * dtype.itemsize, np.uint8)
            made[f"{dtype.name}.{len(shape)}.{shape[:1]}"] = raw.view(dtype).reshape(shape)
    return made


@pytest.fixture
def tensors():
    """Every dtype, shared and strided storages, a parameter, no axes, no values."""
    torch.manual_seed(0)
    base = torch.randn(6, 8)
    made = {"base": base, "transposed": base.T, "rows": base[2:4], "columns": base[:, 1:6:2], "one": base[3, 3]}
    made |= {"expanded": base[0].expand(3, 8), "parameter": torch.nn.Parameter(torch.randn(3, 2)), "empty": base[:0]}
    made |= {"permuted": torch.randn(2, 3, 4).permute(2, 0, 1), "wide": torch.randn(300, 500, dtype=torch.float16)}
    kinds = (
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
    )
    made |= {str(kind): (100 * torch.randn(5, 3)).abs().to(kind) for kind in kinds}
    return made | {
        "bool": base > 0,
        "uint16": torch.arange(5).to(torch.uint16),
        "uint32": torch.ones(2).to(torch.uint32),
    }


def test_reads_what_torch_saves(tmp_path, tensors):
    torch.save(tensors, tmp_path / "x.pt")
    with open_tensors(tmp_path / "x.pt") as found:
        assert_same(found, tensors)
        for name in ("base", "transposed", "permuted", "wide"):
            for rows in ((0, 2), (1, 3)):
                assert found.read(name, rows).tobytes() == bits(tensors[name][slice(*rows)])


def test_reads_a_training_checkpoint_of_a_real_module(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    average = collections.OrderedDict((name, value * 2) for name, value in model.state_dict().items())
    args = argparse.Namespace(model="DiT-XL/2", image_size=256, betas=(0.9, 0.95), path=None, resume=False)
    saved = {"model": model.state_dict(), "ema": average, "opt": optimizer.state_dict(), "args": args, "steps": 7}
    torch.save(saved, tmp_path / "x.pt")
    checkpoint = open_pt(tmp_path / "x.pt")
    assert (checkpoint.part, checkpoint.parts) == ("ema", ("model", "ema"))
    assert checkpoint.rest["args"] == vars(args) and checkpoint.rest["steps"] == 7
    assert checkpoint.rest["opt"]["param_groups"] == optimizer.state_dict()["param_groups"]
    assert_same(checkpoint.tensors, average)
    assert_same(open_pt(tmp_path / "x.pt", "model").tensors, model.state_dict())


def test_refuses_whole_modules_and_reads_narrow_floats(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(UserError, match=r"wants to call `torch\.nn\.modules\.linear\.Linear`"):
        open_pt(tmp_path / "module.pt")
    torch.save({"w": torch.ones(2).to(torch.float8_e4m3fn)}, tmp_path / "narrow.pt")
    assert open_pt(tmp_path / "narrow.pt").tensors.read("w").astype(np.float32).tolist() == [1, 1]
    safetensors.torch.save_file({"w": torch.ones(2).to(torch.float8_e4m3fn)}, tmp_path / "narrow.safetensors")
    with open_tensors(tmp_path / "narrow.safetensors") as found:
        assert found.read("w").astype(np.float32).tolist() == [1, 1]


def test_reads_files_of_the_format_before_torch_1_6(tmp_path):
    base = torch.arange(12, dtype=torch.float32)
    state = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).state_dict()
    state |= {"view": base[2:8].view(2, 3), "transposed": base.view(3, 4).T, "half": torch.ones(3, dtype=torch.half)}
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert_same(open_pt(tmp_path / "old.pth").tensors, state)
    torch.save({"model": state, "steps": 7}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    checkpoint = open_pt(tmp_path / "old.pth")
    assert (checkpoint.part, checkpoint.rest) == ("model", {"steps": 7})
    assert_same(checkpoint.tensors, state)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match="holds a whole module"):
        open_pt(tmp_path / "module.pth")


@pytest.mark.parametrize("mapped", [False, True])
def test_torch_loads_what_is_written(tmp_path, mapped):
    made = arrays(STORAGE_NAMES)
    write_pt(tmp_path / "x.pt", made.items(), made)
    found = torch.load(tmp_path / "x.pt", weights_only=True, mmap=mapped)
    assert list(found) == list(made)
    for name, array in made.items():
        assert (str(found[name].dtype), tuple(found[name].shape)) == (f"torch.{array.dtype.name}", array.shape)
        assert bits(found[name]) == array.tobytes()


@pytest.mark.parametrize("mapped", [False, True])
def test_torch_loads_entries_with_zips_extension(tmp_path, mapped, monkeypatch):
    monkeypatch.setattr("rfjax.tensors.pt.ZIP64", 8)
    made = arrays([np.float32, ml_dtypes.bfloat16])
    write_pt(tmp_path / "x.pt", made.items(), made)
    found = torch.load(tmp_path / "x.pt", weights_only=True, mmap=mapped)
    assert all(bits(found[name]) == array.tobytes() for name, array in made.items())


def test_reads_what_safetensors_saves(tmp_path, tensors):
    saved = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(saved, tmp_path / "x.safetensors", metadata={"format": "pt"})
    with open_tensors(tmp_path) as found:
        assert_same(found, {name: saved[name] for name in found.names})
        assert set(found.names) == set(saved)


@pytest.mark.parametrize("most", [10**9, 500])
def test_safetensors_loads_what_is_written(tmp_path, most):
    made = arrays(DTYPES.values())
    write_safetensors(tmp_path, made.items(), made, max_shard_bytes=most)
    found = {}
    for file in tmp_path.glob("*.safetensors"):
        found |= safetensors.numpy.load_file(file)
        for name, tensor in safetensors.torch.load_file(file).items():
            assert (str(tensor.dtype), bits(tensor)) == (f"torch.{made[name].dtype.name}", made[name].tobytes())
    assert set(found) == set(made)
    for name, array in made.items():
        assert (found[name].dtype, found[name].shape, found[name].tobytes()) == (
            array.dtype,
            array.shape,
            array.tobytes(),
        )
