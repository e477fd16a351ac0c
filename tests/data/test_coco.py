"""COCO: captions by picture, objects by size, and which file is meant."""

import json
import pickle

import makers
import numpy as np
import pytest

from rfjax import config as configs
from rfjax import data
from rfjax.data import types
from rfjax.errors import UserError

NUMBERS = (9, 2, 30, 14)


@pytest.fixture
def folder(tmp_path):
    makers.write_coco(tmp_path, NUMBERS)
    makers.write_coco(tmp_path, range(50, 53), "val")
    return tmp_path


def load(path, split="train", **settings):
    plain = {"name": "coco", "path": str(path), "image_size": 8}
    return data.open_source(configs.Data(**(plain | settings)), split)


def numbers(source):
    return [makers.number_of(source[index]["image"]) for index in range(len(source))]


def test_pictures_have_their_captions_in_order(folder):
    source = load(folder)
    assert isinstance(source, types.Named) and isinstance(source, types.Lenient)
    assert numbers(source) == sorted(NUMBERS)
    for index, number in enumerate(sorted(NUMBERS)):
        expected = tuple(f"number {number}, caption {one}" for one in range(5))
        assert source[index]["caption"] == types.Captions(expected)
    assert numbers(load(folder, "validation")) == [50, 51, 52]
    assert data.take(load(folder, "validation"), [1]).captions == ["number 51, caption 0"]
    assert numbers(pickle.loads(pickle.dumps(source))) == sorted(NUMBERS)


def test_training_draws_one_by_its_place_and_validation_takes_the_first(folder):
    def texts(count, start=0):
        stream = data.batches(
            load(folder), lambda found: {"text": np.array(found.captions)}, data.Order(4, 1), start=start
        )
        return [sorted(next(stream)["text"]) for _ in range(count)]

    seen = texts(8)
    assert texts(3, start=5) == seen[5:] and len({text for batch in seen for text in batch}) > 10


def test_objects_make_a_caption_the_largest_first(folder):
    path = folder / "annotations" / "instances_train2014.json"
    about = json.loads(path.read_text())
    about["annotations"] += [
        {"id": 100 + one, "image_id": 2, "category_id": 10 + one, "area": a} for one, a in ((0, 9), (2, 1))
    ]
    path.write_text(json.dumps(about))
    source = load(folder, annotations="annotations/instances_{}2014.json", caption_template="a {}.")
    assert [source[n]["caption"] for n in range(2)] == ["a cat, fire hydrant.", "a cat."]
    (folder / "annotations" / "captions_train2014.json").unlink()
    assert load(folder)[1]["caption"] == "a photo of a cat"


def test_what_has_no_caption_is_left_out_and_what_is_broken_replaced(folder):
    path = folder / "annotations" / "captions_train2014.json"
    about = json.loads(path.read_text())
    about["annotations"] = [one for one in about["annotations"] if one["image_id"] != 14]
    path.write_text(json.dumps(about))
    (folder / "train2014" / "COCO_train2014_000000000002.jpg").unlink()
    source = load(folder, max_bad=0.5)
    assert numbers(source) == [9, 9, 30] and source[0]["caption"].original[0] == "number 9, caption 0"
    assert [str(one) for one in source.problems] == [
        "train2014/COCO_train2014_000000000014.jpg: no caption in captions_train2014.json",
        "train2014/COCO_train2014_000000000002.jpg: no such file",
    ]


def test_a_hash_divides_without_a_file_for_validation(tmp_path):
    makers.write_coco(tmp_path, range(30))
    parts = [numbers(load(tmp_path, split, validation_percent=40.0)) for split in ("train", "validation")]
    assert sorted(parts[0] + parts[1]) == list(range(30)) and 0 < len(parts[1]) < 30


def test_what_is_not_clear_is_one_sentence(folder):
    makers.write_coco(folder, range(3), year=2017)
    with pytest.raises(
        UserError,
        match=r"captions_train2014.json and captions_train2017.json: set .*'annotations/captions_\{\}2014.json'",
    ):
        load(folder)
    assert len(load(folder, annotations="annotations/captions_{}2014.json")) == 4
    with pytest.raises(UserError, match=r"has no annotations/captions_test\*.json"):
        load(folder, "test")
    with pytest.raises(UserError, match=r"there is no file '.*a.json', which config.data.annotations names"):
        load(folder, annotations="a.json")
    for content, message in (
        ("[]", "holds a list"),
        ("{}", "annotations"),
        ('{"annotations": [], "images": [{}]}', "id and file_name"),
    ):
        (folder / "a.json").write_text(content)
        with pytest.raises(UserError, match=message):
            load(folder, annotations="a.json")
    outside = {
        "images": [{"id": 1, "file_name": "../../x.jpg"}],
        "annotations": [{"id": 1, "image_id": 1, "caption": "x"}],
    }
    (folder / "captions_train2014.json").write_text(json.dumps(outside))
    with pytest.raises(UserError, match="a file outside of"):
        load(folder, annotations="captions_train2014.json")
