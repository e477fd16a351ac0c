import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfjax import data
from rfjax.data import digits, pipeline
from rfjax.data.digits import load as load_digits
from rfjax.data.shapes import Shapes
from rfjax.errors import UserError


def prepare(examples):
    return dict(examples.arrays)


class Numbers:
    """A source whose images are their index."""

    def __init__(self, count):
        self.count, self.fields = count, {"image": data.Field((2, 2, 1), "uint8", flips=True)}

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return {"image": np.full((2, 2, 1), index, np.uint8), "caption": f"number {index}", "index": index}


def take(count, rows=None, start=0, **options):
    order = data.Order(**{"batch": 4, "seed": 0} | options)
    iterator = data.batches(Numbers(10), prepare, order, rows, start)
    return [next(iterator) for _ in range(count)]


def test_an_epoch_holds_each_example_once_in_a_new_order_each_time():
    seen = np.concatenate([b["image"][:, 0, 0, 0] for b in take(10)])
    epochs = seen.reshape(4, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert not np.array_equal(epochs[0], np.concatenate([b["image"][:, 0, 0, 0] for b in take(3, seed=1)])[:10])


def test_long_data_sets_are_shuffled_without_a_list(monkeypatch):
    monkeypatch.setattr(data.pipeline, "LISTED", 5)
    seen = np.concatenate([b["image"][:, 0, 0, 0] for b in take(10)]).reshape(4, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in seen)
    assert len({tuple(epoch) for epoch in seen}) > 1


def test_each_process_loads_its_rows_of_the_same_global_batch():
    whole, some = take(5), take(5, rows=[0, 3])
    for batch, part in zip(whole, some, strict=True):
        for name in ("slot", "image"):
            np.testing.assert_array_equal(part[name], batch[name][[0, 3]])


@given(steps=st.integers(0, 12), skip=st.sets(st.integers(0, 9), max_size=4))
@settings(max_examples=15)
def test_the_stream_starts_anywhere_and_leaves_out_what_is_to_be_skipped(steps, skip):
    whole = [batch for k, batch in enumerate(take(steps + 6)) if k not in skip]
    again = take(2, start=steps, skip=tuple(skip))
    for batch, expected in zip(again, whole[steps:], strict=False):
        np.testing.assert_array_equal(batch["image"], expected["image"])
    kept = [k for k in range(40) if k not in skip]
    assert data.Order(4, 0, skip=tuple(skip)).number(steps) == kept[steps]


def test_a_flip_depends_on_the_place_alone():
    source = load_digits(split="train", image_size=8, channels=1)
    plain = next(data.batches(source, prepare, data.Order(64, 0)))["image"]
    first, second = (next(data.batches(source, prepare, data.Order(64, 0, flip=True)))["image"] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    flipped = [np.array_equal(a, b[:, ::-1]) and not np.array_equal(a, b) for a, b in zip(first, plain, strict=True)]
    same = [np.array_equal(a, b) for a, b in zip(first, plain, strict=True)]
    assert all(np.array(flipped) | np.array(same))
    assert 16 < sum(flipped) < 48


def test_endless_sources_are_read_in_order():
    iterator = data.batches(Shapes("train", 16), prepare, data.Order(4, 0))
    next(iterator)
    batch = next(iterator)
    np.testing.assert_array_equal(batch["image"], Shapes("train", 16).read(range(4, 8))[0])
    np.testing.assert_array_equal(batch["slot"], range(4))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_source_of_the_table_opens_from_its_config(split):
    from tiny import tiny

    from rfjax import config as configs

    c = tiny()
    assert data.open_source(configs.parse(c).data, split)[0]["image"].shape == (16, 16, 3)
    c.data.update(name="digits", image_size=8, channels=1)
    assert data.open_source(configs.parse(c).data, split)[0]["caption"].startswith("a handwritten")


def renamed(examples):
    return {f"copy of {name}": array for name, array in examples.arrays.items()}


@pytest.mark.parametrize("names", [None, ("label",), ("image",), ()])
def test_a_batch_holds_the_fields_that_are_named_and_its_captions(names):
    source = load_digits(split="validation", image_size=8)
    batch, captions = data.load(source, [5, 2], renamed, names)
    assert set(batch) == {"slot"} | {f"copy of {name}" for name in (source.fields if names is None else names)}
    assert batch["slot"].dtype == np.int32 and batch["slot"].tolist() == [0, 1]
    assert captions == [f"a handwritten {digits.WORDS[source.labels[index]]}" for index in (5, 2)]
    if names == ("label",):
        np.testing.assert_array_equal(batch["copy of label"], source.labels[[5, 2]])
        order = data.Order(2, 0)
        assert set(next(data.batches(source, prepare, order, names=names))) == {"label", "slot"}


@pytest.mark.parametrize(("cores", "expected"), [(1, 2), (2, 2), (12, 12), (224, pipeline.MOST_THREADS)])
def test_as_many_threads_as_cores_make_batches(cores, expected, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert pipeline.threads() == expected


class Captioned(Numbers):
    """Every third example has one caption; the others have two originals, and two of three of these synthetic ones."""

    def __getitem__(self, index):
        several = data.Captions((f"{index} a", f"{index} b"), (f"{index} s", f"{index} t") if index % 3 == 1 else ())
        return super().__getitem__(index) | ({"caption": several} if index % 3 else {})


def chosen(share, seed=0, batch=256, start=0, rows=None, count=1):
    prepare = lambda examples: {"caption": np.array(examples.captions)}  # noqa: E731
    order = data.Order(batch, seed, synthetic=share)
    iterator = data.batches(Captioned(90), prepare, order, rows, start)
    found = [next(iterator) for _ in range(count)]
    return {name: np.concatenate([batch[name] for batch in found]) for name in found[0]}


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_one_of_several_captions_is_drawn_by_its_kinds_share(share):
    found = chosen(share, count=12)
    numbers = np.array([int(text.split()[-1 if text.startswith("number") else 0]) for text in found["caption"]])
    kinds = np.array([text[-1] if text[-1] in "abst" else "n" for text in found["caption"]])
    assert set(kinds[numbers % 3 == 0]) == {"n"} and set(kinds[numbers % 3 == 2]) == {"a", "b"}
    synthetic = np.isin(kinds, ["s", "t"])
    mixed = numbers % 3 == 1
    assert abs(synthetic[mixed].mean() - share) < 4 * np.sqrt(0.25 / mixed.sum())  # four standard errors at most
    for kind, other in ("ab", "st"):
        count = np.isin(kinds, [kind, other]).sum()
        assert not count or abs((kinds == kind).sum() / count - 0.5) < 4 * np.sqrt(0.25 / count)
    assert (data.SYNTHETIC in found) == (share > 0)
    if share:
        np.testing.assert_array_equal(found[data.SYNTHETIC], synthetic)


def test_the_choice_depends_on_seed_and_place_alone():
    whole = chosen(0.5, batch=8, count=4)
    part = chosen(0.5, batch=8, count=3, start=1, rows=[1, 6])
    for name in whole:
        np.testing.assert_array_equal(part[name].reshape(3, 2), whole[name].reshape(4, 8)[1:, [1, 6]])
    again, other = chosen(0.5, batch=90, start=0), chosen(0.5, batch=90, start=1)
    kinds = [dict(text.split() for text in one["caption"] if text[0] != "n") for one in (again, other)]
    assert kinds[0].keys() == kinds[1].keys() and kinds[0] != kinds[1]  # another epoch, other captions


def test_everything_else_takes_the_first_original():
    assert data.take(Captioned(9), [0, 1, 2]).captions == ["number 0", "1 a", "2 a"]
    assert data.take_all(Captioned(9), [0, 2]).captions == ["number 0", data.Captions(("2 a", "2 b"))]
    assert data.load(Captioned(9), [1], prepare)[1] == ["1 a"]


def test_flips_and_captions_are_drawn_apart():
    """The flips' bits are those of data with one caption each."""
    source, images = Captioned(90), []
    for order in (data.Order(8, 3, flip=True), data.Order(8, 3, flip=True, synthetic=0.5)):
        images.append(next(data.batches(source, prepare, order))["image"])
    np.testing.assert_array_equal(*images)


def test_a_share_of_synthetic_captions_that_are_not_there_is_refused():
    data.check_synthetic(Captioned(90), 0.5)
    data.check_synthetic(Numbers(90), 0.0)
    with pytest.raises(UserError, match=r"synthetic_share = 0.5, but none of the 64 training examples"):
        data.check_synthetic(Numbers(90), 0.5)
