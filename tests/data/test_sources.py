"""A source from outside rfjax: this module, which a config names as MODULE:NAME."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfjax import config as configs
from rfjax import data
from rfjax.data import identity, types
from rfjax.errors import UserError

COUNT = 20
FIELDS = {
    "image": data.Field((4, 6, 3), "uint8", flips=True),
    "features": data.Field((2, 3, 5), "float16", flips=True),
    "vector": data.Field((7,), "float32"),
    "label": data.Field((), "int64"),
}


def array(name: str, index: int) -> np.ndarray:
    field, rng = FIELDS[name], np.random.default_rng([index, len(name)])
    return rng.integers(0, 256, field.shape).astype(field.dtype)


class Mine:
    """Arrays of numbers; `replaced`: what an example has in place of them."""

    def __init__(self, fields: dict[str, data.Field], **replaced: object) -> None:
        self.fields, self.replaced = fields, replaced

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> types.Example:
        arrays = {name: array(name, index) for name in FIELDS}
        return arrays | {"caption": f"number {index}", "index": index} | self.replaced


def open_mine(config: configs.Data, split: str) -> Mine:
    return Mine(FIELDS)


def open_nothing(config: configs.Data, split: str) -> list:
    return [1, 2, 3]


def open_reserved(config: configs.Data, split: str) -> Mine:
    return Mine({"slot": data.Field((), "int32")})


def open_flat(config: configs.Data, split: str) -> Mine:
    return Mine({"vector": data.Field((7,), "float32", flips=True)})


def opened(name: str = "open_mine") -> data.Source:
    return data.open_source(configs.Data(name=f"{__name__}:{name}"), "train")


def prepare(examples: data.Examples) -> dict[str, np.ndarray]:
    numbers = [int(caption.removeprefix("number ")) for caption in examples.captions]
    return examples.arrays | {"number": np.array(numbers)}


@given(
    indices=st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=8),
    names=st.none() | st.sets(st.sampled_from(sorted(FIELDS))).map(sorted),
)
def test_the_fields_that_are_named_are_read_in_the_order_of_the_indices(indices, names):
    arrays, captions = types.take(opened(), indices, names)
    assert set(arrays) == set(FIELDS if names is None else names)
    assert captions == [f"number {index}" for index in indices]
    for name, column in arrays.items():
        assert (column.dtype, column.shape) == (FIELDS[name].dtype, (len(indices), *FIELDS[name].shape))
        np.testing.assert_array_equal(column, [array(name, index) for index in indices])
    batch, _ = data.load(opened(), indices, prepare, names)
    assert set(batch) == {*arrays, "number", "slot"} and batch["number"].tolist() == indices


def test_no_indices_give_arrays_without_rows():
    arrays, captions = types.take(opened(), [])
    assert captions == [] and {name: column.shape[1:] for name, column in arrays.items()} == {
        name: field.shape for name, field in FIELDS.items()
    }


@given(seed=st.integers(0, 1000), start=st.integers(0, 9))
def test_what_flips_is_mirrored_with_the_picture_before_it_is_prepared(seed, start):
    order = data.Order(COUNT, seed, flip=True)
    batch = next(data.batches(opened(), prepare, order, start=start))
    for row, number in enumerate(batch["number"].tolist()):
        # The place in the stream alone decides: the first draw of a generator of (seed, position).
        position = start * COUNT + int(batch["slot"][row])
        mirrored = np.random.Generator(np.random.Philox(key=[seed, position])).random() < 0.5
        for name, field in FIELDS.items():
            expected = array(name, number)
            np.testing.assert_array_equal(
                batch[name][row], expected[..., ::-1, :] if mirrored and field.flips else expected
            )


def test_a_flip_leaves_the_arrays_of_a_source_alone():
    class Whole(Mine):
        def take(self, indices, names=None):
            return kept

    rows = range(COUNT)
    kept = data.Examples({name: np.stack([array(name, index) for index in rows]) for name in FIELDS}, [""] * COUNT)
    for column in kept.arrays.values():
        column.setflags(write=False)
    source = Whole(FIELDS)
    assert isinstance(source, types.Batched)
    batch = next(data.batches(source, lambda examples: examples.arrays, data.Order(COUNT, 0, flip=True)))
    assert not np.array_equal(batch["features"], kept.arrays["features"]) and "slot" not in kept.arrays


def test_fields_of_its_own_are_part_of_what_the_data_are():
    pieces = []
    for index in (0, 1):
        pieces.append(f"number {index}".encode())
        pieces += [array(name, index).tobytes() for name in ("image", "label", "features", "vector")]
    whole = b"".join(len(piece).to_bytes(8, "little") + piece for piece in pieces)
    known = identity.identify(opened(), opened(), 2)
    assert known.validation.content == hashlib.sha256(whole).hexdigest()[: identity.DIGITS]


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        (
            {"vector": np.zeros(7)},
            r"declares 'vector' as float32 of shape \(7,\), and example 3 has float64 of shape \(7,\)",
        ),
        (
            {"label": np.zeros(2, int)},
            r"declares 'label' as int64 of shape \(\), and example 3 has int64 of shape \(2,\)",
        ),
        ({"features": np.zeros((2, 3, 5))}, r"'features' as float16 .* and example 3 has float64"),
        ({"features": None}, r"'features' as float16 of shape \(2, 3, 5\), and example 3 has object of shape \(\)"),
    ],
)
def test_an_example_that_breaks_the_declaration_is_named(replaced, message):
    with pytest.raises(UserError, match=message):
        types.take(Mine(FIELDS, **replaced), [3])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("open_nothing", "opens no source: it needs fields, a length, and examples"),
        ("open_reserved", "no field may have the name 'slot'"),
        ("open_flat", r"'vector' flips, and has no axes \(\.\.\., W, C\)"),
        ("open_other", "has no 'open_other'"),
    ],
)
def test_what_is_no_source_is_one_sentence(name, message):
    with pytest.raises(UserError, match=message):
        opened(name)


def test_an_unknown_name_or_field_is_one_sentence():
    with pytest.raises(UserError, match=r"config.data.name = 'shape' .*did you mean 'shapes'"):
        data.open_source(configs.Data(name="shape"), "train")
    with pytest.raises(UserError, match=r"no field 'feature'; it has: image, features, vector, label"):
        types.take(opened(), [0], ["feature"])
    with pytest.raises(UserError, match="this network came without data"):
        data.open_source(configs.Data(name="none"), "train")
