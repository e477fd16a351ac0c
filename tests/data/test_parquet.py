"""Hugging Face's data sets of images on disk: which column is what, the order by row groups, and what is broken."""

import logging
import pickle
from concurrent.futures import ThreadPoolExecutor

import makers
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfjax import config as configs
from rfjax import data
from rfjax.data import groups, pipeline, types
from rfjax.data.types import Captions
from rfjax.errors import UserError

COUNT = 24


@pytest.fixture
def folder(tmp_path):
    """Two files of row groups of four, divided by their names."""
    makers.write_parquet(tmp_path / "data" / "train-00000-of-00002.parquet", range(14))
    makers.write_parquet(tmp_path / "data" / "train-00001-of-00002.parquet", range(14, COUNT))
    makers.write_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", range(100, 106))
    return tmp_path


def load(path, split="train", **settings):
    plain = {"name": "parquet", "path": str(path), "image_size": 8}
    return data.open_source(configs.Data(**(plain | settings)), split)


def numbers(source):
    return [makers.number_of(source[index]["image"]) for index in range(len(source))]


def test_rows_are_read_in_the_order_of_files_and_rows(folder):
    source = load(folder)
    assert isinstance(source, types.Arranged) and isinstance(source, types.Named) and isinstance(source, types.Lenient)
    assert numbers(source) == list(range(COUNT))
    assert [source[n]["caption"] for n in range(COUNT)] == [f"number {n}" for n in range(COUNT)]
    assert numbers(load(folder, "validation")) == list(range(100, 106))
    assert numbers(load(folder / "data" / "train-00001-of-00002.parquet")) != []
    with pytest.raises(UserError, match=r"3 .parquet files, and none whose name says 'test'"):
        load(folder, "test")


def test_a_hash_divides_the_rows_if_no_file_is_for_validation(folder):
    (folder / "data" / "validation-00000-of-00001.parquet").unlink()
    parts = [numbers(load(folder, split, validation_percent=30.0)) for split in ("train", "validation")]
    assert sorted(parts[0] + parts[1]) == list(range(COUNT)) and 0 < len(parts[1]) < COUNT / 2
    with pytest.raises(UserError, match=r"split 'validation' .* is empty: .*validation_percent = 0 leaves none"):
        load(folder, "validation", validation_percent=0.0)


def test_labels_have_the_names_that_the_files_know(tmp_path):
    makers.write_parquet(tmp_path / "a.parquet", range(5), names=["tench", "great_white"])
    source = load(tmp_path, validation_percent=0.0)
    assert source.fields["label"] == data.Field((), "int64")
    assert [(source[n]["label"], source[n]["caption"]) for n in range(2)] == [
        (0, "a photo of a tench"),
        (1, "a photo of a great white"),
    ]
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    assert load(tmp_path, classes_file="names.txt", validation_percent=0.0)[1]["caption"] == "a photo of a dog"


def test_captions_may_be_lists_and_synthetic(tmp_path):
    texts = [["one", "two"], ["three"]]
    makers.write_parquet(tmp_path / "a.parquet", range(2), text=texts, long=["a long one", ""])
    source = load(tmp_path, synthetic_key="long", validation_percent=0.0)
    assert source[0]["caption"] == Captions(("one", "two"), ("a long one",)) and source[1]["caption"] == "three"


def test_bytes_alone_are_pictures_too(tmp_path):
    plain = [makers.picture(number, "png") for number in range(3)]
    table = pyarrow.table({"jpg": plain, "caption": ["a", "b", "c"], "width": [1, 2, 3]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    source = load(tmp_path, validation_percent=0.0)
    assert numbers(source) == [0, 1, 2] and set(source.fields) == {"image"} and source[2]["caption"] == "c"
    assert load(tmp_path, label_key="width", validation_percent=0.0)[2]["label"] == 3


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        (
            {"text": ["a"], "number": [1.5]},
            {},
            r"have no column of images; they have: text \(text\), number \(double\)",
        ),
        ({"image": [b"x"], "width": [1]}, {}, "have no clear caption or label: set config.data.caption_key"),
        ({"a": [b"x"], "b": [b"x"], "text": ["a"]}, {}, "more than one column of images: set image_key to one of a, b"),
        ({"image": [b"x"], "text": ["a"], "caption": ["b"]}, {}, "more than one text: set config.data.caption_key"),
        ({"image": [b"x"], "text": ["a"]}, {"image_key": "imag"}, r"no column 'imag', which .*did you mean 'image'"),
        ({"image": [b"x"], "text": ["a"]}, {"image_key": "text"}, "column 'text' of .* can't be the image_key"),
        ({"image": [b"x"], "text": ["a"]}, {}, r"none of its 1 records is good \(a.parquet row 0: not a picture"),
    ],
)
def test_what_is_not_clear_is_one_sentence(tmp_path, columns, settings, message):
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=message):
        load(tmp_path, validation_percent=0.0, max_bad=1.0, **settings)


def test_files_must_agree_and_be_whole(folder):
    path = folder / "data" / "train-00001-of-00002.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"train-00001-of-00002.parquet' is not a whole Parquet file"):
        load(folder)
    makers.write_parquet(path, range(3), text=[[str(n)] for n in range(3)])
    with pytest.raises(UserError, match="has no column 'text' of type string, as 'data/train-00000"):
        load(folder)


def test_broken_rows_are_replaced_and_named(tmp_path, caplog):
    pictures = [{"bytes": makers.picture(number), "path": None} for number in range(8)]
    pictures[1] = {"bytes": None, "path": "gone.jpg"}
    pictures[2] = None
    pictures[5]["bytes"] = pictures[5]["bytes"][:50]
    texts = [f"number {n}" if n != 6 else None for n in range(8)]
    makers.write_parquet(tmp_path / "a.parquet", range(8), image=pictures, text=texts)
    with caplog.at_level(logging.WARNING):
        source = load(tmp_path, max_bad=0.5, validation_percent=0.0)
        assert numbers(source) == [0, 3, 3, 3, 4, 7, 7, 7]
    assert [str(one).split(": ", 1) for one in source.problems][:2] == [
        ["a.parquet row 1", "no picture in the row, only the path 'gone.jpg'"],
        ["a.parquet row 2", "no picture"],
    ]
    assert "4 of 8 records are bad" in caplog.text and source.broken(6) == "no caption" and not source.broken(7)
    with pytest.raises(UserError, match=r"more than config.data.max_bad = 0.25 allows"):
        numbers(load(tmp_path, max_bad=0.25, validation_percent=0.0))


def test_a_damaged_group_is_broken_in_every_row(tmp_path):
    path = tmp_path / "a.parquet"
    makers.write_parquet(path, range(12))
    with pyarrow.parquet.ParquetFile(path) as file:
        column = file.metadata.row_group(1).column(0)
    at = column.dictionary_page_offset or column.data_page_offset
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xff" * 30)
    source = load(path, max_bad=0.5, validation_percent=0.0)
    assert numbers(source) == [0, 1, 2, 3, 8, 8, 8, 8, 8, 9, 10, 11]
    assert [one.file for one in source.problems] == [f"a.parquet row {row}" for row in range(4, 8)]
    assert all("a damaged row group" in one.reason for one in source.problems)


@settings(max_examples=30)
@given(
    rows=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    window=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 5),
)
def test_an_epoch_has_each_row_once_and_few_groups_at_a_time(rows, window, seed, epoch):
    sizes = np.array(rows)
    order = groups.Arrangement(sizes, sizes, window)
    found = [order.index(seed, epoch, place) for place in range(sum(rows))]
    assert sorted(found) == list(range(sum(rows)))
    assert found == [pickle.loads(pickle.dumps(order)).index(seed, epoch, place) for place in range(sum(rows))]
    group = np.repeat(np.arange(len(rows)), rows)[found]
    starts, ends = (np.array([f(np.flatnonzero(group == one)) for one in range(len(rows))]) for f in (np.min, np.max))
    # The groups that are needed now and later hold no more rows than a window and the one that goes beyond its end.
    for place in range(sum(rows)):
        assert sizes[(starts <= place) & (place <= ends)].sum() <= window + sizes.max()


def test_orders_differ_by_epoch_and_seed():
    order = groups.Arrangement(np.full(50, 20), np.full(50, 100), 500)
    one, two, three = ([order.index(seed, epoch, n) for n in range(1000)] for seed, epoch in ((0, 0), (0, 1), (1, 0)))
    assert one != two and one != three
    first = np.array(one[:100]) // 20  # of five groups, mixed
    assert len(set(first)) == 5 and len(set(first[:10])) > 1


def test_what_was_read_last_is_kept_within_its_size():
    recent, loads = groups.Recent(10), []
    get = lambda key: recent.get(key, 4, lambda one: loads.append(one) or -one)  # noqa: E731
    assert [get(key) for key in (1, 2, 1, 3, 1, 2)] == [-1, -2, -1, -3, -1, -2]
    assert loads == [1, 2, 3, 2]
    fails = iter([ValueError("later"), 5])

    def load_late(key):
        value = next(fails)
        if isinstance(value, Exception):
            raise value
        return value

    with pytest.raises(ValueError, match="later"):
        recent.get(9, 1, load_late)
    assert recent.get(9, 1, load_late) == 5


def test_it_can_be_pickled_and_read_in_many_threads(folder):
    source = pickle.loads(pickle.dumps(load(folder, cache_mb=0.0, window_mb=0.0)))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda index: makers.number_of(source[index % COUNT]["image"]), range(200)))
    assert found == [index % COUNT for index in range(200)]


def batches(source, count, **options):
    stream = data.batches(
        source, lambda found: found.arrays | {"text": np.array(found.captions)}, data.Order(4, 3, True), **options
    )
    return [next(stream) for _ in range(count)]


def test_a_run_goes_on_at_any_step_and_processes_share_it(folder):
    load_one = lambda: load(folder, window_mb=1e-3, cache_mb=0.0, readers=0)  # noqa: E731
    whole = batches(load_one(), 15)
    first, second = batches(load_one(), 3, start=4), batches(load_one(), 8, start=7)  # resumed twice
    for expected, found in zip(whole[4:], [*first, *second], strict=True):
        assert all((expected[name] == found[name]).all() for name in expected)
    halves = [batches(load_one(), 15, rows=rows) for rows in (range(2), range(2, 4))]
    for step, expected in enumerate(whole):
        for name in expected:
            np.testing.assert_array_equal(np.concatenate([half[step][name] for half in halves]), expected[name])
    for epoch in range(2):  # of six batches
        seen = [text for batch in whole[6 * epoch : 6 * epoch + 6] for text in batch["text"]]
        assert sorted(seen) == sorted(f"number {n}" for n in range(COUNT))


def test_a_run_reads_no_more_groups_than_its_window(folder, monkeypatch):
    source, read, assembled = load(folder, window_mb=1e-3, cache_mb=0.0, readers=0), [], []
    monkeypatch.setattr(pipeline, "threads", lambda: 1)  # batches are then assembled in order, some ahead
    table = source._records
    load_group = table._load
    monkeypatch.setattr(table, "_load", lambda number: read.append(number) or load_group(number))
    stream = data.batches(source, lambda found: assembled.append(1) or found.arrays, data.Order(4, 0), start=600)
    for _ in range(12):  # two epochs of seven groups
        next(stream)
    groups_read = len(read)
    epochs = -(-4 * (len(assembled) + 1) // COUNT)  # one more batch may be on its way
    assert groups_read <= 7 * epochs
