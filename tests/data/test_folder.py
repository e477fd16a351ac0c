"""A user's own folder of pictures: what is read, what is left out and named, and which split it falls in."""

import json
import logging
import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rfjax.data import folder
from rfjax.data.types import SPLITS, Problem, Source
from rfjax.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rfjax"


def picture(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (6, 8, 3), np.uint8)


def write(path, lines, captions_file="captions.jsonl"):
    path.mkdir(exist_ok=True)
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (path / captions_file).write_text(text + "\n", encoding="utf-8")


@pytest.fixture
def pictures(tmp_path):
    """Forty good pictures, in two folders."""
    path = tmp_path / "pictures"
    (path / "b").mkdir(parents=True)
    names = [f"{'b/' if index % 2 else ''}{index}.png" for index in range(40)]
    for index, name in enumerate(names):
        Image.fromarray(picture(index)).save(path / name)
    write(path, [{"file": name, "caption": f"number {index}"} for index, name in enumerate(names)])
    return path


def load(path, split="train", **settings) -> folder.Folder:
    defaults = {"image_size": 6, "channels": 3, "validation_percent": 25.0}
    return folder.load(path=str(path), split=split, **(defaults | settings))


def add(path, *lines):
    with (path / "captions.jsonl").open("a", encoding="utf-8") as file:
        file.writelines((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)


@pytest.mark.parametrize("cache_mb", [0, 512])
def test_pictures_and_captions_belong_together(pictures, cache_mb):
    seen = []
    for split in ("train", "validation"):
        source = load(pictures, split, cache_mb=cache_mb)
        assert isinstance(source, Source) and source.problems == () and source.cached == bool(cache_mb)
        for index in (*range(len(source)), 0):
            example = source[index]
            number = int(example["caption"].split()[1])
            np.testing.assert_array_equal(example["image"], picture(number)[:, 1:7])
            assert example["index"] == index and not example["image"].flags.writeable
            assert os.path.basename(source.files[index]) == f"{number}.png"
        seen += source.files
    assert len(seen) == len(set(seen)) == 40


def test_splits_do_not_move_when_pictures_come(pictures):
    before = {split: set(load(pictures, split, test_percent=20.0).files) for split in SPLITS}
    for index in range(40, 60):
        Image.fromarray(picture(index)).save(pictures / f"{index}.png")
        add(pictures, {"file": f"{index}.png", "caption": "new"})
    after = {split: set(load(pictures, split, test_percent=20.0).files) for split in SPLITS}
    for split in SPLITS:
        assert before[split] <= after[split]
    fewer = {split: set(load(pictures, split).files) for split in ("train", "validation")}
    assert fewer["validation"] == after["validation"]
    assert fewer["train"] == after["train"] | after["test"]


def test_the_shares_are_those_asked_for():
    shares = {"validation": 5.0, "test": 10.0}
    found = [folder._split_of(f"picture {index}.png", shares) for index in range(20000)]
    for split, share in {"validation": 0.05, "test": 0.10, "train": 0.85}.items():
        assert abs(found.count(split) - 20000 * share) < 4 * np.sqrt(20000 * share * (1 - share))


@settings(max_examples=40)
@given(st.text(max_size=20), st.floats(0, 100))
def test_all_or_nothing_shares(name, percent):
    assert folder._split_of(name, {"validation": 0.0, "test": 0.0}) == "train"
    assert folder._split_of(name, {"validation": 100.0, "test": 0.0}) == "validation"
    assert folder._split_of(name, {"validation": percent, "test": 0.0}) in ("train", "validation")


def test_a_line_may_name_its_split(pictures):
    write(pictures, [{"file": f"{i}.png", "caption": "c", "split": SPLITS[i // 2 % 3]} for i in range(0, 12, 2)])
    for number in range(40):
        if number % 2 or number >= 12:
            (pictures / f"{'b/' if number % 2 else ''}{number}.png").unlink()
    assert [load(pictures, split).files for split in SPLITS] == [
        ("0.png", "6.png"),
        ("2.png", "8.png"),
        ("4.png", "10.png"),
    ]


def test_hugging_face_metadata_is_found(pictures):
    lines = [json.loads(line) for line in (pictures / "captions.jsonl").read_text().splitlines()]
    (pictures / "captions.jsonl").unlink()
    write(
        pictures,
        [{"file_name": line["file"], "text": [line["caption"], "another"]} for line in lines],
        "metadata.jsonl",
    )
    source = load(pictures)
    assert source.problems == () and source[0]["caption"].startswith("number ")
    with pytest.raises(UserError, match=r"has no caption\.jsonl \(did you mean 'metadata\.jsonl'\?\)"):
        load(pictures, captions_file="caption.jsonl")


def test_every_problem_is_named_and_counted(pictures, caplog):
    whole = (pictures / "0.png").read_bytes()
    (pictures / "broken.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "web.jpg").write_text("<html>")
    (pictures / "lonely.webp").write_bytes(whole)
    (pictures / ".hidden.png").write_bytes(whole)
    (pictures / "mute.png").write_bytes(whole)
    add(
        pictures,
        {"file": "broken.png", "caption": "a"},
        {"file": "web.jpg", "caption": "a"},
        {"file": "gone.png", "caption": "a"},
        {"file": "./mute.png", "caption": "  "},
        {"caption": "of what?"},
        "{not json}",
        "[1]",
        "",
        {"file": "0.png", "caption": "a", "split": "trian"},
    )
    with caplog.at_level(logging.WARNING):
        source = load(pictures, max_bad=0.2)
    reasons = {problem.file: problem.reason for problem in source.problems}
    assert reasons.pop("captions.jsonl line 46").startswith("Expecting property name")
    assert "truncated" in reasons.pop("broken.png")
    assert reasons == {
        "web.jpg": "not a picture that Pillow reads",
        "gone.png": "no such file",
        "mute.png": "no caption (captions.jsonl line 44)",
        "captions.jsonl line 45": 'no "file"',
        "captions.jsonl line 47": "no JSON object",
        "0.png": "unknown split 'trian' (did you mean 'train'?) (captions.jsonl line 49)",
        "lonely.webp": "no line in captions.jsonl",
    }
    assert "9 of 49 records are bad and left out" in caplog.text
    assert {load(pictures, max_bad=0.2)[index]["caption"] for index in range(len(source))} == {
        source[index]["caption"] for index in range(len(source))
    }
    with pytest.raises(
        UserError, match=r"9 of 49 records are bad, more than max_bad = 0\.05 allows \(2\): .*; and 6 more"
    ):
        load(pictures)


def test_a_name_that_no_file_can_have_is_a_problem(pictures):
    add(pictures, {"file": "a\0b.png", "caption": "a"}, {"file": "\ud800.png", "caption": "a"})
    assert len(load(pictures).problems) == 2


def test_the_limit_is_exact(pictures):
    add(pictures, {"file": "gone.png", "caption": "a"})
    assert load(pictures, max_bad=1 / 41).problems == (Problem("gone.png", "no such file"),)
    with pytest.raises(UserError, match="1 of 41 records"):
        load(pictures, max_bad=0.99 / 41)


def test_good_pictures_are_decoded_once_and_changed_ones_again(pictures, cache, monkeypatch):
    decoded, decode = [], folder.images.decode

    def counted(data, channels, at_least=0):
        decoded.extend([data] * (at_least == 1))  # what a look asks for
        return decode(data, channels, at_least)

    monkeypatch.setattr(folder.images, "decode", counted)
    load(pictures)
    assert len(decoded) == 40 and len(list(cache.iterdir())) == 1
    decoded.clear()
    load(pictures, "validation")
    assert decoded == []
    (pictures / "0.png").write_bytes(b"other")
    assert load(pictures).problems == (Problem("0.png", "not a picture that Pillow reads"),)
    Image.fromarray(picture(0)).save(pictures / "0.png")
    assert load(pictures).problems == ()  # a mended picture is seen


@pytest.mark.parametrize("damage", ["", "[", "[1]", '{"0.png": 3}'])
def test_a_damaged_cache_is_made_again(pictures, cache, damage):
    load(pictures)
    (file,) = cache.iterdir()
    good = file.read_text()
    file.write_text(damage)
    assert load(pictures).problems == ()
    assert json.loads(file.read_text()) == json.loads(good)


def test_nothing_is_written_to_the_folder_and_no_cache_is_needed(pictures, tmp_path, monkeypatch):
    before = sorted(path.name for path in pictures.rglob("*"))
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(load(pictures)) + len(load(pictures, "validation")) == 40
    assert sorted(path.name for path in pictures.rglob("*")) == before


def test_pickled_it_is_the_same(pictures):
    source = load(pictures)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[3]["image"], source[3]["image"])


def test_a_picture_that_goes_away_later_is_named(pictures):
    source = load(pictures, cache_mb=0)
    (pictures / source.files[2]).unlink()
    with pytest.raises(UserError, match=f"{source.files[2]} was good when the run began"):
        source[2]


def test_mistakes_are_one_sentence(pictures, tmp_path):
    with pytest.raises(UserError, match=r"There is no folder .*nowhere"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"has no captions.jsonl or metadata.jsonl"):
        load(pictures / "b")
    with pytest.raises(UserError, match=r"Split 'test' of the folder .* is empty: of 40 pictures"):
        load(pictures, "test")
    with pytest.raises(UserError, match="leave no room"):
        load(pictures, validation_percent=60.0, test_percent=60.0)
    with pytest.raises(UserError, match="did you mean 'train'"):
        load(pictures, "tran")
    with pytest.raises(IndexError, match="index 40 is outside"):
        load(pictures)[40]
