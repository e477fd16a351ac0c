"""TensorFlow's graphs without TensorFlow: what protobuf's own library wrote, and files that are damaged."""

import numpy as np
import pytest
from embedding_cases import constant, messages
from hypothesis import given
from hypothesis import strategies as st

from rfjax.encoders.embedding.graph_def import read_constants
from rfjax.errors import UserError

VALUES = np.arange(6, dtype=np.float32).reshape(1, 2, 3)


def graph(*names, **others):
    made = messages()["Graph"]()
    for number, name in enumerate(names):
        constant(made, name, VALUES + number, **others)
    return made


def saved(folder, made):
    (folder / "x.pb").write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    return folder / "x.pb"


@given(st.dictionaries(st.text(min_size=1), st.lists(st.integers(1, 4), max_size=4), min_size=1), st.booleans())
def test_constants_are_read_bit_for_bit(tmp_path_factory, shapes, floats):
    made, wanted = messages()["Graph"](), {}
    made.node.add(name="other", op="Conv2D", input=["a", "b"], device="/cpu:0").attr.add(key="T").value.f = 2.5
    for name, shape in shapes.items():
        wanted[name] = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        constant(made, name, wanted[name], floats=floats)
    path = saved(tmp_path_factory.mktemp("graph"), made)
    found = read_constants(path, {name: values.shape for name, values in wanted.items()})
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values, strict=True)


def test_one_value_for_all(tmp_path):
    made = graph("a")
    tensor = made.node[0].attr[1].value.tensor
    tensor.tensor_content = b""
    tensor.float_val.append(1.5)
    np.testing.assert_array_equal(read_constants(saved(tmp_path, made), {"a": (1, 2, 3)})["a"], np.full((1, 2, 3), 1.5))


def test_constants_that_are_not_asked_for_may_be_anything(tmp_path):
    made = graph("a", "b")
    made.node[1].attr[1].value.tensor.dtype = 7  # texts
    assert list(read_constants(saved(tmp_path, made), {"a": (1, 2, 3)})) == ["a"]


@pytest.mark.parametrize(
    ("made", "fault"),
    [
        (b"", "it has no nodes"),
        (b"PK\x03\x04 a zip file", "no TensorFlow graph, or is damaged"),
        (graph("a", dtype=2).SerializeToString(), "'?a'? has the type 2"),
        (graph("b").SerializeToString(), "lacks 1 of 1 constants, such as a"),
        (b"\x0a\xff\xff\xff\xff\x7f", "cut short"),
        (b"\x0a" + b"\xff" * 11, "a number is too long"),
        (b"\x0f\x00", "unknown kind 7"),
        (b"\x02\x00", "no number"),
        (b"\x08\x01", "no nodes"),
        (b"\x0a\x02\x08\x01", "a number stands where a message should"),
    ],
)
def test_damaged_files_are_named(tmp_path, made, fault):
    with pytest.raises(UserError, match=rf"x\.pb.*{fault}"):
        read_constants(saved(tmp_path, made), {"a": (1, 2, 3)})


def test_wrong_shapes_and_lengths(tmp_path):
    path = saved(tmp_path, graph("a"))
    with pytest.raises(UserError, match=r"shape \(1, 2, 3\) where \(3, 2, 1\) was expected"):
        read_constants(path, {"a": (3, 2, 1)})
    made = graph("a")
    made.node[0].attr[1].value.tensor.tensor_content = b"12345"
    with pytest.raises(UserError, match="has 5 bytes for 6 values"):
        read_constants(saved(tmp_path, made), {"a": (1, 2, 3)})


@given(st.integers(0, 200), st.integers(0, 255))
def test_any_change_of_a_byte_is_read_or_refused(tmp_path_factory, place, byte):
    whole = bytearray(graph("a", "b").SerializeToString())
    whole[place % len(whole)] = byte
    path = saved(tmp_path_factory.mktemp("graph"), bytes(whole))
    try:
        found = read_constants(path, {"a": (1, 2, 3), "b": (1, 2, 3)})
    except UserError:
        return
    assert {values.shape for values in found.values()} == {(1, 2, 3)}


@given(st.integers(1, 200))
def test_a_file_that_is_cut_short_is_refused(tmp_path_factory, count):
    whole = graph("a", "b").SerializeToString()
    path = saved(tmp_path_factory.mktemp("graph"), whole[: -(count % len(whole) or 1)])
    with pytest.raises(UserError):
        read_constants(path, {"a": (1, 2, 3), "b": (1, 2, 3)})
