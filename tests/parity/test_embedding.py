"""Networks of metrics beside the packages that published numbers come from: torch-fidelity, clean-fid, lpips and
EfficientNet-Lite's. They import torchvision, of which nothing here is needed, so an empty module stands for it.

RECORD=1 writes down what tests/encoders/embedding repeats."""

import importlib
import importlib.util
import os
import sys
import types
from pathlib import Path

import embedding_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from embedding_cases import RECORDED, TOLERANCE, difference, images
from torch import nn

from rfjax.encoders.embedding import efficientnet, lpips
from rfjax.encoders.embedding.inception import Inception
from rfjax.encoders.embedding.resizing import resize

LEVELS = 255  # of a byte
OUTPUTS = {"pool": "2048", "logits": "logits_unbiased"}


def missing(name):
    return importlib.util.find_spec(name) is None


def without_init(package):
    """A module of a package whose __init__ imports too much, with its path."""
    spec = importlib.util.find_spec(package)
    module = types.ModuleType(package)
    module.__path__ = list(spec.submodule_search_locations)
    return module


def nchw(x):
    return torch.tensor(np.asarray(x)).permute(0, 3, 1, 2).contiguous()


def record(name, outputs):
    if os.environ.get("RECORD", "") not in ("", "0"):
        RECORDED.mkdir(exist_ok=True)
        np.savez_compressed(RECORDED / f"{name}.npz", **outputs)
    for key, old in cases.recorded(name).items():
        assert difference(outputs[key], old) <= TOLERANCE


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return cases.write(tmp_path_factory.mktemp("inception") / "x.pth", cases.inception_tensors())


@pytest.fixture(scope="module")
def fidelity(file):
    """torch-fidelity's network, which also returns Mixed_6d's first branch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch_fidelity", without_init("torch_fidelity"))
        module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
        made = module.FeatureExtractorInceptionV3("x", list(OUTPUTS.values()), str(file))
    seen = {}
    made.Mixed_6d.branch1x1.register_forward_hook(lambda _module, _given, out: seen.update(spatial=out))

    def run(pictures):
        with torch.no_grad():
            found = dict(zip(OUTPUTS, made(nchw(pictures)), strict=True))
        spatial = seen["spatial"][:, :7].permute(0, 2, 3, 1).reshape(len(pictures), -1)
        return {name: value.numpy() for name, value in (found | {"spatial": spatial}).items()}

    return made, run


@pytest.mark.skipif(missing("torch_fidelity"), reason="pip install --no-deps torch-fidelity")
class TestInception:
    def test_the_file_has_the_names_and_shapes_of_theirs(self, fidelity):
        made, _ = fidelity
        theirs = {name: tuple(x.shape) for name, x in made.state_dict().items() if "num_batches" not in name}
        assert theirs == {name: x.shape for name, x in cases.inception_tensors().items()}

    @pytest.mark.parametrize("side", [32, 256, 512])
    def test_outputs(self, file, fidelity, side, record_property):
        embedder = Inception(str(file))
        pictures = images(side)
        found, expected = jax.jit(embedder.embed)(embedder.weights(), pictures), fidelity[1](pictures)
        away = {name: difference(found[name], value) for name, value in expected.items()}
        print(f"{side}: {away}")
        record_property("parity", [f"inception {side}", max(away.values()), 0.0, ""])
        assert max(away.values()) <= TOLERANCE
        if side == 32:
            record("inception", cases.thinned(expected))

    @pytest.mark.parametrize("side", [32, 100, 256, 299, 512])
    def test_tensorflows_resize(self, side):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "torch_fidelity", without_init("torch_fidelity"))
            module = importlib.import_module("torch_fidelity.interpolate_compat_tensorflow")
        pictures = images(side, width=side + 9)
        theirs = module.interpolate_bilinear_2d_like_tensorflow1x(
            nchw(pictures).float(), size=(299, 299), align_corners=False
        )
        assert (
            np.abs(np.asarray(resize(jnp.asarray(pictures), 299, "tf1")) - theirs.permute(0, 2, 3, 1).numpy()).max()
            < 1e-4
        )


@pytest.mark.parametrize("side", [32, 100, 256, 299, 512])
def test_the_resize_of_pytorch_fid(side):
    """Which is torch's, of pictures from 0 to 1, and then 2 x - 1."""
    pictures = images(side, width=side + 9)
    theirs = nn.functional.interpolate(nchw(pictures) / LEVELS, size=(299, 299), mode="bilinear", align_corners=False)
    found = np.asarray(Inception("", "pytorch-fid").pixels(jnp.asarray(pictures)))
    assert np.abs(found - (2 * theirs - 1).permute(0, 2, 3, 1).numpy()).max() < 1e-6


@pytest.mark.skipif(missing("cleanfid"), reason="pip install --no-deps clean-fid")
@pytest.mark.parametrize("side", [32, 100, 256, 299, 512])
def test_the_resize_of_clean_fid(side):
    resizer = importlib.import_module("cleanfid.resize").build_resizer("clean")
    pictures = images(side, width=side + 9)
    pictures[0, :, : side // 2] = 0
    pictures[0, :, side // 2 :] = LEVELS  # where bicubic overshoots
    theirs = np.stack([resizer(picture) for picture in pictures])
    found = np.asarray(Inception("", "clean").pixels(jnp.asarray(pictures))) * 128 + 128
    assert np.abs(found - theirs).max() < 5e-3


# LPIPS


def vgg16():
    layers, before = [], 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(inplace=True)]
            before = width
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)


def alexnet():
    relu, pool = nn.ReLU, lambda: nn.MaxPool2d(3, 2)
    return nn.Sequential(
        *(nn.Conv2d(3, 64, 11, 4, 2), relu(), pool(), nn.Conv2d(64, 192, 5, padding=2), relu(), pool()),
        *(nn.Conv2d(192, 384, 3, padding=1), relu(), nn.Conv2d(384, 256, 3, padding=1), relu()),
        *(nn.Conv2d(256, 256, 3, padding=1), relu(), pool()),
    )


@pytest.mark.skipif(missing("lpips"), reason="pip install --no-deps lpips")
class TestLpips:
    @pytest.fixture
    def package(self, monkeypatch):
        """The package lpips, on backbones of torchvision's layout."""
        models = types.SimpleNamespace(
            vgg16=lambda pretrained: types.SimpleNamespace(features=vgg16()),
            alexnet=lambda pretrained: types.SimpleNamespace(features=alexnet()),
        )
        torchvision = types.ModuleType("torchvision")
        torchvision.models = models
        monkeypatch.setitem(sys.modules, "torchvision", torchvision)
        yield importlib.import_module("lpips")
        for name in [name for name in sys.modules if name.split(".")[0] == "lpips"]:
            del sys.modules[name]

    def theirs(self, package, kind, folder, heads, pair):
        metric = package.LPIPS(net=kind, pnet_rand=True, model_path=str(heads), verbose=False)
        layers = vgg16() if kind == "vgg" else alexnet()
        state = torch.load(next(folder.glob(lpips.BACKBONES[kind].files)), weights_only=True)
        layers.load_state_dict({name.removeprefix("features."): value for name, value in state.items()})
        for slice_ in (metric.net.slice1, metric.net.slice2, metric.net.slice3, metric.net.slice4, metric.net.slice5):
            for number, layer in slice_.named_children():
                layer.load_state_dict(layers[int(number)].state_dict())
        with torch.no_grad():
            return metric(*(nchw(x).float() / 127.5 - 1 for x in pair)).reshape(-1).numpy()

    @pytest.mark.parametrize("kind", lpips.BACKBONES)
    @pytest.mark.parametrize("real", [True, False], ids=["the package's heads", "random heads"])
    def test_distances(self, package, kind, real, tmp_path, record_property):
        folder = cases.lpips_files(tmp_path, kind)
        heads = folder / lpips.BACKBONES[kind].heads
        if real:
            source = Path(package.__file__).parent / "weights" / "v0.1" / heads.name
            heads.write_bytes(source.read_bytes())
        (backbone,) = folder.glob(lpips.BACKBONES[kind].files)
        metric = lpips.Lpips(kind, str(backbone), str(heads))
        a = images(40)
        pair = a, np.stack([a[0, ::-1], a[1]])
        found = np.asarray(jax.jit(metric.distance)(metric.weights(), *pair))
        expected = self.theirs(package, kind, folder, heads, pair)
        print(f"{kind}: {found} {expected}")
        record_property("parity", [f"lpips {kind}", difference(found, expected), 0.0, ""])
        assert difference(found, expected) <= TOLERANCE
        if not real:
            record(f"lpips-{kind}", {"distance": expected})

    @pytest.mark.parametrize("kind", lpips.BACKBONES)
    def test_heads_of_version_0_0_are_refused(self, package, kind, tmp_path):
        folder = cases.lpips_files(tmp_path, kind)
        heads = folder / lpips.BACKBONES[kind].heads
        heads.write_bytes((Path(package.__file__).parent / "weights" / "v0.0" / heads.name).read_bytes())
        (backbone,) = folder.glob(lpips.BACKBONES[kind].files)
        with pytest.raises(lpips.UserError, match=r"LPIPS 0\.1"):
            lpips.Lpips(kind, str(backbone), str(heads)).weights()


# EfficientNet-Lite0


@pytest.mark.skipif(missing("efficientnet_lite_pytorch"), reason="pip install --no-deps efficientnet-lite-pytorch")
class TestEfficientNet:
    def compare(self, path, record_property):
        module = importlib.import_module("efficientnet_lite_pytorch")
        net = module.EfficientNet.from_name("efficientnet-lite0").eval()
        net.load_state_dict(torch.load(path, weights_only=True), strict="real" in path.name)
        embedder = efficientnet.EfficientNet(str(path))
        pictures = images(224)  # of the network's own size, which is not resized
        found = jax.jit(embedder.embed)(embedder.weights(), pictures)["pool"]
        with torch.no_grad():
            expected = net.extract_features((nchw(pictures).float() - 127) / 128).mean((2, 3)).numpy()
        record_property("parity", ["efficientnet", difference(found, expected), 0.0, ""])
        assert difference(found, expected) <= TOLERANCE
        return {"pool": expected}

    def test_random_weights(self, tmp_path, record_property):
        path = cases.write(tmp_path / "x.pth", cases.efficientnet_tensors())
        record("efficientnet", cases.thinned(self.compare(path, record_property)))

    @pytest.mark.skipif(missing(efficientnet.PACKAGE), reason=efficientnet.INSTALL)
    def test_the_packages_weights(self, tmp_path, record_property):
        path = tmp_path / "real.pth"
        path.write_bytes(efficientnet.packaged().read_bytes())
        self.compare(path, record_property)
