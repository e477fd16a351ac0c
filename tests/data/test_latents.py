"""A folder of latents in NumPy files: what is read, in which order, and a sentence for each that can't be."""

import itertools
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfjax import config as configs
from rfjax import data
from rfjax.data import arrays, latents, paths, types
from rfjax.data.shapes import Shapes
from rfjax.errors import UserError

SIZE, CHANNELS, COUNT = 4, 2, 23
SHARDS = (5, 0, 17, 1)  # rows of each


def values(dtype=np.float16) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "latents": rng.normal(size=(COUNT, SIZE, SIZE, CHANNELS)).astype(dtype),
        "labels": rng.integers(0, 10, COUNT),
        "context": rng.normal(size=(COUNT, 3, 5)).astype(dtype),
        "pooled": rng.normal(size=(COUNT, 7)).astype(np.float32),
        "features": rng.normal(size=(COUNT, 2, 3, 5)).astype(dtype),
        "captions": [f"Nummer {index}, größer" for index in range(COUNT)],
    }


def write(folder: Path, fields: dict, shards: tuple[int, ...] = ()) -> None:
    """Each field in one file, or in shards of so many rows."""
    folder.mkdir(parents=True, exist_ok=True)
    edges = np.cumsum([0, *shards])
    names = {f"_{i:05}": slice(a, b) for i, (a, b) in enumerate(itertools.pairwise(edges))}
    for name, array in fields.items():
        for suffix, rows in (names or {"": slice(None)}).items():
            if name == "captions":
                (folder / f"{name}{suffix}.txt").write_text("".join(f"{line}\n" for line in array[rows]), "utf-8")
            else:
                np.save(folder / f"{name}{suffix}.npy", array[rows])


def load(path, split="train", **settings) -> latents.Latents:
    plain = {"name": "latents", "path": str(path), "image_size": SIZE, "channels": CHANNELS, "validation_percent": 0.0}
    return latents.open_source(configs.Data(**(plain | settings)), split)


def prepare(examples: data.Examples) -> dict[str, np.ndarray]:
    return dict(examples.arrays)


def channels_first(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[tuple, Path]:
    """{(dtype, shards, channels first): a folder with all fields}."""
    made = {}
    for dtype in (np.float16, np.float32):
        for shards in ((), SHARDS):
            for first in (False, True):
                root, fields = tmp_path_factory.mktemp("latents"), values(dtype)
                if first:
                    fields["latents"] = channels_first(fields["latents"])
                write(root / "train", fields, shards)
                made[dtype, shards, first] = root
    return made


@given(
    dtype=st.sampled_from([np.float16, np.float32]),
    shards=st.sampled_from([(), SHARDS]),
    first=st.booleans(),
    indices=st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=40),
)
def test_any_list_of_indices_gives_what_the_files_hold(folders, dtype, shards, first, indices):
    source, fields = load(folders[dtype, shards, first]), values(dtype)
    assert isinstance(source, types.Batched) and len(source) == COUNT
    taken, captions = source.take(indices)
    assert set(taken) == set(source.fields) == {"latent", "label", "context", "pooled", "features"}
    assert captions == [fields["captions"][index] for index in indices]
    example = source[indices[-1]]
    assert example["index"] == indices[-1] and example["caption"] == captions[-1]
    for file, name in known(fields):
        np.testing.assert_array_equal(taken[name], fields[file][indices])
        np.testing.assert_array_equal(example[name], taken[name][-1])
        assert source.fields[name] == (taken[name].shape[1:], str(fields[file].dtype), name in ("latent", "features"))
        np.testing.assert_array_equal(types.take(source, indices, [name]).arrays.pop(name), taken[name])


@given(st.lists(st.integers(-3, COUNT + 3), min_size=1, max_size=5))
def test_an_index_outside_is_an_error(folders, indices):
    source = load(folders[np.float16, SHARDS, False])
    if all(0 <= index < COUNT for index in indices):
        assert len(source.take(indices).captions) == len(indices)
    else:
        with pytest.raises(IndexError, match=f"is outside of 0 <= index < {COUNT}"):
            source.take(indices)


def test_a_source_taken_at_once_is_the_source_taken_one_by_one():
    class Single:
        def __init__(self, source):
            self.source, self.fields = source, source.fields

        def __len__(self):
            return len(self.source)

        def __getitem__(self, index):
            return self.source[index]

    source = Shapes("train", 16)
    assert isinstance(source, types.Batched) and not isinstance(Single(source), types.Batched)
    at_once, single = source.take([3, 1]), types.take(Single(source), [3, 1])
    assert at_once.captions == single.captions and set(at_once.arrays) == set(single.arrays) == set(source.fields)
    for name in source.fields:
        np.testing.assert_array_equal(at_once.arrays[name], single.arrays[name])


def known(fields):
    return [(file, name) for file, name in latents.FIELDS.items() if file in fields]


def test_batches_keep_what_is_stored(folders):
    source, fields = load(folders[np.float16, SHARDS, True]), values()
    batch, captions = data.load(source, [3, 20], prepare)
    assert batch["latent"].dtype == np.float16 and captions[1] == fields["captions"][20]
    for file, name in known(fields):
        np.testing.assert_array_equal(batch[name], fields[file][[3, 20]])
    stream = data.batches(source, prepare, data.Order(COUNT, 0, flip=True))
    seen = next(stream)["latent"]
    whole = {array.tobytes() for x in fields["latents"] for array in (x, np.ascontiguousarray(x[:, ::-1]))}
    assert len({image.tobytes() for image in seen}) == COUNT and {image.tobytes() for image in seen} <= whole


def test_a_label_is_its_caption_where_there_is_none(tmp_path):
    fields = values()
    write(tmp_path / "train", {name: fields[name] for name in ("latents", "labels")})
    source = load(tmp_path)
    assert source[4]["caption"] == str(fields["labels"][4]) and set(source.fields) == {"latent", "label"}
    arrays, captions = source.take([4], ["latent"])
    assert captions == [str(fields["labels"][4])] and set(arrays) == {"latent"}
    write(tmp_path / "train", {"captions": fields["captions"]})
    (tmp_path / "train" / "labels.npy").unlink()
    assert set(load(tmp_path).fields) == {"latent"}
    with pytest.raises(UserError, match=r"the data set has no field 'label'; it has: latent"):
        data.load(load(tmp_path), [0], prepare, ["label"])


def test_captions_without_a_last_newline_or_with_others(tmp_path):
    write(tmp_path / "train", {"latents": values()["latents"][:4]})
    (tmp_path / "train" / "captions.txt").write_bytes("\ufeffone\r\n\n three \nfour".encode())
    assert load(tmp_path).take(range(4)).captions == ["one", "", "three", "four"]
    (tmp_path / "train" / "captions.txt").write_bytes(b"one\ntwo\n\xff\nfour\n")
    with pytest.raises(UserError, match=r"captions.txt' line 3 is not UTF-8"):
        load(tmp_path)[2]


def test_pickles_and_threads_give_the_same(folders):
    source, fields = load(folders[np.float16, SHARDS, False]), values()
    text = pickle.dumps(source)
    assert len(text) < 4000  # no array is in it
    rng = np.random.default_rng(0)
    asked = [rng.integers(0, COUNT, 16) for _ in range(100)]
    with ThreadPoolExecutor(8) as pool:
        for each in (source, pickle.loads(text)):
            for indices, found in zip(asked, pool.map(each.take, asked), strict=True):
                np.testing.assert_array_equal(found.arrays["latent"], fields["latents"][indices])


def test_a_share_of_training_is_the_validation_where_it_has_no_folder(tmp_path):
    fields = values()
    marked = {"latents": fields["latents"], "labels": np.arange(COUNT)}
    write(tmp_path / "train", marked, (5, 18))
    splits = {split: load(tmp_path, split, validation_percent=30.0) for split in ("train", "validation")}
    labels = {split: source.take(range(len(source))).arrays["label"] for split, source in splits.items()}
    assert sorted(np.concatenate(list(labels.values()))) == list(range(COUNT)) and 0 < len(labels["validation"]) < COUNT
    np.testing.assert_array_equal(splits["validation"][0]["latent"], fields["latents"][labels["validation"][0]])
    for name in ("latents", "labels"):  # another shard comes
        np.save(tmp_path / "train" / f"{name}_00002.npy", marked[name])
    more = load(tmp_path, "validation", validation_percent=30.0)
    np.testing.assert_array_equal(more.take(range(len(splits["validation"]))).arrays["label"], labels["validation"])
    write(tmp_path / "validation", marked)
    assert len(load(tmp_path, "validation")) == COUNT and len(load(tmp_path, validation_percent=30.0)) == 2 * COUNT


def test_the_share_is_the_one_asked_for(tmp_path):
    write(tmp_path / "train", {"latents": np.zeros((20000, 1, 1, 2), np.float16), "labels": np.zeros(20000, int)})
    found = len(load(tmp_path, "validation", image_size=1, validation_percent=5.0))
    assert abs(found - 1000) < 4 * np.sqrt(20000 * 0.05 * 0.95)
    with pytest.raises(UserError, match=r"is empty: of 20000 latents, validation_percent = 0 leaves none to it"):
        load(tmp_path, "validation", image_size=1)


def test_the_order_of_the_axes_is_asked_for_where_the_shape_does_not_show_it(tmp_path):
    cube = np.random.default_rng(0).normal(size=(3, 4, 4, 4)).astype(np.float32)
    write(tmp_path / "train", {"latents": cube, "labels": np.zeros(3, int)})
    with pytest.raises(UserError, match=r"nothing shows which axis is the channels: set config.data.layout = 'nchw'"):
        load(tmp_path, channels=4)
    np.testing.assert_array_equal(load(tmp_path, channels=4, layout="nhwc")[1]["latent"], cube[1])
    turned = load(tmp_path, channels=4, layout="nchw")[1]["latent"]
    np.testing.assert_array_equal(turned, cube[1].transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 8}, r"of shape \(4, 4, 2\), but .*image_size = 8 .* say \(8, 8, 2\): set them to 4 and 2"),
        ({"channels": 4}, r"say \(4, 4, 4\): set them to 4 and 2"),
        ({"layout": "nchw"}, r"say \(2, 4, 4\)$"),
        ({"split": "tran"}, "did you mean 'train'"),
        ({"split": "test"}, r"has no folder 'test' \(choose from: train\)"),
    ],
)
def test_what_the_config_says_is_compared(folders, settings, message):
    with pytest.raises(UserError, match=message):
        load(folders[np.float16, (), False], **settings)
    if settings == {"channels": 4}:
        with pytest.raises(UserError, match="set them to 4 and 2"):
            load(folders[np.float16, (), True], **settings)


def damaged(folder: Path, name: str, array: np.ndarray) -> None:
    np.save(folder / name, array, allow_pickle=True)


def header(shape: str) -> bytes:
    """The beginning of a .npy file that claims this shape, and 64 bytes."""
    text = f"{{'descr': '<f2', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + bytes(64)


BAD = {
    "no latents": (lambda f: (f / "latents.npy").rename(f / "latent.npy"), r"no latents.npy.*mean 'latent.npy'"),
    "no text": (lambda f: (f / "labels.npy").unlink(), "says nothing about its latents: put labels.npy, context.npy"),
    "context alone": (lambda f: damaged(f, "context.npy", values()["context"]), "has context and no pooled"),
    "pooled alone": (lambda f: damaged(f, "pooled.npy", values()["pooled"]), "has pooled and no context"),
    "whole and shards": (
        lambda f: damaged(f, "latents_0.npy", values()["latents"]),
        "has latents.npy and latents_0.npy: keep the whole or its shards",
    ),
    "another shard": (
        lambda f: damaged(f, "labels_1.npy", values()["labels"]),
        "has labels_1.npy and no latents_1.npy",
    ),
    "length": (lambda f: damaged(f, "labels.npy", values()["labels"][:-1]), "has 22 rows, and 'latents.npy' has 23"),
    "lines": (lambda f: (f / "captions.txt").write_text("a\nb"), "captions.txt' has 2 rows, and 'latents.npy' has 23"),
    "no lines": (lambda f: (f / "captions.txt").write_text(""), "captions.txt' has 0 rows"),
    "float64": (
        lambda f: damaged(f, "latents.npy", np.zeros((COUNT, 4, 4, 2))),
        "float64, and latents must be float16",
    ),
    "bytes": (
        lambda f: damaged(f, "latents.npy", np.zeros((COUNT, 4, 4, 2), "u1")),
        "uint8, and latents must be float",
    ),
    "foreign bytes": (lambda f: damaged(f, "latents.npy", values(">f2")["latents"]), "holds >f2"),
    "float labels": (lambda f: damaged(f, "labels.npy", np.zeros(COUNT)), "float64, and labels must be integers"),
    "two axes": (
        lambda f: damaged(f, "labels.npy", np.zeros((COUNT, 1), int)),
        r"\(23, 1\), and labels must be 1-d",
    ),
    "negative": (lambda f: damaged(f, "labels.npy", np.arange(COUNT) - 1), "has label -1 in row 0: labels are numbers"),
    "objects": (lambda f: damaged(f, "labels.npy", np.array([{}] * COUNT)), "not a whole .npy file .*Python objects"),
    "a pickle": (lambda f: (f / "latents.npy").write_bytes(pickle.dumps([1])), "latents.npy' is not a whole .npy file"),
    "an empty file": (lambda f: (f / "latents.npy").write_bytes(b""), "latents.npy' is not a whole .npy file"),
    "a folder": (
        lambda f: [(f / "labels.npy").unlink(), (f / "labels.npy").mkdir()],
        "labels.npy is a folder, and must be a file",
    ),
    "a FIFO": (
        lambda f: [(f / "labels.npy").unlink(), os.mkfifo(f / "labels.npy")],
        "labels.npy is a FIFO, and must be a file",
    ),
    "a device": (lambda f: (f / "captions.txt").symlink_to("/dev/zero"), "names a file outside of"),
    "a link": (
        lambda f: [
            (f / "labels.npy").rename(f.parent.parent / "labels.npy"),
            (f / "labels.npy").symlink_to(f.parent.parent / "labels.npy"),
        ],
        r"names a file outside of '.*', such as 'train/labels.npy'.*set config.data.outside = True",
    ),
    "a shape beyond numbers": (
        lambda f: (f / "latents.npy").write_bytes(header(f"({10**30}, 4, 4, 2)")),
        "latents.npy' is not a whole .npy file",
    ),
    "a shape beyond memory": (
        lambda f: (f / "latents.npy").write_bytes(header(f"({10**12}, 4, 4, 2)")),
        "latents.npy' is not a whole .npy file",
    ),
    "a negative shape": (
        lambda f: (f / "latents.npy").write_bytes(header("(-1, 4, 4, 2)")),
        "latents.npy' is not a whole .npy file",
    ),
    "a nested header": (
        lambda f: (f / "latents.npy").write_bytes(header("(" * 9000)),
        "latents.npy' is not a whole .npy file",
    ),
    "a long header": (
        lambda f: (f / "latents.npy").write_bytes(b"\x93NUMPY\2\0" + (2**31).to_bytes(4, "little")),
        r"latents.npy' is not a whole .npy file of plain numbers \(a header of 2,147,483,648 bytes\)",
    ),
    "UTF-16": (lambda f: (f / "captions.txt").write_text("a\n" * COUNT, "utf-16"), "captions.txt' is UTF-16: save it"),
    "not UTF-8": (
        lambda f: (f / "captions.txt").write_bytes(b"a\n" * 4 + b"caf\xe9\n" + b"a\n" * (COUNT - 5)),
        "captions.txt' line 5 is not UTF-8",
    ),
    "cut UTF-8": (
        lambda f: (f / "captions.txt").write_bytes(b"a\n" * (COUNT - 1) + b"caf\xc3"),
        f"captions.txt' line {COUNT} is not UTF-8",
    ),
    "truncated": (
        lambda f: (f / "latents.npy").write_bytes((f / "latents.npy").read_bytes()[:-1]),
        r"latents.npy' is not a whole .npy file of plain numbers \(mmap length is greater than file size\)",
    ),
    "Fortran": (lambda f: damaged(f, "latents.npy", np.asfortranarray(values()["latents"])), "is in Fortran order"),
    "no rows": (
        lambda f: [damaged(f, f"{name}.npy", values()[name][:0]) for name in ("latents", "labels")],
        "holds no latents",
    ),
}


@pytest.mark.parametrize("how", BAD)
def test_bad_files_are_one_sentence(tmp_path, how):
    write(tmp_path / "data" / "train", {name: values()[name] for name in ("latents", "labels")})
    damage, message = BAD[how]
    damage(tmp_path / "data" / "train")
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path / "data")
    assert "\n" not in str(caught.value)


def test_shards_that_differ_are_named(tmp_path):
    fields = {name: values()[name] for name in ("latents", "labels")}
    write(tmp_path / "train", fields, (11, 12))
    file = tmp_path / "train" / "latents_00001.npy"
    for other in (fields["latents"][:12].astype(np.float32), fields["latents"][:12, :2]):
        np.save(file, other)
        with pytest.raises(UserError, match=r"latents_00001.npy' holds float.*write all shards alike"):
            load(tmp_path)
    file.unlink()
    with pytest.raises(UserError, match=r"has labels_00001.npy and no latents_00001.npy"):
        load(tmp_path)


def test_missing_folders_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"there is no folder '.*nowhere'"):
        load(tmp_path / "nowhere")
    write(tmp_path, {"latents": values()["latents"]})
    with pytest.raises(UserError, match=r"has no folder 'train': move its files into"):
        load(tmp_path)


@given(
    st.sampled_from([np.float16, np.float32]),
    st.sampled_from(["latents", "pooled"]),
    st.sampled_from([np.nan, np.inf, -np.inf]),
    st.integers(0, COUNT - 1),
)
def test_a_number_that_is_not_finite_is_named_when_it_is_read(tmp_path_factory, dtype, name, wrong, row):
    fields = values(dtype)
    fields[name].reshape(COUNT, -1)[row, -1] = wrong
    folder = tmp_path_factory.mktemp("wrong")
    write(folder / "train", fields, SHARDS)
    shard, place = (0, row) if row < SHARDS[0] else (2, row - 5) if row < COUNT - 1 else (3, 0)
    source = load(folder)
    assert len(source.take([i for i in range(COUNT) if i != row]).captions) == COUNT - 1
    with pytest.raises(UserError, match=rf"{name}_0000{shard}.npy' holds numbers that are not finite in row {place} "):
        source.take(range(COUNT))


@given(st.lists(st.floats(width=16), min_size=1))
def test_the_largest_numbers_are_finite(numbers):
    for dtype in (np.float16, np.float32):
        found = np.array([*numbers, np.finfo(dtype).max, np.finfo(dtype).min], dtype)
        assert arrays.finite(found) == np.isfinite(found).all()


def test_the_config_opens_it(folders):
    c = configs.default()
    c.data.update(name="latents", path=str(folders[np.float16, (), True]), image_size=SIZE, channels=CHANNELS)
    c.data.validation_percent = 50.0
    config = configs.parse(c)
    assert len(data.open_source(config.data, "train")) + len(data.open_source(config.data, "validation")) == COUNT
    c.data.path = ""
    with pytest.raises(UserError, match=r"config.data.path must name the folder of train/latents.npy"):
        configs.parse(c)


def test_a_link_to_another_place_is_read_where_a_key_allows_it(tmp_path):
    write(tmp_path / "elsewhere", {name: values()[name] for name in ("latents", "labels")})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"names 2 files outside of"):
        load(tmp_path / "data", validation_percent=0.0)
    assert len(load(tmp_path / "data", validation_percent=0.0, outside=True)) == COUNT


def test_what_takes_more_memory_than_there_is_is_known_when_it_is_opened(tmp_path, monkeypatch):
    write(tmp_path / "train", {name: values()[name] for name in ("latents", "labels")})
    monkeypatch.setattr(paths.memory, "installed", lambda: 9 * COUNT - 1)
    with pytest.raises(UserError, match=r"the list of the rows .* GiB of memory, and there are .*make a folder"):
        load(tmp_path)
    (tmp_path / "train" / "captions.txt").write_text("\n" * 1000)
    with pytest.raises(UserError, match=r"the list of the lines .* GiB of memory"):
        load(tmp_path)


def test_lines_are_found_across_the_blocks_of_a_long_text(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "_BLOCK", 5)
    texts = [f"größe {i} 猫" for i in range(COUNT)]
    write(tmp_path / "train", {"latents": values()["latents"]})
    (tmp_path / "train" / "captions.txt").write_text("\n".join(texts), "utf-8")
    assert load(tmp_path, validation_percent=0.0).take(range(COUNT)).captions == texts
