"""Moments in REPA's layout: what is read, what is drawn from it, and a sentence for each folder that can't be used."""

import json
import pickle
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny import run_job, tiny

from rfjax import config as configs
from rfjax import data
from rfjax.data import identity, moments, types
from rfjax.encoders import Codec, Encoder, make_codec
from rfjax.encoders.codec import Moments
from rfjax.errors import Exit, UserError
from rfjax.study import records, runner
from rfjax.training.encode import jit_encode

SIZE, CHANNELS, COUNT, CLASSES = 4, 2, 40, 10
FEATURES = moments.FEATURES


def stored(index: int) -> np.ndarray:
    """(2 C, H, W): a mean that knows the place, and a positive deviation."""
    mean = np.arange(CHANNELS * SIZE * SIZE, dtype=np.float32).reshape(CHANNELS, SIZE, SIZE) / 16 - 1 + index
    return np.concatenate([mean, np.full_like(mean, 0.5 + index / COUNT)])


def name(index: int) -> str:
    return f"{index // 8:05}/img-mean-std-{index:08}.npy"


def picture(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (8, 8, 3), np.uint8)


def write(root: Path, indices=range(COUNT), pictures=False) -> Path:
    for index in indices:
        path = root / FEATURES / name(index)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, stored(index))
        if pictures:
            path = root / "images" / moments.image_of(name(index))
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(index)).save(path)
    pairs = [[name(index), index % CLASSES] for index in reversed(indices)]  # the list's order does not matter
    (root / FEATURES / "dataset.json").write_text(json.dumps({"labels": pairs}), "utf-8")
    return root


def settings(path, **values) -> configs.Data:
    plain = {"name": "moments", "path": str(path), "image_size": SIZE, "channels": CHANNELS, "validation_percent": 0.0}
    return configs.Data(**(plain | values))


def load(path, split="train", **values) -> data.Source:
    return data.open_source(settings(path, **values), split)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("moments"), pictures=True)


def prepare(examples: data.Examples) -> dict[str, np.ndarray]:
    return dict(examples.arrays)


def test_what_is_read_is_what_is_stored_channels_last_with_label_and_picture(folder):
    source = load(folder)
    assert isinstance(source, types.Batched) and isinstance(source, types.Named)
    assert (len(source), source.classes) == (COUNT, CLASSES)
    assert {name: (f.shape, f.flips) for name, f in source.fields.items()} == {
        "moments": ((SIZE, SIZE, 2 * CHANNELS), True),
        "label": ((), False),
        "image": ((8, 8, 3), True),
    }
    arrays, captions = source.take([7, 31])
    np.testing.assert_array_equal(arrays["moments"], [stored(i).transpose(1, 2, 0) for i in (7, 31)])
    np.testing.assert_array_equal(arrays["image"], [picture(i) for i in (7, 31)])
    assert (arrays["label"].tolist(), captions) == ([7, 1], ["7", "1"])
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again[31]["moments"], arrays["moments"][1])
    assert set(source.take([0], ["label"]).arrays) == {"label"}
    for wrong in (-1, COUNT):
        with pytest.raises(IndexError):
            source.take([wrong])


def test_a_hash_of_the_name_holds_out_examples_that_stay_so_when_others_come(folder, tmp_path):
    train, held = (load(folder, split, validation_percent=30.0) for split in ("train", "validation"))
    names = [set(source.files.tolist()) for source in (train, held)]
    assert not names[0] & names[1] and len(names[0] | names[1]) == COUNT and 3 < len(held) < 22
    few = load(write(tmp_path, range(20)), "validation", validation_percent=30.0)
    assert set(few.files.tolist()) == {file for file in names[1] if file < name(20).encode()}
    assert identity.identify(train, held, 3) == identity.identify(
        *(load(folder, s, validation_percent=30.0) for s in ("train", "validation")), 3
    )


def test_a_second_folder_is_the_validation_s(tmp_path):
    for part, indices in (("train", range(16)), ("validation", range(16, 20))):
        write(tmp_path / part, indices)
    train, held = load(tmp_path), load(tmp_path, "validation")
    assert (len(train), len(held)) == (16, 4) and held[0]["label"] == 16 % CLASSES
    assert "image" not in train.fields
    with pytest.raises(UserError, match=r"test.*dataset.json'"):
        load(tmp_path, "test")


def test_a_mirrored_batch_mirrors_moments_and_picture_alike(folder):
    batch = next(data.batches(load(folder), prepare, data.Order(COUNT, 0, flip=True)))
    flipped = 0
    for label, found, image in zip(batch["label"], batch["moments"], batch["image"], strict=True):
        index = round(float(found[0, :, 0].min()) + 1)
        assert index % CLASSES == label
        mirrored = not np.array_equal(found, stored(index).transpose(1, 2, 0))
        expected = (stored(index).transpose(1, 2, 0), picture(index))
        expected = tuple(x[:, ::-1] for x in expected) if mirrored else expected
        np.testing.assert_array_equal(found, expected[0])
        np.testing.assert_array_equal(image, expected[1])
        flipped += mirrored
    assert 5 < flipped < COUNT - 5


# The codec


SHAPE = (SIZE, SIZE, CHANNELS)


def drawn(codec, step=0, slots=(0, 1), seed=0, rows=None):
    rows = np.stack([stored(3).transpose(1, 2, 0)] * len(slots)) if rows is None else rows
    batch = codec.prepare({"moments": rows}, [""] * len(slots)) | {"slot": np.asarray(slots, np.int32)}
    return np.asarray(jit_encode((codec,))(((),), batch, np.uint32(seed), np.int32(step))["z"])


def test_latents_are_drawn_afresh_by_seed_step_and_place():
    codec = Moments(SHAPE, 0.5)
    first = drawn(codec)
    np.testing.assert_array_equal(drawn(codec, slots=(1, 0)), first[::-1])
    np.testing.assert_array_equal(drawn(codec, slots=(1,)), first[1:])
    for other in (drawn(codec, step=1), drawn(codec, seed=1), first[::-1]):
        assert (other != first).all()


def test_their_mean_and_deviation_are_the_stored_ones_scaled():
    slots = tuple(range(4096))
    deviation = stored(3)[-1, 0, 0]
    z = drawn(Moments(SHAPE, 0.5), slots=slots)
    mean = 0.5 * stored(3)[:CHANNELS].transpose(1, 2, 0)
    np.testing.assert_allclose(z.mean(0), mean, atol=4.5 * 0.5 * deviation / 64)
    np.testing.assert_allclose(z.std(0), 0.5 * deviation, rtol=4.5 / np.sqrt(2 * 4096))
    np.testing.assert_allclose(drawn(Moments(SHAPE, 0.5, "mode")), [mean] * 2, rtol=1e-6)


def test_a_log_variance_is_clamped_as_the_autoencoder_s_code_does():
    values = np.zeros((2, SIZE, SIZE, 2 * CHANNELS), np.float32)
    values[0, ..., CHANNELS:], values[1, ..., CHANNELS:] = 2 * np.log(0.3), -100
    unit = drawn(
        Moments(SHAPE, 1.0), rows=np.concatenate([values[..., :CHANNELS], np.ones_like(values)[..., :CHANNELS]], -1)
    )
    found = drawn(Moments(SHAPE, 1.0, "logvar"), rows=values)
    np.testing.assert_allclose(found[0], 0.3 * unit[0], rtol=1e-5)
    np.testing.assert_allclose(found[1], np.exp(-15) * unit[1], rtol=1e-5)


def test_the_config_names_the_codec():
    codec = make_codec(configs.Config(data=settings("x", moments="logvar", latent_scale=0.13)))
    assert codec == Moments(SHAPE, 0.13, "logvar") and isinstance(codec, Codec) and isinstance(codec, Encoder)
    assert make_codec(configs.Config(data=settings("x"))) == Moments(SHAPE, 0.18215)
    with pytest.raises(UserError, match="moments of latents have no decoder here"):
        codec.decode((), jnp.zeros((1, *SHAPE)))
    with pytest.raises(UserError, match=r"shape \(4, 4, 2\), but the config says \(4, 4, 4\)"):
        codec.prepare({"moments": np.zeros((1, 4, 4, 2), np.float32)}, [""])
    with pytest.raises(UserError, match="'moments' reads 'moments', and the data set has latent"):
        codec.prepare({"latent": np.zeros((1, 4, 4, 2), np.float32)}, [""])


def study(folder, workdir, **values):
    c = tiny()
    c.model.update(depth=1, backbone="sit", patch=2, heads=2)
    c.data.update(name="moments", path=str(folder), image_size=SIZE, channels=CHANNELS, validation_percent=40.0)
    c.text.update(encoder="labels", pooled_width=CLASSES)
    c.validation.update(examples=8, batch=8)
    c.training.update(steps=4, checkpoint_every=4)
    c.sampling.count = 0
    c.workdir = str(workdir)
    for section, more in values.items():
        c[section].update(more)
    return configs.parse(c)


@pytest.mark.job
def test_a_run_trains_on_moments(folder, tmp_path):
    assert run_job(runner, study(folder, tmp_path), 0.0) == Exit.DONE
    (run,) = records.read(tmp_path).runs
    assert run.state == "complete" and all(np.isfinite(line["loss"]) for line in run.train)


def test_a_label_beyond_the_model_s_classes_is_refused_before_anything_is_compiled(folder, tmp_path):
    with pytest.raises(UserError, match=r"has label 9, and config.text.pooled_width = 9 allows 0 to 8: set it to 10"):
        run_job(runner, study(folder, tmp_path, text={"pooled_width": 9}), 0.0)


# Folders that can't be used


def relist(root, change):
    path = root / FEATURES / "dataset.json"
    plain = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(change(plain["labels"])), "utf-8")


def remove(path):
    path.unlink()


BAD = {
    "no list": (lambda r: remove(r / FEATURES / "dataset.json"), "there is no '.*vae-sd/dataset.json'"),
    "no labels": (lambda r: relist(r, lambda pairs: {"labels": None}), "has no list of 'labels'"),
    "no pair": (
        lambda r: relist(r, lambda pairs: {"labels": [*pairs, ["x"]]}),
        "has the entry \\['x'\\], and each must",
    ),
    "a negative label": (lambda r: relist(r, lambda p: {"labels": [[p[0][0], -1], *p[1:]]}), "has label -1 of '"),
    "a label of text": (
        lambda r: relist(r, lambda p: {"labels": [[p[0][0], "1"], *p[1:]]}),
        "each must be \\[file, label",
    ),
    "a way out": (
        lambda r: relist(r, lambda p: {"labels": [*p, ["../img-mean-std-1.npy", 1]]}),
        "files have names such",
    ),
    "twice": (lambda r: relist(r, lambda p: {"labels": [*p, p[0]]}), "names a file twice: it has 7 entries of 6 files"),
    "a file that lacks": (
        lambda r: remove(r / FEATURES / name(2)),
        "lacks 1 of the 6 moments that vae-sd/dataset.json names, such as '00000/img-mean-std-00000002.npy'",
    ),
    "a file too many": (
        lambda r: np.save(r / FEATURES / name(99).replace("00012/", ""), stored(0)),
        "has 1 moments that vae-sd/dataset.json does not name, such as 'img-mean-std-00000099.npy'",
    ),
    "another size": (
        lambda r: np.save(r / FEATURES / name(0), np.zeros((4, 8, 8), np.float32)),
        "moments of shape \\(4, 8, 8\\), and latents of shape \\(4, 4, 2\\) have \\(4, 4, 4\\): see config.data",
    ),
    "a damaged file": (
        lambda r: (r / FEATURES / name(0)).write_bytes(b"\x93NUMPY\1\0"),
        "is not a whole .npy file of moments",
    ),
    "integers": (lambda r: np.save(r / FEATURES / name(0), np.zeros((4, 4, 4), int)), "holds int64 of shape"),
    "not finite": (lambda r: np.save(r / FEATURES / name(0), stored(0) * np.nan), "numbers that are not finite"),
    "no first picture": (
        lambda r: remove(r / "images" / moments.image_of(name(0))),
        "img00000000.png' can't be read .*: each file of moments needs its picture",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_folder_that_can_t_be_used_is_one_sentence(case, tmp_path):
    write(tmp_path, range(6), pictures=True)
    spoil, words = BAD[case]
    load(tmp_path)
    spoil(tmp_path)
    moments._listed.cache_clear()  # as in another process
    with pytest.raises(UserError, match=words) as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


def test_pictures_that_do_not_pair_up_are_refused_where_they_are_read(tmp_path):
    write(tmp_path, range(6), pictures=True)
    more = tmp_path / "images" / "00000" / "img00000077.png"
    Image.fromarray(picture(0)).save(more)
    source = load(tmp_path)
    assert len(source.take([1], ["moments", "label"]).captions) == 1
    with pytest.raises(UserError, match=r"has 1 pictures that .* does not name, such as '00000/img00000077.png'"):
        source.take([1], ["image"])
    more.unlink()
    (tmp_path / "images" / moments.image_of(name(4))).unlink()
    with pytest.raises(UserError, match="lacks 1 of the 6 pictures"):
        load(tmp_path).take([1], ["image"])


def test_a_later_file_of_another_size_is_named(tmp_path):
    write(tmp_path, range(6), pictures=True)
    np.save(tmp_path / FEATURES / name(3), np.zeros((4, 2, 4), np.float32))
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "images" / moments.image_of(name(4)))
    source = load(tmp_path)
    with pytest.raises(UserError, match=r"00003.npy' holds moments of shape \(4, 2, 4\), and others have \(4, 4, 4\)"):
        source.take([3], ["moments"])
    with pytest.raises(UserError, match=r"img00000004.png' has shape \(4, 4, 3\), and others have \(8, 8, 3\)"):
        source.take([4], ["image"])


def test_a_link_out_of_the_folder_is_refused_unless_it_is_allowed(tmp_path):
    write(tmp_path / "a", range(6))
    path = tmp_path / "a" / FEATURES / name(2)
    path.rename(tmp_path / "elsewhere.npy")
    path.symlink_to(tmp_path / "elsewhere.npy")
    with pytest.raises(UserError, match="names a file outside of"):
        load(tmp_path / "a")
    np.testing.assert_array_equal(load(tmp_path / "a", outside=True)[2]["moments"], stored(2).transpose(1, 2, 0))
