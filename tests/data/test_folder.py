"""A user's own folder of pictures: what is read, what is left out and named, and which split it falls in."""

import json
import logging
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rfjax import config as configs
from rfjax.data import captions, folder, images, paths
from rfjax.data.types import SPLITS, Captions, Problem, Source, take
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
    plain = {"name": "folder", "path": str(path), "image_size": 6, "channels": 3, "validation_percent": 25.0}
    return folder.open_source(configs.Data(**(plain | settings)), split)


def add(path, *lines):
    with (path / "captions.jsonl").open("a", encoding="utf-8") as file:
        file.writelines((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)


@pytest.mark.parametrize("cache_mb", [0, 512])
def test_pictures_and_captions_belong_together(pictures, cache_mb):
    seen = []
    for split in ("train", "validation"):
        source = load(pictures, split, cache_mb=cache_mb)
        assert isinstance(source, Source) and source.problems == ()
        assert (source[0]["image"] is source[0]["image"]) == bool(cache_mb)
        for index in (*range(len(source)), 0):
            example = source[index]
            number = int(example["caption"].split()[1])
            np.testing.assert_array_equal(example["image"], picture(number)[:, 1:7])
            assert example["index"] == index and not example["image"].flags.writeable
            assert os.path.basename(source.files[index]) == f"{number}.png"
        seen += source.files
    assert len(seen) == len(set(seen)) == 40


def test_splits_do_not_move_when_pictures_come(pictures):
    before = {split: set(load(pictures, split).files) for split in ("train", "validation")}
    for index in range(40, 60):
        Image.fromarray(picture(index)).save(pictures / f"{index}.png")
        add(pictures, {"file": f"{index}.png", "caption": "new"})
    for split, files in before.items():
        assert files < set(load(pictures, split).files)


def test_the_shares_are_those_asked_for():
    found = [captions.split_of(f"picture {index}.png", 5.0) for index in range(20000)]
    for split, share in {"validation": 0.05, "train": 0.95}.items():
        assert abs(found.count(split) - 20000 * share) < 4 * np.sqrt(20000 * share * (1 - share))


@settings(max_examples=40)
@given(st.text(max_size=20), st.floats(0, 100))
def test_all_or_nothing_shares(name, percent):
    assert captions.split_of(name, 0.0) == "train"
    assert captions.split_of(name, 100.0) == "validation"
    assert captions.split_of(name, percent) in ("train", "validation")


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


def test_lines_may_have_several_captions_and_synthetic_ones(pictures):
    lines = [json.loads(line) for line in (pictures / "captions.jsonl").read_text().splitlines()]
    lines = [line | {"split": "train"} for line in lines]
    write(pictures, lines)
    before = list(load(pictures).names())
    lines[0] |= {"caption": [" a kite ", "", "red kite"], "synthetic": "A red kite on a blue sky."}
    lines[1] |= {"caption": ["one"], "synthetic": []}
    write(pictures, lines)
    source = load(pictures)
    assert source[0]["caption"] == Captions(("a kite", "red kite"), ("A red kite on a blue sky.",))
    assert source[1]["caption"] == "one" and source[2]["caption"] == lines[2]["caption"]
    names = list(source.names())
    assert names[0] == before[0].rsplit("\0", 1)[0] + "\0a kite\0red kite\0\0A red kite on a blue sky."
    assert names[2:] == before[2:]
    lines[0]["by_a_model"] = lines[0].pop("synthetic")
    write(pictures, lines)
    assert load(pictures)[0]["caption"].synthetic == ()
    assert load(pictures, synthetic_key="by_a_model")[0]["caption"].synthetic == ("A red kite on a blue sky.",)


def test_hugging_face_metadata_is_found(pictures):
    lines = [json.loads(line) for line in (pictures / "captions.jsonl").read_text().splitlines()]
    (pictures / "captions.jsonl").unlink()
    write(
        pictures,
        [{"file_name": line["file"], "text": [line["caption"], "another"]} for line in lines],
        "metadata.jsonl",
    )
    source = load(pictures)
    assert source.problems == () and source[0]["caption"].original[0].startswith("number ")
    assert take(source, [0]).captions[0].startswith("number ")
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
        UserError,
        match=r"9 of 49 records are bad, more than config\.data\.max_bad = 0\.05 allows \(2\): .*; and 6 more",
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
    decoded, decode = [], images.decode

    def counted(data, channels, at_least=0):
        decoded.extend([data] * (at_least == 1))  # what a look asks for
        return decode(data, channels, at_least)

    monkeypatch.setattr(images, "decode", counted)
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
    with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"has no captions.jsonl or metadata.jsonl"):
        load(pictures / "b")
    with pytest.raises(UserError, match=r"split 'test' of the folder .* is empty: of 40 pictures"):
        load(pictures, "test")
    with pytest.raises(UserError, match="did you mean 'squash'"):
        load(pictures, resize="sqash")
    with pytest.raises(UserError, match="did you mean 'train'"):
        load(pictures, "tran")
    with pytest.raises(IndexError, match="index 40 is outside"):
        load(pictures)[40]


@pytest.mark.parametrize("how", ["absolute", "above", "link", "folder", "captions"])
def test_a_picture_outside_of_the_folder_is_refused_unless_a_key_allows_it(pictures, tmp_path, how):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Image.fromarray(picture(99)).save(elsewhere / "secret.png")
    name = {
        "absolute": str(elsewhere / "secret.png"),
        "above": "b/../../elsewhere/secret.png",
        "link": "link.png",
        "folder": "b/linked/secret.png",
        "captions": "own.png",
    }[how]
    (pictures / "link.png").symlink_to(elsewhere / "secret.png")
    (pictures / "b" / "linked").symlink_to(elsewhere)
    Image.fromarray(picture(98)).save(pictures / "own.png")
    add(pictures, {"file": name, "caption": "c"})
    if how == "captions":
        (pictures / "captions.jsonl").rename(elsewhere / "captions.jsonl")
        (pictures / "captions.jsonl").symlink_to(elsewhere / "captions.jsonl")
    with pytest.raises(UserError, match=r"outside of '.*pictures'.*set config\.data\.outside = True"):
        load(pictures, max_bad=1.0)
    both = [load(pictures, split, max_bad=1.0, outside=True) for split in ("train", "validation")]
    assert sum(map(len, both)) == 41


def test_a_folder_behind_a_link_and_links_within_it_are_inside(pictures, tmp_path):
    (tmp_path / "link").symlink_to(pictures)
    (pictures / "also.png").symlink_to("0.png")
    add(pictures, {"file": "also.png", "caption": "c"})
    assert load(tmp_path / "link").problems == ()


def test_what_is_no_file_is_left_out_and_holds_nothing_up(pictures):
    os.mkfifo(pictures / "fifo.png")
    (pictures / "folder.png").mkdir()
    (pictures / "endless.png").symlink_to("/dev/zero")
    (pictures / "loop.png").symlink_to("loop.png")
    add(pictures, *({"file": f"{name}.png", "caption": "c"} for name in ("fifo", "folder", "endless", "loop")))
    reasons = {problem.file: problem.reason for problem in load(pictures, max_bad=0.1, outside=True).problems}
    assert reasons == {
        "fifo.png": "is a FIFO, and must be a file: put the file itself there",
        "folder.png": "is a folder, and must be a file: put the file itself there",
        "endless.png": "is a device, and must be a file: put the file itself there",
        "loop.png": "Too many levels of symbolic links",
    }


def test_a_captions_file_that_is_no_file_is_one_sentence(pictures, monkeypatch):
    path = pictures / "captions.jsonl"
    text = path.read_bytes()
    for make, reason in (
        (lambda: os.mkfifo(path), "is a FIFO"),
        (lambda: path.symlink_to("/dev/zero"), "is a device"),
        (lambda: path.write_bytes(text.decode().encode("utf-16")), "is UTF-16: save it as UTF-8"),
    ):
        path.unlink()
        make()
        with pytest.raises(UserError, match=reason):
            load(pictures, outside=True)
    path.write_bytes(text)
    monkeypatch.setattr(paths.memory, "installed", lambda: 10 * len(text) - 1)
    assert len(load(pictures))
    monkeypatch.setattr(paths.memory, "installed", lambda: len(text))
    with pytest.raises(UserError, match="GiB of memory, and there are"):
        load(pictures)


def test_lines_of_every_kind_are_read_or_named_by_their_number(pictures, monkeypatch):
    path = pictures / "captions.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    add(
        pictures,
        "[" * 100_000,
        json.dumps({"file": "0.png", "caption": "half an emoji \ud83d"}),
        '{"file": "1.png", "caption": "' + "long " * 300_000 + '"}',
        '{"file": "2.png", "caption": "after it"}',
    )
    source = load(pictures, max_bad=0.1)
    assert {str(problem) for problem in source.problems} == {
        "captions.jsonl line 41: nested too deeply",
        "0.png: half of a surrogate pair, which is no character (captions.jsonl line 42)",
        "captions.jsonl line 43: longer than 1,048,576 bytes",
    }
    assert len(source) + len(load(pictures, "validation", max_bad=0.1)) == 41


def test_a_name_is_found_in_whichever_unicode_form_the_disk_has_it(pictures):
    one, other = "caf\u00e9.png", "cafe\u0301.png"  # an e with an accent as one letter, and as two
    for stored, written in ((one, other), (other, one)):
        Image.fromarray(picture(50)).save(pictures / stored)
        add(pictures, {"file": written, "caption": "c"})
        sources = [load(pictures, split, validation_percent=50.0) for split in ("train", "validation")]
        assert all(source.problems == () for source in sources)
        assert [file for source in sources for file in source.files if file.startswith("caf")] == [stored]
        (pictures / stored).unlink()
        path = pictures / "captions.jsonl"
        path.write_text("".join(path.read_text("utf-8").splitlines(keepends=True)[:-1]), "utf-8")
    for name in ("e\u0301\u0302.png", "\u00e9\u0302.png"):
        Image.fromarray(picture(50)).save(pictures / name)
    add(pictures, {"file": "\u00e9\u0302.png", "caption": "exact"}, {"file": "x\u00e9\u0302.png", "caption": "none"})
    assert {problem.file for problem in load(pictures, max_bad=0.1).problems} == {
        "e\u0301\u0302.png",  # no line names it
        "x\u00e9\u0302.png",
    }


def test_a_name_that_two_files_have_in_other_forms_says_so():
    there = ["a\u0323\u0307.png", "\u1ea1\u0307.png"]  # one letter with two dots, in two of its four forms
    record = captions.Record("\u0227\u0323.png", "c", "train")
    assert captions.match([record], Path("nowhere"), there) == (
        [],
        [Problem(record.file, "2 files have this name in other Unicode forms: keep one of them")],
    )


def test_a_user_without_a_home_has_no_cache_and_is_told(pictures, monkeypatch, caplog):
    monkeypatch.delenv("XDG_CACHE_HOME")

    def homeless(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", lambda path: homeless(path) if str(path).startswith("~") else path)
    with caplog.at_level(logging.WARNING):
        assert load(pictures).problems == ()
    assert "no home folder" in caplog.text and "set XDG_CACHE_HOME" in caplog.text
    with pytest.raises(UserError, match=r"config\.data\.path = '~me/x' begins with ~"):
        load("~me/x")


def test_what_systems_and_editors_leave_is_passed_over(pictures):
    for name in ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini", "0.png~", "#0.png#", ".0.png.swp"):
        (pictures / name).write_bytes(b"x")
    (pictures / "__MACOSX").mkdir()
    (pictures / "__MACOSX" / "._0.png").write_bytes(b"x")
    assert load(pictures).problems == ()


def test_whole_in_colour_is_looked_at_again_in_grey(pictures, cache):
    load(pictures)
    load(pictures, channels=1)
    assert len(list(cache.iterdir())) == 2


def test_a_cache_beyond_memory_is_known_when_the_data_are_opened(pictures, monkeypatch):
    monkeypatch.setattr(paths.memory, "installed", lambda: 12_000)  # for the captions, not for pictures too
    with pytest.raises(UserError, match=r"config\.data\.cache_mb = 512 says, takes about .*: set it lower"):
        load(pictures)
    assert len(load(pictures, cache_mb=0))
