"""A folder of pictures for each class: labels, names, and the two ways that validation pictures lie."""

import pickle
import shutil

import makers
import numpy as np
import pytest

from rfjax import config as configs
from rfjax import data
from rfjax.data import types
from rfjax.errors import UserError

TRAIN = {"n01443537": range(10, 15), "n01440764": range(5), "n02102040": range(20, 24)}
WNIDS = sorted(TRAIN)


@pytest.fixture
def folder(tmp_path):
    makers.write_imagenet(tmp_path, TRAIN)
    return tmp_path


def load(path, split="train", **settings):
    plain = {"name": "imagenet", "path": str(path), "image_size": 8, "validation_percent": 0.0, "resize": "adm"}
    return data.open_source(configs.Data(**(plain | settings)), split)


def numbers(source):
    return [makers.number_of(source[index]["image"]) for index in range(len(source))]


def test_a_label_is_the_rank_of_its_folder(folder):
    source = load(folder)
    assert isinstance(source, types.Named) and isinstance(source, types.Lenient)
    assert numbers(source) == [*range(5), *range(10, 15), *range(20, 24)]
    assert [int(source[n]["label"]) for n in range(14)] == [0] * 5 + [1] * 5 + [2] * 4
    assert source[0]["caption"] == "a photo of a n01440764"
    assert numbers(load(folder / "train")) == numbers(source)  # the classes themselves
    assert numbers(pickle.loads(pickle.dumps(source))) == numbers(source)
    parts = [load(folder, split, validation_percent=40.0) for split in ("train", "validation")]
    assert sorted(numbers(parts[0]) + numbers(parts[1])) == sorted(numbers(source)) and len(parts[1]) > 0


def test_names_come_from_a_file_of_synsets(folder):
    lines = ["n02102040 English springer, English springer spaniel", "n01440764 tench, Tinca tinca", "n99999999 x"]
    (folder / "names.txt").write_text("\n".join([*lines, "n01443537\tgoldfish, Carassius auratus"]))
    source = load(folder, classes_file="names.txt", caption_template="{}!")
    assert [source[n]["caption"] for n in (0, 5, 10)] == ["tench!", "goldfish!", "english springer!"]
    (folder / "names.txt").write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"names.txt' has no name for 1 of 3 classes, such as n01443537"):
        load(folder, classes_file="names.txt")
    with pytest.raises(UserError, match=r"there is no file '.*nams.txt', which config.data.classes_file names"):
        load(folder, classes_file="nams.txt")


def test_validation_pictures_in_folders_of_classes(folder):
    makers.write_imagenet(folder, {WNIDS[2]: [30, 31], WNIDS[0]: [32]}, "val")
    source = load(folder, "validation")
    assert numbers(source) == [32, 30, 31] and [int(source[n]["label"]) for n in range(3)] == [0, 2, 2]
    assert len(load(folder)) == 14
    makers.write_imagenet(folder, {"n01443538": [40]}, "val")
    with pytest.raises(UserError, match=r"val/n01443538' is no class .*did you mean 'n01443537'"):
        load(folder, "validation")


@pytest.mark.parametrize(
    "lines",
    [
        [
            "ImageId,PredictionString",
            f"val_2,{WNIDS[2]} 85 1 499 272",
            f"val_1,{WNIDS[0]} 1 1 2 2",
            f"val_3,{WNIDS[1]}",
        ],
        [f"val_1.JPEG {WNIDS[0]}", f"val_3.JPEG\t{WNIDS[1]}", f"val_2.JPEG {WNIDS[2]}"],
        [WNIDS[0], WNIDS[2], WNIDS[1]],
    ],
)
def test_flat_validation_pictures_have_a_file_of_labels(folder, lines):
    (folder / "val").mkdir()
    for number in (1, 2, 3):
        (folder / "val" / f"val_{number}.JPEG").write_bytes(makers.picture(number))
    (folder / "labels.txt").write_text("\n".join(lines) + "\n")
    source = load(folder, "validation", labels_file="labels.txt")
    assert dict(zip(numbers(source), (int(source[n]["label"]) for n in range(3)), strict=True)) == {1: 0, 2: 2, 3: 1}
    (folder / "val" / "val_4.JPEG").write_bytes(makers.picture(4))
    if len(lines[0].split()) + lines[0].count(",") > 1:
        assert [str(one) for one in load(folder, "validation", labels_file="labels.txt", max_bad=0.3).problems] == [
            "val/val_4.JPEG: no class in labels.txt"
        ]
    else:
        with pytest.raises(UserError, match=r"labels.txt' has 3 lines, and '.*val' 4 pictures"):
            load(folder, "validation", labels_file="labels.txt")


def test_what_is_missing_or_misleading_is_one_sentence(folder):
    (folder / "val").mkdir()
    (folder / "val" / "a.JPEG").write_bytes(makers.picture(1))
    with pytest.raises(UserError, match="lie in no folders of classes: name the file of their classes"):
        load(folder, "validation")
    (folder / "labels.txt").write_text("490\n")
    with pytest.raises(UserError, match="holds numbers, whose order is not that of the sorted folders"):
        load(folder, "validation", labels_file="labels.txt")
    with pytest.raises(UserError, match="has no folder test/"):
        load(folder, "test")
    with pytest.raises(UserError, match="there is no folder"):
        load(folder / "nothing")
    shutil.rmtree(folder / "train" / WNIDS[0])
    (folder / "train" / WNIDS[0]).symlink_to(folder.parent)
    (folder / "val" / "b.JPEG").symlink_to("/etc/passwd")
    (folder / "labels.txt").write_text(f"a.JPEG {WNIDS[1]}\nb.JPEG {WNIDS[1]}\n")
    with pytest.raises(UserError, match="a file outside of"):
        load(folder, "validation", labels_file="labels.txt")


def test_broken_pictures_are_replaced_and_named(folder):
    (folder / "train" / WNIDS[1] / f"{WNIDS[1]}_11.JPEG").write_bytes(b"<html>")
    source = load(folder, max_bad=0.2)
    assert numbers(source)[5:8] == [10, 12, 12] and int(source[6]["label"]) == 1
    assert [str(one) for one in source.problems] == [
        f"train/{WNIDS[1]}/{WNIDS[1]}_11.JPEG: not a picture that Pillow reads"
    ]
    np.testing.assert_array_equal(source[6]["image"], source[7]["image"])
