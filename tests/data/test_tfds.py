"""Prepared TFDS data sets: tiny ones are written here, without TensorFlow, and read back."""

import io
import logging
import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets
from PIL import Image

from rfjax import config as configs
from rfjax.data import features as tfds_features
from rfjax.data import identity, prepared, tfds
from rfjax.data.types import Source
from rfjax.errors import UserError

kinds = tensorflow_datasets.features
tensorflow_datasets.disable_progress_bar()


def picture(index: int, height: int = 6, width: int = 8) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (height, width, 3), np.uint8)


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def prepare(data_dir: Path, name: str, features: dict, records: list[dict], version: str = "1.0.0", config: str = ""):
    """Writes a data set with the splits train (all records) and test (the first three), in the order given."""

    class Builder(tensorflow_datasets.core.GeneratorBasedBuilder, skip_registration=True):
        def _info(self):
            return tensorflow_datasets.core.DatasetInfo(
                builder=self, features=kinds.FeaturesDict(features), disable_shuffling=True
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(records), "test": self._generate_examples(records[:3])}

        def _generate_examples(self, some):
            yield from enumerate(some)

    Builder.name, Builder.VERSION = name, tensorflow_datasets.core.Version(version)
    if config:
        Builder.BUILDER_CONFIGS = [tensorflow_datasets.core.BuilderConfig(name=config, version=version)]
    Builder(data_dir=data_dir).download_and_prepare(file_format="array_record")


LABELS = {
    "image": kinds.Image(shape=(None, None, 3)),
    "label": kinds.ClassLabel(names=["Ankle boot", "hot_dog", "Cat"]),
}
CAPTIONED = {
    "filename": kinds.Text(),
    "image": kinds.Image(),
    "mask": kinds.Image(),
    "label": kinds.ClassLabel(num_classes=3),
    "captions": kinds.Sequence({"id": np.int64, "text": kinds.Text()}),
}
ENCODED = {
    "latent": kinds.Tensor(shape=(4, 4, 2), dtype=np.float32),
    "context": kinds.Tensor(shape=(3, 5), dtype=np.float16),
    "pooled": kinds.Tensor(shape=(7,), dtype=np.float32),
}


def encoded(index: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(index)
    return {key: rng.normal(size=feature.shape).astype(feature.np_dtype) for key, feature in ENCODED.items()}


def captioned(index: int, texts: list[str]) -> dict:
    return {
        "filename": f"{index}.png",
        "image": png(picture(index)),
        "mask": png(picture(index + 100)),
        "label": index % 3,
        "captions": [{"id": number, "text": text} for number, text in enumerate(texts)],
    }


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("tfds")
    labelled = [{"image": png(picture(index)), "label": index % 3} for index in range(40)]
    prepare(root, "labelled", LABELS, labelled)
    prepare(root, "labelled", LABELS, labelled[:5], version="1.10.0")
    prepare(root, "labelled", LABELS, labelled[:4], version="1.9.0")
    prepare(root, "captioned", CAPTIONED, [captioned(i, [f"Picture {i}, größer", "second"]) for i in range(8)])
    prepare(root, "encoded", ENCODED, [encoded(index) for index in range(4)])
    prepare(root, "configured", LABELS, labelled[:3], config="small")
    damaged = [dict(record) for record in labelled]
    damaged[4]["image"], damaged[5]["label"], damaged[39]["image"] = b"not a picture", -1, png(picture(39))[:60]
    prepare(root, "damaged", LABELS, damaged)
    shutil.copytree(root / "labelled" / "1.0.0", root / "labelled" / "incomplete.ABCDEF_2.0.0")
    return root


def load(data_dir, dataset="labelled:1.0.0", split_spec="train", image_size=6, channels=3, **settings) -> tfds.Tfds:
    plain = {"dataset": dataset, "data_dir": str(data_dir), "train_split": split_spec, "image_size": image_size}
    return tfds.open_source(configs.Data(name="tfds", channels=channels, **plain, **settings), "train")


@pytest.mark.parametrize("cache_mb", [0, 512])
def test_labels_become_captions_and_pictures_are_cropped(data_dir, cache_mb):
    source = load(data_dir, cache_mb=cache_mb)
    assert isinstance(source, Source) and len(source) == 40
    assert (source[3]["image"] is source[3]["image"]) == bool(cache_mb)
    for index in (7, 39, 7, 0):
        example = source[index]
        np.testing.assert_array_equal(example["image"], picture(index)[:, 1:7])
        assert example["image"].dtype == np.uint8 and not example["image"].flags.writeable
        captions = ("a photo of a ankle boot", "a photo of a hot dog", "a photo of a cat")
        assert example["caption"] == captions[index % 3] and example["index"] == index
    assert set(example) == {"image", "caption", "index", "label"}
    assert source.fields == {"image": ((6, 6, 3), "uint8", True), "label": ((), "int64", False)}
    with pytest.raises(IndexError):
        source[40]


def test_the_template_resize_and_grey(data_dir):
    source = load(data_dir, channels=1, image_size=4, resize="squash", caption_template="{}, studio {light}")
    assert source[0]["image"].shape == (4, 4, 1)
    assert source[0]["caption"] == "ankle boot, studio {light}"
    with pytest.raises(UserError, match="caption_template must hold"):
        load(data_dir, caption_template="a photo")


def test_slices_are_tfds_slices(data_dir):
    first, rest = (load(data_dir, split_spec=spec) for spec in ("train[:95%]", "train[95%:]"))
    assert (len(first), len(rest)) == (38, 2)
    np.testing.assert_array_equal(rest[1]["image"], load(data_dir)[39]["image"])
    assert len(load(data_dir, split_spec="train[:10]+test")) == 13


def test_versions_and_configs(data_dir):
    assert len(load(data_dir, "labelled")) == 5  # 1.10.0 is newer than 1.9.0
    assert prepared.dataset_folder("labelled", str(data_dir)).name == "1.10.0"
    assert prepared.dataset_folder("labelled:1.9.0", str(data_dir)).name == "1.9.0"
    assert prepared.dataset_folder("configured", str(data_dir)) == prepared.dataset_folder(
        "configured/small:1.0.0", str(data_dir)
    )
    assert prepared.prepared(data_dir)["labelled"] == ["1.0.0", "1.10.0", "1.9.0"]  # and nothing incomplete
    shutil.copytree(data_dir / "configured" / "small", data_dir / "configured" / "large")
    with pytest.raises(UserError, match="needs a config: choose from configured/large, configured/small"):
        prepared.dataset_folder("configured", str(data_dir))


def test_captions_are_found_and_the_first_is_taken(data_dir):
    source = load(data_dir, "captioned")
    assert source[5]["caption"] == "Picture 5, größer"
    np.testing.assert_array_equal(source[5]["image"], picture(5)[:, 1:7])
    assert load(data_dir, "captioned", caption_key="filename")[5]["caption"] == "5.png"
    assert load(data_dir, "captioned", label_key="label")[5]["caption"] == "a photo of a 2"
    np.testing.assert_array_equal(load(data_dir, "captioned", image_key="mask")[5]["image"], picture(105)[:, 1:7])


def test_latents_and_encodings_pass_unchanged(data_dir):
    source = load(data_dir, "encoded", image_size=4, channels=2)
    for index in range(4):
        example, stored = source[index], encoded(index)
        for key, feature in (("latent", "latent"), ("context", "context"), ("pooled", "pooled")):
            assert example[key].dtype == np.float32
            np.testing.assert_array_equal(example[key], stored[feature].astype(np.float32))
        assert example["caption"] == ""
    with pytest.raises(UserError, match=r"latents of shape \(4, 4, 2\), but image_size and channels say \(32, 32, 3\)"):
        load(data_dir, "encoded", image_size=32)


def test_bad_records_are_replaced_and_named(data_dir, caplog):
    with caplog.at_level(logging.WARNING):
        source = load(data_dir, "damaged", max_bad=0.1, cache_mb=0)
        cached = load(data_dir, "damaged", max_bad=0.1)
    for each in (source, cached):
        for index, good in ((39, 0), (4, 6), (5, 6), (4, 6)):  # the next good one, around the end
            np.testing.assert_array_equal(each[index]["image"], picture(good)[:, 1:7])
            assert each[index]["index"] == index
        assert [problem.file for problem in each.problems] == ["record 4", "record 5", "record 39"]
        assert each.problems[0].reason == "not a picture that Pillow reads"
        assert each.problems[1].reason == "no label"
    assert "damaged train: 1 of 40 records are bad and left out: record" in caplog.text


@pytest.mark.parametrize("cache_mb", [0, 512])
def test_too_many_bad_records_stop_the_run(data_dir, cache_mb):
    source = load(data_dir, "damaged", max_bad=0.05, cache_mb=cache_mb)  # two of forty
    with pytest.raises(
        UserError, match=r"3 of 40 records are bad, more than config.data.max_bad = 0.05 allows \(2\): record 4: not a"
    ):
        [source[index] for index in range(40)]


def test_pickles_and_threads_give_the_same(data_dir):
    source = load(data_dir)
    twin = pickle.loads(pickle.dumps(source))
    expected = [picture(index)[:, 1:7] for index in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for each in (source, twin):
            for got, wanted in zip(pool.map(each.__getitem__, list(range(40)) * 5), expected * 5, strict=True):
                np.testing.assert_array_equal(got["image"], wanted)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": "labeled"}, "no data set 'labeled' is prepared in .* \\(did you mean 'labelled'\\?\\)"),
        ({"dataset": "labelled:3.0.0"}, "has no version 3.0.0"),
        ({"dataset": "la belled"}, "name must be like 'name', 'name/config' or 'name:1.0.0'"),
        (
            {"split_spec": "trian"},
            "has no split 'trian' \\(did you mean 'train'\\?\\); it has: train \\(40\\), test \\(3\\)",
        ),
        ({"split_spec": "train[:x%]"}, 'slices are written "train\\[:95%\\]"'),
        ({"split_spec": "train[:0]"}, "has no record in split"),
        (
            {"image_key": "picture"},
            "has no feature 'picture', which config.data.image_key names; it has: image \\(image\\), label",
        ),
        ({"caption_key": "label"}, "'label' of the data set .* can't be the caption_key"),
        ({"label_key": "image"}, "can't be the label_key"),
        ({"channels": 2}, "channels must be 1"),
    ],
)
def test_mistakes_are_one_sentence(data_dir, settings, message):
    with pytest.raises(UserError, match=message) as caught:
        load(data_dir, **settings)
    assert str(caught.value).count("\n") == 0


def test_a_missing_folder_is_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(
        UserError, match=r"is not a folder; `python -m rfjax.data.fashion_mnist --data_dir .*` prepares it"
    ):
        load(tmp_path / "nowhere", "fashion_mnist")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(UserError, match="no prepared TFDS data set in the data_dir"):
        load("", "mnist")


def test_a_missing_file_is_named(data_dir, tmp_path):
    shutil.copytree(data_dir / "encoded", tmp_path / "encoded")
    (shard,) = (tmp_path / "encoded" / "1.0.0").glob("*train*")
    shard.unlink()
    with pytest.raises(UserError, match=f"lacks 1 of its files, such as {shard.name}"):
        load(tmp_path, "encoded", image_size=4, channels=2)


def many_records(target, name="damaged", count=1500) -> Path:
    """Prepares a data set of many records that no compression makes few; returns their file."""
    noisy = [
        {"image": png(np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)), "label": 0} for i in range(count)
    ]
    prepare(target, name, LABELS, noisy)
    return next((target / name / "1.0.0").glob("*train*array_record*"))


def test_damaged_record_files_are_named_and_a_damaged_record_is_left_out(tmp_path, caplog):
    file = many_records(tmp_path)
    whole = file.read_bytes()
    spot = len(whole) // 3
    file.write_bytes(whole[:spot] + bytes(100) + whole[spot + 100 :])
    for cache_mb in (0, 512):
        source = load(tmp_path, "damaged", image_size=8, cache_mb=cache_mb)
        with caplog.at_level(logging.WARNING):
            seen = [source[index]["index"] for index in range(len(source))]
        assert seen == list(range(len(source))) and 0 < len(source.problems) < 10
        assert "a damaged record (Corrupted" in source.problems[0].reason
    for spoilt in (
        whole[: len(whole) // 2],
        b"<html>" * 100,
    ):
        file.write_bytes(spoilt)
        with pytest.raises(UserError, match=r"record 0 can't be read .*copy it again"):
            load(tmp_path, "damaged", image_size=8)


def test_what_describes_a_data_set_is_checked_before_it_is_believed(data_dir, tmp_path):
    shutil.copytree(data_dir / "labelled" / "1.0.0", tmp_path / "labelled" / "1.0.0")
    folder = tmp_path / "labelled" / "1.0.0"
    described = folder / "features.json"
    text = described.read_text()
    for spoilt, reason in (
        (
            text.replace("tensorflow_datasets.core.features.image_feature", "this"),
            "a class outside of tensorflow_datasets",
        ),
        ("{", "can't be opened .*copy it again"),
        ("[" * 100_000, "can't be opened .*copy it again"),
    ):
        described.write_text(spoilt)
        with pytest.raises(UserError, match=reason):
            load(tmp_path)
    described.unlink()
    described.symlink_to(data_dir / "labelled" / "1.0.0" / "features.json")
    with pytest.raises(UserError, match=r"names a file outside of .*features.json"):
        load(tmp_path)
    assert len(load(tmp_path, outside=True)) == 40
    (folder / "label.labels.txt").unlink(missing_ok=True)
    os.mkfifo(folder / "label.labels.txt")
    with pytest.raises(UserError, match="is a FIFO"):
        load(tmp_path, outside=True)


def test_a_data_set_is_known_by_its_files_and_its_records(data_dir, tmp_path):
    def known(root):
        splits = [load(root, "labelled:1.0.0", split) for split in ("train[:30]", "train[30:]")]
        return identity.identify(*splits, 8)

    shutil.copytree(data_dir / "labelled" / "1.0.0", tmp_path / "labelled" / "1.0.0")
    before = known(data_dir)
    assert known(tmp_path) == before
    assert (before.train.count, before.validation.count) == (30, 10)
    other = [{"image": png(picture(index + (index == 33))), "label": index % 3} for index in range(40)]
    prepare(tmp_path / "other", "labelled", LABELS, other)
    assert "the content of the validation examples is another (of the first 8)" in identity.differences(
        before, known(tmp_path / "other")
    )


LABEL, TEXT, IMAGE = kinds.ClassLabel(num_classes=2), kinds.Text(), kinds.Image()


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"a": IMAGE, "b": IMAGE, "label": LABEL}, "set image_key to one of a, b"),
        ({"image": IMAGE, "caption": TEXT, "text": TEXT}, "set caption_key to one of caption, text"),
        ({"image": IMAGE, "x": LABEL, "y": LABEL}, "set label_key to one of x, y"),
        ({"image": IMAGE, "name": TEXT}, r"no clear caption or label.*name \(text\)"),
        (
            {"sound": kinds.Tensor(shape=(3,), dtype=np.float32), "caption": TEXT},
            "has no image; it has: caption .*, sound",
        ),
    ],
)
def test_ambiguous_features_are_listed(features, message):
    with pytest.raises(UserError, match=message):
        tfds_features.find_features(features, image="", text="", label="", template="{}", what="data set")


def test_stored_as_tfrecord_is_one_sentence(data_dir, tmp_path):
    shutil.copytree(data_dir / "encoded", tmp_path / "encoded")
    info = tmp_path / "encoded" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match="is stored as tfrecord, not array_record: prepare it again"):
        load(tmp_path, "encoded", image_size=4, channels=2)


OFFLINE = """
import socket, sys, types
package = types.ModuleType("rfjax.data")  # the modules of this folder by themselves, without what the package imports
package.__path__ = ["rfjax/data"]
sys.modules["rfjax.data"] = package
def refuse(*_):
    raise AssertionError("reached for the network")
socket.socket.connect = socket.getaddrinfo = refuse
from rfjax.data import digits, fashion_mnist, folder, images, tfds, types
from rfjax.errors import UserError
assert "tensorflow_datasets" not in sys.modules and "sklearn" not in sys.modules
from rfjax.config import Data
settings = dict(name="tfds", data_dir=sys.argv[1], train_split="train", image_size=6, channels=3)
print(tfds.open_source(Data(dataset="labelled", **settings), "train")[1]["caption"])
try:
    tfds.open_source(Data(dataset="cifar10", **settings), "train")  # TFDS knows how to download this one
except UserError as error:
    print(error)
assert digits.load(split="test", image_size=8)[0]["image"].any()
print([name for name in ("jax", "tensorflow", "torch") if name in sys.modules])
"""


def test_neither_jax_nor_tensorflow_nor_a_network_is_needed(data_dir):
    run = subprocess.run(
        [sys.executable, "-c", OFFLINE, str(data_dir)],
        capture_output=True,
        text=True,
        cwd=Path(tfds.__file__).parents[2],
        env=os.environ | {"PYTHONPATH": "."},
        check=False,
    )
    assert run.returncode == 0, run.stderr
    caption, missing, imported = run.stdout.splitlines()
    assert caption == "a photo of a hot dog"
    assert missing.startswith("no data set 'cifar10' is prepared in")
    assert imported == "[]"
    assert run.stderr == ""
