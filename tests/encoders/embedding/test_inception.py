"""FID's Inception network: beside torch-fidelity's outputs (recorded by `make parity RECORD=1`), files of every kind,
and what is said of files that hold something else."""

import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from embedding_cases import (
    TOLERANCE,
    difference,
    images,
    inception_tensors,
    jitted,
    recorded,
    thinned,
    weight,
    write,
    write_graph,
)
from tiny import tiny

from rfjax import config as configs
from rfjax.encoders.embedding import Embedder, convolution, make_embedder
from rfjax.encoders.embedding.convert import main
from rfjax.encoders.embedding.inception import PROTOCOLS, Inception
from rfjax.encoders.embedding.inception_names import CONSTANTS, LAYOUT, UNITS, read_inception
from rfjax.errors import UserError
from rfjax.tensors.opening import open_tensors
from rfjax.tensors.pt import write_pt


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """torch-fidelity's file, with random weights."""
    return write(tmp_path_factory.mktemp("inception") / "x.pth", inception_tensors())


@pytest.fixture(scope="module")
def weights(file):
    return jax.device_put(Inception(str(file)).weights())


def made(path, protocol="adm"):
    c = tiny()
    c.evaluate.inception, c.evaluate.protocol = str(path), protocol
    return make_embedder("inception", configs.parse(c))


def test_outputs_are_those_of_torch_fidelity(file, weights):
    embedder = made(file)
    found = jitted(embedder.embed)(weights, images(32))
    assert {name: value.shape[1] for name, value in found.items()} == dict(embedder.outputs)
    expected = recorded("inception")
    for name, value in thinned(found).items():
        assert difference(value, expected[name]) <= TOLERANCE


def test_the_network_has_the_published_size():
    count = sum(np.prod(piece.shape) for (piece,) in LAYOUT.values())
    assert (len(UNITS), len(LAYOUT), count) == (94, 472, 23_885_392)
    assert len(set(CONSTANTS.values())) == 472 and set(CONSTANTS) == set(LAYOUT)


def test_all_files_hold_the_same(file, tmp_path):
    """TensorFlow's graph, and what `convert` makes of it, equal the .pth bit for bit."""
    graph, target = write_graph(tmp_path / "graph.pb", inception_tensors()), tmp_path / "x.safetensors"
    expected = read_inception(file)
    assert main([str(graph), str(target)]) == 0
    with open_tensors(target) as tensors:
        assert set(tensors.names) == set(inception_tensors())
    for path in (graph, target):
        found = read_inception(path)
        assert set(found) == set(expected)
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values, strict=True)


def test_convert_says_what_is_wrong(file, tmp_path, capsys):
    for source, target, fault in (
        (file, tmp_path / "x.pth", "must end in .safetensors"),
        (tmp_path / "none.pb", tmp_path / "x.safetensors", "there is no"),
    ):
        assert main([str(source), str(target)]) == 2
        assert fault in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_protocols_have_names_and_say_what_they_do(file):
    embedders = [made(file, protocol) for protocol in PROTOCOLS]
    assert [each.name for each in embedders] == ["inception@adm", "inception@pytorch-fid", "inception@clean"]
    assert all(isinstance(each, Embedder) for each in embedders)
    about = [each.about() for each in embedders]
    assert {len(each["sha256"]) for each in about} == {16} and {each["file"] for each in about} == {"x.pth"}
    assert len({(each["resize"], each["scaling"]) for each in about}) == 3


@pytest.mark.parametrize(("protocol", "lowest", "highest"), [("adm", -1, 127 / 128), ("pytorch-fid", -1, 1),
                                                            ("clean", -1, 127 / 128)])  # fmt: skip
def test_the_range_of_what_the_network_sees(protocol, lowest, highest):
    ends = np.zeros((1, 40, 30, 3), np.uint8)
    ends[:, 20:] = 255  # bicubic overshoots at the step, unless it is clipped
    x = np.asarray(Inception("", protocol).pixels(jnp.asarray(ends)))
    assert x.shape == (1, 299, 299, 3)
    np.testing.assert_allclose([x.min(), x.max()], [lowest, highest], atol=1e-6)


def test_pools_are_those_of_a_loop():
    x = np.asarray(weight("x", (2, 5, 6, 3)).reshape(2, 5, 6, 3))
    windows = [[x[:, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2] for j in range(6)] for i in range(5)]
    mean = np.stack([np.stack([w.mean((1, 2)) for w in row], 1) for row in windows], 1)
    most = np.stack([np.stack([w.max((1, 2)) for w in row], 1) for row in windows], 1)
    np.testing.assert_allclose(convolution.average_pool(jnp.asarray(x)), mean, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(convolution.max_pool_same(jnp.asarray(x)), most)
    np.testing.assert_array_equal(convolution.max_pool(jnp.asarray(x)), most[:, 1:-1:2, 1:-1:2])


# Files that hold something else


def refused(path, match):
    with pytest.raises(UserError, match=match) as caught:
        made(path).weights()
    assert str(path) in str(caught.value)


def small(path, **tensors):
    write_pt(path, tensors.items(), tensors)
    return path


def test_no_file(tmp_path):
    for path, match in (("", "config.evaluate.inception is empty: it must name"), (tmp_path / "x", "there is no")):
        with pytest.raises(UserError, match=match):
            made(path)


def test_other_files_are_refused_with_what_to_take(tmp_path):
    zeros = np.zeros
    theirs = {"fc.weight": zeros((1000, 2048), np.float32), "AuxLogits.fc.weight": zeros(3, np.float32)}
    refused(small(tmp_path / "tv.pth", **theirs), "torchvision's Inception-v3.*take weights-inception-2015-12-05")
    refused(small(tmp_path / "few.pth", x=zeros(3, np.float32)), "472 missing.*take weights-inception-2015-12-05")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("x/code/__torch__.py", "")
    refused(tmp_path / "script.pt", "TorchScript program.*take weights-inception-2015-12-05")
    (tmp_path / "cut.pb").write_bytes(b"\x0a\xff")
    refused(tmp_path / "cut.pb", "no TensorFlow graph.*take weights-inception-2015-12-05")
    (tmp_path / "x.h5").write_bytes(b"\x89HDF")
    refused(tmp_path / "x.h5", "must end in")
    refused(tmp_path, "no .safetensors file")


def test_one_tensor_that_is_wrong(tmp_path):
    tensors = dict(inception_tensors())
    name = "Mixed_6b.branch7x7_2.conv.weight"
    tensors[name] = tensors[name].transpose(0, 1, 3, 2).copy()
    refused(write(tmp_path / "x.pth", tensors), rf"{name} \(128, 128, 7, 1\) where \(128, 128, 1, 7\) was expected")
    tensors = dict(inception_tensors())
    tensors["fc.weight"] = np.where(np.arange(2048) == 7, np.nan, tensors["fc.weight"]).astype(np.float32)
    refused(write(tmp_path / "x.pth", tensors), r"values in fc\.weight that are not finite")
    tensors = inception_tensors() | {"Mixed_5b.branch1x1.bn.running_var": -np.ones(64, np.float32)}
    refused(write_graph(tmp_path / "x.pb", tensors), r"negative variances in mixed/conv/batchnorm/moving_variance")
