"""The numbers of rfjax.evaluation.statistics beside those of the projects that people use, on the same arrays.

Only the files with the numbers are imported of torch-fidelity and clean-fid: the rest of them wants torchvision.
"""

import importlib
import importlib.util
import sys
import types

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.metrics import pairwise_distances

from rfjax.evaluation.statistics.extrapolation import frechet_infinity
from rfjax.evaluation.statistics.frechet import fit_gaussian, frechet, frechet_distance
from rfjax.evaluation.statistics.inception_score import inception_score
from rfjax.evaluation.statistics.kernels import cmmd, kid, kid_subsets
from rfjax.evaluation.statistics.neighbours import precision_recall
from rfjax.evaluation.statistics.pictures import psnr, ssim
from rfjax.evaluation.statistics.prdc import density_coverage

WIDTH = 96


class Anything(types.ModuleType):
    """A module from which any name can be imported, as None."""

    __all__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)


@pytest.fixture
def peer(monkeypatch):
    """(package, module, those of its modules that are left out) -> the module."""

    def find(package, module, without):
        spec = importlib.util.find_spec(package)
        if spec is None:
            pytest.skip(f"{package} is not installed")
        bare = types.ModuleType(package)
        bare.__path__ = list(spec.submodule_search_locations)
        monkeypatch.setitem(sys.modules, package, bare)
        for name in without:
            monkeypatch.setitem(sys.modules, f"{package}.{name}", Anything(f"{package}.{name}"))
        monkeypatch.delitem(sys.modules, f"{package}.{module}", raising=False)
        return importlib.import_module(f"{package}.{module}")

    return find


def features(n, seed, shift=0.0, width=WIDTH):
    """Like Inception's: not negative, correlated."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(7).normal(size=(12, width))
    found = 0.5 + shift + rng.normal(size=(n, 12)) @ mix * 0.2 + rng.normal(size=(n, width)) * 0.3
    return np.maximum(found, 0).astype(np.float32)


TRUE, DRAWN = features(700, 0), features(600, 1, 0.05)


def test_fid_is_torch_fidelity_s(peer):
    fid = peer("torch_fidelity", "metric_fid", ["utils"])
    stats = [fid.fid_features_to_statistics(torch.from_numpy(x)) for x in (TRUE, DRAWN)]
    theirs = fid.fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"]
    ours = frechet(DRAWN, fit_gaussian(TRUE)).value
    assert ours == pytest.approx(theirs, rel=1e-5)  # its means are in float32
    assert ours == pytest.approx(frechet_distance(fit_gaussian(DRAWN), fit_gaussian(TRUE)), rel=1e-12)


def test_fid_and_kid_are_clean_fid_s(peer):
    fid = peer("cleanfid", "fid", ["utils", "features", "resize"])
    wide = [x.astype(np.float64) for x in (DRAWN, TRUE)]
    assert frechet(DRAWN, fit_gaussian(TRUE)).value == pytest.approx(fid.fid_from_feats(*wide), rel=1e-9)
    # All pictures in its one subset, in another order; it divides the cross term alike.
    one = fid.kernel_distance(*[x[:500] for x in wide], num_subsets=1, max_subset_size=500)
    assert kid(TRUE[:500], DRAWN[:500]).value == pytest.approx(one, rel=1e-4)


def test_the_inception_score_is_torch_fidelity_s(peer):
    isc = peer("torch_fidelity", "metric_isc", ["utils"])
    logits = np.random.default_rng(2).normal(0, 2, (1003, 1008)).astype(np.float32)
    theirs = isc.isc_features_to_metric(torch.from_numpy(logits))
    ours = inception_score(logits, "torch-fidelity")
    assert ours.value == pytest.approx(theirs["inception_score_mean"], rel=1e-10)
    assert ours.extras["std"] == pytest.approx(theirs["inception_score_std"], rel=1e-8)


def test_kid_is_torch_fidelity_s(peer):
    module = peer("torch_fidelity", "metric_kid", ["utils"])
    options = {"kid_subsets": 20, "kid_subset_size": 200, "verbose": False}
    theirs = module.kid_features_to_metric(torch.from_numpy(DRAWN), torch.from_numpy(TRUE), **options)
    ours = kid_subsets(TRUE, DRAWN, subsets=20, size=200)
    assert ours.value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3)  # float32 sums of theirs
    assert ours.extras["std"] == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-3)


@pytest.mark.parametrize("ram", [True, False])
def test_precision_and_recall_are_torch_fidelity_s(peer, ram):
    """Its first input is the generated one since 0.4.0; before, it was the real one."""
    prc = peer("torch_fidelity", "metric_prc", ["utils"])
    drawn, true = torch.from_numpy(DRAWN), torch.from_numpy(TRUE)
    theirs = prc.prc_features_to_metric(drawn, true, save_cpu_ram=ram, verbose=False)
    precision, recall = precision_recall(TRUE, DRAWN)
    # A distance that is a radius to a bit may fall on either side: one picture of 600.
    assert precision.value == pytest.approx(theirs["precision"], abs=1.1 / 600)
    assert recall.value == pytest.approx(theirs["recall"], abs=1.1 / 600)
    assert 0.2 < precision.value < 0.99 and 0.2 < recall.value < 0.99


def test_density_and_coverage_are_the_formulas_of_prdc_and_dgm_eval():
    inner = np.sort(pairwise_distances(TRUE.astype(np.float64)), axis=1)[:, 5]
    within = pairwise_distances(TRUE.astype(np.float64), DRAWN.astype(np.float64)) < inner[:, None]
    density, coverage = density_coverage(TRUE, DRAWN)
    assert density.value == pytest.approx(within.sum(axis=0).mean() / 5, abs=2 / 600)
    assert coverage.value == pytest.approx(within.any(axis=1).mean(), abs=1.1 / 700)


def test_fd_infinity_is_the_formula_of_dgm_eval():
    """Its steps, with SciPy's root of a matrix, and its generator seeded as ours."""
    reference = fit_gaussian(TRUE)
    rng, values = np.random.default_rng(0), []
    sizes = np.linspace(min(5000, max(len(DRAWN) // 10, 2)), len(DRAWN), 15).astype("int32")
    for size in sizes:
        drawn = rng.choice(DRAWN, size, replace=False).astype(np.float64)
        mean, covariance = drawn.mean(axis=0), np.cov(drawn, rowvar=False)
        root = np.sqrt(scipy.linalg.eigvals(covariance @ reference.covariance)).real.sum()
        traces = np.trace(covariance) + np.trace(reference.covariance)
        values.append(((mean - reference.mean) ** 2).sum() + traces - 2 * root)
    theirs = np.polynomial.Polynomial.fit(1 / sizes, values, 1).convert().coef[0]
    # Sizes below the number of features: rounding of zero eigenvalues, whose roots are 1e-8.
    assert frechet_infinity(DRAWN, reference).value == pytest.approx(theirs, rel=1e-4)


def test_cmmd_is_the_formula_of_its_code():
    x, y = (torch.nn.functional.normalize(torch.from_numpy(z).double()) for z in (TRUE, DRAWN))

    def mean(a, b):
        squares = -2 * a @ b.T + (a * a).sum(1)[:, None] + (b * b).sum(1)
        return torch.exp(-squares / (2 * 10**2)).mean()

    theirs = 1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y)).item()
    assert cmmd(TRUE, DRAWN).value == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_and_psnr_are_scikit_image_s(channels):
    metrics = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(3)
    smooth = np.add.outer(np.arange(48), np.arange(40)[:, None] * np.arange(1, channels + 1)) * 1.3 % 256
    original = np.tile(smooth, (3, 1, 1, 1)).astype(np.uint8)
    image = np.clip(original + rng.normal(0, 12, original.shape), 0, 255).astype(np.uint8)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    pairs = list(zip(original, image, strict=True))
    theirs = [metrics.structural_similarity(a, b, channel_axis=-1, **options) for a, b in pairs]
    assert ssim(image, original) == pytest.approx(theirs, rel=1e-10)
    theirs = [metrics.peak_signal_noise_ratio(a, b, data_range=255) for a, b in pairs]
    assert psnr(image, original) == pytest.approx(theirs, rel=1e-12)
