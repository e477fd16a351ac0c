"""Files of statistics: ours there and back, those of other projects as they write them, and what is refused."""

import json
import pickle
import zipfile

import numpy as np
import pytest

from rfjax.errors import UserError
from rfjax.evaluation.statistics import moments, npz, references
from rfjax.evaluation.statistics.frechet import fit_gaussian

NAME, OUTPUTS = "inception@adm", {"pool": 6, "spatial": 4, "logits": 3}
ABOUT = {"network": "Inception-v3", "file": "/a/w.pb", "sha256": "0123", "resize": "TF1 bilinear", "scaling": "(x-128)"}


def features(width, n=30, seed=0):
    return np.random.default_rng(seed + width).normal(size=(n, width)).astype(np.float32)


def made(**about):
    drawn = {"pool": features(6), "spatial": features(4)}
    found = {output: moments.of(values) for output, values in drawn.items()}
    return references.make(NAME, ABOUT | {"data": "abc"} | about, found, {"pool": drawn["pool"]})


def read(path, name=NAME, about=ABOUT, outputs=OUTPUTS):
    return references.read(path, name, about, outputs)


def statistics(width):
    found = fit_gaussian(features(width))
    return found.mean, found.covariance


def test_a_reference_is_read_as_it_was_written(tmp_path):
    path, reference = tmp_path / "r.npz", made()
    references.write(path, reference)
    found = read(path, about=ABOUT | {"file": "/elsewhere/w.pb"})
    assert (found.name, found.about, found.notes) == (NAME, ABOUT | {"data": "abc"}, ())
    assert list(found.gaussians) == ["pool", "spatial"] and list(found.features) == ["pool"]
    for output, gaussian in reference.gaussians.items():
        np.testing.assert_array_equal(found.gaussians[output].mean, gaussian.mean)
        np.testing.assert_array_equal(found.gaussians[output].covariance, gaussian.covariance)
        assert found.gaussians[output].count == 30
    np.testing.assert_array_equal(found.features["pool"], features(6))
    assert list(tmp_path.iterdir()) == [path]
    with np.load(path) as other:  # as pytorch-fid and ADM read it
        np.testing.assert_array_equal(other["sigma"], reference.gaussians["pool"].covariance)
        np.testing.assert_array_equal(other["mu_s"], reference.gaussians["spatial"].mean)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "inception@pytorch-fid"}, "statistics of 'inception@adm', and the metric's network is 'inception@py"),
        ({"about": ABOUT | {"sha256": "4567"}}, "statistics with sha256 '0123', and inception@adm has '4567'"),
        (
            {"about": ABOUT | {"resize": "clean"}},
            "statistics with resize 'TF1 bilinear', and inception@adm has 'clean'",
        ),
        ({"outputs": {"pool": 5}}, "'pool' has 5 features: they are of another network or layer"),
        ({"outputs": {"cls": 6}}, "holds statistics of pool, spatial, and none of inception@adm's outputs"),
    ],
)
def test_statistics_of_another_network_or_protocol_are_refused(tmp_path, change, words):
    references.write(tmp_path / "r.npz", made())
    with pytest.raises(UserError) as error:
        read(tmp_path / "r.npz", **change)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_adm_s_file_is_read_without_its_pictures(tmp_path, monkeypatch):
    path = tmp_path / "VIRTUAL_imagenet.npz"
    (mu, sigma), (mu_s, sigma_s) = statistics(6), statistics(4)
    pictures = np.zeros((50, 8, 8, 3), np.uint8)
    np.savez(path, arr_0=pictures, mu=mu.astype(np.float32), sigma=sigma, mu_s=mu_s, sigma_s=sigma_s)
    asked, whole = [], npz.read
    monkeypatch.setattr(npz, "read", lambda path, name: asked.append(name) or whole(path, name))
    found = read(path)
    assert asked == ["mu", "sigma", "mu_s", "sigma_s"]
    np.testing.assert_array_equal(found.gaussians["pool"].covariance, sigma)
    np.testing.assert_array_equal(found.gaussians["spatial"].mean, mu_s)
    assert found.gaussians["pool"].count == 0
    (note,) = found.notes
    assert note == (
        "VIRTUAL_imagenet.npz does not say by which network its statistics are, nor how many pictures they are of: "
        "taken as inception@adm's, 6 features as its pool and 4 features as its spatial."
    )


@pytest.mark.parametrize("keys", [("mu", "sigma"), ("ref_mu", "ref_sigma")])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_pytorch_fid_s_and_imf_s_files(tmp_path, keys, save):
    values = dict(zip(keys, statistics(6), strict=True))
    save(tmp_path / "s.npz", **values)
    found = read(tmp_path / "s.npz", "inception@pytorch-fid")
    np.testing.assert_array_equal(found.gaussians["pool"].mean, values[keys[0]])
    assert list(found.gaussians) == ["pool"] and found.name == "inception@pytorch-fid"


def test_clean_fid_s_features(tmp_path):
    np.savez(tmp_path / "x_kid.npz", feats=features(6))
    found = read(tmp_path / "x_kid.npz")
    np.testing.assert_array_equal(found.features["pool"], features(6))
    assert found.gaussians["pool"].count == 30


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_edm2_s_pickle(tmp_path, protocol):
    path, parts = tmp_path / "img512.pkl", [dict(zip(("mu", "sigma"), statistics(n), strict=True)) for n in (6, 5)]
    path.write_bytes(pickle.dumps({"num_images": 30, "fid": parts[0], "fd_dinov2": parts[1]}, protocol))
    found, other = read(path), read(path, "dinov2@large", outputs={"cls": 5})
    np.testing.assert_array_equal(found.gaussians["pool"].covariance, parts[0]["sigma"])
    np.testing.assert_array_equal(other.gaussians["cls"].mean, parts[1]["mu"])
    assert found.gaussians["pool"].count == 30 and "nor how many" not in found.notes[0]
    with pytest.raises(UserError, match="holds num_images, fid, fd_dinov2, and no mu and sigma for clip"):
        read(path, "clip", outputs={"projected": 6})
    path.write_bytes(pickle.dumps(parts[0], protocol))
    assert read(path).gaussians["pool"].count == 0


def npz_with(path, **arrays):
    mu, sigma = statistics(6)
    np.savez(path, **({"mu": mu, "sigma": sigma} | arrays))
    return path


BENT = statistics(6)[1].copy()
BENT[0, 1] += 1


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"sigma": statistics(6)[1][:5]}, "a covariance of (5, 6), and 'pool' has 6 features"),
        (
            {"mu": np.zeros(9), "sigma": np.eye(9)},
            "holds statistics of shape (9,), and inception@adm has pool of 6, sp",
        ),
        ({"mu": np.full(6, np.nan)}, "holds NaN or infinity in its statistics of 'pool'"),
        ({"sigma": BENT}, "a covariance of 'pool' that is not symmetric"),
        ({"sigma": -statistics(6)[1]}, "a covariance of 'pool' with negative eigenvalues"),
    ],
)
def test_statistics_that_can_t_be_are_refused(tmp_path, arrays, words):
    with pytest.raises(UserError) as error:
        read(npz_with(tmp_path / "s.npz", **arrays))
    assert words in str(error.value) and "\n" not in str(error.value)


def test_what_float32_leaves_of_a_covariance_of_low_rank_is_taken(tmp_path):
    x = features(6, 4)
    sigma = np.cov(x, rowvar=False).astype(np.float32)
    assert np.linalg.eigvalsh(sigma.astype(np.float64)).min() < 0 or np.linalg.matrix_rank(sigma) == 3
    np.testing.assert_array_equal(read(npz_with(tmp_path / "s.npz", sigma=sigma)).gaussians["pool"].covariance, sigma)


def test_other_files_are_refused_in_a_sentence(tmp_path):
    path = tmp_path / "s.npz"
    np.savez(path, arr_0=np.zeros((5, 4, 4, 3), np.uint8))
    with pytest.raises(UserError, match=r"holds pictures .* give it as a source of pictures"):
        read(path)
    np.savez(path, x=np.zeros(3))
    with pytest.raises(UserError, match="holds x, and statistics are mu and sigma"):
        read(path)
    np.savez(path, mu=np.array([{}], object), sigma=np.eye(6))
    with pytest.raises(UserError, match="holds sigma, and statistics are"):
        read(path)
    for content, words in ((b"", "can't be read as an .npz"), (b"PK\3\4 and so on", "can't be read as an .npz")):
        path.write_bytes(content)
        with pytest.raises(UserError, match=words):
            read(path)
    for name in ("none.npz", "none.pkl"):
        with pytest.raises(UserError, match=f"{name} does not exist"):
            read(tmp_path / name)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(UserError, match="holds a list, and statistics are a dict"):
        read(tmp_path / "x.pkl")


def test_a_cut_file_is_refused(tmp_path):
    path = tmp_path / "r.npz"
    references.write(path, made())
    whole = path.read_bytes()
    for length in (10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"r\.npz can't be read as an \.npz file"):
            read(path)


def test_a_header_that_asks_for_more_than_the_file_has_gets_no_memory(tmp_path):
    path = npz_with(tmp_path / "s.npz")
    member = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
    member += b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117) + b"\n" + bytes(48)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mu.npy", member)
    with pytest.raises(UserError, match="mu has another size than it says"):
        read(path)


@pytest.mark.parametrize(
    "about", [b"no json", b"{}", json.dumps({"format": references.FORMAT, "about": {"a": 1}, "outputs": {}}).encode()]
)
def test_a_bad_about_is_refused(tmp_path, about):
    with pytest.raises(UserError, match=r"s\.npz.* (is not JSON|is no file of statistics of this version)"):
        read(npz_with(tmp_path / "s.npz", about=np.frombuffer(about, np.uint8)))
    entry = {"mean": "mu", "covariance": "gone", "count": 9}
    said = {"format": references.FORMAT, "name": NAME, "about": {}, "outputs": {"pool": entry}}
    with pytest.raises(UserError, match="has no array 'gone'"):
        read(npz_with(tmp_path / "s.npz", about=np.frombuffer(json.dumps(said).encode(), np.uint8)))
