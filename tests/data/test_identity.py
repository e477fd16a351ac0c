"""Which changes of a data set are noticed, in which words, and which are not."""

import json
import shutil
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from rfjax import config as configs
from rfjax import data
from rfjax.data import digits, identity, shapes
from rfjax.data.types import Named, Source

COUNT = 60


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder of pictures, and one of latents in shards with captions."""
    root, rng = tmp_path_factory.mktemp("made"), np.random.default_rng(0)
    (root / "pictures").mkdir()
    for index in range(COUNT):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(root / "pictures" / f"{index}.bmp")
    lines = [json.dumps({"file": f"{index}.bmp", "caption": f"number {index}"}) for index in range(COUNT)]
    (root / "pictures" / "captions.jsonl").write_text("\n".join(lines))
    for shard in ("train", "validation"):
        (root / "latents" / shard).mkdir(parents=True)
        for part in ("_0", "_1"):
            place = root / "latents" / shard
            np.save(place / f"latents{part}.npy", rng.normal(size=(COUNT, 4, 4, 2)).astype(np.float16))
            (place / f"captions{part}.txt").write_text("".join(f"number {index:02}\n" for index in range(COUNT)))
    return root


@pytest.fixture
def root(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "root")


def pictures(root: Path, split: str) -> Source:
    config = configs.Data("folder", path=str(root / "pictures"), image_size=8, channels=3, validation_percent=25.0)
    return data.open_source(config, split)


def of_pictures(root: Path, examples: int = 8) -> identity.Identity:
    splits = [pictures(root, split) for split in ("train", "validation")]
    assert all(isinstance(source, Named) for source in splits)
    return identity.identify(*splits, examples)


def of_latents(root: Path, examples: int = 8) -> identity.Identity:
    splits = [
        data.open_source(configs.Data("latents", path=str(root / "latents"), image_size=4, channels=2), split)
        for split in ("train", "validation")
    ]
    return identity.identify(*splits, examples)


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def touch_pixel(file: Path, place: int = -1) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


def test_copies_of_the_same_files_are_the_same_data(made, root):
    for of in (of_pictures, of_latents):
        assert of(made) == of(root) and identity.differences(of(made), of(root)) == []
        plain = json.loads(json.dumps(of(made).to_dict()))
        assert identity.from_dict(plain) == of(made) and identity.from_dict(plain).digest() == of(root).digest()


def test_a_picture_that_is_gone_is_counted_and_moves_the_validation_examples(made, root):
    before = of_pictures(made, 12)
    validation = pictures(root, "validation")
    gone = validation.files[0]
    (root / "pictures" / gone).unlink()
    edit(root / "pictures" / "captions.jsonl", json.dumps({"file": gone})[1:-1], '"file": "0.bmp", "split": "train"')
    count = before.validation.count
    assert identity.differences(before, of_pictures(root, 12)) == [
        f"the training split has {COUNT - count + 1} examples, and had {COUNT - count}",
        f"the validation split has {count - 1} examples, and had {count}",
        "the content of the validation examples is another (of the first 12)",
    ]


def test_another_order_caption_or_size_is_noticed_in_either_split(made, root):
    captions = root / "pictures" / "captions.jsonl"
    lines = captions.read_text().splitlines()
    before = of_pictures(made)
    captions.write_text("\n".join(reversed(lines)))
    said = identity.differences(before, of_pictures(root))
    assert [sentence.split(",")[0] for sentence in said[:2]] == [
        "the training split has as many examples",
        "the validation split has as many examples",
    ]
    for index, split in ((i, s) for s in ("training", "validation") for i in range(COUNT)):
        captions.write_text("\n".join(lines).replace(f'"number {index}"', '"another"'))
        said = identity.differences(before, of_pictures(root))
        if any(f"the {split} split" in sentence for sentence in said):
            break
    else:
        pytest.fail(f"no caption of the {split} split is noticed")


@pytest.mark.parametrize("of", [of_pictures, of_latents])
def test_one_byte_of_a_validation_example_is_noticed_and_beyond_those_used_it_is_not(made, root, of):
    before = of(made, 8)
    if of is of_pictures:
        names = pictures(root, "validation").files
        inside, beyond = ((root / "pictures" / names[row], -1) for row in (7, 8))
    else:
        file = root / "latents" / "validation" / "latents_0.npy"
        first = file.stat().st_size - COUNT * 64
        inside, beyond = ((file, first + 64 * row) for row in (7, 8))
    touch_pixel(*beyond)
    assert identity.differences(before, of(root, 8)) == []
    touch_pixel(*inside)
    assert identity.differences(before, of(root, 8)) == [
        "the content of the validation examples is another (of the first 8)"
    ]


def test_training_data_are_sampled_evenly(made, root, monkeypatch):
    monkeypatch.setattr(identity, "SAMPLED", 4)
    before, file = of_latents(made), root / "latents" / "train" / "latents_1.npy"
    header = file.stat().st_size - COUNT * 64
    touch_pixel(file, header + 1 * 64)  # row 61 of 120, of which 0, 30, 60 and 90 are compared
    assert of_latents(root) == before
    touch_pixel(file, header)
    assert identity.differences(before, of_latents(root)) == [
        "the content of the training examples is another (of the 4 that were compared)"
    ]


def test_another_shard_or_a_text_of_another_length_is_noticed(made, root):
    before = of_latents(made)
    edit(root / "latents" / "train" / "captions_1.txt", "number 59", "another 59")
    assert identity.differences(before, of_latents(root)) == [
        "the training split has as many examples, but other names, captions or sizes of files"
    ]


def test_contents_of_different_numbers_of_examples_are_not_compared(made):
    assert identity.differences(of_latents(made, 8), of_latents(made, 16)) == []


def test_drawn_data_are_known_by_their_generator(monkeypatch):
    def of(seed=0):
        return identity.identify(*(shapes.Shapes(split, 16, seed) for split in ("train", "validation")), 1024)

    before = of()
    assert before == of() and before.validation.examples == identity.SAMPLED
    assert len(identity.differences(before, of(seed=1))) == 3
    monkeypatch.setattr(shapes, "VERSION", shapes.VERSION + 1)
    assert len(identity.differences(before, of())) == 2


def test_a_source_that_says_nothing_is_known_by_its_number_and_its_contents():
    class Plain:
        def __init__(self, values):
            self.values, self.fields = values, {"image": data.Field((2, 2, 1), "float32")}

        def __len__(self):
            return len(self.values)

        def __getitem__(self, index):
            return {"image": self.values[index], "caption": "", "index": index}

    values = np.arange(40 * 4, dtype=np.float32).reshape(40, 2, 2, 1)
    other = values.copy()
    other[3] += 1
    assert isinstance(Plain(values), Source)
    before = identity.identify(Plain(values), Plain(values), 8)
    assert len(identity.differences(before, identity.identify(Plain(other), Plain(other), 8))) == 2
    assert identity.differences(before, identity.identify(Plain(values), Plain(values[:-1]), 8)) == [
        "the validation split has 39 examples, and had 40"
    ]


def test_each_of_an_example_s_captions_counts():
    class Captioned:
        fields: ClassVar = {}

        def __init__(self, *captions):
            self.captions = captions

        def __len__(self):
            return len(self.captions)

        def __getitem__(self, index):
            return {"caption": self.captions[index], "index": index}

    every = ["a", data.Captions(("a",), ("b",)), data.Captions(("a", "b")), data.Captions(("a",), ("c",))]
    found = [identity.identify(Captioned(one), Captioned(one), 1).digest() for one in every]
    assert len(set(found)) == len(every)


def test_digits_are_the_same_everywhere():
    splits = [digits.load(split=split, image_size=8) for split in ("train", "validation")]
    found = identity.identify(*splits, 176)
    assert (found.train.count, found.validation.count) == (1437, 180)
    assert found.validation.content == "92d13048eda22bf2ba58300c044b9c18"


@pytest.mark.parametrize("plain", [{}, {"train": {}}, {"train": 3, "validation": 3}, {"train": {"count": "x"}}])
def test_a_record_of_something_else_is_no_identity(plain):
    with pytest.raises((TypeError, KeyError, ValueError)):
        identity.from_dict(plain)
