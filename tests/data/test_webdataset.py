"""Tar files as img2dataset writes them: what is read, what is left out and named, and what an index is worth."""

import json
import logging
import os
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor

import makers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfjax import config as configs
from rfjax import data
from rfjax.data import tars, types
from rfjax.data.types import Captions
from rfjax.errors import UserError

COUNT = 20


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rfjax" / "tars"


@pytest.fixture
def shards(tmp_path):
    makers.write_tars(tmp_path / "shards", COUNT)
    return tmp_path / "shards"


def load(path, split="train", **settings):
    plain = {"name": "webdataset", "path": str(path), "image_size": 8, "validation_percent": 0.0}
    return data.open_source(configs.Data(**(plain | settings)), split)


def numbers(source):
    return [makers.number_of(source[index]["image"]) for index in range(len(source))]


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_pictures_and_captions_belong_together_in_the_order_of_the_files(tmp_path, kind):
    makers.write_tars(tmp_path / "shards", COUNT, shards=3, kind=kind)
    source = load(tmp_path / "shards")
    assert isinstance(source, types.Named) and isinstance(source, types.Lenient) and len(source) == COUNT
    assert numbers(source) == list(range(COUNT))
    assert [source[index]["caption"] for index in range(COUNT)] == [f"number {index}" for index in range(COUNT)]
    assert source.fields == {"image": data.Field((8, 8, 3), "uint8", flips=True)}
    with pytest.raises(IndexError):
        source[COUNT]


def test_a_hash_of_the_name_divides_what_no_file_name_divides(tmp_path, shards):
    parts = [load(shards, split, validation_percent=30.0) for split in ("train", "validation")]
    assert sorted(number for part in parts for number in numbers(part)) == list(range(COUNT))
    makers.write_tars(tmp_path / "other", COUNT, shards=5)  # the same samples in other files
    assert [set(numbers(load(tmp_path / "other", s, validation_percent=30.0))) for s in ("train", "validation")] == [
        set(numbers(part)) for part in parts
    ]
    assert 0 < len(parts[1]) < COUNT / 2


def test_names_of_files_divide(tmp_path):
    for first, prefix in enumerate(("cc-train-", "cc-val-", "test/x")):
        samples = [makers.sample(4 * first + number) for number in range(4)]
        makers.write_tar(tmp_path / "s" / f"{prefix}0.tar", samples)
    for first, split in enumerate(types.SPLITS):
        assert numbers(load(tmp_path / "s", split)) == list(range(4 * first, 4 * first + 4))
    (tmp_path / "s" / "test" / "x0.tar").unlink()
    with pytest.raises(UserError, match=r"2 .tar files, and none whose name says 'test'"):
        load(tmp_path / "s", "test")


def test_captions_come_from_any_field_or_key(shards):
    assert load(shards, caption_key="synthetic")[3]["caption"] == "a picture of number 3"
    assert load(shards, caption_key=".TXT")[3]["caption"] == "number 3"
    both = load(shards, synthetic_key="synthetic")[3]["caption"]
    assert both == Captions(("number 3",), ("a picture of number 3",))
    with pytest.raises(UserError, match=r"'sinthetic', which config.data.caption_key names \(did you mean 'synthetic'"):
        load(shards, caption_key="sinthetic")


def test_captions_of_json_alone_and_of_classes(tmp_path):
    about = [json.dumps({"caption": ["one", "two"] if number else [], "kind": number % 2}) for number in range(4)]
    makers.write_tar(
        tmp_path / "a.tar",
        [(str(n), {"png": makers.picture(n, "png"), "json": about[n], "cls": str(n)}) for n in range(4)],
    )
    source = load(tmp_path / "a.tar", max_bad=0.5)
    assert source[1]["caption"] == Captions(("one", "two")) and source[0]["caption"] == source[1]["caption"]
    assert source.broken(0) == "no caption" and source.broken(1) == ""
    labelled = load(tmp_path / "a.tar", label_key="cls")
    assert (labelled[3]["label"], labelled[3]["caption"]) == (3, "a photo of a 3")
    (tmp_path / "names.txt").write_text("n00000001 tench, Tinca\nn00000002 great_white shark\n")
    named = load(tmp_path / "a.tar", label_key="kind", classes_file="names.txt")
    assert [named[n]["caption"] for n in range(2)] == ["a photo of a tench", "a photo of a great white shark"]
    with pytest.raises(UserError, match="label 2, and there are names for 2 classes"):
        too_few = load(tmp_path / "a.tar", label_key="cls", classes_file="names.txt", max_bad=0.2)
        [too_few[n] for n in range(4)]


def test_a_name_ends_at_its_first_dot_and_hidden_files_are_none(tmp_path):
    red, blue = makers.picture(1, "png"), makers.picture(2, "png")
    fields = {"seg.png": red, "png": blue, "txt": "blue"}
    makers.write_tar(tmp_path / "a.tar", [("x/one", fields), ("x/.two", fields), ("y.z/one", fields)])
    source = load(tmp_path / "a.tar")
    assert numbers(source) == [2, 2] and source[0]["caption"] == "blue"
    assert numbers(load(tmp_path / "a.tar", image_key="seg.png")) == [1, 1]


def test_what_a_cut_file_still_has_is_used_and_the_rest_is_named(shards, caplog):
    path = shards / "00001.tar"
    with tarfile.open(path) as tar:
        member = tar.getmember("000000017.jpg")
    os.truncate(path, member.offset_data + member.size // 2)
    with caplog.at_level(logging.WARNING):
        source = load(shards, max_bad=0.1)
    assert numbers(source) == list(range(17))
    assert [str(problem) for problem in source.problems] == ["00001.tar: it ends in the middle of 000000017.jpg"]
    assert "1 of 18 records are bad and left out: 00001.tar: it ends in the middle" in caplog.text
    with pytest.raises(UserError, match=r"more than config.data.max_bad = 0.05 allows"):
        load(shards, max_bad=0.05)


def test_a_damaged_header_ends_a_file_and_is_named(shards):
    path = shards / "00000.tar"
    with tarfile.open(path) as tar:
        at = tar.getmember("000000005.jpg").offset
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xff" * 512)
    source = load(shards, max_bad=0.2)
    assert numbers(source) == [*range(5), *range(10, 20)]
    assert [str(problem) for problem in source.problems] == [f"00000.tar: a damaged header at byte {at:,}"]


def test_samples_that_lack_a_part_are_left_out_and_broken_ones_replaced(tmp_path, caplog):
    samples = [makers.sample(number) for number in range(10)]
    del samples[2][1]["txt"]
    del samples[3][1]["jpg"]
    samples[5][1]["jpg"] = samples[5][1]["jpg"][:100]
    samples[6][1]["txt"] = b"\xff\xfe"
    samples[9][1]["jpg"] = b""
    makers.write_tar(tmp_path / "a.tar", samples)
    source = load(tmp_path / "a.tar", max_bad=0.6)
    assert [str(one) for one in source.problems] == ["a.tar/000000002: no .txt", "a.tar/000000003: no picture"]
    assert numbers(source) == [0, 1, 4, 7, 7, 7, 8, 0]  # an index gives the same, whatever was read before
    assert numbers(load(tmp_path / "a.tar", max_bad=0.6))[::-1] == [0, 8, 7, 7, 7, 4, 1, 0]
    assert [source.broken(index) != "" for index in range(8)] == [False] * 3 + [True, True] + [False] * 2 + [True]
    assert [str(one).split(":")[0] for one in source.problems[2:]] == [f"a.tar/00000000{n}" for n in (5, 6, 9)]
    with pytest.raises(UserError, match=r"4 of 10 records are bad, more than config.data.max_bad = 0.3"):
        numbers(load(tmp_path / "a.tar", max_bad=0.3))


def test_an_index_is_made_once_and_again_when_its_file_changes(shards, cache, monkeypatch):
    made = []
    build = tars.build
    monkeypatch.setattr(tars, "build", lambda path, stamp: made.append(path.name) or build(path, stamp))
    first = load(shards)
    assert sorted(made) == ["00000.tar", "00001.tar"] and len(list(cache.rglob("*.npz"))) == 2
    made.clear()
    assert numbers(load(shards)) == numbers(first) and not made
    first[19]
    makers.write_tar(shards / "00001.tar", [makers.sample(30)])  # in place
    assert numbers(load(shards)) == [*range(10), 30] and made == ["00001.tar"]
    with pytest.raises(UserError, match=r"00001.tar' changed since the run began"):
        first.stored(19)
    for kept in cache.rglob("*.npz"):
        kept.write_bytes(kept.read_bytes()[:200])
    made.clear()
    assert len(load(shards)) == 11 and len(made) == 2
    assert not any(path.suffix != ".tar" for path in shards.iterdir())


def test_a_file_keeps_its_index_in_every_part(shards):
    path = shards / "00000.tar"
    status = path.stat()
    made = tars.build(path, (status.st_size, status.st_mtime_ns))
    (kept,) = tars.indices(shards, ["00000.tar"])
    (again,) = tars.indices(shards, ["00000.tar"])
    for name in tars.Index.__dataclass_fields__:
        for other in (kept, again):
            np.testing.assert_array_equal(getattr(made, name), getattr(other, name))


@settings(max_examples=60)
@given(place=st.integers(0, 6000), damage=st.binary(min_size=1, max_size=40), end=st.integers(0, 20_000))
def test_of_a_damaged_file_no_member_lies_beyond_its_end(tmp_path_factory, place, damage, end):
    path = tmp_path_factory.mktemp("damaged") / "a.tar"
    makers.write_tar(path, [makers.sample(number, "png") for number in range(3)])
    content = path.read_bytes()
    path.write_bytes((content[:place] + damage + content[place + len(damage) :])[: max(end, place)])
    size = path.stat().st_size
    try:
        found = tars.build(path, (size, 0))
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert (found.offset >= 0).all() and (found.size >= 0).all() and (found.offset + found.size <= size).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"a\.tar' is not a tar file \(empty file\)"),
        (b"\x1f\x8bxxx", r"a\.tar' is compressed \(gzip\), and has no random access: unpack it"),
        (b"no tar " * 1000, r"a\.tar' is not a tar file"),
        (bytes(10240), "have no sample with a picture; they have: nothing"),
    ],
)
def test_what_is_no_tar_file_is_one_sentence(tmp_path, content, message):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(UserError, match=message):
        load(tmp_path / "a.tar")


def test_what_is_not_there_is_one_sentence(tmp_path, shards):
    for path, message in ((tmp_path / "no", "is not a folder"), (tmp_path, "has no .tar files")):
        if path == tmp_path:
            for tar in shards.iterdir():
                tar.unlink()
        with pytest.raises(UserError, match=message):
            load(path)
    makers.write_tar(shards / "a.tar", [("1", {"jpg": makers.picture(1)})])
    with pytest.raises(UserError, match=r"no clear caption: set config.data.caption_key; they have: jpg"):
        load(shards)
    (shards / "b.tar").symlink_to("/etc/passwd")
    with pytest.raises(UserError, match="a file outside of"):
        load(shards)


def test_it_can_be_pickled_and_read_in_many_threads(shards):
    source = pickle.loads(pickle.dumps(load(shards, cache_mb=0.0)))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda index: makers.number_of(source[index % COUNT]["image"]), range(200)))
    assert found == [index % COUNT for index in range(200)]


def batches(source, count, **options):
    stream = data.batches(
        source, lambda found: found.arrays | {"text": np.array(found.captions)}, data.Order(4, 3, True), **options
    )
    return [next(stream) for _ in range(count)]


def test_a_run_goes_on_at_any_step_and_processes_share_it(shards):
    source = load(shards)
    whole = batches(source, 12)
    first, second = batches(load(shards), 3, start=4), batches(load(shards), 5, start=7)  # resumed twice
    for expected, found in zip(whole[4:], [*first, *second], strict=True):
        assert all((expected[name] == found[name]).all() for name in expected)
    halves = [batches(load(shards), 12, rows=rows) for rows in (range(2), range(2, 4))]
    for step, expected in enumerate(whole):
        for name in expected:
            np.testing.assert_array_equal(np.concatenate([half[step][name] for half in halves]), expected[name])
    assert sorted(text for batch in whole[:5] for text in batch["text"]) == sorted(f"number {n}" for n in range(COUNT))


def test_the_identity_of_the_data_shows_another_byte(shards):
    from rfjax.data import identity

    known = identity.identify(load(shards), load(shards), 8)
    assert identity.identify(load(shards), load(shards), 8) == known
    path = shards / "00000.tar"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"number 3", b"numbed 3"))
    changes = identity.differences(known, identity.identify(load(shards), load(shards), 8))
    assert any("validation" in change for change in changes)
