"""Sets of pictures: each layout, and what is refused in a sentence."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from preference_cases import PROMPTS, picture, sets, write_folder

from rfjax.errors import UserError
from rfjax.preferences import samples
from rfjax.preferences.ballots import encoded
from rfjax.preferences.pairs import make_pairs
from rfjax.preferences.samples import open_set

IMAGES = np.stack([picture(i) for i in range(3)])


def keys(path):
    return list(open_set("x", path).pictures)


def pixels(path, key):
    return np.asarray(open_set("x", path).pictures[key].decode())


def test_archives(tmp_path):
    texts = np.array(["a", "b", "a"])
    np.savez(tmp_path / "samples.npz", arr_0=IMAGES, captions=texts)
    assert keys(tmp_path) == keys(tmp_path / "samples.npz") == [("a", 0), ("b", 0), ("a", 1)]
    assert (pixels(tmp_path, ("a", 1)) == IMAGES[2]).all()
    np.savez(tmp_path / "labels.npz", arr_0=IMAGES[..., :1], arr_1=np.array([7, 7, 2]))
    assert keys(tmp_path / "labels.npz") == [("class 7", 0), ("class 7", 1), ("class 2", 0)]
    assert (pixels(tmp_path / "labels.npz", ("class 2", 0)) == IMAGES[2][..., :1]).all()  # grey in all channels
    alone = tmp_path / "alone"
    alone.mkdir()
    np.savez(alone / "d6_20_steps.npz", images=IMAGES, captions=texts, seed=np.uint32(0))
    assert keys(alone) == keys(tmp_path)


def test_folders(tmp_path):
    assert keys(write_folder(tmp_path / "mine")) == [(prompt, 0) for prompt in PROMPTS]
    (tmp_path / "mine" / "captions.jsonl").rename(tmp_path / "mine" / "metadata.jsonl")
    assert (pixels(tmp_path / "mine", ("two dogs", 0)) == picture(1)).all()
    for number, prompt in enumerate(("a photo of a bench", "a photo of two clocks")):
        folder = tmp_path / "geneval" / f"{number:05}"
        write_folder(folder / "samples", ("",) * 2, 10 * number)
        (folder / "samples" / "captions.jsonl").unlink()
        (folder / "metadata.jsonl").write_text(json.dumps({"tag": "x", "prompt": prompt}), encoding="utf-8")
        (folder / "grid.png").write_bytes(b"")
    assert keys(tmp_path / "geneval") == [(f"a photo of {x}", n) for x in ("a bench", "two clocks") for n in (0, 1)]
    assert (pixels(tmp_path / "geneval", ("a photo of two clocks", 1)) == picture(11)).all()
    bench = write_folder(tmp_path / "compbench" / "samples", ("",) * 3)
    for number, name in enumerate(("a red cup_000000", "a red cup_000001", "a cat_000010")):
        (bench / f"{number}.png").rename(bench / f"{name}.png")
    assert keys(tmp_path / "compbench") == [("a red cup", 0), ("a red cup", 1), ("a cat", 0)]


def test_what_is_served_is_pixels_alone(tmp_path):
    """No text chunk, no EXIF, no file name; JPEG is decoded and turned as its EXIF says."""
    found = open_set("x", write_folder(tmp_path / "secret"))
    served = encoded(found.pictures["a red cup", 0], 0)
    assert b"secret" in (tmp_path / "secret" / "0.png").read_bytes() and b"secret" not in served
    assert {chunk for chunk in chunks(served)} == {"IHDR", "IDAT", "IEND"}
    assert (np.asarray(Image.open(io.BytesIO(served))) == picture(0)).all()
    exif = Image.Exif()
    exif[274], exif[305] = 6, "secret"
    Image.fromarray(picture(0)).save(tmp_path / "secret" / "0.png", "JPEG", exif=exif, quality=95)
    turned = open_set("x", tmp_path / "secret").pictures["a red cup", 0]
    served = encoded(turned, 0)
    assert turned.size == (10, 12) == Image.open(io.BytesIO(served)).size
    assert not Image.open(io.BytesIO(served)).info
    assert Image.open(io.BytesIO(encoded(turned, 24))).size == (20, 24)


def chunks(png):
    place = 8
    while place < len(png):
        length = int.from_bytes(png[place : place + 4])
        yield png[place + 4 : place + 8].decode()
        place += length + 12


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"arr_0": IMAGES.astype(np.float32), "captions": np.array(["a"] * 3)}, "holds float32 values, which are lat"),
        ({"arr_0": IMAGES}, "lacks its pictures"),
        ({"arr_0": IMAGES, "captions": np.array(["a"])}, "don't fit"),
        ({"arr_0": IMAGES, "captions": np.array(["a", {}, 1], object)}, "can't be read as an .npz file"),
    ],
)
def test_arrays_that_are_no_pictures(tmp_path, arrays, said):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(UserError, match=said):
        open_set("x", tmp_path)


def test_files_that_are_no_sets(tmp_path):
    cases = {}
    cases["is not there"] = tmp_path / "nowhere"
    (tmp_path / "empty").mkdir()
    cases["holds no pictures"] = tmp_path / "empty"
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 not a zip")
    cases["is it whole"] = tmp_path / "bad.npz"
    (tmp_path / "several").mkdir()
    for name in "ab":
        np.savez(tmp_path / "several" / f"{name}.npz", images=IMAGES, captions=np.array(["a"] * 3))
    cases[r"2 .npz files \(a.npz, b.npz\)"] = tmp_path / "several"
    for said, path in cases.items():
        with pytest.raises(UserError, match=said):
            open_set("x", path)


def test_arrays_that_would_not_fit_are_not_read(tmp_path, monkeypatch):
    np.savez(tmp_path / "samples.npz", arr_0=IMAGES, captions=np.array(["a"] * 3))
    monkeypatch.setattr(samples, "LARGEST_ARRAYS", 1000)
    monkeypatch.setattr(np, "load", None)
    with pytest.raises(UserError, match="holds 1,348 bytes of arrays, more than 1,000: draw fewer"):
        open_set("x", tmp_path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"file": "gone.png", "caption": "x"}', "captions.jsonl, line 2, names a picture that is not there: .*gone"),
        ('{"file": "../one/0.png", "caption": "x"}', "outside of the folder"),
        ('{"file": "/etc/passwd", "caption": "x"}', "outside of the folder"),
        ('{"file": "a\\u0000b", "caption": "x"}', "outside of the folder"),
        ('{"file": "0.png"}', "needs a picture .* and a text"),
        ('{"file": "0.png", "caption": 3}', "needs a picture .* and a text"),
        ("{nonsense", "line 2, is not JSON"),
        ('{"file": "text.png", "caption": "x"}', "text.png is no picture that can be read"),
        ('{"file": "deep.png", "caption": "x"}', "deep.png has pixels of the kind I;16"),
    ],
)  # fmt: skip
def test_lines_that_are_no_pictures(tmp_path, line, said):
    folder = write_folder(tmp_path / "two", PROMPTS[:1])
    (folder / "text.png").write_text("no picture", encoding="utf-8")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(folder / "deep.png")
    with (folder / "captions.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=said):
        open_set("x", folder)


def test_sets_that_differ_are_not_compared(tmp_path):
    one, two = sets(tmp_path)
    more = open_set("more", write_folder(tmp_path / "more", (*PROMPTS, "a cat")))
    twice = open_set("twice", write_folder(tmp_path / "twice", (*PROMPTS, PROMPTS[0])))
    other = open_set("other", write_folder(tmp_path / "other", ("a cat",)))
    large = open_set("large", write_folder(tmp_path / "large", size=(24, 20)))
    wide = open_set("wide", write_folder(tmp_path / "wide", size=(24, 10)))
    for pair, said in (
        ((one,), "two sets"),
        ((one, more), "'a cat' is in more and not in one; .* the 3 pictures that all sets have with --common"),
        ((twice, one), "picture 2 of 'a red cup' is in twice and not in one"),
        ((one, other), "one and other have no prompt in common"),
        ((one, large), "'a red cup' is 24 x 20 in large and 12 x 10 in one, which tells the sets apart: bring all"),
    ):
        with pytest.raises(UserError, match=said):
            make_pairs(pair)
    with pytest.raises(UserError, match="crop them to one shape"):
        make_pairs((one, wide), size=48)
    assert len(make_pairs((one, more), common=True)) == len(make_pairs((one, large), size=48)) == 3
    assert len(make_pairs((one, two, twice), common=True)) == 9
